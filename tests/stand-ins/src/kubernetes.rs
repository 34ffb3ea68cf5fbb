//! A stand-in for the API server: objects behind resourceVersions, server-side apply of Secrets with an owner for each
//! field, preconditions, status by JSON patch, tokens of ServiceAccounts. It has no watches, no rights and no garbage
//! collection. It answers in the process, so that tests may stop the clock, or over HTTP.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::percent_decode_str;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::http::{Answer, Seen, StandIn};

/// What the API server holds at most in the values of one Secret, in bytes.
const LARGEST_SECRET: usize = 1 << 20;

/// The server. Clones are the same server.
#[derive(Clone, Default)]
pub struct ApiServer(Arc<Mutex<State>>);

/// What it holds; tests change it freely.
#[derive(Default)]
pub struct State {
    /// By path.
    pub objects: BTreeMap<String, Stored>,
    /// Answers 503 to everything.
    pub failing: bool,
    /// How many writes have changed something.
    pub writes: u64,
}

/// An object.
#[derive(Clone, Default)]
pub struct Stored {
    /// Without managed fields.
    pub body: Value,
    /// Fields by manager and operation.
    owners: BTreeMap<(String, &'static str), BTreeSet<Field>>,
}

/// The way to a field that is owned as one.
type Field = Vec<String>;

type Reply = (u16, Value);

impl ApiServer {
    /// Serves plain HTTP; the server ends when the answer is dropped.
    pub async fn serve(&self) -> StandIn {
        let shared = self.clone();
        StandIn::plain(move |seen| shared.over_http(seen)).await
    }

    /// What it holds.
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The answer to one request. `target` is path and query.
    #[must_use]
    pub fn answer(&self, method: &str, target: &str, content_type: &str, body: &Value) -> Reply {
        let seen = Seen::new(method, target, &[("content-type", content_type)], &[]);
        self.state().serve(&seen, content_type, body)
    }

    fn over_http(&self, seen: &Seen) -> Answer {
        let body = serde_json::from_slice(&seen.body).unwrap_or_default();
        let (status, body) = self
            .state()
            .serve(seen, seen.header("content-type").unwrap_or_default(), &body);
        Answer::json(status, &body.to_string()).with_header("audit-id", &Uuid::new_v4().to_string())
    }
}

impl State {
    fn serve(&mut self, seen: &Seen, content_type: &str, body: &Value) -> Reply {
        if self.failing {
            return (503, json!({}));
        }
        let path = percent_decode_str(seen.path()).decode_utf8_lossy().into_owned();
        match seen.method.as_str() {
            "GET" => self
                .objects
                .get(&path)
                .map_or_else(missing, |stored| (200, stored.told())),
            "POST" if path.ends_with("/token") => self.token(&path),
            "POST" => self.create(&path, body),
            "PUT" => self.replace(&path, body),
            "DELETE" => self.delete(&path, body),
            _ if content_type.starts_with("application/apply-patch") => {
                let manager = seen.query("fieldManager").unwrap_or_default();
                let forced = seen.query("force").as_deref() == Some("true");
                self.apply(&path, body, &manager, forced)
            }
            _ if content_type.starts_with("application/json-patch") => self.change(&path, body),
            _ if content_type.starts_with("application/merge-patch") => self.merge(&path, body),
            _ => (415, json!({})),
        }
    }

    fn next(&mut self) -> String {
        self.writes += 1;
        // No object is ever at the first versions.
        (self.writes + 100).to_string()
    }

    fn create(&mut self, collection: &str, body: &Value) -> Reply {
        let path = format!("{collection}/{}", text(&body["metadata"]["name"]));
        if self.objects.contains_key(&path) {
            return refused(409, "AlreadyExists", &[]);
        }
        let mut body = body.clone();
        body["metadata"]["uid"] = Uuid::new_v4().to_string().into();
        body["metadata"]["resourceVersion"] = self.next().into();
        self.objects.insert(
            path,
            Stored {
                body: body.clone(),
                owners: BTreeMap::new(),
            },
        );
        (201, body)
    }

    fn replace(&mut self, path: &str, body: &Value) -> Reply {
        let Some(stored) = self.objects.get(path) else {
            return missing();
        };
        let metadata = &stored.body["metadata"];
        if body["metadata"]["resourceVersion"] != metadata["resourceVersion"] {
            return refused(409, "Conflict", &[]);
        }
        let mut body = body.clone();
        body["metadata"]["uid"] = metadata["uid"].clone();
        body["metadata"]["resourceVersion"] = self.next().into();
        self.objects.entry(path.to_owned()).or_default().body = body.clone();
        (200, body)
    }

    fn delete(&mut self, path: &str, body: &Value) -> Reply {
        let Some(stored) = self.objects.get(path) else {
            return missing();
        };
        let overtaken = ["uid", "resourceVersion"].into_iter().any(|name| {
            let wanted = &body["preconditions"][name];
            !wanted.is_null() && *wanted != stored.body["metadata"][name]
        });
        if overtaken {
            return refused(409, "Conflict", &[]);
        }
        self.objects.remove(path);
        (200, json!({"kind": "Status", "status": "Success"}))
    }

