//! What the operator does where nobody tells it otherwise, read from its own options.

use anyhow::Result;
use clap::Parser;
use keyward::cli::RunOptions;

/// The options of `keyward run` as they are by default.
#[derive(Debug, Parser)]
pub struct Defaults {
    #[command(flatten)]
    options: RunOptions,
}

impl Defaults {
    /// The defaults of the operator that this program was built with.
    pub fn of_the_operator() -> Result<Self> {
        Ok(Self::try_parse_from(["keyward"])?)
    }

    /// How many objects of one store are worked on at once.
    #[must_use]
    pub fn workers(&self) -> usize {
        self.options.lane_limit.min(self.options.max_concurrent)
    }

    /// How many requests one store gets in a second at most.
    #[must_use]
    pub fn store_rate(&self) -> u32 {
        self.options.store_rate
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_operator_has_defaults() {
        let defaults = Defaults::of_the_operator().unwrap();
        assert!(defaults.workers() > 0 && defaults.store_rate() > 0);
    }
}
