//! DWARF: addresses to functions, inlined calls and lines.
//!
//! Works on a batch of addresses and opens only the units that hold them: `.debug_aranges` names the
//! unit, or else the units' root entries do; inside a unit one pass over its entries and one over its
//! line program serve all addresses. Where the file is damaged, what was found before stays.
//! Units that keep their entries in a `.dwo` or `.dwp` file are asked there; where that is missing they
//! still give lines, and the ELF symbols give names.

mod access;
mod function;
mod line;
mod name;
mod opened;
mod split;

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use cdh_elfcore::ElfObject;
use gimli::{DebugInfoOffset, EndianSlice, LittleEndian, Section as _, Unit, UnitRef};
use rayon::prelude::*;

pub use self::access::ModuleDwarf;
pub(crate) use self::opened::Opened;
use crate::deadline::Deadline;
use crate::{Location, SectionArena, Surroundings, section};

/// How DWARF is read.
pub type Reader<'data> = EndianSlice<'data, LittleEndian>;

/// What DWARF says of one address.
#[derive(Clone, Debug, Default)]
pub(crate) struct Found {
    /// Innermost inlined call first, the function itself last.
    pub(crate) sites: Vec<Site>,
    /// Start of the function.
    pub(crate) entry: Option<u64>,
    /// What the call just before the address + 1 calls.
    pub(crate) call: Option<Target>,
    /// Tail calls of the function, each with the address after it; only where asked for.
    pub(crate) tail_calls: Vec<(u64, Target)>,
}

/// What a call site calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// A function of the same file.
    Address(u64),
    /// A function that is only declared: a symbol, perhaps of another file.
    Name(String),
}

/// Whether to list the tail calls of functions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TailCalls {
    Ignore,
    List,
}

/// One function that an address is in.
#[derive(Clone, Debug, Default)]
pub(crate) struct Site {
    /// Linkage name, or the name with its namespaces.
    pub(crate) name: Option<String>,
    /// Where in it the address is.
    pub(crate) location: Option<Location>,
}

/// The debug information of one file.
pub(crate) struct DebugInfo<'data> {
    dwarf: gimli::Dwarf<Reader<'data>>,
    /// Offsets of the units in `.debug_info`, in order.
    units: OnceLock<Vec<usize>>,
    alt_units: OnceLock<Vec<usize>>,
    /// Where it is only the beginning of `.debug_info`: whether more than that was asked for.
    beginning: Option<AtomicBool>,
    source: Source<'data>,
    package: OnceLock<Option<gimli::DwarfPackage<Reader<'data>>>>,
}

/// Whose debug information it is, and where the rest of it comes from.
#[derive(Clone, Copy)]
pub(crate) struct Source<'data> {
    pub(crate) module: usize,
    pub(crate) arena: &'data SectionArena,
    pub(crate) surroundings: &'data dyn Surroundings,
    /// Whether later runs are to find its sections decompressed.
    pub(crate) keep: section::Keep,
}

impl<'data> Source<'data> {
    fn section(self, object: &ElfObject<'data>, name: &str) -> Option<&'data [u8]> {
        section::kept_or_remembered(object, name, self.arena, self.surroundings, self.keep)
    }
}

/// Sections that are read here.
const SECTIONS: [&str; 10] = [
    INFO,
    ".debug_abbrev",
    ".debug_str",
    ".debug_line",
    ".debug_line_str",
    ARANGES,
    ".debug_ranges",
    ".debug_rnglists",
    ".debug_addr",
    ".debug_str_offsets",
];

const INFO: &str = ".debug_info";
const ARANGES: &str = ".debug_aranges";

/// All sections; those in `known` are read already.
fn load<'data>(
    object: &ElfObject<'data>,
    source: Source<'data>,
    known: &[(&'static str, &'data [u8])],
    names: &[&'static str],
) -> gimli::Dwarf<Reader<'data>> {
    let read = |name: &&'static str| {
        let known = known.iter().find(|(known, _)| known == name);
        match known {
            Some(known) => Some(*known),
            None => Some((*name, source.section(object, name)?)),
        }
    };
    let sections: Vec<(&str, &[u8])> = names.par_iter().filter_map(read).collect();
    let find = |id: gimli::SectionId| -> Result<Reader<'data>, std::convert::Infallible> {
        let found = sections.iter().find(|(name, _)| *name == id.name());
        Ok(EndianSlice::new(
            found.map_or(&[], |(_, bytes)| bytes),
            LittleEndian,
        ))
    };
    match gimli::Dwarf::load(find) {
        Ok(dwarf) => dwarf,
        Err(never) => match never {},
    }
}

