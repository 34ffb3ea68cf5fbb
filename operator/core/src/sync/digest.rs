//! Short digests of names, where there is no room for the names. They are not keyed: never of values.

use sha2::{Digest as _, Sha256};

/// Sixteen hexadecimal digits that stand for these texts in this order.
pub(super) fn of_names<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let mut hash = Sha256::new();
    for name in names {
        hash.update(u64::try_from(name.len()).unwrap_or(u64::MAX).to_be_bytes());
        hash.update(name.as_bytes());
    }
    let digest: [u8; 32] = hash.finalize().into();
    let digits = digest
        .iter()
        .take(8)
        .fold(0_u64, |digits, byte| (digits << 8) | u64::from(*byte));
    format!("{digits:016x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_keep_their_borders_and_their_order() {
        let one = of_names(["ab", "c"]);
        assert_eq!(one.len(), 16);
        assert_eq!(one, of_names(["ab", "c"]));
        for other in [vec!["a", "bc"], vec!["c", "ab"], vec!["abc"], vec!["ab", "c", ""]] {
            assert_ne!(one, of_names(other.iter().copied()), "{other:?}");
        }
    }
}
