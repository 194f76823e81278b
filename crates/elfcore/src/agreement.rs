//! Compares a file with the module that a core shows at its addresses.
//!
//! A build-id is a claim that any file can make. The invariant: a file agrees only if machine, loaded
//! segments and every comparable page of it that the core holds are those of the process. What is not mapped
//! (symbol tables, DWARF) cannot be compared with a core: a digest recorded at the capture covers it.
//!
//! A page is comparable if nothing writes it in normal operation: its mapping is not writable in the core,
//! and the segments that the process itself had mapped do not make it writable (relocated data is read-only
//! after `PT_GNU_RELRO`, but was written). The program headers of the *process* decide, not those of the
//! file: a hostile file could call all of its segments writable. Some differences are legitimate:
//!
//! - `strip` changes the section header fields of the ELF header; they are not compared.
//! - Debuggers and tracers patch single instructions (breakpoints, hooks): up to [`PATCH`] bytes in a page,
//!   in up to one page of [`PATCHED_SHARE`]. The result counts them, so that the caller can show them. ELF
//!   header and program headers must be equal.
//! - Text relocations (`DT_TEXTREL` in the process's own dynamic section) rewrite code anywhere.
//! - Code that was remapped to huge pages is the module's: it is compared like any other. Generated code is
//!   in no module.
//! - A page of zeros in the core is what a reader leaves that could not read the page: it proves nothing.

use goblin::elf::dynamic::{DF_TEXTREL, DT_FLAGS, DT_TEXTREL};
use goblin::elf::program_header::{PF_W, PT_DYNAMIC, PT_LOAD};

use crate::elf_header::ProgramHeader;
use crate::modules::{headers_of, read_bytes};
use crate::{
    Avma, Class, CoreHead, ElfObject, Encoding, LoadSegment, Machine, Memory, Module, ModuleRange,
    Segment, Svma,
};

/// Bytes that are compared at once: the smallest page of any supported machine.
const PAGE: usize = 4096;
/// Bytes that are read at once: a multiple of [`PAGE`].
const CHUNK: usize = 64 << 10;
/// Bytes that a breakpoint or an inline hook changes in one page. A hook takes up to 16 bytes.
const PATCH: usize = 64;
/// Of so many comparable pages one may be patched.
const PATCHED_SHARE: u64 = 8;
/// Patched pages that are always tolerated: a small module has few pages.
const PATCHED_FREE: u64 = 2;
/// Fields of the ELF header about sections: `e_shoff`, and from `e_shentsize` on.
const WIDE_SECTION_FIELDS: [std::ops::Range<usize>; 2] = [40..48, 58..64];
const NARROW_SECTION_FIELDS: [std::ops::Range<usize>; 2] = [32..36, 46..52];
/// Entries of the auxiliary vector (`<elf.h>`).
const AT_PHDR: u64 = 3;
const AT_PHNUM: u64 = 5;
const AT_PAGESZ: u64 = 6;
const AT_ENTRY: u64 = 9;
/// Ranges and segments whose places are compared; real files have a dozen.
const MAX_RANGES: usize = 256;
/// Entries of a dynamic section that are looked at.
const MAX_DYNAMIC: u64 = 1024;

/// How much of a module was compared with its file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ComparedPages {
    /// Pages of 4 KiB that are equal.
    pub equal: u64,
    /// Pages with a few changed bytes: breakpoints and hooks, or text relocations.
    pub patched: u64,
}

/// Why a file is not the one that was mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Disagreement {
    /// It is for another processor architecture.
    #[error("the file is for {found}, the core is from {expected}")]
    Machine {
        /// Of the core.
        expected: Machine,
        /// Of the file.
        found: Machine,
    },
    /// Its loaded segments are not those that the process had.
    #[error("its program headers are not those in the core")]
    Headers,
    /// The process had another part of the file mapped where this segment belongs.
    #[error("its segment at file offset {offset:#x} is not where the process had it")]
    Segments {
        /// Where the segment is in the file.
        offset: u64,
    },
    /// The process had a part of the file mapped that the file does not have.
    #[error("it ends before file offset {offset:#x}, which was mapped")]
    Short {
        /// First offset that is missing.
        offset: u64,
    },
    /// Its contents are not those in the core.
    #[error("its contents at file offset {offset:#x} are not those in the core")]
    Contents {
        /// Offset of the first page that differs.
        offset: u64,
    },
}

