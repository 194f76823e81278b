//! Callers of code that no call frame information describes: hand-written assembly, generated code,
//! musl, a jump to an address that is no code.
//!
//! Every guess must be backed by a call instruction before the return address, where its bytes are
//! known. Frames of a module without its file are skipped by a scan: only return addresses into the other
//! modules can be checked.

use cdh_elfcore::{Avma, Machine, Memory, ModuleKind, Registers, Svma};

use super::cfi::Cache;
use super::code::{FUNCTION_REACH, Ground};
use super::sigreturn::handler_returns_to;
use super::{Caller, FrameTrust, Here, Step, Stop, Unwinder};

/// Bytes of stack that are searched for a return address: the frames of a library may have large buffers.
const SCAN_BYTES: usize = 64 << 10;
/// Bytes that are searched at a time. A direct call of the function itself is preferred as far as this.
const STEP_BYTES: usize = 4096;
/// Callers of a guessed frame that are compared with one another.
const AGREEING: usize = 32;
/// Steps of such comparisons for one thread; a hostile stack holds only addresses that fail late.
const MAX_COMPARED: usize = 1 << 16;
/// Bytes behind the entry point that belong to `_start`.
const START_SIZE: u64 = 64;
/// Fewest bytes of what the kernel pushes for a signal handler: registers, `siginfo_t` and the state of the FPU
/// (x86_64).
const SIGNAL_FRAME: u64 = 8 + 304 + 128 + 512;
/// Longest believable distance of the frame pointer from the stack pointer.
const FRAME_LIMIT: u64 = 1 << 20;

/// A frame record: where the frame pointer points to.
struct Record {
    at: u64,
    return_address: u64,
    previous: u64,
}

