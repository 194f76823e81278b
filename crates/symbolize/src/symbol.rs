//! ELF symbols: names for addresses that DWARF does not name.

use std::cmp::Reverse;
use std::collections::HashMap;

use cdh_elfcore::{ElfObject, Section, Svma, Symbol};

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
    let named = |rank: Option<Rank<'data>>| {
        rank.map(|rank| Named {
            name: rank.4,
            start: rank.1,
        })
    };
    best.into_iter().map(named).collect()
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
        // Hand-written assembly: up to the next symbol, but not out of its section.
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
