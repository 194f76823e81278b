//! Caches results of symbolization in files below the cache directory.
//!
//! Invariants: a file is written under another name and renamed, so that a reader sees all of it or
//! nothing. Files are never modified, only replaced or removed. Every reader verifies what it reads. No
//! lock is needed: the worst case is that two runs compute the same result. If the directory is not
//! private to the user, nothing is read from it or written to it.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Once;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use cdh_elfcore::MappedFile;
use cdh_symbolize::Bytes;

use super::files::open_regular;

/// Maximum size of all files: a few large programs with decompressed sections.
const LIMIT: u64 = 2 << 30;
/// Time between two checks of the cache's size.
const PRUNE_INTERVAL: Duration = Duration::from_secs(3600);
/// Minimum age of the recorded last use before it is updated, because an update is a write.
const TOUCH_INTERVAL: Duration = Duration::from_secs(24 * 3600);

/// The cache of one user.
#[derive(Debug)]
pub(super) struct SymbolCache {
    directory: Option<PathBuf>,
    limit: u64,
    pruned: Once,
}

impl SymbolCache {
    /// Sets another limit for all files together.
    pub(super) fn limited(self, limit: u64) -> Self {
        Self { limit, ..self }
    }

    /// The cache in `directory`, which is created at the first write.
    pub(super) fn in_directory(directory: &Path) -> Self {
        let usable = match fs::symlink_metadata(directory) {
            Ok(found) => is_own(&found),
            Err(_) => true,
        };
        Self {
            directory: usable.then(|| directory.to_owned()),
            limit: LIMIT,
            pruned: Once::new(),
        }
    }

    /// A cache that stores nothing, if there is no private directory.
    pub(super) fn nowhere() -> Self {
        Self {
            directory: None,
            limit: 0,
            pruned: Once::new(),
        }
    }

    pub(super) fn get(&self, name: &str) -> Option<Bytes> {
        let file = open_regular(&self.path(name)?).ok()?;
        let metadata = file.metadata().ok()?;
        if metadata.uid() != rustix::process::geteuid().as_raw() {
            return None;
        }
        let age = metadata
            .modified()
            .ok()
            .and_then(|then| then.elapsed().ok());
        if age.is_some_and(|age| age > TOUCH_INTERVAL) {
            let _ = file.set_modified(SystemTime::now());
        }
        Some(Box::new(Mapped(MappedFile::from_file(&file).ok()?)))
    }

    /// A failed write to the cache is not an error.
    pub(super) fn put(&self, name: &str, bytes: &[u8]) {
        let _ = self.write(name, bytes);
    }

    fn path(&self, name: &str) -> Option<PathBuf> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.';
        let valid = !name.is_empty() && !name.starts_with('.') && name.bytes().all(plain);
        Some(self.directory.as_ref().filter(|_| valid)?.join(name))
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Option<()> {
        let path = self.path(name)?;
        let directory = self.directory.as_ref()?;
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true).mode(0o700).create(directory).ok()?;
        if !is_own(&fs::symlink_metadata(directory).ok()?) {
            return None;
        }
        self.pruned
            .call_once(|| prune(directory, self.limit, SystemTime::now()));
        // Threads of one process may write the same result at once.
        static WRITTEN: AtomicUsize = AtomicUsize::new(0);
        let pid = rustix::process::getpid().as_raw_nonzero();
        let number = WRITTEN.fetch_add(1, Ordering::Relaxed);
        let partial = directory.join(format!(".{name}.{pid}.{number}"));
        let _ = fs::remove_file(&partial);
        let written = File::create_new(&partial).and_then(|mut file| file.write_all(bytes));
        if written.and_then(|()| fs::rename(&partial, &path)).is_err() {
            let _ = fs::remove_file(&partial);
        }
        Some(())
    }
}

struct Mapped(MappedFile);

impl AsRef<[u8]> for Mapped {
    fn as_ref(&self) -> &[u8] {
        self.0.bytes()
    }
}

