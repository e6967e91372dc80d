//! A profile of what sidecars mostly do, by which the compiler decides what to
//! inline and what to lay out together.
//! <https://doc.rust-lang.org/rustc/profile-guided-optimization.html>

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::dist::rehearsal;
use crate::run;

/// The argument that gives cargo a flag for programs, beside those of the
/// workspace.
pub fn flag(flag: &str) -> [String; 2] {
    let key = format!("target.{}.rustflags", run::TRIPLE);
    ["--config".to_owned(), format!("{key}=[{flag:?}]")]
}

/// Builds a sidecar that counts, and runs it through the rehearsal and the
/// benchmark. The other programs are in `programs`.
pub fn profile(programs: &Path, folder: &Path) -> Result<PathBuf> {
    let merge = merger()?;
    let target = run::target()?.join("training");
    run::run(
        run::cargo()
            .args(["build", "--release", "-p", "outrider-sidecar"])
            .args(["--bin", "daprd", "--target-dir"])
            .arg(&target)
            .args(flag("-Cprofile-generate")),
    )?;
    let counts = folder.join("counts");
    let counting = format!(
        "env LLVM_PROFILE_FILE='{}/%p.profraw' '{}'",
        counts.display(),
        target.join(run::TRIPLE).join("release/daprd").display(),
    );
    rehearsal::watch(&counting, programs, folder)?;

    let profile = folder.join("daprd.profdata");
    let mut merge = Command::new(merge);
    merge.arg("merge").arg("-o").arg(&profile);
    let mut count = 0;
    for entry in fs::read_dir(&counts).context("no sidecar left its counts")? {
        merge.arg(entry?.path());
        count += 1;
    }
    ensure!(count > 2, "{count} sidecars left their counts only");
    run::run(&mut merge)?;
    Ok(profile)
}

/// The program that reads counts; its version has to be the compiler's.
fn merger() -> Result<PathBuf> {
    let told = String::from_utf8(run::output(Command::new("rustc").arg("-vV"))?)?;
    let version = told
        .lines()
        .find_map(|line| line.strip_prefix("LLVM version: ")?.split('.').next())
        .context("the compiler does not tell its version of LLVM")?;
    let root = run::output(Command::new("rustc").args(["--print", "sysroot"]))?;
    let component = Path::new(String::from_utf8(root)?.trim())
        .join("lib/rustlib")
        .join(run::TRIPLE)
        .join("bin/llvm-profdata");
    let package = PathBuf::from(format!("llvm-profdata-{version}"));
    let found = [component, package].into_iter().find(|program| {
        let asked = Command::new(program).arg("--version").output();
        asked.is_ok_and(|answer| answer.status.success())
    });
    found.with_context(|| {
        format!("no llvm-profdata of version {version}: `rustup component add llvm-tools`, or install Debian's llvm-{version}")
    })
}
