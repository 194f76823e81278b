//! Names, lines and frame sizes of Go functions, from the table that the Go runtime itself prints stacks with. It is
//! there also in stripped programs.
//!
//! ```text
//! magic u32 | 0 0 | instruction size u8 | pointer size u8
//! functions, files, [text start], names, units, files, pc tables, functions: one word each, offsets from here
//! functions: (start, offset of its record), by address, and the end of the last
//! record: start | name i32 | … | pc-sp, pc-file, pc-line u32 | … | unit u32
//! ```
//! Since Go 1.18 starts are u32 from the text's start, before they were addresses (`runtime/symtab.go`).
//! A pc table is a run of (zigzag difference of the value, difference of pc), starting from -1.

//!
//! Calls that were inlined are in a tree of each function, in the linker's `go:func.*` (`runtime/symtabinl.go`). Where
//! that is, only the module's data says.

use std::ops::Range;
use std::sync::OnceLock;

use cdh_elfcore::{ElfObject, Svma};

use crate::Location;
use crate::debug_info::Site;

const GO_1_16: u32 = 0xffff_fffa;
const GO_1_18: u32 = 0xffff_fff0;
const GO_1_20: u32 = 0xffff_fff1;
const SECTIONS: [&str; 2] = [".gopclntab", ".data.rel.ro.gopclntab"];
/// Largest believable frame: stacks of goroutines have at most 1 GiB.
const LARGEST_FRAME: u64 = 1 << 30;
/// Longest believable name or path.
const TEXT_LIMIT: usize = 4096;
/// Steps of one pc table; a function has some thousand instructions at most.
const STEPS: usize = 1 << 20;

/// Functions that nothing called, of the runtime's assembly (`TOPFRAME` in `runtime/asm_*.s`).
const OUTERMOST: [&str; 4] = [
    "runtime.goexit",
    "runtime.mstart",
    "runtime.rt0_go",
    "runtime.goexit0",
];

/// The frame of a Go function at an address in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct GoFrame {
    /// Bytes between the stack pointer and where it was when the function was entered, without a return address
    /// that the call pushed.
    pub(crate) size: u64,
    /// Whether nothing called it.
    pub(crate) is_outermost: bool,
}

/// A function of a Go program.
pub(crate) struct GoFunction {
    /// Innermost inlined call first, the function itself last.
    pub(crate) sites: Vec<Site>,
    pub(crate) entry: u64,
}

/// Depth of inlined calls.
const INLINED: usize = 64;
/// `PCDATA_InlTreeIndex` and `FUNCDATA_InlTree` (`internal/abi/symtab.go`).
const PCDATA_TREE: usize = 2;
const FUNCDATA_TREE: u8 = 3;
/// Where `moduledata.gofunc` is (`runtime/symtab.go`): in 1.18 and 1.19; in 1.20 to 1.26, and in 1.27, where the word at
/// the first offset is no address.
const OLD_TREES: [u64; 1] = [304];
const NEW_TREES: [u64; 2] = [320, 344];
/// Where `moduledata.text` is, in all of these versions.
const MODULE_TEXT: u64 = 176;
/// Functions by number that a search by name looks at.
const SEARCHED: usize = 1 << 21;
/// Relocations that are searched for the module's data, and the type of those that matter (x86_64, aarch64).
const RELOCATIONS: usize = 1 << 22;
const RELATIVE: [u64; 2] = [8, 1027];

/// Where a function's record is.
#[derive(Clone, Copy)]
struct Record {
    entry: u64,
    /// Offset of the fields behind the start.
    fields: usize,
}

/// The table of one program: names, lines and frames of Go functions. Addresses are those of the file.
pub struct GoTable<'data> {
    object: ElfObject<'data>,
    data: &'data [u8],
    /// Where the table itself is.
    address: u64,
    /// Whether the version is 1.20 or newer, whose functions and inlined calls have other fields.
    is_new: bool,
    /// Address of `go:func.*`.
    trees: OnceLock<Option<u64>>,
    /// Offsets are relative to it; 0 where addresses are stated in full.
    text: u64,
    /// Whether starts are addresses (before Go 1.18).
    old: bool,
    step: u64,
    count: usize,
    names: usize,
    units: usize,
    files: usize,
    pcs: usize,
    functions: usize,
}

