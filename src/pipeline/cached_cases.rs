//! Manages the cache beside files of images: cases, views and cached results. The cores in cases hold secrets.
//! Therefore cases are listed, cleared on request, deleted when unused for a while, and limited in size and
//! number. Cases in use are never deleted.
//!
//! ```text
//! <cache>/cases/<id>/           a case; its manifest's time is that of its last use, a lock on it means in use
//! <cache>/cases/.<id>.part/     an interrupted download
//! <cache>/views/<hash>/         links for the debugger of a bare core
//! <cache>/import/<id>/          a dump that `cdh import` packs
//! <cache>/symbols/, …           answers, each cache bounded by its own rules
//! ```

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use cdh_sysroot::CacheEntry;
use rustix::fs::{FlockOperation, flock};

use super::image_cache;
use crate::render::terminal_line;
use crate::settings::Settings;

/// Directories of the cache with one directory per dump, and their names in `cdh cache ls`.
const KINDS: [(&str, &str); 3] = [("cases", "case"), ("views", "view"), ("import", "import")];
/// Directories with cached results, each listed as a whole.
const ANSWERS: [&str; 4] = ["symbols", "top-frames", "manifests", "listings"];
/// The file whose modification time is the time of the last use. A shared lock on it marks the case
/// as in use.
const MANIFEST: &str = "manifest.json";
/// Directory of an interrupted download; the process that resumes it holds a lock.
const JOURNAL: &str = "journal";
/// Maximum depth of directories in a case, which a sysroot reaches.
const DEPTH: usize = 64;
/// Bytes per block in `st_blocks` (`stat(2)`).
const BLOCK: u64 = 512;
/// A case that was used within this time is not deleted to make room: a script may be about to open
/// it.
const IN_USE: Duration = Duration::from_secs(3600);

/// What [`clear_cache`] removed and what remains.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cleared {
    /// Bytes freed.
    pub bytes: u64,
    /// Cases that debuggers use, and downloads in progress.
    pub in_use: usize,
}

/// Everything in the cache, most recently used first.
///
/// # Errors
/// If there is no private directory for the cache.
pub fn cache_entries(settings: &Settings) -> Result<Vec<CacheEntry>> {
    let Some(cache) = settings.cache.existing()? else {
        return Ok(Vec::new());
    };
    let mut entries = image_cache(settings)?.entries();
    let found = directories(&cache).into_iter();
    entries.extend(found.map(|(kind, path)| entry(kind, &path)));
    for kind in ANSWERS {
        let answers = entry(kind, &cache.join(kind));
        entries.extend(Some(answers).filter(|entry| entry.files > 0));
    }
    entries.sort_by_key(|entry| std::cmp::Reverse(entry.used));
    Ok(entries)
}

/// Deletes cases and views, and unless `only_cases` everything else, except what is in use.
///
/// # Errors
/// If something cannot be deleted.
pub fn clear_cache(settings: &Settings, only_cases: bool) -> Result<Cleared> {
    let Some(cache) = settings.cache.existing()? else {
        return Ok(Cleared::default());
    };
    let failed = |name: &str| {
        let shown = terminal_line(&cache.join(name).display().to_string());
        format!("cannot clear `{shown}`")
    };
    let mut cleared = remove(&cache, &|_| true).with_context(|| failed("cases"))?;
    if only_cases {
        return Ok(cleared);
    }
    for kind in ANSWERS {
        let path = cache.join(kind);
        let bytes = entry(kind, &path).bytes;
        match remove_directory(&path) {
            Ok(()) => cleared.bytes += bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(|| failed(kind)),
        }
    }
    cleared.bytes += image_cache(settings)?
        .clear()
        .with_context(|| failed("images"))?;
    Ok(cleared)
}

