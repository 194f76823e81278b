//! Imports dumps that no agent captured into a store: bare and compressed cores, those of systemd-coredump,
//! journal exports, bundles, zips of IBM's core-dump-handler.
//!
//! Facts that the source does not record remain unknown: time and machine of the import are not those of the
//! crash.

mod directory;
mod journal;
mod provenance;
mod stored;

pub use directory::{Duplicates, importable_files};
pub(super) use provenance::Provenance;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufReader, Read, Seek, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use cdh_bundle::{
    BundleReader, BundleWriter, Cause, CoreEncoding, CoreRecord, DEFAULT_STEM, DigestReader,
    DumpId, EntryDir, EntryKind, ImageRef, Manifest, ModuleRecord, PodDescription, ProcessFacts,
    RawText, SEEKABLE_FRAME, SeekableReader, SeekableWriter, SignalFacts, Verdict, WorkloadOwner,
    bounded_labels, image_repository, image_tag, render_stem,
};
use cdh_elfcore::{ByteSource, CoreFile, CoreHead, FileSource, Module, ModuleKind};
use cdh_store::{DumpSummary, ObjectKey, Store};
use jiff::Timestamp;
use serde::Serialize;

use super::compressed::{Compression, Peeked, bounded, cannot_decompress};
use super::files::open_regular;
use super::listing_cache::{Listed, remember_listing};
use super::{Observer, case, dump, stores, zipped_core};
use crate::render::terminal_line;
use crate::report::{ExitStatus, Failure};
use crate::settings::Settings;
use journal::JournalReader;
use stored::StoredCores;

/// A compromise for a workstation: about twice the ratio of the handler's level, at a third of its
/// speed.
const LEVEL: i32 = 3;

/// Where systemd-coredump stores cores (`coredump.conf(5)`).
const SYSTEMD_DIRECTORY: &str = "/var/lib/systemd/coredump";

/// Where the process ran, as stated by the user who imports its core. It takes precedence over the
/// facts in a bundle.
#[derive(Clone, Debug, Default)]
pub struct StatedOrigin {
    /// Kubernetes namespace.
    pub namespace: Option<String>,
    /// Pod.
    pub pod: Option<String>,
    /// Container in the pod.
    pub container: Option<String>,
    /// Node.
    pub node: Option<String>,
    /// When it crashed.
    pub time: Option<Timestamp>,
    /// Image reference, with a tag or without.
    pub image: Option<String>,
    /// Labels of the pod, which identify its owner.
    pub labels: BTreeMap<String, String>,
    /// Labels of the image.
    pub image_labels: BTreeMap<String, String>,
}

impl StatedOrigin {
    fn note(&self, manifest: &mut Manifest) {
        let said = [&self.namespace, &self.pod, &self.container, &self.node];
        if said.iter().any(|part| part.is_some()) {
            let known = manifest.workload.get_or_insert_default();
            let set = |known: &mut Option<String>, said: &Option<String>| {
                if said.is_some() {
                    known.clone_from(said);
                }
            };
            set(&mut known.namespace, &self.namespace);
            set(&mut known.pod, &self.pod);
            set(&mut known.container, &self.container);
            set(&mut known.node, &self.node);
        }
        if !self.labels.is_empty() {
            let known = manifest.workload.get_or_insert_default();
            known.labels = bounded_labels(&self.labels).0;
            known.owner = WorkloadOwner::of_pod(&PodDescription {
                name: known.pod.as_deref().unwrap_or_default(),
                labels: &self.labels,
                annotations: &BTreeMap::new(),
            });
        }
        if let Some(said) = &self.image {
            manifest.image = Some(image_of(said));
        }
        if let Some(image) = &mut manifest.image {
            image.set_labels(|name| self.image_labels.get(name).map(String::as_str));
            image.set_pod_labels(|name| self.labels.get(name).map(String::as_str));
        }
        if let Some(time) = self.time {
            manifest.captured_at = time;
        }
        if let Some(node) = &self.node {
            manifest.node = RawText::from(node.as_str());
        }
    }
}

