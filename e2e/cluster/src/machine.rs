//! What the machine must have: rights, kernel features, Debian packages.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Result, bail, ensure};

use crate::run::Run as _;

/// A file that a package brings, and the package.
const NEEDED: [(&str, &str); 6] = [
    ("/usr/bin/containerd", "containerd"),
    ("/usr/sbin/runc", "runc"),
    ("/usr/lib/cni/ptp", "containernetworking-plugins"),
    ("/usr/sbin/iptables", "iptables"),
    ("/usr/sbin/conntrack", "conntrack"),
    ("/sbin/ip", "iproute2"),
];

pub(crate) fn check() -> Result<()> {
    ensure!(
        rustix::process::geteuid().is_root(),
        "a cluster needs root; run this as root or with sudo"
    );
    let filesystems = std::fs::read_to_string("/proc/filesystems").unwrap_or_default();
    for (name, why) in [("overlay", "images"), ("cgroup", "limits of pods")] {
        ensure!(
            filesystems.split_whitespace().any(|word| word == name) || load(name),
            "this kernel has no `{name}`, which {why} need; load the module or take another kernel"
        );
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    ensure!(
        status.contains("Seccomp_filters:"),
        "this kernel has no seccomp filters (CONFIG_SECCOMP_FILTER): pods with the RuntimeDefault profile can't run"
    );
    let namespaces = Command::new("unshare")
        .args(["--mount", "--net", "--pid", "--fork", "true"])
        .run();
    if let Err(error) = namespaces {
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

fn load(module: &str) -> bool {
    Command::new("modprobe").arg(module).run().is_ok()
}

pub(crate) fn install(progress: impl Fn(&str)) -> Result<()> {
    let missing: Vec<&str> = NEEDED
        .iter()
        .filter(|(file, _)| !Path::new(file).exists())
        .map(|&(_, package)| package)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    progress(&format!("installing {}", missing.join(", ")));
    debian(&missing)
}

/// Installs Debian packages.
pub fn debian(packages: &[&str]) -> Result<()> {
    let apt = |arguments: &[&str]| {
        Command::new("apt-get")
            .args(arguments)
            .env("DEBIAN_FRONTEND", "noninteractive")
            .stdin(Stdio::null())
            .run()
    };
    let wish = format!("install these packages by hand: {}", packages.join(" "));
    if let Err(error) = apt(&["update", "-q"]) {
        bail!("{error}; {wish}");
    }
    let mut arguments = vec!["install", "-y", "-q", "--no-install-recommends"];
    arguments.extend(packages);
    if let Err(error) = apt(&arguments) {
        bail!("{error}; {wish}");
    }
    Ok(())
}