/// Deletes cases that were unused for the configured time. Then deletes those used longest ago until the rest
/// is within the configured size and number. The next run retries what failed.
pub(super) fn expire_cases(settings: &Settings) {
    let Ok(Some(cache)) = settings.cache.existing() else {
        return;
    };
    let now = SystemTime::now();
    let age = |entry: &CacheEntry| now.duration_since(entry.used).unwrap_or_default();
    if let Some(limit) = settings.case_age {
        let _ = remove(&cache, &|entry| age(entry) > limit);
    }
    let found = directories(&cache);
    let mut entries: Vec<CacheEntry> = found.iter().map(|(kind, path)| entry(kind, path)).collect();
    entries.sort_by_key(|entry| std::cmp::Reverse(entry.used));
    let (mut bytes, mut count) = (0_u64, 0_usize);
    let surplus: Vec<CacheEntry> = entries
        .into_iter()
        .filter(|entry| {
            bytes = bytes.saturating_add(entry.bytes);
            count += 1;
            let is_over = settings.case_bytes.is_some_and(|limit| bytes > limit)
                || settings.case_count.is_some_and(|limit| count > limit);
            is_over && age(entry) > IN_USE
        })
        .collect();
    if !surplus.is_empty() {
        let _ = remove(&cache, &|entry| {
            surplus
                .iter()
                .any(|other| (&other.kind, &other.name) == (&entry.kind, &entry.name))
        });
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
    let used = modified(&path.join(MANIFEST))
        .or_else(|_| modified(&path.join(JOURNAL)))
        .or_else(|_| modified(path));
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

/// Removes a directory atomically for other processes: it is renamed first, so that no process opens or
/// creates files in a directory that is being emptied.
///
/// # Errors
/// As `rename(2)` and `unlink(2)`.
pub(super) fn remove_directory(path: &Path) -> io::Result<()> {
    let aside = aside(path);
    fs::rename(path, &aside)?;
    fs::remove_dir_all(&aside)
}

/// A name beside `path` that no other process or thread uses.
pub(super) fn aside(path: &Path) -> PathBuf {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let name = name.trim_start_matches('.');
    path.with_file_name(format!(".{name}.{}-{number}", std::process::id()))
}

fn remove(cache: &Path, wanted: &dyn Fn(&CacheEntry) -> bool) -> io::Result<Cleared> {
    let mut cleared = Cleared::default();
    for (kind, path) in directories(cache) {
        let entry = entry(kind, &path);
        if !wanted(&entry) {
            continue;
        }
        // Locked until the directory is removed.
        let Some(_locks) = lock_unused(kind, &path, &entry) else {
            cleared.in_use += 1;
            continue;
        };
        match remove_directory(&path) {
            Ok(()) => cleared.bytes += entry.bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(cleared)
}

/// Locks a directory against use. `None` if it is in use: a download in progress, a case under a debugger, or a
/// dump that is being imported.
fn lock_unused(kind: &str, path: &Path, entry: &CacheEntry) -> Option<Vec<File>> {
    // During its upload, a packed dump has no lock.
    let is_recent = || entry.used.elapsed().is_ok_and(|age| age < IN_USE);
    if kind == "import" && is_recent() {
        return None;
    }
    let files = [path.join(MANIFEST), path.join(JOURNAL), path.to_owned()];
    let open = files.iter().filter_map(|path| File::open(path).ok());
    open.map(|file| {
        let locked = flock(&file, FlockOperation::NonBlockingLockExclusive);
        locked.is_ok().then_some(file)
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::CaseInUse;
    use crate::settings::CacheDirectory;

    fn case(cache: &Path, name: &str, kib: usize, age: u64) {
        let path = cache.join("cases").join(name);
        fs::create_dir_all(&path).unwrap();
        fs::write(path.join("core"), vec![7; kib << 10]).unwrap();
        let manifest = File::create(path.join(MANIFEST)).unwrap();
        let then = SystemTime::now() - Duration::from_secs(age);
        manifest.set_modified(then).unwrap();
    }

    fn names(settings: &Settings) -> Vec<String> {
        let entries = cache_entries(settings).unwrap().into_iter();
        entries.map(|entry| entry.name).collect()
    }

    fn settings(cache: &Path) -> Settings {
        let global = crate::args::GlobalArgs {
            store: Some("/nonexistent".to_owned()),
            config: Some("/dev/null".into()),
            color: crate::args::ColorWhen::Never,
        };
        let mut settings = Settings::gather(&global, crate::settings::Role::Workstation).unwrap();
        settings.cache = CacheDirectory::at(cache.to_owned());
        settings.case_age = None;
        settings.case_bytes = None;
        settings.case_count = None;
        settings
    }

    #[test]
    fn cases_used_longest_ago_are_deleted_until_size_and_number_fit() {
        let dir = tempfile::tempdir().unwrap();
        let cache = dir.path().join("cdh");
        let mut settings = settings(&cache);
        for (name, age) in [("a", 50_000), ("b", 40_000), ("c", 30_000), ("d", 10)] {
            case(&cache, name, 100, age);
        }
        expire_cases(&settings);
        assert_eq!(names(&settings), ["d", "c", "b", "a"]);
        settings.case_bytes = Some(350 << 10);
        expire_cases(&settings);
        assert_eq!(names(&settings), ["d", "c", "b"]);
        settings.case_count = Some(2);
        expire_cases(&settings);
        assert_eq!(names(&settings), ["d", "c"]);
        // A recently used case is not deleted, whatever the limits.
        settings.case_bytes = Some(1);
        expire_cases(&settings);
        assert_eq!(names(&settings), ["d"]);
    }

    #[test]
    fn case_under_a_debugger_is_neither_expired_nor_cleared() {
        let dir = tempfile::tempdir().unwrap();
        let cache = dir.path().join("cdh");
        let mut settings = settings(&cache);
        case(&cache, "a", 4, 50_000);
        let held = CaseInUse::hold(&cache.join("cases/a")).unwrap();
        settings.case_age = Some(Duration::from_secs(60));
        expire_cases(&settings);
        assert_eq!(clear_cache(&settings, false).unwrap().in_use, 1);
        assert_eq!(names(&settings), ["a"]);
        drop(held);
        assert!(clear_cache(&settings, true).unwrap().bytes > 0);
        assert!(names(&settings).is_empty());
    }

    #[test]
    fn cache_lists_cached_results_as_one_entry_and_clears_them() {
        let dir = tempfile::tempdir().unwrap();
        let cache = dir.path().join("cdh");
        let settings = settings(&cache);
        for kind in ANSWERS {
            fs::create_dir_all(cache.join(kind)).unwrap();
            fs::write(cache.join(kind).join("x"), "answer").unwrap();
        }
        let mut listed = names(&settings);
        listed.sort();
        assert_eq!(listed, ["listings", "manifests", "symbols", "top-frames"]);
        assert_eq!(clear_cache(&settings, true).unwrap().bytes, 0);
        assert!(clear_cache(&settings, false).unwrap().bytes > 0);
        assert!(names(&settings).is_empty());
    }
}
