//! Parses a `SyncedSecret` into a plan whose parts are known to be well formed.
//!
//! What the schema has checked is taken over; what it cannot say is checked here, once for each pass, before
//! anything is asked of a store.

use keyward_core::fault::{Class, Fault};
use keyward_core::reason::Reason;
use keyward_core::sync::fields::{Extraction, FieldChoice, FieldPath, FieldSelection};
use keyward_core::sync::find::NamePattern;
use keyward_core::sync::keys::{ConflictRule, DataKey};
use keyward_core::sync::lineage::SourceId;
use keyward_core::sync::path::RemotePath;
use keyward_core::sync::template::{Compiler, Template};
use keyward_crds::SyncedSecret;
use keyward_crds::synced_secret as api;

use super::index::target_of;
use super::translate;
use crate::cluster::ObjectKey;
use crate::store::StoreKey;
use crate::stores::{FindQuery, Found, Outcome, Place, RemoteRef};

/// The most places that a search may list before pattern and tags are applied.
const MOST_LISTED: usize = 10_000;

/// What is to be done for one object.
pub struct Plan {
    /// The Secret to write.
    pub target: ObjectKey,
    /// Where the values come from.
    pub sources: Vec<SourcePlan>,
    /// What to do when two sources give the same key.
    pub conflict: ConflictRule,
    /// The type of the Secret, where a template makes it.
    pub secret_type: Option<Template>,
    /// Keys that are made by templates.
    pub data: Vec<(DataKey, Template)>,
    /// Whether the sources' own keys are kept beside them.
    pub keep_sources: bool,
    /// Labels that are made by templates.
    pub labels: Vec<(String, Template)>,
    /// Annotations that are made by templates.
    pub annotations: Vec<(String, Template)>,
}

/// One source.
pub struct SourcePlan {
    /// Tells it from every source that asks for something else.
    pub id: SourceId,
    /// Which store.
    pub store: StoreKey,
    /// What to read there.
    pub wanted: Wanted,
    /// The path or name as access rules see it; `None` where it is a UUID, or a search of everything.
    pub granted_as: Option<RemotePath>,
    /// What to take of it.
    pub extraction: Extraction,
}

/// What a source reads.
pub enum Wanted {
    /// One place.
    One(RemoteRef),
    /// Every place that matches.
    Search {
        /// What the store is asked.
        query: FindQuery,
        /// What the whole name must match.
        pattern: Option<NamePattern>,
        /// More matches than this is a fault.
        max: usize,
    },
}

impl SourcePlan {
    /// What decides the turns in which it is looked at. The secrets of a project have theirs in common: one listing
    /// answers for all of them.
    #[must_use]
    pub fn turns_of(&self) -> String {
        let place = match &self.wanted {
            Wanted::One(at) => match &at.place {
                Place::Path(place) | Place::Container(place) => place,
                Place::Name(_) | Place::Uuid(_) => "",
            },
            Wanted::Search { .. } => "",
        };
        format!("{}/{place}", self.store)
    }

    /// Whether it is a search that would take this match, as far as its name tells.
    #[must_use]
    pub fn asks_for(&self, found: &Found) -> bool {
        match &self.wanted {
            Wanted::One(_) => false,
            Wanted::Search { query, pattern, .. } => {
                query.reaches(found)
                    && pattern
                        .as_ref()
                        .is_none_or(|pattern| pattern.matches(&found.name))
            }
        }
    }

    /// Whether it is a search that takes only what carries tags.
    #[must_use]
    pub fn asks_for_tags(&self) -> bool {
        matches!(&self.wanted, Wanted::Search { query, .. } if !query.tags.is_empty())
    }
}

/// Parses an object.
///
/// # Errors
/// `SpecInvalid` or `KeyInvalid` or `TemplateFailed`, naming the field.
pub fn parse(key: &ObjectKey, object: &SyncedSecret) -> Outcome<Plan> {
    let spec = &object.spec;
    let template = spec.target.template.clone().unwrap_or_default();
    let mut compiler = Compiler::default();
    let mut data = Vec::with_capacity(template.data.len());
    for (name, source) in &template.data {
        let data_key = DataKey::parse(name.as_str())?;
        data.push((
            data_key,
            compiler.compile(format!("template.data.{name}"), source)?,
        ));
    }
    Ok(Plan {
        target: target_of(key, object),
        sources: spec
            .sources
            .iter()
            .enumerate()
            .map(|(index, source)| parse_source(key, index, source))
            .collect::<Outcome<_>>()?,
        conflict: translate::conflict_rule(spec.conflict),
        keep_sources: template.keep_sources || data.is_empty(),
        secret_type: match &template.type_ {
            Some(source) => Some(compiler.compile("template.type".to_owned(), source)?),
            None => None,
        },
        data,
        labels: compile_all(&mut compiler, "template.labels", &template.labels)?,
        annotations: compile_all(&mut compiler, "template.annotations", &template.annotations)?,
    })
}

