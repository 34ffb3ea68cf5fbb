//! The store against a stand-in: what a real server cannot be made to do, and how many requests each thing takes.

mod find;
mod kv;
mod leaks;
mod session;
mod sharing;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use keyward_core::address::AddressPolicy;
use keyward_core::secret::SecretBytes;

use super::*;
use crate::stores::transport::TransportOptions;
use crate::stores::transport::stand_in::{Answer, Seen, StandIn};
use crate::stores::{Absence, JwtSource, Payload, RemoteVersion};

const LOGIN: &str = "/v1/auth/approle/login";
const MOUNT: &str = "/v1/sys/internal/ui/mounts/secret";
const METADATA: &str = "/v1/secret/metadata/app";
const DATA: &str = "/v1/secret/data/app";
const LOOKUP: &str = "/v1/auth/token/lookup-self";

/// A server that logs everybody in with the token `t0` and holds `secret/app` at version 3. `first` may answer in
/// its place.
async fn vault(first: impl Fn(&Seen) -> Option<Answer> + Send + Sync + 'static) -> StandIn {
    StandIn::plain(move |seen| first(seen).unwrap_or_else(|| usual(seen))).await
}

fn usual(seen: &Seen) -> Answer {
    match (seen.method.as_str(), path(seen)) {
        ("POST", LOGIN) => granted("t0", 3600, true),
        ("GET", MOUNT) => mount("kv", "2"),
        ("GET", "/v1/sys/health") => Answer::json(200, "{}"),
        ("GET", LOOKUP) => data(r#"{"ttl":3600,"renewable":true}"#),
        ("POST", "/v1/auth/token/revoke-self") => Answer::Whole(204, vec![], vec![]),
        ("GET", METADATA) => data(&metadata(3, "", false)),
        ("GET", DATA) => data(&value(r#"{"password":"p"}"#, "", false)),
        _ => nothing(),
    }
}

fn path(seen: &Seen) -> &str {
    seen.target.split('?').next().unwrap_or_default()
}

fn granted(token: &str, ttl: u64, renewable: bool) -> Answer {
    let auth = format!(
        r#"{{"client_token":"{token}","accessor":"","policies":[],"token_policies":[],"metadata":null,
        "lease_duration":{ttl},"renewable":{renewable},"entity_id":"","token_type":"service","orphan":true}}"#
    );
    Answer::json(200, &envelope("null", &auth))
}

fn data(json: &str) -> Answer {
    Answer::json(200, &envelope(json, "null"))
}

fn mount(kind: &str, version: &str) -> Answer {
    data(&format!(
        r#"{{"type":"{kind}","options":{{"version":"{version}"}}}}"#
    ))
}

fn envelope(data: &str, auth: &str) -> String {
    format!(
        r#"{{"request_id":"r-1","lease_id":"","renewable":false,"lease_duration":0,"data":{data},"wrap_info":null,
        "warnings":null,"auth":{auth}}}"#
    )
}

fn metadata(version: u64, deletion: &str, destroyed: bool) -> String {
    format!(
        r#"{{"cas_required":false,"created_time":"2026-01-01T00:00:00Z","current_version":{version},
        "delete_version_after":"0s","max_versions":0,"oldest_version":0,"updated_time":"2026-01-01T00:00:00Z",
        "custom_metadata":{{"team":"a"}},"versions":{{"{version}":{{"created_time":"2026-01-03T00:00:00.5Z",
        "deletion_time":"{deletion}","destroyed":{destroyed}}}}}}}"#
    )
}

fn value(json: &str, deletion: &str, destroyed: bool) -> String {
    format!(
        r#"{{"data":{json},"metadata":{{"created_time":"2026-01-03T00:00:00.5Z","custom_metadata":null,
        "deletion_time":"{deletion}","destroyed":{destroyed},"version":3}}}}"#
    )
}

fn nothing() -> Answer {
    Answer::json(404, r#"{"errors":[]}"#)
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

fn config(server: &StandIn) -> VaultConfig {
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
            ..TransportOptions::new(Arc::new(policy))
        },
        auth: app_role(),
    }
}

fn store(server: &StandIn) -> VaultStore {
    VaultStore::new(config(server)).unwrap()
}

fn at(path: &str) -> RemoteRef {
    RemoteRef {
        place: Place::Path(path.into()),
        version: None,
    }
}

fn version_3() -> RemoteVersion {
    RemoteVersion {
        number: Some(3),
        created: Some("2026-01-03T00:00:00.5Z".parse().unwrap()),
        ..RemoteVersion::default()
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

/// Polls until `holds`, and fails after ten seconds.
async fn until(what: &str, holds: impl Fn() -> bool) {
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    while !holds() {
        assert!(std::time::Instant::now() < deadline, "{what} did not come about");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
