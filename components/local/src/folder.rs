//! Files of one folder and nothing outside it: the kernel resolves every name
//! inside the folder, and what changes meanwhile changes nothing about that.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::path::{Component as Part, Path, PathBuf};

use rustix::fs::{self, AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

const FOLDER: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::CLOEXEC);

/// Bytes of a file that are read: the answer is held in memory as a whole.
pub const LONGEST: u64 = 100 * 1024 * 1024;

/// A folder that is open.
pub struct Folder {
    path: PathBuf,
    root: OwnedFd,
}

/// The name of a file as a path below a folder: `..` leads to the folder
/// itself at most. None for what no path can have.
pub fn inside(name: &str) -> Option<PathBuf> {
    if name.contains('\0') {
        return None;
    }
    let mut path = PathBuf::new();
    for part in Path::new(name).components() {
        match part {
            Part::Normal(name) => path.push(name),
            Part::ParentDir => drop(path.pop()),
            Part::CurDir | Part::RootDir | Part::Prefix(_) => {}
        }
    }
    Some(path)
}

impl Folder {
    /// Opens a folder, and makes it where it is missing.
    pub fn create(path: PathBuf) -> io::Result<Folder> {
        std::fs::create_dir_all(&path)?;
        Folder::open_existing(path)
    }

    /// Opens a folder that is there.
    pub fn open_existing(path: PathBuf) -> io::Result<Folder> {
        let root = fs::open(&path, FOLDER, Mode::empty())?;
        Ok(Folder { path, root })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Opens what is below the folder; links lead nowhere else. `path` is one
    /// of [`inside`].
    fn open(&self, path: &Path, flags: OFlags, mode: Mode) -> io::Result<OwnedFd> {
        let path = if path.as_os_str().is_empty() {
            Path::new(".")
        } else {
            path
        };
        let flags = flags | OFlags::CLOEXEC;
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        match fs::openat2(&self.root, path, flags, mode, resolve) {
            Err(Errno::NOSYS | Errno::PERM) => self.open_without_links(path, flags, mode),
            opened => Ok(opened?),
        }
    }

    /// The same where the kernel or its filters do not have that call: no
    /// links are followed at all.
    fn open_without_links(&self, path: &Path, flags: OFlags, mode: Mode) -> io::Result<OwnedFd> {
        let mut parts: Vec<_> = path.iter().collect();
        let last = parts.pop().unwrap_or(".".as_ref());
        let mut folder = self.root.try_clone()?;
        for part in parts {
            folder = fs::openat(&folder, part, FOLDER | OFlags::NOFOLLOW, Mode::empty())?;
        }
        Ok(fs::openat(&folder, last, flags | OFlags::NOFOLLOW, mode)?)
    }

    /// The folder that a file is in, and its name there.
    fn parent<'a>(&self, path: &'a Path) -> io::Result<(OwnedFd, &'a Path)> {
        let Some(name) = path.file_name() else {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "the name of a file is missing: give the metadata fileName",
            ));
        };
        let parent = path.parent().unwrap_or(Path::new(""));
        Ok((self.open(parent, FOLDER, Mode::empty())?, Path::new(name)))
    }

    /// Writes a file, whose folders are made where they are missing.
    pub fn write(&self, path: &Path, data: &[u8]) -> io::Result<()> {
        let everyone = Mode::RWXU | Mode::RWXG | Mode::RWXO;
        let mut folder = PathBuf::new();
        for part in path.parent().into_iter().flat_map(Path::iter) {
            folder.push(part);
            let (parent, name) = self.parent(&folder)?;
            match fs::mkdirat(parent, name, everyone) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
        }
        if path.file_name().is_none() {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::NONBLOCK;
        let mode = Mode::RUSR | Mode::WUSR | Mode::RGRP | Mode::WGRP | Mode::ROTH | Mode::WOTH;
        let mut file = regular(self.open(path, flags, mode)?)?;
        file.set_len(0)?;
        file.write_all(data)
    }

    /// Reads a file of at most [`LONGEST`] bytes.
    pub fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK;
        let file = regular(self.open(path, flags, Mode::empty())?)?;
        let too_long = |size: u64| {
            let text = format!("the file has {size} bytes, and at most {LONGEST} are read");
            io::Error::new(io::ErrorKind::FileTooLarge, text)
        };
        let size = file.metadata()?.len();
        if size > LONGEST {
            return Err(too_long(size));
        }
        let mut data = Vec::new();
        // It may grow meanwhile.
        let read = file.take(LONGEST + 1).read_to_end(&mut data)? as u64;
        if read > LONGEST {
            return Err(too_long(read));
        }
        Ok(data)
    }

    /// Removes a file, a link or an empty folder, but never the folder itself.
    pub fn remove(&self, path: &Path) -> io::Result<()> {
        let (parent, name) = self.parent(path)?;
        match fs::unlinkat(&parent, name, AtFlags::empty()) {
            Err(Errno::ISDIR | Errno::PERM) => Ok(fs::unlinkat(&parent, name, AtFlags::REMOVEDIR)?),
            removed => Ok(removed?),
        }
    }

    /// Everything below a folder that is none itself, in the order of names,
    /// with absolute paths. Links are listed and not followed.
    pub fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        let top = match path.as_os_str().is_empty() {
            true => self.path.clone(),
            false => self.path.join(path),
        };
        let top = Folder {
            path: top,
            root: self.open(path, FOLDER, Mode::empty())?,
        };
        let mut found = Vec::new();
        // Paths and not open folders: there may be more than descriptors.
        let mut left = vec![PathBuf::new()];
        while let Some(below) = left.pop() {
            let is_top = below.as_os_str().is_empty();
            let folder = match top.open_without_links(&below, FOLDER, Mode::empty()) {
                Ok(folder) => folder,
                Err(error) if !is_top && is_passed_over(&error) => continue,
                Err(error) if !is_top && is_no_folder(&error) => {
                    found.push(top.path.join(below));
                    continue;
                }
                Err(error) => return Err(error),
            };
            for entry in Dir::read_from(&folder)? {
                let entry = entry?;
                let name = entry.file_name();
                if matches!(name.to_bytes(), b"." | b"..") {
                    continue;
                }
                let path = below.join(os_str(name.to_bytes()));
                // Some file systems do not tell what an entry is.
                let is_folder = match entry.file_type() {
                    FileType::Directory => true,
                    FileType::Unknown => match fs::statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW)
                    {
                        Ok(stat) => FileType::from_raw_mode(stat.st_mode) == FileType::Directory,
                        Err(Errno::NOENT) => continue,
                        Err(error) => return Err(error.into()),
                    },
                    _ => false,
                };
                if is_folder {
                    left.push(path);
                } else {
                    found.push(top.path.join(path));
                }
            }
        }
        found.sort();
        Ok(found)
    }
}

