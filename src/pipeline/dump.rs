//! One dump, wherever it is: in the store, in a bundle file, in a case directory, or a bare core.

use std::fs::File;
use std::io::Read;
use std::ops::{ControlFlow, Range};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use cdh_bundle::{BundleError, BundleReader, CoreEncoding, EntryKind, Manifest};
use cdh_elfcore::{
    Avma, BlockSource, ByteSource, Completeness, CoreError, CoreFile, CoreHead, FileSource, Memory,
};
use cdh_store::{DumpSummary, ObjectKey, ObjectStat, Store, StoreError, StoreUrl};
use jiff::Timestamp;

use super::compressed::{self, Compression, Wrapping};
use super::files::open_regular;
use super::integrity::{self, Found};
use super::listing_cache::{Listed, remember_listing};
use super::other_file::{self, OtherFile};
use super::spooled::{self, Spooled};
use super::{Case, case, import, stores, zipped_core};
use crate::query::Selection;
use crate::render::{shell_word, terminal_line};
use crate::report::{self, ExitStatus, Failure};
use crate::settings::Settings;

/// Where a dump was found.
#[derive(Debug)]
pub enum Origin {
    /// In the store.
    Store(Box<DumpSummary>),
    /// A bundle's file.
    Bundle(PathBuf),
    /// An entry in the spool of this node, which the store does not have.
    Spool(PathBuf),
    /// A directory made by `cdh fetch`.
    Case(PathBuf),
    /// A core that no agent has seen.
    Core(PathBuf),
}

/// A dump that was opened: its manifest, and its evidence on demand.
pub struct Dump {
    /// Where it was found.
    pub origin: Origin,
    /// Its manifest; for a bare core, made from the core itself.
    pub manifest: Manifest,
    /// Whether the reference was a match, such as a program name, and this is the newest of several matching
    /// dumps.
    pub is_match: bool,
    bundle: Option<BundleReader>,
    /// The reader of its bundle by ranges, if it is behind a network.
    pub(super) remote: Option<Remote>,
    /// Distinguishes this bundle from another one of the same name.
    identity: String,
    /// The store that it is in.
    pub(super) store: Option<Arc<dyn Store>>,
    /// Damage found so far.
    damage: Mutex<Vec<String>>,
    /// Whether the complete stored core was compared.
    verified_whole: AtomicBool,
    /// The plain core of a compressed one.
    plain: Option<PathBuf>,
    /// An open bare core, until a command needs it.
    opened: Mutex<Option<CoreFile>>,
}

/// An object in a store, as it was when the dump was opened.
pub(super) struct Remote {
    store: Arc<dyn Store>,
    key: ObjectKey,
    stat: ObjectStat,
}

/// Whether a core without random access is unpacked into a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unpack {
    IfNeeded,
    Never,
}

/// Maximum size of stored cores that are compared completely because their frames have no
/// checksums.
const VERIFIED_WHOLE: u64 = 64 << 20;

/// Inputs of a backtrace: head and memory of a core, and which parts are missing.
pub struct Analysis {
    /// Head of the core, otherwise of the minicore.
    pub head: Arc<CoreHead>,
    /// The core's memory; pages that the core lacks come from the minicore.
    pub memory: LayeredMemory,
    /// Which parts of the core exist, if the dump has one.
    pub completeness: Option<Completeness>,
    /// Whether all of this came from the minicore.
    pub from_minicore: bool,
    /// Number of memory layers that are local, not behind a network.
    near: usize,
}

impl Analysis {
    /// The cores that files are compared with. Behind a network, only the minicore: comparing all code of a
    /// large program would download it.
    #[must_use]
    pub fn evidence(&self) -> &[CoreFile] {
        self.memory.0.get(..self.near).unwrap_or_default()
    }
}

/// Memory from several cores of the same process; the first one that holds a page supplies it.
pub struct LayeredMemory(Vec<CoreFile>);