    /// A failed test blames no field.
    fn change(&mut self, path: &str, changes: &Value) -> Reply {
        let object = path.trim_end_matches("/status");
        let Some(mut stored) = self.objects.get(object).cloned() else {
            return missing();
        };
        for change in changes.as_array().into_iter().flatten() {
            let (at, value) = (text(&change["path"]), &change["value"]);
            match (text(&change["op"]), at) {
                ("test", _) if stored.body.pointer(at) != Some(value) => return refused(422, "Invalid", &[]),
                ("replace", "/metadata/resourceVersion") if stored.body.pointer(at) != Some(value) => {
                    return refused(409, "Conflict", &[]);
                }
                ("add", _) => set(&mut stored.body, &field_at(at), value.clone()),
                ("remove", _) => stored.remove(at),
                _ => {}
            }
        }
        stored.body["metadata"]["resourceVersion"] = self.next().into();
        let told = stored.told();
        self.objects.insert(object.to_owned(), stored);
        (200, told)
    }

    fn merge(&mut self, path: &str, change: &Value) -> Reply {
        let Some(stored) = self.objects.get(path) else {
            return missing();
        };
        let (mut body, wanted) = (stored.body.clone(), &change["metadata"]["resourceVersion"]);
        if !wanted.is_null() && *wanted != body["metadata"]["resourceVersion"] {
            return refused(409, "Conflict", &[]);
        }
        merge_into(&mut body, change);
        if body != self.objects[path].body {
            body["metadata"]["resourceVersion"] = self.next().into();
        }
        self.objects.entry(path.to_owned()).or_default().body = body.clone();
        (200, body)
    }

    fn token(&mut self, path: &str) -> Reply {
        let account = path.trim_end_matches("/token");
        if !self.objects.contains_key(account) {
            return missing();
        }
        (
            201,
            json!({"status": {"token": format!("header.{}.signature", self.next())}}),
        )
    }

    fn apply(&mut self, path: &str, body: &Value, manager: &str, forced: bool) -> Reply {
        let before = self.objects.get(path).cloned();
        let metadata = before
            .as_ref()
            .map_or(&Value::Null, |stored| &stored.body["metadata"]);
        let wanted = &body["metadata"];
        let differs = |name: &str| !wanted[name].is_null() && wanted[name] != metadata[name];
        // A version may be asked for that no object was ever at, so that only a new one fits.
        let overtaken = differs("uid") || (before.is_some() && differs("resourceVersion"));
        if overtaken {
            return refused(409, "Conflict", &[]);
        }
        if let Some(cause) = invalid(body, before.as_ref().map(|stored| &stored.body)) {
            return refused(422, "Invalid", &[cause]);
        }
        let created = before.is_none();
        let mut stored = before.unwrap_or_else(|| Stored {
            body: json!({"apiVersion": "v1", "kind": "Secret", "type": "Opaque", "metadata": {
                "name": wanted["name"], "namespace": wanted["namespace"], "uid": Uuid::new_v4().to_string(),
            }}),
            owners: BTreeMap::new(),
        });
        let fields = fields_of(body);
        let conflicts = stored.conflicts(&fields, manager);
        if !conflicts.is_empty() && !forced {
            return refused(409, "Conflict", &conflicts);
        }
        let unchanged = stored.merge(&fields, manager);
        if !unchanged || created {
            stored.body["metadata"]["resourceVersion"] = self.next().into();
        }
        let told = stored.told();
        self.objects.insert(path.to_owned(), stored);
        (if created { 201 } else { 200 }, told)
    }
}

impl Stored {
    /// The fields that others own and that would get another value.
    fn conflicts(&self, fields: &BTreeMap<Field, Value>, manager: &str) -> Vec<Value> {
        let mut causes = Vec::new();
        for (field, value) in fields {
            for ((other, _), owned) in &self.owners {
                if other != manager && owned.contains(field) && at(&self.body, field) != Some(value) {
                    causes.push(json!({
                        "reason": "FieldManagerConflict", "message": format!("conflict with \"{other}\" using v1"),
                        "field": format!(".{}", field.join(".")),
                    }));
                }
            }
        }
        causes
    }

    /// Takes `fields` over and drops what `manager` applied before and nobody else owns. Says whether nothing changed.
    fn merge(&mut self, fields: &BTreeMap<Field, Value>, manager: &str) -> bool {
        let (body, owners) = (self.body.clone(), self.owners.clone());
        for (field, value) in fields {
            for ((other, _), owned) in &mut self.owners {
                if other != manager && at(&body, field) != Some(value) {
                    owned.remove(field);
                }
            }
            set(&mut self.body, field, value.clone());
        }
        let own = (manager.to_owned(), "Apply");
        let earlier = self.owners.remove(&own).unwrap_or_default();
        for field in earlier.iter().filter(|field| !fields.contains_key(*field)) {
            if !self.owners.values().any(|owned| owned.contains(field)) {
                unset(&mut self.body, field);
            }
        }
        self.owners.insert(own, fields.keys().cloned().collect());
        self.owners.retain(|_, owned| !owned.is_empty());
        self.body == body && self.owners == owners
    }

