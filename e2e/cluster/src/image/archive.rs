//! The archive format: an OCI image layout in a tar, with the older `manifest.json` beside its index.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use anyhow::{Context as _, Result};
use aws_lc_rs::digest;
use serde_json::{Value, json};
use tar::{Builder, EntryType, Header};

use super::{Entry, Image};
use crate::layout::hex;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// An image whose digests are known, ready to be written.
pub struct Archive {
    reference: String,
    entries: BTreeMap<String, Entry>,
    layer: Blob,
    config: Vec<u8>,
    manifest: Vec<u8>,
}

#[derive(Clone)]
struct Blob {
    digest: String,
    size: u64,
}

impl Blob {
    fn of(bytes: &[u8]) -> Self {
        Self {
            digest: hex(digest::digest(&digest::SHA256, bytes).as_ref()),
            size: bytes.len() as u64,
        }
    }

    fn path(&self) -> String {
        format!("blobs/sha256/{}", self.digest)
    }

    fn descriptor(&self, kind: &str) -> Value {
        json!({"mediaType": kind, "digest": format!("sha256:{}", self.digest), "size": self.size})
    }
}

/// Counts and hashes what is written to it.
struct Meter {
    context: digest::Context,
    size: u64,
}

impl Write for Meter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.context.update(bytes);
        self.size += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Archive {
    pub(super) fn new(image: &Image) -> Result<Self> {
        let entries = image.whole()?;
        let mut meter = Meter {
            context: digest::Context::new(&digest::SHA256),
            size: 0,
        };
        write_layer(&entries, &mut meter)?;
        let layer = Blob {
            digest: hex(meter.context.finish().as_ref()),
            size: meter.size,
        };
        let (user, group) = image.user;
        let config = serde_json::to_vec(&json!({
            "architecture": architecture(),
            "os": "linux",
            "config": {
                "User": format!("{user}:{group}"),
                "Env": image.environment,
                "Entrypoint": image.entrypoint,
                "Cmd": image.command,
                "Labels": image.labels,
                "WorkingDir": "/",
            },
            "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{}", layer.digest)]},
        }))?;
        let manifest = serde_json::to_vec(&json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": Blob::of(&config).descriptor(CONFIG),
            "layers": [layer.descriptor(LAYER)],
        }))?;
        Ok(Self {
            reference: image.reference.clone(),
            entries,
            layer,
            config,
            manifest,
        })
    }

    pub fn reference(&self) -> &str {
        &self.reference
    }

    /// The manifest's digest, by which registries and containerd know the image.
    pub fn digest(&self) -> String {
        format!("sha256:{}", Blob::of(&self.manifest).digest)
    }

    pub fn write(&self, out: impl Write) -> Result<()> {
        let (config, manifest) = (Blob::of(&self.config), Blob::of(&self.manifest));
        let mut index = manifest.descriptor(MANIFEST);
        let tag = self
            .reference
            .rsplit_once(':')
            .map_or("latest", |(_, tag)| tag);
        index["annotations"] = json!({
            "io.containerd.image.name": self.reference,
            "org.opencontainers.image.ref.name": tag,
        });
        let index = json!({"schemaVersion": 2, "manifests": [index]});
        let docker = json!([{
            "Config": config.path(),
            "RepoTags": [self.reference],
            "Layers": [self.layer.path()],
        }]);

        let mut tar = Builder::new(out);
        let mut plain =
            |path: &str, bytes: &[u8]| append(&mut tar, path, bytes.len() as u64, bytes);
        plain("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        plain("index.json", &serde_json::to_vec(&index)?)?;
        plain("manifest.json", &serde_json::to_vec(&docker)?)?;
        plain(&config.path(), &self.config)?;
        plain(&manifest.path(), &self.manifest)?;
        self.append_layer(&mut tar)?;
        tar.into_inner()?.flush()?;
        Ok(())
    }

    /// The layer goes from its files to the archive through a pipe: it may be larger than is good to hold.
    fn append_layer<W: Write>(&self, tar: &mut Builder<W>) -> Result<()> {
        let (reader, writer) = io::pipe()?;
        std::thread::scope(|scope| {
            let layer = scope.spawn(|| write_layer(&self.entries, writer));
            let appended = append(tar, &self.layer.path(), self.layer.size, reader);
            match layer.join() {
                Ok(written) => written.and(appended),
                Err(_) => appended,
            }
        })
        .context("a file of the image changed while it was written")
    }
}

fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn append<W: Write>(tar: &mut Builder<W>, path: &str, size: u64, content: impl Read) -> Result<()> {
    let mut header = header(EntryType::Regular, 0o644);
    header.set_size(size);
    Ok(tar.append_data(&mut header, path, content)?)
}

/// Owner root, time zero: nothing of the machine or the moment.
fn header(kind: EntryType, mode: u32) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(0);
    header
}

fn write_layer(entries: &BTreeMap<String, Entry>, out: impl Write) -> Result<()> {
    let mut tar = Builder::new(out);
    for (path, entry) in entries {
        let place = Path::new(path.trim_start_matches('/'));
        match entry {
            Entry::Folder { mode } => {
                tar.append_data(&mut header(EntryType::Directory, *mode), place, io::empty())?;
            }
            Entry::Text { content, mode } => {
                let mut header = header(EntryType::Regular, *mode);
                header.set_size(content.len() as u64);
                tar.append_data(&mut header, place, content.as_bytes())?;
            }
            Entry::File { source, mode } => {
                let file = File::open(source)
                    .with_context(|| format!("can't open {}", source.display()))?;
                let mut header = header(EntryType::Regular, *mode);
                header.set_size(file.metadata()?.len());
                tar.append_data(&mut header, place, file)?;
            }
        }
    }
    tar.into_inner()?.flush()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image() -> Image {
        Image::new("outrider.local/one:7")
            .program("/proc/self/exe", "/usr/bin/one")
            .text("/etc/one.conf", "x", 0o600)
            .label("a", "b")
    }

    #[test]
    fn the_same_description_gives_the_same_bytes() {
        let (mut first, mut second) = (Vec::new(), Vec::new());
        image().build().unwrap().write(&mut first).unwrap();
        image().build().unwrap().write(&mut second).unwrap();
        assert!(first == second);
        assert_ne!(
            image().env("A", "1").build().unwrap().digest(),
            image().build().unwrap().digest()
        );
    }

    #[test]
    fn every_blob_has_the_digest_that_names_it_and_folders_come_first() {
        let mut bytes = Vec::new();
        image().build().unwrap().write(&mut bytes).unwrap();
        let mut blobs = 0;
        let mut paths = Vec::new();
        for entry in tar::Archive::new(&bytes[..]).entries().unwrap() {
            let mut entry = entry.unwrap();
            let path = entry.path().unwrap().to_string_lossy().into_owned();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            if let Some(name) = path.strip_prefix("blobs/sha256/") {
                assert_eq!(Blob::of(&content).digest, name);
                blobs += 1;
                for inner in tar::Archive::new(&content[..]).entries().unwrap().flatten() {
                    paths.push(inner.path().unwrap().to_string_lossy().into_owned());
                }
            }
        }
        assert_eq!(blobs, 3);
        let place = |path: &str| {
            paths
                .iter()
                .position(|found| found.trim_end_matches('/') == path)
                .unwrap()
        };
        assert!(place("usr") < place("usr/bin") && place("usr/bin") < place("usr/bin/one"));
        assert!(place("etc/passwd") > 0);
    }
}
