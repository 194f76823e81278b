//! Supplies the symbolizer with files of split DWARF and cached results.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use cdh_elfcore::MappedFile;
use cdh_symbolize::{Bytes, StoredStack, Surroundings};

use super::files::{open_in_root, open_regular};
use super::symbol_cache::SymbolCache;
use super::{Dump, FoundModule, ModuleSearch};

/// The surroundings of one backtrace.
pub(super) struct DiskSurroundings<'a> {
    pub(super) dump: &'a Dump,
    pub(super) modules: &'a [FoundModule],
    pub(super) search: &'a ModuleSearch,
    pub(super) cache: Option<SymbolCache>,
}

struct Mapped(MappedFile);

impl AsRef<[u8]> for Mapped {
    fn as_ref(&self) -> &[u8] {
        self.0.bytes()
    }
}

fn mapped(file: std::io::Result<std::fs::File>) -> Option<Bytes> {
    Some(Box::new(Mapped(MappedFile::from_file(&file.ok()?).ok()?)))
}

impl DiskSurroundings<'_> {
    fn path(&self, module: usize) -> Option<&Path> {
        self.modules.get(module)?.path.as_deref()
    }
}

impl Surroundings for DiskSurroundings<'_> {
    /// The compiler's path, first below the sysroot; otherwise beside the program. The id in the file is
    /// checked.
    fn split_unit(&self, module: usize, directory: &[u8], name: &[u8]) -> Option<Bytes> {
        let name = Path::new(OsStr::from_bytes(name));
        let stated = Path::new(OsStr::from_bytes(directory)).join(name);
        let inside = self.search.sysroot.as_ref();
        let inside = inside.and_then(|root| mapped(open_in_root(root, &stated)));
        let beside = || Some(self.path(module)?.parent()?.join(name.file_name()?));
        inside
            .or_else(|| mapped(open_regular(&stated)))
            .or_else(|| mapped(open_regular(&beside()?)))
    }

    /// `program.dwp` beside `program`.
    fn split_package(&self, module: usize) -> Option<Bytes> {
        let mut name = self.path(module)?.as_os_str().to_owned();
        name.push(".dwp");
        mapped(open_regular(Path::new(&name)))
    }

    fn stored_stacks(&self) -> Vec<StoredStack> {
        let stored = self.dump.stored_stacks();
        stored.map_or_else(Vec::new, |stored| stored.stacks_in(self.modules))
    }

    fn remembered(&self, name: &str) -> Option<Bytes> {
        self.cache.as_ref()?.get(name)
    }

    fn remember(&self, name: &str, bytes: &[u8]) {
        if let Some(cache) = &self.cache {
            cache.put(name, bytes);
        }
    }
}
