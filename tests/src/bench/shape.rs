//! What a population looks like: the engine behind it, keys per object, paths, and how many objects.

use std::fmt;
use std::time::Duration;

use crate::rig::vault::Kv;

/// The engine that holds the values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// Vault KV version 2.
    KvV2,
    /// Vault KV version 1.
    KvV1,
}

/// How objects and paths go together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Paths {
    /// Each object has a path of its own.
    Distinct,
    /// All objects name one path.
    Same,
}

/// A population.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Where the values are.
    pub engine: Engine,
    /// Keys of each Secret.
    pub keys: usize,
    /// How objects and paths go together.
    pub layout: Paths,
    /// How many objects.
    pub objects: usize,
    /// How often each is refreshed.
    pub interval: Duration,
}

impl Engine {
    /// As it stands in the names of measures.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::KvV2 => "kv2",
            Self::KvV1 => "kv1",
        }
    }

    /// The version of the mount.
    #[must_use]
    pub fn kv(self) -> Kv {
        match self {
            Self::KvV2 => Kv::V2,
            Self::KvV1 => Kv::V1,
        }
    }
}

impl Shape {
    /// One key and a path of its own for each object, in KV version 2, refreshed every hour.
    #[must_use]
    pub fn plain(objects: usize) -> Self {
        Self {
            engine: Engine::KvV2,
            keys: 1,
            layout: Paths::Distinct,
            objects,
            interval: Duration::from_hours(1),
        }
    }

    /// How many paths there are.
    #[must_use]
    pub fn paths(&self) -> usize {
        match self.layout {
            Paths::Distinct => self.objects,
            Paths::Same => self.objects.min(1),
        }
    }

    /// The path with this number.
    #[must_use]
    pub fn path(number: usize) -> String {
        format!("apps/value-{number}")
    }

    /// The path of the object with this number.
    #[must_use]
    pub fn path_of(&self, object: usize) -> String {
        Self::path(match self.layout {
            Paths::Distinct => object,
            Paths::Same => 0,
        })
    }
}

/// As it stands in the names of measures: `kv2.1-key.distinct.1000`.
impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys = if self.keys == 1 { "key" } else { "keys" };
        let layout = match self.layout {
            Paths::Distinct => "distinct",
            Paths::Same => "same",
        };
        write!(
            f,
            "{}.{}-{keys}.{layout}.{}",
            self.engine.name(),
            self.keys,
            self.objects
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_have_names_and_paths() {
        let mut shape = Shape::plain(1_000);
        assert_eq!(shape.to_string(), "kv2.1-key.distinct.1000");
        assert_eq!((shape.paths(), shape.path_of(7)), (1_000, Shape::path(7)));
        (shape.layout, shape.keys) = (Paths::Same, 10);
        assert_eq!(shape.to_string(), "kv2.10-keys.same.1000");
        assert_eq!((shape.paths(), shape.path_of(7)), (1, Shape::path(0)));
    }
}
