use std::path::PathBuf;
use std::time::Duration;

pub const USAGE: &str = "\
usage: bench [--seconds N] [--rounds N] [NAME=]BINARY...

Every BINARY is a daprd. All take turns, N rounds of N seconds per row, and the
table has the medians, with their ratio to those of the first.
";

#[derive(Debug)]
pub struct Flags {
    /// Of each row in each round.
    pub time: Duration,
    pub rounds: usize,
    pub binaries: Vec<(String, PathBuf)>,
}

pub fn parse(words: impl Iterator<Item = String>) -> Option<Flags> {
    let mut words = words;
    let mut flags = Flags {
        time: Duration::from_secs(3),
        rounds: 3,
        binaries: Vec::new(),
    };
    while let Some(word) = words.next() {
        match &*word {
            "--seconds" => flags.time = Duration::from_secs(number(words.next())?),
            "--rounds" => flags.rounds = usize::try_from(number(words.next())?).ok()?,
            word if word.starts_with('-') => return None,
            word => {
                let (name, path) = word.split_once('=').unwrap_or((word, word));
                flags.binaries.push((name.to_owned(), PathBuf::from(path)));
            }
        }
    }
    (!flags.binaries.is_empty()).then_some(flags)
}

fn number(word: Option<String>) -> Option<u64> {
    word?.parse().ok().filter(|number| *number > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(words: &[&str]) -> Option<Flags> {
        parse(words.iter().map(|word| (*word).to_owned()))
    }

    #[test]
    fn command_lines() {
        let flags = parsed(&["--rounds", "5", "ours=a/daprd", "b/daprd"]).expect("is right");
        assert_eq!((flags.rounds, flags.time), (5, Duration::from_secs(3)));
        let names: Vec<_> = flags.binaries.iter().map(|(name, _)| &**name).collect();
        assert_eq!(names, ["ours", "b/daprd"]);
        for wrong in [
            &[][..],
            &["--rounds", "x", "a"],
            &["--rounds", "0", "a"],
            &["--fast", "a"],
        ] {
            assert!(parsed(wrong).is_none(), "{wrong:?}");
        }
    }
}
