//! Durations as people write them: `30s`, `15m`, `1h30m`.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A whole number of seconds, written with the units `h`, `m` and `s`, each at most once and in that order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Duration(std::time::Duration);

impl Duration {
    /// A duration of `seconds`.
    #[must_use]
    pub const fn from_secs(seconds: u64) -> Self {
        Self(std::time::Duration::from_secs(seconds))
    }

    /// As the standard library's type.
    #[must_use]
    pub const fn get(self) -> std::time::Duration {
        self.0
    }
}

/// Why a text is no duration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidDuration;

impl fmt::Display for InvalidDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a duration such as `30s`, `15m` or `1h30m`")
    }
}

impl std::error::Error for InvalidDuration {}

impl FromStr for Duration {
    type Err = InvalidDuration;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut rest = text;
        let mut total: u64 = 0;
        for (unit, seconds) in [('h', 3600), ('m', 60), ('s', 1)] {
            if let Some((digits, tail)) = rest.split_once(unit) {
                if digits.is_empty() || digits.len() > 6 || !digits.bytes().all(|b| b.is_ascii_digit()) {
                    return Err(InvalidDuration);
                }
                total += digits.parse::<u64>().map_err(|_| InvalidDuration)? * seconds;
                rest = tail;
            }
        }
        if text.is_empty() || !rest.is_empty() {
            Err(InvalidDuration)
        } else {
            Ok(Self::from_secs(total))
        }
    }
}

impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let total = self.0.as_secs();
        if total == 0 {
            return f.write_str("0s");
        }
        for (unit, amount) in [("h", total / 3600), ("m", total % 3600 / 60), ("s", total % 60)] {
            if amount > 0 {
                write!(f, "{amount}{unit}")?;
            }
        }
        Ok(())
    }
}

impl Serialize for Duration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Duration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(de::Error::custom)
    }
}

impl JsonSchema for Duration {
    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "pattern": "^([0-9]{1,6}h)?([0-9]{1,6}m)?([0-9]{1,6}s)?$",
            "minLength": 2,
            "maxLength": 24,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_writes() {
        for text in ["30s", "15m", "1h", "1h30m", "2h5s", "0s"] {
            assert_eq!(text.parse::<Duration>().expect("valid").to_string(), text);
        }
        assert_eq!("90m".parse::<Duration>().expect("valid").to_string(), "1h30m");
    }

    #[test]
    fn refuses_everything_else() {
        for text in [
            "", "s", "10", "1d", "5m1h", "-5s", "1.5h", "10s10s", "9999999s", "1h ", "٣s",
        ] {
            assert_eq!(text.parse::<Duration>(), Err(InvalidDuration), "{text:?}");
        }
    }
}
