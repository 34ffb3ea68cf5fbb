//! Runs the suites: registers async tests by name, runs them in parallel against shared servers, names the
//! slowest, and stops what it started.

mod case;
mod evidence;
mod servers;

use std::future::Future;
use std::io::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Result;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use libtest_mimic::{Arguments, Failed, Trial};
use tokio::runtime::Runtime;

pub use self::case::Case;
pub use self::servers::Servers;

use crate::rig::assets::Program;
use crate::rig::vault::Product;

/// Tests mostly wait for servers, so more of them than cores may run. `--test-threads` overrides it.
const TESTS_AT_A_TIME: usize = 8;

const SLOWEST_SHOWN: usize = 10;

/// The tests of one program.
pub struct Suite {
    runtime: Arc<Runtime>,
    servers: Arc<Servers>,
    openbao: bool,
    not_run: usize,
    trials: Vec<Trial>,
    timings: Arc<Mutex<Vec<(String, Duration)>>>,
}

/// Registers test functions under the name of the module that they are in.
#[macro_export]
macro_rules! tests {
    ($suite:expr, $($test:ident),+ $(,)?) => {
        $( $suite.add(module_path!(), stringify!($test), $test); )+
    };
}

/// Registers test functions that run against each product that speaks Vault's API.
#[macro_export]
macro_rules! vault_tests {
    ($suite:expr, $($test:ident),+ $(,)?) => {
        $( $suite.add_for_each_product(module_path!(), stringify!($test), $test); )+
    };
}

impl Suite {
    /// An empty suite. `kinds` are installed in each control plane before its controllers start.
    pub fn new(kinds: Vec<CustomResourceDefinition>) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        Ok(Self {
            runtime: Arc::new(runtime),
            servers: Arc::new(Servers::new(kinds)),
            openbao: Program::OpenBao.handed_in()?.is_some(),
            not_run: 0,
            trials: Vec::new(),
            timings: Arc::default(),
        })
    }

    /// Adds a test. The macro [`tests!`](crate::tests) calls this with the place and name of a function.
    pub fn add<F: Future<Output = Result<()>>>(
        &mut self,
        module: &str,
        name: &str,
        test: impl Fn(Case) -> F + Send + 'static,
    ) {
        self.add_one(full_name(module, name), Product::Vault, test);
    }

    /// Adds a test for Vault, and again for `OpenBao` if that was handed in.
    pub fn add_for_each_product<F: Future<Output = Result<()>>>(
        &mut self,
        module: &str,
        name: &str,
        test: impl Fn(Case) -> F + Copy + Send + 'static,
    ) {
        self.add_one(full_name(module, name), Product::Vault, test);
        if self.openbao {
            self.add_one(
                format!("{}_openbao", full_name(module, name)),
                Product::OpenBao,
                test,
            );
        } else {
            self.not_run += 1;
        }
    }

    /// The names of the tests so far.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.trials.iter().map(Trial::name)
    }

    /// Runs the tests that the command line selects, and stops all servers.
    #[must_use]
    pub fn run(self) -> ExitCode {
        let mut arguments = Arguments::from_args();
        arguments.test_threads.get_or_insert(TESTS_AT_A_TIME);
        let listing = arguments.list;
        let conclusion = libtest_mimic::run(&arguments, self.trials);

        let mut timings = std::mem::take(&mut *self.timings.lock().unwrap_or_else(PoisonError::into_inner));
        timings.sort_by_key(|(_, duration)| std::cmp::Reverse(*duration));
        let not_run = if listing { 0 } else { self.not_run };
        let report = report(&timings, not_run);
        // Nobody reads any more if this fails, and the exit code still tells.
        let _ = std::io::stdout().write_all(report.as_bytes());
        conclusion.exit_code()
    }

    fn add_one<F: Future<Output = Result<()>>>(
        &mut self,
        name: String,
        product: Product,
        test: impl Fn(Case) -> F + Send + 'static,
    ) {
        let (runtime, timings) = (self.runtime.clone(), self.timings.clone());
        let case = Case::new(&name, product, self.servers.clone());
        let (stem, servers) = (case.stem().to_owned(), self.servers.clone());
        self.trials.push(Trial::test(name.clone(), move || {
            let started = Instant::now();
            let logs = servers.logs();
            let outcome = catch_unwind(AssertUnwindSafe(|| runtime.block_on(test(case))));
            timings
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push((name, started.elapsed()));
            let message = match outcome {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(error)) => format!("{error:#}"),
                Err(panic) => evidence::of_panic(panic.as_ref()),
            };
            Err(Failed::from(message + &logs.told(&servers.logs(), &stem)))
        }));
    }
}

/// `module_path!` starts with the name of the program, which says nothing here.
fn full_name(module: &str, name: &str) -> String {
    let module = module.split_once("::").map_or("", |(_, rest)| rest);
    format!("{module}::{name}")
}

fn report(timings: &[(String, Duration)], not_run: usize) -> String {
    let mut lines = Vec::new();
    if timings.len() > 1 {
        lines.push("slowest tests:".to_owned());
        let slowest = timings.iter().take(SLOWEST_SHOWN);
        lines.extend(slowest.map(|(name, duration)| format!("{:7.2} s  {name}", duration.as_secs_f64())));
        lines.push(String::new());
    }
    if not_run > 0 {
        lines.push(format!(
            "not run: {not_run} tests with OpenBao (set TEST_ASSET_OPENBAO to its path, or put bao on PATH)"
        ));
    }
    lines.into_iter().map(|line| line + "\n").collect()
}
