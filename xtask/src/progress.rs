//! A cargo build with one line that says how far it is: crates built of how
//! many, and about how long the rest takes.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, IsTerminal as _, Write as _};
use std::process::{Child, ChildStdout, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use crate::run;

/// Between two lines where the line before cannot be replaced. A little less
/// than the ten seconds at which builds of Go say how far they are.
const PACE: Duration = Duration::from_millis(9_500);

/// Crates that take much longer than others, in units of which most take one:
/// half a second of a processor, measured in a cold build of the demo. The last
/// crates wait for each other and leave processors idle, so they count double.
const SLOW: [(&str, u32); 23] = [
    ("outrider-sidecar", 90),
    ("outrider-operator", 8),
    ("outrider-sentry", 7),
    ("outrider-injector", 5),
    ("aws-lc-sys", 36),
    ("redis", 19),
    ("libsqlite3-sys", 16),
    ("k8s-openapi", 14),
    ("cel", 11),
    ("outrider-proto", 10),
    ("kube-client", 8),
    ("tokio", 7),
    ("rustls", 7),
    ("h2", 6),
    ("chrono-tz", 6),
    ("regex-automata", 5),
    ("syn", 5),
    ("combine", 5),
    ("outrider-components-pluggable", 5),
    ("outrider-components-redis", 5),
    ("prost-reflect", 5),
    ("axum", 4),
    ("rustix", 4),
];

/// Builds the programs of `packages`. `beside` says what else goes on, or
/// nothing.
pub fn build(profile: &str, packages: &[&str], beside: impl Fn() -> String) -> Result<()> {
    let mut selected = Vec::new();
    for name in packages {
        selected.extend(["-p", name]);
    }
    let mut count = Count::new(&crates(&selected)?);
    let mut cargo = run::cargo();
    cargo
        .args(["build", "--quiet", "--bins", "--profile", profile])
        .args(&selected)
        .args(["--message-format", "json-render-diagnostics"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    let mut child = cargo.spawn().context("cannot start cargo")?;
    let built = follow(&mut child, &mut count, beside);
    if built.is_err() {
        // It would go on without anybody to look at it.
        let _ = child.kill();
    }
    let status = child.wait()?;
    built?;
    ensure!(status.success(), "{cargo:?} failed: {status}");
    Ok(())
}

/// Reads what cargo reports until it ends, and shows how far it is.
fn follow(child: &mut Child, count: &mut Count, beside: impl Fn() -> String) -> Result<()> {
    let output = child.stdout.take().context("no output of cargo")?;
    let messages = messages(output);
    let mut line = Line::new();
    loop {
        match messages.recv_timeout(Duration::from_secs(1)) {
            Ok(message) => count.add(&message),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
        line.show(&format!("{count}{}", beside()))?;
    }
    line.show(&count.to_string())?;
    line.end()
}

/// The messages of cargo, as they come.
fn messages(output: ChildStdout) -> Receiver<Value> {
    let (sender, receiver) = channel();
    // Ends with the output.
    std::thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            let Ok(message) = serde_json::from_str(&line) else {
                continue;
            };
            if sender.send(message).is_err() {
                break;
            }
        }
    });
    receiver
}

/// Names and versions of all crates that the selected packages are made of.
fn crates(selected: &[&str]) -> Result<Vec<(String, String)>> {
    let mut tree = run::cargo();
    tree.arg("tree")
        .args(selected)
        .args(["--edges", "normal,build", "--target", run::TRIPLE])
        .args(["--prefix", "none", "--format", "{p}"]);
    let text = String::from_utf8(run::output(&mut tree)?)?;
    let mut crates: Vec<_> = text.lines().filter_map(tree_line).collect();
    crates.sort_unstable();
    crates.dedup();
    if crates.is_empty() {
        bail!("{tree:?} lists no crates");
    }
    Ok(crates)
}

/// `serde v1.0.1 (proc-macro)`.
fn tree_line(line: &str) -> Option<(String, String)> {
    let mut words = line.split_whitespace();
    let (name, version) = (words.next()?, words.next()?.strip_prefix('v')?);
    Some((name.to_owned(), version.to_owned()))
}

/// The name and version in a package id of cargo, such as
/// `registry+https://…#serde@1.0.1` or `path+file:///…/kit#0.1.0`:
/// <https://doc.rust-lang.org/cargo/reference/pkgid-spec.html>.
fn package(id: &str) -> Option<(String, String)> {
    let (url, fragment) = id.rsplit_once('#')?;
    let (name, version) = match fragment.split_once('@') {
        Some(both) => both,
        None => (url.rsplit('/').next()?, fragment),
    };
    Some((name.to_owned(), version.to_owned()))
}

/// What is built and what is not, in crates and in the units of `SLOW`.
struct Count {
    /// Cost of each crate that is still to be built.
    waiting: HashMap<(String, String), u32>,
    total: usize,
    /// Of crates that this build has compiled; those built before took none.
    done: u32,
    left: u32,
    start: Instant,
}

impl Count {
    fn new(crates: &[(String, String)]) -> Count {
        let cost = |name: &str| {
            let slow = SLOW.iter().find(|(slow, _)| *slow == name);
            slow.map_or(1, |(_, cost)| *cost)
        };
        let waiting: HashMap<_, _> = crates
            .iter()
            .map(|crate_| (crate_.clone(), cost(&crate_.0)))
            .collect();
        Count {
            total: waiting.len(),
            done: 0,
            left: waiting.values().sum(),
            waiting,
            start: Instant::now(),
        }
    }

    fn add(&mut self, message: &Value) {
        let is_script = message["target"]["kind"][0] == "custom-build";
        if message["reason"] != "compiler-artifact" || is_script {
            return;
        }
        let id = message["package_id"].as_str().and_then(package);
        // A crate with several targets is reported for each of them.
        let Some(cost) = id.and_then(|id| self.waiting.remove(&id)) else {
            return;
        };
        self.left = self.left.saturating_sub(cost);
        if message["fresh"] != true {
            self.done += cost;
        }
    }

    /// None while too little is built to judge by.
    fn remaining(&self, elapsed: Duration) -> Option<Duration> {
        let enough = self.done > 0 && self.done * 20 >= self.done + self.left;
        enough.then(|| elapsed * self.left / self.done)
    }
}

impl std::fmt::Display for Count {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let built = self.total - self.waiting.len();
        write!(f, "building: {built} of {} crates", self.total)?;
        let elapsed = self.start.elapsed();
        match self.remaining(elapsed) {
            _ if self.left == 0 => write!(f, ", linking"),
            None => Ok(()),
            Some(rest) if rest < Duration::from_secs(60) => write!(f, ", under a minute left"),
            Some(rest) => write!(f, ", about {} min left", rest.as_secs().div_ceil(60)),
        }
    }
}

