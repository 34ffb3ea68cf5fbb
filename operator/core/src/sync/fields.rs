//! From a stored value to the keys of a Secret: choosing fields, naming keys, decoding.
//!
//! Text rules for JSON fields: a string is taken without its quotes; a number exactly as it was written; `true` and
//! `false` as these words; an object or array as JSON without white space; `null` counts as absent.

use std::fmt;
use std::str::FromStr;

use crate::fault::{Class, Fault};
use crate::reason::Reason;
use crate::secret::SecretBytes;
use crate::sync::decode::Decode;
use crate::sync::json::{Json, JsonError, Shape};
use crate::sync::keys::{DataKey, DataMap, KeyError};
use crate::sync::payload::Payload;

#[cfg(test)]
mod tests;

/// What one source takes from a value, and how its keys are called.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Extraction {
    /// Which parts of the value.
    pub selection: FieldSelection,
    /// Put before every key of the source.
    pub prefix: String,
    /// Applied to every field that does not say otherwise.
    pub decode: Decode,
}

/// Which parts of a value become keys.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum FieldSelection {
    /// Every top-level field of a JSON object, or every part of a container; fields that are `null` are left out.
    #[default]
    All,
    /// The whole value under one key: the bytes, or the JSON object without white space.
    Whole {
        /// The key, before the prefix is applied.
        key: String,
    },
    /// These fields only; each must exist.
    Fields(Vec<FieldChoice>),
}

/// One chosen field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldChoice {
    /// Where it is.
    pub field: FieldPath,
    /// The key it becomes; `None` uses the last segment of the path.
    pub key: Option<String>,
    /// Overrides the source's decoding.
    pub decode: Option<Decode>,
}

/// The way to a field through nested objects and arrays, written `a.b.0`; `\.` is a dot and `\\` a backslash
/// inside a name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct FieldPath(Vec<String>);

/// The deepest field path that is accepted.
pub const MAX_FIELD_DEPTH: usize = 32;

/// A value from which the declared keys cannot be made. Names fields, never values.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FieldError {
    /// A chosen field is absent or `null`.
    #[error("the remote value has no field `{0}`")]
    NotFound(FieldPath),
    /// Fields are wanted of a value that is no JSON object.
    #[error("fields are chosen, and the remote value cannot be read by fields: {0}")]
    NotFields(&'static str),
    /// The whole of a container is wanted, which has only parts.
    #[error("the remote value is a container: choose parts of it, or all")]
    ContainerAsWhole,
    /// A value of plain bytes has no field names to make keys of.
    #[error("the remote value is plain bytes and no `key` says where it goes")]
    KeyMissing,
    /// A value is not of the declared encoding.
    #[error("`{field}` is not valid {encoding}")]
    DecodeFailed {
        /// The field, or the key for a whole value.
        field: String,
        /// The encoding that was declared.
        encoding: &'static str,
    },
    /// Two chosen fields lead to the same key.
    #[error("two fields of the same source become the key `{0}`")]
    SameKey(DataKey),
    /// Kubernetes refuses a key name.
    #[error(transparent)]
    Key(#[from] KeyError),
}

/// A text that is not a field path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "expected a field path such as `a.b.0`: no empty names, at most {MAX_FIELD_DEPTH} of them, `\\` only before `.` or `\\`"
)]
pub struct FieldPathError;

impl Extraction {
    /// Makes the keys of `payload`.
    pub fn apply(&self, payload: &Payload) -> Result<DataMap, FieldError> {
        let mut keys = DataMap::new();
        match (&self.selection, payload) {
            (FieldSelection::Whole { key }, Payload::Bytes(bytes)) => {
                self.add(&mut keys, key, key, self.decode, bytes.expose())?;
            }
            (FieldSelection::Whole { key }, Payload::Json(bytes)) => {
                let text = parse(bytes)?.compact();
                self.add(&mut keys, key, key, self.decode, &text)?;
            }
            (FieldSelection::Whole { .. }, Payload::Parts(_)) => return Err(FieldError::ContainerAsWhole),
            (FieldSelection::All, Payload::Bytes(_)) => return Err(FieldError::KeyMissing),
            (FieldSelection::All, Payload::Json(bytes)) => {
                for (name, value) in object(parse(bytes)?)? {
                    if let Some(text) = text_of(value, &name)? {
                        self.add(&mut keys, &name, &name, self.decode, text.expose())?;
                    }
                }
            }
            (FieldSelection::All, Payload::Parts(parts)) => {
                for (name, value) in parts {
                    self.add(&mut keys, name, name, self.decode, value.expose())?;
                }
            }
            (FieldSelection::Fields(choices), Payload::Json(bytes) | Payload::Bytes(bytes)) => {
                let root = parse(bytes)?;
                object(root)?;
                for choice in choices {
                    let field = choice.field.to_string();
                    let found = choice
                        .field
                        .find(root)?
                        .map(|value| text_of(value, &field))
                        .transpose()?;
                    let text = found
                        .flatten()
                        .ok_or_else(|| FieldError::NotFound(choice.field.clone()))?;
                    self.add_choice(&mut keys, choice, text.expose())?;
                }
            }
            (FieldSelection::Fields(choices), Payload::Parts(parts)) => {
                for choice in choices {
                    let part = match choice.field.0.as_slice() {
                        [name] => parts.get(name),
                        _ => None,
                    };
                    let value = part.ok_or_else(|| FieldError::NotFound(choice.field.clone()))?;
                    self.add_choice(&mut keys, choice, value.expose())?;
                }
            }
        }
        Ok(keys)
    }

