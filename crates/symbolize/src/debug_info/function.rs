//! Finds the functions, inlined calls and call sites at addresses, in one pass over a unit's entries.

use std::collections::HashMap;

use gimli::{AttributeValue, EntriesRaw, UnitOffset, UnitRef};

use super::name::Names;
use super::{Found, Reader, Site, TailCalls, covered_by, line};
use crate::deadline::Deadline;

/// Entries between two looks at the clock.
const ENTRIES_PER_CHECK: u32 = 1 << 14;
/// Deepest believable nesting of inlined calls; LTO reaches some dozens.
const INLINE_LIMIT: usize = 256;

/// The attributes of a function or an inlined call that matter here.
#[derive(Default)]
struct Attributes<'data> {
    low: Option<u64>,
    high: Option<u64>,
    size: Option<u64>,
    ranges: Option<AttributeValue<Reader<'data>>>,
    sibling: Option<UnitOffset>,
    call_file: u64,
    call_line: u64,
    call_column: u64,
    origin: Option<AttributeValue<Reader<'data>>>,
    return_address: Option<u64>,
    tail_call: bool,
}

/// An inlined call.
struct Inlined {
    entry: UnitOffset,
    call_file: u64,
    call_line: u64,
    call_column: u64,
}

pub(super) struct Walk<'a, 'data> {
    unit: UnitRef<'a, Reader<'data>>,
    /// The unit with the table of files: the same, or the skeleton of a split one.
    lines: UnitRef<'a, Reader<'data>>,
    names: Names<'a, 'data>,
    addresses: &'a [u64],
    open: Vec<bool>,
    entries: u32,
    tail_calls: TailCalls,
    deadline: Deadline,
}

impl<'a, 'data> Walk<'a, 'data> {
    pub(super) fn new(
        names: Names<'a, 'data>,
        unit: UnitRef<'a, Reader<'data>>,
        lines: UnitRef<'a, Reader<'data>>,
        addresses: &'a [u64],
        tail_calls: TailCalls,
        deadline: Deadline,
    ) -> Self {
        let open = vec![true; addresses.len()];
        Self {
            unit,
            lines,
            names,
            addresses,
            open,
            entries: 0,
            tail_calls,
            deadline,
        }
    }

    pub(super) fn run(&mut self, found: &mut [Found]) -> gimli::Result<()> {
        self.pass(found, true)?;
        // Nested functions (GNU C, Fortran, Ada) lie outside of the range of what contains them.
        if self.open.contains(&true) {
            self.pass(found, false)
        } else {
            Ok(())
        }
    }

    fn out_of_time(&mut self) -> bool {
        self.entries = self.entries.wrapping_add(1);
        self.entries.is_multiple_of(ENTRIES_PER_CHECK) && self.deadline.passed()
    }

    /// Visits every function; with `skip`, jumps over the bodies of those that cover nothing.
    fn pass(&mut self, found: &mut [Found], skip: bool) -> gimli::Result<()> {
        let mut entries = self.unit.entries_raw(None)?;
        while !entries.is_empty() && self.open.contains(&true) && !self.out_of_time() {
            let at = entries.next_offset();
            let depth = entries.next_depth();
            let Some(abbreviation) = entries.read_abbreviation()? else {
                continue;
            };
            if abbreviation.tag() != gimli::DW_TAG_subprogram {
                entries.skip_attributes(abbreviation.attributes())?;
                continue;
            }
            let function = self.attributes(&mut entries, abbreviation)?;
            let hits: Vec<usize> = self
                .covered(&function)?
                .into_iter()
                .filter(|index| self.open.get(*index) == Some(&true))
                .collect();
            if !hits.is_empty() {
                let inlined = self.inside(entries.clone(), depth, &hits, found)?;
                self.record(at, &function, &hits, &inlined, found)?;
            }
            // GCC says where the next function is; clang and rustc do not.
            if skip
                && abbreviation.has_children()
                && let Some(sibling) = function.sibling.filter(|sibling| *sibling > at)
            {
                entries = self.unit.entries_raw(Some(sibling))?;
            }
        }
        Ok(())
    }

    /// The inlined calls in a function by the address they cover, in the order of the tree: outer before
    /// inner. Call sites are recorded on the way.
    fn inside(
        &mut self,
        mut entries: EntriesRaw<'_, Reader<'data>>,
        depth: isize,
        hits: &[usize],
        found: &mut [Found],
    ) -> gimli::Result<HashMap<usize, Vec<Inlined>>> {
        let mut inlined: HashMap<usize, Vec<Inlined>> = HashMap::new();
        while !entries.is_empty() && entries.next_depth() > depth && !self.out_of_time() {
            let entry = entries.next_offset();
            let Some(abbreviation) = entries.read_abbreviation()? else {
                continue;
            };
            match abbreviation.tag() {
                gimli::DW_TAG_inlined_subroutine => {}
                gimli::DW_TAG_call_site | gimli::DW_TAG_GNU_call_site => {
                    let site = self.attributes(&mut entries, abbreviation)?;
                    self.call_site(&site, hits, found);
                    continue;
                }
                _ => {
                    entries.skip_attributes(abbreviation.attributes())?;
                    continue;
                }
            }
            let call = self.attributes(&mut entries, abbreviation)?;
            for address in self.covered(&call)? {
                let calls = inlined.entry(address).or_default();
                if hits.binary_search(&address).is_ok() && calls.len() < INLINE_LIMIT {
                    calls.push(Inlined {
                        entry,
                        call_file: call.call_file,
                        call_line: call.call_line,
                        call_column: call.call_column,
                    });
                }
            }
        }
        Ok(inlined)
    }

