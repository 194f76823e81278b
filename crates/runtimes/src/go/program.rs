//! The Go program in a process: its module, its version, and where the runtime's variables are.

use std::collections::BTreeMap;

use cdh_elfcore::{ElfObject, Machine, Svma};
use cdh_symbolize::GoTable;

use crate::Process;
use crate::process::word_at;

/// Start of the build information (`debug/buildinfo`).
const BUILD_INFO: &[u8] = b"\xff Go buildinf:";
/// Flag: the version is a text behind the header.
const INLINE: u8 = 2;
const HEADER: usize = 32;
/// Longest believable version.
const VERSION: u64 = 256;
/// Bytes of a function that are searched for addresses.
const CODE: u64 = 8 << 10;
/// Instructions of aarch64 in which a page's address is completed.
const NEAR: usize = 6;

/// Variables of the runtime.
const VARIABLES: [&str; 6] = [
    "runtime.allgs",
    "runtime.allm",
    "runtime.printBacklog",
    "runtime.sched",
    "runtime.firstmoduledata",
    "runtime.waitReasonStrings",
];

/// A Go program.
pub(super) struct Program<'p> {
    pub(super) process: &'p Process<'p>,
    pub(super) object: &'p ElfObject<'p>,
    pub(super) table: GoTable<'p>,
    pub(super) bias: u64,
    pub(super) version: String,
    symbols: BTreeMap<&'static str, u64>,
}

impl<'p> Program<'p> {
    /// The first module of the process that is one.
    pub(super) fn find(process: &'p Process<'p>) -> Option<Self> {
        process.modules.iter().find_map(|loaded| {
            let object = loaded.object.as_ref()?;
            let table = GoTable::open(object)?;
            let bias = loaded.bias()?;
            let version = version(object)?;
            let names: Vec<&[u8]> = VARIABLES.iter().map(|name| name.as_bytes()).collect();
            let found = object.symbols_named(&names);
            let symbols = found.iter().filter_map(|symbol| {
                let name = VARIABLES
                    .iter()
                    .find(|name| name.as_bytes() == symbol.name)?;
                Some((*name, symbol.address.0.wrapping_add(bias)))
            });
            Some(Self {
                process,
                object,
                table,
                bias,
                version,
                symbols: symbols.collect(),
            })
        })
    }

    /// Address of a variable in the process, if the program has symbols.
    pub(super) fn variable(&self, name: &str) -> Option<u64> {
        self.symbols.get(name).copied()
    }

    /// The variable that is called `name`; in a stripped program the first address in the code of `function` for
    /// which `fits` holds.
    pub(super) fn variable_in(
        &self,
        name: &str,
        functions: &[&str],
        fits: impl Fn(u64) -> bool,
    ) -> Option<u64> {
        if let Some(at) = self.variable(name) {
            return Some(at);
        }
        functions.iter().find_map(|function| {
            let addresses = self.addresses_in(function);
            addresses.into_iter().find(|at| fits(*at))
        })
    }

    /// Addresses in writable memory that the code of a function may refer to.
    fn addresses_in(&self, function: &str) -> Vec<u64> {
        let abi0 = format!("{function}.abi0");
        let Some(range) = self.table.range_of(&[function, &abi0]) else {
            return Vec::new();
        };
        let size = range.end.saturating_sub(range.start).min(CODE);
        let code = self.object.bytes_at(Svma(range.start)).unwrap_or_default();
        let size = usize::try_from(size).unwrap_or(0).min(code.len());
        let code = code.get(..size).unwrap_or_default();
        let found = match self.object.machine() {
            Machine::X86_64 => relative_addresses(code, range.start),
            Machine::Aarch64 => page_addresses(code, range.start),
            _ => Vec::new(),
        };
        let mut addresses: Vec<u64> = Vec::new();
        for at in found {
            let is_variable = self.object.sections().iter().any(|section| {
                const WRITE: u64 = 1;
                let inside = at.checked_sub(section.address.0);
                section.flags & WRITE != 0 && inside.is_some_and(|inside| inside < section.size)
            });
            let at = at.wrapping_add(self.bias);
            if is_variable && !addresses.contains(&at) {
                addresses.push(at);
            }
        }
        addresses
    }

    /// A text of Go: address and length.
    pub(super) fn text(&self, header: u64, limit: u64) -> Option<String> {
        let at = self.process.u64(header)?;
        let length = self.process.u64(header.checked_add(8)?)?;
        self.text_at(at, length, limit)
    }

