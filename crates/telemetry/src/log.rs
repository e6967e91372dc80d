//! Log lines with the fields of <https://docs.dapr.io/operations/observability/logging/logs/>.
//!
//! A line's scope is its tracing target (`dapr.runtime`), its message comes
//! from the macro; further fields are printed in alphabetical order with the
//! standing ones (`app_id`, `instance`, `type`, `ver`).

use std::fmt::Write as _;
use std::io::{IsTerminal, Write as _};
use std::sync::Mutex;

use outrider_kit::quote;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

/// Target under which [`fatal`] writes its one line.
const FATAL: &str = "fatal";
/// Targets with this ending are the API log, which runs at info whatever the
/// level is.
const API_LOG: &str = "-info";

#[derive(Debug, Clone, Default)]
pub struct Options {
    /// `debug`, `info`, `warn`, `error` or `fatal`, in any case.
    pub level: String,
    /// One JSON object a line instead of text.
    pub json: bool,
    pub app_id: Option<String>,
    pub version: &'static str,
    /// Lines are appended to this file instead of standard output.
    pub file: Option<std::path::PathBuf>,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("invalid value for --log-level: {0}")]
    Level(String),
    #[error("cannot open log file {path}: {source}")]
    File {
        path: String,
        source: std::io::Error,
    },
}

/// Sets the process's logging up; later calls have no effect.
pub fn init(options: &Options) -> Result<(), Error> {
    let level = parse_level(&options.level)?;
    let file = match &options.file {
        None => None,
        Some(path) => Some(
            std::fs::OpenOptions::new()
                .create(true)
                .append(true)
                .open(path)
                .map_err(|source| Error::File {
                    path: path.display().to_string(),
                    source,
                })?,
        ),
    };
    let printer = Printer {
        level,
        json: options.json,
        color: file.is_none() && !options.json && std::io::stdout().is_terminal(),
        app_id: options.app_id.clone(),
        instance: host_name(),
        version: options.version,
        file: file.map(Mutex::new),
        start: std::time::Instant::now(),
    };
    // A second process assembly in one test binary keeps the first one's logs.
    let _ = tracing::subscriber::set_global_default(tracing_subscriber::registry().with(printer));
    Ok(())
}

/// Writes the last line of a process that cannot go on.
pub fn fatal(scope: &'static str, message: &str) {
    tracing::error!(target: FATAL, scope, "{message}");
}

/// None means that only fatal lines are printed.
fn parse_level(text: &str) -> Result<Option<Level>, Error> {
    Ok(match text.to_ascii_lowercase().as_str() {
        "debug" => Some(Level::DEBUG),
        "info" | "" => Some(Level::INFO),
        "warn" | "warning" => Some(Level::WARN),
        "error" => Some(Level::ERROR),
        "fatal" => None,
        _ => return Err(Error::Level(text.to_owned())),
    })
}

fn host_name() -> String {
    rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned()
}

struct Printer {
    level: Option<Level>,
    json: bool,
    color: bool,
    app_id: Option<String>,
    instance: String,
    version: &'static str,
    file: Option<Mutex<std::fs::File>>,
    start: std::time::Instant,
}

impl<S: Subscriber> Layer<S> for Printer {
    fn enabled(&self, metadata: &tracing::Metadata<'_>, _: Context<'_, S>) -> bool {
        let target = metadata.target();
        if target == FATAL || target.ends_with(API_LOG) {
            return true;
        }
        let Some(level) = self.level else {
            return false;
        };
        // Libraries speak only when something is wrong with them.
        let ours = ["dapr", "outrider", "pluggable-components"];
        let level = if ours.iter().any(|prefix| target.starts_with(prefix)) {
            level
        } else {
            level.min(Level::WARN)
        };
        *metadata.level() <= level
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let target = event.metadata().target();
        let level = match *event.metadata().level() {
            _ if target == FATAL => "fatal",
            Level::ERROR => "error",
            Level::WARN => "warning",
            Level::INFO => "info",
            Level::DEBUG => "debug",
            Level::TRACE => "trace",
        };
        let mut rest = fields.rest;
        if target != FATAL {
            rest.push(("scope", target.to_owned()));
        }
        if let Some(app_id) = &self.app_id {
            rest.push(("app_id", app_id.clone()));
        }
        rest.push(("instance", self.instance.clone()));
        rest.push(("type", "log".to_owned()));
        rest.push(("ver", self.version.to_owned()));
        rest.sort_by_key(|(name, _)| *name);
        let line = if self.json {
            self.json(level, &fields.message, &rest)
        } else if self.color {
            self.short(level, &fields.message, &rest)
        } else {
            text(level, &fields.message, &rest)
        };
        match &self.file {
            None => {
                let _ = std::io::stdout().lock().write_all(line.as_bytes());
            }
            Some(file) => {
                if let Ok(mut file) = file.lock() {
                    let _ = file.write_all(line.as_bytes());
                }
            }
        }
    }
}

