//! The head of a core: ELF header, program headers and notes, which is all that is known before memory.
//!
//! The kernel writes it in one piece (`elf_core_dump` in `fs/binfmt_elf.c`):
//!
//! ```text
//! ELF header | PT_NOTE, PT_LOAD … | notes | padding | memory … | section header 0, only for PN_XNUM
//! ```

mod notes;
mod promised;

use std::io::Read;
use std::ops::Range;

use goblin::elf::header::ET_CORE;
use goblin::elf::program_header::{PT_LOAD, PT_NOTE};

use crate::elf_header::{
    ElfHeader, HEADER_SIZE, NotOurs, PN_XNUM, PROGRAM_HEADER_SIZE, ProgramHeader,
};
use crate::foreign::ForeignSystem;
use crate::note::CoreNotes;
use crate::{
    Avma, ByteSource, Class, Completeness, FileOffset, Machine, Mapping, Memory, Module,
    ProcessInfo, SegmentState, SignalInfo, StackState, Thread, modules,
};

pub use promised::promised_len;

/// Notes above this size are not trusted: 32,768 threads with AVX-512 state need about 100 MiB.
const MAX_NOTES: u64 = 256 << 20;
/// Program headers above this count are not trusted: `vm.max_map_count` rarely exceeds one million.
const MAX_PROGRAM_HEADERS: u64 = 4 << 20;
/// The most that may stand between the ELF header and the program headers in a stream.
const MAX_HEADER_GAP: u64 = 64 << 10;
/// Size of `Elf64_Shdr`, bytes.
const SECTION_HEADER_SIZE: u64 = 64;
/// `EI_OSABI` of FreeBSD's files.
const ELFOSABI_FREEBSD: u8 = 9;
/// By which a debugger stops a process.
const SIGTRAP: i32 = 5;
const SIGSTOP: i32 = 19;

/// Why bytes cannot be read as a core.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CoreError {
    /// Nothing there.
    #[error("the file is empty")]
    Empty,
    /// No ELF magic.
    #[error("not an ELF file")]
    NotElf,
    /// ELF, but `e_type` is not ET_CORE.
    #[error("an ELF {kind}, not a core")]
    NotCore {
        /// `executable`, `shared object`, `object file`, `file of type N`.
        kind: String,
    },
    /// Of a machine whose cores are not read.
    #[error("{found} cores are not supported")]
    Unsupported {
        /// `big-endian s390x`, `32-bit mips`.
        found: String,
    },
    /// Of another system than a Linux process.
    #[error("{what}, not a core of a Linux process: not supported")]
    Foreign {
        /// `a core of FreeBSD`, `memory of a virtual machine (QEMU)`.
        what: &'static str,
        /// The program that opens it.
        opener: &'static str,
    },
    /// The head itself is cut off.
    #[error("the core ends after {found} bytes, inside its {part}")]
    HeadTruncated {
        /// `ELF header`, `program headers`, `notes`.
        part: &'static str,
        /// Bytes that are there.
        found: u64,
    },
    /// A count or offset that cannot be true.
    #[error("the {part} of the core are not valid: {problem}")]
    Malformed {
        /// Which part.
        part: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// The source failed.
    #[error("cannot read the core")]
    Io(#[from] std::io::Error),
}

/// One `PT_LOAD` program header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Address in the process.
    pub start: Avma,
    /// Size in memory, bytes.
    pub memory_size: u64,
    /// Where its bytes are in the core.
    pub offset: FileOffset,
    /// How many bytes the kernel meant to write (less than `memory_size` where it filtered pages).
    pub file_size: u64,
    /// `PF_X` 1, `PF_W` 2, `PF_R` 4.
    pub flags: u32,
}

impl Segment {
    /// Whether `at` lies in the segment, dumped or not.
    #[must_use]
    pub fn contains(&self, at: Avma) -> bool {
        at.checked_sub(self.start)
            .is_some_and(|distance| distance < self.memory_size)
    }

    /// The address behind its memory.
    fn end(&self) -> Avma {
        Avma(self.start.0.saturating_add(self.memory_size))
    }

