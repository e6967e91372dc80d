//! Makers and readers of flags.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::builder::ValueParser;
use clap::{Arg, ArgMatches, Command, value_parser};
use outrider_kit::{boolean, duration, flags};

pub fn text(name: &'static str, default: &'static str) -> Arg {
    Arg::new(name)
        .long(name)
        .default_value(default)
        .num_args(1)
        .allow_hyphen_values(true)
}

pub fn port(name: &'static str, default: &'static str) -> Arg {
    text(name, default).value_parser(value_parser!(u16))
}

/// A number of at least 0.
pub fn number(name: &'static str, default: &'static str) -> Arg {
    text(name, default).value_parser(value_parser!(u64))
}

/// A path; an empty one counts as absent.
pub fn path(name: &'static str) -> Arg {
    text(name, "")
}

/// A duration as Go writes it.
pub fn duration(name: &'static str, default: &'static str) -> Arg {
    let parse = |text: &str| -> Result<Duration, duration::ParseError> { duration::parse(text) };
    text(name, default).value_parser(ValueParser::new(parse))
}

/// `--name`, `--name=true` or `--name=false`. A value has to follow `=`: the
/// next word is another argument.
pub fn switch(name: &'static str, default: &'static str) -> Arg {
    text(name, default)
        .num_args(0..=1)
        .require_equals(true)
        .default_missing_value("true")
        .value_parser(ValueParser::new(boolean::parse))
}

pub fn get<T: Clone + Default + Send + Sync + 'static>(matches: &ArgMatches, name: &str) -> T {
    matches.get_one(name).cloned().unwrap_or_default()
}

/// A text that is not empty.
pub fn filled(matches: &ArgMatches, name: &str) -> Option<String> {
    Some(get::<String>(matches, name)).filter(|text| !text.is_empty())
}

pub fn optional_path(matches: &ArgMatches, name: &str) -> Option<PathBuf> {
    filled(matches, name).map(PathBuf::from)
}

/// Prints the help that was asked for, or one line about what is wrong with the
/// arguments of `command`. Returns the exit code.
pub fn print(error: &clap::Error, command: &Command) -> ExitCode {
    if !error.use_stderr() {
        print!("{error}");
        return ExitCode::SUCCESS;
    }
    eprintln!("{}", flags::error_line(error, command));
    ExitCode::from(2)
}
