//! Barbican: secrets, metadata, containers and listings.

use std::cmp::Ordering;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{Container, EPOCH, LARGEST_TEXT, MEMBER, Secret, State, now, time, told};
use crate::http::{Answer, Seen};

const BYTES: &str = "application/octet-stream";

impl State {
    pub(super) fn barbican(&mut self, seen: &Seen) -> Answer {
        let parts: Vec<&str> = seen.path().trim_matches('/').split('/').collect();
        let [version, rest @ ..] = parts.as_slice() else {
            return missing();
        };
        if version.is_empty() {
            return versions(seen);
        }
        let bearer = self.bearer(seen);
        let allowed = bearer.filter(|token| token.allows(&seen.method, seen.path()));
        let Some((user, project)) = allowed.and_then(|token| Some((token.user, token.project?))) else {
            self.turned_away += 1;
            return Answer::Whole(401, Vec::new(), b"Authentication required".to_vec());
        };
        if let Some(answer) = self.fault.and_then(|fault| fault(seen)) {
            return answer;
        }
        if *version != "v1" {
            return missing();
        }
        if self.role(&user, &project) != Some(MEMBER) {
            return forbidden();
        }
        let body: Value = serde_json::from_slice(&seen.body).unwrap_or_default();
        match (seen.method.as_str(), rest) {
            ("GET", ["secrets"]) => self.list(seen, &project),
            ("POST", ["secrets"]) => self.store(&body, &project),
            ("POST", ["containers"]) => self.contain(body, &project),
            (method, ["secrets", id, rest @ ..]) => {
                let secret = self
                    .secrets
                    .iter_mut()
                    .find(|secret| secret.id.to_string() == *id);
                match secret.filter(|secret| !secret.is_expired()) {
                    None => missing(),
                    Some(secret) if secret.project != project => forbidden(),
                    Some(_) if method == "DELETE" => self.delete(id),
                    Some(secret) => secret.serve(method, rest, seen, &body),
                }
            }
            ("POST", ["containers", id, "secrets"]) => {
                let mut own = self
                    .containers
                    .iter_mut()
                    .filter(|container| container.project == project);
                let found = own.find(|container| container.id.to_string() == *id);
                let references = found.and_then(|container| container.body["secret_refs"].as_array_mut());
                references.map_or_else(missing, |references| {
                    references.push(body);
                    told(201, &json!({}))
                })
            }
            (method, ["containers", id]) => {
                let container = self
                    .containers
                    .iter()
                    .find(|container| container.id.to_string() == *id);
                match container {
                    None => missing(),
                    Some(container) if container.project != project => forbidden(),
                    Some(_) if method == "DELETE" => {
                        self.containers
                            .retain(|container| container.id.to_string() != *id);
                        told(204, &Value::Null)
                    }
                    Some(container) => told(200, &container.body),
                }
            }
            _ => missing(),
        }
    }

    fn store(&mut self, body: &Value, project: &str) -> Answer {
        let text = |name: &str| body[name].as_str();
        let mut secret = Secret::new(
            Uuid::new_v4().as_u128(),
            text("name").unwrap_or_default(),
            age(),
            b"",
        );
        secret.payload = None;
        project.clone_into(&mut secret.project);
        secret.expiration = text("expiration").map(|end| end.trim_end_matches('Z').to_owned());
        if let Some(kind) = text("secret_type") {
            kind.clone_into(&mut secret.kind);
        }
        if secret.is_expired() {
            return told(400, &json!({"code": 400, "title": "Bad Request"}));
        }
        if let Some(payload) = text("payload") {
            if payload.len() > LARGEST_TEXT {
                return told(413, &json!({"code": 413, "title": "Request Entity Too Large"}));
            }
            let encoded = body["payload_content_encoding"] == "base64";
            let bytes = if encoded {
                STANDARD.decode(payload).ok()
            } else {
                Some(payload.into())
            };
            // Malformed base64 is stored as what is left of it.
            secret.payload = Some(bytes.unwrap_or_default());
        }
        let made = json!({"secret_ref": secret.reference()});
        self.secrets.push(secret);
        told(201, &made)
    }

