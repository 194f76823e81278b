//! Caches files from images and servers, by digest and build-id.
//!
//! ```text
//! <root>/documents/<digest>                  manifests, indexes, tables of contents
//! <root>/layers/<digest>/index               what the layer holds
//! <root>/layers/<digest>/file-<build-id>     an ELF file of it
//! <root>/layers/<digest>/debug-<build-id>    a separate debug file of it
//! <root>/layers/<digest>/path-<SHA-256>      any file of it, by the hash of its path
//! <root>/build-ids/<source>/…                the same, from a source that has no layers
//! <root>/locks/<digest>                      held by the run that pulls an image
//! ```
//!
//! Invariants: a file under its final name is complete (written under another name, synced, renamed). Names
//! consist of hexadecimal digits only. The least recently used files are deleted first, but not those used in
//! the last minutes: another process may be about to open them.

use std::fs::{self, DirBuilder, File, FileTimes, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use cdh_bundle::Sha256;
use cdh_elfcore::BuildId;
use rustix::fs::{FlockOperation, flock};

use crate::digest::RunningDigest;
use crate::index::Node;
use crate::index_builder::{self, IndexBudget};
use crate::on_disk_index::LayerFiles;
use crate::record::RecordWriter;
use crate::{Digest, LayerIndex, kept};

/// Default limit of all files together, in bytes.
const DEFAULT_LIMIT: u64 = 10 << 30;
/// Files used within this time are not deleted.
const IN_USE: Duration = Duration::from_secs(600);
/// A temporary file of this age is from a run that died.
const ABANDONED: Duration = Duration::from_secs(24 * 3600);

/// Selects one of the files that share a build-id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FileRole {
    /// The file with the code.
    File,
    /// The file with the debug information.
    Debug,
}

impl FileRole {
    fn word(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Debug => "debug",
        }
    }
}

/// A line of `cdh cache ls`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheEntry {
    /// `layers`, `documents`, `build-ids`.
    pub kind: String,
    /// Digest or source.
    pub name: String,
    /// Files in it.
    pub files: u64,
    /// Bytes on disk.
    pub bytes: u64,
    /// When it was last used.
    pub used: SystemTime,
}

/// A directory with the layout above.
#[derive(Clone, Debug)]
pub struct Cache {
    root: PathBuf,
    limit: u64,
}

/// A file aside.
pub(crate) struct Draft {
    pub(crate) file: File,
    path: PathBuf,
}

impl Drop for Draft {
    fn drop(&mut self) {
        // After the rename, this name no longer exists.
        let _ = fs::remove_file(&self.path);
    }
}

/// The outcome of storing a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeptModule {
    /// It is the wanted file.
    Kept(PathBuf),
    /// It is another file, with this build-id, or with none.
    Other(Option<BuildId>),
}