/// Compares `object` with `module` in the core of `head`, whose memory is `memory`: every page of it that
/// `memory` holds and nothing writes.
///
/// # Errors
/// If the file cannot be the one that was mapped, with the first reason.
pub fn compare_module(
    head: &CoreHead,
    memory: &dyn Memory,
    module: &Module,
    object: &ElfObject<'_>,
) -> Result<ComparedPages, Disagreement> {
    let (expected, found) = (head.machine(), object.machine());
    if expected != found {
        return Err(Disagreement::Machine { expected, found });
    }
    let headers =
        headers_of(memory, expected.encoding(), &module.ranges).map(|(headers, _)| headers);
    if let Some(headers) = &headers
        && loads(headers) != loads(object.program_headers())
    {
        return Err(Disagreement::Headers);
    }
    if headers.is_none() {
        compare_layout(head, module, object)?;
    }
    // Without a list of mappings or headers, nothing relates addresses to offsets.
    if headers.is_none() && head.mappings().is_empty() {
        return Ok(ComparedPages::default());
    }
    let comparison = Comparison {
        head,
        memory,
        module,
        object,
        has_text_relocations: headers.as_deref().is_some_and(|headers| {
            has_text_relocations(memory, expected.encoding(), module, headers)
        }),
        headers: headers.as_deref().unwrap_or(object.program_headers()),
        page_size: head
            .aux(AT_PAGESZ)
            .filter(|size| size.is_power_of_two())
            .unwrap_or(PAGE as u64),
    };
    comparison.run()
}

/// Compares where the kernel and the loader put the module with what the file asks for, where the core does not
/// hold its headers.
fn compare_layout(
    head: &CoreHead,
    module: &Module,
    object: &ElfObject<'_>,
) -> Result<(), Disagreement> {
    let aux = |kind| head.aux(kind);
    let started = aux(AT_PHDR).is_some_and(|at| module.contains(Avma(at)));
    if started && aux(AT_PHNUM).is_some_and(|count| count != object.program_headers().len() as u64)
    {
        return Err(Disagreement::Headers);
    }
    // The loader moves a file by whole pages.
    let entry = aux(AT_ENTRY).filter(|at| started && module.contains(Avma(*at)));
    let is_moved_by_pages = |at: u64| {
        at.wrapping_sub(object.entry().0)
            .is_multiple_of(PAGE as u64)
    };
    if entry.is_some_and(|at| !is_moved_by_pages(at)) {
        return Err(Disagreement::Headers);
    }
    let bias = object.bias_in(module);
    let Some(bias) = bias.filter(|_| !head.mappings().is_empty()) else {
        return Ok(());
    };
    let loads = || {
        object
            .load_segments()
            .iter()
            .filter(|load| load.file_size > 0)
    };
    // Whether this range has the first byte of the segment.
    let is_mapped = |load: &LoadSegment, range: &ModuleRange| {
        let at = Avma(load.start.0.wrapping_add(bias));
        let inside = at.checked_sub(range.start).filter(|_| at < range.end);
        inside.and_then(|inside| range.offset.checked_add(inside)) == Some(load.offset)
    };
    let ranges = || module.ranges.iter().take(MAX_RANGES);
    let missing = loads().find(|load| !ranges().any(|range| is_mapped(load, range)));
    // Whether some segment of the file has the bytes of this range, at its address.
    let is_explained = |range: &ModuleRange| {
        let shift = range.start.0.wrapping_sub(range.offset.0);
        let end = range.end.0.wrapping_sub(shift);
        loads().take(MAX_RANGES).any(|load| {
            let load_end = load.offset.0.saturating_add(load.file_size);
            load.start.0.wrapping_add(bias).wrapping_sub(load.offset.0) == shift
                && range.offset.0 < load_end
                && load.offset.0 < end
        })
    };
    // Text that was moved to huge pages is mapped from nothing, and a program may map more of its file: only a
    // file with both differences is another one.
    match missing.filter(|_| !ranges().all(is_explained)) {
        Some(load) => Err(Disagreement::Segments {
            offset: load.offset.0,
        }),
        None => Ok(()),
    }
}