    /// Bytes of the segment that exist in a core of `found` bytes.
    #[must_use]
    pub fn stored_in(&self, found: u64) -> u64 {
        self.file_size.min(found.saturating_sub(self.offset.0))
    }
}

/// The bytes of one `PT_NOTE`, with its alignment.
#[derive(Clone, Debug)]
struct NoteSegment {
    bytes: NoteBytes,
    align: u64,
}

#[derive(Clone, Debug)]
enum NoteBytes {
    /// Part of the raw head.
    Head(Range<usize>),
    /// Somewhere else in the core.
    Apart(Vec<u8>),
}

/// Everything before the memory of a core.
#[derive(Clone, Debug)]
pub struct CoreHead {
    raw: Vec<u8>,
    machine: Machine,
    segments: Vec<Segment>,
    /// Whether they are in the order of their addresses and do not overlap, as the kernel writes them.
    has_ordered_segments: bool,
    note_segments: Vec<NoteSegment>,
    notes: CoreNotes,
    expected_len: u64,
    program_headers: u64,
    has_section_header: bool,
    other_contents: Option<u32>,
}

impl CoreHead {
    /// Reads exactly the head from a stream, such as the pipe the kernel writes: not one byte more.
    ///
    /// What was read before an error is gone: a caller that wants to keep it reads through a
    /// recorder of its own.
    ///
    /// # Errors
    /// If it is not a supported core, or ends inside the head.
    pub fn from_reader(stream: &mut impl Read) -> Result<Self, CoreError> {
        let mut raw = Vec::new();
        let header_size = HEADER_SIZE as u64;
        read_up_to(stream, &mut raw, header_size)?;
        let header = check_header(&raw, ElfHeader::parse)?;
        let table = header.program_headers;
        if !(header_size..=header_size.saturating_add(MAX_HEADER_GAP)).contains(&table) {
            return Err(malformed(
                "program headers",
                format!("they start at byte {table}"),
            ));
        }
        let first_end = table.saturating_add(PROGRAM_HEADER_SIZE as u64);
        if header.program_header_count > 0 {
            read_to(stream, &mut raw, first_end, "program headers")?;
        }
        let count = match header.program_header_count {
            PN_XNUM => count_from_first(&raw, &header)?,
            count => u64::from(count),
        };
        read_to(
            stream,
            &mut raw,
            table_end(&header, count)?,
            "program headers",
        )?;
        let headers = parse_table(&raw, &header, count)?;
        let notes = || headers.iter().filter(|header| header.kind == PT_NOTE);
        let notes_end = notes()
            .map(|note| note.offset.checked_add(note.file_size))
            .try_fold(0, |end, note| Some(end.max(note?)))
            .filter(|end| *end <= MAX_NOTES.saturating_add(raw.len() as u64))
            .ok_or_else(|| malformed("notes", "they are too large or too far away".to_owned()))?;
        read_to(stream, &mut raw, notes_end, "notes")?;
        let segments = notes()
            .filter_map(|note| {
                let start = usize::try_from(note.offset).ok()?;
                let end = start.checked_add(usize::try_from(note.file_size).ok()?)?;
                Some(NoteSegment {
                    bytes: NoteBytes::Head(start..end),
                    align: note.align,
                })
            })
            .collect();
        Ok(Self::assemble(raw, &header, &headers, segments))
    }

    /// Reads the head of a complete core. More lenient than `from_reader`: notes cut off in the middle
    /// give what they hold. Of many notes only those are kept that are read here.
    ///
    /// # Errors
    /// If it is not a supported core.
    pub fn from_source(source: &dyn ByteSource) -> Result<Self, CoreError> {
        let start = read_range(source, 0, HEADER_SIZE as u64)?;
        let header = check_header(&start, ElfHeader::parse_any)?;
        let count = match header.program_header_count {
            PN_XNUM => {
                let table = read_range(source, 0, table_end(&header, 1)?)?;
                count_from_section(source, &header)
                    .map_or_else(|| count_from_first(&table, &header), Ok)?
            }
            count => u64::from(count),
        };
        let table_end = table_end(&header, count)?;
        if table_end > source.len() {
            return Err(CoreError::HeadTruncated {
                part: "program headers",
                found: source.len(),
            });
        }
        let raw = read_range(source, 0, table_end)?;
        let headers = parse_table(&raw, &header, count)?;
        let mut segments = Vec::new();
        let mut budget = MAX_NOTES;
        for note in headers.iter().filter(|header| header.kind == PT_NOTE) {
            let bytes = notes::read_notes(source, header.machine, note, budget)?;
            budget = budget.saturating_sub(bytes.len() as u64);
            segments.push(NoteSegment {
                bytes: NoteBytes::Apart(bytes),
                align: note.align,
            });
        }
        let head = Self::assemble(raw, &header, &headers, segments);
        let is_freebsd = start.get(7) == Some(&ELFOSABI_FREEBSD);
        match ForeignSystem::of(head.note_bytes(), is_freebsd, header.encoding) {
            Some(system) => Err(system.into()),
            None => Ok(head),
        }
    }