impl Memory for LayeredMemory {
    fn read(&self, at: Avma, buf: &mut [u8]) -> usize {
        let mut done = 0;
        while let Some(rest) = buf.get_mut(done..).filter(|rest| !rest.is_empty()) {
            let Some(next) = at.checked_add(done as u64) else {
                break;
            };
            let found = self
                .0
                .iter()
                .map(|core| core.read(next, rest))
                .find(|&count| count > 0);
            let Some(count) = found else { break };
            done += count;
        }
        done
    }

    fn is_executable(&self, at: Avma) -> Option<bool> {
        self.0.iter().find_map(|core| core.is_executable(at))
    }
}

/// Opens the dump that `reference` names: a path, or a reference into the store.
///
/// # Errors
/// If there is none, or it cannot be read as a dump.
pub fn open_dump(settings: &Settings, reference: &str) -> Result<Dump> {
    open_one(settings, reference, &mut None)
}

/// Opens several; all references are resolved before this returns, so that `latest` does not move.
///
/// # Errors
/// As [`open_dump`].
pub fn open_dumps(settings: &Settings, references: &[String]) -> Result<Vec<Dump>> {
    let mut store = None;
    let open = |reference: &String| open_one(settings, reference, &mut store);
    references.iter().map(open).collect()
}

fn open_one(
    settings: &Settings,
    reference: &str,
    store: &mut Option<Arc<dyn Store>>,
) -> Result<Dump> {
    let path = Path::new(reference);
    if looks_like_path(reference) {
        // The path of a program means its newest dump, whether or not the program exists here.
        let may_match = is_program(path) || reference.starts_with('/') && !path.exists();
        return match may_match.then(|| open_match(settings, reference, store)) {
            Some(Ok(Some(dump))) => Ok(dump),
            _ => open_path(settings, path),
        };
    }
    let resolved = match store {
        Some(store) => stores::resolve(settings, store.as_ref(), reference),
        None => stores::open_store(settings).and_then(|opened| {
            let store = store.insert(Arc::from(opened));
            stores::resolve(settings, store.as_ref(), reference)
        }),
    };
    match (resolved, &*store) {
        (Ok(summary), Some(store)) => {
            remember_listing(settings, std::slice::from_ref(&summary), Listed::Part);
            open_summary(settings, store, summary)
        }
        // A file in the current directory needs no `./`, but the store takes precedence.
        (Err(_), _) if path.exists() => open_path(settings, path),
        (Err(error), _) if report::status_of(&error) == ExitStatus::Nothing => {
            match open_spooled(settings, reference, error) {
                Ok(dump) => Ok(dump),
                Err(error) => Ok(open_match(settings, reference, store)?.ok_or(error)?),
            }
        }
        (Err(error), _) => open_spooled(settings, reference, error),
        (Ok(_), None) => Err(anyhow::anyhow!("no store is open")),
    }
}

/// Opens the newest dump that matches, like coredumpctl: by process id, program, unit, command line or terms.
fn open_match(
    settings: &Settings,
    reference: &str,
    store: &mut Option<Arc<dyn Store>>,
) -> Result<Option<Dump>> {
    if matches!(reference.chars().next(), None | Some('@' | '~')) || reference == "latest" {
        return Ok(None);
    }
    let selection = Selection::of_reference(reference, Timestamp::now())?;
    let store = match store {
        Some(store) => Arc::clone(store),
        None => Arc::clone(store.insert(Arc::from(stores::open_store(settings)?))),
    };
    let found = stores::catalog(settings, store.as_ref())
        .find(&selection.query)
        .map_err(|error| stores::store_failure(error, "search"))?;
    let Some(summary) = found.into_iter().next() else {
        return Ok(None);
    };
    let mut dump = open_summary(settings, &store, summary)?;
    dump.is_match = true;
    Ok(Some(dump))
}

/// Whether this is an ELF file that is not a core, such as a program.
fn is_program(path: &Path) -> bool {
    /// `e_type` of executables and of position-independent ones (`elf.h`).
    const PROGRAMS: [u16; 2] = [2, 3];
    let mut start = [0; 18];
    let read = open_regular(path).and_then(|mut file| file.read_exact(&mut start));
    let [0x7f, b'E', b'L', b'F', _, order, .., low, high] = start else {
        return false;
    };
    let kind = match order {
        2 => u16::from_be_bytes([low, high]),
        _ => u16::from_le_bytes([low, high]),
    };
    read.is_ok() && PROGRAMS.contains(&kind)
}

