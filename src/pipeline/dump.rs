//! One dump, wherever it is: in the store, in a bundle's file, in a case directory, or a bare core.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use cdh_bundle::{BundleError, BundleReader, EntryKind, Manifest};
use cdh_elfcore::{
    Avma, ByteSource, Completeness, CoreError, CoreFile, CoreHead, FileSource, MappedFile, Memory,
};
use cdh_store::DumpSummary;

use super::files::open_regular;
use super::{Case, case, import, stores};
use crate::render::terminal_line;
use crate::report::{ExitStatus, Failure};
use crate::settings::Settings;

/// Where a dump was found.
#[derive(Debug)]
pub enum Origin {
    /// In the store.
    Store(Box<DumpSummary>),
    /// A bundle's file.
    Bundle(PathBuf),
    /// A directory made by `cdh fetch`.
    Case(PathBuf),
    /// A core that no agent has seen.
    Core(PathBuf),
}

/// A dump that was opened: its manifest, and its evidence on demand.
pub struct Dump {
    /// Where it was found.
    pub origin: Origin,
    /// What is said about it; made from the core itself where it is a bare one.
    pub manifest: Manifest,
    bundle: Option<BundleReader>,
}

/// What a backtrace needs: head and memory of a core, and what is missing of it.
pub struct Analysis {
    /// Head of the core, else of the minicore.
    pub head: CoreHead,
    /// The core's memory, with the minicore's pages where the core has none.
    pub memory: LayeredMemory,
    /// What there is of the core, where the dump has one.
    pub completeness: Option<Completeness>,
    /// Whether all of this came from the minicore alone.
    pub from_minicore: bool,
}

/// Memory from several cores of the same process; the first that knows a page answers.
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
}

/// Opens the dump that `reference` means: a path, or a reference into the store.
///
/// # Errors
/// When there is none, or it cannot be read as one.
pub fn open_dump(settings: &Settings, reference: &str) -> Result<Dump> {
    let path = Path::new(reference);
    if looks_like_path(reference) {
        return open_path(path);
    }
    let store = stores::open_store(settings)?;
    match stores::resolve(settings, store.as_ref(), reference) {
        Ok(summary) => {
            let source = store
                .read(&summary.key)
                .map_err(|error| stores::store_failure(error, "read"))?;
            let bundle = BundleReader::open(source)
                .map_err(|error| bundle_failure(error, &summary.key.to_string()))?;
            Ok(Dump {
                origin: Origin::Store(Box::new(summary)),
                manifest: bundle.summary_manifest(),
                bundle: Some(bundle),
            })
        }
        // A file in the current directory needs no `./`, but the store comes first.
        Err(_) if path.exists() => open_path(path),
        Err(error) => Err(error),
    }
}

fn looks_like_path(reference: &str) -> bool {
    reference.contains('/') || reference == "." || reference == ".."
}

/// A file that cannot be opened, with advice.
pub(super) fn unreadable(error: std::io::Error, shown: &str) -> anyhow::Error {
    let failure = Failure::new(ExitStatus::Failure, format!("cannot open `{shown}`"));
    match error.kind() {
        std::io::ErrorKind::NotFound => {
            failure.hint("check the path; dumps in the store are named by id: `cdh ls`")
        }
        std::io::ErrorKind::PermissionDenied => failure
            .hint("cores belong to the user who crashed, captured ones to root: try as that user"),
        std::io::ErrorKind::InvalidInput => {
            failure.hint("give the path of a core, a bundle or a case")
        }
        _ => failure,
    }
    .cause(error)
    .into()
}

