//! Cases: dumps unpacked on the desk, verified against their manifests.
//!
//! ```text
//! <case>/manifest.json      last, so that a directory with one is whole
//! <case>/core               plain, sparse
//! <case>/minicore.elf, proc.json, …
//! <case>/sysroot/           made by `cdh debug`
//! ```

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use cdh_bundle::{BundleReader, DigestWriter, Digests, EntryKind, Manifest};

use super::files::open_regular;
use super::{Dump, Observer, Origin, dump};
use crate::render::terminal_line;
use crate::report::{ExitStatus, Failure};
use crate::settings::Settings;

/// No manifest is larger.
const MAX_MANIFEST: u64 = 64 << 20;
/// No other entry but the core is larger.
const MAX_ENTRY: u64 = 4 << 30;
/// Granularity in which zeros become holes.
const BLOCK: usize = 64 << 10;

/// A dump unpacked into a directory.
#[derive(Debug)]
pub struct Case {
    /// The directory.
    pub path: PathBuf,
    /// What the dump says of itself.
    pub manifest: Manifest,
}

impl Case {
    /// Opens a directory; `None` where it is no case.
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

    /// The plain core in the case at `path`, where it has one.
    #[must_use]
    pub fn core_path(path: &Path) -> Option<PathBuf> {
        let core = path.join("core");
        core.is_file().then_some(core)
    }
}

/// Unpacks `dump` into `directory`, or into the cache; what is there already is not fetched again.
///
/// # Errors
/// When it cannot be read or written, or contradicts its manifest; nothing half-done stays behind.
pub fn fetch(
    settings: &Settings,
    dump: &Dump,
    directory: Option<&Path>,
    observer: &dyn Observer,
) -> Result<Case> {
    let Some(bundle) = dump.bundle() else {
        return match &dump.origin {
            Origin::Case(path) if directory.is_none() => Ok(Case {
                path: path.clone(),
                manifest: dump.manifest.clone(),
            }),
            _ => Err(Failure::new(
                ExitStatus::Failure,
                format!("`{}` is on this machine already", dump.label()),
            )
            .hint("pass it to `cdh bt`, `cdh info` or `cdh debug` as it is")
            .into()),
        };
    };
    let target = match directory {
        Some(directory) => std::path::absolute(directory)?,
        None => settings
            .cache
            .join("cases")
            .join(dump.manifest.id.to_string()),
    };
    let shown = terminal_line(&target.display().to_string());
    if let Some(known) = Case::open(&target)?
        && known.manifest.id == dump.manifest.id
    {
        return Ok(known);
    }
    if fs::read_dir(&target).is_ok_and(|mut entries| entries.next().is_some()) {
        return Err(
            Failure::new(ExitStatus::Failure, format!("`{shown}` is not empty"))
                .hint("name a directory that is empty or does not exist yet")
                .into(),
        );
    }
    let part = partial_path(&target);
    let cannot = || format!("cannot unpack into `{shown}`");
    private_directory(&part).with_context(cannot)?;
    let outcome = unpack(bundle, dump, &part, observer)
        .and_then(|()| fs::rename(&part, &target).with_context(cannot));
    observer.finished();
    if outcome.is_err() {
        // Best effort: the error that matters is the first.
        let _ = fs::remove_dir_all(&part);
    }
    outcome?;
    Ok(Case {
        path: target,
        manifest: dump.manifest.clone(),
    })
}

/// Beside the target, so that the rename at the end stays on its file system.
fn partial_path(target: &Path) -> PathBuf {
    let name = target.file_name().unwrap_or_default().to_string_lossy();
    target.with_file_name(format!(".{name}.part-{}", std::process::id()))
}

