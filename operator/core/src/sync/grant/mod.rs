//! Who may read what from a cluster store: rules of namespaces and remote places, and the environment both sides
//! belong to. Nothing is granted unless a rule says so.

pub mod pattern;
pub mod selector;

use std::collections::BTreeSet;
use std::fmt;

use crate::fault::{Class, Fault};
use crate::reason::Reason;
use crate::sync::path::RemotePath;

use pattern::{PathPattern, PatternError};
use selector::{Labels, Selector};

/// One grant of a cluster store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessRule {
    name: String,
    namespaces: Option<BTreeSet<String>>,
    selector: Option<Selector>,
    paths: Vec<PathPattern>,
}

/// Who reads.
#[derive(Debug, Clone, Copy)]
pub struct Reader<'a> {
    /// The namespace that holds the object.
    pub namespace: &'a str,
    /// The labels of that namespace.
    pub labels: &'a Labels,
    /// The environment that the namespace is labelled with.
    pub environment: Option<&'a str>,
}

/// What is to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted<'a> {
    /// One path, or one name taken as a path.
    Path(&'a RemotePath),
    /// One object by its UUID.
    Uuid(&'a str),
    /// One container by its UUID.
    Container(&'a str),
    /// Whatever lies below a path; `None` is the whole mount.
    Below(Option<&'a RemotePath>),
    /// Whatever has a name with this beginning.
    Beginning(&'a str),
}

/// Why something may not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// [`Reason::EnvironmentRefused`], [`Reason::NamespaceRefused`] or [`Reason::PathRefused`].
    pub reason: Reason,
    /// What was refused, in words.
    pub message: String,
    /// The rules that were looked at: all of them where none admits the namespace, else those that do.
    pub rules: Vec<String>,
}

impl AccessRule {
    /// A rule. Where both names and a selector are given, both must admit the namespace; with neither, none is.
    pub fn new(
        name: impl Into<String>,
        namespaces: Option<impl IntoIterator<Item = String>>,
        selector: Option<Selector>,
        paths: impl IntoIterator<Item = impl AsRef<str>>,
    ) -> Result<Self, PatternError> {
        Ok(Self {
            name: name.into(),
            namespaces: namespaces.map(|names| names.into_iter().collect()),
            selector,
            paths: paths
                .into_iter()
                .map(|path| path.as_ref().parse())
                .collect::<Result<_, _>>()?,
        })
    }

    /// The rule's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    fn admits(&self, reader: Reader<'_>) -> bool {
        let named = self
            .namespaces
            .as_ref()
            .map(|names| names.contains(reader.namespace));
        let selected = self
            .selector
            .as_ref()
            .map(|selector| selector.matches(reader.labels));
        match (named, selected) {
            (None, None) => false,
            (named, selected) => named.unwrap_or(true) && selected.unwrap_or(true),
        }
    }

    fn covers(&self, wanted: Wanted<'_>, namespace: &str) -> bool {
        self.paths.iter().any(|pattern| match wanted {
            Wanted::Path(path) => pattern.covers_path(path, namespace),
            Wanted::Uuid(uuid) => pattern.covers_uuid(uuid),
            Wanted::Container(uuid) => pattern.covers_container(uuid),
            Wanted::Below(prefix) => pattern.covers_below(prefix, namespace),
            Wanted::Beginning(beginning) => pattern.covers_beginning(beginning, namespace),
        })
    }
}

/// Refuses a namespace that is labelled with another environment than the store's. Holds for every kind of store.
pub fn check_environment(store: Option<&str>, reader: Reader<'_>) -> Result<(), Refusal> {
    match (store, reader.environment) {
        (Some(store), Some(namespace)) if store != namespace => Err(Refusal {
            reason: Reason::EnvironmentRefused,
            message: format!(
                "namespace `{}` belongs to environment `{namespace}` and the store to `{store}`",
                reader.namespace
            ),
            rules: Vec::new(),
        }),
        _ => Ok(()),
    }
}

/// Decides whether `reader` may read all that is `wanted`, and by which rule each. The first rule that covers a
/// place is named.
pub fn decide<'r>(
    rules: &'r [AccessRule],
    store_environment: Option<&str>,
    reader: Reader<'_>,
    wanted: &[Wanted<'_>],
) -> Result<Vec<&'r str>, Refusal> {
    check_environment(store_environment, reader)?;
    let admitting: Vec<&AccessRule> = rules.iter().filter(|rule| rule.admits(reader)).collect();
    if admitting.is_empty() {
        return Err(Refusal {
            reason: Reason::NamespaceRefused,
            message: format!(
                "no access rule of the store admits namespace `{}`",
                reader.namespace
            ),
            rules: names(rules),
        });
    }
    wanted
        .iter()
        .map(|place| {
            admitting
                .iter()
                .find(|rule| rule.covers(*place, reader.namespace))
                .map(|rule| rule.name())
                .ok_or_else(|| Refusal {
                    reason: Reason::PathRefused,
                    message: format!(
                        "no access rule grants {place} to namespace `{}`",
                        reader.namespace
                    ),
                    rules: names(admitting.iter().copied()),
                })
        })
        .collect()
}

impl fmt::Display for Wanted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => write!(f, "`{path}`"),
            Self::Uuid(uuid) => write!(f, "`uuid:{uuid}`"),
            Self::Container(uuid) => write!(f, "`container:{uuid}`"),
            Self::Below(Some(prefix)) => write!(f, "everything below `{prefix}`"),
            Self::Below(None) => f.write_str("everything"),
            Self::Beginning(beginning) => {
                write!(f, "every name that begins with `{}`", beginning.escape_debug())
            }
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match self.rules.as_slice() {
            [] => Ok(()),
            rules => write!(f, " (rules looked at: {})", rules.join(", ")),
        }
    }
}