    fn assemble(
        raw: Vec<u8>,
        header: &ElfHeader,
        headers: &[ProgramHeader],
        note_segments: Vec<NoteSegment>,
    ) -> Self {
        let machine = header.machine;
        let load = |header: &&ProgramHeader| header.kind == PT_LOAD;
        let segments = headers.iter().filter(load).map(|header| Segment {
            start: Avma(header.address),
            memory_size: header.memory_size,
            offset: FileOffset(header.offset),
            file_size: header.file_size,
            flags: header.flags,
        });
        let segments: Vec<Segment> = segments.collect();
        let has_ordered_segments = segments.is_sorted_by(|a, b| a.end() <= b.start);
        let promised = headers
            .iter()
            .map(|header| header.offset.saturating_add(header.file_size));
        let mut expected_len = promised.max().unwrap_or(0).max(raw.len() as u64);
        let has_section_header =
            header.program_header_count == PN_XNUM && header.section_headers > 0;
        if has_section_header {
            let section_end = header.section_headers.saturating_add(SECTION_HEADER_SIZE);
            expected_len = expected_len.max(section_end);
        }
        let notes = CoreNotes::default();
        let mut head = Self {
            raw,
            machine,
            segments,
            has_ordered_segments,
            note_segments,
            notes,
            expected_len,
            program_headers: headers.len() as u64,
            has_section_header,
            other_contents: headers
                .iter()
                .find(|header| !matches!(header.kind, PT_LOAD | PT_NOTE) && header.file_size > 0)
                .map(|header| header.kind),
        };
        let mut notes = CoreNotes::default();
        for (data, align) in head.note_bytes() {
            notes.add(data, align, machine);
        }
        let highest = head.segments.iter().map(|segment| segment.end().0).max();
        notes.widen_addresses(highest.unwrap_or(0));
        notes.put_crashed_first();
        head.notes = notes;
        head
    }

    /// Bytes and alignment of every `PT_NOTE`.
    pub(crate) fn note_bytes(&self) -> impl Iterator<Item = (&[u8], u64)> {
        self.note_segments
            .iter()
            .filter_map(|segment| match &segment.bytes {
                NoteBytes::Head(range) => Some((self.raw.get(range.clone())?, segment.align)),
                NoteBytes::Apart(bytes) => Some((bytes.as_slice(), segment.align)),
            })
    }

    /// The bytes of the head, from offset 0 of the core on, as they were read; from `from_source`
    /// without the notes.
    #[must_use]
    pub fn raw(&self) -> &[u8] {
        &self.raw
    }

    /// Processor architecture.
    #[must_use]
    pub fn machine(&self) -> Machine {
        self.machine
    }

    /// `PT_LOAD` segments in the order of the program headers.
    #[must_use]
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// Segments with memory from `start` up to `end`. A process may have more than a hundred thousand mappings, and
    /// as many files, so a lookup of one of them must not visit all.
    pub(crate) fn segments_in(&self, start: Avma, end: Avma) -> impl Iterator<Item = &Segment> {
        let first = match self.has_ordered_segments {
            true => self
                .segments
                .partition_point(|segment| segment.end() <= start),
            false => 0,
        };
        let is_ordered = self.has_ordered_segments;
        let rest = self.segments.get(first..).unwrap_or_default().iter();
        rest.take_while(move |segment| !is_ordered || segment.start < end)
            .filter(move |segment| segment.start < end && segment.end() > start)
    }

