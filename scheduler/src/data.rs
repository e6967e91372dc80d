//! The folder of the embedded store.

use std::fs::Permissions;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use crate::flags::{Embedded, Flags};

/// Written when the folder is first used: without it, whatever is there belongs
/// to something else.
const MARKER: &str = "dapr-scheduler-existing-cluster";
const STORE: &str = "dapr-0.1";

/// The folder of this member's store.
pub fn folder(flags: &Flags, etcd: &Embedded) -> PathBuf {
    let data = match flags.kubernetes {
        true => etcd.data.clone(),
        false => etcd.data.join(format!("{}-{}", flags.namespace, flags.id)),
    };
    data.join(STORE)
}

/// Makes the folder `store`, and the marker in `data`. Without the marker, what is
/// in the folder is moved aside, never deleted.
pub fn prepare(data: &Path, store: &Path) -> io::Result<()> {
    create(store)?;
    let marker = data.join(MARKER);
    if marker.try_exists()? {
        return Ok(());
    }
    if std::fs::read_dir(store)?.next().is_some() {
        let time = Timestamp::now().strftime("%Y%m%dT%H%M%S%.3fZ");
        let aside = store.with_file_name(format!("{STORE}.{time}"));
        std::fs::rename(store, &aside)?;
        create(store)?;
        tracing::warn!(target: "dapr.scheduler.etcd", "No existing cluster data found: what was in {} is now in {}", store.display(), aside.display());
    }
    std::fs::write(&marker, b"")
}

/// Nobody else may read jobs.
fn create(store: &Path) -> io::Result<()> {
    std::fs::create_dir_all(store)?;
    std::fs::set_permissions(store, Permissions::from_mode(0o700))
}

/// Whether the program etcd has its data there, as it has where another Dapr
/// scheduler ran before.
pub fn is_of_etcd(store: &Path) -> bool {
    store.join("member").is_dir()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_without_a_marker_is_moved_aside_and_never_deleted() {
        let root = tempfile::tempdir().unwrap();
        let (data, store) = (root.path(), root.path().join("default-a").join(STORE));
        std::fs::create_dir_all(&store).unwrap();
        std::fs::write(store.join("theirs"), b"1").unwrap();
        prepare(data, &store).unwrap();
        assert!(!store.join("theirs").exists());
        let folder = store.parent().unwrap();
        let aside = std::fs::read_dir(folder).unwrap().find_map(|entry| {
            let path = entry.unwrap().path();
            path.join("theirs").exists().then_some(path)
        });
        assert!(aside.is_some());
        std::fs::write(store.join("ours"), b"2").unwrap();
        prepare(data, &store).unwrap();
        assert!(store.join("ours").exists(), "with the marker it stays");
    }
}
