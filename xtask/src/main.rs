//! `cargo xtask`: everything that is done to this repository, by name.

use std::process::ExitCode;

mod arrows;
mod clients;
mod deps;
mod dist;
mod fuzz;
mod run;
mod setup;
mod sizes;
mod stages;

const USAGE: &str = "\
usage: cargo xtask <command>

  demo [--self-hosted] [--exit] [--registry PREFIX (--save FOLDER | --context NAME)]
                  show the main job on a real cluster, or as plain processes
  test [--all]    install what the tests need, then run them, cheap ones first
  bench BINARY..  compare daprd binaries given by path
  dist            build what is shipped (needs valgrind)
  fuzz [SECONDS] [TARGET..]
                  feed the targets of fuzz/ with what breaks them
  setup [--all]   install what the tests need
  check           format, arrows, sizes, dependencies and lints
  gen             write the generated files: definitions of the chart
  drift           gen, then fail if anything changed
  arrows          check which crate may depend on which
  sizes           check the length of files
  deps            check licences and banned crates
";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let rest = words.get(1..).unwrap_or_default();
    let done = match words.first().map(String::as_str) {
        Some("test") => stages::test(rest.iter().any(|w| w == "--all")),
        Some("check") => stages::check(),
        Some("setup") => setup::install(rest.iter().any(|w| w == "--all")),
        Some("demo") => stages::demo(rest),
        Some("dist") => dist::dist(),
        Some("bench") => stages::bench(rest),
        Some("fuzz") => fuzz::run(rest),
        Some("gen") => stages::generate(),
        Some("drift") => stages::drift(),
        Some("arrows") => arrows::check(),
        Some("sizes") => sizes::check(),
        Some("deps") => deps::check(),
        _ => {
            eprint!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
