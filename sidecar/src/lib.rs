//! The sidecar as a library: all of it but the process. Only the program and
//! the fuzz targets use it.

use std::process::ExitCode;

mod app;
mod blocks;
mod components;
mod config;
mod edge;
mod flags;
#[doc(hidden)]
pub mod fuzz;
mod profiling;
mod resources;

/// The whole program.
pub fn main() -> ExitCode {
    match flags::parse(outrider_kit::flags::arguments()) {
        Ok(flags) => outrider_host::main("dapr.runtime", || app::run(flags)),
        Err(done) => done.print(app::wait_for_outbound),
    }
}
