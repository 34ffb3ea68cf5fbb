//! JSON read in place: members and elements as slices of the original text, one at a time, so that numbers stay as
//! they were written and nothing is copied or gathered before it is asked for.

use std::ops::Deref;

use serde_json::value::RawValue;
use zeroize::Zeroizing;

/// One JSON value, seen but not yet read. Its syntax has been checked, and nothing stands around it.
#[derive(Clone, Copy)]
pub(crate) struct Json<'a>(&'a str);

/// What kind of value it is.
pub(crate) enum Shape<'a> {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number, exactly as written.
    Number(&'a str),
    /// A string, still in quotes and escaped.
    Text(QuotedText<'a>),
    /// An array.
    Array,
    /// An object.
    Object,
}

/// A JSON string in its source form.
#[derive(Clone, Copy)]
pub(crate) struct QuotedText<'a>(&'a str);

/// What a JSON string says, copied only where an escape forces it, and then wiped.
pub(crate) enum Unquoted<'a> {
    /// As it stands in the source.
    Plain(&'a str),
    /// With its escapes decoded.
    Decoded(Zeroizing<String>),
}

/// Text that is not JSON. The text itself is never part of the error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it is not valid JSON")]
pub(crate) struct JsonError;

impl<'a> Json<'a> {
    /// Checks the syntax of `bytes`.
    pub(crate) fn parse(bytes: &'a [u8]) -> Result<Self, JsonError> {
        let raw: &RawValue = serde_json::from_slice(bytes).map_err(|_| JsonError)?;
        Ok(Self(raw.get()))
    }

    /// Length of the source text in bytes.
    pub(crate) fn len(self) -> usize {
        self.0.len()
    }

    pub(crate) fn shape(self) -> Shape<'a> {
        match self.0.as_bytes().first() {
            Some(b'n') => Shape::Null,
            Some(b't') => Shape::Bool(true),
            Some(b'f') => Shape::Bool(false),
            Some(b'"') => Shape::Text(QuotedText(self.0)),
            Some(b'[') => Shape::Array,
            Some(b'{') => Shape::Object,
            _ => Shape::Number(self.0),
        }
    }

    /// The members of an object in source order, each as often as it is named; none for anything else. To walk over
    /// all of them is to read the whole text once.
    pub(crate) fn members(self) -> impl Iterator<Item = (QuotedText<'a>, Self)> {
        let mut rest = self.inside('{');
        std::iter::from_fn(move || {
            let (name, after) = first_value(rest)?;
            let (value, after) = first_value(after)?;
            rest = after;
            Some((QuotedText(name), Self(value)))
        })
    }

    /// The elements of an array; none for anything else. To walk over all of them is to read the whole text once.
    pub(crate) fn elements(self) -> impl Iterator<Item = Self> {
        let mut rest = self.inside('[');
        std::iter::from_fn(move || {
            let (value, after) = first_value(rest)?;
            rest = after;
            Some(Self(value))
        })
    }

    /// What stands between the brackets, where they are these.
    fn inside(self, open: char) -> &'a str {
        let inside = self.0.strip_prefix(open);
        inside.map_or("", |inside| &inside[..inside.len() - 1])
    }

    /// The same text without the white space between its tokens.
    pub(crate) fn compact(self) -> Zeroizing<Vec<u8>> {
        // Reserved in full, so that growing leaves no unwiped copy behind.
        let mut out = Zeroizing::new(Vec::with_capacity(self.0.len()));
        let (mut quoted, mut escaped) = (false, false);
        for byte in self.0.bytes() {
            if quoted {
                quoted = escaped || byte != b'"';
                escaped = !escaped && byte == b'\\';
            } else if byte.is_ascii_whitespace() {
                continue;
            } else {
                quoted = byte == b'"';
            }
            out.push(byte);
        }
        out
    }
}

impl<'a> QuotedText<'a> {
    /// The text without quotes and escapes; `None` where an escape stands for half a character.
    pub(crate) fn unquote(self) -> Option<Unquoted<'a>> {
        let inner = self.0.strip_prefix('"')?.strip_suffix('"')?;
        if !inner.contains('\\') {
            return Some(Unquoted::Plain(inner));
        }
        let mut out = Zeroizing::new(String::with_capacity(inner.len()));
        let mut rest = inner;
        while let Some(at) = rest.find('\\') {
            out.push_str(&rest[..at]);
            let (decoded, length) = unescape(&rest[at + 1..])?;
            out.push(decoded);
            rest = &rest[at + 1 + length..];
        }
        out.push_str(rest);
        Some(Unquoted::Decoded(out))
    }
}

impl Unquoted<'_> {
    pub(crate) fn into_owned(self) -> Zeroizing<String> {
        match self {
            Self::Plain(text) => Zeroizing::new(text.to_owned()),
            Self::Decoded(text) => text,
        }
    }
}

impl Deref for Unquoted<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        match self {
            Self::Plain(text) => text,
            Self::Decoded(text) => text,
        }
    }
}

/// The first value of `text` and what follows it. In text whose syntax has been checked, nothing but white space, a
/// comma or a colon stands between one value and the next.
fn first_value(text: &str) -> Option<(&str, &str)> {
    let text = text.trim_start_matches([' ', '\t', '\n', '\r', ',', ':']);
    let length = match text.as_bytes().first()? {
        b'"' | b'{' | b'[' => closed_length(text),
        _ => text
            .find([' ', '\t', '\n', '\r', ',', ']', '}'])
            .unwrap_or(text.len()),
    };
    Some(text.split_at(length))
}

