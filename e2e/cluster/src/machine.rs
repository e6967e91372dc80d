//! What the machine must have: rights, kernel features, Debian packages.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

use anyhow::{Result, bail, ensure};

use crate::run::Run as _;

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
        rustix::process::geteuid().is_root(),
        "a cluster needs root; run this as root or with sudo"
    );
    let filesystems = std::fs::read_to_string("/proc/filesystems").unwrap_or_default();
    ensure!(
        filesystems.contains("\toverlay\n")
            || Command::new("modprobe").arg("overlay").run().is_ok(),
        "this kernel has no overlay file system, which images need; load the module or take another kernel"
    );
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    ensure!(
        status.contains("Seccomp:"),
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
    debian(&missing)
}

/// Installs Debian packages.
pub fn debian(packages: &[&str]) -> Result<()> {
    // apt-get refuses to run beside itself.
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
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
    // A container engine of another origin would make room for Debian's parts: that is for its owner to decide.
    let mut arguments = vec![
        "install",
        "-y",
        "-q",
        "--no-install-recommends",
        "--no-remove",
    ];
    arguments.extend(packages);
    if let Err(error) = apt(&arguments) {
        bail!("{error}; {wish}");
    }
    Ok(())
}
