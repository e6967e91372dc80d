//! libFuzzer over every target of `fuzz/`. Compiled for coverage with flags of
//! the stable compiler.

use anyhow::{Result, bail};

use crate::{run, setup};

const COVERAGE: [&str; 6] = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Cllvm-args=-simplifycfg-branch-fold-threshold=0",
];
const SECONDS: u64 = 20;
/// Bytes of one input, and megabytes that reading it may take.
const LENGTH: u32 = 4096;
const MEMORY: u32 = 1024;

/// Fuzzes the targets of these names, or all, for so many seconds each.
pub fn run(seconds: Option<u64>, names: Vec<String>) -> Result<()> {
    let seconds = seconds.unwrap_or(SECONDS);
    let corpus = run::root().join("fuzz/corpus");
    let mut known = Vec::new();
    for entry in std::fs::read_dir(&corpus)? {
        known.push(entry?.file_name().to_string_lossy().into_owned());
    }
    known.sort();
    for name in &names {
        if !known.contains(name) {
            bail!("no target is called {name}; there are {}", known.join(", "));
        }
    }
    setup::fuzz()?;
    // Apart from other builds, whose flags are others.
    let target = run::target()?.join("fuzz");
    build(&target)?;
    let program = target.join(run::TRIPLE).join("release/fuzz");
    let all = if names.is_empty() { known } else { names };
    for name in all {
        println!("-- {name}");
        // What it finds stays here; the committed examples are only read.
        let found = target.join("found").join(&name);
        std::fs::create_dir_all(&found)?;
        run::run(
            std::process::Command::new(&program)
                .env("OUTRIDER_FUZZ", &name)
                .env("RUST_LOG", "off")
                .args([
                    format!("-max_total_time={seconds}"),
                    format!("-max_len={LENGTH}"),
                    format!("-rss_limit_mb={MEMORY}"),
                    format!("-malloc_limit_mb={MEMORY}"),
                    "-timeout=10".to_owned(),
                    "-verbosity=0".to_owned(),
                    "-print_final_stats=1".to_owned(),
                    format!("-artifact_prefix={}/crash-{name}-", target.display()),
                ])
                .arg(&found)
                .arg(corpus.join(&name)),
        )?;
    }
    Ok(())
}

fn build(target: &std::path::Path) -> Result<()> {
    let home = run::root().join("fuzz/libfuzzer");
    // The versions that the products have.
    std::fs::copy(run::root().join("Cargo.lock"), home.join("Cargo.lock"))?;
    let mut cargo = run::cargo();
    cargo
        .current_dir(home)
        .env("CARGO_TARGET_DIR", target)
        .env("RUSTFLAGS", COVERAGE.join(" "))
        .args(["build", "--release", "--target", run::TRIPLE]);
    run::run(&mut cargo)
}
