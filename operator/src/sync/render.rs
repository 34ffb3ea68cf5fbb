//! From values to the content of a Secret. Neither store nor cluster is asked here.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use keyward_core::fault::{Class, Fault};
use keyward_core::reason::Reason;
use keyward_core::secret::{SecretBytes, SecretMap};
use keyward_core::sync::fingerprint::{Comparison, Content, Fingerprint, FingerprintKey};
use keyward_core::sync::keys::{self, KeyError, SourceKeys};
use keyward_core::sync::template::Template;

use keyward_crds::synced_secret::SyncedSecretStatus;

use super::gather::Target;
use super::plan::Plan;
use crate::stores::{Outcome, Reading};

/// What the Secret should hold, as far as it is ours.
pub(super) struct Rendered {
    /// The keys.
    pub data: SecretMap,
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
pub(super) fn render(
    plan: &Plan,
    secret_type: &str,
    read: &[(&Target, &Reading)],
    key: &FingerprintKey,
) -> Outcome<Rendered> {
    let mut sources = Vec::with_capacity(read.len());
    for (target, reading) in read {
        let keys = target
            .extraction
            .apply(&reading.payload)
            .map_err(|error| Fault::from(error).about(&target.label))?;
        sources.push(SourceKeys {
            source: target.label.clone(),
            keys,
        });
    }
    let values = keys::into_secret_map(keys::merge(sources, plan.conflict)?);
    let mut data = if plan.keep_sources {
        duplicate(&values)
    } else {
        SecretMap::new()
    };
    for (name, template) in &plan.data {
        let rendered = template.render(&values)?;
        data.insert(name.as_str().to_owned(), rendered);
    }
    check_size(&data)?;
    let labels = render_texts(&plan.labels, &values)?;
    let annotations = render_texts(&plan.annotations, &values)?;
    let content = Content {
        secret_type,
        labels: &labels,
        annotations: &annotations,
        data: &data,
    };
    Ok(Rendered {
        fingerprint: key.of_secret(&content),
        values: key.of_values(&data),
        data,
        labels,
        annotations,
    })
}

fn render_texts(templates: &[(String, Template)], values: &SecretMap) -> Outcome<BTreeMap<String, String>> {
    let rendered = templates.iter().map(|(name, template)| {
        let bytes = template.render(values)?;
        let text = bytes.expose_str().ok_or_else(|| {
            Fault::new(
                Class::Permanent,
                Reason::TemplateFailed,
                format!("template `{name}` does not give text"),
            )
        })?;
        Ok((name.clone(), text.to_owned()))
    });
    rendered.collect()
}

fn duplicate(values: &SecretMap) -> SecretMap {
    values
        .iter()
        .map(|(key, value)| (key.clone(), value.duplicate()))
        .collect()
}

/// The API server's own limit, said before it has to refuse.
fn check_size(data: &SecretMap) -> Outcome<()> {
    let bytes: usize = data.values().map(SecretBytes::len).sum();
    if bytes > keys::MAX_SECRET_BYTES {
        return Err(KeyError::TooLarge { bytes }.into());
    }
    Ok(())
}