/// `repository:tag@sha256:…` is both a reference by digest and a name.
fn image_of(said: &str) -> ImageRef {
    match (said.split_once('@'), image_repository(said)) {
        (Some((name, digest)), Some(repository)) if image_tag(name).is_some() => ImageRef {
            name: Some(name.to_owned()),
            ..ImageRef::by_digest(format!("{repository}@{digest}"))
        },
        _ => ImageRef::by_digest(said),
    }
}

/// A dump that was imported, or found in the store.
#[derive(Debug)]
pub struct Imported {
    /// Its listing in the store.
    pub manifest: Manifest,
    /// The file that it came from.
    pub file: PathBuf,
    /// Whether it was stored now.
    pub outcome: ImportOutcome,
}

/// What an import did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum ImportOutcome {
    /// The dump was stored.
    Stored,
    /// The store has the same core already.
    AlreadyThere,
}

/// Imports files into a store.
pub struct Importer<'a> {
    settings: &'a Settings,
    store: &'a dyn Store,
    place: &'a StatedOrigin,
    observer: &'a dyn Observer,
    stored: StoredCores,
}

impl<'a> Importer<'a> {
    /// Creates an importer for `store`; `place` is where the processes ran, if the user stated it.
    #[must_use]
    pub fn new(
        settings: &'a Settings,
        store: &'a dyn Store,
        place: &'a StatedOrigin,
        observer: &'a dyn Observer,
    ) -> Self {
        Self {
            settings,
            store,
            place,
            observer,
            stored: StoredCores::default(),
        }
    }

    /// Imports the file at `path`: a core, a compressed one, a bundle, or a journal export, which may name
    /// several. `duplicates` says what happens to a core that the store has already.
    ///
    /// # Errors
    /// If it is not a dump, or cannot be stored.
    pub fn import(&mut self, path: &Path, duplicates: Duplicates) -> Result<Vec<Imported>> {
        let shown = terminal_line(&path.display().to_string());
        let cannot = |error| dump::unreadable(error, &shown);
        let mut file = open_regular(path).map_err(cannot)?;
        let len = file.metadata().map_err(cannot)?.len();
        let mut magic = [0; 8];
        let known = file.read(&mut magic).map_err(cannot)?;
        file.rewind().map_err(cannot)?;
        let spool = self.settings.cache.require("import")?;
        case::private_directory(&spool)
            .with_context(|| format!("cannot create `{}`", spool.display()))?;
        let provenance = Provenance::of_file(&file, path);
        let observer = self.observer;
        observer.started(&format!("packing {shown}"), Some(len));
        let magic = magic.get(..known).unwrap_or_default();
        if magic.starts_with(b"PK\x03\x04") || magic.starts_with(b"PK\x05\x06") {
            let source: Arc<dyn ByteSource> = Arc::new(FileSource::new(file)?);
            let sealed = match zipped_core::bundle_in(&source, &shown)? {
                Some(bundle) => repack(&spool, &bundle, &shown, self.place),
                None => zipped_core::open(source, &shown)
                    .and_then(|core| bounded(core, &shown, true))
                    .and_then(|core| pack(&spool, core, path, &provenance, self.place)),
            };
            observer.finished();
            return Ok(vec![self.ship(&sealed?, path, duplicates)?]);
        }
        let counting = Counting {
            inner: file,
            observer,
        };
        let compression = Compression::from_magic(magic);
        let is_compressed = compression.is_some();
        let plain: Box<dyn Read> = match compression {
            Some(compression) => {
                let failed = |error: io::Error| cannot_decompress(error.into(), &shown);
                compression.reader(counting).map_err(failed)?
            }
            None => Box::new(counting),
        };
        let start = journal::MAGIC.len() as u64;
        let plain =
            Peeked::new(plain, start).map_err(|error| cannot_decompress(error.into(), &shown));
        let outcome = plain.and_then(|plain| match plain.start == journal::MAGIC {
            true => self.journal(plain, &spool, path),
            false => {
                let plain = match magic.starts_with(b"\x7fELF") {
                    true => Box::new(plain),
                    false => bounded(plain, &shown, is_compressed)?,
                };
                let sealed = pack(&spool, plain, path, &provenance, self.place)?;
                Ok(vec![self.ship(&sealed, path, duplicates)?])
            }
        });
        observer.finished();
        outcome
    }

