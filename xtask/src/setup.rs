//! What commands need beside Rust, looked for before anything is built. Debian
//! packages are installed where that is possible, and named where it is not.
//! Running it again changes nothing.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::{debian, machine, run};

/// A program, and the Debian package that has it.
type Needed = (&'static str, &'static str);

/// To compile the C parts of some crates.
const BUILD: [Needed; 1] = [("cc", "gcc")];

const TESTS: [Needed; 17] = [
    ("cc", "gcc"),
    ("redis-server", "redis-server"),
    ("/usr/lib/postgresql", "postgresql"),
    ("mariadbd", "mariadb-server"),
    ("memcached", "memcached"),
    ("etcd", "etcd-server"),
    ("nats-server", "nats-server"),
    ("mosquitto", "mosquitto"),
    ("aiosmtpd", "python3-aiosmtpd"),
    ("/usr/lib/rabbitmq", "rabbitmq-server"),
    ("containerd", "containerd"),
    ("runc", "runc"),
    ("iptables", "iptables"),
    ("conntrack", "conntrack"),
    ("ip", "iproute2"),
    ("busybox", "busybox-static"),
    ("/usr/lib/cni/bridge", "containernetworking-plugins"),
];

/// What `test --all` needs besides.
const MORE: [Needed; 10] = [
    ("python3", "python3-venv"),
    ("node", "nodejs"),
    ("npm", "npm"),
    ("javac", "default-jdk-headless"),
    ("mvn", "maven"),
    ("c++", "g++"),
    ("make", "make"),
    ("pkg-config", "pkg-config"),
    ("grpc_cpp_plugin", "protobuf-compiler-grpc"),
    ("/usr/include/grpcpp", "libgrpc++-dev"),
];

const DIST: [Needed; 4] = [
    ("cc", "gcc"),
    ("git", "git"),
    ("valgrind", "valgrind"),
    ("redis-server", "redis-server"),
];

pub fn tests(all: bool) -> Result<()> {
    go("the embedded Kubernetes and a suite of clients are Go")?;
    if !debian::is_there("git") {
        bail!("git is not on the path: some checks ask it; install it and run this again");
    }
    let mut needed = TESTS.to_vec();
    if all {
        needed.extend(MORE);
    }
    install(&needed)
}

pub fn dist() -> Result<()> {
    install(&DIST)?;
    profdata().map(|_| ())
}

/// libFuzzer is C++.
pub fn fuzz() -> Result<()> {
    install(&[("cc", "gcc"), ("c++", "g++")])
}

/// Servers that the sidecars share.
pub fn interop() -> Result<()> {
    install(&[
        ("cc", "gcc"),
        ("redis-server", "redis-server"),
        ("/usr/lib/postgresql", "postgresql"),
    ])
}

/// `limit` is whether nginx is measured too; with `blocks` some need a Redis.
pub fn bench(limit: bool, blocks: bool) -> Result<()> {
    let mut needed = BUILD.to_vec();
    if limit {
        needed.push(("nginx", "nginx"));
    }
    if blocks {
        needed.push(("redis-server", "redis-server"));
    }
    install(&needed)
}

/// With `kubernetes` its programs are built or used; with `boot` a node of it
/// runs on this machine.
pub fn demo(kubernetes: bool, boot: bool) -> Result<()> {
    if kubernetes {
        go("Kubernetes is built from its Go sources")?;
    }
    let mut needed = BUILD.to_vec();
    if boot {
        machine::check()?;
        machine::install(|what| println!("setup: {what}"))?;
        needed.push(("redis-server", "redis-server"));
        needed.push(("etcd", "etcd-server"));
    }
    install(&needed)
}

fn go(why: &str) -> Result<()> {
    if !debian::is_there("go") {
        bail!("go is not on the path: {why}; install Go 1.26 or newer and run this again");
    }
    Ok(())
}

fn install(needed: &[Needed]) -> Result<()> {
    let missing = missing(needed);
    if missing.is_empty() {
        println!("setup: everything is there");
        return Ok(());
    }
    println!("setup: installing {}", missing.join(" "));
    debian::install(&missing)
}

/// The packages of those programs that are not there.
fn missing(needed: &[Needed]) -> Vec<&'static str> {
    let absent = needed
        .iter()
        .filter(|(program, _)| !debian::is_there(program));
    absent.map(|(_, package)| *package).collect()
}

/// llvm-profdata, which merges the profiles that a program wrote. It has to be
/// of the compiler's version of LLVM: rustup's component, or Debian's package,
/// which is installed where there is none.
pub fn profdata() -> Result<PathBuf> {
    let output = run::output(Command::new("rustc").arg("-vV"))?;
    let version = llvm_version(&String::from_utf8(output)?)?;
    let root = run::output(Command::new("rustc").args(["--print", "sysroot"]))?;
    let component = Path::new(String::from_utf8(root)?.trim())
        .join("lib/rustlib")
        .join(run::TRIPLE)
        .join("bin/llvm-profdata");
    let package = PathBuf::from(format!("llvm-profdata-{version}"));
    let candidates = [component, package];
    let find = || {
        let runs = |program: &&PathBuf| {
            let answer = Command::new(program).arg("--version").output();
            answer.is_ok_and(|answer| answer.status.success())
        };
        candidates.iter().find(runs).cloned()
    };
    if let Some(found) = find() {
        return Ok(found);
    }
    let package = format!("llvm-{version}");
    println!("setup: installing {package}");
    let installed = debian::install(&[&package]);
    find().with_context(|| {
        let why = installed.err().map_or(String::new(), |error| format!(" ({error:#})"));
        format!("no llvm-profdata of version {version}: `rustup component add llvm-tools`, or install Debian's {package}{why}")
    })
}

/// The major version of LLVM in what `rustc -vV` prints.
fn llvm_version(text: &str) -> Result<String> {
    text.lines()
        .find_map(|line| line.strip_prefix("LLVM version: ")?.split('.').next())
        .map(str::to_owned)
        .context("rustc does not print its version of LLVM")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_of_llvm_is_that_of_the_compiler() {
        let text = "rustc 1.95.0 (59807616e 2026-04-14)\nrelease: 1.95.0\nLLVM version: 22.1.2\n";
        assert_eq!(llvm_version(text).unwrap(), "22");
        assert!(llvm_version("rustc 1.95.0").is_err());
    }

    #[test]
    fn only_packages_of_absent_programs_are_missing() {
        let programs = [
            ("sh", "dash"),
            ("/no/such/file", "a"),
            ("no-such-program", "b"),
        ];
        assert_eq!(missing(&programs), ["a", "b"]);
    }
}
