//! Cases in the cache: unpacked dumps, with cores that hold secrets. They are listed, cleared on request, and
//! deleted when they were not used for a while.
//!
//! ```text
//! <cache>/cases/<id>/           a case; its manifest's time is that of its last use
//! <cache>/cases/.<id>.part/     an interrupted download
//! <cache>/views/<hash>/         links for the debugger of a bare core
//! ```

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use cdh_sysroot::CacheEntry;
use rustix::fs::{FlockOperation, flock};

use crate::settings::Settings;

/// Directories of the cache that hold cases, and what `cdh cache ls` calls them.
const KINDS: [(&str, &str); 2] = [("cases", "case"), ("views", "view")];
/// The file whose time is that of the last use.
const MANIFEST: &str = "manifest.json";
/// Of an interrupted download: locked by the process that goes on with it.
const JOURNAL: &str = "journal";
/// Directories inside each other in a case: those of a sysroot.
const DEPTH: usize = 64;
/// Bytes of a block in `st_blocks` (`stat(2)`).
const BLOCK: u64 = 512;

/// All cases and views, in no order.
#[must_use]
pub fn cached_cases(settings: &Settings) -> Vec<CacheEntry> {
    let found = directories(&settings.cache).into_iter();
    found.map(|(kind, path)| entry(kind, &path)).collect()
}

/// Deletes all of them but downloads in progress; returns how many bytes that freed.
///
/// # Errors
/// If one cannot be deleted.
pub fn clear_cases(settings: &Settings) -> io::Result<u64> {
    remove(&settings.cache, &|_| true)
}

/// Deletes those that were not used for the configured time. Failures are left for the next run.
pub(super) fn expire_cases(settings: &Settings) {
    if let Some(age) = settings.case_age {
        let now = SystemTime::now();
        let is_old = |entry: &CacheEntry| now.duration_since(entry.used).is_ok_and(|old| old > age);
        let _ = remove(&settings.cache, &is_old);
    }
}

/// Marks a case as used now.
pub(super) fn touch(case: &Path) {
    const HOUR: Duration = Duration::from_secs(3600);
    let now = SystemTime::now();
    let file = File::open(case.join(MANIFEST));
    let used = file
        .as_ref()
        .ok()
        .and_then(|file| file.metadata().ok()?.modified().ok());
    if let (Ok(file), Some(used)) = (file, used)
        && now.duration_since(used).is_ok_and(|age| age > HOUR)
    {
        let _ = file.set_modified(now);
    }
}

fn directories(cache: &Path) -> Vec<(&'static str, PathBuf)> {
    let user = rustix::process::geteuid().as_raw();
    let mut found = Vec::new();
    for (directory, kind) in KINDS {
        let entries = fs::read_dir(cache.join(directory)).into_iter().flatten();
        for entry in entries.flatten() {
            let metadata = entry.path().symlink_metadata();
            if metadata.is_ok_and(|metadata| metadata.is_dir() && metadata.uid() == user) {
                found.push((kind, entry.path()));
            }
        }
    }
    found
}

fn entry(kind: &str, path: &Path) -> CacheEntry {
    let (mut files, mut bytes) = (0, 0);
    count(path, DEPTH, &mut files, &mut bytes);
    let modified = |path: &Path| path.symlink_metadata().and_then(|found| found.modified());
    let used = modified(&path.join(MANIFEST)).or_else(|_| modified(path));
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    CacheEntry {
        kind: match name.starts_with('.') {
            true => format!("{kind} (unfinished)"),
            false => kind.to_owned(),
        },
        name: name.into_owned(),
        files,
        bytes,
        used: used.unwrap_or(SystemTime::UNIX_EPOCH),
    }
}

fn count(path: &Path, depth: usize, files: &mut u64, bytes: &mut u64) {
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        let Ok(metadata) = entry.path().symlink_metadata() else {
            continue;
        };
        if metadata.is_dir() && depth > 0 {
            count(&entry.path(), depth - 1, files, bytes);
        } else if metadata.is_file() {
            *files += 1;
            *bytes += metadata.blocks().saturating_mul(BLOCK);
        }
    }
}

fn remove(cache: &Path, wanted: &dyn Fn(&CacheEntry) -> bool) -> io::Result<u64> {
    let mut freed = 0;
    for (kind, path) in directories(cache) {
        let entry = entry(kind, &path);
        if !wanted(&entry) {
            continue;
        }
        // Held until the directory is gone.
        let journal = File::open(path.join(JOURNAL)).ok();
        let in_progress = journal
            .as_ref()
            .is_some_and(|file| flock(file, FlockOperation::NonBlockingLockExclusive).is_err());
        if in_progress {
            continue;
        }
        match fs::remove_dir_all(&path) {
            Ok(()) => freed += entry.bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(freed)
}
