//! What a cluster could leave on the machine, and the processes of one.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};

/// Equal before a cluster's boot and after its end. Only what carries the cluster's own names is in it, as other
/// programs of the machine come and go too; the firewall and the kernel's settings are there whole.
#[derive(Debug, PartialEq)]
pub struct Traces {
    folder: bool,
    mounts: BTreeSet<String>,
    processes: BTreeSet<String>,
    groups: BTreeSet<String>,
    firewall: String,
    settings: Vec<String>,
    folders: Vec<bool>,
}

impl Traces {
    pub fn of(work: &Path) -> Result<Self> {
        let name = work.to_str().context("not a UTF-8 path")?;
        let mine = |lines: String| {
            lines
                .lines()
                .filter(|line| line.contains(name))
                .map(str::to_owned)
                .collect()
        };
        let mut processes = BTreeSet::new();
        for entry in fs::read_dir("/proc")?.flatten() {
            let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            if line.contains(name) {
                processes.insert(line);
            }
        }
        let identity = identity(work);
        let mut groups = BTreeSet::new();
        for hierarchy in fs::read_dir("/sys/fs/cgroup")?.flatten() {
            groups.extend(
                hierarchy
                    .path()
                    .join(&identity)
                    .exists()
                    .then(|| hierarchy.path().display().to_string()),
            );
        }
        let link = Path::new("/sys/class/net").join(&identity);
        groups.extend(link.exists().then(|| link.display().to_string()));
        let firewall = Command::new("iptables-save").output()?.stdout;
        let firewall = String::from_utf8_lossy(&firewall);
        Ok(Self {
            folder: work.exists(),
            mounts: mine(fs::read_to_string("/proc/self/mountinfo")?),
            processes,
            groups,
            firewall: firewall
                .lines()
                .filter(|line| line.contains("KUBE") || line.contains("CNI"))
                .collect(),
            settings: [
                "vm/overcommit_memory",
                "kernel/panic",
                "kernel/panic_on_oops",
                "kernel/keys/root_maxkeys",
            ]
            .iter()
            .map(|setting| fs::read_to_string(Path::new("/proc/sys").join(setting)))
            .collect::<std::io::Result<_>>()?,
            folders: [
                "/var/lib/cni",
                "/run/containerd",
                "/var/log/pods",
                "/usr/libexec/kubernetes",
                "/var/lib/kubelet",
            ]
            .iter()
            .map(|folder| Path::new(folder).exists())
            .collect(),
        })
    }
}

/// As the crate derives it: from the folder's name alone.
fn identity(work: &Path) -> String {
    let hash = aws_lc_rs::digest::digest(
        &aws_lc_rs::digest::SHA256,
        work.as_os_str().as_encoded_bytes(),
    );
    let hex: String = hash
        .as_ref()
        .iter()
        .take(4)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("outr-{hex}")
}

pub fn kill(id: u32) -> Result<()> {
    let id = rustix::process::Pid::from_raw(i32::try_from(id)?).context("process 0")?;
    Ok(rustix::process::kill_process(
        id,
        rustix::process::Signal::KILL,
    )?)
}

pub fn parent(id: u32) -> Result<u32> {
    let stat = fs::read_to_string(format!("/proc/{id}/stat"))?;
    let fields = stat.rsplit_once(") ").context("no name")?.1;
    Ok(fields.split(' ').nth(1).context("no parent")?.parse()?)
}

/// The processes `cluster up` for the folder `work`, by their numbers.
pub fn owners(work: &Path) -> Result<Vec<u32>> {
    let variable = format!("OUTRIDER_CLUSTER_DIR={}", work.display());
    let mut owners = Vec::new();
    for entry in fs::read_dir("/proc")?.flatten() {
        let Some(id) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
        else {
            continue;
        };
        // A process may end while it is looked at.
        let read = |file: &str| fs::read(entry.path().join(file)).unwrap_or_default();
        let has = |text: &[u8], word: &str| {
            text.split(|byte| *byte == 0)
                .any(|it| it == word.as_bytes())
        };
        if has(&read("environ"), &variable) && has(&read("cmdline"), "up") {
            owners.push(id);
        }
    }
    Ok(owners)
}

/// Process 1 of the cluster in `work`, by its number on the machine.
pub fn init(work: &Path) -> Result<u32> {
    let state: serde_json::Value = serde_json::from_slice(&fs::read(work.join("state.json"))?)?;
    Ok(u32::try_from(
        state["init"]["id"].as_u64().context("no process")?,
    )?)
}
