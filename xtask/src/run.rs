//! Starting other programs.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

/// The top of the repository.
pub fn root() -> PathBuf {
    // Of the clone that runs now: a shared target folder may hold an xtask that
    // another clone built.
    let here =
        std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    let here = Path::new(&here);
    here.parent().unwrap_or(here).to_owned()
}

pub fn is_ci() -> bool {
    std::env::var("CI").is_ok_and(|v| v == "true")
}

/// Cargo, in the top folder. In CI everything is built into the user's cache
/// folder, so that a fresh clone finds what an earlier run left.
pub fn cargo() -> Command {
    let mut command = Command::new(std::env::var("CARGO").unwrap_or_else(|_| "cargo".into()));
    command.current_dir(root());
    if is_ci() && std::env::var_os("CARGO_TARGET_DIR").is_none() {
        if let Some(cache) = cache() {
            command.env("CARGO_TARGET_DIR", cache.join("target"));
        }
        command.env("CARGO_INCREMENTAL", "0");
    }
    command
}

/// The folder that outlives clones.
pub fn cache() -> Option<PathBuf> {
    let base = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache")))?;
    Some(base.join("outrider"))
}

/// Runs a command to its end; anything but success is an error.
pub fn run(command: &mut Command) -> Result<()> {
    let shown = show(command);
    let status = command
        .status()
        .with_context(|| format!("cannot start {shown}"))?;
    if !status.success() {
        bail!("{shown} failed: {status}");
    }
    Ok(())
}

/// The same, returning what it printed.
pub fn output(command: &mut Command) -> Result<Vec<u8>> {
    let shown = show(command);
    let output = command
        .output()
        .with_context(|| format!("cannot start {shown}"))?;
    if !output.status.success() {
        bail!(
            "{shown} failed: {}\n{}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(output.stdout)
}

fn show(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words
        .map(|w| w.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ")
}

/// The target that is built for. Named explicitly, as `.cargo/config.toml` does,
/// so that our flags do not apply to build scripts and procedural macros.
pub const TRIPLE: &str = "x86_64-unknown-linux-gnu";

/// Where cargo builds.
pub fn target() -> Result<PathBuf> {
    let metadata = metadata(false)?;
    let folder = metadata["target_directory"].as_str();
    Ok(folder
        .context("cargo metadata names no target folder")?
        .into())
}

/// `cargo metadata` of the workspace.
pub fn metadata(dependencies: bool) -> Result<serde_json::Value> {
    let mut command = cargo();
    command.args(["metadata", "--format-version", "1"]);
    if !dependencies {
        command.arg("--no-deps");
    }
    Ok(serde_json::from_slice(&output(&mut command)?)?)
}
