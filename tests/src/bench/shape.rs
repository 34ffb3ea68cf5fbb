//! What a population looks like: the engine behind it, keys per object, places, and how many objects.

use std::fmt;
use std::time::Duration;

/// The engine that holds the values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Engine {
    /// Vault KV version 2.
    KvV2,
    /// Vault KV version 1.
    KvV1,
    /// Barbican.
    Barbican,
}

/// How objects and the places of their values go together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Places {
    /// Each object has a place of its own.
    Distinct,
    /// All objects name one place.
    Same,
}

/// A population.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Where the values are.
    pub engine: Engine,
    /// Keys of each Secret.
    pub keys: usize,
    /// How objects and places go together.
    pub places: Places,
    /// How many objects.
    pub objects: usize,
    /// How often each is refreshed.
    pub interval: Duration,
}

impl Engine {
    /// Every engine.
    pub const ALL: [Self; 3] = [Self::KvV2, Self::KvV1, Self::Barbican];

    /// As it stands in the names of measures.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::KvV2 => "kv2",
            Self::KvV1 => "kv1",
            Self::Barbican => "barbican",
        }
    }

    /// Whether it is the engine that keeps versions.
    #[must_use]
    pub fn is_versioned(self) -> bool {
        self == Self::KvV2
    }
}

impl Shape {
    /// One key and a place of its own for each object, in KV version 2, refreshed every hour.
    #[must_use]
    pub fn plain(objects: usize) -> Self {
        Self {
            engine: Engine::KvV2,
            keys: 1,
            places: Places::Distinct,
            objects,
            interval: Duration::from_hours(1),
        }
    }

    /// Every engine, one key and ten, distinct places and one for all.
    #[must_use]
    pub fn all(objects: usize) -> Vec<Self> {
        let mut all = Vec::new();
        for engine in Engine::ALL {
            for keys in [1, 10] {
                for places in [Places::Distinct, Places::Same] {
                    all.push(Self {
                        engine,
                        keys,
                        places,
                        ..Self::plain(objects)
                    });
                }
            }
        }
        all
    }

    /// The same, refreshed so often.
    #[must_use]
    pub fn every(self, interval: Duration) -> Self {
        Self { interval, ..self }
    }

    /// How many places there are.
    #[must_use]
    pub fn place_count(&self) -> usize {
        match self.places {
            Places::Distinct => self.objects,
            Places::Same => self.objects.min(1),
        }
    }

    /// The number of the place that the object with this number names.
    #[must_use]
    pub fn place_of(&self, object: usize) -> usize {
        match self.places {
            Places::Distinct => object,
            Places::Same => 0,
        }
    }
}

/// As it stands in the names of measures: `kv2.1-key.distinct.1000`.
impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys = if self.keys == 1 { "key" } else { "keys" };
        let places = match self.places {
            Places::Distinct => "distinct",
            Places::Same => "same",
        };
        let engine = self.engine.name();
        write!(f, "{engine}.{}-{keys}.{places}.{}", self.keys, self.objects)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_have_names_and_places() {
        let shape = Shape::plain(1_000);
        assert_eq!(shape.to_string(), "kv2.1-key.distinct.1000");
        assert_eq!((shape.place_count(), shape.place_of(7)), (1_000, 7));
        let shape = Shape {
            keys: 10,
            places: Places::Same,
            ..shape
        };
        assert_eq!(shape.to_string(), "kv2.10-keys.same.1000");
        assert_eq!((shape.place_count(), shape.place_of(7)), (1, 0));
    }

    #[test]
    fn no_shape_is_measured_twice() {
        let names: std::collections::BTreeSet<_> =
            Shape::all(1_000).iter().map(ToString::to_string).collect();
        assert_eq!(names.len(), 12);
    }
}