impl<'data> DebugInfo<'data> {
    /// `None` where the file holds no debug information. With `addresses` it may be no more than they take.
    fn open(
        object: &ElfObject<'data>,
        alt: Option<&ElfObject<'data>>,
        source: Source<'data>,
        addresses: Option<&[u64]>,
        deadline: Deadline,
    ) -> Option<Self> {
        if !section::present(object, INFO) {
            return None;
        }
        let mut known = Vec::new();
        let mut beginning = None;
        if let Some(addresses) = addresses
            && source.keep == section::Keep::No
            && section::is_long_to_inflate(object, INFO)
            && let Some(aranges) = source.section(object, ARANGES)
        {
            known.push((ARANGES, aranges));
            let end = end_of_units(aranges, addresses, deadline);
            let bytes = end.and_then(|end| section::beginning(object, INFO, end, source.arena));
            if let Some(bytes) = bytes {
                known.push((INFO, bytes));
                beginning = Some(AtomicBool::new(false));
            }
        }
        let mut dwarf = load(object, source, &known, &SECTIONS);
        if let Some(alt) = alt {
            dwarf.set_sup(load(alt, source, &[], &SECTIONS));
        }
        Some(Self {
            dwarf,
            units: OnceLock::new(),
            alt_units: OnceLock::new(),
            beginning,
            source,
            package: OnceLock::new(),
        })
    }

    /// Whether something was asked for that is not in what was opened.
    fn lacks_something(&self) -> bool {
        self.beginning
            .as_ref()
            .is_some_and(|lacks| lacks.load(Ordering::Relaxed))
    }

    /// Something that is not in the beginning is asked for.
    fn reach_beyond(&self) {
        if let Some(lacks) = &self.beginning {
            lacks.store(true, Ordering::Relaxed);
        }
    }

    /// Looks up all of `addresses` (ascending, distinct, as stated in the file).
    pub(crate) fn find(
        &self,
        addresses: &[u64],
        tail_calls: TailCalls,
        deadline: Deadline,
    ) -> Vec<Found> {
        let owners = self.owners(addresses, deadline);
        let mut order: Vec<(usize, usize)> = owners
            .iter()
            .enumerate()
            .filter_map(|(index, owner)| owner.map(|owner| (owner, index)))
            .collect();
        order.sort_unstable();
        let groups: Vec<&[(usize, usize)]> = order.chunk_by(|a, b| a.0 == b.0).collect();
        let found: Vec<(usize, Found)> = groups
            .par_iter()
            .flat_map_iter(|group| {
                let unit = group.first().map_or(0, |(unit, _)| *unit);
                let mine: Vec<u64> = group
                    .iter()
                    .filter_map(|(_, index)| addresses.get(*index).copied())
                    .collect();
                let found = self.find_in_unit(unit, &mine, tail_calls, deadline);
                group
                    .iter()
                    .map(|(_, index)| *index)
                    .zip(found)
                    .collect::<Vec<_>>()
            })
            .collect();
        let mut all = vec![Found::default(); addresses.len()];
        for (index, found) in found {
            if let Some(slot) = all.get_mut(index) {
                *slot = found;
            }
        }
        all
    }

    fn units(&self) -> &[usize] {
        let list = || {
            let offsets = unit_offsets(&self.dwarf);
            // A beginning that does not end with a unit: of the last one nothing is known here.
            let last = offsets.last().map(|last| DebugInfoOffset(*last));
            let last = last.and_then(|last| self.dwarf.unit_header(last).ok());
            let end = last.and_then(|unit| {
                let start = unit.debug_info_offset()?.0;
                start.checked_add(unit.length_including_self())
            });
            if end != Some(self.dwarf.debug_info.reader().len()) {
                self.reach_beyond();
            }
            offsets
        };
        self.units.get_or_init(list)
    }

    /// The entry at this offset is asked for.
    fn reach(&self, offset: usize) {
        if offset >= self.dwarf.debug_info.reader().len() {
            self.reach_beyond();
        }
    }

