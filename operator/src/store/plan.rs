//! Parses a store object into a plan: what to fetch, who may read what, and which risks were taken on purpose.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use keyward_core::fault::{Class, Fault};
use keyward_core::reason::Reason;
use keyward_core::sync::grant::AccessRule;
use keyward_core::sync::grant::selector::{Requirement, Selector};
use keyward_crds::store::{BarbicanStore, Insecure, VaultStore};
use keyward_crds::{Backend, ClusterSecretStore, CredentialScope, SecretStore, StoreStatus};

use super::StoreKey;
use crate::cluster::ObjectKey;
use crate::stores::Outcome;

/// An insecure choice that the administrator may allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, clap::ValueEnum)]
pub enum InsecureChoice {
    /// Stores over plain http.
    PlainHttp,
    /// Stores whose certificate is not verified.
    SkipTlsVerify,
    /// ServiceAccount tokens with the API server's own audience.
    ApiServerAudience,
}

impl InsecureChoice {
    /// Every choice.
    pub const ALL: [Self; 3] = [Self::PlainHttp, Self::SkipTlsVerify, Self::ApiServerAudience];

    /// The choice as it is written under `insecure:`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::PlainHttp => "plainHttp",
            Self::SkipTlsVerify => "skipTlsVerify",
            Self::ApiServerAudience => "apiServerAudience",
        }
    }
}

/// A store object of either kind, as far as they are alike.
#[derive(Clone)]
pub struct StoreObject {
    /// Which object.
    pub key: StoreKey,
    /// The environment it belongs to.
    pub environment: Option<String>,
    /// Vault or OpenBao.
    pub vault: Option<VaultStore>,
    /// Barbican.
    pub barbican: Option<BarbicanStore>,
    /// What was weakened.
    pub insecure: Option<Insecure>,
    /// Whose credentials are used.
    pub credentials: CredentialHome,
    /// Who may read what; `None` for a store that belongs to one namespace.
    pub access: Option<Arc<[AccessRule]>>,
    /// Its status as last seen.
    pub status: Option<StoreStatus>,
}

/// The namespace whose Secrets, ConfigMaps and ServiceAccounts a store uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CredentialHome {
    /// This one.
    Namespace(Arc<str>),
    /// That of whoever reads. CAs of such a store are inline.
    Consumer,
}

impl StoreObject {
    /// Takes over a `SecretStore`.
    #[must_use]
    pub fn of_namespace(key: StoreKey, store: SecretStore) -> Self {
        let home = CredentialHome::Namespace(Arc::clone(&key.object.namespace));
        Self::new(key, store.spec.backend, home, None, store.status)
    }

    /// Takes over a `ClusterSecretStore`.
    ///
    /// # Errors
    /// `SpecInvalid` where an access rule cannot be read: the whole store is refused then, because a rule that is
    /// left out could be the one that narrows.
    pub fn of_cluster(key: StoreKey, store: ClusterSecretStore) -> Outcome<Self> {
        let credentials = match (store.spec.credentials.from, store.spec.credentials.namespace) {
            (CredentialScope::Consumer, _) => CredentialHome::Consumer,
            (CredentialScope::Namespace, Some(namespace)) => CredentialHome::Namespace(namespace.into()),
            (CredentialScope::Namespace, None) => {
                return Err(invalid("spec.credentials names no namespace"));
            }
        };
        let access = store
            .spec
            .access
            .into_iter()
            .map(parse_rule)
            .collect::<Outcome<Vec<_>>>()?;
        Ok(Self::new(
            key,
            store.spec.backend,
            credentials,
            Some(access.into()),
            store.status,
        ))
    }

    fn new(
        key: StoreKey,
        backend: Backend,
        credentials: CredentialHome,
        access: Option<Arc<[AccessRule]>>,
        status: Option<StoreStatus>,
    ) -> Self {
        Self {
            key,
            environment: backend.environment,
            vault: backend.vault,
            barbican: backend.barbican,
            insecure: backend.insecure,
            credentials,
            access,
            status,
        }
    }

    /// Refuses insecure choices that are not allowed or have ended.
    ///
    /// # Errors
    /// `InsecureRefused` or `InsecureExpired`.
    pub fn check_insecure(&self, allowed: &[InsecureChoice], now: DateTime<Utc>) -> Outcome<()> {
        let Some(insecure) = &self.insecure else {
            return Ok(());
        };
        if insecure.expires <= now {
            return Err(Fault::new(
                Class::Permanent,
                Reason::InsecureExpired,
                format!(
                    "the exception under spec.insecure ended at {}",
                    insecure.expires.to_rfc3339()
                ),
            )
            .advise("remove it, or extend it with a new reason"));
        }
        for choice in self.insecure_choices() {
            if !allowed.contains(&choice) {
                return Err(Fault::new(
                    Class::Permanent,
                    Reason::InsecureRefused,
                    format!(
                        "spec.insecure.{} is not allowed by the administrator",
                        choice.as_str()
                    ),
                )
                .advise("use the secure setting, or ask for `--allow-insecure` of the operator"));
            }
        }
        Ok(())
    }

    /// The insecure choices in the spec.
    #[must_use]
    pub fn insecure_choices(&self) -> Vec<InsecureChoice> {
        let Some(insecure) = &self.insecure else {
            return Vec::new();
        };
        [
            (insecure.plain_http, InsecureChoice::PlainHttp),
            (insecure.skip_tls_verify, InsecureChoice::SkipTlsVerify),
            (insecure.api_server_audience, InsecureChoice::ApiServerAudience),
        ]
        .into_iter()
        .filter_map(|(chosen, choice)| chosen.then_some(choice))
        .collect()
    }

    /// Whether an insecure choice is part of the spec.
    #[must_use]
    pub fn allows(&self, choice: InsecureChoice) -> bool {
        self.insecure_choices().contains(&choice)
    }

    /// The home of credentials for a reader in `namespace`.
    #[must_use]
    pub fn home_for(&self, namespace: &str) -> ObjectKey {
        match &self.credentials {
            CredentialHome::Namespace(home) => ObjectKey::new(Arc::clone(home), ""),
            CredentialHome::Consumer => ObjectKey::new(namespace, ""),
        }
    }
}

fn parse_rule(rule: keyward_crds::AccessRule) -> Outcome<AccessRule> {
    let selector = match rule.selector {
        None => None,
        Some(selector) => {
            let expressions = selector.match_expressions.unwrap_or_default();
            let parsed = expressions.iter().map(|requirement| {
                let values = requirement.values.clone().unwrap_or_default();
                Requirement::parse(&requirement.key, &requirement.operator, &values).ok_or_else(|| {
                    invalid(format!(
                        "access rule `{}`: the selector on `{}` is not understood",
                        rule.name, requirement.key
                    ))
                })
            });
            Some(Selector {
                match_labels: selector.match_labels.unwrap_or_default(),
                expressions: parsed.collect::<Outcome<_>>()?,
            })
        }
    };
    AccessRule::new(rule.name.as_str(), rule.namespaces, selector, &rule.paths)
        .map_err(|error| invalid(format!("access rule `{}`: {error}", rule.name)))
}

fn invalid(message: impl Into<std::borrow::Cow<'static, str>>) -> Fault {
    Fault::new(Class::Permanent, Reason::SpecInvalid, message)
}
