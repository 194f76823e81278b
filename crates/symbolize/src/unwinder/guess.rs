//! Callers of code that no call frame information describes: hand-written assembly, generated code,
//! musl, a jump to an address that is no code.
//!
//! Every guess must be backed by a call instruction before the return address, where its bytes are
//! known. A module without its file is not scanned through: nothing there could be checked.

use cdh_elfcore::{Avma, Machine, Memory, Registers};

use super::code::Ground;
use super::{Caller, FrameTrust, Step, Stop, Unwinder, plain_address};

/// Bytes of stack that are searched for a return address.
const SCAN_BYTES: usize = 4096;
/// Longest believable distance of the frame pointer from the stack pointer.
const FRAME_LIMIT: u64 = 1 << 20;

/// A frame record: where the frame pointer points to.
struct Record {
    at: u64,
    return_address: u64,
    previous: u64,
}

impl Unwinder<'_> {
    pub(super) fn by_guess(&self, registers: &Registers, exact: bool, memory: &dyn Memory) -> Step {
        let (Some(pc), Some(sp)) = (registers.pc(), registers.sp()) else {
            return Err(Stop::NoRule);
        };
        let machine = registers.machine();
        let ground = self.ground(pc);
        if exact && let Some(step) = self.by_bad_call(registers, ground, sp, memory) {
            return step;
        }
        let record = self.frame_record(registers, sp, memory);
        // In a leaf that has not set up its frame pointer (or has none at all) the record is that of the
        // caller and would skip it: for an exact pc, look below the record first.
        if let Some(record) = record.as_ref().filter(|_| !exact) {
            return pop_record(registers, record);
        }
        if ground == Ground::Unseen {
            return record.map_or(Err(Stop::NoRule), |record| pop_record(registers, &record));
        }
        if machine == Machine::Aarch64
            && exact
            && let Some(step) = self.by_link_register(registers, pc, memory)
        {
            return step;
        }
        match self.scan(registers, pc, sp, record.as_ref(), memory) {
            Some(step) => step,
            // musl clears the frame pointer in the first function of a thread.
            None if registers.fp() == Some(Avma(0)) => Err(Stop::End),
            None => Err(Stop::NoRule),
        }
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
        if machine == Machine::Aarch64 {
            let address = plain_address(machine, registers.get(30)?);
            let called = self.is_return_address(machine, address, None, memory);
            return called.then(|| step_to(registers.clone(), sp.0, address, FrameTrust::BadCall));
        }
        let address = memory.read_u64(sp)?;
        if !self.is_return_address(machine, address, None, memory) {
            return None;
        }
        Some(step_to(
            registers.clone(),
            sp.0.checked_add(8)?,
            address,
            FrameTrust::BadCall,
        ))
    }

    fn by_link_register(
        &self,
        registers: &Registers,
        pc: Avma,
        memory: &dyn Memory,
    ) -> Option<Step> {
        let machine = registers.machine();
        let address = plain_address(machine, registers.get(30)?);
        // After a call of its own, a function finds its own address there.
        let called = self.is_return_address(machine, address, Some(pc.0), memory);
        called.then(|| {
            let sp = registers.sp().map_or(0, |sp| sp.0);
            step_to(registers.clone(), sp, address, FrameTrust::FramePointer)
        })
    }

    /// x86_64: saved rbp, return address. aarch64: saved x29, x30. The same two words.
    fn frame_record(&self, registers: &Registers, sp: Avma, memory: &dyn Memory) -> Option<Record> {
        let at = registers.fp()?;
        at.checked_sub(sp)
            .filter(|distance| *distance < FRAME_LIMIT)?;
        let previous = memory.read_u64(at)?;
        let machine = registers.machine();
        let return_address = plain_address(machine, memory.read_u64(at.checked_add(8)?)?);
        let before = Avma(return_address.checked_sub(1)?);
        let backed = match self.ground(before) {
            Ground::Data => false,
            // No bytes to check: then the chain itself must make sense.
            Ground::Unseen => previous == 0 || previous > at.0,
            Ground::Code | Ground::Outside => {
                self.follows_call(machine, return_address, None, memory)
            }
        };
        backed.then_some(Record {
            at: at.0,
            return_address,
            previous,
        })
    }

    fn is_return_address(
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

    /// The nearest word that follows a direct call to just before pc, else any call.
    fn scan(
        &self,
        registers: &Registers,
        pc: Avma,
        sp: Avma,
        record: Option<&Record>,
        memory: &dyn Memory,
    ) -> Option<Step> {
        let machine = registers.machine();
        let start = sp.0 & !7;
        let mut stack = vec![0; SCAN_BYTES];
        let known = memory.read(Avma(start), &mut stack);
        stack.truncate(known);
        let (words, _) = stack.as_chunks::<8>();
        let words = || {
            (start..)
                .step_by(8)
                .zip(words.iter().map(|word| u64::from_le_bytes(*word)))
                .take_while(|(at, _)| {
                    record.is_none_or(|record| *at <= record.at.saturating_add(8))
                })
        };
        for target in [Some(pc.0), None] {
            let found = words().find(|&(_, word)| {
                self.is_return_address(machine, plain_address(machine, word), target, memory)
            });
            if let Some((at, word)) = found {
                if let Some(record) = record.filter(|record| record.at.checked_add(8) == Some(at)) {
                    return Some(pop_record(registers, record));
                }
                let address = plain_address(machine, word);
                return Some(step_to(
                    registers.clone(),
                    at.checked_add(8)?,
                    address,
                    FrameTrust::Scan,
                ));
            }
            if let Some(record) = record {
                return Some(pop_record(registers, record));
            }
        }
        None
    }
}

fn pop_record(registers: &Registers, record: &Record) -> Step {
    let mut caller = registers.clone();
    caller.set(caller.fp_number(), Some(record.previous));
    step_to(
        caller,
        record.at.saturating_add(16),
        record.return_address,
        FrameTrust::FramePointer,
    )
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
