//! Finds the ELF files that were mapped: from NT_FILE, else from the dynamic loader's list in memory.

use goblin::elf::program_header::{PT_DYNAMIC, PT_LOAD, PT_NOTE, PT_PHDR};

use crate::bytes::u64_at;
use crate::elf_header::{ElfHeader, PN_XNUM, PROGRAM_HEADER_SIZE, ProgramHeader};
use crate::note::find_build_id;
use crate::{
    Avma, BuildId, CoreHead, FileOffset, Mapping, Memory, Module, ModuleKind, ModuleRange,
};

const AT_PHDR: u64 = 3;
const AT_PHNUM: u64 = 5;
const AT_BASE: u64 = 7;
const AT_ENTRY: u64 = 9;
const AT_EXECFN: u64 = 31;
const AT_SYSINFO_EHDR: u64 = 33;
const DT_NULL: u64 = 0;
const DT_DEBUG: u64 = 21;
const PF_X: u32 = 1;

/// What is left of an address without its place in a page: 4, 16 or 64 KiB on x86-64 and aarch64.
const PAGES: [u64; 3] = [!0xfff, !0x3fff, !0xffff];

/// Bounds for what hostile memory may claim.
const MAX_PROGRAM_HEADERS: u16 = 1024;
const MAX_NOTE: u64 = 64 << 10;
const MAX_LINK_MAP: usize = 16_384;
const MAX_DYNAMIC: usize = 1024;
const MAX_PATH: usize = 4096;

pub(crate) fn find(head: &CoreHead, memory: &dyn Memory) -> Vec<Module> {
    let mut modules = from_mappings(head, memory);
    if modules.is_empty() {
        modules = from_link_map(head, memory);
    }
    if modules.is_empty() {
        modules.extend(from_auxiliary_vector(head, memory));
    }
    modules.extend(vdso(head, memory));
    modules.sort_by_key(Module::start);
    for module in &mut modules {
        if module.kind == ModuleKind::Library {
            module.kind = kind_of(head, module);
        }
    }
    modules
}

fn kind_of(head: &CoreHead, module: &Module) -> ModuleKind {
    let holds = |kind| head.aux(kind).is_some_and(|at| module.contains(Avma(at)));
    if holds(AT_PHDR) || holds(AT_ENTRY) {
        ModuleKind::Executable
    } else if head
        .aux(AT_BASE)
        .is_some_and(|base| base == module.start().0 && base != 0)
    {
        ModuleKind::Loader
    } else {
        ModuleKind::Library
    }
}

/// A module begins with a mapping of file offset 0 and goes on over later ones of the same path. In a file
/// smaller than a page (lld does not pad) every segment is mapped from offset 0: then the headers tell
/// whether a mapping belongs to the module before it.
fn from_mappings(head: &CoreHead, memory: &dyn Memory) -> Vec<Module> {
    let mut groups: Vec<Vec<&Mapping>> = Vec::new();
    for mapping in head.mappings() {
        match groups.last_mut() {
            Some(group)
                if group.last().is_some_and(|last| last.path == mapping.path)
                    && (mapping.offset.0 != 0 || goes_on(memory, group, mapping)) =>
            {
                group.push(mapping);
            }
            _ => groups.push(vec![mapping]),
        }
    }
    groups
        .iter()
        .filter_map(|group| module_of(head, memory, group))
        .collect()
}

