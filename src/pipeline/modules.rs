//! The modules of a core and their files, each verified by build-id and contents.
//!
//! Every file from every source must pass [`check`]: its build-id, and all its pages that the core holds
//! (`cdh_elfcore::compare_module`). A different file is reported as a mismatch and never used. `sources` decides
//! where files come from, and in which order.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use cdh_elfcore::{
    BuildId, CoreFile, ElfObject, MappedFile, Memory, Module, ModuleKind, compare_module,
};
use cdh_symbolize::{LoadedModule, ModuleStatus};

use super::file_index::FileIndex;
use super::files::{open_in_root, open_regular};

/// Where separate debug files are kept (GDB manual, "Debugging Information in Separate Files").
const DEBUG_DIRECTORY: &str = "/usr/lib/debug";
/// Maximum pages of a vdso: real ones have two to four.
const MAX_VDSO: u64 = 1 << 20;
/// Maximum files of one name below a directory that are compared with a module.
const MAX_OF_NAME: usize = 64;

/// Where to look for the files of modules on this machine.
#[derive(Clone, Debug, Default)]
pub struct ModuleSearch {
    /// A directory that the user named, laid out like the root of the crashed process.
    pub sysroot: Option<PathBuf>,
    /// The files below it, at any path.
    pub index: Option<FileIndex>,
    /// The program's file, as the user named it.
    pub executable: Option<PathBuf>,
    /// Prefixes of paths in the core, and their replacements on this machine.
    pub mappings: Vec<(String, PathBuf)>,
    /// The directory of a bare core.
    pub beside: Option<PathBuf>,
    /// Files that earlier commands linked into the dump's case.
    pub case: Option<PathBuf>,
}

/// The origin of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum FileSource {
    /// The core itself.
    Core,
    /// `--exe`, `--map` or `--sysroot`.
    Sysroot,
    /// Modules that the agent stored.
    Store,
    /// The image that the process ran from.
    Image,
    /// This machine: its own files, those beside the core, or those of a running container.
    Host,
    /// A debuginfod server.
    Debuginfod,
    /// `--debug-image`.
    DebugImage,
}

/// Bytes of an ELF file.
#[derive(Debug)]
enum Image {
    Mapped(MappedFile),
    Memory(Vec<u8>),
}

impl Image {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Mapped(map) => map.bytes(),
            Self::Memory(bytes) => bytes,
        }
    }
}

/// A module and its file, if one was found.
#[derive(Debug)]
pub struct FoundModule {
    /// As the core has it.
    pub module: Module,
    /// Whether the file is the one that was mapped.
    pub status: ModuleStatus,
    /// Pages of its code that breakpoints or hooks modified, according to the core.
    pub patched_pages: u64,
    /// Path of the file; absent for the vdso and if none was found.
    pub path: Option<PathBuf>,
    /// Where it came from.
    pub source: Option<FileSource>,
    /// Path of the separate debug file.
    pub debug_path: Option<PathBuf>,
    /// Where that came from.
    pub debug_source: Option<FileSource>,
    /// Path and build-id of the file with shared debug information (dwz).
    pub alternate_path: Option<(PathBuf, BuildId)>,
    image: Option<Image>,
    debug: Option<Image>,
    alternate: Option<Image>,
}

impl FoundModule {
    /// The module for the symbolizer. Files that do not parse were rejected earlier.
    #[must_use]
    pub fn loaded(&self) -> LoadedModule<'_> {
        LoadedModule {
            module: &self.module,
            object: parsed(self.image.as_ref()),
            debug: parsed(self.debug.as_ref()),
            alt: parsed(self.alternate.as_ref()),
            status: self.status.clone(),
        }
    }

    /// `DT_SONAME` of the file, the name by which the dynamic loader knows it.
    #[must_use]
    pub fn soname(&self) -> Option<&OsStr> {
        let object = ElfObject::parse(self.image.as_ref()?.bytes()).ok()?;
        object.soname().map(OsStr::from_bytes)
    }
}

fn parsed(image: Option<&Image>) -> Option<ElfObject<'_>> {
    image.and_then(|image| ElfObject::parse(image.bytes()).ok())
}

