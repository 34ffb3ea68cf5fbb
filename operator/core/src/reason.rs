//! The one fixed list of reasons, used by conditions, events, metrics and the reference page alike.

/// Why a condition holds or an event was sent. The spelling is API: dashboards and alerts match on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// The Secret holds what the stores hold.
    Synced,
    /// `mode: Observe`: nothing is written; the message says what would change.
    Observed,
    /// The object is suspended and left as it is.
    Suspended,
    /// The object's spec contradicts itself in a way the schema cannot say, or holds what this version does not know.
    SpecInvalid,
    /// The store is usable: address, TLS, login and mount were seen to work.
    StoreReady,
    /// The named store does not exist.
    StoreNotFound,
    /// The store exists and does not work; its own condition says why.
    StoreNotReady,
    /// The cluster store has no access rule for this namespace.
    NamespaceRefused,
    /// No access rule of the cluster store covers this remote path for this namespace.
    PathRefused,
    /// Store and namespace are labelled with different environments.
    EnvironmentRefused,
    /// The administrator does not allow stores at this address.
    AddressRefused,
    /// An insecure choice was made that the administrator does not allow.
    InsecureRefused,
    /// An insecure choice has passed its expiry.
    InsecureExpired,
    /// An insecure choice is in use.
    Insecure,
    /// A referenced credential, CA or ServiceAccount does not exist or lacks a key.
    CredentialMissing,
    /// The ServiceAccount has not opted in to being used by Keyward.
    CredentialNotGranted,
    /// The store refused the login; it is repeated rarely, or not until the credential changes.
    CredentialRejected,
    /// The login is not sent yet: too many others of its user were refused, and the next could lock the user out.
    LoginDelayed,
    /// The TLS handshake failed: unknown CA or another server name.
    TlsFailed,
    /// The store could not be reached or answered with a server error.
    StoreUnavailable,
    /// The store asked to be called less often.
    StoreThrottled,
    /// The store is sealed or not initialised.
    StoreSealed,
    /// The store answered something Keyward does not understand.
    StoreProtocol,
    /// The login works and the read is denied by the store's policy.
    RemoteDenied,
    /// The remote path or name is not there and the store does not say it ever was.
    RemoteNotFound,
    /// The store reports the value as deleted.
    RemoteDeleted,
    /// The store reports the value as destroyed.
    RemoteDestroyed,
    /// The store reports the value as expired.
    RemoteExpired,
    /// The remote object exists and holds no value yet.
    RemoteEmpty,
    /// The remote value expires soon.
    RemoteExpiring,
    /// The remote value is larger than the caps allow.
    RemoteTooLarge,
    /// A search matched more than its cap.
    FindLimit,
    /// A chosen field is not in the remote value.
    FieldNotFound,
    /// A value could not be decoded as declared.
    DecodeFailed,
    /// Two sources give the same key and the conflict rule is `Fail`.
    KeyConflict,
    /// A key name is one that Kubernetes refuses.
    KeyInvalid,
    /// A template does not parse, names a missing value or failed.
    TemplateFailed,
    /// A template ran over its step or output limit.
    TemplateLimit,
    /// The resulting Secret is larger than Kubernetes accepts.
    SecretTooLarge,
    /// The Secret type is one Keyward never writes.
    TypeRefused,
    /// The existing Secret has another, immutable type.
    TypeConflict,
    /// A Secret of this name exists and is not ours to write.
    SecretNotOwned,
    /// Another field manager owns a key we would write.
    KeyOwnedByOther,
    /// The Secret is marked immutable.
    SecretImmutable,
    /// Keys or the Secret were removed because the store reported the value deleted or destroyed.
    SecretRemoved,
    /// The remote version went backwards; the last value is kept until acknowledged.
    VersionRegressed,
    /// The remote secret was deleted and made anew; its new lineage is taken.
    NewLineage,
    /// A new value was written to the Secret.
    SecretUpdated,
    /// The Secret was changed or deleted by somebody else and was put right.
    DriftRepaired,
    /// Consumers are being restarted with the new value.
    RolloutProgressing,
    /// Every consumer runs with the current value.
    RolloutComplete,
    /// A consumer to restart does not exist.
    RolloutTargetMissing,
    /// A rollout does not move.
    RolloutStalled,
    /// The Kubernetes API server refused or failed; the operation is repeated.
    ClusterUnavailable,
    /// The operator's own rights do not cover what is asked.
    ClusterDenied,
    /// A quota, a webhook or a policy of the cluster refuses what is written.
    AdmissionRefused,
    /// Something changed underneath; the object is planned anew.
    Conflict,
}