/// Opens a dump that is still in the spool of this node; `error` is why the store does not have it.
fn open_spooled(settings: &Settings, reference: &str, error: anyhow::Error) -> Result<Dump> {
    match spooled::find(&settings.spool, reference)? {
        Spooled::Entry(path, bundle) => {
            let manifest = bundle.summary_manifest();
            let identity = format!("{} {}", path.display(), manifest.id);
            let mut dump = Dump::local(Origin::Spool(path), manifest, Some(*bundle));
            dump.identity = identity;
            Ok(dump)
        }
        Spooled::Nothing { hidden: true } => {
            let shown = terminal_line(reference);
            let rendered = report::rendered(&error);
            let status = rendered.status;
            let message = rendered.lines.first().cloned().unwrap_or_default();
            let hints = rendered.hints.iter().cloned();
            let failure = hints.fold(Failure::new(status, message), Failure::hint);
            let failure = failure.hint(format!(
                "if it was kept on this node, only root can read it: `sudo cdh info {shown}`"
            ));
            Err(match rendered.lines.len() {
                0 | 1 => failure.into(),
                _ => {
                    let causes = rendered.lines.get(1..).unwrap_or_default().join(": ");
                    failure.cause(anyhow::anyhow!("{causes}")).into()
                }
            })
        }
        Spooled::Nothing { hidden: false } => Err(error),
    }
}

/// Opens a listed dump.
///
/// # Errors
/// If it was deleted, or cannot be read as a bundle.
pub fn open_summary(
    settings: &Settings,
    store: &Arc<dyn Store>,
    summary: DumpSummary,
) -> Result<Dump> {
    let key = &summary.key;
    let failed = |error| stores::store_failure(error, "read");
    let not_found = || StoreError::NotFound {
        path: key.to_string(),
    };
    let stat = store.stat(key).map_err(failed)?;
    let stat = stat.ok_or_else(|| failed(not_found()))?;
    let source = store.read_pinned(key, &stat).map_err(failed)?;
    let opened = BundleReader::open(source);
    let Found {
        manifest,
        bundle,
        damage,
    } = integrity::reconcile(settings, store, &summary, opened)?;
    let version = match (&stat.etag, &stat.modified) {
        (Some(etag), _) => etag.clone(),
        (None, Some(modified)) => modified.to_string(),
        (None, None) => String::new(),
    };
    let identity = format!("{} {key} {} {version}", store.describe(), stat.size);
    let is_remote = matches!(settings.store, StoreUrl::S3 { .. });
    Ok(Dump {
        manifest,
        bundle,
        is_match: false,
        store: Some(Arc::clone(store)),
        damage: Mutex::new(damage),
        verified_whole: AtomicBool::new(false),
        remote: is_remote.then(|| Remote {
            store: Arc::clone(store),
            key: key.clone(),
            stat,
        }),
        identity,
        plain: None,
        opened: Mutex::default(),
        origin: Origin::Store(Box::new(summary)),
    })
}

fn looks_like_path(reference: &str) -> bool {
    reference.contains('/') || reference == "." || reference == ".."
}

/// A file that cannot be opened, with advice.
pub(super) fn unreadable(error: std::io::Error, shown: &str) -> anyhow::Error {
    let failure = Failure::new(ExitStatus::Failure, format!("cannot open `{shown}`"));
    match error.kind() {
        std::io::ErrorKind::NotFound => {
            failure.hint("check the path; `cdh ls` lists the ids of dumps in the store")
        }
        std::io::ErrorKind::PermissionDenied => {
            failure.hint("run as the owner of the file (root, for a core that the agent captured)")
        }
        std::io::ErrorKind::InvalidInput => {
            failure.hint("pass the path of a core, a bundle or a case")
        }
        _ => failure,
    }
    .cause(error)
    .into()
}