fn parse_source(key: &ObjectKey, index: usize, source: &api::Source) -> Outcome<SourcePlan> {
    let version = source.version.and_then(|version| u64::try_from(version).ok());
    let one = |place| Wanted::One(RemoteRef { place, version });
    let place = source.path.as_deref().or(source.name.as_deref());
    let prefix = source.find.as_ref().and_then(|find| find.prefix.as_deref());
    // A prefix may be written with a slash at its end. A place that ends in one is another place.
    let text = place.or(prefix.map(|prefix| prefix.trim_end_matches('/')));
    let granted_as = text.map(str::parse::<RemotePath>);
    let granted_as = match (granted_as.transpose(), &source.path) {
        (Ok(path), _) => path,
        (Err(error), Some(path)) => return Err(invalid(format!("sources[{index}]: path `{path}`: {error}"))),
        // A name of Barbican need not be a path; access rules then cover it by `**` alone.
        (Err(_), None) => None,
    };
    let wanted = match (
        &source.path,
        &source.name,
        &source.uuid,
        &source.container,
        &source.find,
    ) {
        (Some(path), ..) => one(Place::Path(path.clone())),
        (_, Some(name), ..) => one(Place::Name(name.clone())),
        (_, _, Some(uuid), ..) => one(Place::Uuid(uuid.clone())),
        (_, _, _, Some(container), _) => one(Place::Container(container.clone())),
        (.., Some(find)) => parse_find(index, find)?,
        _ => return Err(invalid(format!("sources[{index}] names nothing to read"))),
    };
    let extraction = Extraction {
        selection: parse_selection(index, source)?,
        prefix: source.prefix.clone().unwrap_or_default(),
        decode: translate::decode(source.decode),
    };
    let checked = extraction.check().map_err(Fault::from);
    checked.map_err(|fault| fault.about(&format!("sources[{index}]")))?;
    let store = StoreKey::referred(&key.namespace, &source.store_ref);
    Ok(SourcePlan {
        id: id_of(&store, &wanted),
        store,
        wanted,
        granted_as,
        extraction,
    })
}

/// A search is the same whatever its conditions: what it finds is told apart by name.
fn id_of(store: &StoreKey, wanted: &Wanted) -> SourceId {
    let store = store.to_string();
    match wanted {
        Wanted::One(at) => SourceId::of(&store, &at.place.to_string(), at.version),
        Wanted::Search { .. } => SourceId::of(&store, "search", None),
    }
}

fn parse_find(index: usize, find: &api::Find) -> Outcome<Wanted> {
    let pattern = find
        .pattern
        .as_deref()
        .map(NamePattern::parse)
        .transpose()
        .map_err(|error| invalid(format!("sources[{index}].find.pattern: {error}")))?;
    let max = usize::try_from(find.max).unwrap_or_default();
    let tags = find.tags.clone().unwrap_or_default();
    // The cap is on what matches; a listing may hold more, up to a bound of its own.
    let selects = pattern.is_some() || !tags.is_empty();
    let query = FindQuery {
        prefix: find.prefix.clone().unwrap_or_default(),
        tags,
        limit: if selects { MOST_LISTED } else { max },
    };
    Ok(Wanted::Search { query, pattern, max })
}

fn parse_selection(index: usize, source: &api::Source) -> Outcome<FieldSelection> {
    if let Some(key) = &source.key {
        return Ok(FieldSelection::Whole { key: key.clone() });
    }
    let Some(fields) = &source.fields else {
        return Ok(FieldSelection::All);
    };
    let choices = fields.iter().map(|field| {
        let path = field
            .field
            .parse::<FieldPath>()
            .map_err(|error| invalid(format!("sources[{index}]: field `{}`: {error}", field.field)))?;
        Ok(FieldChoice {
            field: path,
            key: field.key.clone(),
            decode: field.decode.map(translate::decode),
        })
    });
    choices.collect::<Outcome<Vec<_>>>().map(FieldSelection::Fields)
}