    /// Threads in note order, as the kernel writes them: the crashing thread first, where it is known.
    #[must_use]
    pub fn threads(&self) -> &[Thread] {
        &self.notes.threads
    }

    /// Whether the first thread is the one that crashed, and the core says so. A core of a process that was
    /// alive has none, and some writers do not record it.
    #[must_use]
    pub fn knows_crashed_thread(&self) -> bool {
        self.signal().is_some() && self.notes.marks_crashed_thread()
    }

    /// `NT_PRPSINFO`.
    #[must_use]
    pub fn process(&self) -> Option<&ProcessInfo> {
        self.notes.process.as_ref()
    }

    /// `NT_SIGINFO`, else the signal of the first NT_PRSTATUS.
    #[must_use]
    pub fn signal(&self) -> Option<SignalInfo> {
        let from_thread = || {
            let number = self
                .notes
                .threads
                .first()
                .map(|thread| i32::from(thread.signal));
            number
                .filter(|number| *number != 0)
                .map(SignalInfo::from_number)
        };
        let stopped = |signal: &SignalInfo| {
            // A debugger stopped the process to write its core.
            let of_debugger = matches!(signal.number, SIGTRAP | SIGSTOP);
            of_debugger && self.notes.threads.iter().all(|thread| thread.signal == 0)
        };
        let stated = self.notes.signal.filter(|signal| !stopped(signal));
        stated.or_else(from_thread)
    }

    /// `NT_AUXV` as (type, value) pairs up to AT_NULL.
    #[must_use]
    pub fn auxv(&self) -> &[(u64, u64)] {
        &self.notes.auxv
    }

    /// Value of one auxiliary vector entry (`getauxval(3)`), such as `AT_PHDR` 3, `AT_SYSINFO_EHDR` 33.
    #[must_use]
    pub fn aux(&self, kind: u64) -> Option<u64> {
        self.auxv()
            .iter()
            .find(|(found, _)| *found == kind)
            .map(|(_, value)| *value)
    }

    /// `NT_FILE`, in address order.
    #[must_use]
    pub fn mappings(&self) -> &[Mapping] {
        &self.notes.mappings
    }

    /// Length in bytes of the complete core, as its headers promise: `max(p_offset + p_filesz)`, and the
    /// section header that the kernel adds behind the memory of cores with PN_XNUM.
    #[must_use]
    pub fn expected_len(&self) -> u64 {
        self.expected_len
    }

    /// Type of the first program header that has bytes in the core and is neither memory nor notes,
    /// such as `PT_AARCH64_MEMTAG_MTE`.
    #[must_use]
    pub fn other_contents(&self) -> Option<u32> {
        self.other_contents
    }

    /// Section header 0 as the kernel writes it behind the memory of a core with PN_XNUM
    /// (`fill_extnum_info` in `fs/binfmt_elf.c`): `sh_size` 1, the number of program headers in
    /// `sh_info`. `None` for other cores.
    #[must_use]
    pub fn extended_section_header(&self) -> Option<[u8; SECTION_HEADER_SIZE as usize]> {
        let count = u32::try_from(self.program_headers).ok()?;
        let mut section = [0; SECTION_HEADER_SIZE as usize];
        section
            .get_mut(32..40)?
            .copy_from_slice(&1_u64.to_le_bytes());
        section
            .get_mut(44..48)?
            .copy_from_slice(&count.to_le_bytes());
        self.has_section_header.then_some(section)
    }

    /// Which part of a core is in its first `found` bytes.
    #[must_use]
    pub fn completeness(&self, found: u64) -> Completeness {
        let segments = self.segments.iter().filter(|segment| segment.file_size > 0);
        let state = |segment: &Segment| SegmentState {
            start: segment.start,
            expected: segment.file_size,
            found: segment.stored_in(found),
        };
        // Each of many threads has a segment of its own.
        let mut by_address: Vec<&Segment> = self.segments.iter().collect();
        by_address.sort_by_key(|segment| segment.start);
        Completeness {
            expected: self.expected_len,
            found,
            segments: segments.map(state).collect(),
            stacks: self
                .threads()
                .iter()
                .map(|thread| Self::stack_state(thread, &by_address, found))
                .collect(),
        }
    }

