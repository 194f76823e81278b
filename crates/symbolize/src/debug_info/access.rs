//! All entries of a module's debug information, for those who read more of them than names and lines.

use std::sync::OnceLock;
use std::time::Duration;

use cdh_elfcore::ElfObject;
use gimli::{Unit, UnitRef};

use super::{DebugInfo, INFO, Reader, SECTIONS, Source, load};
use crate::deadline::Deadline;
use crate::{LoadedModule, SectionArena, Surroundings, section};

/// Searching a unit takes no longer than this.
const TIME_LIMIT: Duration = Duration::from_secs(30);
/// What values need beyond names and lines.
const MORE: [&str; 3] = [".debug_loc", ".debug_loclists", ".debug_types"];

/// The debug information of one module.
pub struct ModuleDwarf<'data> {
    info: DebugInfo<'data>,
    deadline: Deadline,
}

impl<'data> ModuleDwarf<'data> {
    /// Opens what a module's debug file holds, or else the module itself. `index` is that of the module in the list
    /// that `surroundings` knows. `None` if there is no debug information.
    #[must_use]
    pub fn open(
        loaded: &LoadedModule<'data>,
        index: usize,
        arena: &'data SectionArena,
        surroundings: &'data dyn Surroundings,
    ) -> Option<Self> {
        let source = Source {
            module: index,
            arena,
            surroundings,
            keep: section::Keep::No,
        };
        let objects = [loaded.debug.as_ref(), loaded.object.as_ref()];
        let has_info = |object: &&ElfObject<'data>| section::present(object, INFO);
        let object = objects.into_iter().flatten().find(has_info)?;
        let names: Vec<&str> = SECTIONS.into_iter().chain(MORE).collect();
        let mut dwarf = load(object, source, &[], &names);
        if let Some(alt) = &loaded.alt {
            dwarf.set_sup(load(alt, source, &[], &names));
        }
        let info = DebugInfo {
            dwarf,
            units: OnceLock::new(),
            alt_units: OnceLock::new(),
            beginning: None,
            source,
            package: OnceLock::new(),
        };
        Some(Self {
            info,
            deadline: Deadline::after(TIME_LIMIT),
        })
    }

    /// Its sections, and those of the file that it shares with others (dwz) as the supplementary file.
    #[must_use]
    pub fn sections(&self) -> &gimli::Dwarf<Reader<'data>> {
        &self.info.dwarf
    }

    /// Offset in `.debug_info` of the unit that an address is in, as the file states both.
    #[must_use]
    pub fn unit_at(&self, at: u64) -> Option<usize> {
        self.info.owners(&[at], self.deadline).pop().flatten()
    }

    /// Where the entries of a skeleton unit are; `None` if they are its own or cannot be found.
    #[must_use]
    pub fn split(
        &self,
        skeleton: UnitRef<'_, Reader<'data>>,
    ) -> Option<(gimli::Dwarf<Reader<'data>>, Unit<Reader<'data>>)> {
        self.info.split(skeleton)
    }

    /// The type unit with a signature, of a package of split units.
    #[must_use]
    pub fn packaged_type(
        &self,
        signature: gimli::DebugTypeSignature,
    ) -> Option<gimli::Dwarf<Reader<'data>>> {
        let package = self.info.package()?;
        package.find_tu(signature, &self.info.dwarf).ok().flatten()
    }
}