    fn add_choice(&self, keys: &mut DataMap, choice: &FieldChoice, value: &[u8]) -> Result<(), FieldError> {
        let key = choice.key.as_deref().unwrap_or_else(|| choice.field.last());
        let decode = choice.decode.unwrap_or(self.decode);
        self.add(keys, key, &choice.field.to_string(), decode, value)
    }

    fn add(
        &self,
        keys: &mut DataMap,
        key: &str,
        field: &str,
        decode: Decode,
        value: &[u8],
    ) -> Result<(), FieldError> {
        let key = DataKey::parse(format!("{}{key}", self.prefix))?;
        let value = decode.apply(value).ok_or_else(|| FieldError::DecodeFailed {
            field: field.to_owned(),
            encoding: decode.name(),
        })?;
        if keys.contains_key(&key) {
            return Err(FieldError::SameKey(key));
        }
        keys.insert(key, value);
        Ok(())
    }
}

impl FieldPath {
    /// The last name of the path.
    fn last(&self) -> &str {
        self.0.last().map_or("", String::as_str)
    }

    fn find<'a>(&self, root: Json<'a>) -> Result<Option<Json<'a>>, FieldError> {
        let mut here = root;
        for segment in &self.0 {
            let next = match here.shape() {
                Shape::Object => {
                    let members = here.members().map_err(not_fields)?;
                    members
                        .into_iter()
                        .find(|(name, _)| name == segment)
                        .map(|(_, value)| value)
                }
                Shape::Array => match array_index(segment) {
                    Some(index) => here.elements().map_err(not_fields)?.get(index).copied(),
                    None => None,
                },
                _ => None,
            };
            match next {
                Some(value) => here = value,
                None => return Ok(None),
            }
        }
        Ok(Some(here))
    }
}

impl FromStr for FieldPath {
    type Err = FieldPathError;

    fn from_str(text: &str) -> Result<Self, FieldPathError> {
        let mut segments = vec![String::new()];
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            let segment = segments.last_mut().ok_or(FieldPathError)?;
            match c {
                '\\' => segment.push(
                    chars
                        .next()
                        .filter(|c| matches!(c, '.' | '\\'))
                        .ok_or(FieldPathError)?,
                ),
                '.' => segments.push(String::new()),
                other => segment.push(other),
            }
        }
        if segments.len() > MAX_FIELD_DEPTH || segments.iter().any(String::is_empty) {
            return Err(FieldPathError);
        }
        Ok(Self(segments))
    }
}

impl fmt::Display for FieldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, segment) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str(".")?;
            }
            f.write_str(&segment.replace('\\', r"\\").replace('.', r"\."))?;
        }
        Ok(())
    }
}

impl From<FieldError> for Fault {
    fn from(error: FieldError) -> Self {
        let (reason, advice) = match &error {
            FieldError::NotFound(_) => (Reason::FieldNotFound, "correct the field path or write the field"),
            FieldError::NotFields(_) => (Reason::FieldNotFound, "take the whole value with `key`"),
            FieldError::DecodeFailed { .. } => (Reason::DecodeFailed, "correct `decode` or the stored value"),
            FieldError::ContainerAsWhole => (Reason::SpecInvalid, "name its parts as fields"),
            FieldError::KeyMissing => (Reason::SpecInvalid, "add `key`"),
            FieldError::SameKey(_) => (Reason::KeyConflict, "give one of them another `key`"),
            FieldError::Key(key) => return Self::from(key.clone()),
        };
        Self::new(Class::Permanent, reason, error.to_string()).advise(advice)
    }
}

fn parse(bytes: &SecretBytes) -> Result<Json<'_>, FieldError> {
    Json::parse(bytes.expose()).map_err(not_fields)
}

type Member<'a> = (std::borrow::Cow<'a, str>, Json<'a>);

fn object(json: Json<'_>) -> Result<Vec<Member<'_>>, FieldError> {
    match json.shape() {
        Shape::Object => json.members().map_err(not_fields),
        _ => Err(FieldError::NotFields("it is not a JSON object")),
    }
}

fn not_fields(error: JsonError) -> FieldError {
    FieldError::NotFields(match error {
        JsonError::Syntax => "it is not valid JSON",
        JsonError::Duplicate => "an object in it names the same member twice",
    })
}

/// The text of one field; `None` for `null`.
fn text_of(value: Json<'_>, field: &str) -> Result<Option<SecretBytes>, FieldError> {
    let text = match value.shape() {
        Shape::Null => return Ok(None),
        Shape::Bool(true) => SecretBytes::from("true"),
        Shape::Bool(false) => SecretBytes::from("false"),
        Shape::Number(digits) => SecretBytes::from(digits),
        Shape::Object | Shape::Array => SecretBytes::new(std::mem::take(&mut *value.compact())),
        Shape::Text(text) => {
            let mut text = text.unquote().ok_or_else(|| FieldError::DecodeFailed {
                field: field.to_owned(),
                encoding: "Unicode text",
            })?;
            SecretBytes::from(std::mem::take(&mut *text))
        }
    };
    Ok(Some(text))
}

fn array_index(segment: &str) -> Option<usize> {
    // One spelling per element: `01` is a name and not an index.
    let canonical = segment == "0" || !segment.starts_with('0');
    if canonical && segment.bytes().all(|b| b.is_ascii_digit()) {
        segment.parse().ok()
    } else {
        None
    }
}