/// Opens a bundle, a case directory or a bare core by its path.
fn open_path(path: &Path) -> Result<Dump> {
    let shown = terminal_line(&path.display().to_string());
    let unreadable = |error| unreadable(error, &shown);
    let metadata = std::fs::metadata(path).map_err(unreadable)?;
    if metadata.is_dir() {
        return match Case::open(path)? {
            Some(opened) => Ok(Dump { manifest: opened.manifest, origin: Origin::Case(path.to_owned()), bundle: None }),
            None => Err(Failure::new(ExitStatus::Failure, format!("`{shown}` is a directory, not a dump"))
                .hint("give the path of a core, a bundle or a case; a whole store is passed as `--store <DIR>`")
                .into()),
        };
    }
    let mut file = open_regular(path).map_err(unreadable)?;
    let mut magic = [0; 4];
    let known = read_up_to(&mut file, &mut magic).map_err(unreadable)?;
    match magic.get(..known).unwrap_or_default() {
        b"" => Err(Failure::new(ExitStatus::Failure, format!("`{shown}` is empty"))
            .hint("the disk may have been full, or RLIMIT_CORE too small (`ulimit -c unlimited`), when it was written")
            .into()),
        b"PK\x03\x04" | b"PK\x05\x06" => {
            let source = Arc::new(FileSource::new(file).map_err(unreadable)?);
            let bundle = BundleReader::open(source).map_err(|error| bundle_failure(error, &shown))?;
            Ok(Dump { origin: Origin::Bundle(path.to_owned()), manifest: bundle.summary_manifest(), bundle: Some(bundle) })
        }
        b"\x28\xb5\x2f\xfd" | [0x1f, 0x8b, ..] => {
            Err(Failure::new(ExitStatus::Failure, format!("`{shown}` is compressed"))
                .hint(format!("put it into the store with `cdh import {shown}`, which unpacks it"))
                .into())
        }
        _ => {
            let core = open_core_file(path)?;
            let manifest = import::manifest_of_core(&core, path, &metadata);
            Ok(Dump { origin: Origin::Core(path.to_owned()), manifest, bundle: None })
        }
    }
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

/// Maps a bare core.
pub(super) fn open_core_file(path: &Path) -> Result<CoreFile> {
    let shown = terminal_line(&path.display().to_string());
    let file = open_regular(path).map_err(|error| unreadable(error, &shown))?;
    let source: Box<dyn ByteSource> = match MappedFile::from_file(&file) {
        Ok(map) => Box::new(map),
        // Some file systems cannot map; an empty file cannot be mapped either.
        Err(_) => {
            Box::new(FileSource::new(file).with_context(|| format!("cannot read `{shown}`"))?)
        }
    };
    CoreFile::open(source).map_err(|error| core_failure(error, &shown))
}

/// A core's error with the file it is about and with advice.
pub(super) fn core_failure(error: CoreError, shown: &str) -> anyhow::Error {
    let failure = Failure::new(
        ExitStatus::Failure,
        format!("cannot read `{shown}` as a core"),
    );
    match &error {
        CoreError::NotElf | CoreError::NotCore { .. } => {
            failure.hint("give a core as the kernel or `gcore` writes it, or a bundle (zip) of cdh or of IBM's core-dump-handler")
        }
        CoreError::Empty | CoreError::HeadTruncated { .. } => {
            failure.hint("the disk may have been full, or RLIMIT_CORE too small (`ulimit -c unlimited`), when it was written")
        }
        CoreError::Unsupported { .. } => failure.hint("the core is kept as it is: `cdh fetch` it and use a debugger of its architecture"),
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
        .hint("its upload or copy may have ended early, or it was changed since: copy it again from where it came")
        .cause(error)
        .into()
}

impl Dump {
    /// The bundle, where the dump is one.
    #[must_use]
    pub fn bundle(&self) -> Option<&BundleReader> {
        self.bundle.as_ref()
    }

    /// Opens core and minicore for analysis, without unpacking where the encoding allows it.
    ///
    /// # Errors
    /// When there is neither, or none that can be analysed.
    pub fn analysis(
        &self,
        settings: &Settings,
        observer: &dyn super::Observer,
    ) -> Result<Analysis> {
        let core = self.core(settings, observer);
        let minicore = self.minicore();
        let (core, minicore) = match (core, minicore) {
            (Ok(None), None) => {
                return Err(Failure::new(ExitStatus::Nothing, "this dump holds no core")
                    .hint("`cdh info` tells why it is missing")
                    .into());
            }
            // The minicore is there for just this case.
            (Err(error), None) => return Err(error),
            (core, minicore) => (core.ok().flatten(), minicore),
        };
        let completeness = core.as_ref().map(CoreFile::completeness);
        let from_minicore = core.is_none();
        let layers: Vec<CoreFile> = core.into_iter().chain(minicore).collect();
        // A core cut in its notes knows fewer threads than the minicore.
        let head = layers
            .iter()
            .map(CoreFile::head)
            .max_by_key(|head| (head.threads().len(), head.mappings().len()))
            .cloned()
            .context("this dump holds no core")?;
        Ok(Analysis {
            head,
            memory: LayeredMemory(layers),
            completeness,
            from_minicore,
        })
    }

    fn core(
        &self,
        settings: &Settings,
        observer: &dyn super::Observer,
    ) -> Result<Option<CoreFile>> {
        let shown = self.label();
        let open = |source| CoreFile::open(source).map_err(|error| core_failure(error, &shown));
        match (&self.origin, &self.bundle) {
            (Origin::Core(path), _) => open_core_file(path).map(Some),
            (Origin::Case(path), _) => match Case::core_path(path) {
                Some(core) => open_core_file(&core).map(Some),
                None => Ok(None),
            },
            (_, Some(bundle)) => {
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
                let unpacked = case::fetch(settings, self, None, observer)?;
                Case::core_path(&unpacked.path)
                    .map(|path| open_core_file(&path))
                    .transpose()
            }
            _ => Ok(None),
        }
    }

    fn minicore(&self) -> Option<CoreFile> {
        let source: Box<dyn ByteSource> = match (&self.origin, &self.bundle) {
            (Origin::Case(path), _) => Box::new(
                FileSource::new(open_regular(&path.join(EntryKind::Minicore.file_name())).ok()?)
                    .ok()?,
            ),
            (_, Some(bundle)) => bundle.entry_source(&EntryKind::Minicore).ok()?,
            _ => return None,
        };
        CoreFile::open(source).ok()
    }

    /// What to call it in messages: its id, or the path it was named by.
    #[must_use]
    pub fn label(&self) -> String {
        match &self.origin {
            Origin::Store(summary) => summary.id.short(),
            Origin::Bundle(path) | Origin::Case(path) | Origin::Core(path) => {
                terminal_line(&path.display().to_string())
            }
        }
    }
}
