//! A program that is killed, frozen and started again. Dropping it kills it.

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, Result};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};

use crate::pod::Pod;

/// Characters of a log line.
const SHOWN: usize = 160;

/// How it is started, each time in the same way.
#[derive(Debug)]
pub struct Launch {
    pub program: PathBuf,
    pub arguments: Vec<String>,
    pub environment: Vec<(String, String)>,
    /// The words before the command.
    within: Vec<String>,
}

impl Launch {
    pub fn new(program: impl Into<PathBuf>, pod: &Pod) -> Launch {
        Launch {
            program: program.into(),
            arguments: Vec::new(),
            environment: Vec::new(),
            within: pod.enter(),
        }
    }

    #[must_use]
    pub fn with(mut self, arguments: impl IntoIterator<Item = String>) -> Launch {
        self.arguments.extend(arguments);
        self
    }

    #[must_use]
    pub fn env(mut self, name: &str, value: impl ToString) -> Launch {
        self.environment.push((name.to_owned(), value.to_string()));
        self
    }

    fn command(&self, name: &str, log: &File, starts: usize) -> Result<Command> {
        let mut words = self.within.iter().map(PathBuf::from).collect::<Vec<_>>();
        words.push(self.program.clone());
        let mut command = Command::new(words.remove(0));
        command
            .args(words)
            .args(&self.arguments)
            .env_clear()
            .env(
                "PATH",
                "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            )
            .envs(self.environment.iter().cloned())
            // Another one after each start, as a new container has.
            .env("HOSTNAME", format!("{name}-{starts}"))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log.try_clone()?)
            .kill_on_drop(true);
        Ok(command)
    }
}

#[derive(Debug)]
pub struct Program {
    name: String,
    launch: Launch,
    log: PathBuf,
    child: Child,
    starts: usize,
}

impl Program {
    /// What it prints is in a file in `folder`.
    pub fn start(name: &str, launch: Launch, folder: &Path) -> Result<Program> {
        let log = folder.join(format!("{name}.log"));
        let child = spawn(name, &launch, &log, 1)?;
        Ok(Program {
            name: name.to_owned(),
            launch,
            log,
            child,
            starts: 1,
        })
    }

    /// Whether it has ended, by itself or killed.
    pub fn has_ended(&self) -> bool {
        let Some(id) = self.child.id() else {
            return true;
        };
        let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
        // One that nobody has waited for yet.
        stat.rsplit_once(") ")
            .is_none_or(|(_, rest)| rest.starts_with('Z'))
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The end of its log: the error that it ended with, if it did.
    pub fn last_words(&self) -> String {
        let log = self.log();
        let line = log.lines().last().unwrap_or("it said nothing");
        let from = line.char_indices().rev().nth(SHOWN).map_or(0, |(at, _)| at);
        line[from..].to_owned()
    }

    pub async fn kill(&mut self) -> Result<()> {
        let killed = self.child.kill().await;
        killed.with_context(|| format!("cannot kill {}", self.name))
    }

    pub fn freeze(&self) -> Result<()> {
        self.signal(Signal::STOP)
    }

    pub fn thaw(&self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let id = self.child.id().and_then(|id| i32::try_from(id).ok());
        let id = id.and_then(Pid::from_raw);
        let id = id.with_context(|| format!("{} has ended", self.name))?;
        kill_process(id, signal).with_context(|| self.name.clone())
    }

    /// Starts it again after it was killed.
    pub fn restart(&mut self) -> Result<()> {
        self.starts += 1;
        self.child = spawn(&self.name, &self.launch, &self.log, self.starts)?;
        Ok(())
    }
}

fn spawn(name: &str, launch: &Launch, log: &Path, starts: usize) -> Result<Child> {
    let file = OpenOptions::new().create(true).append(true).open(log)?;
    let spawned = launch.command(name, &file, starts)?.spawn();
    spawned.with_context(|| format!("cannot start {name}: {}", launch.program.display()))
}