fn text(level: &str, message: &str, rest: &[(&'static str, String)]) -> String {
    let mut line = String::with_capacity(160 + message.len());
    let _ = write!(
        line,
        "time=\"{}\" level={level} msg={}",
        now(),
        value(message)
    );
    for (name, field) in rest {
        let _ = write!(line, " {name}={}", value(field));
    }
    line.push('\n');
    line
}

impl Printer {
    fn json(&self, level: &str, message: &str, rest: &[(&'static str, String)]) -> String {
        let mut object = serde_json::Map::new();
        for (name, field) in rest {
            object.insert((*name).to_owned(), field.clone().into());
        }
        object.insert("level".into(), level.into());
        object.insert("msg".into(), message.into());
        object.insert("time".into(), now().into());
        let sorted: std::collections::BTreeMap<_, _> = object.into_iter().collect();
        let mut line = serde_json::to_string(&sorted).unwrap_or_default();
        line.push('\n');
        line
    }

    /// The form for people: coloured level, seconds since start, padded message.
    fn short(&self, level: &str, message: &str, rest: &[(&'static str, String)]) -> String {
        let color = match level {
            "debug" | "trace" => 37,
            "info" => 36,
            "warning" => 33,
            _ => 31,
        };
        let word = level.to_ascii_uppercase();
        let word = &word[..word.len().min(4)];
        let seconds = self.start.elapsed().as_secs();
        let mut line = format!("\x1b[{color}m{word}\x1b[0m[{seconds:04}] {message:<44}");
        for (name, field) in rest {
            let _ = write!(line, " \x1b[{color}m{name}\x1b[0m={}", value(field));
        }
        line.push('\n');
        line
    }
}

fn now() -> String {
    format!("{:.9}", jiff::Timestamp::now())
}

/// `text` as it stands, or quoted when it holds anything that could end it early.
fn value(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._/@^+".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text.to_owned()
    } else {
        quote::go(text)
    }
}

#[derive(Default)]
struct Fields {
    message: String,
    rest: Vec<(&'static str, String)>,
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.put(field, format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value.to_owned());
    }
}

impl Fields {
    fn put(&mut self, field: &Field, value: String) {
        match field.name() {
            "message" => self.message = value,
            name if name.starts_with("log.") => {}
            name => self.rest.push((name, value)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_quoted_when_needed() {
        assert_eq!(value("dapr.runtime"), "dapr.runtime");
        assert_eq!(value("a b"), "\"a b\"");
        assert_eq!(value(""), "\"\"");
        assert_eq!(value("say \"x\"\n"), "\"say \\\"x\\\"\\n\"");
    }

    #[test]
    fn text_line() {
        let line = text(
            "info",
            "ready now",
            &[("app_id", "x".into()), ("ver", "1.18.4".into())],
        );
        let after_time = line.split_once("\" ").unwrap().1;
        assert_eq!(
            after_time,
            "level=info msg=\"ready now\" app_id=x ver=1.18.4\n"
        );
    }

    #[test]
    fn levels() {
        assert_eq!(parse_level("WARN").unwrap(), Some(Level::WARN));
        assert_eq!(parse_level("fatal").unwrap(), None);
        let message = parse_level("loud").unwrap_err().to_string();
        assert_eq!(message, "invalid value for --log-level: loud");
    }
}
