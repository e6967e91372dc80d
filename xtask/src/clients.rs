//! The published SDKs as clients of the daprd that was built. Each suite has a
//! manifest and a lock of its own, and none of ours.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::run;

/// Go and Rust; with `all`, every language that has a suite.
pub fn test(profile: &[&str], all: bool) -> Result<()> {
    let (daprd, target) = build(profile)?;
    let suite = |language: &str, program: &str| {
        let mut command = Command::new(program);
        command
            .current_dir(folder(language))
            .env("OUTRIDER_DAPRD", &daprd);
        command
    };
    run::run(suite("go", "go").args(["test", "-count=1", "-mod=readonly", "./..."]))?;
    run::run(
        run::cargo()
            .current_dir(folder("rust"))
            .env("OUTRIDER_DAPRD", &daprd)
            .env("CARGO_TARGET_DIR", target.join("sdk"))
            .args(["test", "--locked"]),
    )?;
    if !all {
        return Ok(());
    }
    let python = environment(&target)?;
    let tests = ["-m", "unittest", "discover", "--start-directory", "."];
    run::run(suite("python", &python.to_string_lossy()).args(tests))?;
    run::run(suite("javascript", "npm").args(["ci", "--ignore-scripts", "--no-fund"]))?;
    run::run(suite("javascript", "npm").arg("test"))?;
    run::run(suite("java", "mvn").args(["--batch-mode", "--quiet", "test"]))
}

pub fn folder(language: &str) -> PathBuf {
    run::root().join("e2e/sdk").join(language)
}

/// Builds daprd and returns its path, and the folder that all is built into.
fn build(profile: &[&str]) -> Result<(PathBuf, PathBuf)> {
    let mut cargo = run::cargo();
    cargo
        .args(["build", "--package", "outrider-sidecar", "--bin", "daprd"])
        .arg("--message-format=json-render-diagnostics")
        .args(profile);
    let messages = String::from_utf8(run::output(&mut cargo)?)?;
    let daprd = messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
        .context("cargo reported no executable")?;
    Ok((daprd, run::target()?))
}

/// A Python with what the suite requires, made once for each set of versions.
fn environment(target: &Path) -> Result<PathBuf> {
    let home = target.join("sdk/python");
    let python = home.join("bin/python");
    let wanted = std::fs::read(folder("python").join("requirements.txt"))?;
    let stamp = home.join("requirements.txt");
    if std::fs::read(&stamp).is_ok_and(|there| there == wanted) {
        return Ok(python);
    }
    run::run(
        Command::new("python3")
            .args(["-m", "venv", "--clear"])
            .arg(&home),
    )?;
    run::run(
        Command::new(&python)
            .args(["-m", "pip", "install", "--quiet", "--requirement"])
            .arg(folder("python").join("requirements.txt")),
    )?;
    std::fs::write(stamp, wanted)?;
    Ok(python)
}