    fn contain(&mut self, mut body: Value, project: &str) -> Answer {
        let references = body["secret_refs"].as_array().into_iter().flatten();
        let mut names: Vec<String> = references.map(|one| one["name"].to_string()).collect();
        names.sort();
        if names.windows(2).any(|pair| pair[0] == pair[1]) {
            return told(400, &json!({"code": 400, "title": "Bad Request"}));
        }
        body["created"] = time(age()).into();
        body["updated"] = body["created"].clone();
        body["status"] = "ACTIVE".into();
        let container = Container {
            id: Uuid::new_v4(),
            project: project.to_owned(),
            body,
        };
        let reference = format!("http://inside/v1/containers/{}", container.id);
        self.containers.push(container);
        told(201, &json!({ "container_ref": reference }))
    }

    /// A secret that is deleted drops out of its containers.
    fn delete(&mut self, id: &str) -> Answer {
        self.secrets.retain(|secret| secret.id.to_string() != id);
        for container in &mut self.containers {
            if let Some(references) = container.body["secret_refs"].as_array_mut() {
                references.retain(|one| !one["secret_ref"].as_str().is_some_and(|one| one.ends_with(id)));
            }
        }
        told(204, &Value::Null)
    }

    /// A name is a LIKE pattern whose case does not count, and in which a backslash hides the next letter, as most
    /// databases have it. What the order leaves open is told in another one on every other page.
    fn list(&mut self, seen: &Seen, project: &str) -> Answer {
        let number = |name: &str, otherwise: usize| {
            let given = seen.query(name).and_then(|number| number.parse().ok());
            given.unwrap_or(otherwise)
        };
        let (offset, limit) = (number("offset", 0), number("limit", 10).clamp(1, 100));
        let wanted = seen.query("sort").unwrap_or_default();
        let Some(order) = order(&wanted) else {
            return told(400, &json!({"code": 400, "title": "Bad Request"}));
        };
        if let Some(change) = self.before_page {
            change(self, offset);
        }
        let name = seen.query("name");
        let fits = |secret: &&Secret| {
            let visible = secret.project == project && !secret.is_expired();
            visible && name.as_deref().is_none_or(|name| is_like(&secret.name, name))
        };
        let mut fitting: Vec<&Secret> = self.secrets.iter().filter(fits).collect();
        fitting.sort_by(|a, b| {
            let open = if (offset / limit).is_multiple_of(2) {
                a.id.cmp(&b.id)
            } else {
                b.id.cmp(&a.id)
            };
            let wanted = order.iter().map(|compare| compare(a, b));
            wanted.fold(Ordering::Equal, Ordering::then).then(open)
        });
        let page: Vec<Value> = fitting
            .iter()
            .skip(offset)
            .take(limit)
            .map(|secret| secret.json())
            .collect();
        let mut body = json!({"secrets": page, "total": fitting.len()});
        if offset + limit < fitting.len() {
            body["next"] = format!("http://inside/v1/secrets?limit={limit}&offset={}", offset + limit).into();
        }
        told(200, &body)
    }
}

