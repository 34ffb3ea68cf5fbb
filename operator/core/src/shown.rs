//! Names that others have chosen, as they may stand in a sentence of ours: on one line, in one direction.

use std::borrow::Cow;
use std::fmt::{self, Write as _};

/// A name without what could make the text around it read as another: line ends and other control characters, and
/// characters that turn the direction of writing, are shown as escapes.
#[derive(Clone, Copy)]
pub struct Shown<'a> {
    name: &'a str,
    longest: usize,
}

/// How many characters of a name are shown where it may be of any length.
const CUT_AT: usize = 64;

impl<'a> Shown<'a> {
    /// The whole name.
    #[must_use]
    pub fn whole(name: &'a str) -> Self {
        Self {
            name,
            longest: usize::MAX,
        }
    }

    /// The beginning of a name.
    #[must_use]
    pub fn cut(name: &'a str) -> Self {
        Self {
            name,
            longest: CUT_AT,
        }
    }
}

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut chars = self.name.chars();
        for c in chars.by_ref().take(self.longest) {
            if misleads(c) {
                write!(f, "{}", c.escape_debug())?;
            } else {
                f.write_char(c)?;
            }
        }
        if chars.next().is_some() {
            f.write_str("…")?;
        }
        Ok(())
    }
}

/// A sentence with names in it, escaped in the same way.
#[must_use]
pub fn on_one_line(sentence: Cow<'static, str>) -> Cow<'static, str> {
    if sentence.contains(misleads) {
        Shown::whole(&sentence).to_string().into()
    } else {
        sentence
    }
}

fn misleads(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_misleads_is_escaped_and_the_rest_is_as_it_was() {
        for (name, shown) in [
            ("apps/db", "apps/db"),
            ("it's \"this\" \\ e\u{301}", "it's \"this\" \\ e\u{301}"),
            ("a\nINFO forged\r", r"a\nINFO forged\r"),
            ("\u{1b}[31m\u{85}", r"\u{1b}[31m\u{85}"),
            ("\u{202e}gpj.\u{2028}", r"\u{202e}gpj.\u{2028}"),
        ] {
            assert_eq!(Shown::whole(name).to_string(), shown);
            assert_eq!(on_one_line(Cow::Owned(name.to_owned())), shown);
        }
    }

    #[test]
    fn a_name_of_any_length_is_cut() {
        let just = "ä".repeat(CUT_AT);
        assert_eq!(Shown::cut(&just).to_string(), just);
        assert_eq!(Shown::cut(&format!("{just}b")).to_string(), format!("{just}…"));
    }
}