impl<'data> GoTable<'data> {
    /// `None` where the program is not a Go program, or of a version that is not known.
    #[must_use]
    pub fn open(object: &ElfObject<'data>) -> Option<Self> {
        let named = SECTIONS.iter().find_map(|name| object.section(name));
        let (address, data) = match named {
            Some(section) => (section.address.0, section.data),
            None => unnamed_table(object)?,
        };
        let magic = u32_at(data, 0)?;
        let old = match magic {
            GO_1_16 => true,
            GO_1_18 | GO_1_20 => false,
            _ => return None,
        };
        if data.get(7) != Some(&8) {
            return None;
        }
        let word = |index: usize| u64_at(data, index.checked_mul(8)?.checked_add(8)?);
        let offset = |index: usize| usize::try_from(word(index)?).ok();
        let first = if old { 2 } else { 3 };
        let place = |index: usize| offset(index.checked_add(first)?);
        let mut table = Self {
            object: object.clone(),
            data,
            address,
            is_new: magic == GO_1_20,
            trees: OnceLock::new(),
            text: 0,
            old,
            step: u64::from(*data.get(6)?),
            count: offset(0)?,
            names: place(0)?,
            units: place(1)?,
            files: place(2)?,
            pcs: place(3)?,
            functions: place(4)?,
        };
        // A relocatable program, and any since Go 1.26, states no text start.
        table.text = match (old, if old { 0 } else { word(2)? }) {
            (true, _) => 0,
            (false, 0) => table.find_text()?,
            (false, stated) => stated,
        };
        Some(table)
    }

    /// Start of Go's code: what the module's data says, the symbol, or the section. Code of C may come before it.
    fn find_text(&self) -> Option<u64> {
        let is_code = |at: &u64| {
            const EXECUTE: u64 = 4;
            self.object.sections().iter().any(|section| {
                let inside = at.checked_sub(section.address.0);
                section.flags & EXECUTE != 0 && inside.is_some_and(|inside| inside < section.size)
            })
        };
        let stated = || self.module_word(self.module_data()?, MODULE_TEXT);
        let symbol = || {
            Some(
                self.object
                    .symbols_named(&[b"runtime.text"])
                    .first()?
                    .address
                    .0,
            )
        };
        let section = || Some(self.object.section(".text")?.address.0);
        let known = stated().filter(is_code).or_else(symbol);
        known.or_else(section)
    }

    /// Where the table is, which is the first word of the module's data.
    #[must_use]
    pub fn address(&self) -> Svma {
        Svma(self.address)
    }

    /// Start of the function at an address.
    pub(crate) fn entry(&self, at: u64) -> Option<u64> {
        Some(self.record(at)?.entry)
    }

    /// Start and name of the function at an address.
    #[must_use]
    pub fn function(&self, at: Svma) -> Option<(Svma, String)> {
        let record = self.record(at.0)?;
        Some((Svma(record.entry), self.name(record)?))
    }

    /// Addresses of the first function that has one of these names.
    #[must_use]
    pub fn range_of(&self, names: &[&str]) -> Option<Range<u64>> {
        let count = self.count.min(self.data.len() / 8).min(SEARCHED);
        (0..count).find_map(|index| {
            let record = self.record_of(index)?;
            let name = self.name_bytes(record)?;
            let is_wanted = names.iter().any(|wanted| wanted.as_bytes() == name);
            is_wanted.then(|| Some(record.entry..self.start(index.checked_add(1)?)?))?
        })
    }

    /// The function at an address, and the calls that were inlined there.
    pub(crate) fn find(&self, at: u64) -> Option<GoFunction> {
        let record = self.record(at)?;
        let mut sites = self.inlined(record, at).unwrap_or_default();
        let at = sites.pop().map_or(at, |(_, parent)| parent);
        let mut sites: Vec<Site> = sites.into_iter().map(|(site, _)| site).collect();
        sites.push(Site {
            name: Some(printed(&self.name(record)?)),
            location: self.location(record, at),
        });
        Some(GoFunction {
            sites,
            entry: record.entry,
        })
    }