/// Opens a directory that `cdh fetch` made.
///
/// # Errors
/// If it is not such a directory, or cannot be read.
pub fn open_case(path: &Path) -> Result<Dump> {
    let shown = terminal_line(&path.display().to_string());
    match Case::open(path)? {
        Some(opened) => Ok(Dump::local(
            Origin::Case(path.to_owned()),
            opened.manifest,
            None,
        )),
        None => Err(Failure::new(
            ExitStatus::Failure,
            format!("cannot open `{shown}`: it is a directory, not a dump"),
        )
        .hint("pass the path of a core, a bundle or a case; a store is passed as `--store <DIR>`")
        .into()),
    }
}

/// Opens a bundle, a case directory or a bare core by its path.
fn open_path(settings: &Settings, path: &Path) -> Result<Dump> {
    let shown = terminal_line(&path.display().to_string());
    let unreadable = |error| unreadable(error, &shown);
    let metadata = std::fs::metadata(path).map_err(unreadable)?;
    if metadata.is_dir() {
        return open_case(path);
    }
    let mut file = open_regular(path).map_err(unreadable)?;
    let mut magic = [0; 8];
    let known = read_up_to(&mut file, &mut magic).map_err(unreadable)?;
    match magic.get(..known).unwrap_or_default() {
        b"" => Err(Failure::new(ExitStatus::Failure, format!("cannot read `{shown}`: the file is empty"))
            .hint("the disk was full, or RLIMIT_CORE too small, when the core was written: `ulimit -c unlimited`")
            .into()),
        [b'P', b'K', 3, 4, ..] | [b'P', b'K', 5, 6, ..] => {
            let source: Arc<dyn ByteSource> = Arc::new(FileSource::new(file).map_err(unreadable)?);
            let Some(bundle) = zipped_core::bundle_in(&source, &shown)? else {
                return open_core(settings, path, Some(Wrapping::Zip));
            };
            let manifest = bundle.summary_manifest();
            let mut dump = Dump::local(Origin::Bundle(path.to_owned()), manifest, Some(bundle));
            let modified = metadata.modified().ok();
            dump.identity = format!("{} {} {modified:?}", path.display(), metadata.len());
            Ok(dump)
        }
        start => {
            let compression = Compression::from_magic(start);
            open_core(settings, path, compression.map(Wrapping::Compressed))
        }
    }
}

/// Opens a bare core, unpacked first if it is wrapped.
fn open_core(settings: &Settings, path: &Path, wrapping: Option<Wrapping>) -> Result<Dump> {
    let shown = terminal_line(&path.display().to_string());
    let file = open_regular(path).map_err(|error| unreadable(error, &shown))?;
    let plain = match wrapping {
        Some(wrapping) => Some(compressed::unpack(settings, path, wrapping)?),
        None => None,
    };
    let core = open_core_file(plain.as_deref().unwrap_or(path))?;
    let provenance = import::Provenance::of_file(&file, path);
    let manifest = import::manifest_of_core(&core, path, &provenance);
    let mut dump = Dump::local(Origin::Core(path.to_owned()), manifest, None);
    dump.plain = plain;
    dump.opened = Mutex::new(Some(core));
    Ok(dump)
}

fn read_up_to(file: &mut File, buf: &mut [u8]) -> std::io::Result<usize> {
    let mut done = 0;
    while let Some(rest) = buf.get_mut(done..).filter(|rest| !rest.is_empty()) {
        match file.read(rest)? {
            0 => break,
            count => done += count,
        }
    }
    Ok(done)
}

/// Opens a bare core.
pub(super) fn open_core_file(path: &Path) -> Result<CoreFile> {
    let shown = terminal_line(&path.display().to_string());
    let file = open_regular(path).map_err(|error| unreadable(error, &shown))?;
    let source = BlockSource::new(file).with_context(|| format!("cannot read `{shown}`"))?;
    let source: Box<dyn ByteSource> = Box::new(source);
    CoreFile::open(source).map_err(|error| {
        let mut start = [0; other_file::START];
        let file = open_regular(path);
        let known = file.and_then(|mut file| read_up_to(&mut file, &mut start));
        let known = known.unwrap_or_default();
        core_failure(error, &shown, start.get(..known).unwrap_or_default())
    })
}

