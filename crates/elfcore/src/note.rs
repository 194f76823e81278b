//! Notes of a core: threads, process, signal, auxiliary vector, mapped files.
//!
//! Layouts: `include/uapi/linux/elfcore.h` and `fs/binfmt_elf.c` of the kernel, for 64-bit machines.

use goblin::elf::note::{NT_GNU_BUILD_ID, NT_PRPSINFO, NT_PRSTATUS};

use crate::bytes::{i32_at, u16_at, u32_at, u64_at, until_nul};
use crate::elf_header::Class;
use crate::{Avma, BuildId, FileOffset, Machine, Mapping, Registers, SignalInfo};

/// By which kernels and emulators mark dumps that are no process's: `VMCOREINFO`, `QEMU`.
const NT_OF_SYSTEM: u32 = 0;
const NT_AUXV: u32 = 6;
/// "SIGI".
const NT_SIGINFO: u32 = 0x5349_4749;
/// "FILE".
const NT_FILE: u32 = 0x4649_4c45;

/// One thread: `NT_PRSTATUS` and what belongs to it.
#[derive(Clone, Debug)]
pub struct Thread {
    /// Thread id as the kernel wrote it (in the process's own pid namespace).
    pub tid: u32,
    /// `pr_cursig`: the signal that was being handled, 0 for threads that were only stopped.
    pub signal: u16,
    /// `pr_sighold`: signals that the thread blocked, signal 1 in the lowest bit. gdb's own cores have 0.
    pub blocked: u64,
    /// General registers.
    pub registers: Registers,
}

/// `NT_PRPSINFO`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProcessInfo {
    /// Process id (in its own pid namespace).
    pub pid: u32,
    /// Parent's process id.
    pub ppid: u32,
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// `pr_fname`: the `comm`, at most 15 bytes, any but NUL.
    pub name: Vec<u8>,
    /// `pr_psargs`: the first 79 bytes of the command line, NULs turned into spaces by the kernel.
    pub arguments: Vec<u8>,
}

/// One note: `Elf64_Nhdr`, name, descriptor.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Note<'data> {
    pub(crate) name: &'data [u8],
    pub(crate) kind: u32,
    pub(crate) data: &'data [u8],
}

/// The fields before the name of a note.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NoteHeader {
    kind: u32,
    /// Of header, name, data and what pads them; never 0.
    pub(crate) size: u64,
}

impl NoteHeader {
    /// `None` where fewer than twelve bytes are left.
    pub(crate) fn parse(data: &[u8], align: u64) -> Option<Self> {
        let align = if align == 8 { 8 } else { 4 };
        let (name, contents) = (u32_at(data, 0)?, u32_at(data, 4)?);
        let start = 12_u64.saturating_add(name.into()).next_multiple_of(align);
        let size = start
            .saturating_add(contents.into())
            .next_multiple_of(align);
        let kind = u32_at(data, 8)?;
        Some(Self { kind, size })
    }

    /// Whether [`CoreNotes::add`] takes notes of this kind.
    pub(crate) fn is_understood(self) -> bool {
        matches!(
            self.kind,
            NT_OF_SYSTEM | NT_PRSTATUS | NT_PRPSINFO | NT_SIGINFO | NT_AUXV | NT_FILE
        )
    }
}

/// Walks notes whose parts are padded to `align` (4 or 8) bytes; ends at the first that is cut off.
pub(crate) struct Notes<'data> {
    rest: &'data [u8],
    align: usize,
}

impl<'data> Notes<'data> {
    /// `align` is `p_align`: notes are padded to four bytes unless it says eight.
    pub(crate) fn new(data: &'data [u8], align: u64) -> Self {
        Self {
            rest: data,
            align: if align == 8 { 8 } else { 4 },
        }
    }
}

impl<'data> Iterator for Notes<'data> {
    type Item = Note<'data>;

    fn next(&mut self) -> Option<Note<'data>> {
        let size_at = |at| u32_at(self.rest, at).and_then(|size| usize::try_from(size).ok());
        let (name_size, data_size) = (size_at(0)?, size_at(4)?);
        let kind = u32_at(self.rest, 8)?;
        let name_end = 12_usize.checked_add(name_size)?;
        let start = name_end.checked_next_multiple_of(self.align)?;
        let end = start.checked_add(data_size)?;
        let note = Note {
            name: until_nul(self.rest.get(12..name_end)?),
            kind,
            data: self.rest.get(start..end)?,
        };
        let next = end.checked_next_multiple_of(self.align)?;
        self.rest = self.rest.get(next..).unwrap_or_default();
        Some(note)
    }
}

/// The build-id among the notes of an object.
pub(crate) fn find_build_id(notes: &[u8], align: u64) -> Option<BuildId> {
    Notes::new(notes, align)
        .find(|note| note.kind == NT_GNU_BUILD_ID && note.name == b"GNU")
        .and_then(|note| BuildId::from_bytes(note.data))
}

