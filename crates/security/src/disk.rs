//! The identity as files, for programs that read no other way.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::anchors::Roots;
use crate::identity::Svid;
use crate::pem;

/// Keeps `key.pem`, `cert.pem`, `ca.pem` and, when there is one,
/// `jwt_svid.token` under a path that is a symbolic link, so that readers see
/// all of one version or all of the next.
pub struct Directory {
    link: PathBuf,
    previous: Option<PathBuf>,
}

impl Directory {
    pub fn new(link: PathBuf) -> Self {
        Self {
            link,
            previous: None,
        }
    }

    pub(crate) fn write(&mut self, svid: &Svid, roots: &Roots) -> io::Result<()> {
        let link = std::path::absolute(&self.link)?;
        let (Some(parent), Some(name)) = (link.parent(), link.file_name()) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        private_directories().create(parent)?;
        let nanos = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default()
            .as_nanos();
        let name = name.to_string_lossy();
        let fresh = parent.join(format!("{nanos}-{name}"));
        private_directories().create(&fresh)?;
        write(
            &fresh.join("key.pem"),
            &pem::encode("PRIVATE KEY", svid.key_der()),
        )?;
        write(
            &fresh.join("cert.pem"),
            &pem::encode_certificates(svid.chain()),
        )?;
        write(&fresh.join("ca.pem"), roots.pem())?;
        if let Some(jwt) = svid.jwt() {
            write(&fresh.join("jwt_svid.token"), jwt)?;
        }
        let staged = parent.join(format!("{nanos}-{name}.link"));
        symlink(&fresh, &staged)?;
        if link.is_dir() && !link.is_symlink() {
            // Left by something else; a rename cannot replace it.
            fs::remove_dir(&link)?;
        }
        fs::rename(&staged, &link)?;
        if let Some(previous) = self.previous.replace(fresh) {
            fs::remove_dir_all(previous)?;
        }
        Ok(())
    }
}

fn private_directories() -> DirBuilder {
    let mut builder = DirBuilder::new();
    builder.recursive(true).mode(0o700);
    builder
}

fn write(path: &Path, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(text.as_bytes())
}
