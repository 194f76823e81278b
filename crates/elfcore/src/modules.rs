//! Finds the ELF files that were mapped, from all that a core knows, united: NT_FILE, the images' own program
//! headers, the dynamic loader's list, ELF images in dumped memory, and the auxiliary vector.
//!
//! One file is one module. Addresses come from the list that has them; what another source knows of the same
//! file (its load bias, its name, text that was remapped) is added to it.

mod headers;
mod image;
mod link_map;
mod mapped;

pub(crate) use headers::{headers_in_memory, headers_of, read_bytes};

use goblin::elf::program_header::PT_PHDR;

use crate::elf_header::ProgramHeader;
use crate::{
    Avma, CoreHead, ElfObject, Encoding, FileOffset, Memory, Module, ModuleKind, ModuleRange,
    Segment,
};
use headers::{bias_of, build_id_in_memory, dynamic_of, ranges_of, read_headers, read_path};
use link_map::{Entry, Extent};

const AT_PHDR: u64 = 3;
const AT_PHNUM: u64 = 5;
const AT_BASE: u64 = 7;
const AT_ENTRY: u64 = 9;
const AT_EXECFN: u64 = 31;
const AT_SYSINFO_EHDR: u64 = 33;
/// Modules whose dynamic sections are asked for the loader's list.
const MAX_ASKED: usize = 4096;
/// Segments of one library.
const MAX_SEGMENTS: usize = 64;

/// The memory that a core lists, in the order of addresses.
struct Segments<'h>(Vec<&'h Segment>);

impl<'h> Segments<'h> {
    fn of(head: &'h CoreHead) -> Self {
        let mut segments: Vec<&Segment> = head.segments().iter().collect();
        segments.sort_by_key(|segment| segment.start);
        Self(segments)
    }

    fn at(&self, at: Avma) -> Option<&'h Segment> {
        let after = self.0.partition_point(|segment| segment.start <= at);
        let last = self.0.get(after.checked_sub(1)?)?;
        last.contains(at).then_some(*last)
    }

    /// Where `segment` starts, and up to `count` segments that lie directly before it, the nearest first.
    fn before(&self, segment: &Segment, count: usize) -> Vec<Avma> {
        let mut starts = vec![segment.start];
        let below = self.0.partition_point(|other| other.start < segment.start);
        for other in self
            .0
            .get(..below)
            .unwrap_or_default()
            .iter()
            .rev()
            .take(count)
        {
            if other.start.checked_add(other.memory_size) != starts.last().copied() {
                break;
            }
            starts.push(other.start);
        }
        starts
    }
}

pub(crate) fn find(head: &CoreHead, memory: &dyn Memory) -> Vec<Module> {
    let segments = Segments::of(head);
    let mapped::Mapped {
        mut modules,
        undecided,
    } = mapped::find(head, &segments, memory);
    let encoding = head.machine().encoding();
    let program = program(head, memory);
    if let Some((bias, headers)) = &program {
        let first = ranges_of(headers, *bias).first().map(|range| range.start);
        let is_known = |first| modules.iter().any(|module| module.contains(first));
        if first.is_some_and(|first| !is_known(first)) {
            modules.extend(module_from_headers(memory, encoding, *bias, headers));
        }
    }
    // To walk the list of an ordinary core would cost time and teach nothing.
    let has_mappings = !head.mappings().is_empty();
    let is_complete =
        has_mappings && undecided.is_empty() && modules.iter().all(|module| module.bias.is_some());
    let extent = match is_complete {
        true => Extent::Program,
        false => Extent::All,
    };
    let dynamic = program
        .as_ref()
        .and_then(|(bias, headers)| dynamic_of(headers, *bias));
    let list = dynamic.and_then(|dynamic| link_map::read(memory, encoding, dynamic, extent));
    let scope = match has_mappings || list.is_some() {
        true => image::Scope::Threads,
        false => image::Scope::Everywhere,
    };
    let images = image::find(head, &segments, memory, &modules, scope);
    modules.extend(images);
    let list = list.or_else(|| list_of_any(memory, encoding, &modules, extent));
    let list = list.unwrap_or_default();
    if extent == Extent::All {
        unite(head, &segments, memory, &mut modules, undecided, &list);
    }
    if !has_mappings && !modules.iter().any(|module| is_started(head, module)) {
        let is_free = |found: &Module| {
            let mut others = modules.iter();
            !others.any(|other| other.start() < found.end() && found.start() < other.end())
        };
        let program = from_auxiliary_vector(head, memory);
        modules.extend(program.filter(is_free));
    }
    modules.extend(vdso(head, memory));
    finish(head, memory, &mut modules, list.first());
    modules
}

