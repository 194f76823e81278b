//! Cases: dumps that are unpacked on the workstation and verified against their manifests.
//!
//! ```text
//! <case>/manifest.json      last, so that a directory with one is whole
//! <case>/.verified.json     state of the files when they were last compared with the manifest
//! <case>/core               plain, sparse
//! <case>/minicore.elf, proc.json, …
//! <case>/sysroot/           made by `cdh debug`
//! ```

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use cdh_bundle::{DigestWriter, Digests, EntryKind, Manifest, Sha256};
use rustix::fs::{FlockOperation, flock};
use rustix::io::{FdFlags, fcntl_setfd};
use serde::{Deserialize, Serialize};

use super::cached_cases::aside;
use super::files::open_regular;
use super::integrity::DELETE_CASE;
use super::{Dump, FetchOptions, Observer, fetch_with};
use crate::render::terminal_line;
use crate::report::{ExitStatus, Failure};
use crate::settings::Settings;

/// No manifest is larger.
const MAX_MANIFEST: u64 = 64 << 20;

/// Maximum size of the list of verified files.
const MAX_VERIFIED: u64 = 1 << 20;
/// Name of the list of verified files; no kind of entry has this name.
const VERIFIED: &str = ".verified.json";

/// A dump unpacked into a directory.
#[derive(Debug)]
pub struct Case {
    /// The directory.
    pub path: PathBuf,
    /// The manifest of the dump.
    pub manifest: Manifest,
}

impl Case {
    /// Opens a directory; `None` if it is not a case.
    ///
    /// # Errors
    /// When its manifest cannot be read.
    pub fn open(path: &Path) -> Result<Option<Self>> {
        let file = path.join(EntryKind::Manifest.file_name());
        let shown = terminal_line(&file.display().to_string());
        let source = match open_regular(&file) {
            Ok(source) => source,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("cannot open `{shown}`")),
        };
        let mut json = Vec::new();
        source
            .take(MAX_MANIFEST)
            .read_to_end(&mut json)
            .with_context(|| format!("cannot read `{shown}`"))?;
        let manifest =
            Manifest::from_json(&json).with_context(|| format!("`{shown}` is not valid"))?;
        Ok(Some(Self {
            path: path.to_owned(),
            manifest,
        }))
    }

    /// The path of this dump's case in the cache.
    ///
    /// # Errors
    /// When there is no private directory for it.
    pub fn in_cache(settings: &Settings, manifest: &Manifest) -> Result<PathBuf> {
        let cases = settings.cache.require("cases")?;
        Ok(cases.join(manifest.id.to_string()))
    }

    /// The plain core in the case at `path`, if it has one.
    #[must_use]
    pub fn core_path(path: &Path) -> Option<PathBuf> {
        let core = path.join("core");
        core.is_file().then_some(core)
    }
}

/// Unpacks `dump` into `directory`, or into the cache; files that exist already are not fetched
/// again.
///
/// # Errors
/// As [`fetch_with`].
pub fn fetch(
    settings: &Settings,
    dump: &Dump,
    directory: Option<&Path>,
    observer: &dyn Observer,
) -> Result<Case> {
    let options = FetchOptions {
        directory: directory.map(Path::to_owned),
        ..FetchOptions::default()
    };
    fetch_with(settings, dump, &options, observer)
}