    /// Calls that were inlined at an address, innermost first, each with the address that represents its caller;
    /// and at last one without a name, with the address of the function itself.
    fn inlined(&self, record: Record, mut at: u64) -> Option<Vec<(Site, u64)>> {
        let mut found = Vec::new();
        let (indices, tree) = self.tree(record)?;
        while let Some(index) = self.value(indices, at, record.entry)
            && let Ok(index) = u64::try_from(index)
            && found.len() < INLINED
        {
            // 1.20: function id u8, 3 bytes, name, parent's pc, first line. Before: parent u16, function id u8, a byte,
            // file, line, name, parent's pc.
            let (size, name, parent) = if self.is_new {
                (16, 4, 8)
            } else {
                (20, 12, 16)
            };
            let call = Svma(tree.checked_add(index.checked_mul(size)?)?);
            let call = self.object.bytes_at(call)?;
            let site = Site {
                name: self
                    .text_at(self.names, u32_at(call, name)?)
                    .map(|name| printed(&name)),
                location: self.location(record, at),
            };
            let parent = u64::from(u32_at(call, parent)?);
            at = record.entry.checked_add(parent)?;
            found.push((site, at));
        }
        found.push((Site::default(), at));
        Some(found)
    }

    /// The pc table with indices of inlined calls, and where these calls are.
    fn tree(&self, record: Record) -> Option<(u32, u64)> {
        if self.old {
            return None;
        }
        let pcdata = self.field(record, 6)?;
        // Behind the first line, which is new in 1.20: function id, flag, a byte, number of functions' data.
        let flags = if self.is_new { 9 } else { 8 };
        let [_, _, _, funcdata] = self.field(record, flags)?.to_le_bytes();
        let first = flags.checked_add(1)?;
        if usize::try_from(pcdata).ok()? <= PCDATA_TREE || funcdata <= FUNCDATA_TREE {
            return None;
        }
        let indices = self.field(record, first.checked_add(PCDATA_TREE)?)?;
        let behind = first.checked_add(usize::try_from(pcdata).ok()?)?;
        let tree = self.field(record, behind.checked_add(usize::from(FUNCDATA_TREE))?)?;
        if indices == 0 || tree == u32::MAX {
            return None;
        }
        let trees = (*self.trees.get_or_init(|| self.find_trees()))?;
        Some((indices, trees.checked_add(u64::from(tree))?))
    }

    /// Address of `go:func.*`: its symbol, or what the module's data says.
    fn find_trees(&self) -> Option<u64> {
        let names: [&[u8]; 2] = [b"go:func.*", b"go.func.*"];
        if let Some(symbol) = self.object.symbols_named(&names).first() {
            return Some(symbol.address.0);
        }
        let stored = self.module_data()?;
        // Numbers are not relocated; addresses are, if the program can be anywhere.
        let is_relocatable = self.relocated(|at, _| at == stored).is_some();
        let offsets: &[u64] = if self.is_new { &NEW_TREES } else { &OLD_TREES };
        offsets.iter().find_map(|offset| {
            let field = stored.checked_add(*offset)?;
            let value = match is_relocatable {
                true => self.relocated(|at, _| at == field)?.1,
                false => self.module_word(stored, *offset)?,
            };
            self.object.bytes_at(Svma(value)).map(|_| value)
        })
    }

    /// A word of the module's data, as the loader leaves it.
    fn module_word(&self, data: u64, offset: u64) -> Option<u64> {
        let field = data.checked_add(offset)?;
        match self.relocated(|at, _| at == field) {
            Some((_, value)) => Some(value),
            None => u64_at(self.object.bytes_at(Svma(field))?, 0),
        }
    }

