//! From a stored value to the keys of a Secret: choosing fields, naming keys, decoding.
//!
//! Text rules for JSON fields: a string is taken without its quotes; a number exactly as it was written; `true` and
//! `false` as these words; an object or array as JSON without white space; `null` counts as absent.

use std::collections::BTreeSet;

use crate::fault::{Class, Fault};
use crate::reason::Reason;
use crate::secret::SecretBytes;
use crate::sync::allowance::{Effort, Holder, MAX_KEYS, MAX_READ, Room};
use crate::sync::decode::Decode;
use crate::sync::json::{Json, Shape};
use crate::sync::keys::{DataKey, DataMap, KeyError};
use crate::sync::payload::Payload;

mod path;

#[cfg(test)]
mod tests;

pub use path::{FieldPath, FieldPathError, MAX_FIELD_DEPTH};

use path::locate;

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
    /// The fields of all sources lie too deep in values that are too large.
    #[error("finding and taking what is chosen means to read more than {MAX_READ} bytes of stored values")]
    TooMuchToRead,
    /// Kubernetes refuses a key name.
    #[error(transparent)]
    Key(#[from] KeyError),
}

impl Extraction {
    /// Refuses what no value could ever satisfy.
    pub fn check(&self) -> Result<(), FieldError> {
        let mut keys = BTreeSet::new();
        match &self.selection {
            FieldSelection::All => {}
            FieldSelection::Whole { key } => {
                self.key(key)?;
            }
            FieldSelection::Fields(choices) => {
                for choice in choices {
                    if let Some(twice) = keys.replace(self.key(choice.key())?) {
                        return Err(FieldError::SameKey(twice));
                    }
                }
            }
        }
        Ok(())
    }

    /// Makes the keys of `payload` for `holder`, with what is left of `effort`.
    pub fn apply(
        &self,
        payload: &Payload,
        holder: Holder,
        effort: &mut Effort,
    ) -> Result<DataMap, FieldError> {
        let mut taken = Taken {
            room: Room::of(holder),
            keys: DataMap::new(),
            effort,
        };
        match (&self.selection, payload) {
            (FieldSelection::Whole { key }, Payload::Bytes(bytes)) => {
                taken.bytes(self.key(key)?, key, self.decode, bytes)?;
            }
            (FieldSelection::Whole { key }, Payload::Json(bytes)) => {
                let json = parse(bytes, taken.effort)?;
                taken.effort.read(json.len())?;
                taken.add(self.key(key)?, key, self.decode, &json.compact())?;
            }
            (FieldSelection::Whole { .. }, Payload::Parts(_)) => return Err(FieldError::ContainerAsWhole),
            (FieldSelection::All, Payload::Bytes(_)) => return Err(FieldError::KeyMissing),
            (FieldSelection::All, Payload::Json(bytes)) => self.all_members(bytes, &mut taken)?,
            (FieldSelection::All, Payload::Parts(parts)) => {
                for (name, value) in parts {
                    taken.bytes(self.key(name)?, name, self.decode, value)?;
                }
            }
            (FieldSelection::Fields(choices), Payload::Json(bytes) | Payload::Bytes(bytes)) => {
                self.chosen_members(choices, bytes, &mut taken)?;
            }
            (FieldSelection::Fields(choices), Payload::Parts(parts)) => {
                for choice in choices {
                    let part = match choice.field.segments() {
                        [name] => parts.get(name),
                        _ => None,
                    };
                    let value = part.ok_or_else(|| choice.not_found())?;
                    let key = self.key(choice.key())?;
                    taken.bytes(key, &choice.field.to_string(), self.decode_of(choice), value)?;
                }
            }
        }
        Ok(taken.keys)
    }

    fn all_members(&self, bytes: &SecretBytes, taken: &mut Taken<'_>) -> Result<(), FieldError> {
        let root = object(bytes, taken.effort)?;
        taken.effort.read(root.len())?;
        let mut names = BTreeSet::new();
        for (name, value) in root.members() {
            let name = taken.effort.name(name)?;
            if names.len() == MAX_KEYS {
                return Err(KeyError::TooMany.into());
            }
            if !names.insert(name.to_owned()) {
                return Err(NAMED_TWICE);
            }
            if !matches!(value.shape(), Shape::Null) {
                // First the key: a name that is none may hold anything, and is not to be shown as it is.
                taken.json(self.key(&name)?, &name, self.decode, value)?;
            }
        }
        Ok(())
    }

