//! Fetches a dump into a case: in parallel, resumable, verified.
//!
//! ```text
//! .<name>.part/journal      which bytes are there already; locked by who fetches
//! .<name>.part/core, …      the case as it grows
//! <name>/                   renamed when all of it was compared with the manifest
//! ```
//!
//! After a lost connection, a kill or an interruption, the partial case remains and the next run
//! resumes it: it requests the same object (by etag) and verifies each piece's checksum before it
//! relies on it. Data that does not match its manifest is deleted. Names in the zip never become
//! paths: files are named by their kinds. Sizes are checked before a byte is written.

mod part;
pub(super) mod sparse;
mod transfer;

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::ops::{ControlFlow, Range};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use cdh_bundle::{
    BundleReader, CoreEncoding, CoreLayout, DigestWriter, Digests, EntryKind, Manifest, Method,
};

use super::cached_cases::{self, remove_directory};
use super::dump::bundle_failure;
use super::{Case, Dump, Observer, Origin, case, integrity};
use crate::render::{bytes, terminal_line};
use crate::report::{ExitStatus, Failure};
use crate::settings::Settings;
use part::PartialFetch;
use sparse::SparseFile;
use transfer::{Transfer, TransferUnit};

/// Maximum size of all entries but the core together.
const MAX_ENTRIES: u64 = 4 << 30;
/// Maximum size of a core, unless the user sets another: more memory than any machine has.
pub const MAX_CORE: u64 = 4 << 40;
/// The file for a compressed core that can only be decoded from its start.
const COMPRESSED: &str = "core.compressed";

/// The target directory and the size limit.
#[derive(Clone, Debug, Default)]
pub struct FetchOptions {
    /// The case's directory; in the cache if none is named.
    pub directory: Option<PathBuf>,
    /// Maximum bytes of the plain core; [`MAX_CORE`] if not set.
    pub max_core: Option<u64>,
}

/// What exists at the path of a case before the fetch.
enum Existing {
    /// The case, verified.
    Case(Box<Case>),
    /// A case in the cache that differs from its manifest, or something that is not a case.
    Damaged,
    /// Nothing, or an empty directory.
    Nothing,
}

/// The context of one fetch.
struct Fetch<'f> {
    dump: &'f Dump,
    bundle: &'f BundleReader,
    label: String,
    max_core: u64,
    /// Whether the user named the directory.
    is_named: bool,
    observer: &'f dyn Observer,
}

/// Unpacks `dump` into a case; files that exist already are not fetched again.
///
/// # Errors
/// If it cannot be read or written, contradicts its manifest, or `observer` requests a stop.
pub fn fetch_with(
    settings: &Settings,
    dump: &Dump,
    options: &FetchOptions,
    observer: &dyn Observer,
) -> Result<Case> {
    let Some(bundle) = dump.bundle() else {
        return match &dump.origin {
            Origin::Case(path) if options.directory.is_none() => Ok(Case {
                path: path.clone(),
                manifest: dump.manifest.clone(),
            }),
            _ if dump.is_damaged() => Err(integrity::unreadable(dump)),
            _ => Err(Failure::new(
                ExitStatus::Failure,
                format!("`{}` is on this machine already", dump.label()),
            )
            .hint("pass it to `cdh bt`, `cdh info` or `cdh debug` as it is")
            .into()),
        };
    };
    let target = match &options.directory {
        Some(directory) => std::path::absolute(directory)?,
        None => {
            let target = Case::in_cache(settings, &dump.manifest)?;
            cached_cases::expire_cases(settings);
            target
        }
    };
    let fetch = Fetch {
        dump,
        bundle,
        label: dump.label(),
        max_core: options.max_core.unwrap_or(MAX_CORE),
        is_named: options.directory.is_some(),
        observer,
    };
    let outcome = fetch.run(&target);
    observer.finished();
    outcome
}