/// Whether a folder that could not be opened is gone, or nobody may look into
/// it: the list goes on without it.
fn is_passed_over(error: &io::Error) -> bool {
    use io::ErrorKind::{NotFound, PermissionDenied};
    matches!(error.kind(), NotFound | PermissionDenied)
}

/// Whether what was a folder is a file or a link by now.
fn is_no_folder(error: &io::Error) -> bool {
    let errno = Errno::from_io_error(error);
    matches!(errno, Some(Errno::NOTDIR | Errno::LOOP))
}

fn os_str(bytes: &[u8]) -> &std::ffi::OsStr {
    std::os::unix::ffi::OsStrExt::from_bytes(bytes)
}

/// Pipes and devices could block or do harm.
fn regular(file: OwnedFd) -> io::Result<File> {
    match FileType::from_raw_mode(fs::fstat(&file)?.st_mode) {
        FileType::RegularFile => Ok(File::from(file)),
        FileType::Directory => Err(io::ErrorKind::IsADirectory.into()),
        _ => Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "it is not a regular file",
        )),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use proptest::prelude::*;

    use super::*;

    /// A folder beside a file that nobody may reach.
    fn beside_a_secret() -> (tempfile::TempDir, Folder) {
        let outer = tempfile::tempdir().expect("a folder");
        std::fs::write(outer.path().join("secret"), "s3cret").expect("write");
        let folder = Folder::create(outer.path().join("root")).expect("is made");
        (outer, folder)
    }

    type Open = fn(&Folder, &Path, OFlags, Mode) -> io::Result<OwnedFd>;
    const WAYS: [Open; 2] = [Folder::open, Folder::open_without_links];

    #[test]
    fn no_name_leads_out_of_the_folder() {
        let (_outer, folder) = beside_a_secret();
        for name in [
            "../secret",
            "a/../../secret",
            "/../secret",
            "../root/../secret",
        ] {
            let path = inside(name).expect("is a path");
            for open in WAYS {
                assert!(open(&folder, &path, OFlags::RDONLY, Mode::empty()).is_err());
            }
        }
        assert_eq!(inside("../a/./b//../c"), Some(PathBuf::from("a/c")));
        assert_eq!(inside("a\0b"), None);
    }

    #[test]
    fn no_link_leads_out_of_the_folder() {
        let (outer, folder) = beside_a_secret();
        let secret = outer.path().join("secret");
        symlink(&secret, folder.path().join("absolute")).expect("link");
        symlink("../secret", folder.path().join("relative")).expect("link");
        symlink(outer.path(), folder.path().join("up")).expect("link");
        symlink("/proc/self/root", folder.path().join("magic")).expect("link");
        for name in ["absolute", "relative", "up/secret", "magic/etc/passwd"] {
            let path = Path::new(name);
            for open in WAYS {
                assert!(
                    open(&folder, path, OFlags::RDONLY, Mode::empty()).is_err(),
                    "{name}"
                );
            }
            folder.read(path).expect_err(name);
            // It may make a file of that name inside the folder.
            let _ = folder.write(path, b"x");
            assert_eq!(
                std::fs::read(&secret).expect("is there"),
                b"s3cret",
                "{name}"
            );
        }
        let _ = folder.remove(Path::new("up/secret"));
        assert!(secret.exists());
    }

    #[test]
    fn links_inside_the_folder_work() {
        let (_outer, folder) = beside_a_secret();
        folder.write(Path::new("..data/file"), b"x").expect("write");
        symlink("..data/file", folder.path().join("file")).expect("link");
        let read = folder.read(Path::new("file"));
        assert_eq!(read.expect("is there"), b"x");
        let all = folder.list(Path::new("")).expect("a folder");
        let root = folder.path();
        assert_eq!(all, [root.join("..data/file"), root.join("file")]);
    }

    #[test]
    fn more_folders_than_descriptors_are_listed() {
        use rustix::process::{Resource, getrlimit, setrlimit};
        let (_outer, folder) = beside_a_secret();
        let mut wanted = Vec::new();
        for n in 0..600 {
            let path = PathBuf::from(format!("{n:03}/file"));
            folder.write(&path, b"x").expect("write");
            wanted.push(folder.path().join(path));
        }
        // Enough for the tests that run meanwhile.
        let mut limit = getrlimit(Resource::Nofile);
        limit.current = Some(500);
        setrlimit(Resource::Nofile, limit).expect("less is allowed");
        assert_eq!(folder.list(Path::new("")).expect("a folder"), wanted);
    }

    #[test]
    fn only_what_is_gone_or_forbidden_is_left_out_of_a_list() {
        for (errno, passed_over) in [
            (Errno::NOENT, true),
            (Errno::ACCESS, true),
            (Errno::MFILE, false),
            (Errno::NFILE, false),
            (Errno::NOMEM, false),
            (Errno::IO, false),
        ] {
            assert_eq!(is_passed_over(&errno.into()), passed_over, "{errno}");
        }
    }

    #[test]
    fn a_file_that_is_too_long_is_not_read() {
        let (_outer, folder) = beside_a_secret();
        let file = File::create(folder.path().join("long")).expect("is made");
        file.set_len(LONGEST + 1).expect("a hole");
        let error = folder.read(Path::new("long")).expect_err("is too long");
        assert_eq!(
            error.to_string(),
            "the file has 104857601 bytes, and at most 104857600 are read"
        );
    }

    #[test]
    fn only_regular_files_are_read_and_written() {
        let (_outer, folder) = beside_a_secret();
        let pipe = folder.path().join("pipe");
        let made = fs::mknodat(fs::CWD, &pipe, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0);
        made.expect("a pipe");
        assert!(folder.read(Path::new("pipe")).is_err());
        assert!(folder.write(Path::new("pipe"), b"x").is_err());
        assert!(folder.read(Path::new("")).is_err());
        assert!(folder.write(Path::new(""), b"x").is_err());
        assert!(folder.remove(Path::new("")).is_err());
    }

    #[test]
    fn a_shorter_file_replaces_a_longer_one() {
        let (_outer, folder) = beside_a_secret();
        let path = Path::new("a/b");
        folder.write(path, b"long").expect("write");
        folder.write(path, b"x").expect("write");
        assert_eq!(folder.read(path).expect("is there"), b"x");
        assert!(folder.remove(Path::new("a")).is_err());
        folder.remove(path).expect("a file");
        folder.remove(Path::new("a")).expect("an empty folder");
    }

    proptest! {
        #[test]
        fn prop_paths_have_no_way_up(name in "[a./\\\\ ]{0,20}") {
            let path = inside(&name).expect("no null");
            prop_assert!(path.components().all(|part| matches!(part, Part::Normal(_))));
        }
    }
}
