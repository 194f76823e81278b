//! The minicore: the pages of the dying process that a backtrace needs, taken before anything else.
//!
//! It has the stack of each thread, from a red zone below its stack pointer upwards, and the outermost end of
//! that stack. It also has what identifies the modules (first pages, build-ids), the vdso, and the dynamic
//! loader's list of modules. So gdb finds the modules as it does in the full core. It
//! runs in a child process (see [`crate::handler::os::isolated`]); what it found comes back as a small value.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use cdh_bundle::{Gap, ModuleRecord, RawText};
use cdh_elfcore::{Avma, CoreHead, Memory, Module, SignalInfo, write_minicore};
use serde::{Deserialize, Serialize};

use super::backtrace::{self, RawBacktrace};
use super::subject::Subject;
use crate::handler::memory::live_memory::{LiveMemory, PAGE};
use crate::handler::os::isolated::{self, IsolatedError};
use crate::handler::startup::settings::HandlerSettings;
use crate::spool::ModuleFilesSender;

const AT_PHDR: u64 = 3;
const AT_PHNUM: u64 = 5;
const AT_SYSINFO_EHDR: u64 = 33;
const PT_DYNAMIC: u64 = 2;
const PT_PHDR: u64 = 6;
const DT_NULL: u64 = 0;
const DT_DEBUG: u64 = 21;

/// Bytes below the stack pointer that a leaf function may use (x86_64 psABI).
const RED_ZONE: u64 = 128;
/// Bytes kept at the outer end of each stack: it shows how the thread began, also after an endless recursion.
const STACK_END: u64 = 16 << 10;
/// Bytes kept of the stacks of other threads, where there are very many.
const LEAST_WINDOW: u64 = 4 << 10;
/// Modules that the loader's list may name; more is a loop.
const LINK_MAP: usize = 16_384;
/// Program headers and dynamic entries that are looked at.
const TABLE: u64 = 1024;
/// Why a minicore or a backtrace has less than it should. A process that nothing holds yet may be killed
/// at any moment.
const GONE: &str = "the process was gone before all that it needs was read";
/// Why a backtrace has native frames in the place of interpreted ones.
const LATE: &str = "reading them took too long";
/// Bytes kept of the vdso. It has two to four pages.
const VDSO: u64 = 64 << 10;

/// What the child found.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct MinicoreReport {
    /// Size of the minicore; `None` where it could not be written.
    pub(crate) written: Option<u64>,
    /// Whether the backtrace was written.
    pub(crate) has_backtrace: bool,
    /// Of the crashing thread.
    pub(crate) fingerprint: Option<String>,
    /// The fault beneath a signal handler that ended the process.
    pub(crate) original_signal: Option<SignalInfo>,
    /// What is missing, and why.
    pub(crate) gaps: Vec<Gap>,
    /// Modules with their build-ids.
    pub(crate) modules: Vec<ModuleRecord>,
    /// Pages of foreign files are dumped that are not in memory.
    pub(crate) lacks_foreign_pages: bool,
}

