//! What a pass that may write would change: told where `mode: Observe` forbids the write. Keys are named, values are
//! not.

use std::collections::BTreeSet;

use super::ownership::{Ownership, Removal};

/// The most keys that are named; the others are counted.
const MOST_NAMED: usize = 10;

/// How the keys of a Secret that exists differ from those that would be written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Difference {
    /// Keys that it lacks.
    pub added: BTreeSet<String>,
    /// Keys whose value differs.
    pub changed: BTreeSet<String>,
    /// Whether labels or annotations of ours differ.
    pub metadata: bool,
}

/// What a write would do, in words; `None` where nothing. `keys` would be written, and so many consumers restarted.
#[must_use]
pub fn of_write(
    verdict: &Ownership,
    keys: &BTreeSet<String>,
    difference: &Difference,
    restarts: usize,
) -> Option<String> {
    let mut parts = Vec::new();
    match verdict {
        Ownership::Refused(fault) => return Some(format!("the write would be refused: {fault}")),
        Ownership::Create => parts.push(format!("the Secret would be created with {}", named(keys))),
        Ownership::Update(update) => {
            let changes = [
                (&difference.added, "would be added"),
                (&difference.changed, "would get another value"),
                (&update.remove, "would be removed"),
            ];
            for (keys, change) in changes {
                if !keys.is_empty() {
                    parts.push(format!("{} {change}", named(keys)));
                }
            }
            if difference.metadata {
                parts.push("labels or annotations would change".to_owned());
            }
        }
    }
    match restarts {
        0 => {}
        1 => parts.push("1 consumer would be restarted".to_owned()),
        _ => parts.push(format!("{restarts} consumers would be restarted")),
    }
    (!parts.is_empty()).then(|| parts.join("; "))
}

/// What giving up everything of ours would do, in words, and why; `None` where there is nothing of ours.
#[must_use]
pub fn of_removal(removal: Removal, cause: &str) -> Option<String> {
    match removal {
        Removal::Secret => Some(format!("{cause}; the Secret would be deleted as asked")),
        Removal::Keys => Some(format!("{cause}; its keys would be removed as asked")),
        Removal::Nothing => None,
    }
}

fn named(keys: &BTreeSet<String>) -> String {
    let names: Vec<String> = keys
        .iter()
        .take(MOST_NAMED)
        .map(|key| format!("`{key}`"))
        .collect();
    let names = names.join(", ");
    let unnamed = keys.len().saturating_sub(MOST_NAMED);
    match (keys.len(), unnamed) {
        (0, _) => "no key".to_owned(),
        (1, _) => format!("key {names}"),
        (_, 0) => format!("keys {names}"),
        _ => format!("keys {names} and {unnamed} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::{Class, Fault};
    use crate::reason::Reason;
    use crate::sync::ownership::Update;

    fn set(keys: &[&str]) -> BTreeSet<String> {
        keys.iter().map(|key| (*key).to_owned()).collect()
    }

    fn update(remove: &[&str]) -> Ownership {
        Ownership::Update(Update {
            whole: true,
            remove: set(remove),
            take: set(&[]),
        })
    }

    fn told(verdict: &Ownership, difference: &Difference, restarts: usize) -> Option<String> {
        of_write(verdict, &set(&["a", "b"]), difference, restarts)
    }

    #[test]
    fn nothing_is_told_of_a_secret_that_would_stay_as_it_is() {
        assert_eq!(told(&update(&[]), &Difference::default(), 0), None);
        assert_eq!(of_removal(Removal::Nothing, "path `x` is deleted"), None);
    }

    #[test]
    fn each_change_is_named() {
        let nothing = Difference::default();
        let words = told(&Ownership::Create, &nothing, 2).expect("it would be made");
        assert_eq!(
            words,
            "the Secret would be created with keys `a`, `b`; 2 consumers would be restarted"
        );
        let difference = Difference {
            added: set(&["a"]),
            changed: set(&["b"]),
            metadata: true,
        };
        let words = told(&update(&["c"]), &difference, 1).expect("there are changes");
        assert_eq!(
            words,
            "key `a` would be added; key `b` would get another value; key `c` would be removed; \
             labels or annotations would change; 1 consumer would be restarted"
        );
        let words = of_removal(Removal::Secret, "path `x` is deleted in the store");
        assert_eq!(
            words.as_deref(),
            Some("path `x` is deleted in the store; the Secret would be deleted as asked")
        );
    }

    #[test]
    fn a_refusal_is_told_in_its_own_words() {
        let refused =
            Fault::new(Class::Permanent, Reason::SecretNotOwned, "it is not ours").advise("consent");
        let words = told(&Ownership::Refused(refused), &Difference::default(), 1);
        assert_eq!(
            words.as_deref(),
            Some("the write would be refused: it is not ours; consent")
        );
    }

    #[test]
    fn only_so_many_keys_are_named() {
        let keys: BTreeSet<String> = (10..30).map(|number| format!("k{number}")).collect();
        let words = of_write(&Ownership::Create, &keys, &Difference::default(), 0).expect("it would be made");
        assert!(words.ends_with("`k19` and 10 more"), "{words}");
    }
}