    /// The crashes in a journal export, with the cores that are in it or beside it.
    fn journal(&mut self, plain: impl Read, spool: &Path, path: &Path) -> Result<Vec<Imported>> {
        let shown = terminal_line(&path.display().to_string());
        let mut found = Vec::new();
        let mut reader = JournalReader::new(BufReader::new(plain), spool);
        let failed = |error: io::Error| {
            let message = format!("cannot read `{shown}` as a journal export");
            Failure::new(ExitStatus::Failure, message)
                .cause(error)
                .hint("write it with `journalctl -o export MESSAGE_ID=fc2e22bc6ee647b6b90729ab34a250b1 > FILE`")
        };
        while let Some(entry) = reader.next_crash().map_err(failed)? {
            let mut provenance = entry.provenance;
            let sealed = match (entry.core, journal_core(&provenance, path)) {
                (Some(core), _) => {
                    let plain = bounded(core, &shown, false)?;
                    pack(spool, plain, path, &provenance, self.place)?
                }
                (None, Some(core)) => {
                    let mut file = open_regular(&core)?;
                    let mut magic = [0; 8];
                    let known = file.read(&mut magic)?;
                    file.rewind()?;
                    provenance.complete_with(Provenance::of_file(&file, &core));
                    let shown = terminal_line(&core.display().to_string());
                    let failed = |error: io::Error| cannot_decompress(error.into(), &shown);
                    let compression =
                        Compression::from_magic(magic.get(..known).unwrap_or_default());
                    let is_compressed = compression.is_some();
                    let plain: Box<dyn Read> = match compression {
                        Some(compression) => compression.reader(file).map_err(failed)?,
                        None => Box::new(file),
                    };
                    pack(
                        spool,
                        bounded(plain, &shown, is_compressed)?,
                        &core,
                        &provenance,
                        self.place,
                    )?
                }
                (None, None) => without_core(spool, path, &provenance, self.place)?,
            };
            found.push(self.ship(&sealed, path, Duplicates::Skipped)?);
        }
        if found.is_empty() {
            let message = format!("no crashes in the journal export `{shown}`");
            let hint = "export the entries of systemd-coredump: `journalctl -o export MESSAGE_ID=fc2e22bc6ee647b6b90729ab34a250b1 > FILE`";
            return Err(Failure::new(ExitStatus::Nothing, message).hint(hint).into());
        }
        Ok(found)
    }

    /// Stores a sealed entry and removes it.
    fn ship(&mut self, entry: &Path, path: &Path, duplicates: Duplicates) -> Result<Imported> {
        let outcome = (|| {
            let bundle = BundleWriter::from_entry(entry)?;
            let imported = |manifest, outcome| Imported {
                manifest,
                file: path.to_owned(),
                outcome,
            };
            if duplicates == Duplicates::Skipped
                && let Some(same) =
                    self.stored
                        .find(self.settings, self.store, bundle.manifest())?
            {
                return Ok(imported(same, ImportOutcome::AlreadyThere));
            }
            cdh_store::ship(self.store, &bundle).map_err(|error| match error {
                cdh_store::ShipError::Store(error) => stores::store_failure(error, "write to"),
                other => other.into(),
            })?;
            self.stored.add(bundle.manifest());
            let (key, _) = ObjectKey::for_manifest(bundle.manifest());
            let summary = DumpSummary::from_key(&key);
            let summary = summary.as_slice();
            remember_listing(self.settings, summary, Listed::Part);
            Ok(imported(bundle.manifest().clone(), ImportOutcome::Stored))
        })();
        // The source still exists, so the packed copy is not needed any more.
        let _ = fs::remove_dir_all(entry);
        outcome
    }
}

/// Reports reading progress to the observer.
struct Counting<'a> {
    inner: File,
    observer: &'a dyn Observer,
}

impl Read for Counting<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buf)?;
        self.observer.advanced(count as u64);
        Ok(count)
    }
}