/// Takes the minicore of a process into `out`, and the backtrace into `backtrace`, each if it is wanted.
/// The files of its modules go to `shipper`, if there is one.
///
/// # Errors
/// When the child that does it dies or takes too long.
pub(crate) fn take_minicore(
    head: &CoreHead,
    of: Subject<'_>,
    out: Option<File>,
    backtrace: Option<File>,
    shipper: Option<ModuleFilesSender>,
    settings: &HandlerSettings,
) -> Result<MinicoreReport, IsolatedError> {
    let limit = Duration::from_secs(settings.minicore_seconds);
    let mut keep: Vec<BorrowedFd<'_>> = of.process.directories().collect();
    let files = [of.memory, of.pagemap].into_iter().chain(&out);
    keep.extend(files.chain(&backtrace).map(AsFd::as_fd));
    keep.extend(shipper.as_ref().map(AsFd::as_fd));
    let (out, backtrace) = (out.as_ref(), backtrace.as_ref());
    let shipper = shipper.as_ref();
    isolated::run(limit, &keep, || {
        let files = [of.memory, of.pagemap];
        let memory = LiveMemory::new(files, of.maps, head, settings.minicore_limit);
        let modules = head.modules(&memory);
        let mut report = MinicoreReport {
            modules: module_records(&modules),
            lacks_foreign_pages: memory.lacks_foreign_pages(head),
            ..MinicoreReport::default()
        };
        let mut gap = |what: &str, why: String| {
            report.gaps.push(Gap {
                what: what.to_owned(),
                why,
            });
        };
        // The crashing thread's stack first: the limit must not be used up by the others'.
        keep_stack(head, &memory, 0, settings.stack_window);
        if let Some(out) = backtrace {
            let room = settings.minicore_limit / 2;
            let (mut taken, is_late) = RawBacktrace::take(head, &modules, of, &memory, room);
            if is_late {
                gap("interpreted frames", LATE.to_owned());
            }
            if memory.is_gone() {
                // Half a stack would give the bug another name.
                (taken.fingerprint, taken.explanation) = (None, None);
                gap("backtrace", GONE.to_owned());
            }
            match taken.write(out) {
                Ok(()) => report.has_backtrace = true,
                Err(error) => gap("backtrace", error.to_string()),
            }
            report.fingerprint = taken.fingerprint;
            report.original_signal = taken.original_signal.map(|original| original.signal);
        }
        if let Some(shipper) = shipper {
            // Without a build-id a file cannot be verified, and is not stored.
            let modules = modules.iter().filter(|module| module.build_id.is_some());
            let files = modules.filter_map(|module| {
                let file = backtrace::open_file(of, module).ok()?;
                Some((module.start().0, file))
            });
            if let Err(error) = shipper.send(files) {
                gap("module files", error.to_string());
            }
        }
        let Some(out) = out else {
            return report;
        };
        keep_other_stacks(head, &memory, settings);
        keep_loader_list(head, &memory);
        if let Some(vdso) = head.aux(AT_SYSINFO_EHDR) {
            memory.keep(Avma(vdso), VDSO);
        }
        if memory.is_full() {
            gap("minicore", "its size limit was reached".to_owned());
        }
        if memory.is_gone() {
            gap("minicore", GONE.to_owned());
        }
        match write(head, memory, out) {
            Ok(written) => report.written = Some(written),
            Err(error) => gap("minicore", error.to_string()),
        }
        report
    })
}

/// The modules as the manifest lists them.
#[must_use]
pub(crate) fn module_records(modules: &[Module]) -> Vec<ModuleRecord> {
    let record = |module: &Module| ModuleRecord {
        path: RawText::new(module.path.clone()),
        build_id: module.build_id.clone(),
        sha256: None,
        start: module.start().0,
        end: module.end().0,
        kind: module.kind,
    };
    modules.iter().map(record).collect()
}

/// Keeps the stacks of all threads but the crashing one, which comes first.
fn keep_other_stacks(head: &CoreHead, memory: &LiveMemory<'_>, settings: &HandlerSettings) {
    let count = head.threads().len();
    let share = (settings.minicore_limit / 2) / (count as u64).max(1);
    let window = share.clamp(LEAST_WINDOW, settings.stack_window.max(LEAST_WINDOW));
    for index in 1..count {
        keep_stack(head, memory, index, window);
    }
}

fn keep_stack(head: &CoreHead, memory: &LiveMemory<'_>, index: usize, window: u64) -> Option<()> {
    let thread = head.threads().get(index)?;
    let sp = thread.registers.sp()?;
    memory.keep(
        Avma(sp.0.saturating_sub(RED_ZONE)),
        window.saturating_add(RED_ZONE),
    );
    // Code around the pc: debuggers disassemble it, and it distinguishes generated code from files.
    if let Some(pc) = thread.registers.pc().filter(|_| index == 0) {
        memory.keep(pc, 1);
    }
    let holder = head
        .segments()
        .iter()
        .find(|segment| segment.contains(sp))?;
    let end = holder.start.checked_add(holder.file_size)?;
    // A small stack ends inside the window; of a huge one (Go, musl) this is its far end.
    let from = end.0.saturating_sub(STACK_END.min(window)).max(sp.0);
    memory.keep(Avma(from), end.0.saturating_sub(from));
    Some(())
}

