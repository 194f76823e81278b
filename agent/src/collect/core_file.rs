//! One file in a container that may be a core: opened without trust in its name or type, and judged complete or not.
//!
//! Invariant: only regular files with one link are read, through a descriptor of the directory, without following links
//! and without waiting for a FIFO. What the file holds is only believed where the owner is already known from its
//! place.

use std::ffi::OsStr;
use std::fs::{File, Metadata};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;

use cdh_elfcore::{CoreHead, FileSource};
use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags, openat2, unlinkat};
use serde::{Deserialize, Serialize};

/// A file as it was at one moment. Another file, or another content, is another identity.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct FileIdentity {
    inode: u64,
    bytes: u64,
    modified: i64,
    modified_ns: i64,
}

impl FileIdentity {
    fn of(metadata: &Metadata) -> Self {
        Self {
            inode: metadata.ino(),
            bytes: metadata.size(),
            modified: metadata.mtime(),
            modified_ns: metadata.mtime_nsec(),
        }
    }

    /// When the file was last written, in seconds since 1970.
    pub(super) fn modified_at(&self) -> i64 {
        self.modified
    }
}

/// An opened file.
#[derive(Debug)]
pub(super) struct CandidateFile {
    pub(super) file: File,
    pub(super) identity: FileIdentity,
    /// The user whose rights the process had for files: the kernel creates the core as that user.
    pub(super) uid: u32,
    pub(super) gid: u32,
}

/// Opens a name in a directory; `None` if it is not a regular file with one link.
pub(super) fn open(directory: impl AsFd, name: &OsStr) -> io::Result<Option<CandidateFile>> {
    let flags =
        OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    let file = match openat2(directory, name, flags, Mode::empty(), resolve) {
        Ok(file) => File::from(file),
        Err(rustix::io::Errno::LOOP | rustix::io::Errno::XDEV | rustix::io::Errno::NOENT) => {
            return Ok(None);
        }
        Err(error) => return Err(error.into()),
    };
    let metadata = file.metadata()?;
    // The kernel writes no core into a file with several links, and a second one could be of another place.
    let is_plain = metadata.is_file() && metadata.nlink() == 1;
    Ok(is_plain.then(|| CandidateFile {
        identity: FileIdentity::of(&metadata),
        uid: metadata.uid(),
        gid: metadata.gid(),
        file,
    }))
}

/// Removes the file if it is still the one that was stored.
pub(super) fn remove(directory: impl AsFd, name: &OsStr, stored: FileIdentity) -> io::Result<bool> {
    let Some(now) = open(&directory, name)? else {
        return Ok(false);
    };
    if now.identity != stored {
        return Ok(false);
    }
    unlinkat(&directory, name, AtFlags::empty())?;
    Ok(true)
}

/// How much of a core a file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Extent {
    /// As much as its headers promise.
    Complete,
    /// Less, or its headers are not there yet.
    Partial,
    /// It is no core.
    Foreign,
}

/// Compares the file's size with what its headers promise.
pub(super) fn extent(candidate: &CandidateFile) -> io::Result<Extent> {
    let source = FileSource::new(candidate.file.try_clone()?)?;
    Ok(match CoreHead::from_source(&source) {
        Ok(head) if candidate.identity.bytes >= head.expected_len() => Extent::Complete,
        Ok(_) => Extent::Partial,
        Err(cdh_elfcore::CoreError::Empty | cdh_elfcore::CoreError::HeadTruncated { .. }) => {
            Extent::Partial
        }
        Err(_) => Extent::Foreign,
    })
}
