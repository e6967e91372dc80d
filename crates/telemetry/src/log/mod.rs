//! Log lines with the fields of <https://docs.dapr.io/operations/observability/logging/logs/>.
//!
//! A line's scope is its tracing target (`dapr.runtime`), its message comes
//! from the macro; further fields are printed in alphabetical order with the
//! standing ones (`app_id`, `instance`, `type`, `ver`).

mod file;
mod outputs;
mod timestamp;
mod writer;

use std::fmt::Write as _;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use outrider_kit::quote;
use serde_json::Value;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

pub use file::Rotation;
use outputs::Outputs;
use timestamp::Layout;
use writer::Writer;

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
    /// Lines are appended to this file.
    pub file: Option<PathBuf>,
    /// `stdout`, `stderr` and paths, besides the file; without any of them
    /// lines go to standard output.
    pub outputs: Vec<String>,
    /// What is kept of files.
    pub rotation: Rotation,
    /// How times look, in Go's form; empty for RFC 3339 in UTC.
    pub timestamps: String,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("invalid value for --log-level: {0}")]
    Level(String),
    #[error("cannot start a thread for the log: {0}")]
    Thread(std::io::Error),
    #[error("cannot open log file {path}: {source}")]
    File {
        path: String,
        source: std::io::Error,
    },
}

/// Sets the process's logging up; later calls have no effect.
pub fn init(options: &Options) -> Result<(), Error> {
    let level = parse_level(&options.level)?;
    let names = outputs::names(&options.outputs, options.file.clone());
    let is_stdout = matches!(names.as_slice(), [only] if only.as_os_str() == "stdout");
    let outputs = Outputs::open(names, options.rotation)?;
    let shape = Shape {
        json: options.json,
        color: is_stdout && !options.json && std::io::stdout().is_terminal(),
        layout: Layout::parse(&options.timestamps),
        app_id: options.app_id.clone(),
        instance: host_name(),
        version: options.version,
        start: std::time::Instant::now(),
    };
    let dropped = shape.clone();
    let report = move |number| {
        let message = format!("{number} log lines were dropped: the log is read too slowly");
        dropped.line("warning", "dapr.host", &message, Vec::new())
    };
    let writer = Writer::start(outputs, report).map_err(Error::Thread)?;
    let printer = Printer {
        shape,
        writer: writer.clone(),
    };
    // A second process assembly in one test binary keeps the first one's logs.
    let subscriber = tracing_subscriber::registry().with(printer);
    LEVEL.store(number(level), Ordering::Relaxed);
    if tracing::subscriber::set_global_default(subscriber).is_ok() {
        let _ = WRITER.set(writer);
    }
    Ok(())
}

/// The level, as a number: 0 for fatal lines only, 1 for errors as well, and so
/// on.
static LEVEL: AtomicU8 = AtomicU8::new(3);

fn number(level: Option<Level>) -> u8 {
    match level {
        None => 0,
        Some(Level::ERROR) => 1,
        Some(Level::WARN) => 2,
        Some(Level::INFO) => 3,
        Some(_) => 4,
    }
}

/// Changes the level while the process runs.
pub fn set_level(text: &str) -> Result<(), Error> {
    LEVEL.store(number(parse_level(text)?), Ordering::Relaxed);
    tracing::callsite::rebuild_interest_cache();
    Ok(())
}

static WRITER: OnceLock<Writer> = OnceLock::new();
/// How long a process waits for its last lines to be read.
const LAST_LINES: Duration = Duration::from_secs(2);

/// Waits until queued lines are written, for a process that ends.
pub fn flush() {
    if let Some(writer) = WRITER.get() {
        writer.flush(LAST_LINES);
    }
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
    shape: Shape,
    writer: Writer,
}

/// How lines look.
#[derive(Clone)]
struct Shape {
    json: bool,
    color: bool,
    layout: Option<Layout>,
    app_id: Option<String>,
    instance: String,
    version: &'static str,
    start: std::time::Instant,
}

impl<S: Subscriber> Layer<S> for Printer {
    fn enabled(&self, metadata: &tracing::Metadata<'_>, _: Context<'_, S>) -> bool {
        let target = metadata.target();
        if target == FATAL || target.ends_with(API_LOG) {
            return true;
        }
        let level = LEVEL.load(Ordering::Relaxed);
        // Of libraries only warnings and errors are printed.
        let ours = ["dapr", "outrider", "pluggable-components"];
        let level = if ours.iter().any(|prefix| target.starts_with(prefix)) {
            level
        } else {
            level.min(number(Some(Level::WARN)))
        };
        number(Some(*metadata.level())) <= level
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
        let line = self.shape.line(level, target, &fields.message, fields.rest);
        self.writer.write(&line, target == FATAL);
    }
}