/// Compresses a core into the entry; returns its record, with the expected size still missing.
fn pack_core(entry: &mut EntryDir, plain: impl Read, stem: &str) -> Result<CoreRecord> {
    let kind = EntryKind::Core(CoreEncoding::ZstdSeekable);
    let mut reader = DigestReader::new(plain);
    let file = entry.create_file(&kind)?;
    let mut writer = SeekableWriter::new(file, LEVEL, SEEKABLE_FRAME)?;
    io::copy(&mut reader, &mut writer).context("cannot pack the core")?;
    let (file, _) = writer.finish()?;
    let (file, stored) = file.finish();
    file.sync_all()?;
    entry.record(&kind, stored);
    let digests = reader.digests();
    Ok(CoreRecord {
        entry: kind.bundle_name(stem),
        encoding: CoreEncoding::ZstdSeekable,
        size: digests.size,
        expected: digests.size,
        sha256: Some(digests.sha256),
    })
}

/// Opens the most recently packed core.
fn packed_core(entry: &EntryDir, shown: &str) -> Result<CoreFile> {
    let file = entry.open_file(&EntryKind::Core(CoreEncoding::ZstdSeekable))?;
    let source = SeekableReader::open(FileSource::new(file)?)?;
    CoreFile::open(Box::new(source)).map_err(|error| dump::core_failure(error, shown, &[]))
}

fn pack(
    spool: &Path,
    plain: impl Read,
    path: &Path,
    provenance: &Provenance,
    place: &StatedOrigin,
) -> Result<PathBuf> {
    let shown = terminal_line(&path.display().to_string());
    seal(spool, |entry, id| {
        let record = pack_core(entry, plain, "core")?;
        let core = packed_core(entry, &shown)?;
        let mut manifest = manifest_of_core(&core, path, provenance);
        finish_manifest(&mut manifest, id, entry, provenance, place)?;
        let backtrace = backtrace(&core, path);
        manifest.fingerprint = backtrace.fingerprint.map(|made| made.to_string());
        let original = backtrace.original_signal.as_ref();
        manifest.original_signal = original.map(|original| SignalFacts::from(&original.signal));
        manifest.core = Some(CoreRecord {
            entry: EntryKind::Core(CoreEncoding::ZstdSeekable).bundle_name(&manifest.stem),
            expected: core.head().expected_len(),
            ..record
        });
        Ok(manifest)
    })
}

/// A crash that only the journal records.
fn without_core(
    spool: &Path,
    path: &Path,
    provenance: &Provenance,
    place: &StatedOrigin,
) -> Result<PathBuf> {
    seal(spool, |entry, id| {
        let mut manifest = empty_manifest(path, provenance);
        let evidence = match provenance.field("COREDUMP_FILENAME") {
            Some(name) => format!("the journal names `{name}`, which is not beside the export"),
            None => "the journal has no core".to_owned(),
        };
        manifest.verdict = Verdict::Empty {
            cause: Cause::Unknown,
            evidence: Some(evidence),
        };
        provenance.note(&mut manifest);
        finish_manifest(&mut manifest, id, entry, provenance, place)?;
        Ok(manifest)
    })
}

/// Fills a new entry; removes it if that fails.
fn seal(
    spool: &Path,
    fill: impl FnOnce(&mut EntryDir, DumpId) -> Result<Manifest>,
) -> Result<PathBuf> {
    let id = DumpId::random();
    let mut entry = EntryDir::create(spool, id)?;
    let directory = entry.path().to_owned();
    let outcome = fill(&mut entry, id).and_then(|manifest| Ok(entry.seal(manifest)?));
    if outcome.is_err() {
        let _ = fs::remove_dir_all(directory);
    }
    outcome
}

fn finish_manifest(
    manifest: &mut Manifest,
    id: DumpId,
    entry: &mut EntryDir,
    provenance: &Provenance,
    place: &StatedOrigin,
) -> Result<()> {
    manifest.id = id;
    place.note(manifest);
    manifest.stem = render_stem(DEFAULT_STEM, manifest);
    if let Some(facts) = provenance.proc_json() {
        let mut file = entry.create_file(&EntryKind::Proc)?;
        file.write_all(&serde_json::to_vec_pretty(&facts)?)?;
        let (_, digests) = file.finish();
        entry.record(&EntryKind::Proc, digests);
    }
    Ok(())
}

