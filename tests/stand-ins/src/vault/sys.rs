//! The system's own paths: mounts, policies, seal and health.

use serde_json::{Value, json};

use super::acl::Policy;
use super::auth::{Method, Token};
use super::kv::Engine;
use super::{Call, State, UNSEAL_KEY, data, done, nothing, refused};
use crate::http::Answer;

impl State {
    /// What is answered without a token, sealed or not.
    pub(super) fn open_to_all(&mut self, call: &Call<'_>) -> Option<Answer> {
        match (call.method, call.path) {
            ("GET", "health") => {
                let status = if self.sealed { 503 } else { 200 };
                let body = json!({ "initialized": true, "sealed": self.sealed, "standby": false });
                Some(Answer::json(status, &body.to_string()))
            }
            ("GET", "seal-status") => Some(self.seal_status()),
            ("PUT", "unseal") => {
                self.sealed = self.sealed && call.body["key"] != UNSEAL_KEY;
                Some(self.seal_status())
            }
            _ => None,
        }
    }

    /// What root does.
    pub(super) fn system(&mut self, call: &Call<'_>) -> Answer {
        let parts: Vec<&str> = call.path.split('/').collect();
        match (call.method, parts.as_slice()) {
            ("PUT", ["seal"]) => {
                self.sealed = true;
                done()
            }
            ("PUT", ["mounts", mount]) => {
                let Some(engine) = Engine::new(call.body) else {
                    return refused(400, &["no such engine"]);
                };
                self.mounts.insert((*mount).to_owned(), engine);
                done()
            }
            ("PUT", ["mounts", mount, "tune"]) => {
                let Some(engine) = self.mounts.get_mut(*mount) else {
                    return refused(400, &["no such mount"]);
                };
                if call.body["options"]["version"] == "2" {
                    engine.upgrade();
                }
                done()
            }
            ("DELETE", ["mounts", mount]) => {
                self.mounts.remove(*mount);
                done()
            }
            ("PUT", ["policies", "acl", name]) => {
                match call.body["policy"].as_str().and_then(Policy::parse) {
                    Some(policy) => {
                        self.policies.insert((*name).to_owned(), policy);
                        done()
                    }
                    None => refused(400, &["a policy is JSON here"]),
                }
            }
            ("PUT", ["auth", mount]) => {
                let kind = call.body["type"].as_str().unwrap_or_default();
                self.methods.insert((*mount).to_owned(), Method::new(kind));
                done()
            }
            ("PUT", ["leases", "revoke-prefix", prefix @ ..]) => {
                let prefix = prefix.join("/");
                self.tokens.retain(|token| !token.made_at.starts_with(&prefix));
                done()
            }
            ("LIST", ["leases", "lookup", prefix @ ..]) => {
                let prefix = prefix.join("/");
                let below = self.tokens.iter().filter(|token| token.made_at == prefix);
                let keys: Vec<&str> = below.map(|token| token.accessor.as_str()).collect();
                if keys.is_empty() {
                    return nothing();
                }
                data(&json!({ "keys": keys }))
            }
            _ => refused(404, &["unsupported path"]),
        }
    }

    /// What is mounted at or above a path, for whoever may do anything below it. A mount that is hidden and one that is not
    /// there look the same.
    pub(super) fn mount_information(&self, call: &Call<'_>, token: &Token) -> Answer {
        let mount = call.path.split('/').next().unwrap_or_default();
        match self.mounts.get(mount) {
            Some(engine) if self.may_see(token, mount) => {
                let (kind, version) = engine.kind();
                let options = version.map_or(Value::Null, |version| json!({ "version": version }));
                data(&json!({ "type": kind, "options": options, "path": format!("{mount}/") }))
            }
            _ => refused(
                403,
                &[&format!(
                    "preflight capability check returned 403, please ensure client's policies grant access to path \"{}/\"",
                    call.path
                )],
            ),
        }
    }

    fn seal_status(&self) -> Answer {
        Answer::json(
            200,
            &json!({ "sealed": self.sealed, "initialized": true }).to_string(),
        )
    }
}
