//! Where a cluster's files are, and the names that follow from its work folder.

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use aws_lc_rs::digest;

/// A unix socket's path has 107 usable bytes; the longest one below the work folder takes 46.
const LONGEST_WORK: usize = 60;

/// Folders that the node sees replaced by its own.
const REPLACED: [&str; 3] = ["/run", "/var/lib", "/var/log"];

/// This crate's folder. Cargo gives it to what it runs; a program that was
/// started by itself knows only where it was built, and clones that share a
/// target folder do not build it again.
pub fn folder() -> PathBuf {
    std::env::var_os("CARGO_MANIFEST_DIR")
        .unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into())
        .into()
}

#[derive(Clone, Debug)]
pub(crate) struct Layout {
    pub work: PathBuf,
    pub cache: PathBuf,
    /// Names the cgroup and the network link: at most 15 bytes, the longest that a link may have.
    pub identity: String,
}

impl Layout {
    pub fn new(work: &Path, cache: &Path) -> Result<Self> {
        let work = std::path::absolute(work)?;
        let text = work.as_os_str().as_encoded_bytes();
        ensure!(
            text.len() <= LONGEST_WORK,
            "the cluster's folder {} is longer than {LONGEST_WORK} bytes; set OUTRIDER_CLUSTER_DIR to a shorter one",
            work.display()
        );
        for replaced in REPLACED {
            ensure!(
                !work.starts_with(replaced),
                "the cluster's folder can't be below {replaced}; set OUTRIDER_CLUSTER_DIR to another one"
            );
        }
        let hash = digest::digest(&digest::SHA256, text);
        let identity = format!("outr-{}", &hex(hash.as_ref())[..8]);
        Ok(Self {
            work,
            cache: std::path::absolute(cache)?,
            identity,
        })
    }

    pub fn at(&self, relative: &str) -> PathBuf {
        self.work.join(relative)
    }

    /// Of the node's programs.
    pub fn source(&self) -> PathBuf {
        folder().join("node")
    }

    pub fn binary(&self, name: &str) -> PathBuf {
        self.cache.join("bin").join(name)
    }

    /// Held by the node for as long as it lives, whoever owns it.
    pub fn lock(&self) -> PathBuf {
        self.cache.join(format!("{}.lock", self.identity))
    }

    pub fn kubeconfig(&self) -> PathBuf {
        self.at("kubeconfig")
    }

    pub fn state(&self) -> PathBuf {
        self.at("state.json")
    }

    pub fn containerd(&self) -> PathBuf {
        self.at("containerd.sock")
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_identity_follows_the_folder_and_fits_a_link_name() {
        let one = Layout::new(Path::new("/a/one"), Path::new("/c")).unwrap();
        let two = Layout::new(Path::new("/a/two"), Path::new("/c")).unwrap();
        assert_ne!(one.identity, two.identity);
        assert!(one.identity.len() <= 15);
    }

    #[test]
    fn folders_that_cannot_work_are_refused() {
        let long = format!("/{}", "x".repeat(80));
        assert!(Layout::new(Path::new(&long), Path::new("/c")).is_err());
        assert!(Layout::new(Path::new("/run/cluster"), Path::new("/c")).is_err());
    }
}