    fn chosen_members(
        &self,
        choices: &[FieldChoice],
        bytes: &SecretBytes,
        taken: &mut Taken<'_>,
    ) -> Result<(), FieldError> {
        let root = object(bytes, taken.effort)?;
        let mut found = vec![None; choices.len()];
        let paths = choices.iter().map(|choice| choice.field.segments());
        locate(root, paths.enumerate().collect(), &mut found, taken.effort)?;
        for (choice, value) in choices.iter().zip(found) {
            let value = value.filter(|value| !matches!(value.shape(), Shape::Null));
            let value = value.ok_or_else(|| choice.not_found())?;
            let key = self.key(choice.key())?;
            taken.json(key, &choice.field.to_string(), self.decode_of(choice), value)?;
        }
        Ok(())
    }

    fn key(&self, name: &str) -> Result<DataKey, KeyError> {
        DataKey::parse(format!("{}{name}", self.prefix))
    }

    fn decode_of(&self, choice: &FieldChoice) -> Decode {
        choice.decode.unwrap_or(self.decode)
    }
}

impl FieldChoice {
    fn key(&self) -> &str {
        self.key
            .as_deref()
            .or_else(|| self.field.segments().last().map(String::as_str))
            .unwrap_or_default()
    }

    fn not_found(&self) -> FieldError {
        FieldError::NotFound(self.field.clone())
    }
}

/// The keys of one source while they are made.
struct Taken<'a> {
    room: Room,
    keys: DataMap,
    effort: &'a mut Effort,
}

impl Taken<'_> {
    fn bytes(
        &mut self,
        key: DataKey,
        field: &str,
        decode: Decode,
        value: &SecretBytes,
    ) -> Result<(), FieldError> {
        self.effort.read(value.len())?;
        self.add(key, field, decode, value.expose())
    }

    fn json(&mut self, key: DataKey, field: &str, decode: Decode, value: Json<'_>) -> Result<(), FieldError> {
        self.effort.read(value.len())?;
        let Shape::Text(text) = value.shape() else {
            return self.add(key, field, decode, &value.compact());
        };
        let text = text.unquote().ok_or_else(|| FieldError::DecodeFailed {
            field: field.to_owned(),
            encoding: "Unicode text",
        })?;
        self.add(key, field, decode, text.as_bytes())
    }

    fn add(&mut self, key: DataKey, field: &str, decode: Decode, value: &[u8]) -> Result<(), FieldError> {
        let value = decode.apply(value).ok_or_else(|| FieldError::DecodeFailed {
            field: field.to_owned(),
            encoding: decode.name(),
        })?;
        self.room.take(value.len())?;
        if self.keys.contains_key(&key) {
            return Err(FieldError::SameKey(key));
        }
        self.keys.insert(key, value);
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
            FieldError::TooMuchToRead => (
                Reason::RemoteTooLarge,
                "choose fewer or less deeply nested fields, or store less in one place",
            ),
            FieldError::SameKey(_) => (Reason::KeyConflict, "give one of them another `key`"),
            FieldError::Key(key) => return Self::from(key.clone()),
        };
        Self::new(Class::Permanent, reason, error.to_string()).advise(advice)
    }
}

pub(super) const NOT_JSON: FieldError = FieldError::NotFields("it is not valid JSON");
const NAMED_TWICE: FieldError = FieldError::NotFields("an object in it names the same member twice");

fn parse<'a>(bytes: &'a SecretBytes, effort: &mut Effort) -> Result<Json<'a>, FieldError> {
    effort.read(bytes.len())?;
    Json::parse(bytes.expose()).map_err(|_| NOT_JSON)
}

fn object<'a>(bytes: &'a SecretBytes, effort: &mut Effort) -> Result<Json<'a>, FieldError> {
    let json = parse(bytes, effort)?;
    match json.shape() {
        Shape::Object => Ok(json),
        _ => Err(FieldError::NotFields("it is not a JSON object")),
    }
}
