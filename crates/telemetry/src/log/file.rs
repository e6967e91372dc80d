//! A log file. With a limit of its size it is put aside when it is full, and a
//! new one begins.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use flate2::Compression;
use flate2::write::GzEncoder;
use jiff::Timestamp;

/// Bytes of a file that is limited in another way only.
const SIZE: u64 = 100 << 20;
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const COMPRESSED: &str = ".gz";

/// What is kept. Zero and false mean without limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rotation {
    /// MiB of one file.
    pub max_size: u64,
    /// Files besides the one that is written.
    pub max_backups: usize,
    /// Days that such a file is kept.
    pub max_age: u64,
    /// Whether they are compressed.
    pub compress: bool,
}

impl Rotation {
    fn limit(self) -> Option<u64> {
        match self.max_size {
            0 if self == Self::default() => None,
            0 => Some(SIZE),
            size => Some(size << 20),
        }
    }
}

pub struct LogFile {
    path: PathBuf,
    file: File,
    size: u64,
    limit: Option<u64>,
    rotation: Rotation,
    /// What deletes and compresses files beside the log.
    tidying: Option<JoinHandle<()>>,
}

impl LogFile {
    pub fn open(path: PathBuf, rotation: Rotation) -> io::Result<Self> {
        let file = append(&path)?;
        let size = file.metadata()?.len();
        let mut log = Self {
            path,
            file,
            size,
            limit: rotation.limit(),
            rotation,
            tidying: None,
        };
        if log.limit.is_some() {
            log.tidy();
        }
        Ok(log)
    }

    /// Puts the file aside. Where that does not work it is written further.
    fn rotate(&mut self) {
        let aside = aside(&self.path, &Timestamp::now());
        let renamed = std::fs::rename(&self.path, aside);
        if let Ok(file) = renamed.and_then(|()| append(&self.path)) {
            self.file = file;
        }
        self.size = 0;
        self.tidy();
    }

    fn tidy(&mut self) {
        if let Some(running) = self.tidying.take_if(|running| running.is_finished()) {
            // It has ended, and a panic in it was printed.
            let _ = running.join();
        }
        if self.tidying.is_some() {
            return;
        }
        let (path, rotation) = (self.path.clone(), self.rotation);
        let started = std::thread::Builder::new()
            .name("log files".to_owned())
            .spawn(move || tidy(&path, rotation));
        self.tidying = started.ok();
    }
}

impl Write for LogFile {
    /// Writes lines as far as they fit into the file.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(limit) = self.limit else {
            return self.file.write(bytes);
        };
        let room = usize::try_from(limit.saturating_sub(self.size)).unwrap_or(usize::MAX);
        let end = if bytes.len() <= room {
            bytes.len()
        } else {
            match bytes[..room].iter().rposition(|b| *b == b'\n') {
                Some(last) => last + 1,
                None => {
                    if self.size > 0 {
                        self.rotate();
                    }
                    // A line of its own, however long it is.
                    let line = bytes.iter().position(|b| *b == b'\n');
                    line.map_or(bytes.len(), |at| at + 1)
                }
            }
        };
        self.file.write_all(&bytes[..end])?;
        self.size += end as u64;
        Ok(end)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

/// Name and ending of a log file.
fn parts(path: &Path) -> (String, String) {
    let text = |part: Option<&std::ffi::OsStr>| {
        part.map_or(String::new(), |part| part.to_string_lossy().into_owned())
    };
    let ending = match text(path.extension()) {
        ending if ending.is_empty() => ending,
        ending => format!(".{ending}"),
    };
    (text(path.file_stem()), ending)
}

/// `daprd.log` as `daprd-2026-02-03T16-05-06.070.log`.
fn aside(path: &Path, now: &Timestamp) -> PathBuf {
    let (name, ending) = parts(path);
    let time = now.strftime("%Y-%m-%dT%H-%M-%S%.3f");
    path.with_file_name(format!("{name}-{time}{ending}"))
}

/// Deletes files beside the log that are too many or too old, and compresses
/// the others if that is wanted. What fails is tried again with the next one.
fn tidy(path: &Path, rotation: Rotation) {
    let mut files = beside(path);
    // The newest first: their names say when.
    files.sort_by(|a, b| b.cmp(a));
    let oldest = match rotation.max_age {
        0 => None,
        days => SystemTime::now()
            .checked_sub(DAY.saturating_mul(u32::try_from(days).unwrap_or(u32::MAX))),
    };
    for (index, file) in files.iter().enumerate() {
        let is_old = oldest.is_some_and(|oldest| {
            let changed = file.metadata().and_then(|m| m.modified());
            changed.is_ok_and(|changed| changed < oldest)
        });
        if is_old || (rotation.max_backups > 0 && index >= rotation.max_backups) {
            let _ = std::fs::remove_file(file);
        } else if rotation.compress && !file.to_string_lossy().ends_with(COMPRESSED) {
            let _ = compress(file);
        }
    }
}

