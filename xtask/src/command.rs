//! The command line of xtask, read whole before anything is done.

use std::path::PathBuf;

use crate::{bench_flags, demo_flags, faults_flags, usage};

const HELP: &str = "cargo xtask --help";

const USAGE: &str = "\
usage: cargo xtask <command>

  demo [--self-hosted] [--exit] [--registry PREFIX (--save FOLDER | --context NAME)]
                  show the main job on a real cluster, or as plain processes
  test [--all]    install what the tests need, then run them, cheap ones first
  bench BINARY..  compare daprd binaries given by path, and two nginx in a row
  interop --reference FOLDER
                  run ours with Dapr's daprd, placement and scheduler of that folder
  faults [--reference FOLDER] [--only TEXT] ..
                  kill, freeze and cut off what runs, and count what is lost
  simulate [--world actors|jobs] [--first N] [--seeds N] [--trace]
                  run whole clusters on a virtual clock, one for each seed
  dist            build what is shipped
  fuzz [SECONDS] [TARGET..]
                  run the targets of fuzz/ on generated input
  heavy           lint and test the component families whose libraries take
                  minutes to compile, and write docs/components-heavy.md
  setup [--all]   install what the tests need
  check           format, arrows, sizes, dependencies and lints
  gen             write the generated files: definitions of the chart,
                  docs/components.md
  drift           gen, then fail if anything changed
  arrows          check which crate may depend on which
  sizes           check the length of files
  deps            check licences and banned crates

Commands that build check first that what they need is there, and install
missing Debian packages. `--help` after demo, bench or faults lists all its flags.
";

const NAMES: [&str; 16] = [
    "demo", "test", "bench", "interop", "faults", "simulate", "dist", "fuzz", "heavy", "setup",
    "check", "gen", "drift", "arrows", "sizes", "deps",
];