impl Unwinder<'_> {
    pub(super) fn by_guess(&self, here: &Here<'_>, memory: &dyn Memory, cache: &mut Cache) -> Step {
        let registers = here.registers;
        let (pc, exact) = (here.pc, here.exact);
        if self.is_start(here.lookup) {
            return Err(Stop::End);
        }
        let Some(sp) = registers.sp() else {
            return Err(Stop::NoRule);
        };
        let ground = self.ground(pc);
        if exact && let Some(step) = self.by_bad_call(registers, ground, sp, memory) {
            return step;
        }
        let record = self.frame_record(registers, sp, memory);
        // In a leaf that has not set up its frame pointer (or has none at all) the record is that of the
        // caller and would skip it: for an exact pc, look below the record first.
        if let Some(record) = record.as_ref().filter(|_| !exact) {
            return match self.handler_below(registers, sp, record, memory) {
                Some(step) => step,
                None => self.pop_record(registers, record, memory),
            };
        }
        if registers.machine().link_register().is_some()
            && exact
            && let Some(step) = self.by_link_register(registers, ground, record.as_ref(), memory)
        {
            return step;
        }
        if registers.machine() == Machine::Ppc64Le {
            return self.by_back_chain(registers, sp, memory);
        }
        if registers.machine() == Machine::S390x {
            return Err(Stop::NoRule);
        }
        match self.scan(here, sp, record.as_ref(), memory, cache) {
            Some(step) => step,
            // musl clears the frame pointer in the first function of a thread.
            None if registers.fp() == Some(Avma(0)) => Err(Stop::End),
            None => Err(Stop::NoRule),
        }
    }

    /// Whether `at` lies in the `_start` of a program or of the dynamic loader, which nothing called.
    fn is_start(&self, at: Avma) -> bool {
        let place = self.module_at(at).and_then(|index| self.places.get(index));
        let Some((place, bias)) = place.and_then(|place| Some((place, place.bias?))) else {
            return false;
        };
        let range = place.start.get_or_init(|| {
            let is_started = matches!(
                place.loaded.module.kind,
                ModuleKind::Executable | ModuleKind::Loader
            );
            let object = place.loaded.object.as_ref().filter(|_| is_started)?;
            let entry = object.entry().0;
            let limit = entry.checked_add(START_SIZE)?;
            // Without a C library the next function may begin before that.
            let inside = |at: Svma, _| at.0 > entry && at.0 < limit;
            let next = object.symbols_where(inside).into_iter();
            let next = next.map(|symbol| symbol.address.0).min();
            Some(entry..next.unwrap_or(limit))
        });
        let at = at.0.wrapping_sub(bias);
        range.as_ref().is_some_and(|range| range.contains(&at))
    }

    /// A call of a null or wild pointer: nothing ran there, so the return address is untouched.
    fn by_bad_call(
        &self,
        registers: &Registers,
        ground: Ground,
        sp: Avma,
        memory: &dyn Memory,
    ) -> Option<Step> {
        if matches!(ground, Ground::Code | Ground::Unseen) {
            return None;
        }
        let machine = registers.machine();
        if machine.link_register().is_some() {
            let address = registers.link()?;
            let called = self.is_return_address(machine, address, None, memory);
            return called.then(|| step_to(registers.clone(), sp.0, address, FrameTrust::BadCall));
        }
        let address = memory.read_word(sp, machine.register_encoding())?;
        if !self.is_return_address(machine, address, None, memory) {
            return None;
        }
        Some(step_to(
            registers.clone(),
            sp.0.checked_add(machine.register_encoding().word_size() as u64)?,
            address,
            FrameTrust::BadCall,
        ))
    }

    /// The caller of a leaf. After a call of its own, a function finds its own address in the link register (x30 of
    /// aarch64), or the one that its frame record states.
    fn by_link_register(
        &self,
        registers: &Registers,
        ground: Ground,
        record: Option<&Record>,
        memory: &dyn Memory,
    ) -> Option<Step> {
        let (machine, pc) = (registers.machine(), registers.pc()?);
        let address = registers.link()?;
        let is_own =
            pc.0.checked_sub(address)
                .is_some_and(|above| above < FUNCTION_REACH);
        let is_popped = record.is_some_and(|record| record.return_address == address);
        let called = match self.ground(Avma(address.checked_sub(1)?)) {
            Ground::Code => {
                self.follows_call(machine, address, Some(pc.0), memory)
                    || (!is_own && !is_popped && self.follows_call(machine, address, None, memory))
            }
            // No bytes to check it.
            Ground::Unseen => !is_own && !is_popped && ground == Ground::Unseen,
            Ground::Data | Ground::Outside => false,
        };
        called.then(|| {
            let sp = registers.sp().map_or(0, |sp| sp.0);
            let mut caller = registers.clone();
            if let Some(link) = machine.link_register() {
                caller.set(link, None);
            }
            step_to(caller, sp, address, FrameTrust::FramePointer)
        })
    }

    /// ppc64: the word at the stack pointer is the caller's stack pointer, and two words above that one is the return
    /// address (64-bit ELF V2 ABI, 2.2.2.1). Every function with a frame keeps that.
    fn by_back_chain(&self, registers: &Registers, sp: Avma, memory: &dyn Memory) -> Step {
        let words = registers.machine().register_encoding();
        let step = || {
            let above = memory.read_word(sp, words).filter(|above| *above > sp.0)?;
            let address = memory.read_word(Avma(above.checked_add(16)?), words)?;
            let returns = self.may_be_returned_to(registers.machine(), address, memory);
            let caller = registers.of_other_frame();
            returns.then(|| step_to(caller, above, address, FrameTrust::FramePointer))
        };
        step().unwrap_or(Err(Stop::NoRule))
    }

    /// x86_64: saved rbp, return address. aarch64: saved x29, x30. The same two words, where the frame pointer points
    /// to. riscv64: s0 points behind them.
    fn frame_record(&self, registers: &Registers, sp: Avma, memory: &dyn Memory) -> Option<Record> {
        let at = registers
            .fp()
            .filter(|_| has_frame_records(registers.machine()))?;
        let at = match registers.machine() {
            Machine::Riscv64 => Avma(at.0.checked_sub(record_size(Machine::Riscv64))?),
            _ => at,
        };
        at.checked_sub(sp)
            .filter(|distance| *distance < FRAME_LIMIT)?;
        let machine = registers.machine();
        let words = machine.register_encoding();
        let previous = memory.read_word(at, words)?;
        let after = at.checked_add(words.word_size() as u64)?;
        let return_address = registers.plain_address(memory.read_word(after, words)?);
        let before = Avma(return_address.checked_sub(1)?);
        let leads_up = previous > at.0;
        let found = (after.0, return_address);
        let backed = match self.ground(before) {
            _ if handler_returns_to(self, machine, found, memory).is_some() => true,
            Ground::Data => false,
            // No bytes to check: then the chain itself must make sense.
            Ground::Unseen => previous == 0 || leads_up,
            Ground::Code => self.follows_call(machine, return_address, None, memory),
            // Generated code also returns to places that it jumps to otherwise.
            Ground::Outside => {
                (leads_up && memory.is_executable(before) == Some(true))
                    || self.follows_call(machine, return_address, None, memory)
            }
        };
        backed.then_some(Record {
            at: at.0,
            return_address,
            previous,
        })
    }

    pub(super) fn is_return_address(
        &self,
        machine: Machine,
        address: u64,
        target: Option<u64>,
        memory: &dyn Memory,
    ) -> bool {
        let before = address.checked_sub(1).map(Avma);
        before.is_some_and(|before| self.ground(before) == Ground::Code)
            && self.follows_call(machine, address, target, memory)
    }

    /// Whether a step to `address` makes sense where nothing but the address speaks for it.
    pub(super) fn may_be_returned_to(
        &self,
        machine: Machine,
        address: u64,
        memory: &dyn Memory,
    ) -> bool {
        let Some(before) = address.checked_sub(1).map(Avma) else {
            return false;
        };
        match self.ground(before) {
            Ground::Code | Ground::Outside => self.follows_call(machine, address, None, memory),
            Ground::Unseen => true,
            Ground::Data => false,
        }
    }

    /// The nearest return address on the stack, up to the frame record. Older calls have left theirs there
    /// too: those are preferred whose call leads to the callee, and whose own callers agree.
    fn scan(
        &self,
        here: &Here<'_>,
        sp: Avma,
        record: Option<&Record>,
        memory: &dyn Memory,
        cache: &mut Cache,
    ) -> Option<Step> {
        let (registers, pc) = (here.registers, here.pc);
        let machine = registers.machine();
        let encoding = machine.register_encoding();
        let size = encoding.word_size();
        let start = sp.0.checked_next_multiple_of(size as u64)?;
        let limit = record.map_or(u64::MAX, |record| {
            record.at.saturating_add(record_size(machine))
        });
        let find = |bytes: usize, is_caller: &mut dyn FnMut(u64, u64) -> bool| {
            let steps = (start..limit).step_by(STEP_BYTES).take(bytes / STEP_BYTES);
            for from in steps {
                let mut stack = [0; STEP_BYTES];
                let known = memory.read(Avma(from), &mut stack);
                let words = stack.get(..known)?.chunks_exact(size);
                let words = (from..limit).step_by(size).zip(words);
                let mut words =
                    words.filter_map(|(at, word)| Some((at, encoding.word_at(word, 0)?)));
                let found = words.find_map(|(at, word)| {
                    let address = registers.plain_address(word);
                    // Nothing called a signal handler. What is above it belongs to what it interrupted.
                    let is_found = is_caller(at, address)
                        || handler_returns_to(self, machine, (at, address), memory).is_some();
                    is_found.then_some((at, address))
                });
                if found.is_some() || known < STEP_BYTES {
                    return found;
                }
            }
            None
        };
        let follows = |target, address| self.is_return_address(machine, address, target, memory);
        let missing = self
            .module_at(pc)
            .filter(|_| self.ground(pc) == Ground::Unseen);
        let called = match missing {
            Some(callee) => find(SCAN_BYTES, &mut |at, address| {
                follows(None, address)
                    && self.calls_into(address, callee, memory)
                    && self.agrees(guessed(registers, at, address), memory, cache)
            }),
            None => find(STEP_BYTES, &mut |_, address| follows(Some(pc.0), address)),
        };
        // A record leads to the caller, unless the call before its return address leads to another function.
        let is_sure = |record: &&Record| !self.calls_elsewhere(record, pc, machine, memory);
        let found = called.or_else(|| {
            if record.is_some_and(|record| is_sure(&record)) {
                return None;
            }
            let agreeing = find(SCAN_BYTES, &mut |at, address| {
                follows(None, address)
                    && !self.calls_own_code(machine, address, missing, memory)
                    && self.agrees(guessed(registers, at, address), memory, cache)
            });
            agreeing.or_else(|| find(SCAN_BYTES, &mut |_, address| follows(None, address)))
        });
        match (found, record) {
            (Some((at, _)), Some(record)) if record.at.checked_add(size as u64) == Some(at) => {
                Some(self.pop_record(registers, record, memory))
            }
            (Some((at, address)), _) => {
                let mut caller = guessed(registers, at, address);
                if let Some(sp) = handler_returns_to(self, machine, (at, address), memory) {
                    caller.set(caller.sp_number(), Some(sp.0));
                }
                Some(Ok(Caller {
                    registers: caller,
                    trust: FrameTrust::Scan,
                    over_signal: false,
                }))
            }
            (None, record) => record.map(|record| self.pop_record(registers, record, memory)),
        }
    }

    /// The end of a signal handler that keeps no frame pointer: the record is one of what it interrupted.
    fn handler_below(
        &self,
        registers: &Registers,
        sp: Avma,
        record: &Record,
        memory: &dyn Memory,
    ) -> Option<Step> {
        let space = record.at.checked_sub(sp.0)?;
        if registers.machine() != Machine::X86_64 || space < SIGNAL_FRAME {
            return None;
        }
        let last = record.at.checked_sub(SIGNAL_FRAME)?;
        let bytes = usize::try_from(last.checked_sub(sp.0)?.min(SCAN_BYTES as u64)).ok()?;
        let mut stack = vec![0; bytes];
        let known = memory.read(sp, &mut stack);
        let (words, _) = stack.get(..known)?.as_chunks::<8>();
        let found = (sp.0..).step_by(8).zip(words).find_map(|(at, word)| {
            let found = (at, u64::from_le_bytes(*word));
            handler_returns_to(self, Machine::X86_64, found, memory).map(|_| found)
        });
        let (at, address) = found?;
        let caller = guessed(registers, at, address);
        Some(Ok(Caller {
            registers: caller,
            trust: FrameTrust::Scan,
            over_signal: false,
        }))
    }

    fn pop_record(&self, registers: &Registers, record: &Record, memory: &dyn Memory) -> Step {
        let machine = registers.machine();
        let mut caller = registers.of_other_frame();
        caller.set(caller.fp_number(), Some(record.previous));
        let above = record.at.saturating_add(record_size(machine));
        let found = (record.at.saturating_add(8), record.return_address);
        let sp = match (handler_returns_to(self, machine, found, memory), machine) {
            (Some(sp), _) => sp.0,
            // aarch64 has the record at the bottom of a frame, and the rest of the frame above it. The caller's
            // own record is at the bottom of the caller's frame.
            (None, Machine::Aarch64) => record.previous.max(above),
            (None, _) => above,
        };
        step_to(caller, sp, record.return_address, FrameTrust::FramePointer)
    }

    /// Whether the callers of a guessed frame agree with one another: each returns to behind a call, and a
    /// call of a known function is a call of the one that returns. Where a stale frame meets one that is
    /// live, they do not.
    fn agrees(&self, guess: Registers, memory: &dyn Memory, cache: &mut Cache) -> bool {
        let machine = guess.machine();
        let mut registers = guess;
        // It may be stale: what follows from it refutes nothing.
        registers.set(registers.fp_number(), None);
        for _ in 0..AGREEING {
            cache.compared = cache.compared.saturating_add(1);
            if cache.compared > MAX_COMPARED {
                return false;
            }
            let Some(pc) = registers.pc() else {
                return false;
            };
            let lookup = Avma(pc.0.saturating_sub(1));
            let caller = match self.by_cfi(lookup, &registers, memory, cache) {
                Some(Ok(caller)) if !caller.over_signal => caller.registers,
                Some(Ok(_) | Err(_)) | None => return true,
            };
            let next = caller.pc().map_or(0, |pc| pc.0);
            if next == 0 {
                return true;
            }
            if caller.sp() <= registers.sp() || !self.may_be_returned_to(machine, next, memory) {
                return false;
            }
            let called = self.called_function(machine, next, memory);
            let own = self.function_start(lookup);
            if called.zip(own).is_some_and(|(called, own)| called != own) {
                return false;
            }
            registers = caller;
        }
        true
    }

    /// Whether the call before `address` leads to code of a file that is there, and so not to the module
    /// `missing`.
    fn calls_own_code(
        &self,
        machine: Machine,
        address: u64,
        missing: Option<usize>,
        memory: &dyn Memory,
    ) -> bool {
        let called = missing.and_then(|_| self.called_function(machine, address, memory));
        called.is_some_and(|called| self.ground(called) == Ground::Code)
    }

    /// Whether the call that a record returns to leads to another module than that of `pc`, whose file is
    /// missing: then the record belongs to one of its callers.
    fn calls_elsewhere(
        &self,
        record: &Record,
        pc: Avma,
        machine: Machine,
        memory: &dyn Memory,
    ) -> bool {
        if self.ground(pc) != Ground::Unseen {
            return false;
        }
        let called = self.called_function(machine, record.return_address, memory);
        called.is_some_and(|called| {
            self.ground(called) == Ground::Code && self.module_at(called) != self.module_at(pc)
        })
    }
}

