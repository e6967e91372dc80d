//! The command line. `xtask` compiles this file too, to read it before it builds.

use std::path::PathBuf;

use crate::usage;

pub const USAGE: &str = "\
usage: faults [--reference FOLDER] [--only TEXT] [--skip TEXT] [--short] [--long]
              [--at-once N] [--logs FOLDER] [--list]

Every scenario is a row: a system under load, and something in it that is killed,
frozen, cut off, slowed down or left without disk. Ends with 1 where something that
was acknowledged is lost, or a goal is missed.

  --reference FOLDER  every scenario again with Dapr's daprd, placement and scheduler
                      of that folder; what they miss does not count
  --only TEXT         only scenarios whose name has TEXT in it
  --skip TEXT         without those whose name has TEXT in it
  --short             only the few that take a minute together
  --long              freeze for 60 seconds too
  --at-once N         scenarios that run at a time; 1 by default
  --logs FOLDER       keep the logs of scenarios that failed there
  --list              only print the names
";

const KNOWN: [&str; 8] = [
    "--reference",
    "--only",
    "--skip",
    "--short",
    "--long",
    "--at-once",
    "--logs",
    "--list",
];

#[derive(Debug, Default)]
pub struct Flags {
    /// Where Dapr's programs are.
    pub reference: Option<PathBuf>,
    pub only: Option<String>,
    pub skip: Option<String>,
    pub short: bool,
    pub long: bool,
    pub at_once: usize,
    pub logs: Option<PathBuf>,
    pub list: bool,
}

/// The error is one line, with `help` as the command that lists all flags.
pub fn parse(words: impl IntoIterator<Item = String>, help: &str) -> Result<Flags, String> {
    let mut words = words.into_iter();
    let mut flags = Flags {
        at_once: 1,
        ..Flags::default()
    };
    while let Some(word) = words.next() {
        let mut value = || {
            let missing = || format!("flag needs an argument: {word}");
            words
                .next()
                .ok_or_else(|| usage::line(&missing(), None, help))
        };
        match &*word {
            "--short" => flags.short = true,
            "--long" => flags.long = true,
            "--list" => flags.list = true,
            "--reference" => flags.reference = Some(value()?.into()),
            "--logs" => flags.logs = Some(value()?.into()),
            "--only" => flags.only = Some(value()?),
            "--skip" => flags.skip = Some(value()?),
            "--at-once" => flags.at_once = number(&word, &value()?, help)?,
            flag if flag.starts_with('-') => return Err(usage::unknown_flag(flag, KNOWN, help)),
            other => {
                let reason = format!("unexpected argument: {other}");
                return Err(usage::line(&reason, None, help));
            }
        }
    }
    Ok(flags)
}

fn number(flag: &str, word: &str, help: &str) -> Result<usize, String> {
    word.parse().ok().filter(|n| *n > 0).ok_or_else(|| {
        let reason =
            format!("invalid argument {word:?} for \"{flag}\" flag: not a whole number above 0");
        usage::line(&reason, None, help)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(words: &[&str]) -> Result<Flags, String> {
        parse(words.iter().map(|word| (*word).to_owned()), "faults --help")
    }

    #[test]
    fn flags_in_any_order() {
        let flags = parsed(&["--long", "--at-once", "3", "--only", "redis"]).unwrap();
        assert!(flags.long && !flags.short && flags.reference.is_none());
        assert_eq!((flags.at_once, flags.only.as_deref()), (3, Some("redis")));
        for name in KNOWN {
            assert!(USAGE.contains(name), "{name} has no help");
        }
    }

    #[test]
    fn a_wrong_command_line_is_answered_in_one_line() {
        for (words, wanted) in [
            (
                &["--ony", "x"][..],
                "unknown flag: --ony; did you mean --only? See faults --help",
            ),
            (
                &["--at-once", "0"],
                "invalid argument \"0\" for \"--at-once\" flag: not a whole number above 0; see faults --help",
            ),
            (
                &["--only"],
                "flag needs an argument: --only; see faults --help",
            ),
            (&["now"], "unexpected argument: now; see faults --help"),
        ] {
            assert_eq!(parsed(words).unwrap_err(), wanted);
        }
    }
}
