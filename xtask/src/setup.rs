//! Debian packages that the tests use. Running it again changes nothing.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};

use crate::run;

/// A program and the package that has it.
const PROGRAMS: [(&str, &str); 9] = [
    ("redis-server", "redis-server"),
    ("containerd", "containerd"),
    ("runc", "runc"),
    ("iptables", "iptables"),
    ("conntrack", "conntrack"),
    ("ip", "iproute2"),
    ("busybox", "busybox-static"),
    ("cc", "gcc"),
    ("/usr/lib/cni/bridge", "containernetworking-plugins"),
];

/// What `test --all` needs besides.
const MORE: [(&str, &str); 5] = [
    ("python3", "python3-venv"),
    ("node", "nodejs"),
    ("npm", "npm"),
    ("javac", "default-jdk-headless"),
    ("mvn", "maven"),
];

pub fn install(all: bool) -> Result<()> {
    let missing: Vec<&str> = PROGRAMS
        .iter()
        .chain(if all { &MORE[..] } else { &[] })
        .filter(|(program, _)| !is_there(program))
        .map(|(_, package)| *package)
        .collect();
    for (program, why) in [
        (
            "go",
            "the embedded Kubernetes and a suite of clients are Go",
        ),
        ("git", "some checks ask it"),
    ] {
        if !is_there(program) {
            bail!("{program} is not on the path: {why}; install it and run this again");
        }
    }
    if missing.is_empty() {
        println!("setup: everything is there");
        return Ok(());
    }
    println!("setup: installing {}", missing.join(" "));
    let apt = || {
        let mut command = Command::new("apt-get");
        command.env("DEBIAN_FRONTEND", "noninteractive");
        command
    };
    run::run(apt().args(["-qq", "update"]))?;
    // A server that a package starts by itself would take the tests' ports.
    let policy = Path::new("/usr/sbin/policy-rc.d");
    let ours = !policy.exists() && std::fs::write(policy, "#!/bin/sh\nexit 101\n").is_ok();
    if ours {
        run::run(Command::new("chmod").arg("+x").arg(policy))?;
    }
    let installed = run::run(
        apt()
            .args(["-qq", "-y", "--no-install-recommends", "install"])
            .args(&missing),
    );
    if ours {
        let _ = std::fs::remove_file(policy);
    }
    installed
}

fn is_there(program: &str) -> bool {
    if program.starts_with('/') {
        return Path::new(program).exists();
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .any(|folder| folder.join(program).exists())
}
