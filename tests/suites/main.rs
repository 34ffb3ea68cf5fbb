//! All suites, in one program: they share the servers.

mod behaviour;
mod chart;
mod contract;
mod demo;
mod endpoints;
mod faults;
mod kinds;
mod rig;
mod scene;
mod silence;
mod store_kinds;
mod sync;
mod tenancy;
mod told;

use std::process::ExitCode;

use anyhow::Result;
use keyward_tests::harness::Suite;

fn main() -> Result<ExitCode> {
    keyward_tests::rig::keeper::serve_if_asked();
    keyward_tests::operator::serve_if_asked();
    rig::runs::serve_if_asked()?;

    let kinds = keyward_crds::definitions()
        .into_iter()
        .map(|(_, kind)| kind)
        .collect();
    let mut suite = Suite::new(kinds)?;
    kinds::register(&mut suite);
    demo::register(&mut suite);
    rig::register(&mut suite);
    sync::register(&mut suite);
    contract::register(&mut suite);
    faults::register(&mut suite);
    chart::register(&mut suite);
    endpoints::register(&mut suite);
    silence::register(&mut suite);
    store_kinds::register(&mut suite);
    tenancy::register(&mut suite);
    // Last: it knows the others by what is registered.
    behaviour::register(&mut suite);
    Ok(suite.run())
}
