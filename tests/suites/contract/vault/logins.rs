//! Every way to log in, right and wrong: the right one logs in once for everybody, the wrong one is refused once for
//! everybody and then waits, longest where failures lock out.

use std::sync::Arc;

use anyhow::{Result, ensure};
use futures::future::{BoxFuture, join_all};
use keyward::stores::vault::{KvVersion, VaultAuth, VaultStore};
use keyward::stores::{JwtSource, Outcome, Probe, Store};
use keyward_core::fault::Class;
use keyward_core::reason::Reason;
use keyward_core::secret::SecretBytes;
use keyward_tests::harness::Suite;
use keyward_tests::rig::vault::Kv;
use serde_json::json;

use super::server::Server;
use super::{Readable, app_role, at};

pub(super) fn register(suite: &mut Suite) {
    super::cases!(
        suite,
        app_role_logs_in_once_and_a_rejected_one_waits,
        userpass_logs_in_once_and_a_rejected_one_waits,
        a_certificate_logs_in_once_and_a_rejected_one_waits,
        kubernetes_logs_in_once_and_a_rejected_one_waits,
        a_jwt_logs_in_once_and_a_rejected_one_waits,
        who_is_not_known_at_all_is_rejected_too,
        a_role_without_any_policy_gives_a_token,
    );
}

/// Gives the same token each time.
struct Fixed(String);

impl JwtSource for Fixed {
    fn mint(&self) -> BoxFuture<'_, Outcome<SecretBytes>> {
        Box::pin(async { Ok(self.0.as_str().into()) })
    }

    fn identity(&self) -> Vec<&[u8]> {
        vec![self.0.as_bytes()]
    }
}

async fn right_and_wrong(
    server: &Server,
    auth_mount: &str,
    right: VaultStore,
    wrong: VaultStore,
) -> Result<()> {
    let before = server.mark().await?;
    let place = at("app");
    for probe in join_all((0..20).map(|_| right.probe(&place))).await {
        ensure!(matches!(probe, Ok(Probe::Current(_))), "{probe:?}");
    }
    right.check().await?;
    let refusals = join_all((0..5).map(|_| wrong.probe(&place))).await;
    for refusal in refusals.into_iter().chain([wrong.probe(&place).await]) {
        let fault = refusal.expect_err("the login is wrong");
        assert_eq!(
            (fault.class, fault.reason),
            (Class::Denied, Reason::CredentialRejected),
            "{fault}"
        );
        ensure!(fault.retry_after.is_some(), "it says how long");
    }
    let logins = server.logins_since(before, auth_mount).await?;
    assert_eq!(logins, 2, "one for each store");
    right.close().await;
    Ok(())
}

async fn app_role_logs_in_once_and_a_rejected_one_waits(server: Server) -> Result<()> {
    let held = Readable::new(&server).await?;
    let (auth_mount, right) = app_role(&server, &held.policy, json!({})).await?;
    let VaultAuth::AppRole { role_id, .. } = &right else {
        unreachable!("it was made so")
    };
    let wrong = VaultAuth::AppRole {
        mount: auth_mount.clone(),
        role_id: role_id.clone(),
        secret_id: "wrong".into(),
    };
    let (right, wrong) = (
        server.store(&held.mount, right)?,
        server.store(&held.mount, wrong)?,
    );
    right_and_wrong(&server, &auth_mount, right, wrong).await
}

async fn userpass_logs_in_once_and_a_rejected_one_waits(server: Server) -> Result<()> {
    let held = Readable::new(&server).await?;
    let auth_mount = server.unique();
    server.api().enable_auth(&auth_mount, "userpass").await?;
    server
        .api()
        .create_user(&auth_mount, "someone", "right", &[&held.policy])
        .await?;
    let with = |password: &str| {
        let auth = VaultAuth::Userpass {
            mount: auth_mount.clone(),
            username: "someone".into(),
            password: password.into(),
        };
        server.store(&held.mount, auth)
    };
    right_and_wrong(&server, &auth_mount, with("right")?, with("wrong")?).await
}