    /// Where the module's data is: it begins with the address of the table.
    fn module_data(&self) -> Option<u64> {
        let is_table = |word: u64| word == self.address;
        if let Some(section) = self.object.section(".go.module") {
            return Some(section.address.0);
        }
        let names = [".noptrdata", ".data", ".data.rel.ro", ".go.module"];
        let found = names.iter().find_map(|name| {
            let section = self.object.section(name)?;
            let words = section.data.chunks_exact(8);
            let index = words.into_iter().position(|word| {
                let word = word.first_chunk().copied().map(u64::from_le_bytes);
                word.is_some_and(is_table)
            })?;
            section
                .address
                .0
                .checked_add(u64::try_from(index).ok()?.checked_mul(8)?)
        });
        found.or_else(|| Some(self.relocated(|_, value| is_table(value))?.0))
    }

    /// The first relative relocation for which `wanted` holds of its place and value.
    fn relocated(&self, wanted: impl Fn(u64, u64) -> bool) -> Option<(u64, u64)> {
        let names = [".rela.dyn", ".rela", ".rela.data", ".rela.noptrdata"];
        let sections = names.iter().filter_map(|name| self.object.section(name));
        sections
            .flat_map(|section| section.data.chunks_exact(24))
            .take(RELOCATIONS)
            .find_map(|entry| {
                let (at, kind, value) = (u64_at(entry, 0)?, u64_at(entry, 8)?, u64_at(entry, 16)?);
                (RELATIVE.contains(&kind) && wanted(at, value)).then_some((at, value))
            })
    }

    /// The frame of the function at an address (`funcspdelta` in `runtime/symtab.go`).
    pub(crate) fn frame(&self, at: u64) -> Option<GoFrame> {
        let record = self.record(at)?;
        // A function without a table switches stacks, or is not Go's.
        let table = self.field(record, 3).filter(|table| *table != 0)?;
        let size = u64::try_from(self.value(table, at, record.entry)?).ok()?;
        let name = self.name(record)?;
        let name = name.strip_suffix(".abi0").unwrap_or(&name);
        (size <= LARGEST_FRAME && size.is_multiple_of(8)).then_some(GoFrame {
            size,
            is_outermost: OUTERMOST.contains(&name),
        })
    }

    fn record(&self, at: u64) -> Option<Record> {
        // Each function takes eight bytes at least.
        let (mut low, mut high) = (0, self.count.min(self.data.len() / 8));
        while low < high {
            let middle = low.midpoint(high);
            if self.start(middle)? <= at {
                low = middle.checked_add(1)?;
            } else {
                high = middle;
            }
        }
        let index = low.checked_sub(1)?;
        // The entry behind the last function is the end of the text.
        if index.checked_add(1)? >= self.count && self.start(self.count)? <= at {
            return None;
        }
        self.record_of(index)
    }

    fn record_of(&self, index: usize) -> Option<Record> {
        let entry = self.start(index)?;
        let slot = self.slot(index)?;
        let record = if self.old {
            usize::try_from(u64_at(self.data, slot.checked_add(8)?)?).ok()?
        } else {
            usize::try_from(u32_at(self.data, slot.checked_add(4)?)?).ok()?
        };
        let record = self.functions.checked_add(record)?;
        let fields = record.checked_add(if self.old { 8 } else { 4 })?;
        Some(Record { entry, fields })
    }

    /// A field of a record, counted from the name.
    fn field(&self, record: Record, index: usize) -> Option<u32> {
        u32_at(self.data, record.fields.checked_add(index.checked_mul(4)?)?)
    }

    fn name(&self, record: Record) -> Option<String> {
        self.text_at(self.names, self.field(record, 0)?)
    }

