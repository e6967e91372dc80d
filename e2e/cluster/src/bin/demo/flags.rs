//! The command line of the demo. `xtask` compiles this file too, to read it before it builds.

use std::path::PathBuf;

use crate::usage;

pub const USAGE: &str = "\
usage: demo [--self-hosted] [--exit] [--binaries FOLDER]
            [--registry PREFIX (--save FOLDER | --context NAME)]

  --self-hosted       as plain processes, without Kubernetes
  --exit              end after the last step instead of waiting for Ctrl-C
  --binaries FOLDER   use programs that are built already
  --save FOLDER       write the images to be pushed to --registry, and end
  --context NAME      use your cluster of that name, which pulls from --registry
";

/// Each with whether a value follows it.
const KNOWN: [(&str, bool); 6] = [
    ("--self-hosted", false),
    ("--exit", false),
    ("--binaries", true),
    ("--registry", true),
    ("--save", true),
    ("--context", true),
];

#[derive(Debug, Default)]
pub struct Flags {
    pub self_hosted: bool,
    pub context: Option<String>,
    pub registry: Option<String>,
    /// Where to write the images that a registry is to get.
    pub save: Option<PathBuf>,
    /// Ends after the last step instead of leaving everything up.
    pub exit: bool,
    /// Programs that are built already.
    pub binaries: Option<PathBuf>,
}

/// The error is one line, with `help` as the command that lists all flags.
pub fn parse(words: impl IntoIterator<Item = String>, help: &str) -> Result<Flags, String> {
    let mut words = words.into_iter();
    let mut flags = Flags::default();
    let wrong = |reason: &str| Err(usage::line(reason, None, help));
    while let Some(word) = words.next() {
        let Some((name, valued)) = KNOWN.iter().find(|(name, _)| *name == word) else {
            let known = KNOWN.iter().map(|(name, _)| *name);
            return Err(usage::unknown_flag(&word, known, help));
        };
        let value = if *valued { words.next() } else { None };
        if *valued && value.is_none() {
            return wrong(&format!("flag needs an argument: {name}"));
        }
        match *name {
            "--self-hosted" => flags.self_hosted = true,
            "--exit" => flags.exit = true,
            "--binaries" => flags.binaries = value.map(PathBuf::from),
            "--registry" => flags.registry = value,
            "--save" => flags.save = value.map(PathBuf::from),
            _ => flags.context = value,
        }
    }
    let registry = flags.registry.is_some();
    match (&flags.save, &flags.context) {
        (Some(_), Some(_)) => wrong(
            "--save writes images to be pushed, --context uses those that were: give one of them",
        ),
        (None, None) if registry => wrong(
            "--registry needs --save, which writes images to push, or --context, whose cluster pulls them",
        ),
        (Some(_), None) if !registry => wrong("--save needs --registry, which names the images"),
        (None, Some(_)) if !registry => {
            wrong("--context needs --registry, from which the cluster pulls the images")
        }
        (Some(_), None) | (None, Some(_)) if flags.self_hosted => {
            wrong("--self-hosted has no images: leave --save and --context out")
        }
        _ => Ok(flags),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(words: &[&str]) -> Result<Flags, String> {
        parse(words.iter().map(|word| (*word).to_owned()), "demo --help")
    }

    #[test]
    fn flags_with_and_without_values() {
        let flags = parsed(&["--registry", "r.io/x", "--save", "images", "--exit"]).unwrap();
        assert_eq!(flags.registry.as_deref(), Some("r.io/x"));
        assert_eq!(flags.save, Some(PathBuf::from("images")));
        assert!(flags.exit && !flags.self_hosted);
        for (name, _) in KNOWN {
            assert!(USAGE.contains(name), "{name} has no help");
        }
    }

    #[test]
    fn a_wrong_command_line_is_answered_in_one_line() {
        for (words, start) in [
            (
                &["--self-hostd"][..],
                "unknown flag: --self-hostd; did you mean --self-hosted? See demo --help",
            ),
            (&["x"], "unknown flag: x; see demo --help"),
            (&["--save"], "flag needs an argument: --save; see demo"),
            (&["--save", "x"], "--save needs --registry"),
            (&["--context", "x"], "--context needs --registry"),
            (&["--registry", "x"], "--registry needs --save"),
            (
                &["--registry", "x", "--save", "y", "--context", "z"],
                "--save writes images",
            ),
            (
                &["--self-hosted", "--registry", "x", "--save", "y"],
                "--self-hosted has no images",
            ),
        ] {
            let line = parsed(words).unwrap_err();
            assert!(line.starts_with(start), "{line}");
            assert_eq!(line.lines().count(), 1);
        }
    }
}
