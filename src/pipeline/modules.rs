//! Finds the files of a core's modules and proves by build-id that they are the right ones.
//!
//! Order: the sysroot, the directory of a bare core, the machine's own files. A file that is not the
//! one that was mapped is reported as a mismatch and never used.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use cdh_elfcore::{BuildId, ElfObject, MappedFile, Memory, Module, ModuleKind};
use cdh_symbolize::{LoadedModule, ModuleStatus};

use super::files::{open_in_root, open_regular};

/// Where separate debug files are kept (GDB manual, "Debugging Information in Separate Files").
const DEBUG_DIRECTORY: &str = "/usr/lib/debug";
/// A vdso has two to four pages; more is not believed.
const MAX_VDSO: u64 = 1 << 20;

/// Where to look for the files of modules.
#[derive(Clone, Debug, Default)]
pub struct ModuleSearch {
    /// A directory laid out as the root of the crashed process.
    pub sysroot: Option<PathBuf>,
    /// The directory of a bare core.
    pub beside: Option<PathBuf>,
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

/// A module and the file that was found for it.
#[derive(Debug)]
pub struct FoundModule {
    /// As the core tells it.
    pub module: Module,
    /// Whether the file is the one that was mapped.
    pub status: ModuleStatus,
    /// Path of the file that is used; absent for the vdso and for what was not found.
    pub path: Option<PathBuf>,
    image: Option<Image>,
    debug: Option<Image>,
    alternate: Option<Image>,
}

impl FoundModule {
    /// The module for the symbolizer. Files that do not parse were sorted out before.
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

/// Finds the file of each module.
#[must_use]
pub fn find_modules(
    modules: Vec<Module>,
    memory: &dyn Memory,
    search: &ModuleSearch,
) -> Vec<FoundModule> {
    modules
        .into_iter()
        .map(|module| find_module(module, memory, search))
        .collect()
}

fn find_module(module: Module, memory: &dyn Memory, search: &ModuleSearch) -> FoundModule {
    let nothing = |module, status| FoundModule {
        module,
        status,
        path: None,
        image: None,
        debug: None,
        alternate: None,
    };
    if module.kind == ModuleKind::Vdso {
        return match read_vdso(&module, memory) {
            Some(bytes) => FoundModule {
                image: Some(Image::Memory(bytes)),
                ..nothing(module, ModuleStatus::Verified)
            },
            None => nothing(module, ModuleStatus::Missing),
        };
    }
    let mut worst = ModuleStatus::Missing;
    for candidate in candidates(&module, search) {
        let map = match candidate
            .open()
            .and_then(|file| MappedFile::from_file(&file))
        {
            Ok(map) => map,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => {
                if matches!(worst, ModuleStatus::Missing) {
                    worst = ModuleStatus::Unreadable(error.to_string());
                }
                continue;
            }
        };
        match check(&module, map.bytes()) {
            // A stranger's file under the right name proves nothing: only the build-id does.
            ModuleStatus::Unverified if candidate.needs_proof || module.deleted => {}
            status @ (ModuleStatus::Verified | ModuleStatus::Unverified) => {
                let (debug, alternate) = find_debug(map.bytes(), &candidate.path, search);
                return FoundModule {
                    module,
                    status,
                    path: Some(candidate.path),
                    image: Some(Image::Mapped(map)),
                    debug,
                    alternate,
                };
            }
            status => worst = status,
        }
    }
    nothing(module, worst)
}

fn check(module: &Module, bytes: &[u8]) -> ModuleStatus {
    let object = match ElfObject::parse(bytes) {
        Ok(object) => object,
        Err(error) => return ModuleStatus::Unreadable(error.to_string()),
    };
    match (&module.build_id, object.build_id()) {
        (Some(expected), Some(found)) if *expected == found => ModuleStatus::Verified,
        (Some(expected), found) => ModuleStatus::Mismatch {
            expected: expected.clone(),
            found,
        },
        (None, _) => ModuleStatus::Unverified,
    }
}

/// A file that may be the one that was mapped.
struct Candidate {
    path: PathBuf,
    /// The root that `path` must not leave, and the path inside it.
    inside: Option<(PathBuf, PathBuf)>,
    /// Whether only an equal build-id makes it usable.
    needs_proof: bool,
}

impl Candidate {
    fn open(&self) -> io::Result<File> {
        match &self.inside {
            Some((root, path)) => open_in_root(root, path),
            None => open_regular(&self.path),
        }
    }
}

fn candidates(module: &Module, search: &ModuleSearch) -> Vec<Candidate> {
    let path = Path::new(OsStr::from_bytes(&module.path));
    let mut found = Vec::new();
    if let Some(root) = &search.sysroot {
        let relative = path.strip_prefix("/").unwrap_or(path);
        found.push(Candidate {
            path: root.join(relative),
            inside: Some((root.clone(), relative.to_owned())),
            needs_proof: false,
        });
    }
    if let (Some(directory), Some(name)) = (&search.beside, path.file_name()) {
        found.push(Candidate {
            path: directory.join(name),
            inside: None,
            needs_proof: search.sysroot.is_some(),
        });
    }
    if path.is_absolute() {
        let needs_proof = search.sysroot.is_some();
        found.push(Candidate {
            path: path.to_owned(),
            inside: None,
            needs_proof,
        });
    }
    found
}

fn read_vdso(module: &Module, memory: &dyn Memory) -> Option<Vec<u8>> {
    let size = module.end().checked_sub(module.start())?.min(MAX_VDSO);
    let mut bytes = vec![0; usize::try_from(size).ok()?];
    let count = memory.read(module.start(), &mut bytes);
    bytes.truncate(count);
    ElfObject::parse(&bytes).is_ok().then_some(bytes)
}

/// The separate debug file of an object, and the file that several debug files share (dwz).
fn find_debug(bytes: &[u8], path: &Path, search: &ModuleSearch) -> (Option<Image>, Option<Image>) {
    let Ok(object) = ElfObject::parse(bytes) else {
        return (None, None);
    };
    if object.section(".debug_info").is_some() {
        let alternate = find_alternate(&object, path, search);
        return (None, alternate);
    }
    let build_id = object.build_id();
    for place in debug_places(&object, path, search) {
        let Ok(map) = open_regular(&place).and_then(|file| MappedFile::from_file(&file)) else {
            continue;
        };
        let Ok(debug) = ElfObject::parse(map.bytes()) else {
            continue;
        };
        let linked = object.debug_link().map(|(_, crc)| crc);
        let same = match (&build_id, debug.build_id()) {
            (Some(expected), Some(found)) => *expected == found,
            _ => linked == Some(crc32fast::hash(map.bytes())),
        };
        if same {
            let alternate = find_alternate(&debug, &place, search);
            return (Some(Image::Mapped(map)), alternate);
        }
    }
    (None, None)
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
    // The name is a plain file name; anything else would lead elsewhere.
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
    roots.map(|root| root.join(&relative)).collect()
}

fn find_alternate(object: &ElfObject, path: &Path, search: &ModuleSearch) -> Option<Image> {
    let (name, build_id) = object.debug_alt_link()?;
    let named = path.parent()?.join(OsStr::from_bytes(name));
    let places = std::iter::once(named).chain(build_id_places(&build_id, search));
    places.into_iter().find_map(|place| {
        let map = MappedFile::from_file(&open_regular(&place).ok()?).ok()?;
        let same = ElfObject::parse(map.bytes()).ok()?.build_id()? == build_id;
        same.then_some(Image::Mapped(map))
    })
}
