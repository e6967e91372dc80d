//! What the products may be built from: `deny.toml`, judged by cargo-deny.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::run;

/// The version that is installed where there is none.
const VERSION: &str = "0.20.2";
/// What can be judged without the network.
const OFFLINE: [&str; 3] = ["bans", "licenses", "sources"];

pub fn check() -> Result<()> {
    let program = program()?;
    let deny = || {
        let mut command = Command::new(&program);
        command.current_dir(run::root());
        command.args(["--locked", "check", "--hide-inclusion-graph"]);
        command
    };
    run::run(deny().args(OFFLINE))?;
    advisories(deny())
}

/// Known vulnerabilities. The database is a public git repository; a machine
/// that cannot reach it says so, and goes on.
fn advisories(mut deny: Command) -> Result<()> {
    let output = deny.arg("advisories").output()?;
    let text = String::from_utf8_lossy(&output.stderr);
    if output.status.success() {
        println!("deps: no known advisories");
        return Ok(());
    }
    if text.contains("failed to fetch advisory database") {
        println!("deps: advisories were not judged: their database cannot be reached");
        return Ok(());
    }
    bail!("advisories:\n{text}")
}

/// cargo-deny, from the path or built once into the user's cache folder.
fn program() -> Result<PathBuf> {
    let folder = run::cache()
        .context("no folder for tools: set HOME")?
        .join("tools");
    let program = folder.join("bin/cargo-deny");
    let is_right = |program: &PathBuf| {
        let version = Command::new(program).arg("--version").output();
        version.is_ok_and(|it| String::from_utf8_lossy(&it.stdout).contains(VERSION))
    };
    if is_right(&program) {
        return Ok(program);
    }
    println!("deps: installing cargo-deny {VERSION}");
    let mut install = Command::new(std::env::var("CARGO").unwrap_or_else(|_| "cargo".into()));
    // Elsewhere our own settings for static binaries would apply.
    install.current_dir(std::env::temp_dir());
    install.env_remove("CARGO_TARGET_DIR");
    install.args([
        "install",
        "cargo-deny",
        "--locked",
        "--quiet",
        "--no-default-features",
    ]);
    run::run(install.args(["--version", VERSION, "--root"]).arg(&folder))?;
    Ok(program)
}
