//! Opens files by untrusted names without following them outside of a directory.

use std::fs::File;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{Mode, OFlags, ResolveFlags};

/// Opens a regular file for reading. FIFOs, devices and sockets are refused without blocking on them.
///
/// # Errors
/// As `open(2)`; `InvalidInput` if it is not a regular file.
pub fn open_regular(path: &Path) -> io::Result<File> {
    let file = std::fs::OpenOptions::new()
        .read(true)
        .custom_flags(OFlags::NONBLOCK.bits().cast_signed() | OFlags::NOCTTY.bits().cast_signed())
        .open(path)?;
    only_regular(file)
}

/// Opens `path` as a process with the root directory `root` would: links and `..` cannot leave it.
///
/// # Errors
/// As `openat2(2)`; `InvalidInput` if it is not a regular file.
pub fn open_in_root(root: &Path, path: &Path) -> io::Result<File> {
    let directory = rustix::fs::open(
        root,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    let relative: PathBuf = path
        .components()
        .filter(|part| !matches!(part, Component::RootDir))
        .collect();
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let file = rustix::fs::openat2(&directory, &relative, flags, Mode::empty(), resolve)?;
    only_regular(File::from(file))
}

/// Opens `path` below `root`: a link or `..` that leads out of it is an error.
///
/// # Errors
/// As `openat2(2)`; `InvalidInput` if it is not a regular file.
pub(super) fn open_beneath(root: &Path, path: &Path) -> io::Result<File> {
    let directory = rustix::fs::open(
        root,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    let file = rustix::fs::openat2(&directory, path, flags, Mode::empty(), resolve)?;
    only_regular(File::from(file))
}

fn only_regular(file: File) -> io::Result<File> {
    if file.metadata()?.is_file() {
        Ok(file)
    } else {
        Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "not a regular file",
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fifo_is_refused_without_waiting_for_a_writer() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("fifo");
        rustix::fs::mkfifoat(rustix::fs::CWD, &path, Mode::RUSR | Mode::WUSR).unwrap();
        assert!(open_regular(&path).is_err());
    }

    #[test]
    fn links_and_dots_do_not_leave_the_root() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        std::fs::create_dir(&root).unwrap();
        std::fs::write(dir.path().join("secret"), "outside").unwrap();
        std::os::unix::fs::symlink("../secret", root.join("link")).unwrap();
        std::os::unix::fs::symlink(dir.path().join("secret"), root.join("absolute")).unwrap();
        for name in ["/link", "/absolute", "/../secret"] {
            assert!(open_in_root(&root, Path::new(name)).is_err(), "{name}");
        }
    }
}