/// The file that a journal entry names: beside the export, otherwise where systemd-coredump stores it. The path
/// itself is untrusted and is not opened.
fn journal_core(provenance: &Provenance, export: &Path) -> Option<PathBuf> {
    let named = provenance.field("COREDUMP_FILENAME")?;
    let named = Path::new(std::ffi::OsStr::from_bytes(named.as_bytes()));
    let name = named.file_name()?;
    let beside = export.with_file_name(name);
    let systemd = Path::new(SYSTEMD_DIRECTORY).join(name);
    let found = [beside, systemd];
    found
        .into_iter()
        .find(|path| path.is_file() && path != export)
}

/// Stack of the crashed thread, as far as this machine has the files.
fn backtrace(core: &CoreFile, path: &Path) -> cdh_symbolize::Backtrace {
    let beside = path.parent().map(Path::to_owned);
    let search = super::ModuleSearch {
        beside,
        ..super::ModuleSearch::default()
    };
    let modules = super::find_modules(core.modules(), std::slice::from_ref(core), &search);
    let loaded: Vec<_> = modules.iter().map(super::FoundModule::loaded).collect();
    let arena = super::memory::section_arena();
    let threads = core.head().threads();
    let process = cdh_runtimes::Process {
        threads,
        memory: core,
        modules: &loaded,
        arena: &arena,
        surroundings: &cdh_symbolize::Alone,
    };
    let attached = cdh_runtimes::AttachedRuntimes::of(&process);
    let options = cdh_symbolize::BacktraceOptions {
        all_threads: false,
        max_frames: 64,
        knows_crashed: core.head().knows_crashed_thread(),
        signal: core.head().signal(),
        crashed: attached.crashing_thread(),
    };
    let mut backtrace = cdh_symbolize::backtrace(threads, core, &loaded, &arena, &options);
    // Also the fingerprint of an interpreted program: as the handler makes it.
    let request = cdh_runtimes::Options {
        task_stacks: false,
        system_tasks: false,
        max_frames: options.max_frames,
    };
    let _ = attached.examine(&mut backtrace, &request);
    backtrace
}

/// Copies a bundle of ours entry by entry; re-encodes the core of an IBM bundle.
fn repack(
    spool: &Path,
    bundle: &BundleReader,
    shown: &str,
    place: &StatedOrigin,
) -> Result<PathBuf> {
    let mut manifest = bundle.summary_manifest();
    place.note(&mut manifest);
    let mut entry = EntryDir::create(spool, manifest.id)?;
    let directory = entry.path().to_owned();
    let outcome = (|| {
        let failed = |error| dump::bundle_failure(error, shown);
        manifest.stem = render_stem(DEFAULT_STEM, &manifest);
        let mut seen = Vec::new();
        for found in bundle.entries() {
            let Some(kind) = &found.kind else { continue };
            if matches!(kind, EntryKind::Core(_) | EntryKind::Manifest) {
                continue;
            }
            // IBM's agent uses one name for the logs of all containers: the first counts.
            if seen.contains(&kind) {
                continue;
            }
            seen.push(kind);
            let mut out = entry.create_file(kind)?;
            io::copy(&mut bundle.entry_reader(found).map_err(failed)?, &mut out)
                .with_context(|| format!("cannot read entry {}", found.name))?;
            out.flush()?;
            let (_, digests) = out.finish();
            entry.record(kind, digests);
        }
        if let Some(reader) = bundle.core_reader().map_err(failed)? {
            let record = pack_core(&mut entry, reader, &manifest.stem)?;
            add_core(&mut manifest, record, packed_core(&entry, shown).ok());
        } else if bundle.manifest().is_none() && bundle.legacy().is_none() {
            return Err(Failure::new(
                ExitStatus::Failure,
                format!("cannot import `{shown}`: it is not a dump"),
            )
            .hint("pass a core, or a bundle (zip) of cdh or of IBM's core-dump-handler")
            .into());
        }
        Ok(entry.seal(manifest.clone())?)
    })();
    if outcome.is_err() {
        let _ = fs::remove_dir_all(directory);
    }
    outcome
}

