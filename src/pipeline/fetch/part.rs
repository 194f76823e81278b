//! A partial case, and the journal of its progress.
//!
//! ```text
//! {"version":1,"origin":"s3://b at http://… dumps/….zip 4711 \"etag\""}
//! {"file":"proc.json","size":512,"crc32":7}
//! {"file":"core","piece":17,"crc32":4711}
//! ```
//!
//! The journal has one line per finished file or piece, in the order of completion. Invariants: the
//! writer holds the lock. A line is a claim: the data is read again and verified before it is used. A
//! journal of another dump, or of a later version, is deleted with everything beside it.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use cdh_bundle::Digests;
use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};

use crate::pipeline::Observer;
use crate::pipeline::cached_cases::remove_directory;

/// Increase it when the meaning of the lines changes.
const VERSION: u32 = 1;
/// The journal's name; no kind of entry has this name.
const JOURNAL: &str = "journal";
/// Time between two attempts to get the lock.
const PATIENCE: Duration = Duration::from_millis(100);

#[derive(Serialize, Deserialize)]
struct Header {
    version: u32,
    origin: String,
}

#[derive(Serialize, Deserialize)]
struct Line {
    file: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    piece: Option<usize>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    crc32: u32,
}

/// The directory and its journal.
pub(super) struct PartialFetch {
    directory: PathBuf,
    header: String,
    journal: File,
    files: BTreeMap<String, (u64, u32)>,
    pieces: BTreeMap<String, BTreeMap<usize, u32>>,
    resumed: bool,
}

impl PartialFetch {
    /// Opens the partial case that an earlier run left beside `target`, or creates one. Waits for
    /// another process that works on it.
    pub(super) fn open(target: &Path, origin: &str, observer: &dyn Observer) -> io::Result<Self> {
        let name = target.file_name().unwrap_or_default().to_string_lossy();
        let directory = target.with_file_name(format!(".{name}.part"));
        let header = Header {
            version: VERSION,
            origin: origin.to_owned(),
        };
        let header = serde_json::to_string(&header)?;
        let journal = lock(&directory, observer)?;
        let mut part = Self {
            directory,
            header,
            journal,
            files: BTreeMap::new(),
            pieces: BTreeMap::new(),
            resumed: false,
        };
        if part.read()? {
            part.resumed = true;
        } else {
            part.start_anew()?;
        }
        Ok(part)
    }

    /// Reads the journal; `false` if it belongs to another dump.
    fn read(&mut self) -> io::Result<bool> {
        self.journal.rewind()?;
        let mut lines = BufReader::new(&self.journal).lines();
        if !matches!(lines.next(), Some(Ok(header)) if header == self.header) {
            return Ok(false);
        }
        for line in lines.map_while(Result::ok) {
            // The last line is incomplete because of a kill.
            let Ok(line) = serde_json::from_str::<Line>(&line) else {
                continue;
            };
            match (line.piece, line.size) {
                (Some(piece), _) => {
                    let pieces = self.pieces.entry(line.file).or_default();
                    pieces.insert(piece, line.crc32);
                }
                (None, Some(size)) => {
                    self.files.insert(line.file, (size, line.crc32));
                }
                (None, None) => {}
            }
        }
        // Remove the incomplete line.
        self.journal.write_all(b"\n")?;
        Ok(true)
    }

    /// Deletes everything.
    pub(super) fn start_anew(&mut self) -> io::Result<()> {
        for item in fs::read_dir(&self.directory)?.flatten() {
            if item.file_name() != JOURNAL {
                fs::remove_file(item.path())?;
            }
        }
        self.journal.set_len(0)?;
        self.journal
            .write_all(format!("{}\n", self.header).as_bytes())?;
        self.files.clear();
        self.pieces.clear();
        self.resumed = false;
        Ok(())
    }

