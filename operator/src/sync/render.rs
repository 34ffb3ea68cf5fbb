//! From values to the content of a Secret. Neither store nor cluster is asked here.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use keyward_core::fault::{Class, Fault};
use keyward_core::reason::Reason;
use keyward_core::secret::SecretMap;
use keyward_core::sync::allowance::{Effort, Holder, Room};
use keyward_core::sync::fields::Extraction;
use keyward_core::sync::fingerprint::{Comparison, Content, Fingerprint, FingerprintKey};
use keyward_core::sync::keys::{DataKey, Merge};
use keyward_core::sync::template::{Rendering, Template};
use keyward_crds::synced_secret::SyncedSecretStatus;
use tokio::sync::Semaphore;

use super::gather::Target;
use super::plan::Plan;
use crate::stores::{Outcome, Payload, Reading};

/// Turns at rendering, of the whole process: the most that a hostile spec can make one rendering hold is some 40 MiB,
/// and so many at once must fit the pod. It computes for half a second then, most for less than a millisecond: too short
/// to leave the worker for it.
static TURNS: Semaphore = Semaphore::const_new(2);

/// What the Secret should hold, as far as it is ours.
pub(super) struct Rendered {
    /// The keys.
    pub data: SecretMap,
    /// The Secret's type.
    pub secret_type: String,
    /// Labels from templates.
    pub labels: BTreeMap<String, String>,
    /// Annotations from templates.
    pub annotations: BTreeMap<String, String>,
    /// Of all of it.
    pub fingerprint: Fingerprint,
    /// Of the values alone: what consumers are restarted for.
    pub values: Fingerprint,
}

impl Rendered {
    /// Whether it is what the status says was written.
    pub(super) fn is_as_written(&self, status: &SyncedSecretStatus) -> bool {
        let written = status.secret.as_ref();
        written.is_some_and(|written| self.fingerprint.compare(&written.fingerprint) == Comparison::Same)
    }

    /// Since when the status says that it has been so; `None` where it is new.
    pub(super) fn unchanged_since(&self, status: &SyncedSecretStatus) -> Option<DateTime<Utc>> {
        let written = status.secret.as_ref().filter(|_| self.is_as_written(status));
        written.map(|written| written.changed_at)
    }
}

/// Renders the values of `read`, each with the target it was read for.
pub(super) async fn render(
    plan: &Plan,
    secret_type: &str,
    read: &[(&Target, &Reading)],
    key: &FingerprintKey,
) -> Outcome<Rendered> {
    let _turn = TURNS.acquire().await.expect("it is never closed");
    let sources = read.iter().map(|(target, reading)| Source {
        label: &target.label,
        extraction: &target.extraction,
        payload: &reading.payload,
    });
    made(plan, secret_type, sources, key)
}

/// A value and what to take of it.
struct Source<'a> {
    label: &'a str,
    extraction: &'a Extraction,
    payload: &'a Payload,
}

fn made<'a>(
    plan: &Plan,
    secret_type: &str,
    sources: impl Iterator<Item = Source<'a>>,
    key: &FingerprintKey,
) -> Outcome<Rendered> {
    let values = merged(plan, sources)?;
    let mut data = if plan.keep_sources {
        duplicate(&values)
    } else {
        SecretMap::new()
    };
    let mut rendering = Rendering::new(values);
    render_data(&mut rendering, &plan.data, &mut data)?;
    let secret_type = match &plan.secret_type {
        Some(template) => render_text(&mut rendering, "template.type", template)?,
        None => secret_type.to_owned(),
    };
    let labels = render_texts(&mut rendering, &plan.labels)?;
    let annotations = render_texts(&mut rendering, &plan.annotations)?;
    let content = Content {
        secret_type: &secret_type,
        labels: &labels,
        annotations: &annotations,
        data: &data,
    };
    Ok(Rendered {
        fingerprint: key.of_secret(&content),
        values: key.of_values(&data),
        data,
        secret_type,
        labels,
        annotations,
    })
}

/// What the sources give together. What is written has to fit a Secret, what templates only work on may be more.
fn merged<'a>(plan: &Plan, sources: impl Iterator<Item = Source<'a>>) -> Outcome<SecretMap> {
    let holder = if plan.keep_sources {
        Holder::Secret
    } else {
        Holder::Templates
    };
    let mut merge = Merge::new(plan.conflict, holder);
    let mut effort = Effort::default();
    for source in sources {
        let keys = source.extraction.apply(source.payload, holder, &mut effort);
        let keys = keys.map_err(|error| Fault::from(error).about(source.label))?;
        merge.add(source.label, keys)?;
    }
    Ok(merge.finish())
}

/// Renders `templates` into `data`, as far as a Secret has room.
fn render_data(
    rendering: &mut Rendering,
    templates: &[(DataKey, Template)],
    data: &mut SecretMap,
) -> Outcome<()> {
    let mut room = Room::of(Holder::Secret);
    for value in data.values() {
        room.take(value.len())?;
    }
    for (key, template) in templates {
        let value = rendering.render(template)?;
        if let Some(replaced) = data.remove(key.as_str()) {
            room.give_back(replaced.len());
        }
        room.take(value.len())?;
        data.insert(key.as_str().to_owned(), value);
    }
    Ok(())
}