impl std::error::Error for Refusal {}

impl From<Refusal> for Fault {
    fn from(refusal: Refusal) -> Self {
        let advice = match refusal.reason {
            Reason::EnvironmentRefused => "use a store of the namespace's own environment",
            _ => "ask the owner of the cluster store for an access rule",
        };
        Self::new(Class::Denied, refusal.reason, refusal.to_string()).advise(advice)
    }
}

fn names<'a>(rules: impl IntoIterator<Item = &'a AccessRule>) -> Vec<String> {
    rules.into_iter().map(|rule| rule.name.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn path(text: &str) -> RemotePath {
        text.parse().unwrap()
    }

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect()
    }

    fn named(name: &str, namespaces: &[&str], paths: &[&str]) -> AccessRule {
        let namespaces = namespaces
            .iter()
            .map(|name| (*name).to_owned())
            .collect::<Vec<_>>();
        AccessRule::new(name, Some(namespaces), None, paths).unwrap()
    }

    fn reader<'a>(namespace: &'a str, labels: &'a Labels, environment: Option<&'a str>) -> Reader<'a> {
        Reader {
            namespace,
            labels,
            environment,
        }
    }

    fn outcome(
        rules: &[AccessRule],
        namespace: &str,
        labels: &Labels,
        wanted: Wanted<'_>,
    ) -> Result<String, Reason> {
        decide(rules, Some("prod"), reader(namespace, labels, None), &[wanted])
            .map(|rules| rules[0].to_owned())
            .map_err(|refusal| refusal.reason)
    }

    #[test]
    fn a_place_needs_a_rule_that_admits_and_covers() {
        let rules = [
            named("shops", &["shop", "till"], &["shops/{{namespace}}/*"]),
            named("shared", &["shop"], &["shared/**", "uuid:abc"]),
        ];
        let none = Labels::new();
        let shop = |place: &str| outcome(&rules, "shop", &none, Wanted::Path(&path(place)));
        assert_eq!(shop("shops/shop/db"), Ok("shops".to_owned()));
        assert_eq!(shop("shared/a/b"), Ok("shared".to_owned()));
        assert_eq!(shop("shops/till/db"), Err(Reason::PathRefused));
        assert_eq!(shop("shops/shop/db/more"), Err(Reason::PathRefused));
        let till = |place: &str| outcome(&rules, "till", &none, Wanted::Path(&path(place)));
        assert_eq!(till("shared/a"), Err(Reason::PathRefused));
        assert_eq!(
            outcome(&rules, "bank", &none, Wanted::Path(&path("shared/a"))),
            Err(Reason::NamespaceRefused)
        );
        assert_eq!(
            outcome(&rules, "shop", &none, Wanted::Uuid("abc")),
            Ok("shared".to_owned())
        );
        assert_eq!(
            outcome(&rules, "till", &none, Wanted::Uuid("abc")),
            Err(Reason::PathRefused)
        );
        assert_eq!(
            outcome(&rules, "shop", &none, Wanted::Below(None)),
            Err(Reason::PathRefused)
        );
        assert_eq!(
            outcome(&rules, "shop", &none, Wanted::Beginning("shared/")),
            Ok("shared".to_owned())
        );
    }

    #[test]
    fn one_refused_place_refuses_all() {
        let rules = [named("r", &["shop"], &["a/*"])];
        let (good, bad) = (path("a/b"), path("b/a"));
        let labels = Labels::new();
        let reader = reader("shop", &labels, None);
        let both = decide(&rules, None, reader, &[Wanted::Path(&good), Wanted::Path(&bad)]);
        assert_eq!(both.map_err(|refusal| refusal.reason), Err(Reason::PathRefused));
    }

    #[test]
    fn names_and_selector_must_both_admit() {
        let selector = Selector {
            match_labels: labels(&[("team", "a")]),
            ..Selector::default()
        };
        let both = AccessRule::new("r", Some(["shop".to_owned()]), Some(selector.clone()), ["**"]).unwrap();
        let by_label = AccessRule::new("r", None::<Vec<String>>, Some(selector), ["**"]).unwrap();
        let nobody = AccessRule::new("r", None::<Vec<String>>, None, ["**"]).unwrap();
        let (team, other) = (labels(&[("team", "a")]), labels(&[("team", "b")]));
        let admits = |rule: &AccessRule, namespace, labels| rule.admits(reader(namespace, labels, None));
        assert!(admits(&both, "shop", &team));
        assert!(!admits(&both, "shop", &other) && !admits(&both, "till", &team));
        assert!(admits(&by_label, "till", &team) && !admits(&by_label, "till", &other));
        assert!(!admits(&nobody, "shop", &team));
    }

    #[test]
    fn another_environment_is_refused_before_anything_else() {
        let rules = [named("r", &["shop"], &["**"])];
        let place = path("a");
        let labels = Labels::new();
        let of = |environment| {
            decide(
                &rules,
                Some("prod"),
                reader("shop", &labels, environment),
                &[Wanted::Path(&place)],
            )
            .map(|rules| rules[0].to_owned())
            .map_err(|refusal| refusal.reason)
        };
        assert_eq!(of(Some("staging")), Err(Reason::EnvironmentRefused));
        assert_eq!(of(Some("prod")), Ok("r".to_owned()));
        assert_eq!(of(None), Ok("r".to_owned()));
    }

    #[test]
    fn a_refusal_names_the_rules_and_the_place() {
        let rules = [
            named("shops", &["shop"], &["a/*"]),
            named("banks", &["bank"], &["b/*"]),
        ];
        let labels = Labels::new();
        let reader = |namespace| reader(namespace, &labels, None);
        let place = path("b/x");
        let refusal = decide(&rules, None, reader("shop"), &[Wanted::Path(&place)]).unwrap_err();
        assert_eq!(
            refusal.to_string(),
            "no access rule grants `b/x` to namespace `shop` (rules looked at: shops)"
        );
        let refusal = decide(&rules, None, reader("till"), &[Wanted::Path(&place)]).unwrap_err();
        assert!(
            refusal.to_string().ends_with("(rules looked at: shops, banks)"),
            "{refusal}"
        );
        assert_eq!(Fault::from(refusal).class, Class::Denied);
    }

    proptest! {
        #[test]
        fn nothing_is_granted_without_a_rule_that_names_the_namespace(
            namespaces in proptest::collection::vec("[ab]", 1..3),
            reader in "[abc]",
            place in "[ab](/[ab]){0,2}",
        ) {
            let names: Vec<&str> = namespaces.iter().map(String::as_str).collect();
            let rules = [named("r", &names, &["{{namespace}}/**"])];
            let wanted = path(&place);
            let granted = outcome(&rules, &reader, &Labels::new(), Wanted::Path(&wanted)).is_ok();
            let own = place.strip_prefix(reader.as_str()).is_some_and(|rest| rest.starts_with('/'));
            prop_assert_eq!(granted, namespaces.contains(&reader) && own);
        }
    }
}
