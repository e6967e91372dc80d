//! What is shipped: the programs, built for size and speed; the sidecar by a
//! profile of its work, with the functions that it uses laid out together.
//!
//! A program is read into memory page by page. Spread over all of it, the few
//! functions that every sidecar uses make most of its pages resident; next to
//! each other they fill a tenth of them.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::{run, setup};

mod sbom;
mod training;
mod workload;

const OTHERS: [&str; 7] = [
    "outrider-apps",
    "outrider-operator",
    "outrider-injector",
    "outrider-scheduler",
    "outrider-placement",
    "outrider-sentry",
    "outrider-bench",
];

/// Packages and their programs, the sidecar first.
const SHIPPED: [(&str, &str); 6] = [
    ("outrider-sidecar", "daprd"),
    ("outrider-operator", "operator"),
    ("outrider-injector", "injector"),
    ("outrider-scheduler", "scheduler"),
    ("outrider-placement", "placement"),
    ("outrider-sentry", "sentry"),
];

/// Builds what is shipped, each program with a list of what it is made of.
pub fn dist() -> Result<()> {
    setup::dist()?;
    let mut cargo = run::cargo();
    cargo.args(["build", "--release"]);
    for name in OTHERS {
        cargo.args(["-p", name]);
    }
    run::run(&mut cargo)?;
    let folder = target()?.join("release");
    let shipped = target()?.join("dist");
    fs::create_dir_all(&shipped)?;

    let profile = training::profile(&folder, &shipped.join("training"))?;
    let trained = run::target()?.join("trained");
    let link = sidecar(&profile, &trained)?;
    let order = order(&trained, &folder, &shipped)?;
    link_again(&link, &order, &shipped.join("daprd"))?;
    for (_, name) in &SHIPPED[1..] {
        fs::copy(folder.join(name), shipped.join(name))?;
    }
    for (package, name) in SHIPPED {
        sbom::write(package, name, &shipped)?;
        let size = fs::metadata(shipped.join(name))?.len();
        println!("{:8.1} MB  {name}", size as f64 / 1e6);
    }
    println!("dist: {}", shipped.display());
    Ok(())
}

fn target() -> Result<PathBuf> {
    Ok(run::target()?.join(run::TRIPLE))
}

/// Builds the sidecar and returns the words of the command that linked it,
/// whose inputs are kept.
fn sidecar(profile: &Path, target: &Path) -> Result<Vec<String>> {
    let package = ["-p", "outrider-sidecar", "--bin", "daprd"];
    // Cargo does not see that a profile is another one.
    if target.exists() {
        fs::remove_dir_all(target)?;
    }
    let output = run::output(
        run::cargo()
            .args(["rustc", "--release", "--target-dir"])
            .arg(target)
            .args(package)
            .args(training::flag(&format!(
                "-Cprofile-use={}",
                profile.display()
            )))
            .args(["--", "-Csave-temps", "--print=link-args"]),
    )?;
    let output = String::from_utf8(output)?;
    let line = output
        .lines()
        .find(|line| line.contains("\"-o\"") || line.contains(" -o "))
        .context("rustc did not print the linker's command")?;
    Ok(words(line))
}

/// The words of a command as it is printed: quoted where needed.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quoted = false;
    for c in line.chars() {
        match c {
            '"' => quoted = !quoted,
            ' ' if !quoted => {
                words.extend(Some(std::mem::take(&mut word)).filter(|w| !w.is_empty()));
            }
            c => word.push(c),
        }
    }
    words.extend(Some(word).filter(|w| !w.is_empty()));
    words
}

fn link_again(link: &[String], order: &Path, program: &Path) -> Result<()> {
    let start = link
        .iter()
        .position(|word| !word.contains('=') || word.starts_with('-'))
        .context("the linker's command is empty")?;
    let (environment, command) = link.split_at(start);
    let (linker, arguments) = command.split_first().context("no linker")?;
    let mut linker = Command::new(linker);
    linker.current_dir(run::root());
    for variable in environment {
        if let Some((name, value)) = variable.split_once('=') {
            linker.env(name, value);
        }
    }
    let mut output = false;
    for argument in arguments {
        if std::mem::replace(&mut output, argument == "-o") {
            linker.arg(program);
        } else {
            linker.arg(argument);
        }
    }
    linker.arg("-Wl,--strip-all,--no-warn-symbol-ordering");
    linker.arg(format!("-Wl,--symbol-ordering-file={}", order.display()));
    run::run(&mut linker)
}

/// Runs the workload with sidecars under valgrind, and lists the functions that
/// were called.
fn order(trained: &Path, folder: &Path, shipped: &Path) -> Result<PathBuf> {
    let traces = shipped.join("traces");
    let traced = format!(
        "valgrind --quiet --demangle=no --tool=callgrind --callgrind-out-file='{}/%p.trace' '{}'",
        traces.display(),
        trained.join(run::TRIPLE).join("release/daprd").display(),
    );
    workload::run(&traced, folder, &traces)?;
    let mut seen = HashSet::new();
    let mut list = String::new();
    for entry in fs::read_dir(&traces)? {
        let path = entry?.path();
        if path.extension().is_some_and(|ending| ending == "trace") {
            for name in called(&fs::read_to_string(&path)?) {
                if seen.insert(name.to_owned()) {
                    writeln!(list, "{name}")?;
                }
            }
        }
    }
    ensure!(
        seen.len() > 1000,
        "the traces name {} functions only",
        seen.len()
    );
    let order = shipped.join("order.txt");
    fs::write(&order, list)?;
    println!("dist: {} functions laid out together", seen.len());
    Ok(order)
}

/// The functions that a trace defines: `fn=(7) name`, the first time with the
/// name, later without.
fn called(trace: &str) -> impl Iterator<Item = &str> {
    trace.lines().filter_map(|line| {
        let rest = line
            .strip_prefix("fn=(")
            .or_else(|| line.strip_prefix("cfn=("))?;
        let (_, name) = rest.split_once(") ")?;
        // Recursion is marked behind the name.
        Some(name.split('\'').next().unwrap_or(name))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_a_command() {
        assert_eq!(
            words(r#"LC_ALL="C" "cc" "-m64" "/a b/c.o" -o x"#),
            ["LC_ALL=C", "cc", "-m64", "/a b/c.o", "-o", "x"]
        );
    }

    #[test]
    fn names_in_a_trace() {
        let trace = "# callgrind format\nfn=(1) _ZN4core3fooE\n16 4\ncfn=(2) malloc\ncalls=1 0\nfn=(2)\nfn=(3) _ZN1aE'2\n";
        assert_eq!(
            called(trace).collect::<Vec<_>>(),
            ["_ZN4core3fooE", "malloc", "_ZN1aE"]
        );
    }
}
