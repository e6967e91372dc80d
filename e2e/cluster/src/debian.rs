//! Debian packages, by the programs that they bring. `xtask` compiles this file too.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context as _, Result, bail};

/// Stands in for programs that a package would start by itself, and refuses.
const POLICY: &str = "/usr/sbin/policy-rc.d";

/// Whether a program is on the path, in a folder of the administrator, or the file that it names.
pub fn is_there(program: &str) -> bool {
    if program.starts_with('/') {
        return Path::new(program).exists();
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .any(|folder| folder.join(program).exists())
}

/// Whether this process may install packages and make namespaces.
pub fn is_root() -> bool {
    // Real, effective, saved and file system id.
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ids = status.lines().find_map(|line| line.strip_prefix("Uid:"));
    ids.and_then(|ids| ids.split_whitespace().nth(1)) == Some("0")
}

/// Installs packages; none of them starts a server.
pub fn install(packages: &[&str]) -> Result<()> {
    // apt-get refuses to run beside itself.
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let by_hand = format!("apt-get install {}", packages.join(" "));
    if !is_root() || !is_there("apt-get") {
        bail!("these Debian packages are missing: as root, {by_hand}");
    }
    // A server that a package starts by itself would take the ports of tests.
    let policy = Path::new(POLICY);
    let ours = !policy.exists() && std::fs::write(policy, "#!/bin/sh\nexit 101\n").is_ok();
    let installed = install_now(policy, packages);
    if ours {
        let _ = std::fs::remove_file(policy);
    }
    installed.with_context(|| format!("install these packages by hand: {by_hand}"))
}

fn install_now(policy: &Path, packages: &[&str]) -> Result<()> {
    run(Command::new("chmod").arg("+x").arg(policy))?;
    let apt = |arguments: &[&str]| {
        let mut command = Command::new("apt-get");
        command
            .args(arguments)
            .env("DEBIAN_FRONTEND", "noninteractive");
        command
    };
    run(&mut apt(&["update", "-q"]))?;
    // A container engine of another origin would make room for Debian's parts: that is for its owner to decide.
    let options = [
        "install",
        "-y",
        "-q",
        "--no-install-recommends",
        "--no-remove",
    ];
    run(apt(&options).args(packages))
}

/// Runs a command to its end; its output is shown only when it fails.
fn run(command: &mut Command) -> Result<()> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start {}", command.get_program().display()))?;
    if !output.status.success() {
        bail!(
            "{command:?} failed ({}): {}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(())
}