/// The length of the string, object or array that `text` begins with.
fn closed_length(text: &str) -> usize {
    let (mut depth, mut quoted, mut escaped) = (0_usize, false, false);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => quoted = !quoted,
            b'{' | b'[' if !quoted => depth += 1,
            b'}' | b']' if !quoted => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth == 0 && !quoted {
            return at + 1;
        }
    }
    text.len()
}

/// Decodes the escape that follows a backslash: the character and how many bytes spelled it.
fn unescape(text: &str) -> Option<(char, usize)> {
    let plain = match text.as_bytes().first()? {
        b'n' => '\n',
        b't' => '\t',
        b'r' => '\r',
        b'b' => '\u{8}',
        b'f' => '\u{c}',
        b'u' => return unescape_unicode(text),
        other => char::from(*other),
    };
    Some((plain, 1))
}

fn unescape_unicode(text: &str) -> Option<(char, usize)> {
    let unit = |at: usize| u32::from_str_radix(text.get(at..at + 4)?, 16).ok();
    let high = unit(1)?;
    if !(0xd800..0xdc00).contains(&high) {
        return char::from_u32(high).map(|c| (c, 5));
    }
    let low = text
        .get(5..7)
        .filter(|next| *next == "\\u")
        .and_then(|_| unit(7))?;
    if !(0xdc00..0xe000).contains(&low) {
        return None;
    }
    char::from_u32(0x1_0000 + ((high - 0xd800) << 10) + (low - 0xdc00)).map(|c| (c, 11))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn unquoted(source: &str) -> Option<String> {
        match Json::parse(source.as_bytes()).unwrap().shape() {
            Shape::Text(text) => text.unquote().map(|text| text.into_owned().to_string()),
            _ => panic!("not a string"),
        }
    }

    #[test]
    fn numbers_keep_their_spelling() {
        for number in ["1.0", "123456789012345678901234567890", "1E400", "-0", "0.10"] {
            match Json::parse(number.as_bytes()).unwrap().shape() {
                Shape::Number(text) => assert_eq!(text, number),
                _ => panic!("not a number"),
            }
        }
    }

    #[test]
    fn half_characters_are_refused() {
        for broken in [r#""\ud800""#, r#""\ud800\u0041""#, r#""\udc00""#, r#""\ud83dx""#] {
            assert_eq!(unquoted(broken), None, "{broken}");
        }
        assert_eq!(unquoted(r#""\ud83d\ude00\/\n""#).as_deref(), Some("😀/\n"));
    }

    #[test]
    fn compact_text_keeps_strings_and_numbers() {
        let json = Json::parse(b" { \"a b\" : [ 1.0 , \"\\\" x \" ] } ").unwrap();
        assert_eq!(&**json.compact(), br#"{"a b":[1.0,"\" x "]}"#);
    }

    #[test]
    fn what_is_not_json_is_refused() {
        for wrong in ["", "{", "{} x", "nul", "[1,]", "\"a", "\u{1}"] {
            assert_eq!(Json::parse(wrong.as_bytes()).err(), Some(JsonError), "{wrong}");
        }
        assert_eq!(Json::parse(b"\"\xff\"").err(), Some(JsonError));
    }

    #[test]
    fn a_member_is_given_as_often_as_it_is_named() {
        let twice = Json::parse(br#"{"a":1,"\u0061":2}"#).unwrap();
        let names: Vec<_> = twice.members().filter_map(|(name, _)| name.unquote()).collect();
        assert_eq!((names.len(), &*names[0], &*names[1]), (2, "a", "a"));
    }

    fn any_json() -> impl Strategy<Value = serde_json::Value> {
        let text = r#"[a"\\{}\[\],: \n\u{e9}]{0,6}"#;
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<i64>().prop_map(Into::into),
            text.prop_map(Into::into),
        ];
        leaf.prop_recursive(4, 32, 4, move |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Into::into),
                proptest::collection::btree_map(text, inner, 0..4)
                    .prop_map(|members| serde_json::Value::Object(members.into_iter().collect())),
            ]
        })
    }

    /// The same value, walked down to its leaves.
    fn walked(json: Json<'_>) -> serde_json::Value {
        match json.shape() {
            Shape::Object => serde_json::Value::Object(
                json.members()
                    .map(|(name, value)| (name.unquote().unwrap().to_owned(), walked(value)))
                    .collect(),
            ),
            Shape::Array => json.elements().map(walked).collect::<Vec<_>>().into(),
            Shape::Text(text) => text.unquote().unwrap().to_owned().into(),
            _ => serde_json::from_str(json.0).unwrap(),
        }
    }

    proptest! {
        #[test]
        fn a_walk_meets_every_member_and_element(value in any_json()) {
            for text in [value.to_string(), serde_json::to_string_pretty(&value).unwrap()] {
                prop_assert_eq!(walked(Json::parse(text.as_bytes()).unwrap()), value.clone());
            }
        }

        #[test]
        fn every_string_survives_quoting(text: String) {
            let quoted = serde_json::to_string(&text).unwrap();
            prop_assert_eq!(unquoted(&quoted), Some(text));
        }

        #[test]
        fn compact_text_means_the_same(text: String, number: i64) {
            let value = serde_json::json!({"t": text, "n": [number, null, {"x": true}]});
            let pretty = serde_json::to_string_pretty(&value).unwrap();
            let compact = Json::parse(pretty.as_bytes()).unwrap().compact();
            prop_assert_eq!(serde_json::from_slice::<serde_json::Value>(&compact).unwrap(), value);
        }
    }
}
