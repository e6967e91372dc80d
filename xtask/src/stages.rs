//! The stages of a test run, cheap ones first, and the other long commands.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};

use crate::{arrows, bench_flags, clients, deps, faults_flags, fuzz, progress, run, setup, sizes};

/// Built once, for tests and cluster images alike.
const PROFILE: [&str; 2] = ["--profile", "ci"];
/// Of a whole test run.
const SEEDS: [&str; 2] = ["--seeds", "20000"];
/// Crates whose tests start products, servers or a cluster.
const HEAVY: [&str; 3] = [
    "outrider-integration",
    "outrider-conformance",
    "outrider-cluster",
];

/// Runs stages, prints how long each took, and stops at the first that fails.
struct Run {
    took: Vec<(&'static str, f64)>,
}

impl Run {
    fn stage(&mut self, name: &'static str, work: impl FnOnce() -> Result<()>) -> Result<()> {
        println!("\n== {name}");
        let start = Instant::now();
        let done = work();
        let minutes = start.elapsed().as_secs_f64() / 60.0;
        self.took.push((name, minutes));
        println!("== {name}: {minutes:.1} min");
        done.with_context(|| format!("stage {name}"))
    }

    fn summary(&self) {
        println!("\nminutes per stage");
        for (name, minutes) in &self.took {
            println!("{minutes:6.1}  {name}");
        }
        println!(
            "{:6.1}  together",
            self.took.iter().map(|(_, m)| m).sum::<f64>()
        );
    }
}

pub fn test(all: bool) -> Result<()> {
    let mut run = Run { took: Vec::new() };
    let done = stages(&mut run, all);
    run.summary();
    done
}

fn stages(run: &mut Run, all: bool) -> Result<()> {
    run.stage("setup", || setup::tests(all))?;
    run.stage("format", format)?;
    run.stage("arrows", arrows::check)?;
    run.stage("sizes", sizes::check)?;
    run.stage("deps", deps::check)?;
    run.stage("clippy", clippy)?;
    run.stage("unit", || {
        let mut cargo = run::cargo();
        cargo.args(["test", "--workspace"]).args(PROFILE);
        for name in HEAVY {
            cargo.args(["--exclude", name]);
        }
        if all {
            cargo.env("PROPTEST_CASES", "4096");
        }
        run::run(&mut cargo)
    })?;
    run.stage("definitions", || {
        let mut cargo = run::cargo();
        cargo.args(["test", "-p", "outrider-crds", "--features", "schema"]);
        run::run(cargo.args(PROFILE))
    })?;
    run.stage("drift", drift)?;
    run.stage("build", || {
        run::run(
            run::cargo()
                .args(["build", "--workspace", "--bins"])
                .args(PROFILE),
        )
    })?;
    let heavy = |name| run::run(run::cargo().args(["test", "-p", name]).args(PROFILE));
    run.stage("process", || heavy(HEAVY[0]))?;
    run.stage("faults", || {
        // Only what the smallest set of components has.
        let folder = run::target()?.join(run::TRIPLE).join("ci");
        inject_faults(&folder, &["--short".to_owned()])
    })?;
    run.stage("clients", || clients::test(&PROFILE, all))?;
    run.stage("conformance", || heavy(HEAVY[1]))?;
    run.stage("cluster", || heavy(HEAVY[2]))?;
    if all {
        run.stage("simulate", || simulate(&SEEDS.map(str::to_owned)))?;
        run.stage("heavy", heavy_without_drift)?;
        run.stage("fuzz", || fuzz::run(None, Vec::new()))?;
    }
    Ok(())
}

pub fn check() -> Result<()> {
    format()?;
    arrows::check()?;
    sizes::check()?;
    deps::check()?;
    clippy()
}

/// Also packages that are no members of the workspace.
fn format() -> Result<()> {
    run::run(run::cargo().args(["fmt", "--all", "--check"]))?;
    for apart in ["e2e/sdk/rust", "fuzz/libfuzzer"] {
        let mut cargo = run::cargo();
        cargo.current_dir(run::root().join(apart));
        run::run(cargo.args(["fmt", "--check"]))?;
    }
    Ok(())
}

fn clippy() -> Result<()> {
    let mut cargo = run::cargo();
    cargo
        .args(["clippy", "--workspace", "--all-targets"])
        .args(PROFILE);
    if run::is_ci() {
        cargo.args(["--", "-D", "warnings"]);
    }
    run::run(&mut cargo)
}

/// A file or folder that a program of ours writes.
struct Generated {
    package: &'static str,
    features: &'static [&'static str],
    program: &'static str,
    path: &'static str,
}

const GENERATED: [Generated; 2] = [
    Generated {
        package: "outrider-crds",
        features: &["--features", "schema"],
        program: "crdgen",
        path: "charts/dapr/crds",
    },
    Generated {
        package: "outrider-catalog",
        features: &["--features", "most"],
        program: "componentgen",
        path: "docs/components.md",
    },
];

