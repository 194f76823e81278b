//! Caches manifests on disk, by the etag of their object.
//!
//! ```text
//! <directory>/<SHA-256 of store, key and etag>.json
//! ```
//!
//! Invariants: a file under its final name is a complete manifest (written under another name, then
//! renamed). An unreadable file is a miss. A replaced object has another etag and so another file.
//! Concurrent runs need no lock, because they write the same bytes. The total size is limited: the
//! least recently used files are deleted.

use std::fs::{self, File, FileTimes};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use cdh_bundle::Digests;

use crate::ObjectKey;

/// Maximum size of all files together.
const LIMIT: u64 = 64 << 20;
/// The total size is checked once per this number of writes.
const LOOK: u8 = 16;

static DRAFTS: AtomicU64 = AtomicU64::new(0);

/// Where manifests are kept.
#[derive(Clone, Debug)]
pub struct ManifestCache {
    directory: PathBuf,
}

impl ManifestCache {
    /// A cache in this directory, which is created when needed.
    #[must_use]
    pub fn in_directory(directory: &Path) -> Self {
        Self {
            directory: directory.to_owned(),
        }
    }

    fn path(&self, store: &str, key: &ObjectKey, etag: &str) -> PathBuf {
        let name = format!("{store}\n{}\n{etag}", key.as_str());
        let digest = Digests::of(name.as_bytes()).sha256;
        self.directory.join(format!("{digest}.json"))
    }

    /// The bytes of a cached manifest.
    pub(crate) fn get(&self, store: &str, key: &ObjectKey, etag: &str) -> Option<Vec<u8>> {
        let file = File::open(self.path(store, key, etag)).ok()?;
        let mut bytes = Vec::new();
        Read::take(&file, LIMIT).read_to_end(&mut bytes).ok()?;
        // Marks the file as used. If that fails, it is only deleted earlier.
        let _ = file.set_times(FileTimes::new().set_modified(SystemTime::now()));
        Some(bytes)
    }

    /// Caches the bytes of a manifest. Write errors are ignored.
    pub(crate) fn put(&self, store: &str, key: &ObjectKey, etag: &str, bytes: &[u8]) {
        let path = self.path(store, key, etag);
        // Unique to this process and this call.
        let number = DRAFTS.fetch_add(1, Ordering::Relaxed);
        let draft = path.with_extension(format!("{}-{number}.new", std::process::id()));
        let written = fs::create_dir_all(&self.directory)
            .and_then(|()| File::create(&draft))
            .and_then(|mut file| file.write_all(bytes))
            .and_then(|()| fs::rename(&draft, &path));
        if written.is_err() {
            let _ = fs::remove_file(&draft);
        }
        let digest = Digests::of(bytes).crc32;
        if digest.is_multiple_of(u32::from(LOOK)) {
            self.shrink(LIMIT);
        }
    }

    /// Removes the least recently used files until the rest is within the limit.
    fn shrink(&self, limit: u64) {
        let entries = fs::read_dir(&self.directory).into_iter().flatten();
        let mut files: Vec<_> = entries
            .flatten()
            .filter_map(|entry| {
                let metadata = entry.metadata().ok().filter(fs::Metadata::is_file)?;
                Some((metadata.modified().ok()?, metadata.len(), entry.path()))
            })
            .collect();
        files.sort();
        let mut total: u64 = files.iter().map(|(_, size, _)| size).sum();
        for (_, size, path) in files {
            if total <= limit {
                return;
            }
            let _ = fs::remove_file(path);
            total = total.saturating_sub(size);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> ObjectKey {
        ObjectKey::parse(text).unwrap()
    }

    #[test]
    fn manifest_cache_finds_entries_by_store_key_and_etag() {
        let directory = tempfile::tempdir().unwrap();
        let cache = ManifestCache::in_directory(&directory.path().join("new"));
        cache.put("s", &key("a"), "1", b"{}");
        assert_eq!(cache.get("s", &key("a"), "1"), Some(b"{}".to_vec()));
        assert_eq!(cache.get("t", &key("a"), "1"), None);
        assert_eq!(cache.get("s", &key("b"), "1"), None);
        assert_eq!(cache.get("s", &key("a"), "2"), None);
    }

    #[test]
    fn manifest_cache_evicts_the_least_recently_used_entry() {
        let directory = tempfile::tempdir().unwrap();
        let cache = ManifestCache::in_directory(directory.path());
        for (number, name) in ["a", "b", "c"].into_iter().enumerate() {
            cache.put("s", &key(name), "1", &[b' '; 100]);
            let file = File::options()
                .write(true)
                .open(cache.path("s", &key(name), "1"));
            let age = std::time::Duration::from_secs(1000 - number as u64);
            let then = FileTimes::new().set_modified(SystemTime::now() - age);
            file.unwrap().set_times(then).unwrap();
        }
        assert!(cache.get("s", &key("a"), "1").is_some());
        cache.shrink(250);
        assert!(cache.get("s", &key("b"), "1").is_none());
        assert!(cache.get("s", &key("a"), "1").is_some());
        assert!(cache.get("s", &key("c"), "1").is_some());
    }

    #[test]
    fn manifest_cache_ignores_write_errors() {
        let cache = ManifestCache::in_directory(Path::new("/proc/self/nothing"));
        cache.put("s", &key("a"), "1", b"{}");
        assert_eq!(cache.get("s", &key("a"), "1"), None);
    }
}
