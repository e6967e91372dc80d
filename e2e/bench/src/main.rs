//! Compares daprd binaries on this machine: size, start, memory, and what a
//! call costs. See `flags.rs` for how to run it.

mod app;
mod flags;
mod load;
mod measure;
mod pair;
mod table;

use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    let Some(flags) = flags::parse(std::env::args().skip(1)) else {
        eprint!("{}", flags::USAGE);
        return ExitCode::from(2);
    };
    match app::run(&flags).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}