impl Secret {
    fn serve(&mut self, method: &str, path: &[&str], seen: &Seen, body: &Value) -> Answer {
        match (method, path) {
            ("GET", []) => told(200, &self.json()),
            ("GET", ["metadata"]) => told(200, &json!({ "metadata": self.metadata })),
            ("PUT", ["metadata"]) => {
                let given = body["metadata"].as_object().cloned().unwrap_or_default();
                let lower = given.into_iter().map(|(key, value)| (key.to_lowercase(), value));
                self.metadata = Value::Object(lower.collect());
                told(201, &json!({}))
            }
            ("GET", ["payload"]) => match (&self.payload, seen.header("accept")) {
                (None, _) => missing(),
                (Some(payload), Some(BYTES)) => {
                    let status = if payload.is_empty() { 204 } else { 200 };
                    Answer::Whole(
                        status,
                        vec![("content-type".into(), BYTES.into())],
                        payload.clone(),
                    )
                    .with_header("x-openstack-request-id", &format!("req-{}", Uuid::new_v4()))
                }
                _ => told(406, &json!({"code": 406, "title": "Not Acceptable"})),
            },
            ("PUT", []) if self.payload.is_some() => told(409, &json!({"code": 409, "title": "Conflict"})),
            ("PUT", []) if seen.body.len() > LARGEST_TEXT => told(413, &json!({"code": 413})),
            ("PUT", []) => {
                self.payload = Some(seen.body.clone());
                told(204, &Value::Null)
            }
            _ => told(405, &json!({"code": 405, "title": "Method Not Allowed"})),
        }
    }

    fn json(&self) -> Value {
        let mut json = json!({
            "name": self.name, "status": "ACTIVE", "created": time(self.created), "updated": time(self.created),
            "expiration": self.expiration, "secret_ref": self.reference(), "secret_type": self.kind,
        });
        if self.payload.is_some() {
            json["content_types"] = json!({ "default": BYTES });
        }
        json
    }

    /// A reference names a host that clients need not reach.
    fn reference(&self) -> String {
        format!("http://inside/v1/secrets/{}", self.id)
    }
}

type Compare = fn(&Secret, &Secret) -> Ordering;

/// One after the other, as in `created:desc,name:asc`; `None` where a word of it is unknown.
fn order(wanted: &str) -> Option<Vec<Compare>> {
    let words = wanted.split(',').filter(|word| !word.is_empty());
    let compare = |word| -> Option<Compare> {
        Some(match word {
            "created:asc" => |a, b| a.created.cmp(&b.created),
            "created:desc" => |a, b| b.created.cmp(&a.created),
            "name:asc" => |a, b| a.name.cmp(&b.name),
            "name:desc" => |a, b| b.name.cmp(&a.name),
            // Every secret is active.
            "status:asc" => |_, _| Ordering::Equal,
            _ => return None,
        })
    };
    words.map(compare).collect()
}

/// `%` stands for anything and `_` for one character.
fn is_like(name: &str, pattern: &str) -> bool {
    let Some(first) = pattern.chars().next() else {
        return name.is_empty();
    };
    let rest = &pattern[first.len_utf8()..];
    if first == '\\' {
        let hidden = rest.chars().next();
        let met = hidden.and_then(|hidden| name.strip_prefix(hidden));
        return met.is_some_and(|met| is_like(met, &rest[hidden.map_or(0, char::len_utf8)..]));
    }
    if first == '%' {
        let mut ends = name.char_indices().map(|(at, _)| at).chain([name.len()]);
        return ends.any(|at| is_like(&name[at..], rest));
    }
    let mut letters = name.chars();
    let letter = letters.next();
    letter.is_some_and(|letter| first == '_' || letter.eq_ignore_ascii_case(&first))
        && is_like(letters.as_str(), rest)
}

/// Now, in seconds after the fixed time.
fn age() -> i64 {
    now().timestamp() - EPOCH
}

/// The first version of the API tells of itself in another shape, and of no versions.
fn versions(seen: &Seen) -> Answer {
    let version = json!({"id": "v1", "status": "CURRENT", "min_version": "1.0", "max_version": "1.2"});
    let body = match seen.header("openstack-api-version") {
        None => json!({"versions": {"values": [{"id": "v1", "status": "stable"}]}}),
        Some(_) => json!({ "versions": [version] }),
    };
    told(300, &body)
}

fn forbidden() -> Answer {
    told(
        403,
        &json!({"code": 403, "title": "Forbidden", "description": "not allowed"}),
    )
}

fn missing() -> Answer {
    told(
        404,
        &json!({"code": 404, "title": "Not Found", "description": "not found"}),
    )
}
