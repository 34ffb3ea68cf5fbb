//! Whether what an object leaves behind goes with it: only where somebody meant that one object to go.
//!
//! When the definition of a kind is removed, each of its objects goes with it, and nobody meant their Secrets. Once it is
//! installed again, everything looks as if the objects had been deleted one by one. What tells the two apart is time: an
//! object that is older than the definition went with an earlier one.

use chrono::{DateTime, Utc};

/// The definition of the kind, as it is installed now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Definition {
    /// When it was made.
    pub installed: DateTime<Utc>,
    /// Whether it is being removed.
    pub leaving: bool,
}

/// The last that is known of an object that is not there any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trace {
    /// It was seen while it existed, and had been made then.
    Seen(DateTime<Utc>),
    /// It went unseen. Its Secret was last written on its behalf then, where the Secret says so.
    Written(Option<DateTime<Utc>>),
}

/// Whether the object was deleted by itself, and not with its kind. `None` stands for a definition that is gone.
///
/// Kubernetes keeps whole seconds. Within one nothing is certain, and what is deleted cannot be brought back.
#[must_use]
pub fn was_meant(definition: Option<Definition>, trace: Trace) -> bool {
    let lived = match trace {
        Trace::Seen(made) => Some(made),
        Trace::Written(written) => written,
    };
    definition.is_some_and(|definition| {
        !definition.leaving && lived.is_some_and(|lived| lived > definition.installed)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_000_000 + second, 0).expect("a time in range")
    }

    #[test]
    fn only_what_lived_under_the_present_definition_was_meant_to_go() {
        let installed = |leaving| {
            Some(Definition {
                installed: at(10),
                leaving,
            })
        };
        for (definition, trace, meant) in [
            (installed(false), Trace::Seen(at(11)), true),
            (installed(false), Trace::Seen(at(10)), false),
            (installed(false), Trace::Seen(at(9)), false),
            (installed(false), Trace::Written(Some(at(11))), true),
            (installed(false), Trace::Written(Some(at(9))), false),
            (installed(false), Trace::Written(None), false),
            (installed(true), Trace::Seen(at(11)), false),
            (None, Trace::Seen(at(11)), false),
        ] {
            assert_eq!(was_meant(definition, trace), meant, "{definition:?} {trace:?}");
        }
    }
}