impl Cache {
    /// A cache in `root`, which is created when needed.
    #[must_use]
    pub fn in_directory(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            limit: DEFAULT_LIMIT,
        }
    }

    /// The same with another limit in bytes.
    #[must_use]
    pub fn with_limit(self, limit: u64) -> Self {
        Self { limit, ..self }
    }

    pub(crate) fn layer(&self, digest: Digest) -> PathBuf {
        self.root.join("layers").join(digest.hex())
    }

    /// Files of a source without layers, such as a debuginfod server.
    pub(crate) fn source(&self, name: &str) -> PathBuf {
        self.root
            .join("build-ids")
            .join(Sha256::of(name.as_bytes()).to_string())
    }

    pub(crate) fn part(directory: &Path, part: FileRole, id: &BuildId) -> PathBuf {
        directory.join(format!("{}-{id}", part.word()))
    }

    pub(crate) fn path_name(directory: &Path, path: &[u8]) -> PathBuf {
        directory.join(format!("path-{}", Sha256::of(path)))
    }

    /// A file of the cache, if it exists; this counts as a use.
    pub(crate) fn used(path: PathBuf) -> Option<PathBuf> {
        let file = File::open(&path).ok()?;
        let _ = file.set_times(FileTimes::new().set_modified(SystemTime::now()));
        Some(path)
    }

    fn documents(&self) -> PathBuf {
        self.root.join("documents")
    }

    pub(crate) fn document(&self, digest: Digest) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        self.open_document(digest)?.read_to_end(&mut bytes).ok()?;
        Some(bytes)
    }

    /// A document, whose first line identifies its version.
    pub(crate) fn open_document(&self, digest: Digest) -> Option<File> {
        let path = Self::used(self.documents().join(digest.hex()))?;
        let mut file = File::open(path).ok()?;
        let mut running = RunningDigest::default();
        let mut block = vec![0; 64 << 10];
        loop {
            match file.read(&mut block).ok()? {
                0 => break,
                count => running.update(block.get(..count).unwrap_or_default()),
            }
        }
        file.rewind().ok()?;
        (running.finish() == digest).then_some(file)
    }

    /// A document in the making.
    pub(crate) fn document_draft(&self) -> io::Result<Draft> {
        Self::draft(&self.documents())
    }

    /// Best effort, as [`keep_document`](Self::keep_document).
    pub(crate) fn keep_draft(&self, draft: &Draft, digest: Digest) {
        let _ = Self::seal(draft, &self.documents().join(digest.hex()));
    }

    /// Best effort: write errors are ignored.
    pub(crate) fn keep_document(&self, digest: Digest, bytes: &[u8]) {
        let kept = self.document_draft().and_then(|mut draft| {
            draft.file.write_all(bytes)?;
            Self::seal(&draft, &self.documents().join(digest.hex()))
        });
        drop(kept);
    }

    pub(crate) fn index_place(&self, layer: Digest) -> PathBuf {
        self.layer(layer).join("index")
    }

    /// The index of a layer that was read before, in memory as far as there is room.
    pub(crate) fn index(&self, layer: Digest, room: &IndexBudget) -> Option<LayerFiles> {
        index_builder::load(&Self::used(self.index_place(layer))?, room).ok()
    }

    pub(crate) fn keep_index(&self, layer: Digest, index: &LayerIndex) {
        let kept = Self::draft(&self.layer(layer)).and_then(|draft| {
            index.write(io::BufWriter::new(&draft.file))?;
            Self::seal(&draft, &self.index_place(layer))
        });
        drop(kept);
    }

    /// Adds records to an index that is too large to rewrite: the last record of a path counts.
    pub(crate) fn amend_index(&self, layer: Digest, path: &[u8], node: &Node) {
        let place = self.index_place(layer);
        let kept = Self::draft(&self.layer(layer)).and_then(|mut draft| {
            io::copy(&mut File::open(&place)?, &mut draft.file)?;
            let mut more = RecordWriter::more(&draft.file, 1)?;
            more.node(path, node)?;
            more.finish()?;
            Self::seal(&draft, &place)
        });
        drop(kept);
    }

    /// A cached file of a source without layers.
    #[must_use]
    pub fn module(&self, source: &str, part: FileRole, id: &BuildId) -> Option<PathBuf> {
        Self::used(Self::part(&self.source(source), part, id))
    }

    /// Caches a file of such a source, if it has this build-id.
    ///
    /// # Errors
    /// If it cannot be read or written.
    pub fn keep_module(
        &self,
        source: &str,
        part: FileRole,
        id: &BuildId,
        reader: &mut dyn Read,
    ) -> io::Result<KeptModule> {
        let directory = self.source(source);
        let mut draft = Self::draft(&directory)?;
        kept::copy(reader, &mut draft.file)?;
        let facts = kept::facts(&draft.file);
        if facts.build_id.as_ref() != Some(id) || facts.part != Some(part) {
            return Ok(KeptModule::Other(facts.build_id));
        }
        let path = Self::part(&directory, part, id);
        Self::seal(&draft, &path)?;
        Ok(KeptModule::Kept(path))
    }

    /// A new temporary file beside its final place.
    pub(crate) fn draft(directory: &Path) -> io::Result<Draft> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)?;
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = directory.join(format!(".draft-{}-{number}", std::process::id()));
        // A dead process with the same id left a file of that name.
        let _ = fs::remove_file(&path);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)?;
        Ok(Draft { file, path })
    }

    /// Gives a draft its name; a second call adds another name.
    pub(crate) fn seal(draft: &Draft, path: &Path) -> io::Result<()> {
        draft.file.sync_data()?;
        let aside = draft.path.with_extension("link");
        let _ = fs::remove_file(&aside);
        fs::hard_link(&draft.path, &aside)?;
        fs::rename(&aside, path)?;
        // Renaming a file to another of its own names does nothing and leaves both names.
        let _ = fs::remove_file(&aside);
        Ok(())
    }

    /// Waits until no other run fetches this file from a source without layers. Dropping the returned file
    /// releases the lock.
    #[must_use]
    pub fn lock_module(&self, source: &str, part: FileRole, id: &BuildId) -> Option<File> {
        let name = format!("{source} {} {id}", part.word());
        self.lock(Digest::of(name.as_bytes()))
    }

    /// Waits until no other run pulls the same image. Without a cache, there is nothing to share.
    pub(crate) fn lock(&self, digest: Digest) -> Option<File> {
        let directory = self.root.join("locks");
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&directory)
            .ok()?;
        let path = directory.join(digest.hex());
        loop {
            let file = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .open(&path)
                .ok()?;
            flock(&file, FlockOperation::LockExclusive).ok()?;
            // While this run waited, another one may have removed the file and a third one created a new
            // one.
            let is_same = |there: fs::Metadata| {
                file.metadata()
                    .is_ok_and(|own| (own.dev(), own.ino()) == (there.dev(), there.ino()))
            };
            if fs::metadata(&path).is_ok_and(is_same) {
                let _ = file.set_modified(SystemTime::now());
                return Some(file);
            }
        }
    }

    /// Removes unlocked lock files that were unused for some time.
    fn remove_old_locks(&self) {
        let entries = fs::read_dir(self.root.join("locks")).into_iter().flatten();
        for entry in entries.flatten() {
            let is_old = |data: fs::Metadata| {
                let age = data.modified().ok().and_then(|used| used.elapsed().ok());
                data.is_file() && age.is_some_and(|age| age > ABANDONED)
            };
            let path = entry.path();
            if !entry.metadata().is_ok_and(is_old) {
                continue;
            }
            let Ok(file) = OpenOptions::new().write(true).open(&path) else {
                continue;
            };
            if flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() {
                let _ = fs::remove_file(&path);
            }
        }
    }

    fn directories(&self) -> Vec<(String, PathBuf)> {
        let mut all = vec![("documents".to_owned(), self.documents())];
        for kind in ["layers", "build-ids"] {
            let entries = fs::read_dir(self.root.join(kind)).into_iter().flatten();
            all.extend(
                entries
                    .flatten()
                    .map(|entry| (kind.to_owned(), entry.path())),
            );
        }
        all
    }

    /// What there is.
    #[must_use]
    pub fn entries(&self) -> Vec<CacheEntry> {
        let entry = |(kind, path): (String, PathBuf)| {
            let files = files_of(&path);
            (!files.is_empty()).then(|| CacheEntry {
                kind,
                name: path
                    .file_name()
                    .unwrap_or_default()
                    .to_string_lossy()
                    .into_owned(),
                files: files.len() as u64,
                bytes: files.iter().map(|file| file.share).sum(),
                used: files
                    .iter()
                    .map(|file| file.used)
                    .max()
                    .unwrap_or(SystemTime::UNIX_EPOCH),
            })
        };
        self.directories().into_iter().filter_map(entry).collect()
    }

    /// Removes everything; returns the number of freed bytes.
    ///
    /// # Errors
    /// If something cannot be removed.
    pub fn clear(&self) -> io::Result<u64> {
        let bytes = self.entries().iter().map(|entry| entry.bytes).sum();
        match fs::remove_dir_all(&self.root) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(bytes),
        }
    }

    /// Removes the least recently used files until the rest is within the limit.
    pub fn shrink(&self) {
        self.remove_old_locks();
        let mut files: Vec<Stored> = self
            .directories()
            .iter()
            .flat_map(|(_, path)| files_of(path))
            .collect();
        files.sort_by_key(|file| file.used);
        let mut total: u64 = files.iter().map(|file| file.share).sum();
        let now = SystemTime::now();
        for file in files {
            let age = now.duration_since(file.used).unwrap_or_default();
            let abandoned = file.is_draft && age > ABANDONED;
            if !abandoned && (total <= self.limit || age < IN_USE || file.is_draft) {
                continue;
            }
            if fs::remove_file(&file.path).is_ok() {
                total = total.saturating_sub(file.share);
            }
            // Succeeds only if this was the last file in it.
            if let Some(parent) = file.path.parent() {
                let _ = fs::remove_dir(parent);
            }
        }
    }
}