    fn stack_state(thread: &Thread, by_address: &[&Segment], found: u64) -> StackState {
        let sp = thread.registers.sp();
        let holder = sp.and_then(|sp| {
            let after = by_address.partition_point(|segment| segment.start <= sp);
            let segment = by_address.get(after.checked_sub(1)?)?;
            segment.contains(sp).then_some(segment)
        });
        let (expected, stored) = match (sp, holder) {
            (Some(sp), Some(segment)) => {
                let below = sp.checked_sub(segment.start).unwrap_or(0);
                let above = |size: u64| size.saturating_sub(below);
                (above(segment.file_size), above(segment.stored_in(found)))
            }
            _ => (0, 0),
        };
        StackState {
            tid: thread.tid,
            expected,
            found: stored,
        }
    }

    /// Modules (mapped ELF files and the vdso), in address order, with build-ids as far as `memory`
    /// holds the pages. Without NT_FILE: from the link map (AT_PHDR, DT_DEBUG).
    #[must_use]
    pub fn modules(&self, memory: &dyn Memory) -> Vec<Module> {
        modules::find(self, memory)
    }
}

fn malformed(part: &'static str, problem: String) -> CoreError {
    CoreError::Malformed { part, problem }
}

fn check_header(
    raw: &[u8],
    parse: fn(&[u8]) -> Result<ElfHeader, NotOurs>,
) -> Result<ElfHeader, CoreError> {
    if raw.is_empty() {
        return Err(CoreError::Empty);
    }
    let header = parse(raw).map_err(|problem| match problem {
        NotOurs::NotElf => CoreError::NotElf,
        NotOurs::Unsupported(found) => CoreError::Unsupported { found },
        NotOurs::Short => CoreError::HeadTruncated {
            part: "ELF header",
            found: raw.len() as u64,
        },
    })?;
    let kind = match header.kind {
        ET_CORE => return check_entry_size(header),
        1 => "object file".to_owned(),
        2 => "executable".to_owned(),
        3 => "shared object".to_owned(),
        other => format!("file of type {other}"),
    };
    Err(CoreError::NotCore { kind })
}

fn check_entry_size(header: ElfHeader) -> Result<ElfHeader, CoreError> {
    let size = usize::from(header.program_header_size);
    let expected = header.encoding.class.program_header_size();
    if size == expected || header.program_header_count == 0 {
        return Ok(header);
    }
    Err(malformed(
        "program headers",
        format!("one has {size} bytes instead of {expected}"),
    ))
}

/// Where a table of `count` program headers ends.
fn table_end(header: &ElfHeader, count: u64) -> Result<u64, CoreError> {
    let end = count
        .checked_mul(header.encoding.class.program_header_size() as u64)
        .filter(|_| count <= MAX_PROGRAM_HEADERS)
        .and_then(|size| size.checked_add(header.program_headers));
    end.ok_or_else(|| malformed("program headers", format!("there are {count} of them")))
}

fn parse_table(
    raw: &[u8],
    header: &ElfHeader,
    count: u64,
) -> Result<Vec<ProgramHeader>, CoreError> {
    let end = usize::try_from(table_end(header, count)?).ok();
    let start = usize::try_from(header.program_headers).ok();
    let table = start.zip(end).and_then(|(start, end)| raw.get(start..end));
    let found = raw.len() as u64;
    let table = table.ok_or(CoreError::HeadTruncated {
        part: "program headers",
        found,
    })?;
    Ok(ProgramHeader::parse_table(header.encoding, table))
}

/// The kernel puts the notes right behind the program headers, so that the first of these, `PT_NOTE`, gives their
/// number before section header 0 has arrived.
fn count_from_first(raw: &[u8], header: &ElfHeader) -> Result<u64, CoreError> {
    let start = usize::try_from(header.program_headers).ok();
    let first = start.and_then(|start| raw.get(start..));
    count_from_entry(first.unwrap_or_default(), header)
}