/// Adds what the program's own file says where the core does not hold its headers: executable segments that no
/// file is mapped at, and the libraries of the loader's list. `others` are the modules known so far.
/// Returns the modules that are new.
#[must_use]
pub fn modules_by_program(
    head: &CoreHead,
    memory: &dyn Memory,
    program: &Module,
    object: &ElfObject<'_>,
    others: &[Module],
) -> Vec<Module> {
    let Some(bias) = object.bias_in(program) else {
        return Vec::new();
    };
    let Some(dynamic) = dynamic_of(object.program_headers(), bias) else {
        return Vec::new();
    };
    let Some(list) = link_map::read(memory, head.machine().encoding(), dynamic, Extent::All) else {
        return Vec::new();
    };
    let mut modules = others.to_vec();
    unite(
        head,
        &Segments::of(head),
        memory,
        &mut modules,
        Vec::new(),
        &list,
    );
    let mut new = modules.split_off(others.len());
    finish(head, memory, &mut new, list.first());
    new
}

impl Module {
    /// A program in a core that does not show where it is: at the addresses that it was linked to, if the core
    /// has memory where it begins to run. `None` for a program that can be anywhere.
    #[must_use]
    pub fn of_program(head: &CoreHead, path: &[u8], object: &ElfObject<'_>) -> Option<Self> {
        let headers = object.program_headers();
        let ranges = ranges_of(headers, 0);
        let entry = Avma(object.entry().0);
        let is_linked = ranges.first().is_some_and(|first| first.start.0 != 0);
        let has_memory = head
            .segments()
            .iter()
            .any(|segment| segment.contains(entry));
        (is_linked && has_memory && object.machine() == head.machine()).then(|| Self {
            path: path.to_vec(),
            deleted: false,
            kind: ModuleKind::Executable,
            ranges,
            build_id: None,
            bias: Some(0),
        })
    }

    /// Takes over what a file that was found for this module says of its layout: executable segments that
    /// are mapped from no file (text that was moved to huge pages) belong to it.
    pub fn complete_with(&mut self, head: &CoreHead, object: &ElfObject<'_>) {
        if self.kind == ModuleKind::Vdso {
            return;
        }
        if let Some(bias) = object.bias_in(self) {
            mapped::add_code(head, self, object.program_headers(), bias);
        }
    }
}

/// The loader's list, from the dynamic section of any module: what the kernel started is not always the program.
fn list_of_any(
    memory: &dyn Memory,
    encoding: Encoding,
    modules: &[Module],
    extent: Extent,
) -> Option<Vec<Entry>> {
    let modules = modules.iter().filter(|module| module.bias.is_some());
    modules.take(MAX_ASKED).find_map(|module| {
        let (headers, _) = headers_of(memory, encoding, &module.ranges)?;
        link_map::read(
            memory,
            encoding,
            dynamic_of(&headers, module.bias?)?,
            extent,
        )
    })
}