/// Whether a directory is this user's, and no other user can write to it.
fn is_own(metadata: &fs::Metadata) -> bool {
    metadata.is_dir()
        && metadata.uid() == rustix::process::geteuid().as_raw()
        && metadata.mode() & 0o022 == 0
}

/// Removes the least recently used files until the rest fits, and what dead runs left.
fn prune(directory: &Path, limit: u64, now: SystemTime) {
    let stamp = directory.join(".pruned");
    let age = |path: &Path| {
        let modified = fs::symlink_metadata(path).ok()?.modified().ok()?;
        now.duration_since(modified).ok()
    };
    if age(&stamp).is_some_and(|age| age < PRUNE_INTERVAL) {
        return;
    }
    let _ = fs::write(&stamp, "");
    let Ok(entries) = fs::read_dir(directory) else {
        return;
    };
    let mut files = Vec::new();
    for entry in entries.flatten() {
        let path = entry.path();
        let Ok(metadata) = entry.metadata() else {
            continue;
        };
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            if path != stamp && age(&path).is_some_and(|age| age > PRUNE_INTERVAL) {
                let _ = fs::remove_file(&path);
            }
        } else if let Ok(modified) = metadata.modified() {
            files.push((modified, metadata.len(), path));
        }
    }
    files.sort();
    let mut total: u64 = files.iter().map(|(_, size, _)| *size).sum();
    for (_, size, path) in files {
        if total <= limit {
            break;
        }
        if fs::remove_file(path).is_ok() {
            total = total.saturating_sub(size);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn bytes(cache: &SymbolCache, name: &str) -> Option<Vec<u8>> {
        cache.get(name).map(|bytes| (*bytes).as_ref().to_vec())
    }

    #[test]
    fn symbol_cache_stores_results_for_the_next_run() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("symbols");
        let cache = SymbolCache::in_directory(&place);
        assert_eq!(bytes(&cache, "a-1"), None);
        cache.put("a-1", b"first");
        let held = cache.get("a-1").unwrap();
        cache.put("a-1", b"second");
        assert_eq!((*held).as_ref(), b"first");
        assert_eq!(
            bytes(&SymbolCache::in_directory(&place), "a-1").unwrap(),
            b"second"
        );
        for name in ["", ".", "..", "../a-1", "a/b", ".hidden"] {
            cache.put(name, b"x");
            assert_eq!(bytes(&cache, name), None, "{name}");
        }
    }

    #[test]
    fn directory_that_others_can_write_to_is_not_used() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a"), "planted").unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
        let cache = SymbolCache::in_directory(dir.path());
        assert_eq!(bytes(&cache, "a"), None);
    }

    #[test]
    fn oldest_files_go_first_when_the_cache_is_full() {
        let dir = tempfile::tempdir().unwrap();
        for (age, name) in [(300, "old"), (200, "middle"), (100, "new")] {
            let file = File::create_new(dir.path().join(name)).unwrap();
            file.set_len(100).unwrap();
            file.set_modified(SystemTime::now() - Duration::from_secs(age))
                .unwrap();
        }
        prune(dir.path(), 200, SystemTime::now());
        assert!(!dir.path().join("old").exists());
        assert!(dir.path().join("middle").exists() && dir.path().join("new").exists());
    }

    #[test]
    fn symbol_cache_concurrent_runs_leave_complete_files() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("symbols");
        std::thread::scope(|scope| {
            for n in 0..4_u8 {
                let place = &place;
                scope.spawn(move || {
                    let cache = SymbolCache::in_directory(place);
                    for _ in 0..50 {
                        cache.put("same", &vec![n; 10_000]);
                        let found = bytes(&cache, "same").unwrap();
                        assert!(
                            found.len() == 10_000 && found.iter().all(|byte| *byte == found[0])
                        );
                    }
                });
            }
        });
    }
}
