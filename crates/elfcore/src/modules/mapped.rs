//! Modules of NT_FILE: a file's mappings are one module, and so is what was mapped over them.

use goblin::elf::program_header::{PF_X, PT_LOAD};

use super::Segments;
use super::headers::{bias_of, build_id_in_memory, headers_in_memory, headers_of, range_of};
use crate::elf_header::ProgramHeader;
use crate::{Avma, CoreHead, Encoding, Mapping, Memory, Module, ModuleKind, ModuleRange};

/// What is left of an address without its place in a page: 4, 16 or 64 KiB on x86-64 and aarch64.
const PAGES: [u64; 3] = [!0xfff, !0x3fff, !0xffff];
/// Ranges that are added to one module.
const MAX_ADDED: usize = 256;
/// Files of unknown kind that are kept for the loader's list to name.
const MAX_UNDECIDED: usize = 4096;

/// The modules, and files that may be ELF files: the core holds too little of them to decide.
#[derive(Default)]
pub(super) struct Mapped {
    pub(super) modules: Vec<Module>,
    pub(super) undecided: Vec<Module>,
}

/// A module begins with a mapping of file offset 0 and goes on over later ones of the same path. In a file
/// smaller than a page (lld does not pad) every segment is mapped from offset 0: then the headers show whether a
/// mapping belongs to the module before it.
pub(super) fn find(head: &CoreHead, segments: &Segments<'_>, memory: &dyn Memory) -> Mapped {
    let mut groups: Vec<Vec<&Mapping>> = Vec::new();
    let encoding = head.machine().encoding();
    for mapping in head.mappings() {
        match groups.last_mut() {
            Some(group)
                if group.last().is_some_and(|last| last.path == mapping.path)
                    && (mapping.offset.0 != 0 || goes_on(memory, encoding, group, mapping)) =>
            {
                group.push(mapping);
            }
            _ => groups.push(vec![mapping]),
        }
    }
    let mut found = Mapped::default();
    for group in &groups {
        let module = || module_of(head, memory, group);
        match kind_of(segments, memory, group) {
            Kind::Elf => found.modules.extend(module()),
            Kind::Unknown if found.undecided.len() < MAX_UNDECIDED => {
                found.undecided.extend(module());
            }
            Kind::Unknown => {}
            Kind::Other => {}
        }
    }
    found
}

/// Whether the file that `group` begins with has a segment at `mapping` that starts on its first page, as
/// its own headers say. Another mapping of the same file may lie within its bounds: a program that reads its
/// own libraries (the backtrace of a Rust panic) has them mapped whole, just below where they run.
fn goes_on(memory: &dyn Memory, encoding: Encoding, group: &[&Mapping], mapping: &Mapping) -> bool {
    let is_segment = || {
        let start = group.first()?.start;
        // Both begin with the first page of the file: the core may hold only one of them.
        let headers = headers_in_memory(memory, encoding, start)
            .or_else(|| headers_in_memory(memory, encoding, mapping.start))?;
        let bias = bias_of(start, &headers)?;
        let on_page = |header: &ProgramHeader, page: u64| {
            let address = header.address.wrapping_add(bias);
            address & page == mapping.start.0 && header.offset & page == 0
        };
        let mut loads = headers.iter().filter(|header| header.kind == PT_LOAD);
        Some(loads.any(|header| PAGES.iter().any(|page| on_page(header, *page))))
    };
    is_segment().unwrap_or(false)
}

/// What a file is, as far as the core shows.
enum Kind {
    Elf,
    Other,
    Unknown,
}

