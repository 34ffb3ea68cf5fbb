//! What Keyward's writes rely on in the API server: preconditions, owners of fields, refusals, the lease.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use chrono::DateTime;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use keyward::cluster::lease::{Candidate, LeaseTiming};
use keyward::cluster::state::{OperatorState, STATE_SECRET};
use keyward::cluster::{
    ApiAudiences, Applied, ClusterReader, Mark, ObjectKey, Precondition, RolloutWriter, SecretApply,
    SecretWriter, ServiceAccountTokens, StatusWrite, StatusWriter,
};
use keyward::stores::JwtSource as _;
use keyward_core::fault::{Class, Fault};
use keyward_core::logins::{Known, Login, Step};
use keyward_core::reason::Reason;
use keyward_crds::SyncedSecret;
use keyward_crds::synced_secret::{ConsumerKind, SyncedSecretStatus};
use keyward_stand_ins::http::StandIn;
use keyward_stand_ins::kubernetes::ApiServer;
use keyward_tests::harness::{Case, Suite};
use kube::Client;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// Registers cases twice: against the real server and against the stand-in.
macro_rules! cases {
    ($suite:expr, $($case:ident),+ $(,)?) => { $(
        $suite.add(concat!(module_path!(), "::real"), stringify!($case), |case| async move {
            $case(Server::real(&case).await?).await
        });
        $suite.add(concat!(module_path!(), "::stand_in"), stringify!($case), |_| async move {
            $case(Server::stand_in().await?).await
        });
    )+ };
}

pub(super) fn register(suite: &mut Suite) {
    cases!(
        suite,
        a_secret_is_made_only_where_there_is_none,
        a_write_lands_only_on_what_it_was_planned_on,
        a_key_of_another_manager_is_named_and_taken_by_force_alone,
        a_release_leaves_what_others_own,
        a_release_leaves_what_nobody_owns,
        what_a_secret_may_not_be_has_a_reason_of_ours,
        a_status_lands_only_on_the_object_that_was_meant,
        a_restart_lands_only_on_what_it_was_planned_on,
        a_token_is_given_where_the_account_consents,
        a_lease_is_held_by_one_and_handed_over,
        what_the_operator_must_remember_is_kept_and_shared,
        what_the_operator_must_remember_is_kept_after_a_restore,
    );
}

/// A server to hold against the contract, and a namespace there.
struct Server {
    client: Client,
    namespace: String,
    /// Kept, because it ends when dropped.
    _stand_in: Option<StandIn>,
}

impl Server {
    async fn real(case: &Case) -> Result<Self> {
        Ok(Self {
            client: case.kubernetes().await?.client(),
            namespace: case.namespace().await?,
            _stand_in: None,
        })
    }

    async fn stand_in() -> Result<Self> {
        let stand_in = ApiServer::default().serve().await;
        let config = kube::Config::new(stand_in.url().as_str().parse()?);
        Ok(Self {
            client: Client::try_from(config)?,
            namespace: "apps".to_owned(),
            _stand_in: Some(stand_in),
        })
    }

    fn key(&self, name: &str) -> ObjectKey {
        ObjectKey::new(self.namespace.as_str(), name)
    }

    async fn apply(&self, wanted: &Wanted<'_>) -> Result<Applied, Fault> {
        let own = |(key, value): &(&str, &[u8])| ((*key).to_owned(), value.to_vec().into());
        let data: keyward_core::secret::SecretMap = wanted.data.iter().map(own).collect();
        SecretWriter::new(self.client.clone())
            .apply(&SecretApply {
                key: &self.key("db"),
                precondition: wanted.precondition,
                data: &data,
                secret_type: wanted.kind,
                labels: &BTreeMap::new(),
                annotations: &BTreeMap::new(),
                mark: Mark::Owner("db"),
                force: wanted.force,
            })
            .await
    }

    /// Another manager applies Secret `db`.
    async fn helm_applies(&self, values: &Value) -> Result<()> {
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "db"}, "data": values,
        });
        self.secrets()
            .patch("db", &PatchParams::apply("helm"), &Patch::Apply(secret))
            .await?;
        Ok(())
    }

    fn secrets(&self) -> Api<Secret> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }
}

/// What Keyward is to write into Secret `db`.
#[derive(Clone, Copy)]
struct Wanted<'a> {
    precondition: &'a Precondition,
    data: &'a [(&'a str, &'a [u8])],
    kind: Option<&'a str>,
    force: bool,
}

