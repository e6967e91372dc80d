//! The control groups above all pods, in either version of the kernel's interface.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context as _, Result};

const ROOT: &str = "/sys/fs/cgroup";

pub(crate) fn create(identity: &str) -> Result<()> {
    let root = Path::new(ROOT);
    if root.join("cgroup.controllers").exists() {
        for controller in ["cpu", "cpuset", "memory", "pids", "io", "hugetlb"] {
            // The kubelet names those that it needs and doesn't find.
            let _ = fs::write(
                root.join("cgroup.subtree_control"),
                format!("+{controller}"),
            );
        }
        return folder(&root.join(identity));
    }
    for entry in fs::read_dir(root)? {
        let hierarchy = entry?.path();
        if !hierarchy.is_dir() || hierarchy.ends_with("unified") {
            continue;
        }
        let group = hierarchy.join(identity);
        folder(&group)?;
        // A new group of this hierarchy has no processors and no memory until they are written.
        for setting in ["cpuset.cpus", "cpuset.mems"] {
            if let Ok(value) = fs::read(hierarchy.join(setting)) {
                fs::write(group.join(setting), value)?;
            }
        }
    }
    Ok(())
}

fn folder(path: &Path) -> Result<()> {
    match fs::create_dir(path) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => {
            Err(error).with_context(|| format!("can't make the cgroup {}", path.display()))
        }
        _ => Ok(()),
    }
}
