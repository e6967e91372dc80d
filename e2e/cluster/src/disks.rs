//! Disks that pods may claim, as folders of this machine.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use anyhow::{Context as _, Result};

use crate::cluster::Cluster;

impl Cluster {
    /// Adds as many disks of 16 GiB, for claims without a storage class. A cluster
    /// of the user's is left alone: it has a class of its own.
    pub async fn add_disks(&self, count: usize) -> Result<()> {
        if !self.is_embedded() {
            return Ok(());
        }
        let mut manifests = String::new();
        for number in 0..count {
            let folder = self.layout.at(&format!("disks/{number}"));
            fs::create_dir_all(&folder)?;
            // Kubernetes does not change the owner of a folder of the node.
            fs::set_permissions(&folder, fs::Permissions::from_mode(0o777))?;
            let path = folder.to_str().context("the disk's path is no text")?;
            manifests += &format!(
                "\
apiVersion: v1
kind: PersistentVolume
metadata: {{name: disk-{number}}}
spec:
  capacity: {{storage: 16Gi}}
  accessModes: [ReadWriteOnce]
  hostPath: {{path: {path:?}, type: Directory}}
---
"
            );
        }
        self.apply(&manifests).await
    }
}
