//! What the machine must have: rights, kernel features, Debian packages. `xtask` compiles this file too, to look
//! before it builds.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Result, bail, ensure};

use crate::debian;

/// A program that a package brings, and the package.
const NEEDED: [(&str, &str); 5] = [
    ("containerd", "containerd"),
    ("runc", "runc"),
    ("iptables", "iptables"),
    ("conntrack", "conntrack"),
    ("ip", "iproute2"),
];

/// Where distributions put the network plugins.
const PLUGINS: [&str; 3] = ["/usr/lib/cni", "/opt/cni/bin", "/usr/libexec/cni"];

/// Where the node looks for programs: what a login has, and the folders of the administrator.
pub(crate) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The full path of a program of the node.
pub(crate) fn program(name: &str) -> Option<PathBuf> {
    let mut places = PATH.split(':').map(|folder| Path::new(folder).join(name));
    places.find(|place| place.is_file())
}

/// The folder of the network plugins.
pub(crate) fn plugins() -> Option<&'static str> {
    let has = |folder: &&str| Path::new(folder).join("ptp").is_file();
    PLUGINS.into_iter().find(has)
}

pub(crate) fn check() -> Result<()> {
    ensure!(
        debian::is_root(),
        "a cluster needs root; run this as root or with sudo"
    );
    let filesystems = std::fs::read_to_string("/proc/filesystems").unwrap_or_default();
    ensure!(
        filesystems.contains("\toverlay\n")
            || succeeds(Command::new("modprobe").arg("overlay")).is_ok(),
        "this kernel has no overlay file system, which images need; load the module or take another kernel"
    );
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    ensure!(
        status.contains("Seccomp:"),
        "this kernel has no seccomp filters (CONFIG_SECCOMP_FILTER): pods with the RuntimeDefault profile can't run"
    );
    let mut namespaces = Command::new("unshare");
    namespaces.args(["--mount", "--net", "--pid", "--fork", "true"]);
    if let Err(error) = succeeds(&mut namespaces) {
        bail!(
            "this machine doesn't let root make namespaces (in a container, run it privileged): {error}"
        );
    }
    let group = Path::new("/sys/fs/cgroup");
    ensure!(
        group.join("cgroup.controllers").exists() || group.join("memory").exists(),
        "no cgroups are mounted at /sys/fs/cgroup; mount them"
    );
    Ok(())
}

pub(crate) fn install(progress: impl Fn(&str)) -> Result<()> {
    let absent = NEEDED.iter().filter(|(name, _)| program(name).is_none());
    let mut missing: Vec<&str> = absent.map(|&(_, package)| package).collect();
    if plugins().is_none() {
        missing.push("containernetworking-plugins");
    }
    if missing.is_empty() {
        return Ok(());
    }
    progress(&format!("installing {}", missing.join(", ")));
    debian::install(&missing)
}

/// Whether a command ends well; else what it printed.
fn succeeds(command: &mut Command) -> Result<()> {
    let output = command.stdin(Stdio::null()).output()?;
    ensure!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}
