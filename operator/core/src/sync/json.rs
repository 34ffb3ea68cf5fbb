//! JSON read in place: members and elements as slices of the original text, so that numbers stay as they were
//! written and no value is copied before it is asked for.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;

use serde::de::{Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use zeroize::Zeroizing;

/// One JSON value, seen but not yet read.
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

/// Text that is not JSON, or an object that names a member twice. The text itself is never part of the error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum JsonError {
    #[error("it is not valid JSON")]
    Syntax,
    #[error("an object in it names the same member twice")]
    Duplicate,
}

impl<'a> Json<'a> {
    /// Checks the syntax of `bytes`.
    pub(crate) fn parse(bytes: &'a [u8]) -> Result<Self, JsonError> {
        let raw: &RawValue = serde_json::from_slice(bytes).map_err(|_| JsonError::Syntax)?;
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

    /// The members of an object, in source order; empty for anything else.
    pub(crate) fn members(self) -> Result<Vec<(Cow<'a, str>, Self)>, JsonError> {
        if !matches!(self.shape(), Shape::Object) {
            return Ok(Vec::new());
        }
        let mut source = serde_json::Deserializer::from_str(self.0);
        source
            .deserialize_map(Members)
            .map_err(|error| match error.classify() {
                serde_json::error::Category::Data => JsonError::Duplicate,
                _ => JsonError::Syntax,
            })
    }

    /// The elements of an array; empty for anything else.
    pub(crate) fn elements(self) -> Result<Vec<Self>, JsonError> {
        if !matches!(self.shape(), Shape::Array) {
            return Ok(Vec::new());
        }
        let mut source = serde_json::Deserializer::from_str(self.0);
        source.deserialize_seq(Elements).map_err(|_| JsonError::Syntax)
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

impl QuotedText<'_> {
    /// The text without quotes and escapes; `None` where an escape stands for half a character.
    pub(crate) fn unquote(self) -> Option<Zeroizing<String>> {
        let inner = self.0.strip_prefix('"')?.strip_suffix('"')?;
        let mut out = Zeroizing::new(String::with_capacity(inner.len()));
        let mut rest = inner;
        while let Some(at) = rest.find('\\') {
            out.push_str(&rest[..at]);
            let (decoded, length) = unescape(&rest[at + 1..])?;
            out.push(decoded);
            rest = &rest[at + 1 + length..];
        }
        out.push_str(rest);
        Some(out)
    }
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

struct Members;

impl<'de> Visitor<'de> for Members {
    type Value = Vec<(Cow<'de, str>, Json<'de>)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut names = HashSet::new();
        let mut members = Vec::new();
        while let Some(name) = map.next_key_seed(Name)? {
            if !names.insert(name.clone()) {
                return Err(A::Error::custom("duplicate member"));
            }
            let value: &'de RawValue = map.next_value()?;
            members.push((name, Json(value.get())));
        }
        Ok(members)
    }
}

/// A member name, borrowed unless an escape forces a copy.
struct Name;

impl<'de> serde::de::DeserializeSeed<'de> for Name {
    type Value = Cow<'de, str>;

    fn deserialize<D: Deserializer<'de>>(self, source: D) -> Result<Self::Value, D::Error> {
        source.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Name {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a member name")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(text))
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(text.to_owned()))
    }
}

struct Elements;

impl<'de> Visitor<'de> for Elements {
    type Value = Vec<Json<'de>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut elements = Vec::new();
        while let Some(value) = seq.next_element::<&'de RawValue>()? {
            elements.push(Json(value.get()));
        }
        Ok(elements)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn unquoted(source: &str) -> Option<String> {
        match Json::parse(source.as_bytes()).unwrap().shape() {
            Shape::Text(text) => text.unquote().map(|text| text.to_string()),
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
    fn a_member_named_twice_is_refused_however_it_is_spelled() {
        let twice = Json::parse(br#"{"a":1,"\u0061":2}"#).unwrap();
        assert_eq!(twice.members().err(), Some(JsonError::Duplicate));
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
            assert_eq!(
                Json::parse(wrong.as_bytes()).err(),
                Some(JsonError::Syntax),
                "{wrong}"
            );
        }
        assert_eq!(Json::parse(b"\"\xff\"").err(), Some(JsonError::Syntax));
    }

    proptest! {
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
