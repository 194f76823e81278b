//! Opens files that a container may have a hand in: no link is followed, nothing is waited for, and
//! only so much is read.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use rustix::fs::{Mode, OFlags, ResolveFlags};

/// Opens the regular file at `path`, of whose last `depth` parts none may be a link.
pub(super) fn open(path: &Path, depth: usize) -> io::Result<File> {
    let mut base = path;
    for _ in 0..depth {
        base = base.parent().unwrap_or(Path::new("/"));
    }
    let directory = rustix::fs::open(
        base,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    let below = path.strip_prefix(base).map_err(io::Error::other)?;
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let file = match rustix::fs::openat2(&directory, below, flags, Mode::empty(), resolve) {
        // Linux before 5.6, or a sandbox that forbids it: then at least the last part is no link.
        Err(rustix::io::Errno::NOSYS | rustix::io::Errno::PERM) => {
            rustix::fs::openat(&directory, below, flags | OFlags::NOFOLLOW, Mode::empty())?
        }
        opened => opened?,
    };
    let file = File::from(file);
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::other("it is no regular file")),
    }
}

/// Reads a small file.
pub(super) fn read(path: &Path, depth: usize, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open(path, depth)?.take(limit + 1).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > limit {
        true => Err(io::Error::other(format!("it has more than {limit} bytes"))),
        false => Ok(bytes),
    }
}
