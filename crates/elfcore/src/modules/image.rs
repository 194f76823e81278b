//! ELF images in dumped memory that no list names: cores of valgrind, emulators and packers.

use goblin::elf::program_header::{PF_X, PT_LOAD};

use super::Segments;
use super::headers::{
    bias_of, build_id_in_memory, dynamic_of, dynamic_value, headers_in_memory, ranges_of, read_path,
};
use crate::elf_header::ProgramHeader;
use crate::{Avma, CoreHead, Encoding, Memory, Module, ModuleKind, Segment};

const AT_SYSINFO_EHDR: u64 = 33;
/// The smallest page of any machine.
const PAGE: u64 = 4096;
const DT_STRTAB: u64 = 5;
const DT_SONAME: u64 = 14;
/// Segments that are looked at. Behind a network, each costs a request.
const MAX_SEGMENTS: usize = 1024;
const MAX_OF_THREADS: usize = 16;
/// Segments of one image that may lie before its code.
const BEFORE_CODE: usize = 3;

/// Where images are looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    /// All memory: no list says what is where.
    Everywhere,
    /// Where threads run.
    Threads,
}

/// Images whose code lies in none of `modules`. They have no name unless they name themselves.
pub(super) fn find(
    head: &CoreHead,
    segments: &Segments<'_>,
    memory: &dyn Memory,
    modules: &[Module],
    scope: Scope,
) -> Vec<Module> {
    let vdso = head.aux(AT_SYSINFO_EHDR).map(Avma);
    let mut taken: Vec<(Avma, Avma)> = modules
        .iter()
        .flat_map(|module| &module.ranges)
        .map(|range| (range.start, range.end))
        .collect();
    taken.sort_unstable();
    let is_taken = |at: Avma| {
        let after = taken.partition_point(|(start, _)| *start <= at);
        let last = after.checked_sub(1).and_then(|last| taken.get(last));
        last.is_some_and(|(_, end)| at < *end)
    };
    let is_vdso = |segment: &Segment| vdso.is_some_and(|vdso| segment.contains(vdso));
    let starts: Vec<Avma> = match scope {
        Scope::Everywhere => {
            let dumped = segments.0.iter().filter(|segment| segment.file_size > 0);
            let unknown = dumped.filter(|segment| !is_vdso(segment) && !is_taken(segment.start));
            unknown
                .take(MAX_SEGMENTS)
                .map(|segment| segment.start)
                .collect()
        }
        Scope::Threads => {
            let running = head
                .threads()
                .iter()
                .filter_map(|thread| thread.registers.pc());
            let unknown = running.filter(|pc| !is_taken(*pc));
            let code = unknown
                .take(MAX_OF_THREADS)
                .filter_map(|pc| segments.at(pc));
            let code = code.filter(|code| code.flags & PF_X != 0 && !is_vdso(code));
            code.flat_map(|code| segments.before(code, BEFORE_CODE))
                .collect()
        }
    };
    let mut found: Vec<Module> = Vec::new();
    for start in starts {
        if found
            .iter()
            .rev()
            .take(BEFORE_CODE)
            .any(|image| image.contains(start))
        {
            continue;
        }
        let is_code = segments.at(start).map(|segment| segment.flags & PF_X != 0);
        let image = image_at(memory, head.machine().encoding(), start, is_code);
        found.extend(image.filter(|image| !is_taken(image.start())));
    }
    found.sort_by_key(Module::start);
    found.dedup_by_key(|image| image.start());
    found
}

/// The image whose ELF header is at `start`. `is_code` says whether that page can be executed, where it is known: the
/// data of a small file begins with the first page of the file, too.
pub(super) fn image_at(
    memory: &dyn Memory,
    encoding: Encoding,
    start: Avma,
    is_code: Option<bool>,
) -> Option<Module> {
    let headers = headers_in_memory(memory, encoding, start)?;
    if !headers.iter().any(|header| header.kind == PT_LOAD) {
        return None;
    }
    // Of the segments that begin on the first page of the file: the one with these permissions.
    let begins = |header: &&ProgramHeader| {
        header.kind == PT_LOAD
            && header.offset < PAGE
            && is_code.is_none_or(|is_code| is_code == (header.flags & PF_X != 0))
    };
    let bias = match headers.iter().find(begins) {
        Some(load) => start.0.wrapping_sub(load.address.wrapping_sub(load.offset)),
        None => bias_of(start, &headers)?,
    };
    let ranges = ranges_of(&headers, bias);
    if ranges.is_empty() {
        return None;
    }
    Some(Module {
        path: soname(memory, encoding, dynamic_of(&headers, bias), bias).unwrap_or_default(),
        deleted: false,
        kind: ModuleKind::Library,
        build_id: build_id_in_memory(memory, encoding, &headers, bias, Some(start)),
        ranges,
        bias: Some(bias),
    })
}

/// `DT_SONAME` as it is in memory. glibc writes absolute addresses into the dynamic section, musl does not.
fn soname(
    memory: &dyn Memory,
    encoding: Encoding,
    dynamic: Option<Avma>,
    bias: u64,
) -> Option<Vec<u8>> {
    let strings = dynamic_value(memory, encoding, dynamic?, DT_STRTAB)?;
    let name = dynamic_value(memory, encoding, dynamic?, DT_SONAME)?;
    let at = |start: u64| {
        let name = read_path(memory, Avma(start.checked_add(name)?))?;
        (!name.is_empty()).then_some(name)
    };
    at(strings).or_else(|| at(strings.wrapping_add(bias)))
}