impl FoundModule {
    /// A module without a file yet; the vdso is read from memory.
    #[must_use]
    pub(super) fn new(module: Module, memory: &dyn Memory) -> Self {
        let mut found = Self {
            module,
            status: ModuleStatus::Missing,
            patched_pages: 0,
            path: None,
            source: None,
            debug_path: None,
            debug_source: None,
            alternate_path: None,
            image: None,
            debug: None,
            alternate: None,
        };
        if found.module.kind == ModuleKind::Vdso
            && let Some(bytes) = read_vdso(&found.module, memory)
        {
            found.image = Some(Image::Memory(bytes));
            found.status = ModuleStatus::Verified;
            found.source = Some(FileSource::Core);
        }
        found
    }

    /// Whether its file is still missing.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        self.image.is_none() && self.module.kind != ModuleKind::Vdso
    }

    /// Uses the first candidate from `source` that is the mapped file, as far as `cores` show.
    pub(super) fn try_files(
        &mut self,
        candidates: Vec<Candidate>,
        source: FileSource,
        cores: &[CoreFile],
    ) {
        for candidate in candidates {
            if !self.is_missing() {
                return;
            }
            self.try_file(candidate, source, cores);
        }
    }

    /// Uses a file that the user points to: by name, by a replaced prefix, or below a directory: at the core's
    /// path, otherwise by build-id or name.
    pub(super) fn try_given(&mut self, search: &ModuleSearch, cores: &[CoreFile]) {
        let mut candidates = Vec::new();
        if self.module.kind == ModuleKind::Executable
            && let Some(path) = &search.executable
        {
            candidates.push(Candidate::given(path.clone()));
        }
        candidates.extend(mapped_paths(&self.module, &search.mappings).map(Candidate::given));
        if let Some(root) = &search.sysroot {
            candidates.push(in_sysroot(&self.module, root));
        }
        self.try_files(candidates, FileSource::Sysroot, cores);
        let Some(index) = search.index.as_ref().filter(|_| self.is_missing()) else {
            return;
        };
        let inside = |path: PathBuf, needs_proof| Candidate {
            path: index.root().join(&path),
            inside: Some((index.root().to_owned(), path)),
            needs_proof,
        };
        // A wrong file at the right path deserves more explanation than a candidate that was skipped.
        let before = self.status.clone();
        let by_id = self.module.build_id.as_ref();
        let by_id = by_id.map_or_else(Vec::new, |id| index.by_build_id(id));
        let by_id = by_id.into_iter().map(|path| inside(path, true)).collect();
        self.try_files(by_id, FileSource::Sysroot, cores);
        if self.is_missing() {
            let path = Path::new(OsStr::from_bytes(&self.module.path));
            let by_name = index.by_name(path).into_iter().take(MAX_OF_NAME);
            let by_name = by_name
                .map(|path| inside(path, self.module.deleted))
                .collect();
            self.try_files(by_name, FileSource::Sysroot, cores);
        }
        if self.is_missing() && !matches!(before, ModuleStatus::Missing) {
            self.status = before;
        }
    }

    fn try_file(&mut self, candidate: Candidate, source: FileSource, cores: &[CoreFile]) {
        let map = match candidate
            .open()
            .and_then(|file| MappedFile::from_file(&file))
        {
            Ok(map) => map,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return,
            Err(error) => {
                if matches!(self.status, ModuleStatus::Missing) {
                    self.status = ModuleStatus::Unreadable(error.to_string());
                }
                return;
            }
        };
        let (status, patched) = check(&self.module, map.bytes(), cores);
        match status {
            // A right name proves nothing about a file from elsewhere: only the build-id does.
            ModuleStatus::Unverified if candidate.needs_proof => {}
            _ if is_debug_file(map.bytes()) => {}
            status @ (ModuleStatus::Verified | ModuleStatus::Unverified) => {
                if let (Ok(object), Some(core)) = (ElfObject::parse(map.bytes()), cores.first()) {
                    self.module.complete_with(core.head(), &object);
                }
                self.status = status;
                self.patched_pages = patched;
                self.path = Some(candidate.path);
                self.source = Some(source);
                self.image = Some(Image::Mapped(map));
            }
            status => self.status = status,
        }
    }

    /// The expected path holds another file.
    pub(super) fn mismatch(&mut self, expected: BuildId, found: Option<BuildId>) {
        if self.is_missing() {
            self.status = ModuleStatus::Mismatch { expected, found };
        }
    }

    pub(super) fn object(&self) -> Option<ElfObject<'_>> {
        parsed(self.image.as_ref())
    }

    /// Whether names or lines are missing that a separate debug file might have.
    #[must_use]
    pub fn lacks_debug_info(&self) -> bool {
        self.module.kind != ModuleKind::Vdso
            && self.debug.is_none()
            && self
                .object()
                .is_some_and(|object| object.section(".debug_info").is_none())
    }

    /// Whether at least the names of its functions are known.
    #[must_use]
    pub fn has_symbols(&self) -> bool {
        let named = |image: Option<&Image>| {
            parsed(image).is_some_and(|object| object.section(".symtab").is_some())
        };
        named(self.image.as_ref()) || named(self.debug.as_ref())
    }

    /// The shared debug file (dwz) that is missing.
    #[must_use]
    pub(super) fn missing_alternate(&self) -> Option<BuildId> {
        let source = parsed(self.debug.as_ref()).or_else(|| self.object())?;
        let (_, id) = source
            .debug_alt_link()
            .filter(|_| self.alternate.is_none())?;
        Some(id)
    }

    /// Looks for the separate debug file and its shared debug file on this machine.
    pub(super) fn find_debug_here(&mut self, search: &ModuleSearch) {
        let Some(path) = self.path.clone() else {
            return;
        };
        if self.lacks_debug_info() {
            let places = self
                .object()
                .map(|object| debug_places(&object, &path, search));
            for place in places.unwrap_or_default() {
                let sysroot = search.sysroot.as_ref();
                let source = match sysroot.is_some_and(|root| place.starts_with(root)) {
                    true => FileSource::Sysroot,
                    false => FileSource::Host,
                };
                if self.try_debug(&place, source) {
                    break;
                }
            }
        }
        if let Some(id) = self.missing_alternate() {
            let base = self.debug_path.clone().unwrap_or(path);
            let source = parsed(self.debug.as_ref()).or_else(|| self.object());
            let named = source.and_then(|source| {
                let (name, _) = source.debug_alt_link()?;
                Some(base.parent()?.join(OsStr::from_bytes(name)))
            });
            let places = named.into_iter().chain(build_id_places(&id, search));
            for place in places {
                if self.try_alternate(&place, &id) {
                    break;
                }
            }
        }
    }

    /// Uses `place` as the separate debug file if it belongs to this module.
    pub(super) fn try_debug(&mut self, place: &Path, source: FileSource) -> bool {
        let Ok(map) = open_regular(place).and_then(|file| MappedFile::from_file(&file)) else {
            return false;
        };
        let same = {
            let (Some(object), Ok(debug)) = (self.object(), ElfObject::parse(map.bytes())) else {
                return false;
            };
            // Its headers are copies of the module's: with another layout, it would name other
            // functions.
            let starts = |object: &ElfObject<'_>| -> Vec<u64> {
                let loads = object.load_segments().iter();
                loads.map(|load| load.start.0).collect()
            };
            let has_its_layout = debug.load_segments().is_empty()
                || starts(&debug) == starts(&object) && debug.machine() == object.machine();
            // A stripped copy of the module has its build-id too: `.build-id` trees link programs as well.
            let has_symbols = [".debug_info", ".zdebug_info", ".symtab"]
                .iter()
                .any(|name| debug.section(name).is_some());
            if !has_its_layout || !has_symbols {
                return false;
            }
            let linked = object.debug_link().map(|(_, crc)| crc);
            match (object.build_id(), debug.build_id()) {
                (Some(expected), Some(found)) => expected == found,
                _ => linked == Some(crc32fast::hash(map.bytes())),
            }
        };
        if same {
            self.debug = Some(Image::Mapped(map));
            self.debug_path = Some(place.to_owned());
            self.debug_source = Some(source);
        }
        same
    }

    /// Uses `place` as the shared debug file if it is the right one.
    pub(super) fn try_alternate(&mut self, place: &Path, id: &BuildId) -> bool {
        let Ok(map) = open_regular(place).and_then(|file| MappedFile::from_file(&file)) else {
            return false;
        };
        let same = ElfObject::parse(map.bytes())
            .is_ok_and(|object| object.build_id().as_ref() == Some(id));
        if same {
            self.alternate = Some(Image::Mapped(map));
            self.alternate_path = Some((place.to_owned(), id.clone()));
        }
        same
    }
}