/// Gives modules the names and biases that the loader knows, and adds those that nothing else shows.
fn unite(
    head: &CoreHead,
    segments: &Segments<'_>,
    memory: &dyn Memory,
    modules: &mut Vec<Module>,
    mut undecided: Vec<Module>,
    list: &[Entry],
) {
    let vdso = head.aux(AT_SYSINFO_EHDR).map(Avma);
    let mut spans: Vec<(Avma, Avma, usize)> = modules
        .iter()
        .enumerate()
        .map(|(index, module)| (module.start(), module.end(), index))
        .collect();
    spans.sort_unstable();
    for entry in list {
        let after = spans.partition_point(|(start, ..)| *start <= entry.dynamic);
        let holder = after
            .checked_sub(1)
            .and_then(|last| spans.get(last))
            .filter(|(_, end, _)| entry.dynamic < *end);
        let holder = holder.and_then(|(.., index)| modules.get_mut(*index));
        if let Some(module) = holder {
            module.bias.get_or_insert(entry.bias);
            // The kernel's path has links resolved. A soname is not a path.
            if !module.path.starts_with(b"/")
                && !entry.name.is_empty()
                && head.mappings().is_empty()
            {
                module.path.clone_from(&entry.name);
            }
            continue;
        }
        let spans_it =
            |module: &Module| module.start() <= entry.dynamic && entry.dynamic < module.end();
        if let Some(index) = undecided.iter().position(spans_it) {
            let mut module = undecided.swap_remove(index);
            module.bias.get_or_insert(entry.bias);
            add(modules, &mut spans, module);
            continue;
        }
        if entry.name.is_empty() || vdso.is_some_and(|vdso| vdso.0 == entry.bias) {
            continue;
        }
        let module = image::image_at(memory, head.machine().encoding(), Avma(entry.bias), None)
            .or_else(|| from_segments(segments, entry));
        let is_free = |module: &Module| {
            let after = spans.partition_point(|(start, ..)| *start < module.end());
            let before = after.checked_sub(1).and_then(|last| spans.get(last));
            before.is_none_or(|(_, end, _)| *end <= module.start())
        };
        if let Some(mut module) = module.filter(is_free) {
            module.path.clone_from(&entry.name);
            add(modules, &mut spans, module);
        }
    }
}

/// Adds a module, and keeps the spans of all in order.
fn add(modules: &mut Vec<Module>, spans: &mut Vec<(Avma, Avma, usize)>, module: Module) {
    let after = spans.partition_point(|(start, ..)| *start <= module.start());
    spans.insert(after, (module.start(), module.end(), modules.len()));
    modules.push(module);
}

/// A library of the loader's list whose headers the core does not hold: the segments from its base up to its
/// dynamic section. Where in the file they lie is in the file.
fn from_segments(segments: &Segments<'_>, entry: &Entry) -> Option<Module> {
    let start = Avma(entry.bias);
    let first = segments.0.partition_point(|segment| segment.start < start);
    let mut end = start;
    let segments = segments.0.get(first..).unwrap_or_default();
    for segment in segments.iter().take(MAX_SEGMENTS) {
        if segment.start != end {
            break;
        }
        end = end.checked_add(segment.memory_size)?;
        if segment.contains(entry.dynamic) {
            let offset = FileOffset(0);
            return Some(Module {
                path: Vec::new(),
                deleted: false,
                kind: ModuleKind::Library,
                ranges: vec![ModuleRange { start, end, offset }],
                build_id: None,
                bias: Some(entry.bias),
            });
        }
    }
    None
}

/// Sorts the modules, determines the kind of each, and names those without a name.
fn finish(head: &CoreHead, memory: &dyn Memory, modules: &mut [Module], program: Option<&Entry>) {
    modules.sort_by_key(Module::start);
    let holds_program = |module: &Module| {
        program.is_some_and(|entry| module.start() <= entry.dynamic && entry.dynamic < module.end())
    };
    let is_found = modules.iter().any(holds_program);
    for module in &mut *modules {
        if module.kind != ModuleKind::Library {
            continue;
        }
        module.kind = match is_found {
            true if holds_program(module) => ModuleKind::Executable,
            // The kernel started the loader, which loaded the program.
            true if is_started(head, module) => ModuleKind::Loader,
            _ => kind_of(head, module),
        };
        // A list of files names them as the kernel knew them; a soname is not a path.
        let is_path = module.path.starts_with(b"/") || !head.mappings().is_empty();
        let is_named = module.kind != ModuleKind::Executable || is_path;
        if module.path.is_empty() || !is_named {
            let path = program_path(head, memory);
            module.path = match (path, module.kind) {
                (Some(path), ModuleKind::Executable) => path,
                _ if module.path.is_empty() => {
                    format!("[image at {:#x}]", module.start().0).into_bytes()
                }
                _ => std::mem::take(&mut module.path),
            };
        }
    }
}