impl<'a> Wanted<'a> {
    fn new(precondition: &'a Precondition, data: &'a [(&'a str, &'a [u8])]) -> Self {
        Self {
            precondition,
            data,
            kind: None,
            force: false,
        }
    }
}

fn unchanged(applied: &Applied) -> Precondition {
    Precondition::Unchanged {
        uid: applied.uid.clone(),
        resource_version: applied.resource_version.clone(),
    }
}

fn refused<T>(outcome: Result<T, Fault>, class: Class, reason: Reason) -> Result<Fault> {
    let fault = outcome.err().context("it must be refused")?;
    ensure!(
        (fault.class, fault.reason) == (class, reason),
        "{:?} {:?}: {fault}",
        fault.class,
        fault.reason
    );
    ensure!(
        fault.request_id.is_some(),
        "a refusal has the id by which the server knows it"
    );
    Ok(fault)
}

async fn a_secret_is_made_only_where_there_is_none(server: Server) -> Result<()> {
    let reader = ClusterReader::new(server.client.clone());
    ensure!(reader.secret(&server.key("db")).await?.is_none());
    let values: [(&str, &[u8]); 2] = [("password", b"\x00\xff"), ("empty", b"")];
    let wanted = Wanted::new(&Precondition::Absent, &values);
    let made = server.apply(&wanted).await?;
    ensure!(made.created);
    refused(server.apply(&wanted).await, Class::Conflict, Reason::Conflict)?;
    let stored = reader.secret(&server.key("db")).await?.context("it was made")?;
    ensure!(stored.data["password"].same_as(b"\x00\xff") && stored.data["empty"].is_empty());
    assert_eq!(stored.owner.as_deref(), Some("db"));
    Ok(())
}

async fn a_write_lands_only_on_what_it_was_planned_on(server: Server) -> Result<()> {
    let made = server
        .apply(&Wanted::new(&Precondition::Absent, &[("a", b"1")]))
        .await?;
    let planned = unchanged(&made);
    let same = server.apply(&Wanted::new(&planned, &[("a", b"1")])).await?;
    assert_eq!(
        same.resource_version, made.resource_version,
        "nothing new is no new version"
    );
    let second = server.apply(&Wanted::new(&planned, &[("a", b"2")])).await?;
    ensure!(!second.created && second.uid == made.uid && second.resource_version != made.resource_version);
    let overtaken = server.apply(&Wanted::new(&planned, &[("a", b"3")])).await;
    refused(overtaken, Class::Conflict, Reason::Conflict)?;

    let writer = SecretWriter::new(server.client.clone());
    let late = writer
        .delete(&server.key("db"), &made.uid, &made.resource_version)
        .await;
    refused(late, Class::Conflict, Reason::Conflict)?;
    writer
        .delete(&server.key("db"), &second.uid, &second.resource_version)
        .await?;
    let gone = server
        .apply(&Wanted::new(&unchanged(&second), &[("a", b"4")]))
        .await;
    refused(gone, Class::Conflict, Reason::Conflict)?;
    // One of the same name that was made anew is another one.
    server
        .apply(&Wanted::new(&Precondition::Absent, &[("a", b"5")]))
        .await?;
    let anew = server
        .apply(&Wanted::new(&unchanged(&second), &[("a", b"6")]))
        .await;
    refused(anew, Class::Conflict, Reason::Conflict)?;
    Ok(())
}

async fn a_key_of_another_manager_is_named_and_taken_by_force_alone(server: Server) -> Result<()> {
    server
        .helm_applies(&json!({"theirs": "YQ==", "shared": "YQ=="}))
        .await?;
    let reader = ClusterReader::new(server.client.clone());
    let found = reader.secret(&server.key("db")).await?.context("it was made")?;
    let planned = found.unchanged();
    let both: [(&str, &[u8]); 2] = [("theirs", b"b"), ("shared", b"a")];
    let wanted = Wanted::new(&planned, &both);
    let fault = refused(
        server.apply(&wanted).await,
        Class::Permanent,
        Reason::KeyOwnedByOther,
    )?;
    ensure!(
        fault
            .message
            .contains("key `theirs` owned by field manager `helm`"),
        "{fault}"
    );
    ensure!(
        !fault.message.contains("shared"),
        "an equal value is no conflict: {fault}"
    );

    server
        .apply(&Wanted {
            force: true,
            ..wanted
        })
        .await?;
    let taken = reader.secret(&server.key("db")).await?.context("it is there")?;
    ensure!(taken.data["theirs"].same_as(b"b"));
    Ok(())
}

