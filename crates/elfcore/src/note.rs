//! Notes of a core: threads, process, signal, auxiliary vector, mapped files.
//!
//! Layouts: `include/uapi/linux/elfcore.h` and `fs/binfmt_elf.c` of the kernel; `include/linux/compat.h` for 32-bit
//! processes.

use goblin::elf::note::{NT_GNU_BUILD_ID, NT_PRPSINFO, NT_PRSTATUS};

use crate::bytes::until_nul;
use crate::{Avma, BuildId, Class, Encoding, FileOffset, Machine, Mapping, Registers, SignalInfo};

/// By which kernels and emulators mark dumps that are not a process's: `VMCOREINFO`, `QEMU`.
const NT_OF_SYSTEM: u32 = 0;
/// Floating-point registers.
const NT_FPREGSET: u32 = 2;
const NT_AUXV: u32 = 6;
/// "SIGI".
const NT_SIGINFO: u32 = 0x5349_4749;
const EM_MIPS: u16 = 8;
/// "FILE".
const NT_FILE: u32 = 0x4649_4c45;
/// `struct user_pac_mask`: which bits of data and of code addresses hold an authentication code. Owner `LINUX`.
const NT_ARM_PAC_MASK: u32 = 0x406;
/// DWARF numbers of `f0` to `f15` of s390x, in the order of `s390_fp_regs`.
const S390X_FP: [u8; 16] = [
    16, 20, 17, 21, 18, 22, 19, 23, 24, 28, 25, 29, 26, 30, 27, 31,
];
/// User addresses of aarch64 have 48 bits, unless the program asked the kernel for more.
const AARCH64_USUAL_END: u64 = 1 << 48;
/// Bits 52 to 54 hold an authentication code where addresses have 52 bits.
const AARCH64_LARGE_MASK: u64 = 0x70 << 48;

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
    pub(crate) fn parse(encoding: Encoding, data: &[u8], align: u64) -> Option<Self> {
        let align = if align == 8 { 8 } else { 4 };
        let u32_at = |at| encoding.u32_at(data, at);
        let (name, contents) = (u32_at(0)?, u32_at(4)?);
        let start = 12_u64.saturating_add(name.into()).next_multiple_of(align);
        let size = start
            .saturating_add(contents.into())
            .next_multiple_of(align);
        let kind = u32_at(8)?;
        Some(Self { kind, size })
    }

    /// Whether [`CoreNotes::add`] reads notes of this kind.
    pub(crate) fn is_understood(self, machine: Machine) -> bool {
        match self.kind {
            NT_OF_SYSTEM | NT_PRSTATUS | NT_PRPSINFO | NT_SIGINFO | NT_AUXV | NT_FILE => true,
            NT_FPREGSET => machine == Machine::S390x,
            NT_ARM_PAC_MASK => machine == Machine::Aarch64,
            _ => false,
        }
    }
}

/// Walks notes whose parts are padded to `align` (4 or 8) bytes; ends at the first that is cut off.
pub(crate) struct Notes<'data> {
    encoding: Encoding,
    rest: &'data [u8],
    align: usize,
}

impl<'data> Notes<'data> {
    /// `align` is `p_align`: notes are padded to four bytes unless it says eight.
    pub(crate) fn new(encoding: Encoding, data: &'data [u8], align: u64) -> Self {
        Self {
            encoding,
            rest: data,
            align: if align == 8 { 8 } else { 4 },
        }
    }
}

impl<'data> Iterator for Notes<'data> {
    type Item = Note<'data>;