/// Families whose libraries take minutes to compile. Without their features
/// there is nothing in them, so that other commands pass them over.
const HEAVY_FAMILIES: [&str; 2] = ["outrider-components-opa", "outrider-components-wasm"];
const OF_HEAVY: Generated = Generated {
    package: "outrider-catalog",
    features: &["--no-default-features", "--features", "opa,wasm"],
    program: "componentgen",
    path: "docs/components-heavy.md",
};

/// Lints and tests the heavy families, compiles a sidecar that has them, and
/// writes their page.
pub fn heavy() -> Result<()> {
    for command in ["clippy", "test"] {
        let mut cargo = run::cargo();
        cargo.arg(command).args(PROFILE).arg("--all-features");
        for family in HEAVY_FAMILIES {
            cargo.args(["-p", family]);
        }
        if command == "clippy" {
            cargo.args(["--all-targets", "--", "-D", "warnings"]);
        }
        run::run(&mut cargo)?;
    }
    let mut cargo = run::cargo();
    cargo.args(["check", "-p", "outrider-sidecar", "--features", "full"]);
    run::run(cargo.args(PROFILE))?;
    OF_HEAVY.write()
}

fn heavy_without_drift() -> Result<()> {
    heavy()?;
    unchanged(&[OF_HEAVY.path])
}

impl Generated {
    fn write(&self) -> Result<()> {
        let mut cargo = run::cargo();
        cargo.args(["run", "--quiet", "-p", self.package, "--bin", self.program]);
        cargo.args(self.features).args(PROFILE);
        run::run(cargo.args(["--", self.path]))
    }
}

pub fn generate() -> Result<()> {
    GENERATED.iter().try_for_each(Generated::write)
}

pub fn drift() -> Result<()> {
    generate()?;
    unchanged(&GENERATED.map(|generated| generated.path))
}

fn unchanged(paths: &[&str]) -> Result<()> {
    let mut git = Command::new("git");
    git.current_dir(run::root())
        .args(["status", "--porcelain", "--"])
        .args(paths);
    let changed = String::from_utf8(run::output(&mut git)?)?;
    if !changed.is_empty() {
        bail!("generated files are out of date; commit them:\n{changed}");
    }
    println!("generated files are up to date");
    Ok(())
}

/// Ours with Dapr's programs in `reference`.
pub fn interop(reference: &Path) -> Result<()> {
    for name in ["daprd", "placement", "scheduler"] {
        let path = reference.join(name);
        ensure!(path.is_file(), "{} is not a file", path.display());
    }
    setup::interop()?;
    // PostgreSQL is not in the smallest set of components.
    let words = [
        "build",
        "--workspace",
        "--bins",
        "--features",
        "outrider-sidecar/stable",
    ];
    run::run(run::cargo().args(words).args(PROFILE))?;
    let folder = run::target()?.join(run::TRIPLE).join("ci");
    run::run(
        Command::new(folder.join("outrider-interop"))
            .env("OUTRIDER_BIN_DIR", &folder)
            .arg(reference),
    )
}

/// Simulates clusters as `words` say.
pub fn simulate(words: &[String]) -> Result<()> {
    let mut cargo = run::cargo();
    cargo.args(["run", "--quiet", "-p", "outrider-simulate"]);
    run::run(cargo.args(PROFILE).arg("--").args(words))
}

/// `words` are those that `flags` were read from.
pub fn faults(flags: &faults_flags::Flags, words: &[String]) -> Result<()> {
    if let Some(reference) = &flags.reference {
        for name in ["daprd", "placement", "scheduler"] {
            let path = reference.join(name);
            ensure!(path.is_file(), "{} is not a file", path.display());
        }
    }
    setup::tests(false)?;
    // Some brokers and stores are not in the stable set of components.
    let words_of_build = [
        "build",
        "--workspace",
        "--bins",
        "--features",
        "outrider-sidecar/most",
    ];
    run::run(run::cargo().args(words_of_build).args(PROFILE))?;
    let folder = run::target()?.join(run::TRIPLE).join("ci");
    inject_faults(&folder, words)
}

fn inject_faults(folder: &Path, words: &[String]) -> Result<()> {
    run::run(
        Command::new(folder.join("outrider-faults"))
            .env("OUTRIDER_BIN_DIR", folder)
            .args(words),
    )
}

/// `words` are those that `flags` were read from.
pub fn bench(flags: &bench_flags::Flags, words: &[String]) -> Result<()> {
    for (_, path) in &flags.binaries {
        ensure!(path.is_file(), "{} is not a file", path.display());
    }
    setup::bench(flags.limit, flags.blocks)?;
    let folder = run::target()?.join(run::TRIPLE);
    if flags.mtls {
        // Nobody measures it, so it need not be fast.
        progress::build("demo", &["outrider-sentry"], String::new)?;
    }
    progress::build("release", &["outrider-bench"], String::new)?;
    run::run(
        Command::new(folder.join("release/outrider-bench"))
            .env("OUTRIDER_BIN_DIR", folder.join("demo"))
            .args(words),
    )
}