async fn a_release_leaves_what_others_own(server: Server) -> Result<()> {
    server.helm_applies(&json!({"theirs": "YQ=="})).await?;
    let reader = ClusterReader::new(server.client.clone());
    let found = reader.secret(&server.key("db")).await?.context("it was made")?;
    let mine: [(&str, &[u8]); 1] = [("mine", b"b")];
    server.apply(&Wanted::new(&found.unchanged(), &mine)).await?;
    let shared = reader.secret(&server.key("db")).await?.context("it is there")?;
    let writer = SecretWriter::new(server.client.clone());
    writer.release(&server.key("db"), &shared).await?;
    let left = reader.secret(&server.key("db")).await?.context("it is there")?;
    assert_eq!(left.data.keys().collect::<Vec<_>>(), ["theirs"]);
    assert_eq!(left.owner, None);
    Ok(())
}

async fn a_release_leaves_what_nobody_owns(server: Server) -> Result<()> {
    // A restored backup, or `stringData` that is applied: the server records no owner of the keys.
    let made =
        json!({"metadata": {"name": "db", "annotations": {"theirs": "x"}}, "data": {"theirs": "YQ=="}});
    let secrets = server.secrets();
    secrets
        .create(&PostParams::default(), &serde_json::from_value(made)?)
        .await?;
    let nobody = json!({"metadata": {"managedFields": [{}]}});
    secrets
        .patch("db", &PatchParams::default(), &Patch::Merge(nobody))
        .await?;
    let reader = ClusterReader::new(server.client.clone());
    let found = reader.secret(&server.key("db")).await?.context("it was made")?;
    ensure!(found.key_owners["theirs"].is_empty(), "{:?}", found.key_owners);
    let mine: [(&str, &[u8]); 1] = [("mine", b"b")];
    server.apply(&Wanted::new(&found.unchanged(), &mine)).await?;
    let shared = reader.secret(&server.key("db")).await?.context("it is there")?;
    let writer = SecretWriter::new(server.client.clone());
    let released = writer.release(&server.key("db"), &shared).await?;
    let left = secrets.get("db").await?;
    let keys: Vec<_> = left.data.iter().flatten().map(|(key, _)| key.as_str()).collect();
    assert_eq!(keys, ["theirs"]);
    let annotations = left.metadata.annotations.unwrap_or_default();
    assert_eq!(annotations.keys().collect::<Vec<_>>(), ["theirs"]);
    ensure!(left.metadata.labels.unwrap_or_default().is_empty());
    let managers = left.metadata.managed_fields.unwrap_or_default();
    ensure!(
        managers
            .iter()
            .all(|entry| entry.manager.as_deref() != Some("keyward")),
        "{managers:?}"
    );
    assert_eq!(left.metadata.resource_version, Some(released.resource_version));
    let late = writer.release(&server.key("db"), &shared).await;
    refused(late, Class::Conflict, Reason::Conflict)?;
    Ok(())
}

async fn what_a_secret_may_not_be_has_a_reason_of_ours(server: Server) -> Result<()> {
    let large = vec![0; (1 << 20) + 1];
    let odd = server
        .apply(&Wanted::new(&Precondition::Absent, &[("a b", b"1")]))
        .await;
    refused(odd, Class::Permanent, Reason::KeyInvalid)?;
    let too_large = server
        .apply(&Wanted::new(&Precondition::Absent, &[("a", &large)]))
        .await;
    refused(too_large, Class::Permanent, Reason::SecretTooLarge)?;

    let made = server
        .apply(&Wanted::new(&Precondition::Absent, &[("a", b"1")]))
        .await?;
    let planned = unchanged(&made);
    let other_type = Wanted {
        kind: Some("example.com/other"),
        ..Wanted::new(&planned, &[("a", b"1")])
    };
    refused(
        server.apply(&other_type).await,
        Class::Permanent,
        Reason::TypeConflict,
    )?;
    let locked = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "db"}, "immutable": true});
    let params = PatchParams::apply("helm");
    server
        .secrets()
        .patch("db", &params, &Patch::Apply(locked))
        .await?;
    let reader = ClusterReader::new(server.client.clone());
    let planned = reader
        .secret(&server.key("db"))
        .await?
        .context("it is there")?
        .unchanged();
    let changed = server.apply(&Wanted::new(&planned, &[("a", b"2")])).await;
    refused(changed, Class::Permanent, Reason::SecretImmutable)?;
    Ok(())
}