/// Completes a manifest with facts from the core itself.
fn add_core(manifest: &mut Manifest, record: CoreRecord, core: Option<CoreFile>) {
    manifest.core = Some(CoreRecord {
        expected: core
            .as_ref()
            .map_or(record.expected, |core| core.head().expected_len()),
        ..record
    });
    let Some(core) = core else { return };
    let head = core.head();
    if manifest.machine.is_empty() {
        manifest.machine = head.machine().to_string();
        manifest.verdict = verdict_of(&core);
        manifest.modules = core.modules().iter().map(module_record).collect();
        manifest.thread_count = Some(head.threads().len() as u64);
        if let Some(signal) = head.signal() {
            manifest.signal = SignalFacts::from(&signal);
        }
    }
}

fn verdict_of(core: &CoreFile) -> Verdict {
    let found = core.completeness();
    if found.is_complete() {
        return Verdict::Complete;
    }
    Verdict::Truncated {
        expected: found.expected,
        got: found.found,
        cause: Cause::Unknown,
        evidence: None,
    }
}

/// Facts about the crash from a core, and what was recorded beside it.
pub(super) fn manifest_of_core(core: &CoreFile, path: &Path, provenance: &Provenance) -> Manifest {
    let head = core.head();
    let modules = core.modules();
    let executable = modules
        .iter()
        .find(|module| module.kind == ModuleKind::Executable);
    let mut manifest = Manifest {
        process: process_facts(head, executable, path),
        signal: head
            .signal()
            .as_ref()
            .map(SignalFacts::from)
            .unwrap_or_default(),
        machine: head.machine().to_string(),
        verdict: verdict_of(core),
        modules: modules.iter().map(module_record).collect(),
        thread_count: Some(head.threads().len() as u64),
        ..empty_manifest(path, provenance)
    };
    provenance.note(&mut manifest);
    if manifest.signal.name.is_empty() {
        "none".clone_into(&mut manifest.signal.name);
        let known = !head.threads().is_empty();
        let words = if known {
            "no signal: the process was alive"
        } else {
            "signal unknown"
        };
        words.clone_into(&mut manifest.signal.description);
    }
    manifest
}

/// Facts without a core: only the file.
fn empty_manifest(path: &Path, provenance: &Provenance) -> Manifest {
    Manifest {
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        imported: Some(provenance.record(path, Timestamp::now())),
        ..Manifest::new(DumpId::random(), Timestamp::UNIX_EPOCH, Verdict::Complete)
    }
}

fn process_facts(head: &CoreHead, executable: Option<&Module>, path: &Path) -> ProcessFacts {
    let exe = executable.map(|module| RawText::new(module.path.clone()));
    let Some(process) = head.process() else {
        let name = path
            .file_name()
            .unwrap_or_default()
            .as_encoded_bytes()
            .to_vec();
        return ProcessFacts {
            name: RawText::new(name),
            exe,
            ..ProcessFacts::default()
        };
    };
    let arguments = process.arguments.split(|byte| *byte == b' ');
    ProcessFacts {
        // valgrind omits the process id; the first thread has the same id.
        pid: match process.pid {
            0 => head
                .threads()
                .iter()
                .map(|thread| u64::from(thread.tid))
                .min()
                .unwrap_or(0),
            pid => u64::from(pid),
        },
        tid: head.threads().first().map(|thread| u64::from(thread.tid)),
        name: RawText::new(process.name.clone()),
        exe,
        arguments: Some(arguments.map(RawText::from).collect()),
        uid: Some(process.uid),
        gid: Some(process.gid),
        ..ProcessFacts::default()
    }
}

fn module_record(module: &Module) -> ModuleRecord {
    ModuleRecord {
        path: RawText::new(module.path.clone()),
        build_id: module.build_id.clone(),
        sha256: None,
        start: module.start().0,
        end: module.end().0,
        kind: module.kind,
    }
}
