//! Values in a store, for objects of one shape: how they get there, how objects name them, what was asked for them.

mod barbican;
mod vault;

use anyhow::Result;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use self::barbican::{BarbicanStock, BarbicanTask};
pub use self::vault::{VaultStock, VaultTask};

use super::ground::Ground;
use super::shape::{Engine, Shape};
use crate::rig::Mark;

/// Bytes of one value.
const VALUE_LENGTH: usize = 32;

/// Values of one engine with one number of keys.
pub enum Stock {
    /// In Vault.
    Vault(VaultStock),
    /// In Barbican.
    Barbican(Box<BarbicanStock>),
}

/// What a client of its own needs to read the same values.
#[derive(Serialize, Deserialize)]
pub enum StoreTask {
    /// From Vault.
    Vault(VaultTask),
    /// From Barbican.
    Barbican(BarbicanTask),
}

/// A request to a store, whichever it was.
#[derive(Clone, Debug, PartialEq)]
pub struct Asked {
    /// `login`, `value`, `metadata`, `list` and so on.
    pub kind: &'static str,
    /// When it was answered (Vault) or came in (Barbican).
    pub at: DateTime<Utc>,
}

/// A place in the logs of a store.
#[derive(Clone, Copy)]
pub struct StoreMark {
    first: Mark,
    second: Option<Mark>,
}

impl Stock {
    /// Values for this shape: new ones where there are none yet.
    pub async fn new(ground: &Ground, shape: &Shape) -> Result<Self> {
        Ok(match shape.engine {
            Engine::KvV2 | Engine::KvV1 => Self::Vault(VaultStock::new(ground, shape).await?),
            Engine::Barbican => Self::Barbican(Box::new(BarbicanStock::new(ground, shape).await?)),
        })
    }

    /// Makes sure that the first `count` places hold a value.
    pub async fn fill(&mut self, ground: &Ground, count: usize) -> Result<()> {
        match self {
            Self::Vault(stock) => stock.fill(ground, count).await,
            Self::Barbican(stock) => stock.fill(count).await,
        }
    }

    /// How many places hold a value.
    #[must_use]
    pub fn filled(&self) -> usize {
        match self {
            Self::Vault(stock) => stock.filled,
            Self::Barbican(stock) => stock.filled,
        }
    }

    /// The spec of a store object that reads from here, and the Secret with its login, if it needs one. `vault` is
    /// the address at which Vault is found.
    #[must_use]
    pub fn store(&self, ground: &Ground, vault: &str) -> (Value, Option<(&'static str, Value)>) {
        match self {
            Self::Vault(stock) => (stock.spec(ground, vault), None),
            Self::Barbican(stock) => stock.spec(),
        }
    }

    /// What a source says beside its store to name the place with this number.
    #[must_use]
    pub fn source(&self, place: usize) -> Value {
        match self {
            Self::Vault(_) => VaultStock::source(place),
            Self::Barbican(stock) => stock.source(place),
        }
    }

    /// What the floor needs to find Vault at this address, or Barbican.
    #[must_use]
    pub fn task(&self, ground: &Ground, vault: &str) -> StoreTask {
        match self {
            Self::Vault(stock) => StoreTask::Vault(stock.task(ground, vault)),
            Self::Barbican(stock) => StoreTask::Barbican(stock.task()),
        }
    }

    /// The present end of the store's logs.
    pub fn mark(&self, ground: &Ground) -> Result<StoreMark> {
        match self {
            Self::Vault(_) => VaultStock::mark(ground),
            Self::Barbican(stock) => stock.mark(),
        }
    }

    /// What the operator asked since. What the benchmark asks itself is not in it.
    pub fn asked(&self, ground: &Ground, mark: StoreMark) -> Result<Vec<Asked>> {
        match self {
            Self::Vault(stock) => stock.asked(ground, mark),
            Self::Barbican(stock) => stock.asked(mark),
        }
    }
}

/// The name of the place with this number, below whatever the store has.
fn place_name(place: usize) -> String {
    format!("value-{place}")
}

/// A value with so many fields, each of which begins with `start` and has the same length.
#[must_use]
pub fn value(keys: usize, start: &str) -> Value {
    let fields = (0..keys).map(|key| {
        let value = format!("{start}-{key}-{}", "x".repeat(VALUE_LENGTH));
        (key_name(key), Value::from(&value[..VALUE_LENGTH]))
    });
    Value::Object(fields.collect())
}

/// The name of a key.
#[must_use]
pub fn key_name(key: usize) -> String {
    format!("key{key}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_have_one_length() {
        let value = value(2, "first-12345");
        for key in ["key0", "key1"] {
            assert_eq!(value[key].as_str().map(str::len), Some(VALUE_LENGTH));
        }
        assert_ne!(value["key0"], value["key1"]);
    }
}