async fn a_certificate_logs_in_once_and_a_rejected_one_waits(server: Server) -> Result<()> {
    let held = Readable::new(&server).await?;
    let auth_mount = server.unique();
    server.api().enable_auth(&auth_mount, "cert").await?;
    server
        .api()
        .create_cert_role(&auth_mount, "app", server.client_ca(), "right", &[&held.policy])
        .await?;
    let with = async |name: &str| -> Result<VaultStore> {
        let auth = VaultAuth::Cert {
            mount: auth_mount.clone(),
            role: Some("app".into()),
        };
        let mut config = server.config(&held.mount, auth)?;
        config.transport.identity = Some(server.client_identity(name).await?);
        Ok(VaultStore::new(config)?)
    };
    right_and_wrong(&server, &auth_mount, with("right").await?, with("wrong").await?).await
}

async fn kubernetes_logs_in_once_and_a_rejected_one_waits(server: Server) -> Result<()> {
    let held = Readable::new(&server).await?;
    let logins = server.token_logins("kubernetes", &held.policy).await?;
    let with = |jwt: &str| {
        let auth = VaultAuth::Kubernetes {
            mount: logins.mount.clone(),
            role: "app".into(),
            jwt: Arc::new(Fixed(jwt.to_owned())),
        };
        server.store(&held.mount, auth)
    };
    right_and_wrong(&server, &logins.mount, with(&logins.right)?, with(&logins.wrong)?).await
}

async fn a_jwt_logs_in_once_and_a_rejected_one_waits(server: Server) -> Result<()> {
    let held = Readable::new(&server).await?;
    let logins = server.token_logins("jwt", &held.policy).await?;
    let with = |jwt: &str| {
        let auth = VaultAuth::Jwt {
            mount: logins.mount.clone(),
            role: Some("app".into()),
            jwt: Arc::new(Fixed(jwt.to_owned())),
        };
        server.store(&held.mount, auth)
    };
    right_and_wrong(&server, &logins.mount, with(&logins.right)?, with(&logins.wrong)?).await
}

async fn who_is_not_known_at_all_is_rejected_too(server: Server) -> Result<()> {
    let held = Readable::new(&server).await?;
    let (roles, users) = (server.unique(), server.unique());
    server.api().enable_auth(&roles, "approle").await?;
    server.api().enable_auth(&users, "userpass").await?;
    let role = |mount: &str| VaultAuth::AppRole {
        mount: mount.to_owned(),
        role_id: "nobody".into(),
        secret_id: "anything".into(),
    };
    let user = VaultAuth::Userpass {
        mount: users,
        username: "nobody".into(),
        password: "anything".into(),
    };
    let nowhere = role(&server.unique());
    for auth in [role(&roles), user, VaultAuth::Token("nobody".into()), nowhere] {
        let store = server.store(&held.mount, auth)?;
        let fault = store.check().await.expect_err("nobody is known by that");
        assert_eq!(
            (fault.class, fault.reason),
            (Class::Denied, Reason::CredentialRejected),
            "{fault}"
        );
    }
    Ok(())
}

/// Servers leave out of such a login what others hold.
async fn a_role_without_any_policy_gives_a_token(server: Server) -> Result<()> {
    let mount = server.kv_mount(Kv::V2).await?;
    let auth_mount = server.unique();
    server.api().enable_auth(&auth_mount, "approle").await?;
    let bare = json!({ "token_no_default_policy": true });
    let (role_id, secret_id) = server.api().create_approle(&auth_mount, "app", &bare).await?;
    let auth = VaultAuth::AppRole {
        mount: auth_mount.clone(),
        role_id,
        secret_id: secret_id.into(),
    };
    let mut config = server.config(&mount, auth)?;
    config.kv_version = KvVersion::V2;
    let (store, before) = (VaultStore::new(config)?, server.mark().await?);
    for _ in 0..5 {
        store.check().await?;
    }
    let logins = server.logins_since(before, &auth_mount).await?;
    ensure!(
        logins <= 2,
        "the second shows that a new token is denied the same: {logins}"
    );
    Ok(())
}
