//! The store against the stand-in: what a real server cannot be made to show, and how many requests each thing takes.
//! What both show is the contract (`tests/suites/contract`).

mod costs;
mod faults;
mod leaks;
mod logins;
mod sessions;
mod sharing;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use keyward_core::address::AddressPolicy;
use keyward_core::secret::SecretBytes;
use keyward_stand_ins::http::{Answer, Seen};
use keyward_stand_ins::vault::{Product, ROOT_TOKEN, Vault};
use serde_json::{Value, json};

use super::*;
use crate::stores::pacing::{Sent, Unpaced};
use crate::stores::transport::TransportOptions;
use crate::stores::{JwtSource, Payload, RemoteVersion};

const LOGIN: &str = "/v1/auth/approle/login";
const MOUNT: &str = "/v1/sys/internal/ui/mounts/secret";
const METADATA: &str = "/v1/secret/metadata/app";
const DATA: &str = "/v1/secret/data/app";
const LOOKUP: &str = "/v1/auth/token/lookup-self";
const HEALTH: &str = "/v1/sys/health";

/// A server that knows the role of [`app_role`], which may read and list `secret`, and holds `secret/app` at
/// version 3. `first` may answer in its place.
async fn vault(first: impl Fn(&Seen) -> Option<Answer> + Send + 'static) -> Vault {
    vault_of(Product::Vault, first).await
}

async fn vault_of(product: Product, first: impl Fn(&Seen) -> Option<Answer> + Send + 'static) -> Vault {
    let server = Vault::plain(product).await;
    server.write(
        "sys/mounts/secret",
        &json!({"type": "kv", "options": {"version": "2"}}),
    );
    let rules = json!({"path": {"secret/*": {"capabilities": ["read", "list"]}}});
    server.write("sys/policies/acl/app", &json!({"policy": rules.to_string()}));
    server.write("sys/auth/approle", &json!({"type": "approle"}));
    server.write("auth/approle/role/app", &json!({"token_policies": ["app"]}));
    server.write("auth/approle/role/app/role-id", &json!({"role_id": "role"}));
    server.write(
        "auth/approle/role/app/custom-secret-id",
        &json!({"secret_id": "secret-id"}),
    );
    for _ in 0..3 {
        server.write("secret/data/app", &json!({"data": {"password": "p"}}));
    }
    server.fail(first);
    server
}

/// What a login answers, with a token that the server knows.
fn granted(ttl: u64) -> Answer {
    let auth = json!({
        "client_token": ROOT_TOKEN, "accessor": "", "policies": [], "token_policies": [], "metadata": null,
        "lease_duration": ttl, "renewable": true, "entity_id": "", "token_type": "service", "orphan": true,
    });
    enveloped(&Value::Null, &auth)
}

/// A good answer in the server's envelope.
fn enveloped(data: &Value, auth: &Value) -> Answer {
    let body = json!({
        "request_id": "r-1", "lease_id": "", "renewable": false, "lease_duration": 0, "data": data,
        "wrap_info": null, "warnings": null, "auth": auth,
    });
    Answer::json(200, &body.to_string())
}

fn denied() -> Answer {
    Answer::json(403, r#"{"errors":["permission denied"]}"#)
}

fn app_role() -> VaultAuth {
    VaultAuth::AppRole {
        mount: "approle".into(),
        role_id: "role".into(),
        secret_id: "secret-id\n".into(),
    }
}

fn config(server: &Vault) -> VaultConfig {
    let policy = AddressPolicy {
        allow_loopback: true,
        ..AddressPolicy::default()
    };
    VaultConfig {
        address: server.url(),
        namespace: None,
        login_namespace: None,
        mount: "secret".into(),
        kv_version: KvVersion::Auto,
        transport: TransportOptions {
            plain_http_allowed: true,
            deadline: Duration::from_secs(5),
            ..TransportOptions::new(Arc::new(policy.into()))
        },
        auth: app_role(),
    }
}

fn store(server: &Vault) -> VaultStore {
    VaultStore::new(config(server)).unwrap()
}

fn at(path: &str) -> RemoteRef {
    RemoteRef {
        place: Place::Path(path.into()),
        version: None,
    }
}

fn query(prefix: &str, tags: &[(&str, &str)]) -> FindQuery {
    let own = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
    FindQuery {
        prefix: prefix.into(),
        tags: tags.iter().map(own).collect(),
        limit: 10,
    }
}

/// Mints the same token each time.
struct Mint(&'static str);

impl JwtSource for Mint {
    fn mint(&self) -> BoxFuture<'_, Outcome<SecretBytes>> {
        Box::pin(async { Ok(self.0.into()) })
    }

    fn identity(&self) -> Vec<&[u8]> {
        vec![self.0.as_bytes()]
    }
}