/// The files that were put aside.
fn beside(path: &Path) -> Vec<PathBuf> {
    let (name, ending) = parts(path);
    let begin = format!("{name}-");
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let is_ours = |file: &PathBuf| {
        let Some(file) = file.file_name().and_then(|file| file.to_str()) else {
            return false;
        };
        let plain = file.strip_suffix(COMPRESSED).unwrap_or(file);
        let time = plain.strip_prefix(&begin);
        let time = time.and_then(|rest| rest.strip_suffix(ending.as_str()));
        time.is_some_and(|time| jiff::fmt::strtime::parse("%Y-%m-%dT%H-%M-%S%.f", time).is_ok())
    };
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(is_ours).collect()
}

fn compress(file: &Path) -> io::Result<()> {
    let mut name = file.as_os_str().to_owned();
    name.push(COMPRESSED);
    let packed = PathBuf::from(name);
    let result = (|| {
        let mut encoder = GzEncoder::new(File::create(&packed)?, Compression::default());
        io::copy(&mut File::open(file)?, &mut encoder)?;
        encoder.finish()?.sync_all()
    })();
    let leftover = if result.is_ok() { file } else { &packed };
    std::fs::remove_file(leftover)?;
    result
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    fn content(path: &Path) -> String {
        std::fs::read_to_string(path).unwrap()
    }

    fn file(folder: &Path, limit: u64, rotation: Rotation) -> LogFile {
        let mut log = LogFile::open(folder.join("daprd.log"), rotation).unwrap();
        log.limit = Some(limit);
        log
    }

    fn settle(log: &mut LogFile) {
        if let Some(running) = log.tidying.take() {
            running.join().unwrap();
        }
    }

    #[test]
    fn a_full_file_is_put_aside_between_two_lines() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = file(folder.path(), 10, Rotation::default());
        log.write_all(b"one\ntwo\nthree\na very long line\nend\n")
            .unwrap();
        settle(&mut log);
        assert_eq!(content(&log.path), "end\n");
        let mut texts: Vec<String> = beside(&log.path).iter().map(|f| content(f)).collect();
        texts.sort();
        // Those of one millisecond have one name, and the last one stays.
        assert!(!texts.is_empty());
        for text in texts {
            assert!(["one\ntwo\n", "three\n", "a very long line\n"].contains(&text.as_str()));
        }
    }

    #[test]
    fn without_a_limit_the_file_grows() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        for text in ["one\n", "two\n"] {
            let mut log = LogFile::open(path.clone(), Rotation::default()).unwrap();
            log.write_all(text.as_bytes()).unwrap();
        }
        assert_eq!(content(&path), "one\ntwo\n");
    }

    #[test]
    fn old_files_and_too_many_are_deleted_others_compressed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("daprd.log");
        for second in 10..15 {
            let name = format!("daprd-2026-02-03T16-05-{second}.000.log");
            std::fs::write(folder.path().join(name), "line\n").unwrap();
        }
        let foreign = folder.path().join("daprd-other.log");
        std::fs::write(&foreign, "").unwrap();
        let rotation = Rotation {
            max_backups: 2,
            compress: true,
            ..Rotation::default()
        };
        tidy(&path, rotation);
        let mut files = beside(&path);
        files.sort();
        let names: Vec<_> = files
            .iter()
            .map(|f| f.file_name().unwrap().to_str().unwrap())
            .collect();
        assert_eq!(
            names,
            [
                "daprd-2026-02-03T16-05-13.000.log.gz",
                "daprd-2026-02-03T16-05-14.000.log.gz"
            ]
        );
        let mut text = String::new();
        let packed = File::open(&files[0]).unwrap();
        flate2::read::GzDecoder::new(packed)
            .read_to_string(&mut text)
            .unwrap();
        assert_eq!(text, "line\n");
        assert!(foreign.exists());
        let old = SystemTime::now() - DAY * 3;
        File::options()
            .append(true)
            .open(&files[0])
            .unwrap()
            .set_modified(old)
            .unwrap();
        let rotation = Rotation {
            max_age: 2,
            ..Rotation::default()
        };
        tidy(&path, rotation);
        assert_eq!(beside(&path), files[1..]);
    }
}