/// What the notes of a core say, gathered over all of its `PT_NOTE` segments.
#[derive(Clone, Debug, Default)]
pub(crate) struct CoreNotes {
    pub(crate) threads: Vec<Thread>,
    pub(crate) process: Option<ProcessInfo>,
    pub(crate) signal: Option<SignalInfo>,
    pub(crate) auxv: Vec<(u64, u64)>,
    pub(crate) mappings: Vec<Mapping>,
    /// Whether `NT_PRPSINFO` follows the first thread, as the kernel writes it. Debuggers begin with it.
    follows_kernel: bool,
}

impl CoreNotes {
    /// Whether the order of threads or their signals say which one crashed.
    pub(crate) fn marks_crashed_thread(&self) -> bool {
        let marked = self.threads.iter().filter(|thread| thread.signal != 0);
        match marked.count() {
            0 => self.signal.is_some() && self.threads.len() == 1,
            1 => true,
            // All have the signal of the process. The kernel and gdb put the one that received it first,
            // and say more about the signal.
            _ => self.follows_kernel || self.signal.is_some(),
        }
    }

    /// Puts the one thread first that has a signal, where the writer did not.
    pub(crate) fn put_crashed_first(&mut self) {
        let mut marked = (0..)
            .zip(&self.threads)
            .filter(|(_, thread)| thread.signal != 0);
        let found = (marked.next(), marked.next());
        if let (Some((at, _)), None) = found
            && let Some(before) = self.threads.get_mut(..=at)
        {
            before.rotate_right(1);
        }
    }

    /// Adds the notes of one segment; unknown notes are skipped.
    pub(crate) fn add(&mut self, data: &[u8], align: u64, machine: Machine, class: Class) {
        // The type numbers of other names overlap with those of "CORE".
        for note in Notes::new(data, align).filter(|note| note.name == b"CORE") {
            if class == Class::Narrow {
                self.add_narrow(&note, machine);
                continue;
            }
            if note.kind == NT_PRPSINFO {
                self.follows_kernel = self.threads.len() == 1;
            }
            match note.kind {
                NT_PRSTATUS => self.threads.extend(thread(note.data, machine)),
                NT_PRPSINFO if self.process.is_none() => self.process = process(note.data),
                NT_SIGINFO if self.signal.is_none() => {
                    self.signal = SignalInfo::from_bytes(note.data)
                }
                NT_AUXV if self.auxv.is_empty() => self.auxv = auxv(note.data),
                NT_FILE if self.mappings.is_empty() => self.mappings = mappings(note.data),
                _ => {}
            }
        }
    }
}

impl CoreNotes {
    /// As [`Self::add`] for a 32-bit process (`include/linux/compat.h`, `struct compat_elf_prstatus`): no registers.
    fn add_narrow(&mut self, note: &Note<'_>, machine: Machine) {
        let data = note.data;
        match note.kind {
            NT_PRSTATUS => self.threads.extend((|| {
                Some(Thread {
                    tid: u32_at(data, 24)?,
                    signal: u16_at(data, 12)?,
                    blocked: 0,
                    registers: Registers::new(machine),
                })
            })()),
            NT_PRPSINFO if self.process.is_none() => {
                self.follows_kernel = self.threads.len() == 1;
                self.process = narrow_process(data, machine);
            }
            NT_SIGINFO if self.signal.is_none() => {
                self.signal = (|| {
                    let (number, code) = (i32_at(data, 0)?, i32_at(data, 8)?);
                    // Two words follow: an address is one, the sender's ids are two.
                    let union = u64_at(data, 12)?;
                    let info = SignalInfo::new(number, code, union);
                    let address = info.address.map(|_| Avma(union & 0xffff_ffff));
                    Some(SignalInfo { address, ..info })
                })();
            }
            NT_AUXV if self.auxv.is_empty() => {
                let (pairs, _) = data.as_chunks::<8>();
                let pair =
                    |pair: &[u8; 8]| Some((u32_at(pair, 0)?.into(), u32_at(pair, 4)?.into()));
                let pairs = pairs.iter().filter_map(pair);
                self.auxv = pairs
                    .take_while(|(kind, _): &(u64, u64)| *kind != 0)
                    .collect();
            }
            NT_FILE if self.mappings.is_empty() => self.mappings = narrow_mappings(data),
            _ => {}
        }
    }
}

/// `struct compat_elf_prpsinfo`. Ids of users have 16 bits on i386 and arm.
fn narrow_process(data: &[u8], machine: Machine) -> Option<ProcessInfo> {
    // Offsets of uid, gid, pid, ppid, name and arguments.
    let at = match machine {
        Machine::Other(62) => [8, 12, 16, 20, 32, 48],
        _ => [8, 10, 12, 16, 28, 44],
    };
    let id = |at: usize| match machine {
        Machine::Other(62) => u32_at(data, at),
        _ => u16_at(data, at).map(u32::from),
    };
    let text = |from: usize, size: usize| data.get(from..from.checked_add(size)?).map(until_nul);
    let [uid, gid, pid, ppid, name, arguments] = at;
    let arguments = text(arguments, 80)?;
    Some(ProcessInfo {
        uid: id(uid)?,
        gid: id(gid)?,
        pid: u32_at(data, pid)?,
        ppid: u32_at(data, ppid)?,
        name: text(name, 16)?.to_vec(),
        arguments: arguments.strip_suffix(b" ").unwrap_or(arguments).to_vec(),
    })
}