    /// Whether an earlier run made progress.
    pub(super) fn was_resumed(&self) -> bool {
        self.resumed
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Whether a file exists as the journal claims.
    pub(super) fn has_file(&self, name: &str) -> bool {
        let Some(&(size, crc32)) = self.files.get(name) else {
            return false;
        };
        let found = File::open(self.path(name)).and_then(Digests::of_reader);
        found.is_ok_and(|found| (found.size, found.crc32) == (size, crc32))
    }

    /// Creates a file anew.
    pub(super) fn new_file(&self, name: &str) -> io::Result<File> {
        File::options()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(self.path(name))
    }

    pub(super) fn finished_file(&mut self, name: &str, found: &Digests) -> io::Result<()> {
        self.files
            .insert(name.to_owned(), (found.size, found.crc32));
        self.line(&Line {
            file: name.to_owned(),
            piece: None,
            size: Some(found.size),
            crc32: found.crc32,
        })
    }

    /// Checksums of the pieces of a file that an earlier run has finished.
    pub(super) fn pieces(&self, file: &str) -> BTreeMap<usize, u32> {
        self.pieces.get(file).cloned().unwrap_or_default()
    }

    pub(super) fn finished_piece(
        &mut self,
        file: &str,
        piece: usize,
        crc32: u32,
    ) -> io::Result<()> {
        self.line(&Line {
            file: file.to_owned(),
            piece: Some(piece),
            size: None,
            crc32,
        })
    }

    fn line(&mut self, line: &Line) -> io::Result<()> {
        let mut text = serde_json::to_string(line)?;
        text.push('\n');
        self.journal.write_all(text.as_bytes())
    }

    /// Disk space that the part already uses, in bytes.
    pub(super) fn size_on_disk(&self) -> u64 {
        let items = fs::read_dir(&self.directory).into_iter().flatten();
        let sizes = items.flatten().filter_map(|item| item.metadata().ok());
        sizes.map(|metadata| metadata.blocks() * 512).sum()
    }

    /// Free bytes on the disk.
    pub(super) fn free_space(&self) -> Option<u64> {
        let space = rustix::fs::statvfs(&self.directory).ok()?;
        space.f_bavail.checked_mul(space.f_frsize)
    }

    /// Removes everything. Best effort, because the caller reports another error.
    pub(super) fn remove(self) {
        let _ = remove_directory(&self.directory);
    }

    /// Renames the part to the case. The journal, which is the lock, moves along and is removed afterwards. If it
    /// were removed first, another process could create and lock a new one in the directory that is about to
    /// become the case.
    pub(super) fn publish(self, target: &Path) -> io::Result<()> {
        File::open(&self.directory)?.sync_all()?;
        fs::rename(&self.directory, target)?;
        match fs::remove_file(target.join(JOURNAL)) {
            // `cdh cache clear` removed it first.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }
}

/// The locked journal. `observer` decides how long to wait for it.
fn lock(directory: &Path, observer: &dyn Observer) -> io::Result<File> {
    let mut is_told = false;
    loop {
        let mut private = DirBuilder::new();
        match private.recursive(true).mode(0o700).create(directory) {
            // The file existed, and was published or removed before `create` could inspect it.
            Err(error)
                if error.kind() == io::ErrorKind::AlreadyExists
                    && !fs::symlink_metadata(directory).is_ok_and(|found| !found.is_dir()) =>
            {
                continue;
            }
            other => other?,
        }
        // In a directory that others can write to, another user may have created it, or a link.
        let found = match fs::symlink_metadata(directory) {
            // The process that held the lock has just published or removed the part.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            other => other?,
        };
        if !found.is_dir() || found.uid() != rustix::process::geteuid().as_raw() {
            let text = format!("`{}` belongs to another user", directory.display());
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
        }
        let mut options = OpenOptions::new();
        options.read(true).append(true).create(true).mode(0o600);
        let file = match options.open(directory.join(JOURNAL)) {
            // Its last user has just published or removed it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            other => other?,
        };
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) if is_same(&file, &directory.join(JOURNAL)) => return Ok(file),
            Ok(()) => continue,
            Err(rustix::io::Errno::WOULDBLOCK) => {}
            Err(error) => return Err(error.into()),
        }
        if !is_told {
            observer.started("waiting for another cdh that fetches it", None);
            is_told = true;
        }
        if observer.is_cancelled() {
            return Err(io::ErrorKind::Interrupted.into());
        }
        std::thread::sleep(PATIENCE);
    }
}

/// Whether the open file still has this name.
fn is_same(file: &File, path: &Path) -> bool {
    let (Ok(open), Ok(named)) = (file.metadata(), fs::metadata(path)) else {
        return false;
    };
    (open.dev(), open.ino()) == (named.dev(), named.ino())
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Nobody;
    impl Observer for Nobody {
        fn started(&self, _: &str, _: Option<u64>) {}
        fn advanced(&self, _: u64) {}
        fn finished(&self) {}
    }

    fn part(target: &Path, origin: &str) -> PartialFetch {
        PartialFetch::open(target, origin, &Nobody).unwrap()
    }

    #[test]
    fn part_resumes_and_verifies_pieces_of_an_earlier_run() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("case");
        let mut first = part(&target, "a");
        assert!(!first.was_resumed());
        let digests = Digests::of(b"hello");
        for name in ["good", "damaged"] {
            first.new_file(name).unwrap().write_all(b"hello").unwrap();
            first.finished_file(name, &digests).unwrap();
        }
        first.finished_piece("core", 3, 7).unwrap();
        first
            .journal
            .write_all(b"{\"file\":\"core\",\"pie")
            .unwrap();
        fs::write(first.path("damaged"), "hellO").unwrap();
        drop(first);
        let mut second = part(&target, "a");
        assert!(second.was_resumed());
        assert!(second.has_file("good") && !second.has_file("damaged"));
        assert!(!second.has_file("unheard-of"));
        second.finished_piece("core", 4, 8).unwrap();
        drop(second);
        let third = part(&target, "a");
        assert_eq!(third.pieces("core"), [(3, 7), (4, 8)].into());
        drop(third);
        // Another object under the same name.
        let other = part(&target, "b");
        assert!(!other.was_resumed() && !other.has_file("good"));
        assert!(!other.path("good").exists());
        other.publish(&target).unwrap();
        assert_eq!(fs::read_dir(&target).unwrap().count(), 0);
    }

    /// Each thread requests the same case; all but one find it finished. A part that is published or removed while
    /// a thread waits must neither cause a failure nor lose a file.
    #[test]
    fn parts_of_one_case_that_are_published_and_removed_in_parallel_lose_nothing() {
        let dir = tempfile::tempdir().unwrap();
        for round in 0..40 {
            let target = dir.path().join(format!("case-{round}"));
            std::thread::scope(|scope| {
                for number in 0..8 {
                    let target = &target;
                    scope.spawn(move || {
                        let part = part(target, "a");
                        if target.exists() || number % 3 == 0 {
                            part.remove();
                            return;
                        }
                        let mut file = part.new_file("core").unwrap();
                        file.write_all(b"hello").unwrap();
                        part.publish(target).unwrap();
                    });
                }
            });
            assert_eq!(fs::read(target.join("core")).unwrap(), b"hello");
            assert!(!target.join(JOURNAL).exists());
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 40);
    }
}
