//! `daprd`: the sidecar.

use std::process::ExitCode;

mod api;
mod app;
mod channel;
mod components;
mod config;
mod flags;
mod grpc;
mod metrics;
mod peer;
mod server;

fn main() -> ExitCode {
    match flags::parse(std::env::args().skip(1)) {
        Ok(flags) => outrider_host::main("dapr.runtime", || app::run(flags)),
        Err(done) => done.print(),
    }
}
