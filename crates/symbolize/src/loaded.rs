//! A module of the core together with the files that were found for it.

use cdh_elfcore::{BuildId, ElfObject, Memory, Module};

use crate::SectionArena;

/// Whether the file found for a module is the one that was mapped.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum ModuleStatus {
    /// The build-ids are equal.
    Verified,
    /// The core does not have the module's build-id, so the file could not be verified.
    Unverified,
    /// Another file: it is used for nothing.
    Mismatch {
        /// Build-id in the core.
        expected: BuildId,
        /// Build-id of the file.
        found: Option<BuildId>,
    },
    /// A file with the right build-id whose contents are not those in the core: it is used for nothing.
    Differs(String),
    /// No file was found.
    Missing,
    /// A file was found and could not be read.
    Unreadable(String),
}

/// A module and what is known of its contents.
#[derive(Clone, Debug)]
pub struct LoadedModule<'data> {
    /// Where it was mapped.
    pub module: &'data Module,
    /// Its file, or its image in memory; present only when `status` is verified or unverified.
    pub object: Option<ElfObject<'data>>,
    /// Its separate debug file.
    pub debug: Option<ElfObject<'data>>,
    /// The file that its DWARF shares with others (dwz).
    pub alt: Option<ElfObject<'data>>,
    /// Whether `object` is the right file.
    pub status: ModuleStatus,
}

/// A vdso has two or three pages; more than this is no vdso.
const IMAGE_LIMIT: u64 = 1 << 20;

impl<'data> LoadedModule<'data> {
    /// A module without a file.
    #[must_use]
    pub fn missing(module: &'data Module) -> Self {
        Self {
            module,
            object: None,
            debug: None,
            alt: None,
            status: ModuleStatus::Missing,
        }
    }

    /// A module whose file could not be read.
    #[must_use]
    pub fn unreadable(module: &'data Module, problem: impl Into<String>) -> Self {
        let status = ModuleStatus::Unreadable(problem.into());
        Self {
            status,
            ..Self::missing(module)
        }
    }

    /// A module and the bytes of the file found at its path. The file is kept only if it is the right one.
    #[must_use]
    pub fn from_file(module: &'data Module, data: &'data [u8]) -> Self {
        match ElfObject::parse(data) {
            Ok(object) => Self::with_object(module, object),
            Err(error) => Self::unreadable(module, error.to_string()),
        }
    }

    /// As [`Self::from_file`], with a file that was parsed already.
    #[must_use]
    pub fn with_object(module: &'data Module, object: ElfObject<'data>) -> Self {
        let status = match (&module.build_id, object.build_id()) {
            (None, _) => ModuleStatus::Unverified,
            (Some(expected), Some(found)) if *expected == found => ModuleStatus::Verified,
            (Some(expected), found) => ModuleStatus::Mismatch {
                expected: expected.clone(),
                found,
            },
        };
        let usable = matches!(status, ModuleStatus::Verified | ModuleStatus::Unverified);
        let object = usable.then_some(object);
        Self {
            object,
            status,
            ..Self::missing(module)
        }
    }

    /// A module whose image is read from the process's memory: the vdso, which has no file.
    #[must_use]
    pub fn from_memory(
        module: &'data Module,
        memory: &dyn Memory,
        arena: &'data SectionArena,
    ) -> Self {
        let size = module
            .end()
            .checked_sub(module.start())
            .filter(|size| *size <= IMAGE_LIMIT);
        let Some(size) = size.and_then(|size| usize::try_from(size).ok()) else {
            return Self::missing(module);
        };
        let mut image = vec![0; size];
        let known = memory.read(module.start(), &mut image);
        image.truncate(known);
        if image.is_empty() {
            return Self::missing(module);
        }
        Self::from_file(module, arena.keep(image))
    }

    /// `avma - svma` (wrapping), if the file and its mappings show it.
    #[must_use]
    pub fn bias(&self) -> Option<u64> {
        match &self.object {
            Some(object) => object.bias_in(self.module),
            None => self.module.bias,
        }
    }
}