    fn call_site(&mut self, site: &Attributes<'data>, hits: &[usize], found: &mut [Found]) {
        // GNU call sites of DWARF 4 give the return address as their own.
        let Some(after) = site.return_address.or(site.low) else {
            return;
        };
        let called_at = after
            .checked_sub(1)
            .and_then(|at| self.addresses.binary_search(&at).ok());
        let here = called_at.filter(|index| hits.binary_search(index).is_ok());
        let listed = site.tail_call && self.tail_calls == TailCalls::List;
        if here.is_none() && !listed {
            return;
        }
        let Some(target) = site.origin.and_then(|origin| self.names.target(origin)) else {
            return;
        };
        if site.tail_call {
            for hit in hits {
                if let Some(found) = found.get_mut(*hit).filter(|_| listed) {
                    found.tail_calls.push((after, target.clone()));
                }
            }
        } else if let Some(found) = here.and_then(|here| found.get_mut(here)) {
            found.call = Some(target);
        }
    }

    fn record(
        &mut self,
        at: UnitOffset,
        function: &Attributes<'data>,
        hits: &[usize],
        inlined: &HashMap<usize, Vec<Inlined>>,
        found: &mut [Found],
    ) -> gimli::Result<()> {
        let start = match function.low {
            Some(low) => Some(low),
            None => self.first_range(function)?,
        };
        for &hit in hits {
            let (Some(found), Some(open)) = (found.get_mut(hit), self.open.get_mut(hit)) else {
                continue;
            };
            *open = false;
            let mut location = found.sites.first().and_then(|site| site.location.clone());
            let mut sites = Vec::new();
            for call in inlined.get(&hit).into_iter().flatten().rev() {
                sites.push(Site {
                    name: self.names.of(call.entry),
                    location,
                });
                location =
                    line::location(self.lines, call.call_file, call.call_line, call.call_column);
            }
            sites.push(Site {
                name: self.names.of(at),
                location,
            });
            found.sites = sites;
            found.entry = start;
        }
        Ok(())
    }

    fn attributes(
        &self,
        entries: &mut EntriesRaw<'_, Reader<'data>>,
        abbreviation: &gimli::Abbreviation,
    ) -> gimli::Result<Attributes<'data>> {
        let mut found = Attributes::default();
        for specification in abbreviation.attributes() {
            let attribute = entries.read_attribute(*specification)?;
            let number = || attribute.udata_value().unwrap_or(0);
            match attribute.name() {
                gimli::DW_AT_low_pc => found.low = self.unit.attr_address(attribute.value())?,
                gimli::DW_AT_high_pc => match attribute.value() {
                    AttributeValue::Udata(size) => found.size = Some(size),
                    value => found.high = self.unit.attr_address(value)?,
                },
                gimli::DW_AT_ranges => found.ranges = Some(attribute.value()),
                gimli::DW_AT_sibling => {
                    if let AttributeValue::UnitRef(offset) = attribute.value() {
                        found.sibling = Some(offset);
                    }
                }
                gimli::DW_AT_call_file => {
                    if let AttributeValue::FileIndex(index) = attribute.value() {
                        found.call_file = index;
                    }
                }
                gimli::DW_AT_abstract_origin | gimli::DW_AT_call_origin => {
                    found.origin = Some(attribute.value());
                }
                gimli::DW_AT_call_return_pc => {
                    found.return_address = self.unit.attr_address(attribute.value())?;
                }
                gimli::DW_AT_call_tail_call | gimli::DW_AT_GNU_tail_call => {
                    found.tail_call = !matches!(attribute.value(), AttributeValue::Flag(false));
                }
                gimli::DW_AT_call_line => found.call_line = number(),
                gimli::DW_AT_call_column => found.call_column = number(),
                _ => {}
            }
        }
        Ok(found)
    }

    /// Indices of the addresses that an entry covers.
    fn covered(&self, entry: &Attributes<'data>) -> gimli::Result<Vec<usize>> {
        let mut covered = Vec::new();
        if let Some(ranges) = &entry.ranges {
            let Some(offset) = self.unit.attr_ranges_offset(*ranges)? else {
                return Ok(covered);
            };
            let mut ranges = self.unit.ranges(offset)?;
            while let Some(range) = ranges.next()? {
                // Hostile ranges may cover everything many times.
                if covered.len() <= self.addresses.len() {
                    covered.extend(covered_by(self.addresses, range.begin, range.end));
                }
            }
        } else if let Some(low) = entry.low.filter(|low| *low != 0) {
            let high = entry
                .high
                .or(entry.size.map(|size| low.saturating_add(size)));
            covered.extend(covered_by(self.addresses, low, high.unwrap_or(low)));
        }
        covered.sort_unstable();
        covered.dedup();
        Ok(covered)
    }

    fn first_range(&self, entry: &Attributes<'data>) -> gimli::Result<Option<u64>> {
        let Some(ranges) = &entry.ranges else {
            return Ok(None);
        };
        let Some(offset) = self.unit.attr_ranges_offset(*ranges)? else {
            return Ok(None);
        };
        Ok(self.unit.ranges(offset)?.next()?.map(|range| range.begin))
    }
}