    fn next(&mut self) -> Option<Note<'data>> {
        let u32_at = |at| self.encoding.u32_at(self.rest, at);
        let size_at = |at| u32_at(at).and_then(|size| usize::try_from(size).ok());
        let (name_size, data_size) = (size_at(0)?, size_at(4)?);
        let kind = u32_at(8)?;
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
pub(crate) fn find_build_id(encoding: Encoding, notes: &[u8], align: u64) -> Option<BuildId> {
    Notes::new(encoding, notes, align)
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
    pub(crate) fn add(&mut self, data: &[u8], align: u64, machine: Machine) {
        let encoding = machine.encoding();
        for note in Notes::new(encoding, data, align) {
            // The type numbers of other owners overlap with those of "CORE".
            match (note.name, note.kind) {
                (b"CORE", _) => self.add_core(&note, machine),
                (b"LINUX", NT_ARM_PAC_MASK) => {
                    let mask = encoding.u64_at(note.data, 8);
                    if let Some((thread, mask)) = self.threads.last_mut().zip(mask) {
                        thread.registers.set_authentication_mask(mask);
                    }
                }
                _ => {}
            }
        }
    }

    fn add_core(&mut self, note: &Note<'_>, machine: Machine) {
        let (data, encoding) = (note.data, machine.encoding());
        if note.kind == NT_PRPSINFO {
            self.follows_kernel = self.threads.len() == 1;
        }
        match note.kind {
            NT_PRSTATUS => self.threads.extend(thread(data, machine)),
            NT_PRPSINFO if self.process.is_none() => self.process = process(data, machine),
            NT_SIGINFO if self.signal.is_none() => {
                self.signal = match machine {
                    Machine::Other(EM_MIPS) => SignalInfo::from_mips(data),
                    _ => SignalInfo::parse(data, encoding),
                };
            }
            NT_AUXV if self.auxv.is_empty() => self.auxv = auxv(data, encoding),
            NT_FILE if self.mappings.is_empty() => self.mappings = mappings(data, encoding),
            NT_FPREGSET if machine == Machine::S390x => {
                // `s390_fp_regs`: control word, padding, f0 to f15.
                let values = (1..).map(|index| encoding.nth_word(data, index));
                if let Some(thread) = self.threads.last_mut() {
                    S390X_FP
                        .into_iter()
                        .zip(values)
                        .for_each(|(number, value)| {
                            thread.registers.set(number.into(), value);
                        });
                }
            }
            _ => {}
        }
    }

    /// Without `NT_ARM_PAC_MASK`: authentication codes are above the bits of addresses, and a process with larger
    /// addresses has more address bits.
    pub(crate) fn widen_addresses(&mut self, highest: u64) {
        for thread in &mut self.threads {
            let is_stated = thread.registers.plain_address(u64::MAX) != AARCH64_USUAL_END - 1;
            if thread.registers.machine() == Machine::Aarch64
                && highest > AARCH64_USUAL_END
                && !is_stated
            {
                thread.registers.set_authentication_mask(AARCH64_LARGE_MASK);
            }
        }
    }
}

/// `struct elf_prstatus`: signal, ids and times, then the registers.
fn thread(data: &[u8], machine: Machine) -> Option<Thread> {
    let (encoding, table) = (machine.encoding(), machine.table());
    let slots = table.register_encoding;
    let mut registers = Registers::new(machine);
    for (index, slot) in table.slots.iter().enumerate() {
        let at = usize::from(*slot).checked_mul(slots.word_size())?;
        let value = slots.word_at(data, at.checked_add(table.registers_at)?);
        registers.set_at(index, value.filter(|_| *slot != u8::MAX));
    }
    // Offsets of `pr_sighold` and `pr_pid`.
    let (blocked_at, tid_at) = match encoding.class {
        Class::Narrow => (20, 24),
        Class::Wide => (24, 32),
    };
    Some(Thread {
        tid: encoding.u32_at(data, tid_at)?,
        signal: encoding.u16_at(data, 12)?,
        blocked: encoding.word_at(data, blocked_at)?,
        registers,
    })
}

/// `struct elf_prpsinfo`. Ids of users have 16 bits on i386 and arm.
fn process(data: &[u8], machine: Machine) -> Option<ProcessInfo> {
    let encoding = machine.encoding();
    // Offsets of uid, gid, pid, ppid, name and arguments.
    let (at, has_short_ids) = match (encoding.class, machine) {
        (Class::Wide, _) => ([16, 20, 24, 28, 40, 56], false),
        (Class::Narrow, Machine::X32) => ([8, 12, 16, 20, 32, 48], false),
        (Class::Narrow, _) => ([8, 10, 12, 16, 28, 44], true),
    };
    let id = |at: usize| match has_short_ids {
        true => encoding.u16_at(data, at).map(u32::from),
        false => encoding.u32_at(data, at),
    };
    let text = |from: usize, size: usize| data.get(from..from.checked_add(size)?).map(until_nul);
    let [uid, gid, pid, ppid, name, arguments] = at;
    let arguments = text(arguments, 80)?;
    Some(ProcessInfo {
        uid: id(uid)?,
        gid: id(gid)?,
        pid: encoding.u32_at(data, pid)?,
        ppid: encoding.u32_at(data, ppid)?,
        name: text(name, 16)?.to_vec(),
        arguments: arguments.strip_suffix(b" ").unwrap_or(arguments).to_vec(),
    })
}

fn auxv(data: &[u8], encoding: Encoding) -> Vec<(u64, u64)> {
    let size = encoding.word_size();
    let pairs = data.chunks_exact(size.saturating_mul(2));
    let pair = |pair: &[u8]| Some((encoding.word_at(pair, 0)?, encoding.word_at(pair, size)?));
    let pairs = pairs.filter_map(pair);
    pairs.take_while(|(kind, _)| *kind != 0).collect()
}

/// `fill_files_note` of the kernel: count, page size, count × (start, end, offset in pages), then names.
fn mappings(data: &[u8], encoding: Encoding) -> Vec<Mapping> {
    let parse = || {
        let word = |index| encoding.nth_word(data, index);
        let (count, page) = (usize::try_from(word(0)?).ok()?, word(1)?);
        let row_size = encoding.word_size().checked_mul(3)?;
        let table_at = encoding.word_size().checked_mul(2)?;
        let names_at = count.checked_mul(row_size)?.checked_add(table_at)?;
        let (table, names) = (data.get(table_at..names_at)?, data.get(names_at..)?);
        let rows = table.chunks_exact(row_size);
        let mut found = Vec::new();
        for (row, name) in rows.zip(names.split(|byte| *byte == 0)) {
            let word = |index| encoding.nth_word(row, index);
            let (start, end) = (Avma(word(0)?), Avma(word(1)?));
            if start < end {
                let offset = FileOffset(word(2)?.checked_mul(page)?);
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
