//! Placement as a library: all of it but the process.

mod app;
mod election;
mod flags;
mod metrics;
mod page;
mod server;

use std::process::ExitCode;

use outrider_service::flag;

/// The whole program.
pub fn main() -> ExitCode {
    let environment = |name: &str| std::env::var(name).ok();
    match flags::Flags::parse(outrider_kit::flags::arguments(), environment) {
        Err(flags::Error::Usage(error)) => flag::print(&error, &flags::command()),
        flags => outrider_host::main("dapr.placement", || app::run(flags)),
    }
}