/// Finds the file of each module of these cores of one process, on this machine only.
#[must_use]
pub fn find_modules(
    modules: Vec<Module>,
    cores: &[CoreFile],
    search: &ModuleSearch,
) -> Vec<FoundModule> {
    struct Nothing;
    impl Memory for Nothing {
        fn read(&self, _: cdh_elfcore::Avma, _: &mut [u8]) -> usize {
            0
        }
    }
    let find = |module| {
        let mut found = match cores.first() {
            Some(core) => FoundModule::new(module, core),
            None => FoundModule::new(module, &Nothing),
        };
        found.try_given(search, cores);
        let candidates = on_host(&found.module, search, search.sysroot.is_some());
        found.try_files(candidates, FileSource::Host, cores);
        found.find_debug_here(search);
        found
    };
    modules.into_iter().map(find).collect()
}

/// The only check of a file: its build-id, then its contents. Also returns how many pages of it were
/// patched in memory.
fn check(module: &Module, bytes: &[u8], cores: &[CoreFile]) -> (ModuleStatus, u64) {
    let object = match ElfObject::parse(bytes) {
        Ok(object) => object,
        Err(error) => return (ModuleStatus::Unreadable(error.to_string()), 0),
    };
    // Another processor is a better explanation than another build-id.
    let machine = cores.first().map(|core| core.head().machine());
    if let Some(expected) = machine.filter(|machine| *machine != object.machine()) {
        let found = object.machine();
        let why = cdh_elfcore::Disagreement::Machine { expected, found };
        return (ModuleStatus::Differs(why.to_string()), 0);
    }
    let status = match (&module.build_id, object.build_id()) {
        (Some(expected), Some(found)) if *expected == found => ModuleStatus::Verified,
        (Some(expected), found) => {
            let expected = expected.clone();
            return (ModuleStatus::Mismatch { expected, found }, 0);
        }
        (None, _) => ModuleStatus::Unverified,
    };
    let mut patched = 0;
    for core in cores {
        match compare_module(core.head(), core, module, &object) {
            Ok(pages) => patched = pages.patched.max(patched),
            Err(why) => return (ModuleStatus::Differs(why.to_string()), 0),
        }
    }
    (status, patched)
}

