//! One file in a container that may be a core: identified without trusting its name or type, and checked for
//! completeness.
//!
//! Invariant: only regular files with one link are opened, through a descriptor of the directory and without
//! following links. A file's content decides how long to wait for it, but never who its owner is.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use cdh_elfcore::{CoreError, FileSource, promised_len};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat, fstat, openat2, unlinkat};
use serde::{Deserialize, Serialize};

/// Maximum program headers that are read: the kernel's default of `vm.max_map_count` is 65,530. A core with more is
/// collected when it has stopped growing.
const MAX_HEADERS: u64 = 65_536;

/// The identity of a file at one moment. Another file, or other content, has another identity. Unique on one
/// device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct FileIdentity {
    inode: u64,
    bytes: u64,
    modified: i64,
    modified_ns: i64,
}

impl FileIdentity {
    fn of(stat: &Stat) -> Self {
        Self {
            inode: stat.st_ino,
            bytes: u64::try_from(stat.st_size).unwrap_or(0),
            modified: stat.st_mtime,
            modified_ns: i64::try_from(stat.st_mtime_nsec).unwrap_or(0),
        }
    }

    #[cfg(test)]
    pub(super) fn for_test(inode: u64, modified: i64) -> Self {
        Self {
            inode,
            bytes: u64::MAX,
            modified,
            modified_ns: 999_999_999,
        }
    }

    /// When the file was last written, in seconds since 1970.
    pub(super) fn modified_at(&self) -> i64 {
        self.modified
    }
}

/// A regular file with one link, not opened yet.
#[derive(Debug)]
pub(super) struct CandidateFile {
    handle: OwnedFd,
    pub(super) identity: FileIdentity,
    /// The user whose file permissions the process had: the kernel creates the core as that user.
    pub(super) uid: u32,
    pub(super) gid: u32,
}

impl CandidateFile {
    /// Opens this file for reading, even if its name was reused since.
    pub(super) fn open(&self) -> io::Result<File> {
        let path = format!("/proc/self/fd/{}", self.handle.as_raw_fd());
        // NONBLOCK: a lease held by the container must not delay us.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        Ok(rustix::fs::open(path, flags, Mode::empty())?.into())
    }
}

/// Inspects a name in a directory without opening the file, because opening a device has side effects. `None` if it
/// is not a regular file with one link.
pub(super) fn identify(directory: impl AsFd, name: &OsStr) -> io::Result<Option<CandidateFile>> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    let handle = match openat2(directory, name, flags, Mode::empty(), resolve) {
        Ok(handle) => handle,
        Err(rustix::io::Errno::LOOP | rustix::io::Errno::XDEV | rustix::io::Errno::NOENT) => {
            return Ok(None);
        }
        Err(error) => return Err(error.into()),
    };
    let stat = fstat(&handle)?;
    // The kernel writes no core into a file with several links, and another link could be in another
    // directory.
    let is_plain =
        FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile && stat.st_nlink == 1;
    Ok(is_plain.then(|| CandidateFile {
        handle,
        identity: FileIdentity::of(&stat),
        uid: stat.st_uid,
        gid: stat.st_gid,
    }))
}

/// Removes the file if it is still the one that was stored.
pub(super) fn remove(directory: impl AsFd, name: &OsStr, stored: FileIdentity) -> io::Result<bool> {
    let Some(now) = identify(&directory, name)? else {
        return Ok(false);
    };
    if now.identity != stored {
        return Ok(false);
    }
    unlinkat(&directory, name, AtFlags::empty())?;
    Ok(true)
}

/// How much of a core is in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Extent {
    /// All bytes that its headers promise.
    Complete,
    /// Fewer bytes, or incomplete headers.
    Partial,
    /// It is not a core.
    Foreign,
}

/// Compares the file's size with what its headers promise.
pub(super) fn extent(candidate: &CandidateFile) -> io::Result<Extent> {
    let source = FileSource::new(candidate.open()?)?;
    Ok(match promised_len(&source, MAX_HEADERS) {
        Ok(Some(promised)) if candidate.identity.bytes >= promised => Extent::Complete,
        Ok(_) => Extent::Partial,
        Err(CoreError::Io(error)) => return Err(error),
        Err(_) => Extent::Foreign,
    })
}