impl Fetch<'_> {
    fn run(&self, target: &Path) -> Result<Case> {
        let shown = terminal_line(&target.display().to_string());
        let cannot = || format!("cannot unpack into `{shown}`");
        if let Existing::Case(known) = self.existing(target, &shown)? {
            return Ok(*known);
        }
        let origin = self.dump.identity();
        let mut part = PartialFetch::open(target, origin, self.observer).with_context(cannot)?;
        // Another process may have finished the case while this one waited for the lock.
        match self.existing(target, &shown)? {
            Existing::Case(known) => {
                part.remove();
                return Ok(*known);
            }
            Existing::Damaged => remove_directory(target).with_context(cannot)?,
            Existing::Nothing => {}
        }
        let mut outcome = self.fill(&mut part);
        if part.was_resumed() && outcome.as_ref().is_err_and(is_mismatch) {
            // A crash of the machine may have damaged the files of an earlier run.
            part.start_anew().with_context(cannot)?;
            outcome = self.fill(&mut part);
        }
        if let Err(error) = outcome {
            if !is_worth_keeping(&error) {
                part.remove();
            }
            return Err(error);
        }
        part.publish(target).with_context(cannot)?;
        Ok(self.case(target))
    }

    fn case(&self, target: &Path) -> Case {
        Case {
            path: target.to_owned(),
            manifest: self.dump.manifest.clone(),
        }
    }

    /// Inspects `target`. In the cache, a case that differs from its manifest is fetched again. A directory that the
    /// user named is never deleted.
    fn existing(&self, target: &Path, shown: &str) -> Result<Existing> {
        let is_empty = || fs::read_dir(target).map_or(true, |mut entries| entries.next().is_none());
        let found = match Case::open(target) {
            Ok(None) if is_empty() => return Ok(Existing::Nothing),
            // Another process may have published it between the two checks.
            Ok(None) => Case::open(target),
            found => found,
        };
        if !is_own(target)? {
            let what = format!("`{shown}` belongs to another user, or other users can write to it");
            let failure = Failure::new(ExitStatus::Failure, what);
            return Err(failure
                .hint("name another directory with `-d <DIR>`")
                .into());
        }
        let checked = match found {
            Ok(Some(known)) if known.manifest.id == self.dump.manifest.id => {
                self.verify_case(target, &known)
            }
            Ok(_) if !self.is_named => return Ok(Existing::Damaged),
            Ok(_) => {
                let what = format!("`{shown}` is not empty");
                return Err(Failure::new(ExitStatus::Failure, what)
                    .hint("name a directory that is empty or does not exist yet")
                    .into());
            }
            Err(error) => Err(error),
        };
        match checked {
            Ok(()) => {
                cached_cases::touch(target);
                Ok(Existing::Case(Box::new(self.case(target))))
            }
            Err(error) if self.is_named || status(&error) == Some(ExitStatus::Interrupted) => {
                Err(error)
            }
            Err(_) => Ok(Existing::Damaged),
        }
    }

    /// Compares the files of a case with the manifest of the dump.
    fn verify_case(&self, target: &Path, known: &Case) -> Result<()> {
        let (then, now) = (&known.manifest, &self.dump.manifest);
        let is_same = then.core == now.core && then.entries == now.entries;
        if is_same && case::is_unchanged(target) {
            return Ok(());
        }
        // If the bundle is truncated, the core cannot be compared with the digest of the complete one.
        if self.is_salvaged() {
            return match self.is_named {
                true => Ok(()),
                false => Err(self.mismatch("the case was changed".to_owned())),
            };
        }
        case::compare_with(target, now, self.observer)?;
        if now.core.as_ref().is_some_and(|core| core.sha256.is_none()) {
            self.verify_core(&target.join("core"))?;
        }
        // If this cannot be recorded, the next run compares again.
        let _ = case::mark_verified(target);
        Ok(())
    }

    fn fill(&self, part: &mut PartialFetch) -> Result<()> {
        let layout = self.bundle.core_layout().map_err(|e| self.broken(e))?;
        self.check_sizes(layout.as_ref(), part)?;
        let mut left = MAX_ENTRIES;
        for entry in self.bundle.entries() {
            // Unknown names are not unpacked.
            let Some(kind) = &entry.kind else { continue };
            if matches!(kind, EntryKind::Core(_) | EntryKind::Manifest) {
                continue;
            }
            let name = kind.file_name();
            // If a zip has the same name twice, the first counts, as in every reader.
            if part.has_file(&name) {
                continue;
            }
            self.stop_if_asked()?;
            let mut out = DigestWriter::new(part.new_file(&name)?);
            let copied = if entry.method == Method::Stored && self.dump.remote.is_some() {
                let range = self
                    .bundle
                    .stored_range(entry)
                    .map_err(|e| self.broken(e))?;
                if range.end - range.start > left {
                    return Err(self.too_large(entry.size, MAX_ENTRIES));
                }
                self.copy_range(range, &mut out)
            } else {
                let reader = self
                    .bundle
                    .entry_reader(entry)
                    .map_err(|e| self.broken(e))?;
                io::copy(&mut reader.take(left.saturating_add(1)), &mut out)
                    .map(|_| ())
                    .map_err(anyhow::Error::from)
            };
            copied.with_context(|| format!("cannot unpack entry {}", entry.name))?;
            let (_, found) = out.finish();
            left = left
                .checked_sub(found.size)
                .ok_or_else(|| self.too_large(entry.size, MAX_ENTRIES))?;
            compare(&self.dump.manifest, &entry.name.to_string(), &found)?;
            part.finished_file(&name, &found)?;
        }
        match layout {
            Some(layout) => self.fetch_core(layout, part)?,
            None => self
                .observer
                .started(&format!("fetching {}", self.label), None),
        }
        let json = self.dump.manifest.to_json()?;
        let mut file = part.new_file(&EntryKind::Manifest.file_name())?;
        file.write_all(&json)?;
        file.sync_all()?;
        let _ = case::mark_verified(part.directory());
        Ok(())
    }

    /// Refuses sizes that do not fit on the disk or are larger than any real core.
    fn check_sizes(&self, layout: Option<&CoreLayout>, part: &PartialFetch) -> Result<()> {
        let stated = self.dump.manifest.core.as_ref().map_or(0, |core| core.size);
        let (plain, stored) = match layout {
            Some(CoreLayout::Pieces(pieces)) => {
                let end = pieces.last().map_or(0, |piece| piece.plain.end);
                let stored = pieces
                    .iter()
                    .map(|piece| piece.stored.end - piece.stored.start);
                if end != stated && self.bundle.manifest().is_some() && !self.is_salvaged() {
                    return Err(self.mismatch(format!(
                        "the core in the bundle has {end} bytes, its manifest says {stated}"
                    )));
                }
                (end.max(stated), stored.sum())
            }
            Some(CoreLayout::Stream(range)) => (stated, range.end - range.start),
            None => (0, 0_u64),
        };
        if plain > self.max_core {
            return Err(self.too_large(plain, self.max_core));
        }
        let there = part.size_on_disk();
        match part.free_space() {
            Some(free) if free.saturating_add(there) < stored => Err(Failure::new(
                ExitStatus::Failure,
                format!(
                    "the core takes at least {}, the disk has {} left",
                    bytes(stored),
                    bytes(free)
                ),
            )
            .hint("make room, or name a directory on a larger disk with `-d <DIR>`")
            .into()),
            _ => Ok(()),
        }
    }

    fn fetch_core(&self, layout: CoreLayout, part: &mut PartialFetch) -> Result<()> {
        let what = format!("fetching {}", self.label);
        let range = match layout {
            CoreLayout::Pieces(pieces) => {
                let total = pieces.last().map_or(0, |piece| piece.plain.end);
                let core = SparseFile::open(&part.path("core"), total)?;
                let pieces = pieces.into_iter().map(TransferUnit::Core).collect();
                self.transfer(&what, "core", pieces, &core, part)?;
                core.sync()?;
                return self.verify_core(&part.path("core"));
            }
            CoreLayout::Stream(range) => range,
        };
        if self.dump.remote.is_none() {
            let reader = self.bundle.core_reader().map_err(|e| self.broken(e))?;
            let total = self.dump.manifest.core.as_ref().map(|core| core.size);
            self.observer.started(&what, total.filter(|size| *size > 0));
            return reader.map_or(Ok(()), |reader| self.decode(reader, part));
        }
        let path = part.path(COMPRESSED);
        let copy = SparseFile::open(&path, range.end - range.start)?;
        self.transfer(&what, COMPRESSED, TransferUnit::copies(&range), &copy, part)?;
        self.observer.finished();
        let reader = self
            .bundle
            .core_from_copy(File::open(&path)?)
            .map_err(|e| self.broken(e))?;
        let total = self.dump.manifest.core.as_ref().map(|core| core.size);
        let what = format!("unpacking {}", self.label);
        self.observer.started(&what, total.filter(|size| *size > 0));
        reader.map_or(Ok(()), |reader| self.decode(reader, part))?;
        fs::remove_file(&path)?;
        Ok(())
    }

    fn transfer(
        &self,
        what: &str,
        file: &str,
        pieces: Vec<TransferUnit>,
        out: &SparseFile,
        part: &mut PartialFetch,
    ) -> Result<()> {
        let transfer = Transfer::new(self.dump, self.bundle, pieces, out, self.observer);
        transfer.run(what, file, part).map_err(|error| {
            let interrupted = self.interrupted();
            match error {
                transfer::Problem::Stopped => interrupted,
                transfer::Problem::Store(error) => super::store_failure(error, "read from"),
                transfer::Problem::Damaged(error) => {
                    Failure::new(ExitStatus::Mismatch, "the core in the bundle is damaged")
                        .cause(error)
                        .hint(FETCH_ANOTHER)
                        .into()
                }
                transfer::Problem::Io(error) => {
                    anyhow::Error::from(error).context(format!("cannot unpack {}", self.label))
                }
            }
        })
    }

    /// Decodes from start to end; zeros become holes.
    fn decode(&self, reader: Box<dyn Read + Send>, part: &mut PartialFetch) -> Result<()> {
        let mut reader = reader.take(self.max_core.saturating_add(1));
        let core = SparseFile::create(&part.path("core"))?;
        let mut block = vec![0; 1 << 20];
        let mut at = 0_u64;
        let ended = loop {
            self.stop_if_asked()?;
            let (count, ended) = sparse::fill(&mut reader, &mut block);
            core.write_at(at, block.get(..count).unwrap_or_default())?;
            at += count as u64;
            self.observer.advanced(count as u64);
            match ended {
                Ok(false) => {}
                Ok(true) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        if at > self.max_core {
            return Err(self.too_large(at, self.max_core));
        }
        core.set_len(at)?;
        core.sync()?;
        if let Err(error) = ended {
            // A damaged bundle still yields what it holds; an intact one must not end here.
            if !self.is_salvaged() {
                return Err(Failure::new(
                    ExitStatus::Mismatch,
                    "the core in the bundle ends early",
                )
                .cause(error)
                .hint(FETCH_ANOTHER)
                .into());
            }
        }
        self.verify_core(&part.path("core"))
    }

    /// Compares the core with the manifest's digest, otherwise with the zip's checksum of a stored
    /// core.
    fn verify_core(&self, path: &Path) -> Result<()> {
        if self.is_salvaged() {
            return Ok(());
        }
        let record = self.dump.manifest.core.as_ref();
        let sha256 = record.and_then(|core| core.sha256.as_ref());
        let entry = self.bundle.entry(&EntryKind::Core(CoreEncoding::None));
        let crc32 = entry
            .filter(|entry| entry.kind != Some(EntryKind::Core(CoreEncoding::ZstdSeekable)))
            .and_then(|entry| entry.crc32);
        if sha256.is_none() && crc32.is_none() {
            return Ok(());
        }
        self.observer.finished();
        let file = File::open(path)?;
        let what = format!("verifying {}", self.label);
        self.observer.started(&what, Some(file.metadata()?.len()));
        let found = case::digests(file, self.observer)?;
        let found = found.ok_or_else(|| self.interrupted())?;
        match (sha256, crc32) {
            (Some(expected), _) if *expected != found.sha256 => Err(self.mismatch(format!(
                "the core has SHA-256 {}, its manifest says {expected}",
                found.sha256
            ))),
            (None, Some(expected)) if expected != found.crc32 => Err(self.mismatch(format!(
                "the core has CRC-32 {:08x}, its zip says {expected:08x}",
                found.crc32
            ))),
            _ => Ok(()),
        }
    }

    /// Copies a range of the remote bundle.
    fn copy_range(&self, range: Range<u64>, out: &mut dyn Write) -> Result<()> {
        let mut failed = None;
        let mut sink = |chunk: &[u8]| match out.write_all(chunk) {
            Ok(()) if !self.observer.is_cancelled() => ControlFlow::Continue(()),
            outcome => {
                failed = outcome.err();
                ControlFlow::Break(())
            }
        };
        let outcome = self.dump.read_range(range, &mut sink);
        match (outcome, failed) {
            (_, Some(error)) => Err(error.into()),
            (Err(cdh_store::StoreError::Stopped), _) => Err(self.interrupted()),
            (Err(error), _) => Err(super::store_failure(error, "read from")),
            (Ok(()), _) => Ok(()),
        }
    }

    fn is_salvaged(&self) -> bool {
        self.bundle.salvaged().is_some()
    }

    fn stop_if_asked(&self) -> Result<()> {
        match self.observer.is_cancelled() {
            true => Err(self.interrupted()),
            false => Ok(()),
        }
    }

    fn interrupted(&self) -> anyhow::Error {
        Failure::new(
            ExitStatus::Interrupted,
            format!("fetching {} was interrupted", self.label),
        )
        .hint("run the same command again: it goes on where it stopped")
        .into()
    }

    fn broken(&self, error: cdh_bundle::BundleError) -> anyhow::Error {
        bundle_failure(error, &self.label)
    }

    fn mismatch(&self, message: String) -> anyhow::Error {
        Failure::new(ExitStatus::Mismatch, message)
            .hint(FETCH_ANOTHER)
            .into()
    }

    fn too_large(&self, size: u64, limit: u64) -> anyhow::Error {
        Failure::new(
            ExitStatus::Failure,
            format!(
                "{} unpacks to {} or more, the limit is {}",
                self.label,
                bytes(size),
                bytes(limit)
            ),
        )
        .hint("if you trust its origin, raise the limit with `cdh fetch --max-size <SIZE>`")
        .into()
    }
}

const FETCH_ANOTHER: &str =
    "the bundle was changed or damaged after the capture: fetch it again from another copy";

/// Whether this user owns directory, manifest and core, and no other user can write to them. Missing parts are
/// accepted.
fn is_own(case: &Path) -> Result<bool> {
    let user = rustix::process::geteuid().as_raw();
    for name in ["", "core", "manifest.json", "minicore.elf"] {
        let metadata = match fs::symlink_metadata(case.join(name)) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error.into()),
        };
        // The owner of a link is who created it, and its mode has no meaning.
        let is_private = metadata.is_symlink() || metadata.mode() & 0o022 == 0;
        if metadata.uid() != user || !is_private {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Compares an entry with its record, if there is one.
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
        .hint(FETCH_ANOTHER)
        .into()),
    }
}

fn status(error: &anyhow::Error) -> Option<ExitStatus> {
    error
        .chain()
        .find_map(|cause| cause.downcast_ref::<Failure>())
        .map(Failure::status)
}

fn is_mismatch(error: &anyhow::Error) -> bool {
    status(error) == Some(ExitStatus::Mismatch)
}

/// Whether the next run may resume: yes after a store error, a full disk or an interruption; no after
/// an invalid dump.
fn is_worth_keeping(error: &anyhow::Error) -> bool {
    let from_disk = error
        .chain()
        .any(|cause| cause.downcast_ref::<io::Error>().is_some());
    match status(error) {
        Some(ExitStatus::Unreachable | ExitStatus::Interrupted) => true,
        Some(ExitStatus::Mismatch) => false,
        _ => {
            from_disk
                || error
                    .chain()
                    .any(|cause| cause.is::<cdh_store::StoreError>())
        }
    }
}
