//! What handlers hold of the memory of processes that were let go: each of these processes is started
//! again and needs as much once more, so that many small ones together may be too much for the node.
//!
//! ```text
//! <spool>/.held/<id of a dump>     locked (`flock`) by its handler, holds a number of bytes
//! ```
//! Invariant: what a handler that has died held no longer counts, for its lock is free.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, OFlags, flock};

use crate::private_file::PrivateDirectory;

/// Directory of the notes in the spool.
const DIRECTORY: &str = ".held";
/// Notes that are read at most.
const NOTES: usize = 4096;

/// A note of how much is held; taken back when it is dropped.
#[derive(Debug)]
pub(crate) struct HeldMemory {
    path: PathBuf,
    _lock: File,
}

impl HeldMemory {
    /// Notes that the handler of dump `id` holds so many bytes; with it comes what all others hold.
    /// `None` where that cannot be noted.
    pub(crate) fn note(spool: &Path, id: &str, bytes: u64) -> Option<(Self, u64)> {
        let directory = spool.join(DIRECTORY);
        let _private = PrivateDirectory::make(&directory).ok()?;
        // Under its name only when it is locked, or another handler might consider this one dead.
        let (draft, path) = (directory.join(format!(".{id}")), directory.join(id));
        let mut file = open(&draft, true)?;
        let written = flock(&file, FlockOperation::NonBlockingLockExclusive)
            .map_err(std::io::Error::from)
            .and_then(|()| file.write_all(bytes.to_string().as_bytes()))
            .and_then(|()| fs::rename(&draft, &path));
        if written.is_err() {
            let _ = fs::remove_file(&draft);
            return None;
        }
        let held = Self { path, _lock: file };
        // Only now: of two that look at the same time, at least one sees the other.
        let others = fs::read_dir(&directory).ok()?.flatten().take(NOTES);
        let others = others
            .filter(|entry| !entry.file_name().as_encoded_bytes().starts_with(b"."))
            .map(|entry| entry.path())
            .filter(|path| *path != held.path)
            .map(|path| held_in(&path))
            .fold(0, u64::saturating_add);
        Some((held, others))
    }
}

impl Drop for HeldMemory {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// What a note says whose handler lives; the note of one that has died is removed.
fn held_in(path: &Path) -> u64 {
    let Some(file) = open(path, false) else {
        return 0;
    };
    if flock(&file, FlockOperation::NonBlockingLockShared).is_ok() {
        let _ = fs::remove_file(path);
        return 0;
    }
    let mut text = String::new();
    let _ = file.take(20).read_to_string(&mut text);
    text.trim().parse().unwrap_or(0)
}

fn open(path: &Path, create: bool) -> Option<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(create).create_new(create);
    options.mode(0o600);
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    options.custom_flags(flags.bits().cast_signed());
    options.open(path).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_hold_counts_until_they_end_however_they_end() {
        let spool = tempfile::tempdir().unwrap();
        let note = |id: &str, bytes| HeldMemory::note(spool.path(), id, bytes).unwrap();
        let (first, others) = note("a", 100);
        assert_eq!(others, 0);
        let (second, others) = note("b", 30);
        assert_eq!(others, 100);
        drop(first);
        // As a handler that was killed leaves it.
        fs::write(spool.path().join(DIRECTORY).join("dead"), "5000").unwrap();
        let (_third, others) = note("c", 1);
        assert_eq!(others, 30);
        assert!(!spool.path().join(DIRECTORY).join("dead").exists());
        drop(second);
        assert_eq!(note("d", 1).1, 1);
    }

    #[test]
    fn without_a_spool_nothing_is_noted() {
        assert!(HeldMemory::note(Path::new("/nonexistent/spool"), "a", 1).is_none());
    }
}