/// What the loader maps: address, size in memory, size in the file and permissions of each segment.
fn loads(headers: &[ProgramHeader]) -> Vec<[u64; 4]> {
    let loads = headers.iter().filter(|header| header.kind == PT_LOAD);
    let facts = loads.map(|load| {
        let flags = u64::from(load.flags);
        [load.address, load.memory_size, load.file_size, flags]
    });
    facts.collect()
}

/// Whether the process's own dynamic section says so: a hostile file would say it of itself.
fn has_text_relocations(
    memory: &dyn Memory,
    encoding: Encoding,
    module: &Module,
    headers: &[ProgramHeader],
) -> bool {
    let dynamic = headers.iter().find(|header| header.kind == PT_DYNAMIC);
    let Some((dynamic, bias)) = dynamic.zip(module.bias) else {
        return false;
    };
    let entry_size = encoding.word_size().saturating_mul(2);
    let count = dynamic.memory_size.checked_div(entry_size as u64);
    let count = count.unwrap_or(0).min(MAX_DYNAMIC);
    let start = Avma(dynamic.address.wrapping_add(bias));
    let size = usize::try_from(count)
        .unwrap_or(0)
        .saturating_mul(entry_size);
    let Some(table) = read_bytes(memory, start, size) else {
        return false;
    };
    table.chunks_exact(entry_size).any(|entry| {
        let (tag, value) = (encoding.nth_word(entry, 0), encoding.nth_word(entry, 1));
        tag == Some(DT_TEXTREL)
            || tag == Some(DT_FLAGS) && value.is_some_and(|flags| flags & DF_TEXTREL != 0)
    })
}

/// What one comparison looks at.
struct Comparison<'a> {
    head: &'a CoreHead,
    memory: &'a dyn Memory,
    module: &'a Module,
    object: &'a ElfObject<'a>,
    /// Of the process where they are known, else of the file.
    headers: &'a [ProgramHeader],
    has_text_relocations: bool,
    /// Of the machine that the core is from.
    page_size: u64,
}

