//! The order of resourceVersions.

/// Whether version `a` comes before `b`. Kubernetes promises that resourceVersions are decimal numbers without
/// leading zeros that grow with each write (KEP-5504); of anything else no order is claimed.
pub(crate) fn is_older(a: &str, b: &str) -> bool {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number(a) && is_number(b) && (a.len(), a) < (b.len(), b)
}

#[cfg(test)]
mod tests {
    use super::is_older;

    #[test]
    fn only_numbers_have_an_order() {
        assert!(is_older("9", "10"));
        assert!(!is_older("10", "10"));
        assert!(!is_older("11", "10"));
        assert!(!is_older("", "10"));
        assert!(!is_older("a", "b"));
    }
}
