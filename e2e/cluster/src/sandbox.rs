//! The node's namespaces: everything in a cluster is in them, so that ending process 1 ends it all, mounts,
//! network and firewall rules included. Process 1 ends when its owner does, however that happens.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};

use crate::layout::Layout;
use crate::machine;

const SCRIPT: &str = include_str!("sandbox.sh");

/// What `flock` ends with when another node holds the lock.
const HELD: i32 = 9;

/// Lines of a daemon's log that its failure shows.
const SHOWN: usize = 15;

/// A process that can't be confused with a later one of the same number.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Process {
    pub id: u32,
    /// Clock ticks from the machine's start to the process's.
    started: u64,
}

impl Process {
    pub fn find(id: u32) -> Option<Self> {
        let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
        // The second field is the name in parentheses and may hold anything; the start is field 22.
        let started = stat.rsplit_once(") ")?.1.split(' ').nth(19)?.parse().ok()?;
        Some(Self { id, started })
    }

    pub fn lives(self) -> bool {
        Self::find(self.id) == Some(self)
    }

    pub fn kill(self) -> Result<()> {
        if self.lives() {
            let id = Pid::from_raw(i32::try_from(self.id)?).context("process 0")?;
            kill_process(id, Signal::KILL)?;
        }
        Ok(())
    }
}

pub(crate) struct Sandbox {
    /// Owns the other end of the pipe that keeps the node alive.
    supervisor: Child,
    pub init: Process,
    daemons: Vec<Daemon>,
    logs: PathBuf,
}

struct Daemon {
    name: &'static str,
    child: Child,
}

impl Sandbox {
    /// Cleans the folder and starts in it; `None` when another owner's node holds it.
    pub fn start(layout: &Layout, pause: &Path) -> Result<Option<Self>> {
        std::fs::create_dir_all(&layout.cache)?;
        let mut supervisor = script(layout)
            .arg(pause)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("can't start flock; install util-linux")?;
        let mut hello = String::new();
        if let Some(stdout) = supervisor.stdout.take() {
            BufReader::new(stdout).read_line(&mut hello)?;
        }
        if let Some(init) = hello.trim().parse().ok().and_then(Process::find) {
            let logs = layout.at("log");
            return Ok(Some(Self {
                supervisor,
                init,
                daemons: Vec::new(),
                logs,
            }));
        }
        drop(supervisor.stdin.take());
        let status = supervisor.wait()?;
        if status.code() == Some(HELD) {
            return Ok(None);
        }
        let mut errors = String::new();
        if let Some(mut stderr) = supervisor.stderr.take() {
            stderr.read_to_string(&mut errors)?;
        }
        bail!("can't start a node: {}", errors.trim())
    }

    /// Removes what a dead node left; false when it lives.
    pub fn clean(layout: &Layout) -> Result<bool> {
        std::fs::create_dir_all(&layout.cache)?;
        let output = script(layout).stdin(Stdio::null()).output()?;
        if output.status.code() == Some(HELD) {
            return Ok(false);
        }
        ensure!(
            output.status.success(),
            "can't remove what a cluster left: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
        Ok(true)
    }

    /// A program inside the node, with none of this process's environment.
    pub fn command(&self, program: &Path) -> Command {
        let mut command = Command::new("nsenter");
        command
            .args([
                "--target",
                &self.init.id.to_string(),
                "--mount",
                "--net",
                "--pid",
                "--",
            ])
            .arg(program)
            .env_clear()
            .env("PATH", machine::PATH)
            .stdin(Stdio::null());
        command
    }

    /// Starts a program that must run as long as the node does.
    pub fn daemon(&mut self, name: &'static str, mut command: Command) -> Result<()> {
        let log = File::create(self.logs.join(format!("{name}.log")))?;
        let child = command
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("can't start {name}"))?;
        self.daemons.push(Daemon { name, child });
        Ok(())
    }

    /// An error when process 1 or a daemon has ended.
    pub fn check(&mut self) -> Result<()> {
        ensure!(self.init.lives(), "the cluster was ended");
        for daemon in &mut self.daemons {
            if let Some(status) = daemon.child.try_wait()? {
                let log = std::fs::read_to_string(self.logs.join(format!("{}.log", daemon.name)))
                    .unwrap_or_default();
                let lines: Vec<&str> = log.lines().collect();
                let last = lines[lines.len().saturating_sub(SHOWN)..].join("\n");
                bail!("{} ended ({status}); its last lines:\n{last}", daemon.name);
            }
        }
        Ok(())
    }
}

impl Drop for Sandbox {
    /// Ends the node and waits until nothing of it is left.
    fn drop(&mut self) {
        drop(self.supervisor.stdin.take());
        let _ = self.supervisor.wait();
        for daemon in &mut self.daemons {
            let _ = daemon.child.wait();
        }
    }
}

fn script(layout: &Layout) -> Command {
    use std::os::unix::process::CommandExt as _;
    let mut command = Command::new("flock");
    command
        .args(["--nonblock", "--conflict-exit-code", &HELD.to_string()])
        .arg(layout.lock())
        .args(["sh", "-c", SCRIPT, "node"])
        .arg(&layout.work)
        .arg(&layout.identity)
        // A Ctrl-C at the terminal is for the owner; this one cleans up after it.
        .process_group(0);
    command
}