impl Comparison<'_> {
    fn run(&self) -> Result<ComparedPages, Disagreement> {
        let mut pages = ComparedPages::default();
        let mut first_patched = None;
        let mut chunk = Vec::new();
        for range in &self.module.ranges {
            for segment in self.head.segments_in(range.start, range.end) {
                if segment.flags & PF_W == 0 {
                    chunk.resize(CHUNK, 0);
                    self.compare(range, segment, &mut chunk, &mut pages, &mut first_patched)?;
                }
            }
        }
        let all = pages.equal.saturating_add(pages.patched);
        let tolerated = (all / PATCHED_SHARE).max(PATCHED_FREE);
        match first_patched.filter(|_| pages.patched > tolerated && !self.has_text_relocations) {
            Some(offset) => Err(Disagreement::Contents { offset }),
            None => Ok(pages),
        }
    }

    /// Compares what `segment` holds of `range`, and reads nothing else.
    fn compare(
        &self,
        range: &ModuleRange,
        segment: &Segment,
        chunk: &mut [u8],
        pages: &mut ComparedPages,
        first_patched: &mut Option<u64>,
    ) -> Result<(), Disagreement> {
        let held_end = segment.start.0.saturating_add(segment.file_size);
        let mut at = segment.start.0.max(range.start.0);
        let end = held_end.min(range.end.0);
        while at < end {
            let wanted = usize::try_from(end.saturating_sub(at)).unwrap_or(CHUNK);
            let count = self.memory.read(
                Avma(at),
                chunk.get_mut(..wanted.min(CHUNK)).unwrap_or_default(),
            );
            let held = chunk.get(..count).unwrap_or_default();
            for (index, page) in held.chunks(PAGE).enumerate() {
                let address = at.saturating_add((index as u64).saturating_mul(PAGE as u64));
                let offset = address.saturating_sub(range.start.0);
                let offset = range.offset.0.saturating_add(offset);
                let unknown = page.iter().all(|byte| *byte == 0);
                if unknown || self.is_written(address, offset) {
                    continue;
                }
                if self.page_is_equal(Avma(address), page, offset)? {
                    pages.equal = pages.equal.saturating_add(1);
                } else {
                    pages.patched = pages.patched.saturating_add(1);
                    first_patched.get_or_insert(offset);
                }
            }
            // What cannot be read is unknown: the next chunk may be there.
            at = at.saturating_add(CHUNK as u64);
        }
        Ok(())
    }

    /// Whether the process could write this page: data, also where it was protected later.
    fn is_written(&self, address: u64, offset: u64) -> bool {
        let mask = self.page_size.wrapping_neg();
        let is_in = |start: u64, size: u64, at: u64| {
            let first = start & mask;
            let last = start.wrapping_add(size.saturating_sub(1)) & mask;
            (first..=last).contains(&(at & mask))
        };
        let mut written = self
            .headers
            .iter()
            .filter(|header| header.kind == PT_LOAD && header.flags & PF_W != 0);
        written.any(|header| match self.module.bias {
            Some(bias) => is_in(
                header.address,
                header.memory_size,
                address.wrapping_sub(bias),
            ),
            None => is_in(header.offset, header.file_size, offset),
        })
    }

    /// Whether a page is that of the file; not equal is one that was patched.
    fn page_is_equal(&self, at: Avma, page: &[u8], offset: u64) -> Result<bool, Disagreement> {
        let from = usize::try_from(offset).unwrap_or(usize::MAX);
        let Some(file) = self.object.data().get(from..) else {
            return Err(Disagreement::Short { offset });
        };
        let class = self.head.machine().encoding().class;
        let mut changed = differing(class, page, file, offset);
        // A copy of the file may have its segments at other offsets: then the address decides.
        if !changed.is_empty()
            && let Some(bias) = self.module.bias
            && let Some(bytes) = self.object.bytes_at(Svma(at.0.wrapping_sub(bias)))
            && let Some(held) = page.get(..page.len().min(bytes.len()))
        {
            let other = differing(class, held, bytes, offset);
            if other.len() < changed.len() {
                changed = other;
            }
        }
        let table = self
            .headers
            .len()
            .saturating_mul(class.program_header_size());
        let headers_end = class.header_size().saturating_add(table);
        let in_headers = offset == 0 && changed.iter().any(|at| *at < headers_end);
        let is_patch = changed.len() <= PATCH || self.has_text_relocations;
        match (changed.is_empty(), in_headers || !is_patch) {
            (true, _) => Ok(true),
            (false, true) => Err(Disagreement::Contents { offset }),
            (false, false) => Ok(false),
        }
    }
}

/// Which bytes of `page` are not those of `file`; what the file does not have reads as zeros. The section
/// header fields of the first page are not compared.
fn differing(class: Class, page: &[u8], file: &[u8], offset: u64) -> Vec<usize> {
    if file.get(..page.len()) == Some(page) {
        return Vec::new();
    }
    let section_fields = match class {
        Class::Narrow => NARROW_SECTION_FIELDS,
        Class::Wide => WIDE_SECTION_FIELDS,
    };
    let is_counted = |index: usize| {
        let is_section_field = section_fields.iter().any(|field| field.contains(&index));
        offset != 0 || !is_section_field
    };
    let pairs = page.iter().zip(file.iter().chain(std::iter::repeat(&0)));
    let differs = |(index, (held, stated)): (usize, (&u8, &u8))| {
        (held != stated && is_counted(index)).then_some(index)
    };
    pairs.enumerate().filter_map(differs).collect()
}
