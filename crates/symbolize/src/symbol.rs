//! ELF symbols: names for addresses that DWARF does not name.

use std::cell::RefCell;
use std::cmp::Reverse;
use std::collections::HashMap;

use cdh_elfcore::{ElfObject, Section, Svma, Symbol};

use crate::LoadedModule;

/// `SHF_EXECINSTR`.
const EXECUTABLE: u64 = 4;
/// `STT_OBJECT`.
const OBJECT: u8 = 1;

/// The symbol that covers an address.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Named<'data> {
    pub(crate) name: &'data [u8],
    pub(crate) start: u64,
}

/// Which of several symbols at one place to show: the one with a size, the nearest, code rather than
/// data, then as gdb does among aliases: the fewest leading underscores, the last by name.
type Rank<'data> = (bool, u64, bool, Reverse<usize>, &'data [u8]);

/// The best symbol for each of `addresses` (ascending), in one pass over each table.
pub(crate) fn find<'data>(
    objects: &[&ElfObject<'data>],
    addresses: &[u64],
) -> Vec<Option<Named<'data>>> {
    let mut best: Vec<Option<Rank<'data>>> = vec![None; addresses.len()];
    for object in objects {
        let code: Vec<&Section<'_>> = object
            .sections()
            .iter()
            .filter(|section| section.flags & EXECUTABLE != 0)
            .collect();
        // Whatever covers none of the addresses is out before its name is read.
        let covers = |start: Svma, size: u64| {
            let first = addresses.partition_point(|address| *address < start.0);
            let next = addresses.get(first);
            next.is_some_and(|next| size == 0 || *next < start.0.saturating_add(size))
        };
        for symbol in object.symbols_where(covers) {
            consider(&symbol, &code, addresses, &mut best);
        }
    }
    end_sizeless(objects, addresses, &mut best);
    let named = |rank: Option<Rank<'data>>| {
        rank.map(|rank| Named {
            name: rank.4,
            start: rank.1,
        })
    };
    best.into_iter().map(named).collect()
}

/// The symbol of a module that an address (as its file states it) is in: its name as the file has it, and its start.
/// Symbols without a size hold nothing.
#[must_use]
pub fn symbol_at(loaded: &LoadedModule<'_>, at: u64) -> Option<(String, u64)> {
    let objects = [loaded.object.as_ref(), loaded.debug.as_ref()];
    let objects: Vec<&ElfObject<'_>> = objects.into_iter().flatten().collect();
    let found = find(&objects, &[at]).pop()??;
    let name = String::from_utf8_lossy(found.name).into_owned();
    Some((name, found.start))
}

/// Where a module has the variable with this linkage name, as its file states it.
#[must_use]
pub fn address_of_symbol(loaded: &LoadedModule<'_>, name: &str) -> Option<u64> {
    let objects = [loaded.object.as_ref(), loaded.debug.as_ref()];
    let mut symbols = objects
        .into_iter()
        .flatten()
        .flat_map(|object| object.symbols_named(&[name.as_bytes()]));
    symbols
        .find(|symbol| symbol.kind == OBJECT)
        .map(|symbol| symbol.address.0)
}

/// Takes names away that end before their address: a symbol without a size ends at the next symbol, and with
/// the function that it lies in.
fn end_sizeless(objects: &[&ElfObject<'_>], addresses: &[u64], best: &mut [Option<Rank<'_>>]) {
    let is_sizeless = |rank: &Option<Rank<'_>>| rank.is_some_and(|rank| !rank.0);
    if !best.iter().any(is_sizeless) {
        return;
    }
    let borders = RefCell::new(Borders::new(addresses));
    for object in objects {
        let sections = object.sections().iter();
        let code: Vec<_> = sections
            .filter(|section| section.flags & EXECUTABLE != 0)
            .collect();
        // Only the names of those without a size are read: marks between code and data are no symbols.
        let is_label = |start: Svma, size: u64| {
            let in_code = code.iter().any(|section| holds(section, start.0));
            if in_code && size > 0 {
                borders.borrow_mut().add(start.0, size);
            }
            in_code && size == 0
        };
        for label in object.symbols_where(is_label) {
            if !is_mapping_symbol(label.name) {
                borders.borrow_mut().add(label.address.0, 0);
            }
        }
    }
    for (slot, border) in best.iter_mut().zip(borders.into_inner().before_each()) {
        if is_sizeless(slot) && slot.is_some_and(|rank| rank.1 < border) {
            *slot = None;
        }
    }
}

/// Where symbols start and end, as far as the addresses are concerned that are looked up.
struct Borders<'a> {
    addresses: &'a [u64],
    /// For each address, the last border that lies after the address before it.
    last: Vec<u64>,
}

impl<'a> Borders<'a> {
    fn new(addresses: &'a [u64]) -> Self {
        Self {
            addresses,
            last: vec![0; addresses.len()],
        }
    }

    fn add(&mut self, start: u64, size: u64) {
        let end = (size > 0).then(|| start.saturating_add(size));
        for border in [Some(start), end].into_iter().flatten() {
            let next = self.addresses.partition_point(|address| *address < border);
            if let Some(last) = self.last.get_mut(next) {
                *last = border.max(*last);
            }
        }
    }

    /// The last border at or before each address.
    fn before_each(self) -> Vec<u64> {
        let running = self.last.into_iter().scan(0, |last, border| {
            *last = border.max(*last);
            Some(*last)
        });
        running.collect()
    }
}

