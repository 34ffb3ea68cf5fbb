//! The binary: everything is in the library.

use std::process::ExitCode;
use std::sync::Arc;

use keyward::cli::{Context, Controllers, execute};
use keyward::cluster::ObjectKey;
use keyward::runtime::http::{ObjectState, ObjectStates};
use keyward::runtime::supervisor::Supervisor;

fn main() -> ExitCode {
    // Two providers in one process make rustls panic, so the choice is made before anything can make another.
    if rustls::crypto::ring::default_provider()
        .install_default()
        .is_err()
    {
        return ExitCode::FAILURE;
    }
    execute(Arc::new(Idle))
}

/// TODO(lead): replace by the controllers.
struct Idle;

impl ObjectStates for Idle {
    fn all(&self) -> Vec<ObjectState> {
        Vec::new()
    }

    fn one(&self, _: &ObjectKey) -> Option<ObjectState> {
        None
    }
}

impl Controllers for Idle {
    fn start(self: Arc<Self>, context: Context, supervisor: &mut Supervisor) -> anyhow::Result<()> {
        let watches = context.watches.clone();
        supervisor.spawn("watch of Secrets", async move { watches.secrets(|_| ()).await });
        Ok(())
    }
}
