//! Container images of one layer, written without a builder: some files of this machine, and how to run them.

mod archive;
mod libraries;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};

/// The image that holds a pod's namespaces open.
pub(crate) const NODE_PAUSE: &str = "outrider.local/pause:1";

/// Programs run as this user unless another is given; its name in the image is `nonroot`.
const NONROOT: u32 = 65532;

const AUTHORITIES: &str = "/etc/ssl/certs/ca-certificates.crt";

/// What an image consists of. The same description and files always give the same bytes.
#[derive(Clone, Debug)]
pub struct Image {
    reference: String,
    entries: BTreeMap<String, Entry>,
    user: (u32, u32),
    environment: Vec<String>,
    entrypoint: Vec<String>,
    command: Vec<String>,
    labels: BTreeMap<String, String>,
    libraries: bool,
}

#[derive(Clone, Debug)]
enum Entry {
    Folder { mode: u32 },
    File { source: PathBuf, mode: u32 },
    Text { content: String, mode: u32 },
}

impl Image {
    /// An image under its full name, such as `outrider.local/app:1`, with a passwd file, `/tmp` and nothing else.
    pub fn new(reference: &str) -> Self {
        let image = Self {
            reference: reference.to_owned(),
            entries: BTreeMap::new(),
            user: (NONROOT, NONROOT),
            environment: vec![
                "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned(),
            ],
            entrypoint: Vec::new(),
            command: Vec::new(),
            labels: BTreeMap::new(),
            libraries: false,
        };
        image
            .folder("/tmp", 0o1777)
            .text("/etc/nsswitch.conf", "hosts: files dns\n", 0o644)
    }

    /// A program of this machine; the first one becomes the entrypoint if none is set.
    pub fn program(mut self, source: impl AsRef<Path>, path: &str) -> Self {
        if self.entrypoint.is_empty() {
            self.entrypoint.push(path.to_owned());
        }
        self.file(source, path, 0o755)
    }

    pub fn file(mut self, source: impl AsRef<Path>, path: &str, mode: u32) -> Self {
        let source = source.as_ref().to_owned();
        self.entries
            .insert(path.to_owned(), Entry::File { source, mode });
        self
    }

    pub fn text(mut self, path: &str, content: &str, mode: u32) -> Self {
        let content = content.to_owned();
        self.entries
            .insert(path.to_owned(), Entry::Text { content, mode });
        self
    }

    pub fn folder(mut self, path: &str, mode: u32) -> Self {
        self.entries.insert(path.to_owned(), Entry::Folder { mode });
        self
    }

    /// Adds what the dynamic linker would load for each program.
    pub fn with_shared_libraries(mut self) -> Self {
        self.libraries = true;
        self
    }

    /// Adds this machine's certificate authorities.
    pub fn with_authorities(self) -> Self {
        self.file(AUTHORITIES, AUTHORITIES, 0o644)
    }

    pub fn user(mut self, user: u32, group: u32) -> Self {
        self.user = (user, group);
        self
    }

    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push(format!("{name}={value}"));
        self
    }

    pub fn entrypoint(mut self, words: &[&str]) -> Self {
        self.entrypoint = words.iter().map(|&word| word.to_owned()).collect();
        self
    }

    /// Arguments that a pod's `args` replace.
    pub fn command(mut self, words: &[&str]) -> Self {
        self.command = words.iter().map(|&word| word.to_owned()).collect();
        self
    }

    pub fn label(mut self, name: &str, value: &str) -> Self {
        self.labels.insert(name.to_owned(), value.to_owned());
        self
    }

    pub fn reference(&self) -> &str {
        &self.reference
    }

    /// Every entry with the folders above it.
    fn whole(&self) -> Result<BTreeMap<String, Entry>> {
        let mut entries = self.entries.clone();
        let (user, group) = self.user;
        for (path, content) in [
            ("/etc/passwd", passwd(user, group)),
            ("/etc/group", format!("root:x:0:\nnonroot:x:{group}:\n")),
        ] {
            entries.entry(path.to_owned()).or_insert(Entry::Text {
                content,
                mode: 0o644,
            });
        }
        if self.libraries {
            let programs = self.entries.values().filter_map(|entry| match entry {
                Entry::File { source, mode } if mode & 0o111 != 0 => Some(source),
                _ => None,
            });
            for program in programs {
                for library in libraries::of(program)? {
                    let path = library.to_string_lossy().into_owned();
                    let mode = 0o755;
                    entries.entry(path).or_insert(Entry::File {
                        source: library,
                        mode,
                    });
                }
            }
        }
        let paths: Vec<String> = entries.keys().cloned().collect();
        for path in paths {
            ensure!(
                path.starts_with('/'),
                "{path} is not an absolute path of the image {}",
                self.reference
            );
            for above in Path::new(&path).ancestors().skip(1) {
                let above = above.to_string_lossy().into_owned();
                if above != "/" {
                    entries
                        .entry(above)
                        .or_insert(Entry::Folder { mode: 0o755 });
                }
            }
        }
        Ok(entries)
    }

    /// Reads every file once; the result writes the archive as often as needed.
    pub fn build(&self) -> Result<Archive> {
        Archive::new(self).with_context(|| format!("can't make the image {}", self.reference))
    }
}

fn passwd(user: u32, group: u32) -> String {
    let mut lines = "root:x:0:0:root:/:/sbin/nologin\n".to_owned();
    if user != 0 {
        lines.push_str(&format!(
            "nonroot:x:{user}:{group}:nonroot:/tmp:/sbin/nologin\n"
        ));
    }
    lines
}

pub use archive::Archive;