/// Whether a file was made by `objcopy --only-keep-debug`: it has the code's build-id without the code
/// (SHT_NOBITS).
fn is_debug_file(bytes: &[u8]) -> bool {
    const EXECUTABLE: u64 = 4;
    const NOBITS: u32 = 8;
    let object = ElfObject::parse(bytes);
    let is_empty_code = |section: &cdh_elfcore::Section<'_>| {
        section.flags & EXECUTABLE != 0 && section.kind == NOBITS && section.size > 0
    };
    object.is_ok_and(|object| object.sections().iter().any(is_empty_code))
}

/// Applies `--map FROM=TO` to a module's path; FROM must end at a component boundary.
fn mapped_paths(module: &Module, mappings: &[(String, PathBuf)]) -> impl Iterator<Item = PathBuf> {
    let path = Path::new(OsStr::from_bytes(&module.path));
    let mapped = mappings.iter().filter_map(move |(from, to)| {
        let rest = path.strip_prefix(from).ok()?;
        Some(match rest.as_os_str().is_empty() {
            true => to.clone(),
            false => to.join(rest),
        })
    });
    mapped.collect::<Vec<_>>().into_iter()
}

/// A file that may be the mapped one.
pub(super) struct Candidate {
    pub(super) path: PathBuf,
    /// The root that `path` must not leave, and the path inside it.
    pub(super) inside: Option<(PathBuf, PathBuf)>,
    /// Whether it is usable only with an equal build-id.
    pub(super) needs_proof: bool,
}

impl Candidate {
    /// A file that needs proof.
    pub(super) fn proven(path: PathBuf) -> Self {
        Self {
            path,
            inside: None,
            needs_proof: true,
        }
    }