fn render_texts(
    rendering: &mut Rendering,
    templates: &[(String, Template)],
) -> Outcome<BTreeMap<String, String>> {
    let rendered = templates
        .iter()
        .map(|(name, template)| Ok((name.clone(), render_text(rendering, name, template)?)));
    rendered.collect()
}

fn render_text(rendering: &mut Rendering, name: &str, template: &Template) -> Outcome<String> {
    let bytes = rendering.render(template)?;
    let text = bytes.expose_str().ok_or_else(|| {
        let message = format!("template `{name}` does not give text");
        Fault::new(Class::Permanent, Reason::TemplateFailed, message)
    })?;
    Ok(text.to_owned())
}

fn duplicate(values: &SecretMap) -> SecretMap {
    values
        .iter()
        .map(|(key, value)| (key.clone(), value.duplicate()))
        .collect()
}

#[cfg(test)]
mod tests {
    use keyward_core::secret::SecretBytes;
    use keyward_core::sync::allowance::MAX_SECRET_BYTES;
    use keyward_crds::SyncedSecret;
    use serde_json::{Value, json};

    use super::*;
    use crate::cluster::ObjectKey;
    use crate::sync::plan;

    /// Renders an object with this template over one path for each of `values`.
    fn rendered(template: &Value, values: &[Value]) -> Outcome<Rendered> {
        let source = json!({"storeRef": {"name": "store"}, "path": "a"});
        let object = json!({
            "apiVersion": "keyward.dev/v1alpha1", "kind": "SyncedSecret",
            "metadata": {"namespace": "apps", "name": "object"},
            "spec": {"sources": vec![source; values.len()], "target": {"template": template}},
        });
        let object: SyncedSecret = serde_json::from_value(object).unwrap();
        let plan = plan::parse(&ObjectKey::new("apps", "object"), &object).unwrap();
        let payload = |value: &Value| Payload::Json(SecretBytes::from(value.to_string()));
        let payloads: Vec<_> = values.iter().map(payload).collect();
        let sources = plan.sources.iter().zip(&payloads);
        let sources = sources.map(|(source, payload)| Source {
            label: "path `a`",
            extraction: &source.extraction,
            payload,
        });
        let key = FingerprintKey::from_bytes(&[7; 32]).unwrap();
        made(&plan, "Opaque", sources, &key)
    }

    fn sizes(rendered: &Rendered) -> Vec<(&str, usize)> {
        let data = rendered.data.iter();
        data.map(|(key, value)| (key.as_str(), value.len())).collect()
    }

    const HALF: usize = MAX_SECRET_BYTES / 2;

    #[test]
    fn what_is_written_fits_a_secret_to_the_last_byte() {
        let value = |key: &str, bytes: usize| json!({key: "x".repeat(bytes)});
        let nothing = json!({});
        let full = rendered(&nothing, &[value("a", HALF), value("b", HALF)]).unwrap();
        assert_eq!(sizes(&full), [("a", HALF), ("b", HALF)]);
        let kept = json!({"keepSources": true, "data": {"a": "{{ a|length }}", "c": "{{ a }}"}});
        let kept = rendered(&kept, &[value("a", HALF), value("b", HALF - 6)]).unwrap();
        assert_eq!(sizes(&kept), [("a", 6), ("b", HALF - 6), ("c", HALF)]);

        for (template, values) in [
            (nothing, [value("a", HALF), value("b", HALF + 1)]),
            (
                json!({"keepSources": true, "data": {"c": "1"}}),
                [value("a", HALF), value("b", HALF)],
            ),
            (
                json!({"data": {"c": "{{ a }}", "d": "{{ b }}"}}),
                [value("a", HALF), value("b", HALF + 1)],
            ),
        ] {
            let fault = rendered(&template, &values).err().expect("it is too large");
            assert_eq!(fault.reason, Reason::SecretTooLarge, "{template}");
        }
    }

    #[test]
    fn templates_work_on_more_than_they_write_and_not_on_everything() {
        let value = |key: &str, mebibytes: usize| json!({key: "x".repeat(mebibytes * 1024 * 1024 - 8)});
        let template = json!({"data": {"c": "{{ a|length }}"}});
        assert!(rendered(&template, &[value("a", 2), value("b", 2)]).is_ok());
        let over = rendered(&template, &[value("a", 2), value("b", 3)]);
        assert_eq!(over.err().map(|fault| fault.reason), Some(Reason::SecretTooLarge));
    }

    #[test]
    fn one_budget_serves_data_labels_and_annotations() {
        let loops = "{% for i in range(7000) %}{% for j in range(10) %}{% endfor %}{% endfor %}";
        let template = |fields: &[&str]| -> Value {
            let fields = fields
                .iter()
                .map(|field| ((*field).to_owned(), json!({"a": loops})));
            Value::Object(fields.collect())
        };
        assert!(rendered(&template(&["data", "labels"]), &[json!({})]).is_ok());
        let fault = rendered(&template(&["data", "labels", "annotations"]), &[json!({})]);
        let fault = fault.err().expect("it takes too many steps");
        assert_eq!(fault.reason, Reason::TemplateLimit);
        assert!(fault.message.contains("template.annotations.a"), "{fault}");
    }
}
