//! The binary: everything is in the library.

use std::process::ExitCode;
use std::sync::Arc;

fn main() -> ExitCode {
    // Two providers in one process make rustls panic, so the choice is made before anything can make another.
    if rustls::crypto::ring::default_provider()
        .install_default()
        .is_err()
    {
        return ExitCode::FAILURE;
    }
    keyward::cli::execute(Arc::new(keyward::controllers::AllControllers::default()))
}