    fn name_bytes(&self, record: Record) -> Option<&'data [u8]> {
        self.bytes_at(self.names, self.field(record, 0)?)
    }

    fn location(&self, record: Record, at: u64) -> Option<Location> {
        let entry = record.entry;
        let (files, lines) = (self.field(record, 4)?, self.field(record, 5)?);
        let unit = self.field(record, 7)?;
        let file = u32::try_from(self.value(files, at, entry)?).ok()?;
        let slot = usize::try_from(unit.checked_add(file)?).ok()?;
        let offset = u32_at(self.data, self.units.checked_add(slot.checked_mul(4)?)?)?;
        let file = self.text_at(self.files, offset)?;
        let line = u32::try_from(self.value(lines, at, entry)?).ok()?;
        let (line, column) = (Some(line).filter(|line| *line > 0)?, None);
        Some(Location {
            file,
            line,
            column,
            md5: None,
        })
    }

    fn slot(&self, index: usize) -> Option<usize> {
        let width = if self.old { 16 } else { 8 };
        self.functions.checked_add(index.checked_mul(width)?)
    }

    fn start(&self, index: usize) -> Option<u64> {
        let slot = self.slot(index)?;
        if self.old {
            u64_at(self.data, slot)
        } else {
            self.text.checked_add(u64::from(u32_at(self.data, slot)?))
        }
    }

    fn text_at(&self, table: usize, offset: u32) -> Option<String> {
        let text = self.bytes_at(table, offset)?;
        Some(String::from_utf8_lossy(text).into_owned())
    }

    fn bytes_at(&self, table: usize, offset: u32) -> Option<&'data [u8]> {
        let start = table.checked_add(usize::try_from(offset).ok()?)?;
        let bytes = self.data.get(start..)?;
        let bytes = bytes.get(..bytes.len().min(TEXT_LIMIT))?;
        let end = bytes.iter().position(|byte| *byte == 0)?;
        bytes.get(..end).filter(|text| !text.is_empty())
    }

    /// What a pc table says for `at`.
    fn value(&self, table: u32, at: u64, entry: u64) -> Option<i64> {
        let mut rest = self
            .data
            .get(self.pcs.checked_add(usize::try_from(table).ok()?)?..)?;
        let (mut value, mut pc) = (-1_i64, entry);
        for step in 0..STEPS {
            let change = varint(&mut rest)?;
            if change == 0 && step > 0 {
                return None;
            }
            let half = (change >> 1).cast_signed();
            value = value.checked_add(if change & 1 == 0 { half } else { !half })?;
            pc = pc.checked_add(varint(&mut rest)?.checked_mul(self.step)?)?;
            if at < pc {
                return Some(value);
            }
        }
        None
    }
}

/// Address and bytes of the table of functions in a position-independent program that the system's linker linked:
/// that merges `.data.rel.ro.gopclntab` into `.data.rel.ro`. The header is `pcHeader` in `runtime/symtab.go`.
fn unnamed_table<'data>(object: &ElfObject<'data>) -> Option<(u64, &'data [u8])> {
    object.section(".go.buildinfo")?;
    let section = object.section(".data.rel.ro")?;
    let is_table = |bytes: &[u8]| {
        let magic = u32_at(bytes, 0);
        let is_known = [GO_1_16, GO_1_18, GO_1_20]
            .iter()
            .any(|known| magic == Some(*known));
        let (Some([0, 0, step, 8]), Some(count)) = (bytes.get(4..8), u64_at(bytes, 8)) else {
            return false;
        };
        // Each function takes eight bytes at least.
        is_known
            && matches!(step, 1 | 4)
            && count
                .checked_mul(8)
                .is_some_and(|size| size < bytes.len() as u64)
    };
    let start = (0..section.data.len())
        .step_by(8)
        .find(|start| section.data.get(*start..).is_some_and(is_table))?;
    Some((
        section.address.0.checked_add(start as u64)?,
        section.data.get(start..)?,
    ))
}

/// A name as the runtime prints it: without type arguments (`funcNameForPrint`).
fn printed(name: &str) -> String {
    match (name.find('['), name.rfind(']')) {
        (Some(start), Some(end)) if start < end => {
            let before = name.get(..start).unwrap_or_default();
            let after = name.get(end..).unwrap_or_default();
            format!("{before}[...{after}")
        }
        _ => name.to_owned(),
    }
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f).checked_shl(shift)?;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

fn u32_at(data: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*data.get(at..)?.first_chunk()?))
}

fn u64_at(data: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*data.get(at..)?.first_chunk()?))
}
