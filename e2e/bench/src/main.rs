//! Compares daprd binaries on this machine: size, start, memory, and what a
//! call costs. See `flags.rs` for how to run it.

mod app;
mod backend;
mod blocks;
mod flags;
mod load;
mod measure;
mod nginx;
mod pair;
mod row;
mod table;

use std::process::ExitCode;

use outrider_kit::usage;

#[tokio::main]
async fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if words.iter().any(|word| word == "--help" || word == "-h") {
        print!("{}", flags::USAGE);
        return ExitCode::SUCCESS;
    }
    let flags = match flags::parse(words, "bench --help") {
        Ok(flags) => flags,
        Err(line) => {
            eprintln!("{line}");
            return ExitCode::from(2);
        }
    };
    match app::run(&flags).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}
