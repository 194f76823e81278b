//! An ELF executable, shared object or debug file over a byte slice. Zero copy: names and sections borrow.
//!
//! The invariant: every slice it hands out lies inside the given bytes, every list is bounded by the
//! bytes that back it. It does not decompress sections and does not relocate anything.
//!
//! In a separate debug file the program headers describe the original file, so that addresses can be
//! trusted and file offsets cannot: ask the module's own object for bytes.

mod tables;

use goblin::elf::dynamic::{DT_SONAME, DT_STRTAB};
use goblin::elf::program_header::{PT_DYNAMIC, PT_GNU_EH_FRAME, PT_INTERP, PT_LOAD, PT_NOTE};
use goblin::elf::section_header::{SHT_DYNSYM, SHT_NOTE, SHT_SYMTAB};

use crate::elf_header::{ElfHeader, NotOurs, ProgramHeader};
use crate::note::find_build_id;
use crate::{BuildId, Encoding, FileOffset, Machine, Module, ModuleRange, Svma};
use tables::{
    Nameless, begin, load_segment, malformed, program_headers, sections, slice, symbol_size,
    until_nul,
};

/// Why bytes cannot be read as an ELF object.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ElfError {
    /// No ELF magic.
    #[error("not an ELF file")]
    NotElf,
    /// Of a machine whose files are not read.
    #[error("{found} ELF files are not supported")]
    Unsupported {
        /// `big-endian ppc64`, `32-bit mips`.
        found: String,
    },
    /// Headers that point outside the file.
    #[error("the {part} is not valid: {problem}")]
    Malformed {
        /// Which part.
        part: &'static str,
        /// What is wrong with it.
        problem: String,
    },
}

/// A `PT_LOAD` of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoadSegment {
    /// `p_vaddr`.
    pub start: Svma,
    /// `p_memsz`.
    pub memory_size: u64,
    /// `p_offset`.
    pub offset: FileOffset,
    /// `p_filesz`.
    pub file_size: u64,
    /// `PF_X` 1, `PF_W` 2, `PF_R` 4.
    pub flags: u32,
}

/// One section; `data` is as stored (maybe compressed: `SHF_COMPRESSED`, or a `.zdebug_` name).
#[derive(Clone, Copy, Debug)]
pub struct Section<'data> {
    /// Name from `.shstrtab`.
    pub name: &'data [u8],
    /// `sh_type` (8 is NOBITS: no data).
    pub kind: u32,
    /// `sh_flags`; 0x800 is SHF_COMPRESSED.
    pub flags: u64,
    /// `sh_addr`.
    pub address: Svma,
    /// `sh_offset`.
    pub offset: FileOffset,
    /// `sh_size`.
    pub size: u64,
    /// Bytes in the file; empty for NOBITS, or where they point outside.
    pub data: &'data [u8],
}

/// A function or object symbol.
#[derive(Clone, Copy, Debug)]
pub struct Symbol<'data> {
    /// Mangled name.
    pub name: &'data [u8],
    /// `st_value`.
    pub address: Svma,
    /// `st_size`.
    pub size: u64,
    /// `STT_FUNC` 2, `STT_OBJECT` 1, `STT_NOTYPE` 0, `STT_GNU_IFUNC` 10.
    pub kind: u8,
    /// `STB_LOCAL` 0, `STB_GLOBAL` 1, `STB_WEAK` 2.
    pub binding: u8,
}

/// Loads and ranges that are compared to find the bias; real files have a dozen of each.
const BIAS_CANDIDATES: usize = 64;

/// An ELF object.
#[derive(Clone, Debug)]
pub struct ElfObject<'data> {
    data: &'data [u8],
    machine: Machine,
    entry: Svma,
    headers: Vec<ProgramHeader>,
    loads: Vec<LoadSegment>,
    sections: Vec<Section<'data>>,
    /// `sh_link` of each section: the string table of a symbol table.
    links: Vec<u32>,
}