    /// Takes out what a JSON pointer names: a field, which is nobody's any more then, or the entry of a manager.
    fn remove(&mut self, pointer: &str) {
        if let Some(entry) = pointer.strip_prefix("/metadata/managedFields/") {
            let owner = entry
                .parse()
                .ok()
                .and_then(|index| self.owners.keys().nth(index).cloned());
            owner.map(|owner| self.owners.remove(&owner));
            return;
        }
        let field = field_at(pointer);
        unset(&mut self.body, &field);
        for owned in self.owners.values_mut() {
            owned.remove(&field);
        }
    }

    fn told(&self) -> Value {
        let mut told = self.body.clone();
        let managed: Vec<Value> = self
            .owners
            .iter()
            .map(|((manager, operation), owned)| {
                let mut fields = json!({});
                for field in owned {
                    let mut place = &mut fields;
                    for part in field {
                        place = &mut place[format!("f:{part}")];
                    }
                    *place = json!({});
                }
                json!({"manager": manager, "operation": operation, "fieldsV1": fields})
            })
            .collect();
        told["metadata"]["managedFields"] = managed.into();
        told
    }
}

/// What a Secret may not be, or may not become.
fn invalid(body: &Value, before: Option<&Value>) -> Option<Value> {
    let cause =
        |field: &str, reason: &str| Some(json!({"field": field, "reason": reason, "message": "refused"}));
    let none = Map::new();
    let data = body["data"].as_object().unwrap_or(&none);
    let odd = |key: &&String| {
        !key.chars()
            .all(|c| c.is_ascii_alphanumeric() || "-._".contains(c))
    };
    if let Some(key) = data.keys().find(odd) {
        return cause(&format!("data[{key}]"), "FieldValueInvalid");
    }
    let size = |value: &Value| STANDARD.decode(text(value)).map_or(0, |bytes| bytes.len());
    if data.values().map(size).sum::<usize>() > LARGEST_SECRET {
        return cause("data", "FieldValueTooLong");
    }
    let before = before?;
    if !body["type"].is_null() && body["type"] != before["type"] {
        return cause("type", "FieldValueInvalid");
    }
    let differs = data.iter().any(|(key, value)| before["data"][key] != *value);
    if before["immutable"] == true && differs {
        return cause("data", "FieldValueForbidden");
    }
    None
}

/// What an apply of a Secret declares, field by field.
fn fields_of(body: &Value) -> BTreeMap<Field, Value> {
    let mut fields = BTreeMap::new();
    for way in [
        &["data"][..],
        &["metadata", "labels"],
        &["metadata", "annotations"],
    ] {
        let place = way.iter().fold(body, |place, part| &place[*part]);
        for (key, value) in place.as_object().into_iter().flatten() {
            let field = way
                .iter()
                .copied()
                .chain([key.as_str()])
                .map(str::to_owned)
                .collect();
            fields.insert(field, value.clone());
        }
    }
    for name in ["type", "immutable"] {
        if !body[name].is_null() {
            fields.insert(vec![name.to_owned()], body[name].clone());
        }
    }
    fields
}

/// The field that a JSON pointer names.
fn field_at(pointer: &str) -> Field {
    let parts = pointer.split('/').skip(1);
    parts
        .map(|part| part.replace("~1", "/").replace("~0", "~"))
        .collect()
}

fn at<'a>(body: &'a Value, field: &Field) -> Option<&'a Value> {
    field.iter().try_fold(body, |place, part| place.get(part))
}

fn set(body: &mut Value, field: &Field, value: Value) {
    *field.iter().fold(body, |place, part| &mut place[part]) = value;
}

fn unset(body: &mut Value, field: &Field) {
    let (last, above) = field.split_last().expect("a field has a name");
    let place = above.iter().fold(body, |place, part| &mut place[part]);
    if let Some(place) = place.as_object_mut() {
        place.remove(last);
    }
}

/// Without the removal of fields, which nobody asks for.
fn merge_into(body: &mut Value, change: &Value) {
    match change {
        Value::Object(fields) => {
            for (name, change) in fields {
                merge_into(&mut body[name], change);
            }
        }
        value => *body = value.clone(),
    }
}

fn refused(code: u16, reason: &str, causes: &[Value]) -> Reply {
    let mut status =
        json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason});
    if !causes.is_empty() {
        status["details"] = json!({ "causes": causes });
    }
    (code, status)
}

fn missing() -> Reply {
    refused(404, "NotFound", &[])
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