pub(super) fn private_directory(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// A lock on a case in use: while it is held, the case is neither expired nor cleared.
#[derive(Debug)]
pub struct CaseInUse(#[expect(dead_code, reason = "held, never read")] File);

impl CaseInUse {
    /// Locks `case`. Child processes inherit the lock, so it also lasts while a debugger that replaces this
    /// process runs. `None` for a view of a bare core, which has no manifest.
    pub(super) fn hold(case: &Path) -> Option<Self> {
        let file = open_regular(&case.join(EntryKind::Manifest.file_name())).ok()?;
        flock(&file, FlockOperation::NonBlockingLockShared).ok()?;
        fcntl_setfd(&file, FdFlags::empty()).ok()?;
        Some(Self(file))
    }
}

/// What identifies the content of a file without reading it: user space cannot set `changed` (`ctime` in `stat(2)`).
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct FileState {
    name: String,
    inode: u64,
    size: u64,
    /// Seconds and nanoseconds.
    modified: (i64, i64),
    /// Seconds and nanoseconds.
    changed: (i64, i64),
}

/// The states of the files of a case, by name. Directories such as the sysroot are not evidence.
fn states(case: &Path) -> io::Result<Vec<FileState>> {
    let mut states = Vec::new();
    for item in fs::read_dir(case)? {
        let item = item?;
        let name = item.file_name().to_string_lossy().into_owned();
        let is_own = [VERIFIED, "manifest.json", "journal"].contains(&name.as_str());
        let metadata = item.path().symlink_metadata()?;
        if metadata.is_dir() || is_own || name.starts_with('.') {
            continue;
        }
        states.push(FileState {
            name,
            inode: metadata.ino(),
            size: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        });
    }
    states.sort();
    Ok(states)
}

/// Whether all files of a case are unchanged since they were last compared with its manifest.
pub(super) fn is_unchanged(case: &Path) -> bool {
    let read = || -> io::Result<Vec<FileState>> {
        let mut json = Vec::new();
        let file = open_regular(&case.join(VERIFIED))?;
        file.take(MAX_VERIFIED).read_to_end(&mut json)?;
        Ok(serde_json::from_slice(&json)?)
    };
    matches!((read(), states(case)), (Ok(then), Ok(now)) if then == now)
}

/// Records that all files of a case agree with its manifest.
///
/// # Errors
/// If the record cannot be written; the next run then compares the files again.
pub(super) fn mark_verified(case: &Path) -> io::Result<()> {
    let path = case.join(VERIFIED);
    let draft = aside(&path);
    let json = serde_json::to_vec(&states(case)?)?;
    let written = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(&draft)
        .and_then(|mut file| file.write_all(&json))
        .and_then(|()| fs::rename(&draft, &path));
    written.inspect_err(|_| {
        let _ = fs::remove_file(&draft);
    })
}

/// Compares the files of a case with its manifest, unless they are unchanged since the last comparison.
///
/// # Errors
/// With [`ExitStatus::Mismatch`] if a file is missing or differs; if a file cannot be read; if `observer` requests
/// a stop.
pub(super) fn verify(case: &Path, manifest: &Manifest, observer: &dyn Observer) -> Result<()> {
    if is_unchanged(case) {
        return Ok(());
    }
    compare_with(case, manifest, observer)?;
    // Another user's case may be read-only.
    let _ = mark_verified(case);
    Ok(())
}

/// Like [`verify`], but always reads the files.
///
/// # Errors
/// As there.
pub(super) fn compare_with(
    case: &Path,
    manifest: &Manifest,
    observer: &dyn Observer,
) -> Result<()> {
    for record in &manifest.entries {
        let kind = EntryKind::parse(&record.name, &manifest.stem);
        if let Some(kind) = kind.filter(|kind| !is_core_or_manifest(kind)) {
            compare(case, &kind.file_name(), &record.sha256, observer)?;
        }
    }
    let core = manifest.core.as_ref();
    if let Some(sha256) = core.and_then(|core| core.sha256.as_ref()) {
        compare(case, "core", sha256, observer)?;
    }
    Ok(())
}

fn is_core_or_manifest(kind: &EntryKind) -> bool {
    matches!(kind, EntryKind::Core(_) | EntryKind::Manifest)
}

fn compare(case: &Path, name: &str, expected: &Sha256, observer: &dyn Observer) -> Result<()> {
    let path = case.join(name);
    let shown = terminal_line(&path.display().to_string());
    let damaged = |what: String| {
        Failure::new(ExitStatus::Mismatch, format!("`{shown}` {what}")).hint(DELETE_CASE)
    };
    let file = match open_regular(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(damaged("is missing".to_owned()).into());
        }
        other => other.with_context(|| format!("cannot open `{shown}`"))?,
    };
    observer.started(&format!("verifying {shown}"), Some(file.metadata()?.len()));
    let found = digests(file, observer).with_context(|| format!("cannot read `{shown}`"))?;
    observer.finished();
    match found {
        Some(found) if found.sha256 == *expected => Ok(()),
        Some(found) => {
            let what = format!("has SHA-256 {}, its manifest says {expected}", found.sha256);
            Err(damaged(what).into())
        }
        None => {
            let what = format!("verifying `{shown}` was interrupted");
            Err(Failure::new(ExitStatus::Interrupted, what).into())
        }
    }
}

/// Digests of a file from its current position; `None` if `observer` requests a stop.
pub(super) fn digests(mut file: File, observer: &dyn Observer) -> io::Result<Option<Digests>> {
    let mut digests = DigestWriter::new(io::sink());
    let mut block = vec![0; 1 << 20];
    loop {
        if observer.is_cancelled() {
            return Ok(None);
        }
        let count = file.read(&mut block)?;
        let read = block.get(..count).unwrap_or_default();
        if read.is_empty() {
            return Ok(Some(digests.finish().1));
        }
        digests.write_all(read)?;
        observer.advanced(count as u64);
    }
}

/// Opens a small file of a case and compares it with its manifest; `None` if it does not exist.
///
/// # Errors
/// If it differs or cannot be read.
pub(super) fn open_entry(
    case: &Path,
    manifest: &Manifest,
    kind: &EntryKind,
) -> io::Result<Option<File>> {
    let name = kind.file_name();
    let mut file = match open_regular(&case.join(&name)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    let bundle_name = kind.bundle_name(&manifest.stem);
    let record = manifest
        .entries
        .iter()
        .find(|record| record.name == bundle_name);
    if let Some(record) = record {
        let found = Digests::of_reader(&mut file)?;
        if found.sha256 != record.sha256 {
            let what = format!(
                "{name} has SHA-256 {}, the manifest says {}",
                found.sha256, record.sha256
            );
            return Err(io::Error::new(io::ErrorKind::InvalidData, what));
        }
        file.rewind()?;
    }
    Ok(Some(file))
}