    /// A file that the user named, used unless something contradicts it.
    fn given(path: PathBuf) -> Self {
        Self {
            path,
            inside: None,
            needs_proof: false,
        }
    }

    fn open(&self) -> io::Result<File> {
        match &self.inside {
            Some((root, path)) => open_in_root(root, path),
            None => open_regular(&self.path),
        }
    }
}

/// The file below a directory that is laid out like the root of the crashed process.
pub(super) fn in_sysroot(module: &Module, root: &Path) -> Candidate {
    let path = Path::new(OsStr::from_bytes(&module.path));
    let relative = path.strip_prefix("/").unwrap_or(path);
    Candidate {
        path: root.join(relative),
        inside: Some((root.to_owned(), relative.to_owned())),
        // Another file may have replaced a deleted one.
        needs_proof: module.deleted,
    }
}

/// Files of this machine: beside the core, and at the same path.
pub(super) fn on_host(module: &Module, search: &ModuleSearch, needs_proof: bool) -> Vec<Candidate> {
    let path = Path::new(OsStr::from_bytes(&module.path));
    let needs_proof = needs_proof || module.deleted;
    let mut found = Vec::new();
    let linked = search.case.as_ref().zip(path.strip_prefix("/").ok());
    if let Some((case, inside)) = linked.filter(|(_, inside)| is_inner(inside)) {
        let linked = case.join(inside);
        // A file that was not found at that time is empty.
        if linked.metadata().is_ok_and(|file| file.len() > 0) {
            found.push(Candidate {
                path: linked,
                inside: None,
                needs_proof,
            });
        }
    }
    if let (Some(directory), Some(name)) = (&search.beside, path.file_name()) {
        found.push(Candidate {
            path: directory.join(name),
            inside: None,
            needs_proof,
        });
    }
    if path.is_absolute() {
        found.push(Candidate {
            path: path.to_owned(),
            inside: None,
            needs_proof,
        });
    }
    found
}

/// Whether a relative path remains below its start.
fn is_inner(path: &Path) -> bool {
    let mut parts = path.components();
    parts.all(|part| matches!(part, std::path::Component::Normal(_)))
}

fn read_vdso(module: &Module, memory: &dyn Memory) -> Option<Vec<u8>> {
    let size = module.end().checked_sub(module.start())?.min(MAX_VDSO);
    let mut bytes = vec![0; usize::try_from(size).ok()?];
    let count = memory.read(module.start(), &mut bytes);
    bytes.truncate(count);
    ElfObject::parse(&bytes).is_ok().then_some(bytes)
}

/// By build-id and by `.gnu_debuglink`, under the sysroot and on the machine itself.
fn debug_places(object: &ElfObject, path: &Path, search: &ModuleSearch) -> Vec<PathBuf> {
    let mut places: Vec<PathBuf> = object
        .build_id()
        .iter()
        .flat_map(|id| build_id_places(id, search))
        .collect();
    let link = object
        .debug_link()
        .map(|(name, _)| Path::new(OsStr::from_bytes(name)));
    // The name must be a plain file name; other names could lead to another directory.
    if let (Some(name), Some(directory)) = (link.and_then(Path::file_name), path.parent()) {
        places.push(directory.join(name));
        places.push(directory.join(".debug").join(name));
        let relative = directory.strip_prefix("/").unwrap_or(directory);
        places.push(Path::new(DEBUG_DIRECTORY).join(relative).join(name));
    }
    places.retain(|place| place != path);
    places
}

fn build_id_places(id: &BuildId, search: &ModuleSearch) -> Vec<PathBuf> {
    let hex = id.to_string();
    let Some((first, rest)) = hex.split_at_checked(2) else {
        return Vec::new();
    };
    let relative = format!("usr/lib/debug/.build-id/{first}/{rest}.debug");
    let roots = search
        .sysroot
        .iter()
        .map(PathBuf::as_path)
        .chain([Path::new("/")]);
    let usual = roots.map(|root| root.join(&relative));
    let mut places: Vec<_> = usual.collect();
    if places.iter().any(|place| place.is_file()) {
        return places;
    }
    if let Some(index) = &search.index {
        let found = index.by_build_id(id).into_iter();
        places.extend(found.map(|path| index.root().join(path)));
    }
    places
}