#[derive(Debug)]
pub enum Command {
    Help(&'static str),
    Test {
        all: bool,
    },
    Check,
    Setup {
        all: bool,
    },
    Demo(demo_flags::Flags),
    Dist,
    Interop {
        /// Where Dapr's programs are.
        reference: PathBuf,
    },
    Bench(bench_flags::Flags),
    Faults(faults_flags::Flags),
    /// What follows is for the program that simulates.
    Simulate,
    Fuzz {
        seconds: Option<u64>,
        /// All of them if empty.
        targets: Vec<String>,
    },
    Heavy,
    Generate,
    Drift,
    Arrows,
    Sizes,
    Deps,
}

/// The error is one line.
pub fn parse(words: &[String]) -> Result<Command, String> {
    let Some((name, rest)) = words.split_first() else {
        return Err(usage::line("a command is missing", None, HELP));
    };
    if words.iter().any(|word| word == "--help" || word == "-h") {
        return Ok(Command::Help(match name.as_str() {
            "demo" => demo_flags::USAGE,
            "bench" => bench_flags::USAGE,
            "faults" => faults_flags::USAGE,
            _ => USAGE,
        }));
    }
    let alone = |command| match rest.first() {
        None => Ok(command),
        Some(word) => Err(unexpected(word, &[])),
    };
    match name.as_str() {
        "test" => Ok(Command::Test { all: all(rest)? }),
        "setup" => Ok(Command::Setup { all: all(rest)? }),
        "demo" => demo_flags::parse(rest.to_vec(), "cargo xtask demo --help").map(Command::Demo),
        "bench" => {
            let flags = bench_flags::parse(rest.to_vec(), "cargo xtask bench --help")?;
            Ok(Command::Bench(flags))
        }
        "faults" => {
            let flags = faults_flags::parse(rest.to_vec(), "cargo xtask faults --help")?;
            Ok(Command::Faults(flags))
        }
        "interop" => match rest {
            [flag, folder] if flag == "--reference" => Ok(Command::Interop {
                reference: folder.into(),
            }),
            [] => Err(usage::line("--reference FOLDER is missing", None, HELP)),
            [flag] if flag == "--reference" => Err(usage::line(
                "flag needs an argument: --reference",
                None,
                HELP,
            )),
            [word, ..] => Err(unexpected(word, &["--reference"])),
        },
        "simulate" => Ok(Command::Simulate),
        "fuzz" => fuzz(rest),
        "dist" => alone(Command::Dist),
        "check" => alone(Command::Check),
        "heavy" => alone(Command::Heavy),
        "gen" => alone(Command::Generate),
        "drift" => alone(Command::Drift),
        "arrows" => alone(Command::Arrows),
        "sizes" => alone(Command::Sizes),
        "deps" => alone(Command::Deps),
        other => Err(usage::unknown_command(other, NAMES, HELP)),
    }
}

/// Whether the one flag `--all` was given.
fn all(words: &[String]) -> Result<bool, String> {
    match words.iter().find(|word| *word != "--all") {
        None => Ok(!words.is_empty()),
        Some(word) => Err(unexpected(word, &["--all"])),
    }
}

fn fuzz(words: &[String]) -> Result<Command, String> {
    if let Some(flag) = words.iter().find(|word| word.starts_with('-')) {
        return Err(unexpected(flag, &[]));
    }
    let seconds = words.first().and_then(|word| word.parse().ok());
    let targets = words.iter().skip(usize::from(seconds.is_some()));
    Ok(Command::Fuzz {
        seconds,
        targets: targets.cloned().collect(),
    })
}

fn unexpected(word: &str, known: &[&str]) -> String {
    if word.starts_with('-') {
        return usage::unknown_flag(word, known.iter().copied(), HELP);
    }
    usage::line(&format!("unexpected argument: {word}"), None, HELP)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(words: &[&str]) -> Result<Command, String> {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        parse(&words)
    }

    #[test]
    fn every_command_is_known_and_has_help() {
        for name in NAMES {
            assert!(USAGE.contains(&format!("\n  {name} ")), "{name}");
            let words: &[&str] = match name {
                "bench" => &[name, "daprd"],
                "interop" => &[name, "--reference", "folder"],
                _ => &[name],
            };
            assert!(parsed(words).is_ok(), "{name}");
            assert!(matches!(
                parsed(&[name, "--help"]),
                Ok(Command::Help(text)) if text.starts_with("usage: ")
            ));
        }
    }

    #[test]
    fn a_wrong_command_line_is_answered_in_one_line() {
        for (words, wanted) in [
            (&[][..], "a command is missing; see cargo xtask --help"),
            (
                &["tset"],
                "unknown command: tset; did you mean test? See cargo xtask --help",
            ),
            (
                &["interop"],
                "--reference FOLDER is missing; see cargo xtask --help",
            ),
            (
                &["interop", "--reference"],
                "flag needs an argument: --reference; see cargo xtask --help",
            ),
            (
                &["interop", "--referenc", "x"],
                "unknown flag: --referenc; did you mean --reference? See cargo xtask --help",
            ),
            (
                &["faults", "--ony", "x"],
                "unknown flag: --ony; did you mean --only? See cargo xtask faults --help",
            ),
            (
                &["test", "--al"],
                "unknown flag: --al; see cargo xtask --help",
            ),
            (
                &["setup", "--alll"],
                "unknown flag: --alll; did you mean --all? See cargo xtask --help",
            ),
            (
                &["dist", "now"],
                "unexpected argument: now; see cargo xtask --help",
            ),
            (
                &["fuzz", "--seconds", "3"],
                "unknown flag: --seconds; see cargo xtask --help",
            ),
            (
                &["demo", "--self-hostd"],
                "unknown flag: --self-hostd; did you mean --self-hosted? See cargo xtask demo --help",
            ),
            (
                &["bench", "--rest", "soon", "daprd"],
                "invalid argument \"soon\" for \"--rest\" flag: not a whole number above 0; see cargo xtask bench --help",
            ),
        ] {
            assert_eq!(parsed(words).unwrap_err(), wanted);
        }
    }

    #[test]
    fn fuzz_takes_seconds_and_targets() {
        match parsed(&["fuzz", "5", "condition"]) {
            Ok(Command::Fuzz { seconds, targets }) => {
                assert_eq!((seconds, targets), (Some(5), vec!["condition".to_owned()]));
            }
            other => panic!("{other:?}"),
        }
    }
}
