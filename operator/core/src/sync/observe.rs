//! What a pass that may write would change: told where `mode: Observe` forbids the write.

/// The Secret as a pass found it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Before {
    /// There is none.
    Missing,
    /// It is somebody else's, or was changed by somebody else.
    Touched,
    /// It is as it was written.
    Intact {
        /// Whether what was rendered now has the fingerprint of what was written.
        same: bool,
    },
}

/// What a write of `keys` keys would change, in words; `None` where nothing.
#[must_use]
pub fn difference(before: Before, keys: usize) -> Option<String> {
    match before {
        Before::Missing => Some(format!("the Secret would be created with {keys} keys")),
        Before::Touched => Some(format!(
            "the Secret exists; {keys} keys would be written as far as adoption allows"
        )),
        Before::Intact { same: true } => None,
        Before::Intact { same: false } => Some(format!(
            "the Secret's {keys} keys would be written with other values"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_told_of_a_secret_that_would_stay_as_it_is() {
        assert_eq!(difference(Before::Intact { same: true }, 3), None);
        for (before, words) in [
            (Before::Missing, "would be created with 3 keys"),
            (
                Before::Touched,
                "3 keys would be written as far as adoption allows",
            ),
            (
                Before::Intact { same: false },
                "3 keys would be written with other values",
            ),
        ] {
            let told = difference(before, 3).expect("something would change");
            assert!(told.contains(words), "{told}");
        }
    }
}
