//! What the making of one Secret may take: how many values may be kept, and how much may be read to make them.
//!
//! A store may send megabytes for each place, and a spec may take the same field many times over. So both are counted
//! while the values are made, and the first byte too many ends it.

use std::fmt;

use super::fields::{FieldError, NOT_JSON};
use super::json::{QuotedText, Unquoted};
use super::keys::KeyError;

/// The most bytes that the values of one Secret may have together. The API server counts values only, decoded, and
/// not the names of the keys.
pub const MAX_SECRET_BYTES: usize = 1024 * 1024;

/// The most bytes that the values have together which templates work on and which are not written themselves.
pub const MAX_TEMPLATE_VALUES: usize = 4 * 1024 * 1024;

/// The most keys, or members that could become one. The API server has no such number, and no room for as many.
pub const MAX_KEYS: usize = 10_000;

/// The most bytes of stored values that are read to make one Secret. A value counts for each time that it is gone
/// through: to see that it is JSON, to find fields in it, once for each level they lie deep, and to take them.
pub const MAX_READ: usize = 64 * 1024 * 1024;

/// How many bytes could be read in the time that it takes to decode the escapes of one name.
const DECODING: usize = 64;

/// What values are made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holder {
    /// To be written.
    Secret,
    /// Only to be used by templates.
    Templates,
}

/// Counts the values that are kept.
pub struct Room {
    holder: Holder,
    bytes: usize,
    keys: usize,
}

/// Counts the bytes that are read.
pub struct Effort {
    left: usize,
}

impl Room {
    /// All the room there is.
    #[must_use]
    pub fn of(holder: Holder) -> Self {
        Self {
            holder,
            bytes: holder.bytes(),
            keys: MAX_KEYS,
        }
    }

    /// Takes the room of one value.
    pub fn take(&mut self, bytes: usize) -> Result<(), KeyError> {
        self.bytes = self
            .bytes
            .checked_sub(bytes)
            .ok_or(KeyError::TooLarge(self.holder))?;
        self.keys = self.keys.checked_sub(1).ok_or(KeyError::TooMany)?;
        Ok(())
    }

    /// Gives back the room of a value that was taken before and is dropped.
    pub fn give_back(&mut self, bytes: usize) {
        self.bytes += bytes;
        self.keys += 1;
    }
}

impl Holder {
    /// The most bytes that it has room for.
    #[must_use]
    pub fn bytes(self) -> usize {
        match self {
            Self::Secret => MAX_SECRET_BYTES,
            Self::Templates => MAX_TEMPLATE_VALUES,
        }
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Secret => write!(f, "the {MAX_SECRET_BYTES} that a Secret holds"),
            Self::Templates => write!(f, "the {MAX_TEMPLATE_VALUES} that templates work on"),
        }
    }
}

impl Default for Effort {
    fn default() -> Self {
        Self { left: MAX_READ }
    }
}

impl Effort {
    /// Pays for going through `bytes`; called before it is done.
    pub fn read(&mut self, bytes: usize) -> Result<(), FieldError> {
        self.left = self.left.checked_sub(bytes).ok_or(FieldError::TooMuchToRead)?;
        Ok(())
    }

    /// Pays for what a name says, which has been read before.
    pub(super) fn name<'a>(&mut self, name: QuotedText<'a>) -> Result<Unquoted<'a>, FieldError> {
        let name = name.unquote().ok_or(NOT_JSON)?;
        if let Unquoted::Decoded(_) = name {
            self.read(DECODING)?;
        }
        Ok(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_full_at_its_last_byte() {
        for holder in [Holder::Secret, Holder::Templates] {
            let mut room = Room::of(holder);
            room.take(holder.bytes() - 1).unwrap();
            assert_eq!(room.take(1), Ok(()));
            assert_eq!(room.take(0), Ok(()), "empty values need no bytes");
            assert_eq!(room.take(1), Err(KeyError::TooLarge(holder)));
            room.give_back(1);
            assert_eq!(room.take(1), Ok(()));
        }
    }

    #[test]
    fn empty_values_are_counted() {
        let mut room = Room::of(Holder::Secret);
        for _ in 0..MAX_KEYS {
            room.take(0).unwrap();
        }
        assert_eq!(room.take(0), Err(KeyError::TooMany));
    }

    #[test]
    fn reading_ends_at_its_limit() {
        let mut effort = Effort::default();
        assert_eq!(effort.read(MAX_READ), Ok(()));
        assert_eq!(effort.read(1), Err(FieldError::TooMuchToRead));
    }
}
