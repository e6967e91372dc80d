//! sentry: the certificate authority of the control plane.

mod app;
mod ca;
mod config;
mod flags;
mod metrics;
mod oidc;
mod server;
mod validate;

use std::process::ExitCode;

fn main() -> ExitCode {
    match flags::parse(std::env::args().skip(1)) {
        Ok(flags) => outrider_host::main("dapr.sentry", || app::run(flags)),
        Err(refusal) => refusal.tell(),
    }
}