pub(super) fn private_directory(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

fn new_file(path: &Path) -> io::Result<File> {
    File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
}

fn unpack(bundle: &BundleReader, dump: &Dump, part: &Path, observer: &dyn Observer) -> Result<()> {
    let label = dump.label();
    for entry in bundle.entries() {
        // Names that nobody knows are not unpacked: they could be anything.
        let Some(kind) = &entry.kind else { continue };
        if matches!(kind, EntryKind::Core(_) | EntryKind::Manifest) {
            continue;
        }
        let path = part.join(kind.file_name());
        let mut file = match new_file(&path) {
            // The same name twice in one zip: the first counts, as for every reader.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
            other => other?,
        };
        let mut reader = bundle
            .entry_reader(entry)
            .map_err(|error| dump::bundle_failure(error, &label))?;
        let mut out = DigestWriter::new(&mut file);
        io::copy(&mut reader.by_ref().take(MAX_ENTRY), &mut out)
            .with_context(|| format!("cannot unpack entry {}", entry.name))?;
        let (_, found) = out.finish();
        compare(&dump.manifest, &entry.name.to_string(), &found)?;
    }
    unpack_core(bundle, dump, part, observer)?;
    let json = dump.manifest.to_json()?;
    let mut file = new_file(&part.join(EntryKind::Manifest.file_name()))?;
    file.write_all(&json)?;
    file.sync_all()?;
    Ok(())
}

/// Compares an entry with its record, where there is one.
fn compare(manifest: &Manifest, name: &str, found: &Digests) -> Result<()> {
    let record = manifest.entries.iter().find(|record| record.name == name);
    match record.filter(|record| record.sha256 != found.sha256) {
        None => Ok(()),
        Some(record) => Err(Failure::new(
            ExitStatus::Mismatch,
            format!(
                "entry {name} has SHA-256 {}, its manifest says {}",
                found.sha256, record.sha256
            ),
        )
        .hint(
            "the bundle was changed or damaged after the capture: fetch it again from another copy",
        )
        .into()),
    }
}

fn unpack_core(
    bundle: &BundleReader,
    dump: &Dump,
    part: &Path,
    observer: &dyn Observer,
) -> Result<()> {
    let label = dump.label();
    let reader = bundle
        .core_reader()
        .map_err(|error| dump::bundle_failure(error, &label))?;
    let Some(mut reader) = reader else {
        return Ok(());
    };
    let record = dump.manifest.core.as_ref();
    let known = record.map(|core| core.size).filter(|size| *size > 0);
    observer.started(&format!("fetching {label}"), known);
    let file = new_file(&part.join("core"))?;
    let (copied, found) = copy_sparse(&mut reader, file, observer)?;
    if observer.is_cancelled() {
        return Err(Failure::new(
            ExitStatus::Interrupted,
            format!("fetching {label} was cancelled"),
        )
        .into());
    }
    if let Err(error) = copied {
        // A damaged bundle still gives what it holds; a whole one must not end here.
        if bundle.salvaged().is_none() {
            return Err(
                Failure::new(ExitStatus::Mismatch, "the core in the bundle ends early")
                    .cause(error)
                    .into(),
            );
        }
    }
    let Some(expected) = record.and_then(|core| core.sha256.as_ref()) else {
        return Ok(());
    };
    if *expected == found.sha256 || bundle.salvaged().is_some() {
        return Ok(());
    }
    Err(Failure::new(
        ExitStatus::Mismatch,
        format!(
            "the core has SHA-256 {}, its manifest says {expected}",
            found.sha256
        ),
    )
    .hint("the bundle was changed or damaged after the capture: fetch it again from another copy")
    .into())
}

/// Copies to the end or to the first error of the reader, leaving holes where there are zeros.
fn copy_sparse(
    reader: &mut dyn Read,
    mut file: File,
    observer: &dyn Observer,
) -> io::Result<(io::Result<()>, Digests)> {
    let mut digests = DigestWriter::new(io::sink());
    let mut block = vec![0; BLOCK];
    let mut size = 0_u64;
    let outcome = loop {
        let (count, ended) = fill(reader, &mut block);
        let bytes = block.get(..count).unwrap_or_default();
        digests.write_all(bytes)?;
        if bytes.iter().all(|byte| *byte == 0) {
            file.seek(SeekFrom::Current(i64::try_from(count).unwrap_or(0)))?;
        } else {
            file.write_all(bytes)?;
        }
        size += count as u64;
        observer.advanced(count as u64);
        match ended {
            Ok(true) => break Ok(()),
            Ok(false) if observer.is_cancelled() => {
                break Err(io::ErrorKind::Interrupted.into());
            }
            Ok(false) => {}
            Err(error) => break Err(error),
        }
    };
    file.set_len(size)?;
    file.sync_all()?;
    Ok((outcome, digests.finish().1))
}

/// Fills the block; tells how far, and whether the end was reached.
fn fill(reader: &mut dyn Read, block: &mut [u8]) -> (usize, io::Result<bool>) {
    let mut done = 0;
    while let Some(rest) = block.get_mut(done..).filter(|rest| !rest.is_empty()) {
        match reader.read(rest) {
            Ok(0) => return (done, Ok(true)),
            Ok(count) => done += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return (done, Err(error)),
        }
    }
    (done, Ok(false))
}
