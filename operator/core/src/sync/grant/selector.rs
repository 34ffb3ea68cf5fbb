//! Kubernetes label selectors, by the rules of the API server.

use std::collections::{BTreeMap, BTreeSet};

/// Labels by key.
pub type Labels = BTreeMap<String, String>;

/// A label selector: everything in it must hold. An empty one selects everything.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Selector {
    /// Labels that must have exactly these values.
    pub match_labels: Labels,
    /// What else must hold.
    pub expressions: Vec<Requirement>,
}

/// One requirement on one label.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requirement {
    /// The label's key.
    pub key: String,
    /// What must hold for it.
    pub test: LabelTest,
}

/// What must hold for a label.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LabelTest {
    /// It is there with one of these values.
    In(BTreeSet<String>),
    /// It is absent or has none of these values.
    NotIn(BTreeSet<String>),
    /// It is there.
    Exists,
    /// It is absent.
    DoesNotExist,
}

impl Selector {
    /// Whether an object with `labels` is selected.
    #[must_use]
    pub fn matches(&self, labels: &Labels) -> bool {
        self.match_labels
            .iter()
            .all(|(key, value)| labels.get(key) == Some(value))
            && self
                .expressions
                .iter()
                .all(|requirement| requirement.holds(labels))
    }
}

impl Requirement {
    /// A requirement as Kubernetes spells it; `None` for an operator or values that Kubernetes does not accept.
    #[must_use]
    pub fn parse(key: &str, operator: &str, values: &[String]) -> Option<Self> {
        let set = || Some(values.iter().cloned().collect::<BTreeSet<_>>()).filter(|set| !set.is_empty());
        let test = match operator {
            "In" => LabelTest::In(set()?),
            "NotIn" => LabelTest::NotIn(set()?),
            "Exists" if values.is_empty() => LabelTest::Exists,
            "DoesNotExist" if values.is_empty() => LabelTest::DoesNotExist,
            _ => return None,
        };
        Some(Self {
            key: key.to_owned(),
            test,
        })
    }

    fn holds(&self, labels: &Labels) -> bool {
        let value = labels.get(&self.key);
        match &self.test {
            LabelTest::In(values) => value.is_some_and(|value| values.contains(value)),
            LabelTest::NotIn(values) => value.is_none_or(|value| !values.contains(value)),
            LabelTest::Exists => value.is_some(),
            LabelTest::DoesNotExist => value.is_none(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect()
    }

    fn selector(operator: &str, values: &[&str]) -> Selector {
        let values: Vec<String> = values.iter().map(|value| (*value).to_owned()).collect();
        let requirement = Requirement::parse("team", operator, &values).unwrap();
        Selector {
            expressions: vec![requirement],
            ..Selector::default()
        }
    }

    #[test]
    fn operators_follow_the_api_server() {
        let (a, none) = (labels(&[("team", "a")]), labels(&[]));
        for (operator, values, with_a, without) in [
            ("In", &["a", "b"][..], true, false),
            ("In", &["b"], false, false),
            ("NotIn", &["a"], false, true),
            ("NotIn", &["b"], true, true),
            ("Exists", &[], true, false),
            ("DoesNotExist", &[], false, true),
        ] {
            assert_eq!(
                selector(operator, values).matches(&a),
                with_a,
                "{operator} {values:?}"
            );
            assert_eq!(
                selector(operator, values).matches(&none),
                without,
                "{operator} {values:?}"
            );
        }
        let both = Selector {
            match_labels: labels(&[("env", "prod")]),
            ..selector("Exists", &[])
        };
        assert!(both.matches(&labels(&[("env", "prod"), ("team", "x")])));
        assert!(!both.matches(&labels(&[("env", "dev"), ("team", "x")])));
        assert!(Selector::default().matches(&none));
    }

    #[test]
    fn what_kubernetes_refuses_is_no_requirement() {
        let one = ["a".to_owned()];
        assert_eq!(Requirement::parse("k", "In", &[]), None);
        assert_eq!(Requirement::parse("k", "NotIn", &[]), None);
        assert_eq!(Requirement::parse("k", "Exists", &one), None);
        assert_eq!(Requirement::parse("k", "in", &one), None);
        assert_eq!(Requirement::parse("k", "Gt", &one), None);
    }
}