    fn unit(&self, offset: usize) -> gimli::Result<Unit<Reader<'data>>> {
        let header = self.dwarf.unit_header(DebugInfoOffset(offset));
        let unit = header.and_then(|header| self.dwarf.unit(header));
        // That of a damaged one is taken for one that is not there, which is only slower.
        unit.inspect_err(|_| self.reach_beyond())
    }

    /// The unit that each address lies in.
    fn owners(&self, addresses: &[u64], deadline: Deadline) -> Vec<Option<usize>> {
        let (mut owners, mut listed) = listed(&self.dwarf.debug_aranges, addresses, deadline);
        if owners.iter().all(Option::is_some) || deadline.passed() {
            return owners;
        }
        if self.beginning.is_some() {
            self.reach_beyond();
            return owners;
        }
        // clang lists no units there: ask their root entries.
        listed.sort_unstable();
        let unlisted: Vec<usize> = self
            .units()
            .iter()
            .copied()
            .filter(|unit| listed.binary_search(unit).is_err())
            .collect();
        let found: Vec<(usize, usize)> = unlisted
            .par_iter()
            .flat_map_iter(|&unit| {
                let covered = if deadline.passed() {
                    Ok(Vec::new())
                } else {
                    self.covered(unit, addresses)
                };
                covered
                    .unwrap_or_default()
                    .into_iter()
                    .map(move |index| (index, unit))
            })
            .collect();
        for (index, unit) in found {
            if let Some(owner) = owners.get_mut(index) {
                owner.get_or_insert(unit);
            }
        }
        owners
    }

    /// Indices of the addresses that a unit claims in its root entry.
    fn covered(&self, unit: usize, addresses: &[u64]) -> gimli::Result<Vec<usize>> {
        let unit = self.unit(unit)?;
        let mut covered = Vec::new();
        let mut ranges = self.dwarf.unit_ranges(&unit)?;
        while let Some(range) = ranges.next()? {
            // Hostile ranges may cover everything many times.
            if range.begin != 0 && covered.len() <= addresses.len() {
                covered.extend(covered_by(addresses, range.begin, range.end));
            }
        }
        Ok(covered)
    }

    fn find_in_unit(
        &self,
        offset: usize,
        addresses: &[u64],
        tail_calls: TailCalls,
        deadline: Deadline,
    ) -> Vec<Found> {
        let mut found = vec![Found::default(); addresses.len()];
        if deadline.passed() {
            return found;
        }
        let Ok(unit) = self.unit(offset) else {
            return found;
        };
        let unit = UnitRef::new(&self.dwarf, &unit);
        for (found, location) in found
            .iter_mut()
            .zip(line::locations(unit, addresses, deadline))
        {
            found.sites = vec![Site {
                name: None,
                location,
            }];
        }
        // Assemblers describe each label as a function: the symbol table knows better, and has aliases.
        if name::language(unit) != Some(gimli::DW_LANG_Mips_Assembler) {
            let split = self.split(unit);
            let entries = match &split {
                Some((dwarf, split)) => UnitRef::new(dwarf, split),
                None => unit,
            };
            let names = name::Names::new(self, entries, split.is_some());
            // An error ends the search in this unit; lines and the functions before it stay.
            let _ = function::Walk::new(names, entries, unit, addresses, tail_calls, deadline)
                .run(&mut found);
        }
        found
    }
}

/// The units that `.debug_aranges` names for addresses, and all that it names.
fn listed(
    aranges: &gimli::DebugAranges<Reader<'_>>,
    addresses: &[u64],
    deadline: Deadline,
) -> (Vec<Option<usize>>, Vec<usize>) {
    let mut owners: Vec<Option<usize>> = vec![None; addresses.len()];
    let mut listed = Vec::new();
    let mut sets = aranges.headers();
    while let Ok(Some(set)) = sets.next() {
        let unit = set.debug_info_offset().0;
        listed.push(unit);
        let mut entries = set.entries();
        while let Ok(Some(entry)) = entries.next_raw() {
            let start = entry.address();
            // Discarded functions are listed at address 0.
            if start != 0 {
                let covered = covered_by(addresses, start, start.saturating_add(entry.length()));
                for owner in owners.get_mut(covered).unwrap_or_default() {
                    *owner = Some(unit);
                }
            }
        }
        if deadline.passed() {
            break;
        }
    }
    (owners, listed)
}

/// Where the last unit ends that `addresses` are in, where all of them are in listed ones and it is not the
/// last in the file.
fn end_of_units(aranges: &[u8], addresses: &[u64], deadline: Deadline) -> Option<usize> {
    let aranges = gimli::DebugAranges::new(aranges, LittleEndian);
    let (owners, listed) = listed(&aranges, addresses, deadline);
    let owners: Option<Vec<usize>> = owners.into_iter().collect();
    let last = owners?.into_iter().max()?;
    listed.into_iter().filter(|unit| *unit > last).min()
}

fn unit_offsets(dwarf: &gimli::Dwarf<Reader<'_>>) -> Vec<usize> {
    let mut offsets = Vec::new();
    let mut units = dwarf.units();
    while let Ok(Some(header)) = units.next() {
        offsets.extend(header.debug_info_offset().map(|offset| offset.0));
    }
    offsets
}

/// Indices of the addresses (ascending) in `start..end`.
fn covered_by(addresses: &[u64], start: u64, end: u64) -> std::ops::Range<usize> {
    let first = addresses.partition_point(|address| *address < start);
    let last = addresses.partition_point(|address| *address < end);
    first..last.max(first)
}