fn compile_all(
    compiler: &mut Compiler,
    field: &str,
    sources: &std::collections::BTreeMap<String, String>,
) -> Outcome<Vec<(String, Template)>> {
    let templates = sources.iter().map(|(name, source)| {
        let template = compiler.compile(format!("{field}.{name}"), source)?;
        Ok((name.clone(), template))
    });
    templates.collect()
}

fn invalid(message: String) -> Fault {
    Fault::new(Class::Permanent, Reason::SpecInvalid, message)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn parsed(source: &Value, target: &Value) -> Outcome<Plan> {
        let mut source = source.clone();
        source["storeRef"] = json!({"name": "store"});
        let object = json!({
            "apiVersion": "keyward.dev/v1alpha1", "kind": "SyncedSecret",
            "metadata": {"namespace": "apps", "name": "object"},
            "spec": {"sources": [source], "target": target},
        });
        let object: SyncedSecret = serde_json::from_value(object).unwrap();
        parse(&ObjectKey::new("apps", "object"), &object)
    }

    fn refused(source: &Value, target: &Value) -> Fault {
        let plan = parsed(source, target);
        plan.err()
            .unwrap_or_else(|| panic!("{source} {target} must be refused"))
    }

    #[test]
    fn only_a_search_is_granted_without_the_slash_at_its_end() {
        let granted = |source: &Value| {
            let plan = parsed(source, &json!({})).unwrap();
            let path = plan.sources[0].granted_as.as_ref();
            path.map(|path| path.as_str().to_owned())
        };
        let ca = || Some("shared/ca".to_owned());
        assert_eq!(granted(&json!({"find": {"prefix": "shared/ca/"}})), ca());
        assert_eq!(granted(&json!({"path": "shared/ca"})), ca());
        assert_eq!(granted(&json!({"name": "shared/ca", "key": "k"})), ca());
        // Another secret of Barbican, which no rule for `shared/ca` covers.
        assert_eq!(granted(&json!({"name": "shared/ca/", "key": "k"})), None);
        let path = refused(&json!({"path": "shared/ca/"}), &json!({}));
        assert_eq!(path.reason, Reason::SpecInvalid);
    }

    #[test]
    fn what_no_value_could_satisfy_is_refused_before_anything_is_asked() {
        let field = |field: &str| json!({"field": field});
        for (source, reason) in [
            (json!({"path": "a", "key": ".."}), Reason::KeyInvalid),
            (
                json!({"path": "a", "prefix": "p".repeat(128), "key": "k".repeat(126)}),
                Reason::KeyInvalid,
            ),
            (
                json!({"path": "a", "fields": [field("a.user name")]}),
                Reason::KeyInvalid,
            ),
            (
                json!({"path": "a", "fields": [field("a.user"), field("b.user")]}),
                Reason::KeyConflict,
            ),
        ] {
            let fault = refused(&source, &json!({}));
            assert_eq!(fault.reason, reason, "{source}");
            assert!(fault.message.starts_with("sources[0]: "), "{fault}");
        }
    }

    #[test]
    fn the_sources_of_all_templates_are_bounded() {
        let source = "x".repeat(40_000);
        let of = |n: usize| {
            let data: Value = (0..n).map(|n| (format!("k{n}"), json!(source))).collect();
            json!({"template": {"data": data}})
        };
        assert!(parsed(&json!({"path": "a"}), &of(6)).is_ok());
        let fault = refused(&json!({"path": "a"}), &of(7));
        assert_eq!(fault.reason, Reason::TemplateLimit);
    }

    #[test]
    fn no_name_in_a_spec_forges_a_line() {
        let name = "n\n2026-01-01 INFO synced";
        for (source, target) in [
            (json!({"path": name}), json!({})),
            (
                json!({"path": "a", "fields": [{"field": format!("{name}.")}]}),
                json!({}),
            ),
            (
                json!({"path": "a"}),
                json!({"template": {"labels": {name: "{{"}}}),
            ),
            (json!({"path": "a"}), json!({"template": {"data": {name: "x"}}})),
        ] {
            let shown = refused(&source, &target).to_string();
            assert!(!shown.contains('\n') && shown.contains(r"n\n2026"), "{shown}");
        }
    }
}