impl Reason {
    /// Every reason, in the order of the reference page.
    pub const ALL: &'static [Self] = &[
        Self::Synced,
        Self::Observed,
        Self::Suspended,
        Self::SpecInvalid,
        Self::StoreReady,
        Self::StoreNotFound,
        Self::StoreNotReady,
        Self::NamespaceRefused,
        Self::PathRefused,
        Self::EnvironmentRefused,
        Self::AddressRefused,
        Self::InsecureRefused,
        Self::InsecureExpired,
        Self::Insecure,
        Self::CredentialMissing,
        Self::CredentialNotGranted,
        Self::CredentialRejected,
        Self::LoginDelayed,
        Self::TlsFailed,
        Self::StoreUnavailable,
        Self::StoreThrottled,
        Self::StoreSealed,
        Self::StoreProtocol,
        Self::RemoteDenied,
        Self::RemoteNotFound,
        Self::RemoteDeleted,
        Self::RemoteDestroyed,
        Self::RemoteExpired,
        Self::RemoteEmpty,
        Self::RemoteExpiring,
        Self::RemoteTooLarge,
        Self::FindLimit,
        Self::FieldNotFound,
        Self::DecodeFailed,
        Self::KeyConflict,
        Self::KeyInvalid,
        Self::TemplateFailed,
        Self::TemplateLimit,
        Self::SecretTooLarge,
        Self::TypeRefused,
        Self::TypeConflict,
        Self::SecretNotOwned,
        Self::KeyOwnedByOther,
        Self::SecretImmutable,
        Self::SecretRemoved,
        Self::VersionRegressed,
        Self::NewLineage,
        Self::SecretUpdated,
        Self::DriftRepaired,
        Self::RolloutProgressing,
        Self::RolloutComplete,
        Self::RolloutTargetMissing,
        Self::RolloutStalled,
        Self::ClusterUnavailable,
        Self::ClusterDenied,
        Self::AdmissionRefused,
        Self::Conflict,
    ];

    /// The reason as it is written in conditions, events and metric labels.
    #[must_use]
    pub fn as_str(self) -> String {
        format!("{self:?}")
    }

    /// The reason of that spelling.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|reason| reason.as_str() == name)
    }

    /// Whether this is about the credential that a reader brings, and says nothing of the store.
    #[must_use]
    pub fn is_of_the_credential(self) -> bool {
        matches!(
            self,
            Self::CredentialMissing
                | Self::CredentialNotGranted
                | Self::CredentialRejected
                | Self::LoginDelayed
        )
    }

    /// Whether it was the Kubernetes API server that refused or failed.
    #[must_use]
    pub fn is_of_the_cluster(self) -> bool {
        matches!(self, Self::ClusterUnavailable | Self::ClusterDenied)
    }

    /// Whether this is said of everything that reads from a store at once, because the store itself does not work.
    #[must_use]
    pub fn is_of_the_whole_store(self) -> bool {
        matches!(
            self,
            Self::StoreNotReady | Self::StoreUnavailable | Self::StoreSealed | Self::StoreThrottled
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_fit_the_condition_pattern() {
        // meta/v1 Condition: ^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$
        for reason in Reason::ALL {
            assert!(
                reason.as_str().chars().all(|c| c.is_ascii_alphanumeric()),
                "{reason:?}"
            );
        }
    }

    #[test]
    fn the_list_has_no_duplicates() {
        let distinct: std::collections::BTreeSet<_> = Reason::ALL.iter().collect();
        assert_eq!(distinct.len(), Reason::ALL.len());
        for reason in Reason::ALL {
            assert_eq!(Reason::named(&reason.as_str()), Some(*reason));
        }
        assert_eq!(Reason::named("Elsewhere"), None);
    }
}