fn kind_of(segments: &Segments<'_>, memory: &dyn Memory, group: &[&Mapping]) -> Kind {
    let first_pages = group.iter().filter(|mapping| mapping.offset.0 == 0);
    let magic = first_pages.take(2).find_map(|mapping| {
        let mut magic = [0; 4];
        (memory.read(mapping.start, &mut magic) == magic.len()).then_some(magic)
    });
    match magic {
        Some(magic) if magic == *b"\x7fELF" => return Kind::Elf,
        Some(_) => return Kind::Other,
        None => {}
    }
    // Not dumped, or a piece from the middle: only code makes it worth naming.
    let segment = |mapping: &&Mapping| segments.at(mapping.start);
    if group
        .iter()
        .filter_map(segment)
        .any(|found| found.flags & PF_X != 0)
    {
        return Kind::Elf;
    }
    // A core that lists only the memory that it holds says nothing of the other mappings.
    let starts_file = group.first().is_some_and(|first| first.offset.0 == 0);
    match starts_file && group.iter().any(|mapping| segment(mapping).is_none()) {
        // No data file is mapped in pieces that follow one another.
        true if group.len() > 1 => Kind::Elf,
        true => Kind::Unknown,
        false => Kind::Other,
    }
}

fn module_of(head: &CoreHead, memory: &dyn Memory, group: &[&Mapping]) -> Option<Module> {
    let first = group.first()?;
    let range = |mapping: &&Mapping| ModuleRange {
        start: mapping.start,
        end: mapping.end,
        offset: mapping.offset,
    };
    let ranges: Vec<_> = group.iter().map(range).collect();
    let encoding = head.machine().encoding();
    let starts_file = first.offset.0 == 0;
    let headers = starts_file
        .then(|| headers_of(memory, encoding, &ranges))
        .flatten();
    let bias = headers
        .as_ref()
        .and_then(|(headers, _)| bias_of(first.start, headers));
    let build_id = headers
        .as_ref()
        .zip(bias)
        .and_then(|((headers, copy), bias)| {
            build_id_in_memory(memory, encoding, headers, bias, Some(*copy))
        });
    let (path, deleted) = match first.path.strip_suffix(b" (deleted)") {
        Some(path) => (path.to_vec(), true),
        None => (first.path.clone(), false),
    };
    let mut module = Module {
        path,
        deleted,
        kind: ModuleKind::Library,
        ranges,
        build_id,
        bias,
    };
    if let Some(((headers, _), bias)) = headers.zip(bias) {
        add_code(head, &mut module, &headers, bias);
    }
    Some(module)
}

/// Adds the executable segments of `headers` that no file is mapped at: servers move their own text to
/// anonymous huge pages, which stays the program's text.
pub(super) fn add_code(head: &CoreHead, module: &mut Module, headers: &[ProgramHeader], bias: u64) {
    let code = headers
        .iter()
        .filter(|header| header.kind == PT_LOAD && header.flags & PF_X != 0);
    for code in code.filter_map(|header| range_of(header, bias)) {
        let covers = |range: &ModuleRange| range.start <= code.start && code.end <= range.end;
        if module.ranges.iter().any(covers) {
            continue;
        }
        for piece in without_mappings(head, module, code) {
            if module.ranges.len() < MAX_ADDED {
                module.ranges.push(piece);
            }
        }
    }
    module.ranges.sort_by_key(|range| range.start);
}

/// What is left of `code` where nothing else is mapped.
fn without_mappings(head: &CoreHead, module: &Module, code: ModuleRange) -> Vec<ModuleRange> {
    // They are in the order of their addresses, and real ones do not overlap.
    let mappings = head.mappings();
    let below = mappings.partition_point(|mapping| mapping.start < code.end);
    let mappings = mappings.get(..below).unwrap_or_default().iter().rev();
    let mut taken: Vec<(Avma, Avma)> = mappings
        .take_while(|mapping| code.start < mapping.end)
        .take(MAX_ADDED)
        .map(|mapping| (mapping.start, mapping.end))
        .chain(module.ranges.iter().map(|range| (range.start, range.end)))
        .filter(|(start, end)| *start < code.end && code.start < *end)
        .collect();
    taken.sort_unstable();
    let mut pieces = Vec::new();
    let mut at = code.start;
    for (start, end) in taken.into_iter().chain([(code.end, code.end)]) {
        if at < start && pieces.len() < MAX_ADDED {
            let inside = at.checked_sub(code.start).unwrap_or(0);
            pieces.extend(code.offset.checked_add(inside).map(|offset| ModuleRange {
                start: at,
                end: start,
                offset,
            }));
        }
        at = at.max(end);
    }
    pieces
}