/// As [`mappings`], with words of four bytes.
fn narrow_mappings(data: &[u8]) -> Vec<Mapping> {
    let parse = || {
        let (count, page) = (
            usize::try_from(u32_at(data, 0)?).ok()?,
            u64::from(u32_at(data, 4)?),
        );
        let names_at = count.checked_mul(12)?.checked_add(8)?;
        let (table, names) = (data.get(8..names_at)?, data.get(names_at..)?);
        let (rows, _) = table.as_chunks::<12>();
        let row = |(row, name): (&[u8; 12], &[u8])| {
            let at = |offset| u32_at(row, offset).map(u64::from);
            let mapping = Mapping {
                start: Avma(at(0)?),
                end: Avma(at(4)?),
                offset: FileOffset(at(8)?.checked_mul(page)?),
                path: name.to_vec(),
            };
            (mapping.start < mapping.end).then_some(mapping)
        };
        let names = names.split(|byte| *byte == 0);
        let mut found: Vec<_> = rows.iter().zip(names).filter_map(row).collect();
        found.sort_by_key(|mapping| mapping.start);
        Some(found)
    };
    parse().unwrap_or_default()
}

/// `struct elf_prstatus`: the registers follow 112 bytes of signal, ids and times.
fn thread(data: &[u8], machine: Machine) -> Option<Thread> {
    /// Place of each DWARF register in `struct user_regs_struct` (x86_64, `asm/user_64.h`).
    const X86_64: [usize; 17] = [10, 12, 11, 5, 13, 14, 4, 19, 9, 8, 7, 6, 3, 2, 1, 0, 16];
    let mut registers = Registers::new(machine);
    let at = |slot: usize| {
        slot.checked_mul(8)?
            .checked_add(112)
            .and_then(|at| u64_at(data, at))
    };
    match machine {
        Machine::X86_64 => (0..)
            .zip(X86_64)
            .for_each(|(n, slot)| registers.set(n, at(slot))),
        // `struct user_pt_regs`: x0..x30, sp, pc, the order of DWARF.
        Machine::Aarch64 => (0..33).for_each(|n| registers.set(n, at(usize::from(n)))),
        Machine::Other(_) => {}
    }
    Some(Thread {
        tid: u32_at(data, 32)?,
        signal: u16_at(data, 12)?,
        blocked: u64_at(data, 24)?,
        registers,
    })
}

/// `struct elf_prpsinfo`.
fn process(data: &[u8]) -> Option<ProcessInfo> {
    let arguments = until_nul(data.get(56..136)?);
    Some(ProcessInfo {
        uid: u32_at(data, 16)?,
        gid: u32_at(data, 20)?,
        pid: u32_at(data, 24)?,
        ppid: u32_at(data, 28)?,
        name: until_nul(data.get(40..56)?).to_vec(),
        arguments: arguments.strip_suffix(b" ").unwrap_or(arguments).to_vec(),
    })
}

fn auxv(data: &[u8]) -> Vec<(u64, u64)> {
    let (pairs, _) = data.as_chunks::<16>();
    let pair = |pair: &[u8; 16]| Some((u64_at(pair, 0)?, u64_at(pair, 8)?));
    pairs
        .iter()
        .filter_map(pair)
        .take_while(|(kind, _)| *kind != 0)
        .collect()
}

/// `fill_files_note` of the kernel: count, page size, count × (start, end, offset in pages), then names.
fn mappings(data: &[u8]) -> Vec<Mapping> {
    let parse = || {
        let (count, page) = (usize::try_from(u64_at(data, 0)?).ok()?, u64_at(data, 8)?);
        let names_at = count.checked_mul(24)?.checked_add(16)?;
        let (table, names) = (data.get(16..names_at)?, data.get(names_at..)?);
        let (rows, _) = table.as_chunks::<24>();
        let mut found = Vec::new();
        for (row, name) in rows.iter().zip(names.split(|byte| *byte == 0)) {
            let (start, end) = (Avma(u64_at(row, 0)?), Avma(u64_at(row, 8)?));
            if start < end {
                let offset = FileOffset(u64_at(row, 16)?.checked_mul(page)?);
                found.push(Mapping {
                    start,
                    end,
                    offset,
                    path: name.to_vec(),
                });
            }
        }
        found.sort_by_key(|mapping| mapping.start);
        Some(found)
    };
    parse().unwrap_or_default()
}
