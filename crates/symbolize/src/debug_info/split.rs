//! Split DWARF: a skeleton unit in the program says in which `.dwo` file its entries are, and a `.dwp`
//! file is many of those together. The id in both proves that they belong together.

use std::convert::Infallible;

use cdh_elfcore::ElfObject;
use gimli::{DwarfPackage, EndianSlice, LittleEndian, SectionId, Unit, UnitRef};

use super::{DebugInfo, Reader, Source};
use crate::section;

/// Units of one `.dwo` file that are looked at: one, and type units beside it.
const UNITS: usize = 1 << 16;

impl<'data> DebugInfo<'data> {
    /// Where the entries of `skeleton` are; `None` where they are its own, or cannot be found.
    pub(super) fn split(
        &self,
        skeleton: UnitRef<'_, Reader<'data>>,
    ) -> Option<(gimli::Dwarf<Reader<'data>>, Unit<Reader<'data>>)> {
        let id = skeleton.dwo_id?;
        if let Some(package) = self.package()
            && let Ok(Some(dwarf)) = package.find_cu(id, &self.dwarf)
            && let Some(unit) = unit_of(&dwarf, skeleton)
        {
            return Some((dwarf, unit));
        }
        let name = skeleton.attr_string(skeleton.dwo_name().ok()??).ok()?;
        let directory = skeleton
            .comp_dir
            .map_or(&[][..], |directory| directory.slice());
        let Source {
            module,
            arena,
            surroundings,
            ..
        } = self.source;
        let bytes = surroundings.split_unit(module, directory, name.slice())?;
        let object = ElfObject::parse(arena.keep_owner(bytes)).ok()?;
        let Ok(mut dwarf) = gimli::Dwarf::load(|id| Ok::<_, Infallible>(self.read(&object, id)));
        dwarf.make_dwo(&self.dwarf);
        let unit = unit_of(&dwarf, skeleton)?;
        Some((dwarf, unit))
    }

    pub(super) fn package(&self) -> Option<&DwarfPackage<Reader<'data>>> {
        let open = || {
            let bytes = self.source.surroundings.split_package(self.source.module)?;
            let object = ElfObject::parse(self.source.arena.keep_owner(bytes)).ok()?;
            let empty = EndianSlice::new(&[], LittleEndian);
            DwarfPackage::load(|id| Ok::<_, gimli::Error>(self.read(&object, id)), empty).ok()
        };
        self.package.get_or_init(open).as_ref()
    }

    fn read(&self, object: &ElfObject<'data>, id: SectionId) -> Reader<'data> {
        let arena = self.source.arena;
        let contents = |name: &str| section::kept(object, name, arena);
        let bytes = id.dwo_name().and_then(contents);
        EndianSlice::new(bytes.unwrap_or_default(), LittleEndian)
    }
}

/// The unit that `skeleton` means, with the addresses that only the program knows.
fn unit_of<'data>(
    dwarf: &gimli::Dwarf<Reader<'data>>,
    skeleton: UnitRef<'_, Reader<'data>>,
) -> Option<Unit<Reader<'data>>> {
    let mut headers = dwarf.units();
    for _ in 0..UNITS {
        let mut unit = dwarf.unit(headers.next().ok()??).ok()?;
        if unit.dwo_id == skeleton.dwo_id {
            unit.copy_relocated_attributes(skeleton.unit);
            return Some(unit);
        }
    }
    None
}
