//! Opens files that a container may have manipulated: without following links, without blocking,
//! and with a size limit.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{Mode, OFlags, ResolveFlags};

/// Opens the regular file at `path`; none of the last `depth` parts may be a link.
pub(super) fn open(path: &Path, depth: usize) -> io::Result<File> {
    let mut base = path;
    for _ in 0..depth {
        base = base.parent().unwrap_or(Path::new("/"));
    }
    let below = path.strip_prefix(base).map_err(io::Error::other)?;
    open_below(base, below)
}

/// Opens the regular file at `below`, a path below `base` without links.
fn open_below(base: &Path, below: &Path) -> io::Result<File> {
    let directory = rustix::fs::open(
        base,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let file = match rustix::fs::openat2(&directory, below, flags, Mode::empty(), resolve) {
        // Linux before 5.6, or a sandbox that forbids it: then at least the last part must not be a
        // link.
        Err(rustix::io::Errno::NOSYS | rustix::io::Errno::PERM) => {
            rustix::fs::openat(&directory, below, flags | OFlags::NOFOLLOW, Mode::empty())?
        }
        opened => opened?,
    };
    let file = File::from(file);
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::other("it is not a regular file")),
    }
}

/// Reads a small file.
pub(super) fn read(path: &Path, depth: usize, limit: u64) -> io::Result<Vec<u8>> {
    read_up_to(open(path, depth)?, limit)
}

/// Reads a small file of this user at `below`, a path below `base` without links.
pub(super) fn read_owned(base: &Path, below: &Path, owner: u32, limit: u64) -> io::Result<Vec<u8>> {
    let file = open_below(base, below)?;
    match file.metadata()?.uid() == owner {
        true => read_up_to(file, limit),
        false => Err(io::Error::other("it belongs to another user")),
    }
}

fn read_up_to(file: File, limit: u64) -> io::Result<Vec<u8>> {
    let too_long = || io::Error::other(format!("it has more than {limit} bytes"));
    // A file that is known to be too long is not read.
    if file.metadata()?.len() > limit {
        return Err(too_long());
    }
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > limit {
        true => Err(too_long()),
        false => Ok(bytes),
    }
}