impl<'data> ElfObject<'data> {
    /// Reads headers only.
    ///
    /// # Errors
    /// If it is not a supported ELF file. Missing or broken section headers are not an error.
    pub fn parse(data: &'data [u8]) -> Result<Self, ElfError> {
        if data.get(..4) != Some(b"\x7fELF") {
            return Err(ElfError::NotElf);
        }
        let header = ElfHeader::parse_any(data).map_err(|problem| match problem {
            NotOurs::NotElf => ElfError::NotElf,
            NotOurs::Short => malformed("ELF header", "the file ends inside it"),
            NotOurs::Unsupported(found) => ElfError::Unsupported { found },
        })?;
        let headers = program_headers(data, &header)?;
        let loads = headers
            .iter()
            .filter(|header| header.kind == PT_LOAD)
            .map(load_segment)
            .collect();
        let (sections, links) = sections(data, &header);
        Ok(Self {
            data,
            machine: header.machine,
            entry: Svma(header.entry),
            headers,
            loads,
            sections,
            links,
        })
    }

    /// All bytes.
    #[must_use]
    pub fn data(&self) -> &'data [u8] {
        self.data
    }

    /// All program headers.
    pub(crate) fn program_headers(&self) -> &[ProgramHeader] {
        &self.headers
    }

    /// Processor architecture.
    #[must_use]
    pub fn machine(&self) -> Machine {
        self.machine
    }

    /// How its numbers are written.
    #[must_use]
    pub fn encoding(&self) -> Encoding {
        self.machine.encoding()
    }

    /// `e_entry`.
    #[must_use]
    pub fn entry(&self) -> Svma {
        self.entry
    }

    /// Build-id from PT_NOTE, else from a `.note.gnu.build-id` section.
    #[must_use]
    pub fn build_id(&self) -> Option<BuildId> {
        let segments = self.headers.iter().filter(|header| header.kind == PT_NOTE);
        let from_segments = segments
            .filter_map(|header| Some((self.file_bytes(header)?, header.align)))
            .find_map(|(notes, alignment)| find_build_id(self.encoding(), notes, alignment));
        from_segments.or_else(|| {
            let notes = self
                .sections
                .iter()
                .filter(|section| section.kind == SHT_NOTE);
            notes
                .into_iter()
                .find_map(|section| find_build_id(self.encoding(), section.data, 4))
        })
    }

    /// `PT_LOAD`s.
    #[must_use]
    pub fn load_segments(&self) -> &[LoadSegment] {
        &self.loads
    }

    /// Path of the interpreter (`PT_INTERP`), absent for static programs.
    #[must_use]
    pub fn interpreter(&self) -> Option<&'data [u8]> {
        let header = self
            .headers
            .iter()
            .find(|header| header.kind == PT_INTERP)?;
        until_nul(self.file_bytes(header)?)
    }

    /// `DT_SONAME`: the name by which the dynamic loader knows a shared object.
    #[must_use]
    pub fn soname(&self) -> Option<&'data [u8]> {
        let dynamic = self
            .headers
            .iter()
            .find(|header| header.kind == PT_DYNAMIC)?;
        let (entries, encoding) = (self.file_bytes(dynamic)?, self.encoding());
        let value = |tag: u64| {
            let mut entries = entries.chunks_exact(encoding.word_size().checked_mul(2)?);
            let found = entries.find(|entry| encoding.nth_word(entry, 0) == Some(tag))?;
            encoding.nth_word(found, 1)
        };
        let strings = self.bytes_at(Svma(value(DT_STRTAB)?))?;
        let name = strings.get(usize::try_from(value(DT_SONAME)?).ok()?..)?;
        until_nul(name).filter(|name| !name.is_empty())
    }

    /// `PT_GNU_EH_FRAME`: address and bytes of `.eh_frame_hdr`, also without section headers.
    #[must_use]
    pub fn eh_frame_header(&self) -> Option<(Svma, &'data [u8])> {
        let header = self
            .headers
            .iter()
            .find(|header| header.kind == PT_GNU_EH_FRAME)?;
        Some((Svma(header.address), self.file_bytes(header)?))
    }

    /// `PT_ARM_EXIDX`: address and bytes of `.ARM.exidx`.
    #[must_use]
    pub fn exception_index(&self) -> Option<(Svma, &'data [u8])> {
        const PT_ARM_EXIDX: u32 = 0x7000_0001;
        let is_it = |header: &&ProgramHeader| header.kind == PT_ARM_EXIDX;
        let header = self.headers.iter().find(is_it)?;
        Some((Svma(header.address), self.file_bytes(header)?))
    }

    /// File bytes from `at` to the end of the file-backed part of the segment that holds it.
    #[must_use]
    pub fn bytes_at(&self, at: Svma) -> Option<&'data [u8]> {
        let holds = |load: &&LoadSegment| {
            at.checked_sub(load.start)
                .is_some_and(|inside| inside < load.file_size)
        };
        let load = self.loads.iter().find(holds)?;
        let inside = at.checked_sub(load.start)?;
        let from = load.offset.0.checked_add(inside)?;
        // A truncated file gives what is there.
        let end = load
            .offset
            .0
            .saturating_add(load.file_size)
            .min(self.data.len() as u64);
        slice(self.data, from, end.checked_sub(from)?)
    }

    /// All sections.
    #[must_use]
    pub fn sections(&self) -> &[Section<'data>] {
        &self.sections
    }

    /// The section called `name`.
    #[must_use]
    pub fn section(&self, name: &str) -> Option<&Section<'data>> {
        self.sections
            .iter()
            .find(|section| section.name == name.as_bytes())
    }

    /// Symbols of `.symtab`, else of `.dynsym`; bounded by the table's bytes.
    ///
    /// Undefined symbols and those without a name are left out, as are kinds other than functions,
    /// objects and untyped labels.
    #[must_use]
    pub fn symbols(&self) -> Vec<Symbol<'data>> {
        self.symbols_where(|_, _| true)
    }

    /// Of [`Self::symbols`] those of whose address and size `wanted` says so; the names of others are not
    /// looked at. A large program has half a million, and their names some hundred MiB.
    #[must_use]
    pub fn symbols_where(&self, wanted: impl Fn(Svma, u64) -> bool) -> Vec<Symbol<'data>> {
        self.symbols_if(|symbol, _| wanted(symbol.address, symbol.size))
    }

    /// Of [`Self::symbols`] those that have one of these names. Of half a million few begin like one of them,
    /// and only those are read.
    #[must_use]
    pub fn symbols_named(&self, names: &[&[u8]]) -> Vec<Symbol<'data>> {
        let mut names = names.to_vec();
        names.sort_unstable();
        let mut begins: Vec<[u8; 4]> = names.iter().map(|name| begin(name)).collect();
        begins.sort_unstable();
        begins.dedup();
        let mut found = self.symbols_if(|symbol, strings| {
            let begin = symbol.begin(strings);
            begins.binary_search(&begin).is_ok()
        });
        found.retain(|symbol| names.binary_search(&symbol.name).is_ok());
        found
    }

    fn symbols_if(&self, wanted: impl Fn(&Nameless, &[u8]) -> bool) -> Vec<Symbol<'data>> {
        match self.symbol_table(SHT_SYMTAB, &wanted) {
            Some(found) => found,
            None => self.symbol_table(SHT_DYNSYM, &wanted).unwrap_or_default(),
        }
    }

    /// `None` where the table holds nothing that is a symbol, wanted or not.
    fn symbol_table(
        &self,
        kind: u32,
        wanted: &impl Fn(&Nameless, &[u8]) -> bool,
    ) -> Option<Vec<Symbol<'data>>> {
        let table = self
            .sections
            .iter()
            .zip(&self.links)
            .find(|(section, _)| section.kind == kind);
        let (table, link) = table?;
        let strings = self.sections.get(usize::try_from(*link).ok()?)?;
        let entries = table.data.chunks_exact(symbol_size(self.encoding().class));
        let mut found = Vec::new();
        let mut holds_one = false;
        for symbol in entries.filter_map(|entry| Nameless::parse(self.machine, entry)) {
            let is_wanted = wanted(&symbol, strings.data);
            if holds_one && !is_wanted {
                continue;
            }
            let Some(named) = symbol.named(strings.data) else {
                continue;
            };
            holds_one = true;
            if is_wanted {
                found.push(named);
            }
        }
        holds_one.then_some(found)
    }

    /// File name and CRC-32 of `.gnu_debuglink`.
    ///
    /// ```text
    /// file name | NUL | padding to 4 | CRC-32 of the debug file, in the file's byte order
    /// ```
    #[must_use]
    pub fn debug_link(&self) -> Option<(&'data [u8], u32)> {
        let data = self.section(".gnu_debuglink")?.data;
        let name = until_nul(data)?;
        let checksum_at = name.len().checked_add(1)?.checked_next_multiple_of(4)?;
        Some((name, self.encoding().u32_at(data, checksum_at)?))
            .filter(|(name, _)| !name.is_empty())
    }

    /// File name and build-id of `.gnu_debugaltlink` (dwz).
    #[must_use]
    pub fn debug_alt_link(&self) -> Option<(&'data [u8], BuildId)> {
        let data = self.section(".gnu_debugaltlink")?.data;
        let name = until_nul(data)?;
        let id = BuildId::from_bytes(data.get(name.len().checked_add(1)?..)?)?;
        Some((name, id)).filter(|(name, _)| !name.is_empty())
    }

    /// `avma - svma` (wrapping) of this file mapped as `module`, from the mapping that holds the file
    /// offset of one of the loads; falls back to `module.bias`.
    ///
    /// One page of a file can be mapped twice (lld lets two segments share a page), so a single match
    /// may lie: the bias that explains the most loads wins, and `module.bias` wins a tie.
    #[must_use]
    pub fn bias_in(&self, module: &Module) -> Option<u64> {
        let loads: Vec<&LoadSegment> = self
            .loads
            .iter()
            .filter(|load| load.file_size > 0)
            .take(BIAS_CANDIDATES)
            .collect();
        let ranges = module
            .ranges
            .get(..module.ranges.len().min(BIAS_CANDIDATES))?;
        let place = |load: &LoadSegment, range: &ModuleRange| -> Option<u64> {
            let inside = load.offset.checked_sub(range.offset)?;
            let at = range.start.checked_add(inside)?;
            (at < range.end).then(|| at.0.wrapping_sub(load.start.0))
        };
        let explained = |bias: u64| {
            let agrees =
                |load: &&&LoadSegment| ranges.iter().any(|range| place(load, range) == Some(bias));
            loads.iter().filter(agrees).count()
        };
        let found = loads
            .iter()
            .flat_map(|load| ranges.iter().filter_map(|range| place(load, range)));
        let mut candidates: Vec<u64> = module.bias.into_iter().collect();
        for bias in found {
            if candidates.len() < BIAS_CANDIDATES && !candidates.contains(&bias) {
                candidates.push(bias);
            }
        }
        let mut best: Option<(usize, u64)> = None;
        for bias in candidates {
            let score = explained(bias);
            if best.is_none_or(|(most, _)| score > most) {
                best = Some((score, bias));
            }
        }
        best.map(|(_, bias)| bias)
    }

    fn file_bytes(&self, header: &ProgramHeader) -> Option<&'data [u8]> {
        slice(self.data, header.offset, header.file_size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Avma, ModuleKind};
    use proptest::prelude::*;

    fn own_executable() -> Vec<u8> {
        std::fs::read(std::env::current_exe().unwrap()).unwrap()
    }

    #[test]
    fn own_executable_has_symbols_sections_and_unwind_table() {
        let data = own_executable();
        let object = ElfObject::parse(&data).unwrap();
        assert!(matches!(
            object.machine(),
            Machine::X86_64 | Machine::Aarch64
        ));
        assert!(object.interpreter().is_some());
        let (at, header) = object.eh_frame_header().unwrap();
        assert!(object.bytes_at(at).unwrap().starts_with(header));
        assert_eq!(object.section(".eh_frame_hdr").unwrap().address, at);
        let this = |symbol: &Symbol<'_>| {
            symbol
                .name
                .windows(14)
                .any(|part| part == b"own_executable")
        };
        let all = object.symbols();
        assert!(all.iter().any(this));
        // Of some they are the same ones, and of none there are none.
        let code = |at: Svma, size: u64| at.0.is_multiple_of(32) && size > 100;
        let some: Vec<_> = object.symbols_where(code);
        let expected = all
            .iter()
            .filter(|symbol| code(symbol.address, symbol.size));
        assert!(!some.is_empty());
        assert!(some.iter().map(|s| s.name).eq(expected.map(|s| s.name)));
        assert!(object.symbols_where(|_, _| false).is_empty());
        let names: Vec<&[u8]> = all.iter().step_by(97).map(|symbol| symbol.name).collect();
        for names in [
            &names[..],
            &[b"main", b"_end", b"mai", b"no such name"],
            &[],
        ] {
            let found = object.symbols_named(names);
            let expected = all.iter().filter(|symbol| names.contains(&symbol.name));
            assert!(found.iter().map(|s| s.name).eq(expected.map(|s| s.name)));
        }
        assert!(!object.symbols_named(&[b"main"]).is_empty());
    }

    #[test]
    fn soname_is_that_of_the_dynamic_section() {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let libc = maps
            .lines()
            .find_map(|line| line.split_once('/').filter(|l| l.1.contains("libc.so")));
        let data = std::fs::read(format!("/{}", libc.unwrap().1)).unwrap();
        assert_eq!(
            ElfObject::parse(&data).unwrap().soname(),
            Some(b"libc.so.6".as_slice())
        );
        assert_eq!(ElfObject::parse(&own_executable()).unwrap().soname(), None);
    }

    #[test]
    fn foreign_classes_are_named_in_the_error() {
        let parse = |bytes: &[u8]| ElfObject::parse(bytes).unwrap_err().to_string();
        assert_eq!(parse(b"#!/bin/sh"), "not an ELF file");
        assert!(parse(b"\x7fELF\x01\x01").contains("32-bit"));
        assert!(parse(b"\x7fELF\x02\x02").contains("big-endian"));
        assert!(parse(b"\x7fELF\x02\x01").contains("ends inside"));
    }

    #[test]
    fn bias_that_explains_most_loads_wins() {
        let data = own_executable();
        let object = ElfObject::parse(&data).unwrap();
        let bias = 0x5555_0000_0000;
        let page = |load: &LoadSegment| load.offset.0 & !0xfff;
        let ranges = object.load_segments().iter().map(|load| ModuleRange {
            start: Avma((load.start.0 & !0xfff) + bias),
            end: Avma(load.start.0 + bias + load.file_size),
            offset: FileOffset(page(load)),
        });
        let mut module = Module {
            path: b"/x".to_vec(),
            deleted: false,
            kind: ModuleKind::Executable,
            ranges: ranges.collect(),
            build_id: None,
            bias: None,
        };
        assert_eq!(object.bias_in(&module), Some(bias));
        module.bias = Some(1);
        assert_eq!(object.bias_in(&module), Some(bias));
        module.ranges.clear();
        assert_eq!(object.bias_in(&module), Some(1));
    }

    #[test]
    fn build_id_is_found_behind_another_note() {
        let note = |kind: u32, name: &[u8; 4], desc: &[u8]| {
            let mut bytes = Vec::new();
            bytes.extend(4_u32.to_le_bytes());
            bytes.extend((desc.len() as u32).to_le_bytes());
            bytes.extend(kind.to_le_bytes());
            bytes.extend(name);
            bytes.extend(desc);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
            bytes
        };
        let notes = [note(1, b"GNU\0", &[0; 16]), note(3, b"GNU\0", &[0xab; 20])].concat();
        assert_eq!(
            find_build_id(Encoding::LITTLE_64, &notes, 4),
            BuildId::from_bytes(&[0xab; 20])
        );
        assert_eq!(
            find_build_id(Encoding::LITTLE_64, &notes[..notes.len() - 1], 4),
            None
        );
    }

    /// Every accessor, as a hostile file would be used.
    fn exercise(data: &[u8]) {
        let Ok(object) = ElfObject::parse(data) else {
            return;
        };
        let _ = (
            object.build_id(),
            object.interpreter(),
            object.debug_link(),
            object.soname(),
        );
        let _ = (
            object.eh_frame_header(),
            object.debug_alt_link(),
            object.symbols(),
        );
        for load in object.load_segments() {
            let _ = object.bytes_at(load.start);
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(tail in proptest::collection::vec(any::<u8>(), 0..512)) {
            exercise(&[b"\x7fELF\x02\x01".as_slice(), &tail].concat());
        }

        #[test]
        fn damaged_executables_never_panic(
            edits in proptest::collection::vec((0_usize..1 << 12, any::<u8>()), 1..64),
            cut in any::<prop::sample::Index>(),
        ) {
            static BYTES: std::sync::OnceLock<Vec<u8>> = std::sync::OnceLock::new();
            let mut data = BYTES.get_or_init(own_executable)[..1 << 16].to_vec();
            for (at, byte) in edits {
                data[at] = byte;
            }
            data.truncate(cut.index(data.len()));
            exercise(&data);
        }
    }
}