/// Adds the file name and advice to a core's error; `start` are the file's first bytes.
pub(super) fn core_failure(error: CoreError, shown: &str, start: &[u8]) -> anyhow::Error {
    let failure = Failure::new(
        ExitStatus::Failure,
        format!("cannot read `{shown}` as a core"),
    );
    if let CoreError::NotElf = error
        && let Some(other) = OtherFile::of(start.get(..other_file::START).unwrap_or(start))
    {
        let failure = other.advise(failure, shown);
        return failure.cause(anyhow::anyhow!(other.cause())).into();
    }
    match &error {
        CoreError::NotElf | CoreError::NotCore { .. } => {
            failure.hint("pass a core as the kernel or `gcore` writes it, or a bundle (zip) of cdh or of IBM's core-dump-handler")
        }
        CoreError::Empty | CoreError::HeadTruncated { .. } => {
            failure.hint("the disk was full, or RLIMIT_CORE too small, when the core was written: `ulimit -c unlimited`")
        }
        CoreError::Unsupported { .. } => failure.hint(format!(
            "open it with a gdb for its machine, such as `gdb-multiarch -c {}`",
            shell_word(shown)
        )),
        CoreError::Foreign { opener, .. } => failure.hint(format!("open it with {opener}")),
        _ => failure,
    }
    .cause(error)
    .into()
}

pub(super) fn bundle_failure(error: BundleError, shown: &str) -> anyhow::Error {
    let status = match &error {
        BundleError::Mismatch { .. } => ExitStatus::Mismatch,
        _ => ExitStatus::Failure,
    };
    Failure::new(status, format!("cannot read `{shown}` as a bundle"))
        .hint("the upload or copy may have ended early, or the file was changed: copy it again from its source")
        .cause(error)
        .into()
}

impl Dump {
    fn local(origin: Origin, manifest: Manifest, bundle: Option<BundleReader>) -> Self {
        Self {
            origin,
            manifest,
            store: None,
            damage: Mutex::new(
                bundle
                    .as_ref()
                    .map(|bundle| bundle.damage().to_vec())
                    .unwrap_or_default(),
            ),
            verified_whole: AtomicBool::new(false),
            bundle,
            is_match: false,
            remote: None,
            identity: String::new(),
            plain: None,
            opened: Mutex::default(),
        }
    }

    /// The bundle, if the dump is one.
    #[must_use]
    pub fn bundle(&self) -> Option<&BundleReader> {
        self.bundle.as_ref()
    }

    /// Distinguishes this bundle from another one, to resume the work of an earlier run.
    pub(super) fn identity(&self) -> &str {
        &self.identity
    }

    /// The file with the plain bytes of a bare core that was opened as `path`.
    pub(super) fn plain_core<'p>(&'p self, path: &'p Path) -> &'p Path {
        self.plain.as_deref().unwrap_or(path)
    }

    /// Hands a range of the remote bundle to `sink` as it arrives.
    pub(super) fn read_range(
        &self,
        range: Range<u64>,
        sink: &mut dyn FnMut(&[u8]) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        let Some(remote) = &self.remote else {
            return Err(StoreError::Unsupported {
                what: "a range of what is not in a store".to_owned(),
            });
        };
        let (key, stat) = (&remote.key, &remote.stat);
        remote.store.read_range(key, stat, range, sink)
    }

    /// Opens core and minicore for analysis, without unpacking if the encoding allows it.
    ///
    /// # Errors
    /// If there is neither, or none that can be analysed.
    pub fn analysis(
        &self,
        settings: &Settings,
        observer: &dyn super::Observer,
    ) -> Result<Analysis> {
        self.analysis_of(self.core(settings, observer, Unpack::IfNeeded))
    }