async fn a_status_lands_only_on_the_object_that_was_meant(server: Server) -> Result<()> {
    let wanted: SyncedSecret = serde_json::from_value(json!({
        "apiVersion": "keyward.dev/v1alpha1", "kind": "SyncedSecret",
        "metadata": {"name": "db", "namespace": server.namespace},
        "spec": {"sources": [{"storeRef": {"name": "none"}, "path": "app"}], "suspend": true},
    }))?;
    let objects: Api<SyncedSecret> = Api::namespaced(server.client.clone(), &server.namespace);
    let made = objects.create(&PostParams::default(), &wanted).await?;
    let (uid, version) = made
        .metadata
        .uid
        .zip(made.metadata.resource_version)
        .context("it was made")?;
    let (writer, key) = (StatusWriter::new(server.client.clone()), server.key("db"));
    let status = |generation| SyncedSecretStatus {
        observed_generation: Some(generation),
        ..SyncedSecretStatus::default()
    };
    let write = async |uid: &str, version: Option<&str>, generation| {
        writer
            .write::<SyncedSecret, _>(&key, uid, version, None, &status(generation))
            .await
    };
    let written = write(&uid, Some(&version), 1).await?;
    ensure!(
        matches!(&written, StatusWrite::Written(new) if *new != version),
        "{written:?}"
    );
    refused_quietly(write(&uid, Some(&version), 2).await, Class::Conflict)?;
    refused_quietly(write("another", None, 2).await, Class::Conflict)?;
    let absent = writer
        .write::<SyncedSecret, _>(&server.key("none"), &uid, None, None, &status(1))
        .await;
    refused_quietly(absent, Class::Absent)?;
    Ok(())
}

async fn a_restart_lands_only_on_what_it_was_planned_on(server: Server) -> Result<()> {
    let labels = json!({"app": "web"});
    let wanted: Deployment = serde_json::from_value(json!({
        "metadata": {"name": "web"},
        "spec": {"replicas": 0, "selector": {"matchLabels": labels}, "template": {
            "metadata": {"labels": labels}, "spec": {"containers": [{"name": "web", "image": "web"}]},
        }},
    }))?;
    let deployments: Api<Deployment> = Api::namespaced(server.client.clone(), &server.namespace);
    deployments.create(&PostParams::default(), &wanted).await?;
    let (writer, key) = (RolloutWriter::new(server.client.clone()), server.key("web"));
    let seen = async || {
        let deployment = deployments.get("web").await?;
        let template = deployment.spec.and_then(|spec| spec.template.metadata);
        let annotations = template.and_then(|meta| meta.annotations).unwrap_or_default();
        let version = deployment.metadata.resource_version.context("it has a version")?;
        anyhow::Ok((version, annotations.get("keyward.dev/secret-hash").cloned()))
    };
    // Its controllers write its status meanwhile, so that the version may have moved on.
    let restart = async |hash: &str| loop {
        let (planned, _) = seen().await?;
        let kind = ConsumerKind::Deployment;
        match writer
            .set_hash(kind, &key, &planned, "keyward.dev/secret-hash", hash)
            .await
        {
            Ok(()) => return anyhow::Ok(planned),
            Err(fault) if fault.class == Class::Conflict => {}
            Err(fault) => return Err(fault.into()),
        }
    };
    let old = restart("first").await?;
    restart("second").await?;
    let late = writer
        .set_hash(
            ConsumerKind::Deployment,
            &key,
            &old,
            "keyward.dev/secret-hash",
            "first",
        )
        .await;
    refused(late, Class::Conflict, Reason::Conflict)?;
    assert_eq!(
        seen().await?.1.as_deref(),
        Some("second"),
        "an old hash does not come back"
    );
    let absent = writer
        .set_hash(
            ConsumerKind::Deployment,
            &server.key("none"),
            &old,
            "keyward.dev/secret-hash",
            "first",
        )
        .await;
    refused_quietly(absent, Class::Absent)?;
    Ok(())
}

