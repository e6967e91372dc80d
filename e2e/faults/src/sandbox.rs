//! Namespaces of our own for network, mounts and processes, where this process may make
//! them: what is done to the network is done to nobody else, and when the first process
//! in there ends, however it does, everything that it started ends too.

use std::os::unix::process::CommandExt as _;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

/// The first word of the command line inside.
pub const INSIDE: &str = "inside";

/// The address of this process for pods, and the network they are in.
pub const GATEWAY: &str = "10.213.0.1";
const NETWORK: &str = "10.213.0.1/16";
pub const BRIDGE: &str = "outrider0";

/// Whether this process may make namespaces.
pub fn is_possible() -> bool {
    let words = ["--net", "--mount", "--pid", "--fork", "true"];
    let tried = Command::new("unshare").args(words).output();
    tried.is_ok_and(|output| output.status.success())
}

/// Whether this process is inside.
pub fn is_inside() -> bool {
    std::env::args().nth(1).is_some_and(|word| word == INSIDE)
}

/// Runs this program again inside. Returns only where that fails.
pub fn enter(words: &[String]) -> Result<()> {
    let program = std::env::current_exe()?;
    let error = Command::new("unshare")
        .args(["--net", "--mount", "--pid", "--fork"])
        .args(["--kill-child", "--mount-proc", "--"])
        .arg(program)
        .arg(INSIDE)
        .args(words)
        .exec();
    Err(error).context("cannot start unshare")
}

/// What pods need: a bridge that this process has an address on.
pub fn prepare() -> Result<()> {
    std::fs::create_dir_all("/run/netns")?;
    run("mount -t tmpfs none /run/netns")?;
    run("ip link set lo up")?;
    run(&format!("ip link add {BRIDGE} type bridge"))?;
    run(&format!("ip addr add {NETWORK} dev {BRIDGE}"))?;
    run(&format!("ip link set {BRIDGE} up"))
}

/// Runs a command whose words have no spaces in them.
pub fn run(line: &str) -> Result<()> {
    let mut words = line.split(' ');
    let program = words.next().unwrap_or_default();
    let output = Command::new(program)
        .args(words)
        .output()
        .with_context(|| format!("cannot start {program}"))?;
    ensure!(
        output.status.success(),
        "{line}: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}