    /// Like [`analysis`](Self::analysis), but never unpacks anything and transfers very little.
    ///
    /// # Errors
    /// As there, and if the core would have to be unpacked.
    pub fn analysis_in_place(
        &self,
        settings: &Settings,
        observer: &dyn super::Observer,
    ) -> Result<Analysis> {
        self.analysis_of(self.core(settings, observer, Unpack::Never))
    }

    fn analysis_of(&self, core: Result<Option<CoreFile>>) -> Result<Analysis> {
        let minicore = self.minicore();
        if let Err(error) = &core
            && report::status_of(error) == ExitStatus::Mismatch
        {
            self.note_damage(format!("the core is not used: {error:#}"));
        }
        let (core, minicore) = match (core, minicore) {
            (Ok(None), None) if self.is_damaged() => {
                return Err(integrity::unreadable(self));
            }
            (Ok(None), None) => {
                return Err(Failure::new(ExitStatus::Nothing, "this dump has no core")
                    .hint("`cdh info` shows why it is missing")
                    .into());
            }
            // The minicore exists for this case.
            (Err(error), None) => return Err(error),
            (core, minicore) => (core.ok().flatten(), minicore),
        };
        let completeness = core.as_ref().map(CoreFile::completeness);
        let from_minicore = core.is_none();
        let near = match (&self.remote, &minicore, &core) {
            (Some(_), Some(_), _) => 1,
            (_, minicore, core) => usize::from(minicore.is_some()) + usize::from(core.is_some()),
        };
        // Behind a network, the minicore takes precedence, because it is already local.
        let layers: Vec<CoreFile> = match self.remote {
            Some(_) => minicore.into_iter().chain(core).collect(),
            None => core.into_iter().chain(minicore).collect(),
        };
        // A core that ends within its notes has fewer threads than the minicore.
        let head = layers
            .iter()
            .map(CoreFile::shared_head)
            .max_by_key(|head| (head.threads().len(), head.mappings().len()))
            .context("this dump has no core")?;
        Ok(Analysis {
            head,
            memory: LayeredMemory(layers),
            completeness,
            from_minicore,
            near,
        })
    }

    /// Reads only the minicore, which is small wherever the dump is. `None` if there is none.
    #[must_use]
    pub fn quick_analysis(&self) -> Option<Analysis> {
        let minicore = self.minicore()?;
        Some(Analysis {
            head: minicore.shared_head(),
            memory: LayeredMemory(vec![minicore]),
            completeness: None,
            from_minicore: true,
            near: 1,
        })
    }

    fn core(
        &self,
        settings: &Settings,
        observer: &dyn super::Observer,
        unpack: Unpack,
    ) -> Result<Option<CoreFile>> {
        let shown = self.label();
        let open = |source| CoreFile::open(source).map_err(|error| self.core_problem(error));
        match (&self.origin, &self.bundle) {
            (Origin::Core(path), _) => {
                let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
                match opened.take() {
                    Some(core) => Ok(Some(core)),
                    None => open_core_file(self.plain_core(path)).map(Some),
                }
            }
            (Origin::Case(path), _) => {
                case::verify(path, &self.manifest, observer)?;
                let core = Case::core_path(path);
                core.map(|core| open_core_file(&core)).transpose()
            }
            (_, Some(bundle)) => {
                self.verify_if_cheap(bundle)?;
                if let Some(source) = bundle
                    .core_source()
                    .map_err(|error| bundle_failure(error, &shown))?
                {
                    return open(source).map(Some);
                }
                // A deflated core has no random access: unpack it once into the case.
                if !bundle
                    .entries()
                    .iter()
                    .any(|entry| matches!(entry.kind, Some(EntryKind::Core(_))))
                {
                    return Ok(None);
                }
                let unpacked = match unpack {
                    Unpack::IfNeeded => case::fetch(settings, self, None, observer)?,
                    Unpack::Never => {
                        let known = Case::open(&Case::in_cache(settings, &self.manifest)?)?;
                        let known = known.context("the core is not unpacked yet")?;
                        case::verify(&known.path, &self.manifest, observer)?;
                        known
                    }
                };
                Case::core_path(&unpacked.path)
                    .map(|path| open_core_file(&path))
                    .transpose()
            }
            _ => Ok(None),
        }
    }