    pub(super) fn text_at(&self, at: u64, length: u64, limit: u64) -> Option<String> {
        let bytes = self
            .process
            .bytes(at, usize::try_from(length.min(limit)).ok()?)?;
        Some(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Address of the module's data, which begins with the address of the function table.
    pub(super) fn module_data(&self) -> Option<u64> {
        let own = self.table.address().0.wrapping_add(self.bias);
        let is_ours = |at: &u64| self.process.u64(*at) == Some(own);
        let stated = self.variable("runtime.firstmoduledata").filter(is_ours);
        stated.or_else(|| {
            let names = [".go.module", ".noptrdata", ".data"];
            names.iter().find_map(|name| {
                let section = self.object.section(name)?;
                let start = section.address.0.wrapping_add(self.bias);
                let size = usize::try_from(section.size.min(16 << 20)).ok()?;
                let bytes = self.process.bytes(start, size)?;
                let found = (0..size / 8).find_map(|index| {
                    let at = index.checked_mul(8)?;
                    (word_at(&bytes, at)? == own).then_some(at as u64)
                })?;
                start.checked_add(found)
            })
        })
    }
}

/// The version that the linker wrote into the program.
fn version(object: &ElfObject<'_>) -> Option<String> {
    let info = object.section(".go.buildinfo")?.data;
    let start = info
        .windows(BUILD_INFO.len())
        .position(|window| window == BUILD_INFO)?;
    let info = info.get(start..)?;
    if info.get(15)? & INLINE == 0 {
        return None;
    }
    let text = info.get(HEADER..)?;
    let (length, text) = varint(text)?;
    let text = text.get(..usize::try_from(length.min(VERSION)).ok()?)?;
    Some(String::from_utf8_lossy(text).into_owned())
}

/// A number in groups of seven bits, the lowest first, and what follows it.
pub(super) fn varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0_u64;
    for (index, byte) in bytes.iter().enumerate().take(9) {
        let shift = u32::try_from(index.checked_mul(7)?).ok()?;
        value |= u64::from(byte & 0x7f).checked_shl(shift)?;
        if byte & 0x80 == 0 {
            return Some((value, bytes.get(index.checked_add(1)?..)?));
        }
    }
    None
}

/// x86_64: every four bytes may be a distance from the next instruction, which begins behind them or behind an
/// immediate of one or four bytes.
fn relative_addresses(code: &[u8], start: u64) -> Vec<u64> {
    let mut found = Vec::new();
    for (index, window) in code.windows(4).enumerate() {
        let Some(distance) = window.first_chunk().copied().map(i32::from_le_bytes) else {
            continue;
        };
        let next = start.wrapping_add(index as u64).wrapping_add(4);
        for immediate in [0, 1, 4] {
            let at = next.wrapping_add_signed(distance.into());
            found.push(at.wrapping_add(immediate));
        }
    }
    found.retain(|at| at.is_multiple_of(8));
    found
}

/// aarch64: `adrp`, and an `add` or a load with an offset into that page.
fn page_addresses(code: &[u8], start: u64) -> Vec<u64> {
    let words: Vec<u32> = code
        .chunks_exact(4)
        .filter_map(|word| Some(u32::from_le_bytes(*word.first_chunk()?)))
        .collect();
    let mut found = Vec::new();
    for (index, word) in words.iter().enumerate() {
        if word & 0x9f00_0000 != 0x9000_0000 {
            continue;
        }
        let register = word & 31;
        let immediate = (u64::from(word >> 5) & 0x7_ffff) << 2 | (u64::from(word >> 29) & 3);
        // Sign of 21 bits.
        let pages = (immediate << 43).cast_signed() >> 31;
        let at = start.wrapping_add((index as u64).wrapping_mul(4)) & !0xfff;
        let page = at.wrapping_add_signed(pages);
        for next in words.iter().skip(index).skip(1).take(NEAR) {
            if next >> 5 & 31 != register {
                continue;
            }
            let offset = u64::from(next >> 10) & 0xfff;
            if next & 0xffc0_0000 == 0x9100_0000 {
                found.push(page.wrapping_add(offset));
            } else if next & 0xffc0_0000 == 0xf940_0000 {
                found.push(page.wrapping_add(offset << 3));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_found_in_code_of_both_machines() {
        // mov rax, [rip+0x10] at 0x1000.
        let code = [0x48, 0x8b, 0x05, 0x11, 0, 0, 0, 0x90];
        assert!(relative_addresses(&code, 0x1000).contains(&0x1018));
        // adrp x0, 0x3000; ldr x1, [x0, #16]; add x2, x0, #0x20.
        let code = [0xd000_0000_u32, 0xf940_0801, 0x9100_8002];
        let code: Vec<u8> = code.iter().flat_map(|word| word.to_le_bytes()).collect();
        assert_eq!(page_addresses(&code, 0x1000), [0x3010, 0x3020]);
    }

    #[test]
    fn varint_ends_at_the_end_of_the_bytes() {
        assert_eq!(varint(&[0x81, 0x01, 7]), Some((129, &[7][..])));
        assert_eq!(varint(&[0x80; 20]), None);
        assert_eq!(varint(&[]), None);
    }
}