fn refused_quietly<T>(outcome: Result<T, Fault>, class: Class) -> Result<()> {
    let fault = outcome.err().context("it must be refused")?;
    ensure!(fault.class == class, "{:?}: {fault}", fault.class);
    Ok(())
}

async fn a_token_is_given_where_the_account_consents(server: Server) -> Result<()> {
    let accounts: Api<ServiceAccount> = Api::namespaced(server.client.clone(), &server.namespace);
    for (name, consent) in [("willing", "true"), ("unwilling", "no")] {
        let account = serde_json::from_value(json!({"metadata": {
            "name": name, "annotations": {keyward_crds::SERVICE_ACCOUNT_CONSENT: consent},
        }}))?;
        accounts.create(&PostParams::default(), &account).await?;
    }
    let own = ApiAudiences::new(&[], None);
    let mint = async |name: &str| {
        let client = server.client.clone();
        ServiceAccountTokens::new(client, server.key(name), "store".into(), &own, false)?
            .mint()
            .await
    };
    let token = mint("willing").await?;
    assert_eq!(token.expose().split(|byte| *byte == b'.').count(), 3);
    for (name, reason) in [
        ("unwilling", Reason::CredentialNotGranted),
        ("absent", Reason::CredentialMissing),
    ] {
        let fault = mint(name).await.err().context("there is no token")?;
        assert_eq!(fault.reason, reason, "{name}");
    }
    Ok(())
}

async fn a_lease_is_held_by_one_and_handed_over(server: Server) -> Result<()> {
    let timing = LeaseTiming {
        duration: Duration::from_mins(5),
        renew_deadline: Duration::from_mins(4),
        retry: Duration::from_millis(200),
    };
    let candidate = |name: &str| {
        Candidate::new(
            server.client.clone(),
            server.key("lease"),
            name.to_owned(),
            timing,
        )
    };
    let release = CancellationToken::new();
    let first = candidate("first").acquire().await;
    let holding = tokio::spawn(first.hold(release.clone()));
    let second = tokio::spawn(candidate("second").acquire());
    let mut second = Box::pin(second);
    ensure!(
        timeout(Duration::from_secs(2), &mut second).await.is_err(),
        "a held lease is not taken"
    );
    release.cancel();
    holding.await??;
    // Far sooner than the lease would end by itself.
    timeout(Duration::from_mins(1), second)
        .await
        .context("the lease was given up")??;
    Ok(())
}

async fn what_the_operator_must_remember_is_kept_and_shared(server: Server) -> Result<()> {
    let load = || OperatorState::load(server.client.clone(), &server.namespace);
    let (first, second) = (load().await?, load().await?);
    ensure!(
        first.fingerprint_key() == second.fingerprint_key(),
        "the key is made once"
    );
    let now = DateTime::from_timestamp(1_800_000_000, 0).context("it is a time")?;
    let login = |number| Login {
        user: [number; 32],
        password: [number; 32],
    };
    for (state, number) in [(&first, 1), (&second, 2)] {
        state.note_login(&login(number), Step::Refused, now).await?;
    }
    let third = load().await?;
    for (number, known) in [(1, Known::Refused), (2, Known::Refused), (3, Known::New)] {
        ensure!(third.known_login(&login(number), now) == known, "{number}");
    }
    Ok(())
}

/// A restored Secret belongs to whoever restored it, key by key.
async fn what_the_operator_must_remember_is_kept_after_a_restore(server: Server) -> Result<()> {
    let load = || OperatorState::load(server.client.clone(), &server.namespace);
    let state = load().await?;
    let now = DateTime::from_timestamp(1_800_000_000, 0).context("it is a time")?;
    let login = |number| Login {
        user: [number; 32],
        password: [number; 32],
    };
    state.note_login(&login(1), Step::Refused, now).await?;
    let secrets = server.secrets();
    let backup = secrets.get(STATE_SECRET).await?;
    secrets.delete(STATE_SECRET, &DeleteParams::default()).await?;
    let backup = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": STATE_SECRET},
        "type": backup.type_, "data": backup.data,
    });
    secrets
        .patch(STATE_SECRET, &PatchParams::apply("velero"), &Patch::Apply(backup))
        .await?;
    state.note_login(&login(2), Step::Refused, now).await?;
    let later = load().await?;
    for number in [1, 2] {
        ensure!(
            later.known_login(&login(number), now) == Known::Refused,
            "{number}"
        );
    }
    Ok(())
}