/// Reads AT_PHDR → PT_DYNAMIC → DT_DEBUG → `r_debug` → every `link_map` with its name: what is
/// read is kept.
fn keep_loader_list(head: &CoreHead, memory: &LiveMemory<'_>) -> Option<()> {
    let table = head.aux(AT_PHDR)?;
    let headers = (0..head.aux(AT_PHNUM)?.min(TABLE)).filter_map(|index| {
        // Elf64_Phdr: p_type 4, p_flags 4, p_offset 8, p_vaddr 8, … 56 bytes
        let at = table.checked_add(index.checked_mul(56)?)?;
        let kind = memory.read_u64(Avma(at))? & 0xffff_ffff;
        Some((kind, memory.read_u64(Avma(at.checked_add(16)?))?))
    });
    let headers: Vec<_> = headers.collect();
    let address = |wanted| {
        headers
            .iter()
            .find(|(kind, _)| *kind == wanted)
            .map(|(_, at)| *at)
    };
    // A program that is not relocated has no PT_PHDR, or one with the same address.
    let bias = address(PT_PHDR).map_or(0, |at| table.wrapping_sub(at));
    let dynamic = address(PT_DYNAMIC)?.wrapping_add(bias);
    let debug = (0..TABLE).find_map(|index| {
        let at = dynamic.checked_add(index.checked_mul(16)?)?;
        let value = memory.read_u64(Avma(at.checked_add(8)?))?;
        match memory.read_u64(Avma(at))? {
            DT_NULL => Some(0),
            DT_DEBUG => Some(value),
            _ => None,
        }
    })?;
    // struct r_debug: int r_version; struct link_map *r_map; …, 40 bytes
    memory.keep(Avma(debug), 40);
    let mut node = memory.read_u64(Avma(debug.checked_add(8)?))?;
    for _ in 0..LINK_MAP {
        if node == 0 || memory.is_full() {
            break;
        }
        // struct link_map: l_addr, l_name, l_ld, l_next, l_prev
        memory.keep(Avma(node), 40);
        if let Some(name) = memory.read_u64(Avma(node.checked_add(8)?)) {
            memory.keep(Avma(name), 256);
        }
        node = memory.read_u64(Avma(node.checked_add(24)?))?;
    }
    Some(())
}

fn write(head: &CoreHead, memory: LiveMemory<'_>, out: &File) -> io::Result<u64> {
    let mut out = BufWriter::with_capacity(64 << 10, out);
    let pages = memory.into_pages();
    debug_assert!(pages.values().all(|page| page.len() as u64 == PAGE));
    let written = write_minicore(head, &pages, &mut out).map_err(io::Error::other)?;
    out.flush()?;
    out.get_ref().sync_all()?;
    Ok(written)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_without_threads_and_vectors_gives_nothing_to_keep() {
        // An ELF header alone: ET_CORE, x86_64, no program headers.
        let mut bytes = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x04\0\x3e\0\x01\0\0\0".to_vec();
        bytes.resize(64, 0);
        bytes[32] = 64;
        bytes[52] = 64;
        bytes[54] = 56;
        let head = CoreHead::from_reader(&mut bytes.as_slice()).unwrap();
        let [memory, pagemap] =
            ["mem", "pagemap"].map(|name| File::open(format!("/proc/self/{name}")).unwrap());
        let memory = LiveMemory::new([&memory, &pagemap], None, &head, 1 << 20);
        assert_eq!(keep_stack(&head, &memory, 0, 4096), None);
        keep_other_stacks(&head, &memory, &HandlerSettings::default());
        assert_eq!(keep_loader_list(&head, &memory), None);
        assert!(memory.into_pages().is_empty());
    }
}