    /// Why the core could not be opened: damage found on the way, or an invalid head.
    fn core_problem(&self, error: CoreError) -> anyhow::Error {
        let problem = self.bundle.as_ref().and_then(BundleReader::read_problem);
        match problem.filter(|problem| problem.is_damage) {
            // A bundle that ends inside its core may hold no byte of it.
            None if self.is_damaged() => integrity::unreadable(self),
            None => core_failure(error, &self.label(), &[]),
            Some(problem) => {
                Failure::new(ExitStatus::Mismatch, "the core in the bundle is damaged")
                    .cause(anyhow::anyhow!("{}", problem.what))
                    .hint(integrity::ANOTHER_COPY)
                    .into()
            }
        }
    }

    /// Compares a small local stored core whose frames have no checksums completely.
    fn verify_if_cheap(&self, bundle: &BundleReader) -> Result<()> {
        let failed = |error| bundle_failure(error, &self.label());
        let Some(entry) = bundle.entry(&EntryKind::Core(CoreEncoding::None)) else {
            return Ok(());
        };
        let is_cheap = self.remote.is_none() && entry.stored_size <= VERIFIED_WHOLE && !entry.cut;
        if is_cheap && bundle.core_has_checksums().map_err(failed)? == Some(false) {
            bundle.verify_stored_core().map_err(failed)?;
            self.verified_whole.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    pub(super) fn note_damage(&self, what: String) {
        let mut damage = self.damage.lock().unwrap_or_else(PoisonError::into_inner);
        if !damage.contains(&what) {
            damage.push(what);
        }
    }

    /// Damage found so far, in words; reading more of the core may find more.
    #[must_use]
    pub fn damage(&self) -> Vec<String> {
        let problem = self.bundle.as_ref().and_then(BundleReader::read_problem);
        if let Some(problem) = problem.filter(|problem| problem.is_damage) {
            self.note_damage(problem.what);
        }
        let damage = self.damage.lock().unwrap_or_else(PoisonError::into_inner);
        damage.clone()
    }

    /// Whether any damage was found.
    #[must_use]
    pub fn is_damaged(&self) -> bool {
        !self.damage().is_empty()
    }

    /// Whether checksums cover everything that was read of its core so far. Bare cores have none and do
    /// not count.
    #[must_use]
    pub fn is_verified(&self) -> bool {
        let bundle = self.bundle.as_ref();
        self.verified_whole.load(Ordering::Relaxed) || bundle.is_none_or(BundleReader::is_verified)
    }

    /// A read that failed although the bytes may be good: disk or network errors.
    pub(super) fn failed_read(&self) -> Option<String> {
        let problem = self.bundle.as_ref().and_then(BundleReader::read_problem)?;
        (!problem.is_damage).then_some(problem.what)
    }

    fn minicore(&self) -> Option<CoreFile> {
        let source: Box<dyn ByteSource> = match (&self.origin, &self.bundle) {
            (Origin::Case(path), _) => {
                let opened = case::open_entry(path, &self.manifest, &EntryKind::Minicore);
                let noted = opened.inspect_err(|error| self.note_damage(error.to_string()));
                Box::new(FileSource::new(noted.ok()??).ok()?)
            }
            (_, Some(bundle)) => {
                bundle.entry(&EntryKind::Minicore)?;
                let source = bundle.entry_source(&EntryKind::Minicore);
                let noted = source.inspect_err(|error| self.note_damage(error.to_string()));
                noted.ok()?
            }
            _ => return None,
        };
        CoreFile::open(source).ok()
    }

    /// Its name in messages: the id, or the path that the user gave.
    #[must_use]
    pub fn label(&self) -> String {
        match &self.origin {
            Origin::Store(summary) => summary.id.short(),
            Origin::Spool(_) => self.manifest.id.short(),
            Origin::Bundle(path) | Origin::Case(path) | Origin::Core(path) => {
                terminal_line(&path.display().to_string())
            }
        }
    }
}
