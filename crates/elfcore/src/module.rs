//! One ELF file mapped in the core.

use crate::{Avma, BuildId, FileOffset};

/// What a module is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum ModuleKind {
    /// The program itself (AT_ENTRY or AT_PHDR lies in it).
    Executable,
    /// The dynamic loader (AT_BASE).
    Loader,
    /// The kernel's vdso (AT_SYSINFO_EHDR): its image is in the core, there is no file.
    Vdso,
    /// Any other mapped ELF file.
    Library,
}

/// A contiguous mapped part of a module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModuleRange {
    /// First address.
    pub start: Avma,
    /// First address after it.
    pub end: Avma,
    /// Offset in the file.
    pub offset: FileOffset,
}

/// One ELF file mapped in the core.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Module {
    /// Path as the process saw it (any bytes but NUL), without a ` (deleted)` mark; `[vdso]` for the vdso.
    pub path: Vec<u8>,
    /// Whether the kernel marked the file as deleted: the file at `path` may be another one.
    pub deleted: bool,
    /// What it is.
    pub kind: ModuleKind,
    /// Mapped ranges in address order; never empty.
    pub ranges: Vec<ModuleRange>,
    /// From the core's own pages; `None` where they are not in the core or hold no build-id.
    pub build_id: Option<BuildId>,
    /// `avma - svma` (wrapping), where the program headers could be read from memory.
    pub bias: Option<u64>,
}

impl Module {
    /// Whether `at` lies in one of the ranges.
    #[must_use]
    pub fn contains(&self, at: Avma) -> bool {
        self.ranges
            .iter()
            .any(|range| range.start <= at && at < range.end)
    }

    /// Lowest mapped address.
    #[must_use]
    pub fn start(&self) -> Avma {
        self.ranges.first().map_or(Avma(0), |range| range.start)
    }

    /// First address after the highest range.
    #[must_use]
    pub fn end(&self) -> Avma {
        self.ranges.last().map_or(Avma(0), |range| range.end)
    }

    /// Path for people: lossy, not for file access.
    #[must_use]
    pub fn display_path(&self) -> String {
        String::from_utf8_lossy(&self.path).into_owned()
    }
}
