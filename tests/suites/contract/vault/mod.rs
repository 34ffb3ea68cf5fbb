//! What Keyward relies on in Vault and `OpenBao`.

mod facts;
mod logins;
mod outage;
mod server;
mod session;
mod values;

use anyhow::Result;
use keyward::stores::vault::VaultAuth;
use keyward::stores::{Place, RemoteRef};
use keyward_tests::harness::Suite;
use keyward_tests::rig::vault::Kv;
use serde_json::{Value, json};

use self::server::Server;

pub(super) fn register(suite: &mut Suite) {
    values::register(suite);
    logins::register(suite);
    session::register(suite);
    outage::register(suite);
    facts::register(suite);
}

/// Registers cases three or four times: against the real Vault, against the real `OpenBao` if there is one, and
/// against the stand-in in both its parts.
macro_rules! cases {
    ($suite:expr, $($case:ident),+ $(,)?) => { $(
        $suite.add_for_each_product(concat!(module_path!(), "::real"), stringify!($case), |case| async move {
            $case($crate::contract::vault::server::Server::real(case).await?).await
        });
        for (place, product) in [
            (concat!(module_path!(), "::stand_in"), keyward_stand_ins::vault::Product::Vault),
            (concat!(module_path!(), "::stand_in_openbao"), keyward_stand_ins::vault::Product::OpenBao),
        ] {
            $suite.add(place, stringify!($case), move |case| async move {
                $case($crate::contract::vault::server::Server::stand_in(case, product).await?).await
            });
        }
    )+ };
}
use cases;

fn at(path: &str) -> RemoteRef {
    RemoteRef {
        place: Place::Path(path.into()),
        version: None,
    }
}

/// A mount that holds `app`, and a policy to read it.
struct Readable {
    mount: String,
    policy: String,
}

impl Readable {
    async fn new(server: &Server) -> Result<Self> {
        let mount = server.kv_mount(Kv::V2).await?;
        let value = json!({ "a": "b" });
        server.api().write_secret(&mount, Kv::V2, "app", &value).await?;
        let policy = server.policy(&[(&format!("{mount}/*"), &["read"])]).await?;
        Ok(Self { mount, policy })
    }
}

/// A role of `AppRole` with `settings`: its mount and the way to log in with it.
async fn app_role(server: &Server, policy: &str, mut settings: Value) -> Result<(String, VaultAuth)> {
    let mount = server.unique();
    settings["token_policies"] = json!([policy]);
    server.api().enable_auth(&mount, "approle").await?;
    let (role_id, secret_id) = server.api().create_approle(&mount, "app", &settings).await?;
    let auth = VaultAuth::AppRole {
        mount: mount.clone(),
        role_id,
        secret_id: secret_id.into(),
    };
    Ok((mount, auth))
}