/// Whether the kernel started this module.
fn is_started(head: &CoreHead, module: &Module) -> bool {
    let holds = |kind| head.aux(kind).is_some_and(|at| module.contains(Avma(at)));
    holds(AT_PHDR) || holds(AT_ENTRY)
}

fn kind_of(head: &CoreHead, module: &Module) -> ModuleKind {
    if is_started(head, module) {
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

/// The path of the program where no mapping names it: what was executed, else the first word of the command
/// line, else the name of the process.
fn program_path(head: &CoreHead, memory: &dyn Memory) -> Option<Vec<u8>> {
    let executed = head.aux(AT_EXECFN);
    let executed = executed.and_then(|at| read_path(memory, Avma(at)));
    let process = head.process();
    let first_word = || {
        let word = process?.arguments.split(|byte| *byte == b' ').next()?;
        word.starts_with(b"/").then(|| word.to_vec())
    };
    let path = executed.filter(|path| !path.is_empty());
    let path = path.or_else(first_word);
    let path = path.or_else(|| Some(process?.name.clone()));
    path.filter(|path| !path.is_empty())
}

/// The kernel's vdso lies whole in the core, from AT_SYSINFO_EHDR to the end of its segment.
fn vdso(head: &CoreHead, memory: &dyn Memory) -> Option<Module> {
    let start = Avma(head.aux(AT_SYSINFO_EHDR)?);
    let segment = head
        .segments()
        .iter()
        .find(|segment| segment.contains(start))?;
    let end = segment.start.checked_add(segment.memory_size)?;
    let encoding = head.machine().encoding();
    let headers = headers_in_memory(memory, encoding, start);
    let bias = headers
        .as_deref()
        .and_then(|headers| bias_of(start, headers));
    let build_id = headers
        .as_deref()
        .zip(bias)
        .and_then(|(headers, bias)| build_id_in_memory(memory, encoding, headers, bias, None));
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

/// The program alone, as the auxiliary vector places it: qemu-user writes no NT_FILE, and no code either, so
/// that its headers cannot be read. The file itself has the offsets of its segments.
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
    Some(Module {
        path: program_path(head, memory)?,
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

/// Load bias and program headers of what the kernel started.
fn program(head: &CoreHead, memory: &dyn Memory) -> Option<(u64, Vec<ProgramHeader>)> {
    let table = Avma(head.aux(AT_PHDR)?);
    let count = u16::try_from(head.aux(AT_PHNUM)?).ok()?;
    let encoding = head.machine().encoding();
    let headers = read_headers(memory, encoding, table, count)?;
    let own = headers.iter().find(|header| header.kind == PT_PHDR);
    let bias = match own {
        Some(own) => table.0.wrapping_sub(own.address),
        // A static program without PT_PHDR: the table lies behind the ELF header of the first load.
        None => {
            let start = Avma(table.0.checked_sub(encoding.class.header_size() as u64)?);
            bias_of(start, &headers)?
        }
    };
    Some((bias, headers))
}

fn module_from_headers(
    memory: &dyn Memory,
    encoding: Encoding,
    bias: u64,
    headers: &[ProgramHeader],
) -> Option<Module> {
    let ranges = ranges_of(headers, bias);
    if ranges.is_empty() {
        return None;
    }
    Some(Module {
        path: Vec::new(),
        deleted: false,
        kind: ModuleKind::Library,
        ranges,
        build_id: build_id_in_memory(memory, encoding, headers, bias, None),
        bias: Some(bias),
    })
}
