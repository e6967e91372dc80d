//! The programs of a node, built from their Go sources once and kept in the cache.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use aws_lc_rs::digest;

use crate::layout::{Layout, hex};
use crate::run::Run as _;

const KUBERNETES: &str = "-X k8s.io/component-base/version.gitVersion=v1.34.4 \
    -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=34";
const HELM: &str = "-X helm.sh/helm/v3/internal/version.version=v3.19.0 \
    -X helm.sh/helm/v3/pkg/chartutil.k8sVersionMajor=1 -X helm.sh/helm/v3/pkg/chartutil.k8sVersionMinor=34";

/// Name, package, and the versions that are linked in.
const PROGRAMS: [(&str, &str, &str); 4] = [
    ("pause", "./pause", ""),
    ("coredns", "./coredns", ""),
    ("helm", "helm.sh/helm/v3/cmd/helm", HELM),
    ("node", ".", KUBERNETES),
];

/// This crate's folder. Cargo tells it to what it runs; a program that was
/// started by itself knows only where it was built, and clones that share a
/// target folder do not build it again.
pub fn folder() -> PathBuf {
    std::env::var_os("CARGO_MANIFEST_DIR")
        .unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into())
        .into()
}

fn source() -> PathBuf {
    folder().join("node")
}

/// What the programs were built from.
fn fingerprint() -> Result<String> {
    let mut context = digest::Context::new(&digest::SHA256);
    let mut files = Vec::new();
    for folder in ["", "coredns", "pause"] {
        for entry in
            fs::read_dir(source().join(folder)).context("the node's Go sources are gone")?
        {
            let path = entry?.path();
            if path.is_file() {
                files.push(path);
            }
        }
    }
    files.sort();
    for file in files {
        context.update(&fs::read(file)?);
    }
    context.update(KUBERNETES.as_bytes());
    context.update(HELM.as_bytes());
    Ok(hex(context.finish().as_ref()))
}

pub(crate) fn build(layout: &Layout, progress: impl Fn(&str)) -> Result<()> {
    let folder = layout.cache.join("bin");
    let stamp = folder.join("built-from");
    fs::create_dir_all(&folder)?;
    // Other processes wait here until the programs are whole.
    let lock = fs::File::create(layout.cache.join("build.lock"))?;
    lock.lock()?;
    let wanted = fingerprint()?;
    let missing = PROGRAMS
        .iter()
        .any(|(name, ..)| !folder.join(name).exists());
    if !missing && fs::read_to_string(&stamp).is_ok_and(|found| found == wanted) {
        return Ok(());
    }
    if Command::new("go").arg("version").run().is_err() {
        bail!(
            "the cluster's programs are written in Go, and `go` is not on the PATH; install Go 1.25 or newer"
        );
    }
    progress("building Kubernetes from source (about ten minutes of one processor the first time)");
    for (name, package, versions) in PROGRAMS {
        let target = folder.join(format!("{name}.new"));
        Command::new("go")
            .args([
                "build",
                "-buildvcs=false",
                "-ldflags",
                &format!("-s -w {versions}"),
                "-o",
            ])
            .arg(&target)
            .arg(package)
            .env("CGO_ENABLED", "0")
            .current_dir(source())
            .run()?;
        // A node that runs the old program keeps it.
        fs::rename(&target, folder.join(name))?;
    }
    let kubectl = folder.join("kubectl");
    if !kubectl.exists() {
        std::os::unix::fs::symlink("node", kubectl)?;
    }
    fs::write(stamp, wanted)?;
    Ok(())
}
