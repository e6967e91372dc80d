//! Running a program to its end, with an error that has its output.

use std::ffi::OsStr;
use std::io::Write as _;
use std::process::{Command, Output, Stdio};

use anyhow::{Context as _, Result, bail};

pub(crate) trait Run {
    /// Its standard output; an error when it fails.
    fn run(&mut self) -> Result<String>;
}

impl Run for Command {
    fn run(&mut self) -> Result<String> {
        let output = self
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("can't start {}", name(self.get_program())))?;
        finish(self, output)
    }
}

pub(crate) fn run_with_input(command: &mut Command, input: &str) -> Result<String> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("can't start {}", name(command.get_program())))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program that ends early says why on its own.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output()?;
    finish(command, output)
}

fn finish(command: &Command, output: Output) -> Result<String> {
    if !output.status.success() {
        bail!(
            "{} failed ({}): {}",
            line(command),
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn line(command: &Command) -> String {
    let mut words = vec![name(command.get_program())];
    words.extend(
        command
            .get_args()
            .map(|word| word.to_string_lossy().into_owned()),
    );
    words.join(" ")
}

fn name(program: &OsStr) -> String {
    program
        .to_string_lossy()
        .rsplit('/')
        .next()
        .unwrap_or_default()
        .to_owned()
}