/// Whether the file that `group` begins with has a segment at `mapping` that starts on its first page, as
/// its own headers say. Another mapping of the same file may lie within its bounds: a program that reads its
/// own libraries (the backtrace of a Rust panic) has them mapped whole, just below where they run.
fn goes_on(memory: &dyn Memory, group: &[&Mapping], mapping: &Mapping) -> bool {
    let is_segment = || {
        let start = group.first()?.start;
        let headers = headers_in_memory(memory, start)?;
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

fn module_of(head: &CoreHead, memory: &dyn Memory, group: &[&Mapping]) -> Option<Module> {
    let first = group.first()?;
    let mut magic = [0; 4];
    let at_start = first.offset.0 == 0;
    let is_elf = match memory.read(first.start, &mut magic) {
        4 if at_start => magic == *b"\x7fELF",
        // Not dumped, or a piece from the middle: only code makes it worth naming.
        _ => group.iter().any(|mapping| is_code(head, mapping)),
    };
    if !is_elf {
        return None;
    }
    let headers = if at_start {
        headers_in_memory(memory, first.start)
    } else {
        None
    };
    let bias = headers
        .as_deref()
        .and_then(|headers| bias_of(first.start, headers));
    let build_id = headers
        .as_deref()
        .zip(bias)
        .and_then(|(headers, bias)| build_id_in_memory(memory, headers, bias));
    let (path, deleted) = match first.path.strip_suffix(b" (deleted)") {
        Some(path) => (path.to_vec(), true),
        None => (first.path.clone(), false),
    };
    let range = |mapping: &&Mapping| ModuleRange {
        start: mapping.start,
        end: mapping.end,
        offset: mapping.offset,
    };
    let ranges = group.iter().map(range).collect();
    Some(Module {
        path,
        deleted,
        kind: ModuleKind::Library,
        ranges,
        build_id,
        bias,
    })
}

fn is_code(head: &CoreHead, mapping: &Mapping) -> bool {
    let covers = |segment: &crate::Segment| segment.contains(mapping.start);
    head.segments()
        .iter()
        .any(|segment| segment.flags & PF_X != 0 && covers(segment))
}

/// The program headers of the ELF image at `start`, as far as the page was dumped.
pub(crate) fn headers_in_memory(memory: &dyn Memory, start: Avma) -> Option<Vec<ProgramHeader>> {
    let mut bytes = [0; crate::elf_header::HEADER_SIZE];
    if memory.read(start, &mut bytes) != bytes.len() {
        return None;
    }
    let header = ElfHeader::parse(&bytes).ok()?;
    if header.program_header_count == PN_XNUM
        || usize::from(header.program_header_size) != PROGRAM_HEADER_SIZE
    {
        return None;
    }
    read_headers(
        memory,
        start.checked_add(header.program_headers)?,
        header.program_header_count,
    )
}

fn read_headers(memory: &dyn Memory, at: Avma, count: u16) -> Option<Vec<ProgramHeader>> {
    let count = usize::from(count.min(MAX_PROGRAM_HEADERS));
    let table = read_bytes(memory, at, count.checked_mul(PROGRAM_HEADER_SIZE)?)?;
    Some(ProgramHeader::parse_all(&table).collect())
}

/// All `len` bytes at `at`, or nothing.
pub(crate) fn read_bytes(memory: &dyn Memory, at: Avma, len: usize) -> Option<Vec<u8>> {
    let mut bytes = vec![0; len];
    (memory.read(at, &mut bytes) == len).then_some(bytes)
}

/// `avma - svma`, given that file offset 0 is mapped at `start`.
fn bias_of(start: Avma, headers: &[ProgramHeader]) -> Option<u64> {
    let first = headers.iter().find(|header| header.kind == PT_LOAD)?;
    Some(
        start
            .0
            .wrapping_sub(first.address.wrapping_sub(first.offset)),
    )
}

fn build_id_in_memory(
    memory: &dyn Memory,
    headers: &[ProgramHeader],
    bias: u64,
) -> Option<BuildId> {
    headers
        .iter()
        .filter(|header| header.kind == PT_NOTE)
        .find_map(|note| {
            let size = usize::try_from(note.file_size.min(MAX_NOTE)).ok()?;
            let bytes = read_bytes(memory, Avma(note.address.wrapping_add(bias)), size)?;
            find_build_id(&bytes, note.align)
        })
}

/// The kernel's vdso lies whole in the core, from AT_SYSINFO_EHDR to the end of its segment.
fn vdso(head: &CoreHead, memory: &dyn Memory) -> Option<Module> {
    let start = Avma(head.aux(AT_SYSINFO_EHDR)?);
    let segment = head
        .segments()
        .iter()
        .find(|segment| segment.contains(start))?;
    let end = segment.start.checked_add(segment.memory_size)?;
    let headers = headers_in_memory(memory, start);
    let bias = headers
        .as_deref()
        .and_then(|headers| bias_of(start, headers));
    let build_id = headers
        .as_deref()
        .zip(bias)
        .and_then(|(headers, bias)| build_id_in_memory(memory, headers, bias));
    Some(Module {
        path: b"[vdso]".to_vec(),
        deleted: false,
        kind: ModuleKind::Vdso,
        ranges: vec![ModuleRange {
            start,
            end,
            offset: FileOffset(0),
        }],
        build_id,
        bias,
    })
}

/// Walks AT_PHDR → PT_DYNAMIC → DT_DEBUG → `struct r_debug` → `struct link_map` (`<link.h>`).
///
/// The kernel leaves NT_FILE out when it would exceed `kernel.core_file_note_size_limit`, and some
/// emulators and debuggers never write one.
fn from_link_map(head: &CoreHead, memory: &dyn Memory) -> Vec<Module> {
    let mut modules = Vec::new();
    let Some((bias, headers)) = program(head, memory) else {
        return modules;
    };
    let path = head
        .aux(AT_EXECFN)
        .and_then(|at| read_path(memory, Avma(at)));
    modules.extend(module_from_headers(
        memory,
        path.unwrap_or_default(),
        bias,
        &headers,
    ));
    let dynamic = headers.iter().find(|header| header.kind == PT_DYNAMIC);
    let debug = dynamic.and_then(|dynamic| {
        let start = Avma(dynamic.address.wrapping_add(bias));
        dynamic_value(memory, start, DT_DEBUG)
    });
    // `r_debug`: int r_version, pad, struct link_map *r_map
    let mut node = debug.and_then(|debug| memory.read_u64(Avma(debug.checked_add(8)?)));
    for _ in 0..MAX_LINK_MAP {
        let Some(at) = node.filter(|at| *at != 0) else {
            break;
        };
        // `link_map`: l_addr, l_name, l_ld, l_next, l_prev
        let Some(entry) = read_bytes(memory, Avma(at), 32) else {
            break;
        };
        node = u64_at(&entry, 24);
        let name = u64_at(&entry, 8).and_then(|name| read_path(memory, Avma(name)));
        let (Some(base), Some(name)) = (u64_at(&entry, 0), name) else {
            continue;
        };
        if name.starts_with(b"/")
            && let Some(headers) = headers_in_memory(memory, Avma(base))
        {
            modules.extend(module_from_headers(memory, name, base, &headers));
        }
    }
    modules
}

/// The program alone, as the auxiliary vector places it: qemu-user writes no NT_FILE, and no code either, so
/// that its headers cannot be read. Where in the file its segments lie is told by the file itself.
fn from_auxiliary_vector(head: &CoreHead, memory: &dyn Memory) -> Option<Module> {
    let table = Avma(head.aux(AT_PHDR)?);
    let mut segments = head
        .segments()
        .iter()
        .skip_while(|segment| !segment.contains(table));
    let first = segments.next()?;
    let start = first.start;
    let mut end = start.checked_add(first.memory_size)?;
    for segment in segments.take_while(|segment| segment.memory_size > 0) {
        if segment.start != end {
            break;
        }
        end = end.checked_add(segment.memory_size)?;
    }
    let path = head
        .aux(AT_EXECFN)
        .and_then(|at| read_path(memory, Avma(at)));
    let path = path.or_else(|| Some(head.process()?.name.clone()));
    Some(Module {
        path: path?,
        deleted: false,
        kind: ModuleKind::Executable,
        ranges: vec![ModuleRange {
            start,
            end,
            offset: FileOffset(0),
        }],
        build_id: None,
        bias: None,
    })
}

/// Load bias and program headers of the program itself.
fn program(head: &CoreHead, memory: &dyn Memory) -> Option<(u64, Vec<ProgramHeader>)> {
    let table = Avma(head.aux(AT_PHDR)?);
    let count = u16::try_from(head.aux(AT_PHNUM)?).ok()?;
    let headers = read_headers(memory, table, count)?;
    let own = headers.iter().find(|header| header.kind == PT_PHDR);
    let bias = match own {
        Some(own) => table.0.wrapping_sub(own.address),
        // A static program without PT_PHDR: the table lies behind the ELF header of the first load.
        None => {
            let start = Avma(table.0.checked_sub(crate::elf_header::HEADER_SIZE as u64)?);
            bias_of(start, &headers)?
        }
    };
    Some((bias, headers))
}

fn module_from_headers(
    memory: &dyn Memory,
    path: Vec<u8>,
    bias: u64,
    headers: &[ProgramHeader],
) -> Option<Module> {
    let load = |header: &&ProgramHeader| header.kind == PT_LOAD;
    let mut ranges: Vec<_> = headers
        .iter()
        .filter(load)
        .filter_map(|header| {
            let start = Avma(header.address.wrapping_add(bias));
            let end = start.checked_add(header.memory_size)?;
            Some(ModuleRange {
                start,
                end,
                offset: FileOffset(header.offset),
            })
        })
        .filter(|range| range.start < range.end)
        .collect();
    ranges.sort_by_key(|range| range.start);
    if ranges.is_empty() {
        return None;
    }
    let build_id = build_id_in_memory(memory, headers, bias);
    let kind = ModuleKind::Library;
    Some(Module {
        path,
        deleted: false,
        kind,
        ranges,
        build_id,
        bias: Some(bias),
    })
}

fn dynamic_value(memory: &dyn Memory, start: Avma, wanted: u64) -> Option<u64> {
    let mut at = start;
    for _ in 0..MAX_DYNAMIC {
        let entry = read_bytes(memory, at, 16)?;
        match u64_at(&entry, 0)? {
            DT_NULL => return None,
            tag if tag == wanted => return u64_at(&entry, 8),
            _ => at = at.checked_add(16)?,
        }
    }
    None
}

/// A NUL-terminated path; `None` where it does not end within what is known.
fn read_path(memory: &dyn Memory, at: Avma) -> Option<Vec<u8>> {
    let mut bytes = vec![0; MAX_PATH];
    let count = memory.read(at, &mut bytes);
    bytes.truncate(count);
    let end = bytes.iter().position(|byte| *byte == 0)?;
    bytes.truncate(end);
    Some(bytes)
}
