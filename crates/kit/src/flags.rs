//! What Dapr's command lines accept beyond ordinary GNU flags.

#[cfg(feature = "clap")]
use crate::{quote, usage};

/// `arguments` (without the program's name) with a single leading dash doubled,
/// so that `-app-id x` means `--app-id x`. Short flags of one letter and
/// everything after `--` stay as they are.
pub fn normalise(arguments: impl IntoIterator<Item = String>) -> Vec<String> {
    let mut literal = false;
    arguments
        .into_iter()
        .map(|argument| {
            literal |= argument == "--";
            let single = argument.starts_with('-') && !argument.starts_with("--");
            if !literal && single && argument.len() > 2 {
                format!("-{argument}")
            } else {
                argument
            }
        })
        .collect()
}

/// The entries of a list flag's values: each value is split at commas, with
/// double quotes around an entry that holds one.
pub fn list<'a>(values: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    let mut entries = Vec::new();
    for value in values.into_iter().filter(|v| !v.is_empty()) {
        let mut entry = String::new();
        let mut quoted = false;
        let mut chars = value.chars().peekable();
        while let Some(c) = chars.next() {
            match c {
                '"' if quoted && chars.peek() == Some(&'"') => {
                    chars.next();
                    entry.push('"');
                }
                '"' => quoted = !quoted,
                ',' if !quoted => entries.push(std::mem::take(&mut entry)),
                c => entry.push(c),
            }
        }
        entries.push(entry);
    }
    entries
}

/// The arguments of this process. One that is not UTF-8 is an unknown flag
/// like others.
pub fn arguments() -> impl Iterator<Item = String> {
    let arguments = std::env::args_os().skip(1);
    arguments.map(|argument| argument.to_string_lossy().into_owned())
}

/// What is wrong with a command line, as one line; `command` is its definition.
#[cfg(feature = "clap")]
pub fn error_line(error: &clap::Error, command: &clap::Command) -> String {
    use clap::error::{ContextKind, ContextValue, ErrorKind};
    let context = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => text.as_str(),
        _ => "",
    };
    let help = format!("{} --help", command.get_name());
    let given = context(ContextKind::InvalidArg);
    // Without the value, and without the brackets around one that may be left out.
    let flag = given.split(['=', ' ', '[']).next().unwrap_or_default();
    let value = context(ContextKind::InvalidValue);
    let reason = match error.kind() {
        ErrorKind::UnknownArgument if given.starts_with("--") => {
            let unknown = given.split('=').next().unwrap_or_default();
            return usage::unknown_flag(unknown, names(command), &help);
        }
        ErrorKind::UnknownArgument => match flag.strip_prefix('-').and_then(|f| f.chars().next()) {
            Some(letter) => format!("unknown shorthand flag: '{letter}' in {flag}"),
            None => format!("unexpected argument: {flag}"),
        },
        ErrorKind::InvalidSubcommand => {
            let known = command.get_subcommands().map(clap::Command::get_name);
            let given = context(ContextKind::InvalidSubcommand);
            return usage::unknown_command(given, known, &help);
        }
        ErrorKind::MissingSubcommand | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            "a command is missing".to_owned()
        }
        ErrorKind::InvalidValue if value.is_empty() => format!("flag needs an argument: {flag}"),
        ErrorKind::InvalidValue | ErrorKind::ValueValidation => {
            let why = std::error::Error::source(error)
                .map_or_else(|| "not one of its values".to_owned(), ToString::to_string);
            let value = quote::go(value);
            format!("invalid argument {value} for \"{flag}\" flag: {why}")
        }
        _ => {
            let text = error.to_string();
            let first = text.lines().next().unwrap_or_default();
            first.trim_start_matches("error: ").to_owned()
        }
    };
    usage::line(&reason, None, &help)
}

/// Long flags of a command and of those below it.
#[cfg(feature = "clap")]
fn names(command: &clap::Command) -> Vec<&str> {
    let own = command.get_arguments().filter(|flag| !flag.is_hide_set());
    let own = own.filter_map(clap::Arg::get_long);
    own.chain(command.get_subcommands().flat_map(names))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn single_dash() {
        let given = [
            "-app-id",
            "x",
            "--mode=standalone",
            "-h",
            "-1",
            "-10",
            "--",
            "-raw",
        ];
        assert_eq!(
            normalise(given.map(str::to_owned)),
            [
                "--app-id",
                "x",
                "--mode=standalone",
                "-h",
                "-1",
                "--10",
                "--",
                "-raw"
            ]
        );
    }

    #[test]
    fn lists() {
        assert_eq!(list(["a,b", "c"]), ["a", "b", "c"]);
        assert_eq!(list(["\"a,b\",c"]), ["a,b", "c"]);
        assert_eq!(list(["", "\"\""]), [""]);
    }

    #[cfg(feature = "clap")]
    #[test]
    fn each_kind_of_error_is_one_line() {
        use clap::{Arg, Command, value_parser};

        let command = || {
            let port = Arg::new("port").long("port");
            let secret = Arg::new("secret").long("secret").hide(true);
            let detach = Arg::new("detach").long("detach");
            Command::new("daprd")
                .args([port.value_parser(value_parser!(u16)), secret])
                .subcommand(Command::new("up").arg(detach))
        };
        for (words, wanted) in [
            (
                &["--prot=1"][..],
                "unknown flag: --prot; did you mean --port? See daprd --help",
            ),
            (
                &["up", "--detatch"],
                "unknown flag: --detatch; did you mean --detach? See daprd --help",
            ),
            // A hidden flag is not offered.
            (&["--secrets"], "unknown flag: --secrets; see daprd --help"),
            (
                &["-abc"],
                "unknown shorthand flag: 'a' in -a; see daprd --help",
            ),
            (&["uP"], "unknown command: uP; see daprd --help"),
            (
                &["--port"],
                "flag needs an argument: --port; see daprd --help",
            ),
            (
                &["--port", "a\nb"],
                "invalid argument \"a\\nb\" for \"--port\" flag: invalid digit found in string; see daprd --help",
            ),
        ] {
            let words = std::iter::once("daprd").chain(words.iter().copied());
            let error = command().try_get_matches_from(words).unwrap_err();
            assert_eq!(error_line(&error, &command()), wanted);
        }
    }
}