struct Stored {
    path: PathBuf,
    /// Bytes on disk, divided among the names of the file.
    share: u64,
    used: SystemTime,
    is_draft: bool,
}

fn files_of(directory: &Path) -> Vec<Stored> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let stored = |entry: fs::DirEntry| {
        let metadata = entry.metadata().ok().filter(fs::Metadata::is_file)?;
        Some(Stored {
            share: metadata.blocks().saturating_mul(512) / metadata.nlink().max(1),
            used: metadata.modified().ok()?,
            is_draft: entry.file_name().to_string_lossy().starts_with('.'),
            path: entry.path(),
        })
    };
    entries.filter_map(stored).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(cache: &Cache, name: &str, bytes: usize, age: u64) -> PathBuf {
        let directory = cache.layer(Digest::of(name.as_bytes()));
        let mut draft = Cache::draft(&directory).unwrap();
        draft.file.write_all(&vec![7; bytes]).unwrap();
        let path = directory.join("index");
        Cache::seal(&draft, &path).unwrap();
        let then = SystemTime::now() - Duration::from_secs(age);
        draft
            .file
            .set_times(FileTimes::new().set_modified(then))
            .unwrap();
        path
    }

    #[test]
    fn image_cache_evicts_the_least_recently_used_and_never_files_in_use() {
        let directory = tempfile::tempdir().unwrap();
        let cache = Cache::in_directory(directory.path()).with_limit(250 << 10);
        let paths = [("a", 9000), ("b", 8000), ("c", 7000), ("d", 10)]
            .map(|(name, age)| put(&cache, name, 100 << 10, age));
        cache.shrink();
        assert_eq!(
            paths.each_ref().map(|path| path.exists()),
            [false, false, true, true]
        );
        cache.clone().with_limit(0).shrink();
        assert_eq!(
            paths.each_ref().map(|path| path.exists()),
            [false, false, false, true]
        );
        assert_eq!(cache.entries().len(), 1);
        assert!(cache.clear().unwrap() > 0);
        assert!(!directory.path().exists());
    }

    #[test]
    fn shrink_removes_old_lock_files_that_no_run_holds() {
        let root = tempfile::tempdir().unwrap();
        let cache = Cache::in_directory(root.path());
        let age = |digest: Digest| {
            let path = root.path().join("locks").join(digest.hex());
            let file = File::options().write(true).open(&path).unwrap();
            file.set_modified(SystemTime::now() - 2 * ABANDONED)
                .unwrap();
            path
        };
        let [old, held, new] = [b"old", b"hel", b"new"].map(|name| Digest::of(name));
        drop(cache.lock(old).unwrap());
        let guard = cache.lock(held).unwrap();
        drop(cache.lock(new).unwrap());
        let [old_path, held_path] = [old, held].map(age);
        cache.shrink();
        assert!(!old_path.exists() && held_path.exists());
        assert!(root.path().join("locks").join(new.hex()).exists());
        // If the file that a run waits for is removed meanwhile, the run locks the new one.
        let waiting = std::thread::scope(|scope| {
            let waiter = scope.spawn(|| cache.lock(held).unwrap());
            fs::remove_file(&held_path).unwrap();
            drop(guard);
            waiter.join().unwrap()
        });
        let inode = |data: fs::Metadata| data.ino();
        assert_eq!(
            waiting.metadata().map(inode).unwrap(),
            fs::metadata(&held_path).map(inode).unwrap()
        );
    }

    #[test]
    fn document_that_was_changed_on_disk_is_not_there() {
        let directory = tempfile::tempdir().unwrap();
        let cache = Cache::in_directory(directory.path());
        let digest = Digest::of(b"{}");
        cache.keep_document(digest, b"{}");
        assert_eq!(cache.document(digest), Some(b"{}".to_vec()));
        fs::write(directory.path().join("documents").join(digest.hex()), "[]").unwrap();
        assert_eq!(cache.document(digest), None);
        assert!(!directory.path().join("documents").join(".draft").exists());
    }

    #[test]
    fn sealed_file_may_have_two_names_and_leaves_no_draft() {
        let directory = tempfile::tempdir().unwrap();
        let draft = Cache::draft(directory.path()).unwrap();
        for name in ["one", "two", "one"] {
            Cache::seal(&draft, &directory.path().join(name)).unwrap();
        }
        drop(draft);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2);
    }
}
