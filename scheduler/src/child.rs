//! The `etcd` program as a child of this process.

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use crate::flags::{Embedded, Flags};

/// The word by which this program starts etcd so that it ends with us.
pub const GUARD: &str = "--run-etcd";
/// For an etcd that was asked to end.
const GRACE: Duration = Duration::from_secs(4);
/// Of one request, in bytes: as much as etcd takes.
const LARGEST_REQUEST: &str = "2147483647";

/// What etcd says when the others know that it had more than it has.
const LOST: &str = "is out of range [lastIndex(";

/// Whether a line of etcd's log may tell why it ended. A stack trace does not.
fn says_why(line: &str) -> bool {
    let levels = ["error", "dpanic", "panic", "fatal"];
    let is_level = |level: &&str| line.contains(&format!(r#""level":"{level}""#));
    line.starts_with("panic: ") || levels.iter().any(is_level)
}

/// Becomes the program `arguments`, which ends when the process that started it
/// does.
pub fn become_guarded(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let mut arguments = arguments;
    if let Err(error) = rustix::process::set_parent_process_death_signal(Some(Signal::KILL)) {
        eprintln!("etcd would outlive the scheduler: {error}");
        return ExitCode::FAILURE;
    }
    let Some(program) = arguments.next() else {
        return ExitCode::FAILURE;
    };
    let error = std::process::Command::new(&program).args(arguments).exec();
    eprintln!("cannot run {}: {error}", program.display());
    ExitCode::FAILURE
}

/// Beside this program, on the path, or where packages put it.
fn program() -> Option<PathBuf> {
    let own = std::env::current_exe().ok();
    let beside = own.as_deref().and_then(Path::parent).map(Path::to_owned);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = beside.into_iter().chain(std::env::split_paths(&path));
    let mut all = folders.chain([PathBuf::from("/usr/bin")]);
    all.find_map(|folder| {
        let program = folder.join("etcd");
        program.is_file().then_some(program)
    })
}

/// A running etcd.
pub struct EtcdProcess(Child);

impl EtcdProcess {
    pub fn start(flags: &Flags, etcd: &Embedded, folder: &Path) -> anyhow::Result<Self> {
        let program = program().context("several schedulers need the program etcd, which is neither beside the scheduler nor on the path")?;
        let own = std::env::current_exe().context("the path of this program")?;
        let mut command = Command::new(own);
        command.arg(GUARD).arg(&program);
        command.args(arguments(flags, etcd, folder)?);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command.stderr(Stdio::piped()).kill_on_drop(true);
        // etcd takes flags from variables too, which are not meant for it.
        command.env_clear();
        tracing::info!(target: "dapr.scheduler.etcd", "Starting {} in {}", program.display(), folder.display());
        let child = command.spawn().context("etcd")?;
        Ok(Self(child))
    }

    /// Waits until it ends, and says why. Its log becomes ours.
    pub async fn ended(&mut self) -> String {
        let log = self.0.stderr.take();
        let reading = async {
            let Some(log) = log else {
                return std::future::pending().await;
            };
            let mut lines = BufReader::new(log).lines();
            let mut reason = String::new();
            while let Ok(Some(line)) = lines.next_line().await {
                tracing::debug!(target: "dapr.scheduler.etcd", "etcd: {line}");
                if says_why(&line) {
                    reason = line;
                }
            }
            reason
        };
        let (reason, ended) = tokio::join!(reading, self.0.wait());
        match ended {
            Ok(status) if reason.contains(LOST) => format!(
                "etcd ended with {status}: this member has lost its data, while the others go on; give it the disk back, or remove the member from the cluster and add it again: {reason}"
            ),
            Ok(status) => format!("etcd ended with {status}: {reason}"),
            Err(error) => format!("etcd: {error}"),
        }
    }

    /// Ends it.
    pub async fn stop(mut self) {
        let pid = self.0.id().and_then(|pid| i32::try_from(pid).ok());
        if let Some(pid) = pid.and_then(Pid::from_raw) {
            let _ = rustix::process::kill_process(pid, Signal::TERM);
        }
        let _ = tokio::time::timeout(GRACE, self.0.wait()).await;
    }
}

fn arguments(flags: &Flags, etcd: &Embedded, folder: &Path) -> anyhow::Result<Vec<OsString>> {
    let own = etcd.members.iter().find(|(id, _)| *id == flags.id);
    let Some((_, peer)) = own else {
        bail!("scheduler ID: {} is not found in initial cluster", flags.id);
    };
    let (host, port) = &etcd.client_address;
    let client = format!("http://{host}:{port}");
    let members = etcd.members.iter();
    let members: Vec<String> = members.map(|(id, at)| format!("{id}={at}")).collect();
    let mut all: Vec<OsString> = Vec::new();
    let mut add = |name: &str, value: &std::ffi::OsStr| {
        all.push(name.into());
        all.push(value.into());
    };
    add("--name", flags.id.as_ref());
    add("--data-dir", folder.as_os_str());
    add("--initial-cluster", members.join(",").as_ref());
    add("--initial-advertise-peer-urls", peer.as_ref());
    add("--listen-peer-urls", listened(peer)?.as_ref());
    add("--listen-client-urls", client.as_ref());
    add("--advertise-client-urls", client.as_ref());
    add("--quota-backend-bytes", etcd.quota.to_string().as_ref());
    add("--max-request-bytes", LARGEST_REQUEST.as_ref());
    for (name, value) in &etcd.tuning {
        add(name, value.as_ref());
    }
    if flags.tls {
        let file = |name: &str| flags.identity_directory.join(name);
        add("--peer-cert-file", file("cert.pem").as_os_str());
        add("--peer-key-file", file("key.pem").as_os_str());
        add("--peer-trusted-ca-file", file("ca.pem").as_os_str());
        all.push("--peer-client-cert-auth".into());
    }
    Ok(all)
}

/// Where to listen for a peer that is reached at `peer`: a name may be that of a
/// Service, and etcd listens on addresses.
fn listened(peer: &str) -> anyhow::Result<String> {
    let (scheme, rest) = peer
        .split_once("://")
        .context("--etcd-initial-cluster: make sure to include 'http://' or 'https://'")?;
    let (host, port) = rest.rsplit_once(':').context("a peer without a port")?;
    let is_address = host
        .trim_matches(['[', ']'])
        .parse::<std::net::IpAddr>()
        .is_ok();
    Ok(match is_address || host == "localhost" {
        true => peer.to_owned(),
        false => format!("{scheme}://0.0.0.0:{port}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_of_an_end_is_no_line_of_a_stack_trace() {
        let lines = [
            r#"{"level":"info","msg":"published local member"}"#,
            r#"{"level":"panic","msg":"tocommit(14) is out of range [lastIndex(0)]. Was the raft log corrupted?"}"#,
            "goroutine 171 [running]:",
            "\tgo.etcd.io/etcd/raft/node.go:228 +0x28a",
        ];
        let reasons: Vec<_> = lines.iter().filter(|line| says_why(line)).collect();
        assert_eq!(reasons, [&lines[1]]);
        assert!(lines[1].contains(LOST));
        assert!(says_why("panic: out of memory"));
        assert!(says_why(
            r#"{"level":"fatal","msg":"discovery failed","error":"x"}"#
        ));
    }
}
