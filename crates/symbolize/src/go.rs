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

use cdh_elfcore::ElfObject;

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
    pub(crate) site: Site,
    pub(crate) entry: u64,
}

/// Where a function's record is.
#[derive(Clone, Copy)]
struct Record {
    entry: u64,
    /// Offset of the fields behind the start.
    fields: usize,
}

/// The table of one program.
pub(crate) struct Table<'data> {
    data: &'data [u8],
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

impl<'data> Table<'data> {
    /// `None` where the program is not a Go program, or of a version that is not known.
    pub(crate) fn open(object: &ElfObject<'data>) -> Option<Self> {
        let data = SECTIONS.iter().find_map(|name| object.section(name))?.data;
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
        // A relocatable program states no text start, or one that the loader would have to mend.
        let stated = if old { 0 } else { word(2)? };
        let text = match (old, stated, object.section(".text")) {
            (true, ..) => 0,
            (false, 0, Some(text)) => text.address.0,
            (false, stated, _) => stated,
        };
        Some(Self {
            data,
            text,
            old,
            step: u64::from(*data.get(6)?),
            count: offset(0)?,
            names: place(0)?,
            units: place(1)?,
            files: place(2)?,
            pcs: place(3)?,
            functions: place(4)?,
        })
    }

    /// The function at an address.
    pub(crate) fn find(&self, at: u64) -> Option<GoFunction> {
        let record = self.record(at)?;
        let location = self.location(
            at,
            record.entry,
            self.field(record, 4)?,
            self.field(record, 5)?,
            self.field(record, 7)?,
        );
        Some(GoFunction {
            site: Site {
                name: Some(self.name(record)?),
                location,
            },
            entry: record.entry,
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
        let entry = self.start(index)?;
        // The entry behind the last function is the end of the text.
        if index.checked_add(1)? >= self.count && self.start(self.count)? <= at {
            return None;
        }
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

    fn location(&self, at: u64, entry: u64, files: u32, lines: u32, unit: u32) -> Option<Location> {
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
        let start = table.checked_add(usize::try_from(offset).ok()?)?;
        let bytes = self.data.get(start..)?;
        let bytes = bytes.get(..bytes.len().min(TEXT_LIMIT))?;
        let end = bytes.iter().position(|byte| *byte == 0)?;
        let text = bytes.get(..end).filter(|text| !text.is_empty())?;
        Some(String::from_utf8_lossy(text).into_owned())
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