/// The same from the bytes of the first program header.
fn count_from_entry(first: &[u8], header: &ElfHeader) -> Result<u64, CoreError> {
    ProgramHeader::parse(header.encoding, first)
        .filter(|first| first.kind == PT_NOTE)
        .and_then(|first| first.offset.checked_sub(header.program_headers))
        .and_then(|size| size.checked_div(header.encoding.class.program_header_size() as u64))
        .filter(|count| *count >= u64::from(PN_XNUM))
        .ok_or_else(|| malformed("program headers", "their number is not known".to_owned()))
}

/// `sh_info` of section header 0 holds the number of program headers (elf(5), PN_XNUM).
fn count_from_section(source: &dyn ByteSource, header: &ElfHeader) -> Option<u64> {
    let info = match header.encoding.class {
        Class::Narrow => 28,
        Class::Wide => 44,
    };
    let section = read_range(source, header.section_headers, SECTION_HEADER_SIZE).ok()?;
    header
        .encoding
        .u32_at(&section, info)
        .map(u64::from)
        .filter(|count| *count >= u64::from(PN_XNUM))
}

/// Appends what the stream gives until `raw` has `end` bytes. Memory grows with what arrives, not
/// with what a header claims.
fn read_up_to(stream: &mut impl Read, raw: &mut Vec<u8>, end: u64) -> Result<(), CoreError> {
    let missing = end.saturating_sub(raw.len() as u64);
    stream.by_ref().take(missing).read_to_end(raw)?;
    Ok(())
}

fn read_to(
    stream: &mut impl Read,
    raw: &mut Vec<u8>,
    end: u64,
    part: &'static str,
) -> Result<(), CoreError> {
    read_up_to(stream, raw, end)?;
    let found = raw.len() as u64;
    if found < end {
        Err(CoreError::HeadTruncated { part, found })
    } else {
        Ok(())
    }
}

/// Up to `len` bytes at `offset`, fewer at the end of the source.
fn read_range(source: &dyn ByteSource, offset: u64, len: u64) -> Result<Vec<u8>, CoreError> {
    let there = len.min(source.len().saturating_sub(offset));
    let size = usize::try_from(there)
        .map_err(|_| malformed("notes", "they do not fit into memory".to_owned()))?;
    let mut bytes = vec![0; size];
    let count = source.read_at(offset, &mut bytes)?;
    bytes.truncate(count);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An x86_64 core with `PT_LOAD` segments at these addresses, of 0x1000 bytes each.
    fn core(starts: &[u64]) -> CoreHead {
        let mut bytes = vec![0_u8; 64 + 56 * starts.len()];
        bytes[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
        bytes[16..20].copy_from_slice(&[4, 0, 62, 0]); // ET_CORE, EM_X86_64
        bytes[32] = 64; // e_phoff
        bytes[52..58].copy_from_slice(&[64, 0, 56, 0, starts.len() as u8, 0]);
        for (index, start) in starts.iter().enumerate() {
            let at = 64 + 56 * index;
            bytes[at] = 1; // PT_LOAD
            bytes[at + 16..at + 24].copy_from_slice(&start.to_le_bytes());
            bytes[at + 40..at + 48].copy_from_slice(&0x1000_u64.to_le_bytes());
        }
        CoreHead::from_source(&bytes).unwrap()
    }

    #[test]
    fn segments_in_a_range_are_found_in_any_order() {
        let ordered = [0x1000, 0x2000, 0x5000, 0x9000];
        let unordered = [0x9000, 0x2000, 0x1000, 0x5000];
        for starts in [ordered, unordered] {
            let head = core(&starts);
            for (start, end, expected) in [
                (0x1000, 0x3000, &[0x1000, 0x2000][..]),
                (0x1fff, 0x2001, &[0x1000, 0x2000]),
                (0x3000, 0x5000, &[]),
                (0x5800, 0x5900, &[0x5000]),
                (0, u64::MAX, &[0x1000, 0x2000, 0x5000, 0x9000]),
            ] {
                let found = head.segments_in(Avma(start), Avma(end));
                let mut found: Vec<_> = found.map(|segment| segment.start.0).collect();
                found.sort_unstable();
                assert_eq!(found, expected, "{start:#x} to {end:#x} of {starts:x?}");
            }
        }
    }
}