/// One line on standard error: replaced in a terminal, else written anew now
/// and then.
pub struct Line {
    replaces: bool,
    shown: Option<Instant>,
}

impl Line {
    pub fn new() -> Line {
        Line {
            replaces: std::io::stderr().is_terminal(),
            shown: None,
        }
    }

    pub fn show(&mut self, text: &str) -> Result<()> {
        let pace = if self.replaces {
            Duration::from_millis(200)
        } else {
            PACE
        };
        if self.shown.is_some_and(|shown| shown.elapsed() < pace) {
            return Ok(());
        }
        self.shown = Some(Instant::now());
        let mut error = std::io::stderr().lock();
        if self.replaces {
            // To the line's start, and clear it.
            write!(error, "\r\x1b[K{text}")?;
        } else {
            writeln!(error, "{text}")?;
        }
        Ok(error.flush()?)
    }

    /// What is printed next is below it.
    pub fn end(&mut self) -> Result<()> {
        if self.replaces && self.shown.take().is_some() {
            writeln!(std::io::stderr())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn built(id: &str, kind: &str, fresh: bool) -> Value {
        json!({
            "reason": "compiler-artifact",
            "package_id": id,
            "target": {"kind": [kind]},
            "fresh": fresh,
        })
    }

    #[test]
    fn crates_are_recognised_in_both_lists() {
        let both = |name: &str, version: &str| Some((name.to_owned(), version.to_owned()));
        assert_eq!(
            tree_line("serde v1.0.1 (proc-macro)"),
            both("serde", "1.0.1")
        );
        assert_eq!(
            package("registry+https://example.org/index#serde@1.0.1"),
            both("serde", "1.0.1")
        );
        assert_eq!(
            package("path+file:///a/xtask#0.1.0"),
            both("xtask", "0.1.0")
        );
    }

    #[test]
    fn each_crate_counts_once_and_its_build_script_not() {
        let crates = ["a", "b", "c"].map(|name| (name.to_owned(), "1.0.0".to_owned()));
        let mut count = Count::new(&crates);
        count.add(&built("r#a@1.0.0", "custom-build", false));
        assert_eq!(count.waiting.len(), 3);
        count.add(&built("r#a@1.0.0", "lib", false));
        count.add(&built("r#a@1.0.0", "bin", false));
        count.add(&built("r#unknown@1.0.0", "lib", false));
        assert_eq!((count.waiting.len(), count.done, count.left), (2, 1, 2));
        assert_eq!(
            count.remaining(Duration::from_secs(60)),
            Some(Duration::from_secs(120))
        );
    }

    #[test]
    fn crates_built_before_say_nothing_about_the_time_left() {
        let crates = ["a", "b"].map(|name| (name.to_owned(), "1.0.0".to_owned()));
        let mut count = Count::new(&crates);
        count.add(&built("r#a@1.0.0", "lib", true));
        assert_eq!((count.waiting.len(), count.done), (1, 0));
        assert_eq!(count.remaining(Duration::from_secs(60)), None);
        assert_eq!(count.to_string(), "building: 1 of 2 crates");
    }
}
