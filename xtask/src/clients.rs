//! The published SDKs as clients of the daprd that was built. Each suite has a
//! manifest and a lock of its own, and none of ours.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::run;

/// What the suites start, and the variables that name it to them.
const PROGRAMS: [(&str, &str); 3] = [
    ("daprd", "OUTRIDER_DAPRD"),
    ("placement", "OUTRIDER_PLACEMENT"),
    ("scheduler", "OUTRIDER_SCHEDULER"),
];

/// Go and Rust; with `all`, every language that has a suite.
pub fn test(profile: &[&str], all: bool) -> Result<()> {
    let programs = build(profile)?;
    let target = run::target()?;
    let suite = |language: &str, mut command: Command| {
        command.current_dir(folder(language));
        for (variable, path) in &programs {
            command.env(variable, path);
        }
        command
    };
    let go = ["test", "-count=1", "-mod=readonly", "./..."];
    run::run(suite("go", Command::new("go")).args(go))?;
    run::run(
        suite("rust", run::cargo())
            .env("CARGO_TARGET_DIR", target.join("sdk"))
            .args(["test", "--locked"]),
    )?;
    if !all {
        return Ok(());
    }
    let npm = || suite("javascript", Command::new("npm"));
    run::run(npm().args(["ci", "--ignore-scripts", "--no-fund"]))?;
    run::run(npm().arg("test"))?;
    for project in ["java", "java/actors"] {
        let tests = ["--batch-mode", "--quiet", "test"];
        run::run(suite(project, Command::new("mvn")).args(tests))?;
    }
    // Last: it starts programs of the others.
    let tests = ["-m", "unittest", "discover", "--start-directory", "."];
    run::run(
        suite("python", Command::new(environment(&target, "python")?))
            .args(tests)
            .env("OUTRIDER_CPP", cpp(&target)?)
            .envs(counters(&target.join("sdk"))?),
    )?;
    run::run(
        suite("agents", Command::new(environment(&target, "agents")?))
            .args(tests)
            .env("PYTHONPATH", folder("python")),
    )
}

/// Builds the client and the application in C++, and returns their folder.
fn cpp(target: &Path) -> Result<PathBuf> {
    let out = target.join("sdk/cpp");
    let mut variable = OsString::from("OUT=");
    variable.push(&out);
    let make = ["--silent", "--jobs=2", "--directory"];
    run::run(
        Command::new("make")
            .args(make)
            .arg(folder("cpp"))
            .arg(variable),
    )?;
    Ok(out)
}

/// The commands that start the actors of the other languages, built or just
/// tested, by the variables in which the suite of Python looks for them.
fn counters(target: &Path) -> Result<[(&'static str, String); 4]> {
    let go = target.join("counter-go");
    run::run(
        Command::new("go")
            .current_dir(folder("go"))
            .args(["build", "-mod=readonly", "-o"])
            .arg(&go)
            .arg("./counter"),
    )?;
    let messages = run::output(
        run::cargo()
            .current_dir(folder("rust"))
            .env("CARGO_TARGET_DIR", target)
            .args(["build", "--locked", "--bin", "counter"])
            .arg("--message-format=json-render-diagnostics"),
    )?;
    let rust = executable(&String::from_utf8(messages)?, "counter")?;
    let java = folder("java/actors/target");
    let libraries = java.join("classpath");
    let libraries = std::fs::read_to_string(&libraries)
        .with_context(|| format!("cannot read {}", libraries.display()))?;
    let libraries = format!("{}:{}", java.join("classes").display(), libraries.trim());
    let javascript = folder("javascript").join("counter.js");
    let command = |parts: &[&str]| serde_json::to_string(parts).context("not JSON");
    Ok([
        ("OUTRIDER_COUNTER_GO", command(&[&go.to_string_lossy()])?),
        (
            "OUTRIDER_COUNTER_RUST",
            command(&[&rust.to_string_lossy()])?,
        ),
        (
            "OUTRIDER_COUNTER_JAVASCRIPT",
            command(&["node", &javascript.to_string_lossy()])?,
        ),
        (
            "OUTRIDER_COUNTER_JAVA",
            command(&["java", "-cp", &libraries, "io.outrider.sdk.CounterServer"])?,
        ),
    ])
}

pub fn folder(language: &str) -> PathBuf {
    run::root().join("e2e/sdk").join(language)
}

/// Builds the programs and returns their variables and paths.
fn build(profile: &[&str]) -> Result<Vec<(&'static str, PathBuf)>> {
    let mut cargo = run::cargo();
    cargo
        .args(["build", "--workspace"])
        .arg("--message-format=json-render-diagnostics")
        .args(profile);
    for (program, _) in PROGRAMS {
        cargo.args(["--bin", program]);
    }
    let messages = String::from_utf8(run::output(&mut cargo)?)?;
    PROGRAMS
        .map(|(program, variable)| Ok((variable, executable(&messages, program)?)))
        .into_iter()
        .collect()
}

/// The path of a program in what cargo reports.
fn executable(messages: &str, program: &str) -> Result<PathBuf> {
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|message| message["target"]["name"] == program)
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
        .with_context(|| format!("cargo reported no executable of {program}"))
}

/// A Python with what a suite requires, made once for each set of versions.
fn environment(target: &Path, name: &str) -> Result<PathBuf> {
    let home = target.join("sdk").join(name);
    let python = home.join("bin/python");
    let requirements = folder(name).join("requirements.txt");
    let wanted = std::fs::read(&requirements)?;
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
            .arg(&requirements),
    )?;
    std::fs::write(stamp, wanted)?;
    Ok(python)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_found_by_its_name() {
        let messages = r#"{"target":{"name":"scheduler"},"executable":null}
{"target":{"name":"daprd"},"executable":"/b/daprd"}
not json
{"target":{"name":"scheduler"},"executable":"/b/scheduler"}"#;
        let found = executable(messages, "scheduler").unwrap();
        assert_eq!(found, Path::new("/b/scheduler"));
        assert!(executable(messages, "placement").is_err());
    }
}
