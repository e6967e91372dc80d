//! A profile of what sidecars mostly do, by which the compiler decides what to
//! inline and what to lay out together.
//! <https://doc.rust-lang.org/rustc/profile-guided-optimization.html>

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::dist::workload;
use crate::{run, setup};

/// The argument that gives cargo a flag for programs, beside those of the
/// workspace.
pub fn flag(flag: &str) -> [String; 2] {
    let key = format!("target.{}.rustflags", run::TRIPLE);
    ["--config".to_owned(), format!("{key}=[{flag:?}]")]
}

/// Builds a sidecar that writes a profile of what it executes, and runs the
/// workload with it. The other programs are in `programs`.
pub fn profile(programs: &Path, folder: &Path) -> Result<PathBuf> {
    let merge = setup::profdata()?;
    let target = run::target()?.join("training");
    run::run(
        run::cargo()
            .args(["build", "--release", "-p", "outrider-sidecar"])
            .args(["--bin", "daprd", "--target-dir"])
            .arg(&target)
            .args(flag("-Cprofile-generate")),
    )?;
    let counts = folder.join("counts");
    let command = format!(
        "env LLVM_PROFILE_FILE='{}/%p.profraw' '{}'",
        counts.display(),
        target.join(run::TRIPLE).join("release/daprd").display(),
    );
    workload::run(&command, programs, folder)?;

    let profile = folder.join("daprd.profdata");
    let mut merge = Command::new(merge);
    merge.arg("merge").arg("-o").arg(&profile);
    let mut count = 0;
    for entry in fs::read_dir(&counts).context("no sidecar wrote a profile")? {
        merge.arg(entry?.path());
        count += 1;
    }
    ensure!(count > 2, "only {count} sidecars wrote a profile");
    run::run(&mut merge)?;
    Ok(profile)
}
