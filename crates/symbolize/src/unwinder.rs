//! Turns the registers of a thread and the process's memory into a list of frames.
//!
//! Call frame information comes first. Where a module has none, or its file is missing, the frame
//! pointer is followed, and at last the stack is scanned for a return address. Each frame records which
//! it was. After a scan, every frame is a guess, and a step is only taken if it leads up the stack to an
//! address that follows a call.
//!
//! The invariant that ends every unwind: the stack pointer of a caller lies above that of its callee.
//! A step across a signal or to another stack may lead down; from then on a pair of pc and sp that
//! repeats ends the unwind. It needs no symbols, except those of Go's runtime that switch stacks.

mod cfi;
mod code;
mod exception_index;
mod go_runtime;
mod guess;
mod original_signal;
mod pc_table;
mod piece;
mod signal_frame;
mod sigreturn;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::sync::{Mutex, OnceLock, PoisonError};

use cdh_elfcore::{Avma, Machine, Memory, Registers, Svma};

use crate::LoadedModule;
use cfi::{Cache, ModuleCfi};
use code::Ground;
use go_runtime::GoFunction;
pub use original_signal::{NestedSignal, OriginalSignal};
use piece::PieceMemory;

/// Signals by number (`signal(7)`).
const SIGILL: i32 = 4;
const SIGTRAP: i32 = 5;
const SIGABRT: i32 = 6;
const SIGBUS: i32 = 7;
const SIGFPE: i32 = 8;
const SIGSEGV: i32 = 11;
const SIGSYS: i32 = 31;

/// What most stacks of waiting threads have at most.
const USUAL_FRAMES: usize = 12;

/// How a frame was found, from the surest to a guess.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum FrameTrust {
    /// The thread's own registers: frame 0.
    Registers,
    /// Call frame information of the callee.
    Cfi,
    /// Registers that the kernel saved when it delivered a signal.
    Signal,
    /// The callee's address is not code: it was called, and the return address was still in its place.
    BadCall,
    /// The frame pointer chain.
    FramePointer,
    /// A word on the stack that follows a call instruction, so it may be stale; and every frame above one, up to
    /// the registers that the kernel saved for a signal.
    Scan,
}

/// Why there are no more frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Stop {
    /// The outermost frame: its caller is stated not to exist.
    End,
    /// The return address or a saved register is needed and this memory is not there.
    NoMemory(Avma),
    /// Neither call frame information nor a guess led on.
    NoRule,
    /// The same pc and sp were seen before: the stack is damaged.
    Loop,
    /// As many frames as were asked for.
    Limit,
}

/// A frame before it has a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnwoundFrame {
    /// Program counter.
    pub pc: Avma,
    /// Stack pointer.
    pub sp: Option<Avma>,
    /// How it was found.
    pub trust: FrameTrust,
    /// Index of the module it lies in.
    pub module: Option<usize>,
    /// `pc` as the module's file states it, where the load address is known.
    pub svma: Option<Svma>,
    /// Whether `pc` follows a call, so that `pc - 1` belongs to the caller and `pc` may not.
    pub is_return_address: bool,
    /// The trampoline between a signal handler and the code that the signal interrupted.
    pub signal_frame: bool,
}

/// A frame with what is known of its registers.
#[derive(Clone, Debug)]
pub struct FrameRegisters {
    /// The frame.
    pub frame: UnwoundFrame,
    /// Registers as they were in this frame. Those that a callee may have changed without saving them are unknown.
    pub registers: Registers,
    /// As `registers`, with those that no callee is known to have saved: they have this value if a compiler says that
    /// no callee changes them (GCC, `-fipa-ra`).
    pub inherited: Registers,
    /// The canonical frame address, if call frame information describes it.
    pub cfa: Option<Avma>,
}

impl UnwoundFrame {
    /// The address to look up: inside the call instruction for return addresses.
    #[must_use]
    pub fn lookup(&self) -> Avma {
        Avma(self.pc.0.saturating_sub(u64::from(self.is_return_address)))
    }

    /// The address to look up in the module's file.
    #[must_use]
    pub fn lookup_svma(&self) -> Option<Svma> {
        let svma = self.svma?;
        Some(Svma(svma.0.wrapping_sub(u64::from(self.is_return_address))))
    }
}

/// Unwinds threads of one process. Threads can share it.
pub struct Unwinder<'m> {
    places: Vec<Place<'m>>,
    /// Start, end and index in `places` of every mapped range, in address order.
    ranges: Vec<(u64, u64, usize)>,
    caches: Mutex<Vec<Cache>>,
}

