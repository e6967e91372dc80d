//! No file is too long to be read at once.

use anyhow::{Result, bail};

use crate::run;

/// Lines at which a file is refused.
const MOST: usize = 1000;

pub fn check() -> Result<()> {
    let listed = run::output(
        std::process::Command::new("git")
            .current_dir(run::root())
            .args(["ls-files", "*.rs", "*.go"]),
    )?;
    let mut long = Vec::new();
    for name in String::from_utf8(listed)?.lines() {
        let Ok(text) = std::fs::read_to_string(run::root().join(name)) else {
            continue;
        };
        let lines = text.lines().count();
        if lines > MOST {
            long.push(format!("{name}: {lines} lines"));
        }
    }
    if long.is_empty() {
        println!("sizes: no file above {MOST} lines");
        return Ok(());
    }
    bail!("files above {MOST} lines:\n  {}", long.join("\n  "))
}
