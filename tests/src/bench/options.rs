//! The command line of the benchmark.

use std::path::PathBuf;

use clap::Parser;

/// Measures what Keyward costs: time, requests, memory and CPU, on real servers, beside the least that the same work can cost.
///
/// It builds the operator, starts servers of its own, and needs no cluster and no Docker. Nothing else should run
/// meanwhile. The exit code is 1 where a target was missed or something became worse, and 2 where measuring failed.
#[derive(Debug, Parser)]
#[command(name = "bench", bin_name = "cargo bench-operator")]
pub struct Options {
    /// Numbers of objects for the first sync.
    #[arg(long, value_delimiter = ',', default_values_t = [1_000])]
    pub objects: Vec<usize>,

    /// Secrets of strangers in the cluster.
    #[arg(long, default_value_t = 10_000)]
    pub foreign: usize,

    /// The cargo profile to build the operator with.
    #[arg(long, default_value = "release")]
    pub profile: String,

    /// Measure this binary and build nothing.
    #[arg(long)]
    pub program: Option<PathBuf>,

    /// How often the floor runs for each population: before, after, before, and so on.
    #[arg(long, default_value_t = 2)]
    pub floors: usize,

    /// Write the run to this file.
    #[arg(long)]
    pub json: Option<PathBuf>,
}