/// A module with its load address and its unwind tables.
struct Place<'m> {
    loaded: &'m LoadedModule<'m>,
    bias: Option<u64>,
    cfi: OnceLock<ModuleCfi<'m>>,
    go: OnceLock<Option<crate::go::GoTable<'m>>>,
    /// Addresses of `_start`, where the file is a program or the dynamic loader.
    start: OnceLock<Option<std::ops::Range<u64>>>,
}

/// Known and inherited registers of a frame, and its canonical frame address.
type Context = (Registers, Registers, Option<Avma>);

/// What one step up the stack found.
type Step = Result<Caller, Stop>;

struct Caller {
    registers: Registers,
    trust: FrameTrust,
    /// The callee was a signal trampoline: the caller's pc is exact, its stack may be another one.
    over_signal: bool,
}

/// A frame whose caller is searched.
struct Here<'r> {
    registers: &'r Registers,
    pc: Avma,
    /// The address whose rule applies.
    lookup: Avma,
    /// Whether `pc` is an instruction that has not called anything.
    exact: bool,
    /// Whether registers may be wrong: a frame before this one was found without its rule.
    doubtful: bool,
}

impl<'m> Unwinder<'m> {
    /// Prepares unwinding; tables are parsed when the first frame needs them.
    #[must_use]
    pub fn new(modules: &'m [LoadedModule<'m>]) -> Self {
        let place = |loaded: &'m LoadedModule<'m>| Place {
            bias: loaded.bias(),
            loaded,
            cfi: OnceLock::new(),
            go: OnceLock::new(),
            start: OnceLock::new(),
        };
        let mut ranges: Vec<(u64, u64, usize)> = modules
            .iter()
            .enumerate()
            .flat_map(|(index, loaded)| {
                loaded
                    .module
                    .ranges
                    .iter()
                    .map(move |range| (range.start.0, range.end.0, index))
            })
            .collect();
        ranges.sort_unstable();
        Self {
            places: modules.iter().map(place).collect(),
            ranges,
            caches: Mutex::default(),
        }
    }

    /// Index of the module that `at` lies in.
    #[must_use]
    pub fn module_at(&self, at: Avma) -> Option<usize> {
        let next = self.ranges.partition_point(|range| range.0 <= at.0);
        let (_, end, index) = self.ranges.get(next.checked_sub(1)?)?;
        (at.0 < *end).then_some(*index)
    }

    /// Frames of a thread, innermost first, at most `limit`, and why there are no more.
    #[must_use]
    pub fn unwind(
        &self,
        thread: &Registers,
        memory: &dyn Memory,
        limit: usize,
    ) -> (Vec<UnwoundFrame>, Stop) {
        let (frames, ends) = self.unwind_many([(thread, limit)].into_iter(), memory);
        let stop = ends.first().map_or(Stop::NoRule, |(_, stop)| *stop);
        (frames, stop)
    }

    /// As [`Self::unwind`], with the registers of each frame.
    #[must_use]
    pub fn unwind_with_registers(
        &self,
        thread: &Registers,
        memory: &dyn Memory,
        limit: usize,
    ) -> (Vec<FrameRegisters>, Stop) {
        let memory = &PieceMemory::over(memory);
        let mut cache = self.caches().pop().unwrap_or_default();
        let (mut frames, mut contexts) = (Vec::new(), Vec::new());
        let all = Some(&mut contexts);
        let stop = self.climb((thread, true), memory, limit, &mut cache, &mut frames, all);
        self.caches().push(cache);
        let with_registers = |(frame, (registers, inherited, cfa))| FrameRegisters {
            frame,
            registers,
            inherited,
            cfa,
        };
        let all = frames.into_iter().zip(contexts).map(with_registers);
        (all.collect(), stop)
    }

    /// The frames of several threads, each with a limit of its own, one behind the other; and for each
    /// thread where its frames end, and why there are no more.
    pub(crate) fn unwind_many<'t>(
        &self,
        threads: impl ExactSizeIterator<Item = (&'t Registers, usize)>,
        memory: &dyn Memory,
    ) -> (Vec<UnwoundFrame>, Vec<(usize, Stop)>) {
        let memory = &PieceMemory::over(memory);
        let mut cache = self.caches().pop().unwrap_or_default();
        // One allocation for most: those of many threads at a time wait for one another in the kernel.
        let mut frames = Vec::with_capacity(threads.len().saturating_mul(USUAL_FRAMES));
        let mut ends = Vec::with_capacity(threads.len());
        for (thread, limit) in threads {
            let stop = self.climb((thread, true), memory, limit, &mut cache, &mut frames, None);
            ends.push((frames.len(), stop));
        }
        self.caches().push(cache);
        (frames, ends)
    }

    /// As [`Self::unwind`] for many contexts that a scheduler saved: their pc follows a call, unless a function
    /// begins there that was not entered yet. For each context, where its frames end and why.
    #[must_use]
    pub fn unwind_saved(
        &self,
        contexts: &[Registers],
        memory: &dyn Memory,
        limit: usize,
    ) -> (Vec<UnwoundFrame>, Vec<(usize, Stop)>) {
        let memory = &PieceMemory::over(memory);
        let mut cache = self.caches().pop().unwrap_or_default();
        let mut frames = Vec::with_capacity(contexts.len().saturating_mul(USUAL_FRAMES));
        let mut ends = Vec::with_capacity(contexts.len());
        for context in contexts {
            let begins = context.pc().is_some_and(|pc| self.begins_at(pc));
            let stop = self.climb(
                (context, begins),
                memory,
                limit,
                &mut cache,
                &mut frames,
                None,
            );
            ends.push((frames.len(), stop));
        }
        self.caches().push(cache);
        (frames, ends)
    }

    /// Whether a function begins at `pc`.
    fn begins_at(&self, pc: Avma) -> bool {
        let of_go = self.go_entry(pc);
        of_go.or_else(|| self.function_start(pc)) == Some(pc)
    }

    fn caches(&self) -> std::sync::MutexGuard<'_, Vec<Cache>> {
        self.caches.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn climb(
        &self,
        // Whether its pc is that of the next instruction, not a return address.
        (thread, mut exact): (&Registers, bool),
        memory: &dyn Memory,
        limit: usize,
        cache: &mut Cache,
        frames: &mut Vec<UnwoundFrame>,
        mut contexts: Option<&mut Vec<Context>>,
    ) -> Stop {
        let mut known = thread.clone();
        let limit = frames.len().saturating_add(limit);
        cache.compared = 0;
        let mut registers = thread.clone();
        let mut trust = FrameTrust::Registers;
        let (mut doubtful, mut turned) = (false, false);
        let mut passed = HashSet::new();
        loop {
            let Some(pc) = registers.pc() else {
                return Stop::NoRule;
            };
            // A pc of 0 is the bottom of the stack, unless it was called or jumped to just now.
            if pc.0 == 0 && !exact {
                return Stop::End;
            }
            if frames.len() >= limit {
                return Stop::Limit;
            }
            let signal_frame = sigreturn::is_trampoline(self, pc, &registers, memory, cache);
            let mut frame = self.frame(&registers, pc, trust, !exact && !signal_frame);
            frame.signal_frame = signal_frame;
            let mut here = Here {
                registers: &registers,
                pc,
                lookup: frame.lookup(),
                exact,
                doubtful,
            };
            let runtime = self.go_runtime(here.lookup, cache);
            let step = match runtime {
                _ if signal_frame => sigreturn::interrupted(self, &registers, memory),
                Some(function) if function.switches_stacks() => {
                    self.across_go_stacks(&here, function, memory, cache)
                }
                _ => self.step(&here, memory, cache),
            };
            let step = match step {
                // Nothing was called: a context was made that begins with this function.
                _ if !here.exact
                    && cache.has_no_rule(here.lookup)
                    && self.function_start(pc) == Some(pc) =>
                {
                    frame = self.frame(&registers, pc, trust, false);
                    (here.lookup, here.exact, exact) = (pc, true, true);
                    self.step(&here, memory, cache)
                }
                step => step,
            };
            let caller = match step {
                Ok(caller) => caller,
                Err(stop) => {
                    frames.push(frame);
                    if let Some(contexts) = contexts {
                        contexts.push((known, registers, None));
                    }
                    return stop;
                }
            };
            if caller.over_signal && !frame.signal_frame {
                frame = self.frame(&registers, pc, trust, false);
                frame.signal_frame = true;
            }
            frames.push(frame);
            if let Some(contexts) = contexts.as_deref_mut() {
                let by_rule = caller.trust == FrameTrust::Cfi;
                let cfa = caller.registers.sp().filter(|_| by_rule);
                let caller = preserved(&registers, &caller);
                let known = std::mem::replace(&mut known, caller);
                contexts.push((known, registers.clone(), cfa));
            }
            // Only a leaf that keeps its return address in a register needs no stack.
            let (from, to) = (registers.sp(), caller.registers.sp());
            let leads_up = to > from || (to == from && exact && caller.registers.pc() != Some(pc));
            turned |= !leads_up;
            if turned && !passed.insert((caller.registers.pc(), to)) {
                return Stop::Loop;
            }
            // What the kernel saved does not depend on how it was found.
            let is_guess = !caller.over_signal
                && (trust == FrameTrust::Scan || caller.trust == FrameTrust::Scan);
            doubtful |= is_guess || caller.trust == FrameTrust::FramePointer;
            doubtful &= !caller.over_signal;
            // Go's signal handler makes the fault look like a call, without a call instruction.
            exact = caller.over_signal || runtime == Some(GoFunction::Fault);
            trust = match is_guess {
                true => FrameTrust::Scan,
                false => caller.trust,
            };
            registers = caller.registers;
        }
    }

    fn frame(
        &self,
        registers: &Registers,
        pc: Avma,
        trust: FrameTrust,
        after_call: bool,
    ) -> UnwoundFrame {
        let mut frame = UnwoundFrame {
            pc,
            sp: registers.sp(),
            trust,
            module: None,
            svma: None,
            is_return_address: after_call,
            signal_frame: false,
        };
        frame.module = self.module_at(frame.lookup());
        let bias = frame.module.and_then(|index| self.places.get(index)?.bias);
        frame.svma = bias.map(|bias| Svma(pc.0.wrapping_sub(bias)));
        frame
    }

    fn step(&self, here: &Here<'_>, memory: &dyn Memory, cache: &mut Cache) -> Step {
        let Some(step) = self.by_cfi(here.lookup, here.registers, memory, cache) else {
            return self.by_guess(here, memory, cache);
        };
        match step {
            Ok(caller) => match self.doubt(here, &caller, memory) {
                None => Ok(caller),
                Some(Doubt::WrongRegisters) => self.by_guess(here, memory, cache),
                Some(Doubt::NoCode) => Err(Stop::NoRule),
            },
            Err(Stop::NoRule | Stop::NoMemory(_)) if here.doubtful => {
                self.by_guess(here, memory, cache)
            }
            Err(stop) => Err(stop),
        }
    }

    /// Why the caller that a rule leads to is not one.
    fn doubt(&self, here: &Here<'_>, caller: &Caller, memory: &dyn Memory) -> Option<Doubt> {
        let pc = caller.registers.pc()?;
        let (from, to) = (here.registers.sp(), caller.registers.sp());
        if caller.over_signal {
            return None;
        }
        let leads_up = to > from || (to == from && here.exact && pc != here.pc);
        let wrong = || {
            let returns = self.may_be_returned_to(here.registers.machine(), pc.0, memory);
            (!returns).then_some(Doubt::WrongRegisters)
        };
        match (leads_up, here.doubtful) {
            (true, true) => wrong(),
            (false, true) => Some(Doubt::WrongRegisters),
            // Another stack.
            (false, false) => wrong(),
            (true, false) => {
                let is_data = match self.ground(pc) {
                    Ground::Code | Ground::Unseen => false,
                    Ground::Data => true,
                    Ground::Outside => memory.is_executable(pc) == Some(false),
                };
                is_data.then_some(Doubt::NoCode)
            }
        }
    }
}

/// The registers of a caller that are surely its own: a callee may change some without saving them (System V psABI
/// for x86_64, figure 3.4; AAPCS64, 6.1.1), and then nothing says what the caller had in them.
fn preserved(callee: &Registers, caller: &Caller) -> Registers {
    const X86_64: &[u16] = &[0, 1, 2, 4, 5, 8, 9, 10, 11];
    const AARCH64: &[u16] = &[
        0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 30,
    ];
    let mut registers = caller.registers.clone();
    // After a signal, and after a call that led nowhere, nothing was changed.
    if caller.over_signal || caller.trust == FrameTrust::BadCall {
        return registers;
    }
    let changeable = match registers.machine() {
        Machine::X86_64 | Machine::X32 => X86_64,
        Machine::Aarch64 => AARCH64,
        // Variables are not shown there.
        _ => &[],
    };
    for &number in changeable {
        if registers.get(number) == callee.get(number) {
            registers.set(number, None);
        }
    }
    registers
}

/// Why a step is not taken.
enum Doubt {
    /// It was computed from registers that are not those of the frame.
    WrongRegisters,
    /// It leads to mapped memory that is not code: the frame has no caller.
    NoCode,
}
