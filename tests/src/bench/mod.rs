//! Measures what the operator costs, on real servers, beside a floor: what a client that decides nothing needs for the
//! same requests.
//!
//! The operator is the real binary ([`product`]) under the rights of the chart. Servers are the [`ground`], values a
//! [`stock`]; objects of one [`shape`] are a [`population`]; an operator that brings one up is a [`trial`], and what is
//! done with it a scenario ([`scenarios`]). Requests are counted in the servers' own logs ([`tally`]), memory and CPU
//! by the kernel ([`gauge`]). What must be reached is in [`targets`]; what came out is a [`report`]. Times are measured
//! here and never asserted in tests.

pub mod compare;
pub mod defaults;
pub mod delay;
pub mod floor;
pub mod gauge;
pub mod ground;
pub mod machine;
pub mod options;
pub mod population;
pub mod product;
pub mod report;
pub mod scenarios;
pub mod shape;
pub mod stock;
pub mod table;
pub mod tally;
pub mod targets;
pub mod trial;

use std::time::Instant;

use anyhow::Result;
use keyward::runtime::clock;

use self::ground::Ground;
use self::machine::Machine;
use self::options::Options;
use self::report::{FORMAT, Report};
use self::scenarios::Bench;
use crate::rig::progress::Progress;

/// Measures everything that the options ask for. What was measured before an error is returned beside it.
pub async fn run(options: &Options) -> Result<(Report, Result<()>)> {
    let machine = Machine::here();
    let program = match &options.program {
        Some(path) => path.clone(),
        None => product::build(&options.profile)?,
    };
    let (started, began) = (clock::now(), Instant::now());
    let commit = product::commit();
    let progress = Progress::start("bench");
    progress.say("starting servers");
    let ground = Box::pin(Ground::start(program)).await?;
    progress.say("making Secrets of strangers");
    ground.add_strangers(options.foreign()).await?;
    let (measures, done) = Box::pin(Bench::new(&ground, options, &progress).run()).await;
    progress.done();
    let report = Report {
        format: FORMAT,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        commit,
        profile: match &options.program {
            Some(path) => path.display().to_string(),
            None => options.profile.clone(),
        },
        machine,
        foreign: options.foreign(),
        started,
        seconds: began.elapsed().as_secs_f64(),
        measures,
    };
    Ok((report, done))
}
