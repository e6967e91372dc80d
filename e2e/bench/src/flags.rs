//! The command line of the benchmark. `xtask` compiles this file too, to read it before it builds.

use std::path::PathBuf;
use std::time::Duration;

use crate::usage;

pub const USAGE: &str = "\
usage: bench [--seconds N] [--rounds N] [--rest N] [--no-limit] [--no-mtls]
             [--no-blocks] [NAME=]BINARY...

Every BINARY is a daprd. All take turns, and the table has the medians of the
rounds, with their ratio to those of the first binary.

  --seconds N   of each row in each round; 3 by default
  --rounds N    3 by default
  --rest N      seconds without a call before memory is read; 60 by default
  --no-limit    without the column of two nginx in a row
  --no-mtls     without the rows of sidecars that have certificates
  --no-blocks   without the rows of further building blocks, which need redis-server
";

const KNOWN: [&str; 6] = [
    "--seconds",
    "--rounds",
    "--rest",
    "--no-limit",
    "--no-mtls",
    "--no-blocks",
];

#[derive(Debug)]
pub struct Flags {
    /// Of each row in each round.
    pub time: Duration,
    pub rounds: usize,
    /// Without a call, before memory is read.
    pub rest: Duration,
    /// Whether two nginx are measured on the same path.
    pub limit: bool,
    /// Whether invocation is measured with mTLS too.
    pub mtls: bool,
    /// Whether further building blocks are measured.
    pub blocks: bool,
    pub binaries: Vec<(String, PathBuf)>,
}

/// The error is one line, with `help` as the command that lists all flags.
pub fn parse(words: impl IntoIterator<Item = String>, help: &str) -> Result<Flags, String> {
    let mut words = words.into_iter();
    let mut flags = Flags {
        time: Duration::from_secs(3),
        rounds: 3,
        rest: Duration::from_secs(60),
        limit: true,
        mtls: true,
        blocks: true,
        binaries: Vec::new(),
    };
    while let Some(word) = words.next() {
        match &*word {
            "--no-limit" => flags.limit = false,
            "--no-mtls" => flags.mtls = false,
            "--no-blocks" => flags.blocks = false,
            "--seconds" | "--rounds" | "--rest" => {
                let number = number(&word, words.next(), help)?;
                match &*word {
                    "--seconds" => flags.time = Duration::from_secs(number.into()),
                    "--rest" => flags.rest = Duration::from_secs(number.into()),
                    _ => flags.rounds = number as usize,
                }
            }
            flag if flag.starts_with('-') => return Err(usage::unknown_flag(flag, KNOWN, help)),
            binary => {
                let (name, path) = binary.split_once('=').unwrap_or((binary, binary));
                flags.binaries.push((name.to_owned(), PathBuf::from(path)));
            }
        }
    }
    if flags.binaries.is_empty() {
        return Err(usage::line("no daprd to measure", None, help));
    }
    Ok(flags)
}

fn number(flag: &str, word: Option<String>, help: &str) -> Result<u32, String> {
    let Some(word) = word else {
        let reason = format!("flag needs an argument: {flag}");
        return Err(usage::line(&reason, None, help));
    };
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
        parse(words.iter().map(|word| (*word).to_owned()), "bench --help")
    }

    #[test]
    fn flags_and_binaries_in_any_order() {
        let flags = parsed(&["ours=a/daprd", "--rounds", "5", "b/daprd", "--no-limit"]).unwrap();
        assert_eq!((flags.rounds, flags.time), (5, Duration::from_secs(3)));
        assert!(flags.mtls && !flags.limit);
        let names: Vec<_> = flags.binaries.iter().map(|(name, _)| &**name).collect();
        assert_eq!(names, ["ours", "b/daprd"]);
        for name in KNOWN {
            assert!(USAGE.contains(name), "{name} has no help");
        }
    }

    #[test]
    fn a_wrong_command_line_is_answered_in_one_line() {
        for (words, wanted) in [
            (&[][..], "no daprd to measure; see bench --help"),
            (
                &["--round", "3", "a"],
                "unknown flag: --round; did you mean --rounds? See bench --help",
            ),
            (
                &["--rounds", "0", "a"],
                "invalid argument \"0\" for \"--rounds\" flag: not a whole number above 0; see bench --help",
            ),
            (
                &["a", "--seconds"],
                "flag needs an argument: --seconds; see bench --help",
            ),
        ] {
            assert_eq!(parsed(words).unwrap_err(), wanted);
        }
    }
}