/// The registers of a caller whose return address was found at `at`. What frames in between did to others
/// is not known. The frame pointer is checked when it is used.
fn guessed(registers: &Registers, at: u64, address: u64) -> Registers {
    let mut caller = registers.of_other_frame();
    let fp = registers.fp().filter(|fp| fp.0 == 0 || fp.0 > at);
    caller.set(caller.fp_number(), fp.map(|fp| fp.0));
    let size = registers.machine().register_encoding().word_size();
    caller.set(caller.sp_number(), at.checked_add(size as u64));
    caller.set(caller.pc_number(), Some(address));
    caller
}

/// Whether frames have the caller's frame pointer and the return address side by side. Other machines have no frame
/// pointer, or keep it elsewhere. s390x also keeps the return address at no fixed distance from the caller's frame, so
/// that a scan would not find where that begins.
fn has_frame_records(machine: Machine) -> bool {
    matches!(
        machine,
        Machine::X86_64 | Machine::Aarch64 | Machine::Riscv64 | Machine::I386 | Machine::X32
    )
}

/// Bytes of a frame record.
fn record_size(machine: Machine) -> u64 {
    (machine.register_encoding().word_size() as u64).saturating_mul(2)
}

fn step_to(mut caller: Registers, sp: u64, pc: u64, trust: FrameTrust) -> Step {
    caller.set(caller.sp_number(), Some(sp));
    caller.set(caller.pc_number(), Some(pc));
    Ok(Caller {
        registers: caller,
        trust,
        over_signal: false,
    })
}