/// Where functions of the given names are; of several, the last in the table.
pub(crate) fn addresses<'n>(
    objects: &[&ElfObject<'_>],
    names: impl Iterator<Item = &'n str>,
) -> HashMap<&'n str, u64> {
    let wanted: HashMap<&[u8], &'n str> = names.map(|name| (name.as_bytes(), name)).collect();
    let names: Vec<&[u8]> = wanted.keys().copied().collect();
    let symbols = objects
        .iter()
        .flat_map(|object| object.symbols_named(&names));
    let function = |symbol: Symbol<'_>| {
        let name = wanted.get(symbol.name).filter(|_| symbol.kind != OBJECT)?;
        Some((*name, symbol.address.0))
    };
    symbols.filter_map(function).collect()
}

fn consider<'data>(
    symbol: &Symbol<'data>,
    code: &[&Section<'_>],
    addresses: &[u64],
    best: &mut [Option<Rank<'data>>],
) {
    let start = symbol.address.0;
    let first = addresses.partition_point(|address| *address < start);
    if first == addresses.len() || is_mapping_symbol(symbol.name) {
        return;
    }
    let end = match symbol.size {
        // Hand-written assembly: not out of its section.
        0 => code
            .iter()
            .find(|section| holds(section, start))
            .map_or(start, |section| {
                section.address.0.saturating_add(section.size)
            }),
        size => start.saturating_add(size),
    };
    let last = addresses
        .partition_point(|address| *address < end)
        .max(first);
    // Names in debug files may carry a version: `memcpy@@GLIBC_2.14`.
    let name = symbol
        .name
        .split(|byte| *byte == b'@')
        .next()
        .unwrap_or_default();
    if name.is_empty() {
        return;
    }
    let underscores = name.iter().take_while(|byte| **byte == b'_').count();
    let rank = (
        symbol.size > 0,
        start,
        symbol.kind != OBJECT,
        Reverse(underscores),
        name,
    );
    for slot in best.get_mut(first..last).unwrap_or_default() {
        if slot.is_none_or(|best| rank > best) {
            *slot = Some(rank);
        }
    }
}

fn holds(section: &Section<'_>, at: u64) -> bool {
    at.checked_sub(section.address.0)
        .is_some_and(|inside| inside < section.size)
}

/// `$x`, `$d`: marks between code and data in aarch64 files, not names.
fn is_mapping_symbol(name: &[u8]) -> bool {
    matches!(
        name,
        [b'$', b'a' | b'd' | b't' | b'x'] | [b'$', b'a' | b'd' | b't' | b'x', b'.', ..]
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn symbol(name: &'static str, address: u64, size: u64) -> Symbol<'static> {
        Symbol {
            name: name.as_bytes(),
            address: Svma(address),
            size,
            kind: 2,
            binding: 1,
        }
    }

    fn best(symbols: &[Symbol<'static>], address: u64) -> Option<String> {
        let mut best = vec![None];
        for symbol in symbols {
            consider(symbol, &[], &[address], &mut best);
        }
        best[0].map(|rank: Rank<'_>| String::from_utf8_lossy(rank.4).into_owned())
    }

    #[test]
    fn alias_with_fewest_underscores_wins() {
        let aliases = [
            symbol("__GI_raise", 16, 8),
            symbol("raise", 16, 8),
            symbol("gsignal", 16, 8),
        ];
        assert_eq!(best(&aliases, 20).as_deref(), Some("raise"));
        assert_eq!(best(&aliases, 24), None);
    }

    const LABELS: &str = "
.text
first: .skip 16, 0x90
.globl sized
.type sized, %function
sized: .skip 16, 0x90
inside: .skip 16, 0x90
.size sized, . - sized
.skip 16, 0x90
last: .skip 16, 0x90
";

    #[test]
    fn symbol_without_a_size_ends_at_the_next_symbol() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("labels.s"), LABELS).unwrap();
        let built = std::process::Command::new("gcc")
            .current_dir(dir.path())
            .args(["-nostdlib", "-shared", "-o", "labels", "labels.s"])
            .status();
        assert!(built.unwrap().success());
        let file = std::fs::read(dir.path().join("labels")).unwrap();
        let object = ElfObject::parse(&file).unwrap();
        let text = object.section(".text").unwrap().address.0;
        let addresses: Vec<u64> = [4, 20, 40, 60, 70].map(|inside| text + inside).into();
        let found = find(&[&object], &addresses);
        let names: Vec<_> = found
            .iter()
            .map(|named| named.map(|named| String::from_utf8_lossy(named.name).into_owned()))
            .collect();
        let expected = [
            Some("first"),
            Some("sized"),
            Some("sized"),
            None,
            Some("last"),
        ];
        assert_eq!(names, expected.map(|name| name.map(str::to_owned)));
    }

    #[test]
    fn borders_are_the_starts_and_ends_before_each_address() {
        let mut borders = Borders::new(&[10, 20, 30, 40]);
        borders.add(5, 0);
        borders.add(12, 6);
        borders.add(30, 0);
        borders.add(33, 100);
        assert_eq!(borders.before_each(), [5, 18, 30, 33]);
    }

    #[test]
    fn version_is_not_part_of_the_name() {
        assert_eq!(
            best(&[symbol("memcpy@@GLIBC_2.14", 16, 8)], 16).as_deref(),
            Some("memcpy")
        );
        assert_eq!(
            best(&[symbol("$x", 16, 8), symbol("$d.4", 16, 8)], 16),
            None
        );
    }
}
