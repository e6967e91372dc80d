//! The certificate authority as a library: all of it but the process. Only the
//! program and the fuzz targets use it.

mod app;
mod ca;
mod config;
mod flags;
#[doc(hidden)]
pub mod fuzz;
mod metrics;
mod oidc;
mod server;
mod validate;

use std::process::ExitCode;

/// The whole program.
pub fn main() -> ExitCode {
    match flags::parse(outrider_kit::flags::arguments()) {
        Ok(flags) => outrider_host::main("dapr.sentry", || app::run(flags)),
        Err(error) => error.exit_code(),
    }
}