/// The value of a field as one word.
fn word(field: &Value) -> String {
    match field {
        Value::String(text) => value(text),
        other => other.to_string(),
    }
}

fn text(time: &str, level: &str, message: &str, rest: &[(&'static str, Value)]) -> String {
    let mut line = String::with_capacity(160 + message.len());
    let _ = write!(
        line,
        "time={} level={level} msg={}",
        quote::go(time),
        value(message)
    );
    for (name, field) in rest {
        let _ = write!(line, " {name}={}", word(field));
    }
    line.push('\n');
    line
}

impl Shape {
    fn line(
        &self,
        level: &str,
        target: &str,
        message: &str,
        mut rest: Vec<(&'static str, Value)>,
    ) -> String {
        if target != FATAL {
            rest.push(("scope", target.into()));
        }
        if let Some(app_id) = &self.app_id {
            rest.push(("app_id", app_id.as_str().into()));
        }
        rest.push(("instance", self.instance.as_str().into()));
        rest.push(("type", "log".into()));
        rest.push(("ver", self.version.into()));
        rest.sort_by_key(|(name, _)| *name);
        if self.json {
            json(&self.now(), level, message, rest)
        } else if self.color {
            self.short(level, message, &rest)
        } else {
            text(&self.now(), level, message, &rest)
        }
    }

    fn now(&self) -> String {
        let layout = self.layout.as_ref();
        layout.map_or_else(timestamp::default, Layout::now)
    }

    /// The form for people: coloured level, seconds since start, padded message.
    fn short(&self, level: &str, message: &str, rest: &[(&'static str, Value)]) -> String {
        let color = match level {
            "debug" | "trace" => 37,
            "info" => 36,
            "warning" => 33,
            _ => 31,
        };
        let name = level.to_ascii_uppercase();
        let name = &name[..name.len().min(4)];
        let seconds = self.start.elapsed().as_secs();
        let mut line = format!("\x1b[{color}m{name}\x1b[0m[{seconds:04}] {message:<44}");
        for (name, field) in rest {
            let _ = write!(line, " \x1b[{color}m{name}\x1b[0m={}", word(field));
        }
        line.push('\n');
        line
    }
}

/// Names in alphabetical order; numbers stay numbers.
fn json(time: &str, level: &str, message: &str, rest: Vec<(&'static str, Value)>) -> String {
    let mut object: std::collections::BTreeMap<&str, Value> = rest.into_iter().collect();
    object.insert("level", level.into());
    object.insert("msg", message.into());
    object.insert("time", time.into());
    let mut line = serde_json::to_string(&object).unwrap_or_default();
    line.push('\n');
    line
}

/// `text` as it is, or quoted when it has characters that could end it early.
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
    rest: Vec<(&'static str, Value)>,
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        let text = format!("{value:?}");
        match field.name() {
            "message" => self.message = text,
            _ => self.put(field, text.into()),
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message" => value.clone_into(&mut self.message),
            _ => self.put(field, value.into()),
        }
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value.into());
    }

    fn record_u128(&mut self, field: &Field, value: u128) {
        let number = u64::try_from(value).map(Value::from);
        self.put(field, number.unwrap_or_else(|_| value.to_string().into()));
    }
}

impl Fields {
    fn put(&mut self, field: &Field, value: Value) {
        if !field.name().starts_with("log.") {
            self.rest.push((field.name(), value));
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
    fn a_text_line_has_level_message_and_fields() {
        let line = text(
            "12:00",
            "info",
            "ready now",
            &[
                ("app_id", "x".into()),
                ("code", 204.into()),
                ("ver", "1.18.4".into()),
            ],
        );
        assert_eq!(
            line,
            "time=\"12:00\" level=info msg=\"ready now\" app_id=x code=204 ver=1.18.4\n"
        );
    }

    #[test]
    fn a_json_line_keeps_the_types_of_fields() {
        let line = json(
            "12:00",
            "info",
            "m",
            vec![("code", 204.into()), ("ok", true.into())],
        );
        let (start, _) = line.split_once(r#","time":"#).unwrap();
        assert_eq!(start, r#"{"code":204,"level":"info","msg":"m","ok":true"#);
    }

    #[test]
    fn levels_are_read_in_any_case() {
        assert_eq!(parse_level("WARN").unwrap(), Some(Level::WARN));
        assert_eq!(parse_level("fatal").unwrap(), None);
        let message = parse_level("loud").unwrap_err().to_string();
        assert_eq!(message, "invalid value for --log-level: loud");
    }
}
