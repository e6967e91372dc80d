//! The programs of a node, built from their Go sources once for each user of this machine. `xtask` compiles this
//! file too, to build them beside the rest.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

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

/// Between two lines about how far a build is.
const PACE: Duration = Duration::from_secs(10);

/// All that decides what the programs are: their sources and the versions linked in.
fn inputs(source: &Path) -> Result<String> {
    let mut files = Vec::new();
    for folder in ["", "coredns", "pause"] {
        let folder = source.join(folder);
        for entry in fs::read_dir(folder).context("the node's Go sources are gone")? {
            let path = entry?.path();
            if path.is_file() {
                files.push(path);
            }
        }
    }
    files.sort();
    let mut inputs = format!("{KUBERNETES}\n{HELM}\n");
    for file in files {
        inputs.push_str(&fs::read_to_string(file)?);
    }
    Ok(inputs)
}

/// Builds what `source` describes into `cache`/bin, unless it is there. Any clone with the same sources uses the
/// same programs.
pub(crate) fn build(cache: &Path, source: &Path, progress: impl Fn(&str)) -> Result<()> {
    let folder = cache.join("bin");
    let stamp = folder.join("inputs");
    fs::create_dir_all(&folder)?;
    // Other processes wait here until the programs are whole.
    let lock = fs::File::create(cache.join("build.lock"))?;
    if lock.try_lock().is_err() {
        progress("another process builds Kubernetes: waiting for it");
        lock.lock()?;
    }
    let wanted = inputs(source)?;
    let missing = PROGRAMS
        .iter()
        .any(|(name, ..)| !folder.join(name).exists());
    if !missing && fs::read_to_string(&stamp).is_ok_and(|found| found == wanted) {
        return Ok(());
    }
    let mut version = Command::new("go");
    version.arg("version").stdin(Stdio::null());
    if !version.output().is_ok_and(|it| it.status.success()) {
        bail!(
            "the cluster's programs are written in Go, and `go` is not on the PATH; install Go 1.26 or newer"
        );
    }
    progress("Kubernetes is built from source, once: about ten minutes of one processor");
    let total = packages(source)?;
    let mut built = Built {
        count: 0,
        shown: Instant::now(),
    };
    for (name, package, versions) in PROGRAMS {
        let target = folder.join(format!("{name}.new"));
        let mut command = go(source);
        command
            .args(["build", "-v", "-buildvcs=false", "-ldflags"])
            .arg(format!("-s -w {versions}"))
            .arg("-o")
            .arg(&target)
            .arg(package);
        built.run(&mut command, |count| {
            progress(&format!("Kubernetes: {count} of {total} Go packages"));
        })?;
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

fn go(source: &Path) -> Command {
    let mut command = Command::new("go");
    command
        .env("CGO_ENABLED", "0")
        .current_dir(source)
        .stdin(Stdio::null());
    command
}

/// How many packages the programs consist of. Fetches their sources.
fn packages(source: &Path) -> Result<usize> {
    let mut list = go(source);
    list.args(["list", "-deps"])
        .args(PROGRAMS.map(|(_, package, _)| package));
    let output = list.output().context("cannot start go")?;
    if !output.status.success() {
        let errors = String::from_utf8_lossy(&output.stderr);
        bail!("{list:?} failed ({}): {}", output.status, errors.trim());
    }
    Ok(output.stdout.split(|byte| *byte == b'\n').count())
}

/// Packages that were compiled so far.
struct Built {
    count: usize,
    shown: Instant,
}

impl Built {
    /// Runs `go build -v`, which names each package that it compiles.
    fn run(&mut self, command: &mut Command, progress: impl Fn(usize)) -> Result<()> {
        let mut child = command
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot start go")?;
        let mut others = Vec::new();
        for line in BufReader::new(child.stderr.take().context("no output of go")?).lines() {
            let line = line?;
            if line.contains(' ') {
                // Errors, and what is fetched.
                others.push(line);
                continue;
            }
            self.count += 1;
            if self.shown.elapsed() >= PACE {
                self.shown = Instant::now();
                progress(self.count);
            }
        }
        let status = child.wait()?;
        if !status.success() {
            bail!("{command:?} failed ({status}): {}", others.join("\n"));
        }
        Ok(())
    }
}
