use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use http::StatusCode;
use rustix::process::{Pid, kill_process};

use crate::http::Client;
use crate::wait;

pub use rustix::process::Signal;

/// How long a process may take to end by itself when a test is over. It may wait
/// for connections of the test, which are not served any more.
const END_TIMEOUT: Duration = Duration::from_secs(2);

/// The path of one of our binaries.
pub fn binary(name: &str) -> Result<PathBuf> {
    let folder = match std::env::var_os("OUTRIDER_BIN_DIR") {
        Some(folder) => PathBuf::from(folder),
        // The test is in `deps`, right below where cargo puts binaries.
        None => std::env::current_exe()?
            .ancestors()
            .nth(2)
            .context("the test has no folder")?
            .to_owned(),
    };
    let path = folder.join(name);
    if !path.is_file() {
        bail!(
            "{} is not there: build it with cargo, or set OUTRIDER_BIN_DIR",
            path.display()
        );
    }
    Ok(path)
}

/// A running program whose output is kept. Dropping it ends it and prints
/// the output.
#[derive(Debug)]
pub struct Process {
    name: String,
    pid: Pid,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    lines: Mutex<Vec<String>>,
    end: Mutex<Option<ExitStatus>>,
    ended: Condvar,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    fn read(self: Arc<Self>, output: impl Read + Send + 'static) -> std::thread::JoinHandle<()> {
        std::thread::spawn(move || {
            let mut output = BufReader::new(output);
            let mut line = Vec::new();
            while output
                .read_until(b'\n', &mut line)
                .is_ok_and(|read| read > 0)
            {
                let text = String::from_utf8_lossy(&line).trim_end().to_owned();
                lock(&self.lines).push(text);
                line.clear();
            }
        })
    }

    fn watch(self: Arc<Self>, mut child: Child, readers: Vec<std::thread::JoinHandle<()>>) {
        std::thread::spawn(move || {
            let status = child.wait();
            // All output is there when the end is known.
            for reader in readers {
                let _ = reader.join();
            }
            if let Ok(status) = status {
                *lock(&self.end) = Some(status);
            }
            self.ended.notify_all();
        });
    }
}

impl Process {
    /// Starts a program. Its environment is that of this process, without the
    /// variables of Dapr.
    pub fn start(name: &str, command: &mut Command) -> Result<Process> {
        for (variable, _) in std::env::vars_os() {
            let text = variable.to_string_lossy();
            let ours = ["DAPR_", "APP_", "NAMESPACE", "OTEL_"];
            let set = command.get_envs().any(|(name, _)| name == variable);
            if !set && ours.iter().any(|start| text.starts_with(start)) {
                command.env_remove(&variable);
            }
        }
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {name}: {command:?}"))?;
        let pid = Pid::from_child(&child);
        let shared = Arc::new(Shared::default());
        let mut readers = Vec::new();
        if let Some(output) = child.stdout.take() {
            readers.push(Arc::clone(&shared).read(output));
        }
        if let Some(output) = child.stderr.take() {
            readers.push(Arc::clone(&shared).read(output));
        }
        Arc::clone(&shared).watch(child, readers);
        Ok(Process {
            name: name.to_owned(),
            pid,
            shared,
        })
    }

    pub fn id(&self) -> u32 {
        self.pid.as_raw_nonzero().get() as u32
    }

    /// What it has printed so far, of both streams.
    pub fn lines(&self) -> Vec<String> {
        lock(&self.shared.lines).clone()
    }

    /// The first line with `text` in it, now or soon.
    pub async fn line(&self, text: &str) -> Result<String> {
        let find = || async {
            let found = lock(&self.shared.lines)
                .iter()
                .find(|line| line.contains(text))
                .cloned();
            match found {
                None if self.status().is_some() => Some(None),
                found => found.map(Some),
            }
        };
        let found = wait::until(&format!("{} printed '{text}'", self.name), find).await?;
        found.with_context(|| format!("{} ended and never printed '{text}'", self.name))
    }

    /// Bytes of memory that it has in use.
    pub fn memory(&self) -> Result<u64> {
        self.figure("VmRSS:")
    }

    /// The same without pages of files, such as its own code.
    pub fn anonymous_memory(&self) -> Result<u64> {
        self.figure("RssAnon:")
    }

    fn figure(&self, name: &str) -> Result<u64> {
        let path = format!("/proc/{}/status", self.id());
        let text = std::fs::read_to_string(&path).with_context(|| path.clone())?;
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        let number = line.and_then(|line| line.trim().strip_suffix("kB"));
        let kilobytes: u64 = number.context("no figure of memory")?.trim().parse()?;
        Ok(kilobytes * 1024)
    }

    pub fn status(&self) -> Option<ExitStatus> {
        *lock(&self.shared.end)
    }

    pub fn signal(&self, signal: Signal) -> Result<()> {
        let end = lock(&self.shared.end);
        if end.is_some() {
            bail!("{} has ended: {end:?}", self.name);
        }
        kill_process(self.pid, signal)?;
        Ok(())
    }

    /// Waits for its end.
    pub async fn end(&self) -> Result<ExitStatus> {
        let what = format!("{} ended", self.name);
        wait::until(&what, || async { self.status() }).await
    }

    /// Asks it to end and returns its exit code.
    pub async fn stop(&self) -> Result<Option<i32>> {
        self.signal(Signal::INT)?;
        Ok(self.end().await?.code())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        for signal in [Signal::INT, Signal::KILL] {
            let end = lock(&self.shared.end);
            if end.is_some() {
                break;
            }
            let _ = kill_process(self.pid, signal);
            let ended = self
                .shared
                .ended
                .wait_timeout_while(end, END_TIMEOUT, |end| end.is_none());
            drop(ended);
        }
        // Tests show what they print only when they fail.
        let lines = lock(&self.shared.lines);
        if !lines.is_empty() {
            println!("---- output of {} ----", self.name);
        }
        for line in lines.iter() {
            println!("{line}");
        }
    }
}

/// Waits until the health page of a service of the control plane answers 200.
pub(crate) async fn healthy(name: &str, process: &Process, port: u16) -> Result<()> {
    let client = Client::new(port);
    let ready = || async {
        match process.status() {
            Some(status) => Some(Err(status)),
            None => client
                .answers("/healthz", StatusCode::OK)
                .await
                .then_some(Ok(())),
        }
    };
    match wait::until(&format!("{name} is ready"), ready).await? {
        Ok(()) => Ok(()),
        Err(status) => bail!("{name} ended instead of being ready: {status}"),
    }
}
