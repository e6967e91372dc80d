//! `cargo xtask`: everything that is done to this repository, by name.

use std::process::ExitCode;

mod arrows;
mod clients;
mod command;
mod demo;
mod deps;
mod dist;
mod fuzz;
mod progress;
mod run;
mod setup;
mod sizes;
mod stages;

// Files of other crates, compiled here too. xtask links no crate of ours, so
// that its own build takes seconds.
#[path = "../../e2e/bench/src/flags.rs"]
mod bench_flags;
#[path = "../../e2e/cluster/src/debian.rs"]
mod debian;
#[path = "../../e2e/cluster/src/bin/demo/flags.rs"]
mod demo_flags;
// Not all of them is used here.
#[allow(dead_code)]
#[path = "../../e2e/faults/src/flags.rs"]
mod faults_flags;
// Not all of it is used here.
#[allow(dead_code)]
#[path = "../../e2e/cluster/src/machine.rs"]
mod machine;
#[path = "../../e2e/cluster/src/programs.rs"]
mod programs;
#[path = "../../crates/kit/src/usage.rs"]
mod usage;

use command::Command;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let command = match command::parse(&words) {
        Ok(command) => command,
        Err(line) => {
            eprintln!("{line}");
            return ExitCode::from(2);
        }
    };
    let done = match command {
        Command::Help(text) => {
            print!("{text}");
            return ExitCode::SUCCESS;
        }
        Command::Test { all } => stages::test(all),
        Command::Check => stages::check(),
        Command::Setup { all } => setup::tests(all),
        Command::Demo(flags) => demo::run(&flags, words.get(1..).unwrap_or_default()),
        Command::Dist => dist::dist(),
        Command::Bench(flags) => stages::bench(&flags, words.get(1..).unwrap_or_default()),
        Command::Faults(flags) => stages::faults(&flags, words.get(1..).unwrap_or_default()),
        Command::Interop { reference } => stages::interop(&reference),
        Command::Simulate => stages::simulate(words.get(1..).unwrap_or_default()),
        Command::Fuzz { seconds, targets } => fuzz::run(seconds, targets),
        Command::Heavy => stages::heavy(),
        Command::Generate => stages::generate(),
        Command::Drift => stages::drift(),
        Command::Arrows => arrows::check(),
        Command::Sizes => sizes::check(),
        Command::Deps => deps::check(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
