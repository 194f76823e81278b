//! Functions of Go's runtime whose caller their unwind tables do not describe, for they run on another stack.
//!
//! `systemstack` and `morestack` run a function on the stack of their thread (`g0`) and save the goroutine's
//! place in its `g.sched`. `asmcgocall` calls C on the same stack and saves the goroutine's stack pointer
//! there. If these places do not agree with one another, the stack ends: the word in the place of the
//! return address is data.
//!
//! Layouts: `runtime/runtime2.go` (`g`, `m`, `gobuf`) and `runtime/asm_amd64.s`, from Go 1.12 to 1.27.

use cdh_elfcore::{Avma, Machine, Memory, Registers, Svma};

use super::cfi::Cache;
use super::{Caller, FrameTrust, Here, Step, Stop, Unwinder};
use crate::go::GoTable;

/// `g.stack.hi`, `g.m`, `g.sched.sp` and `g.sched.pc`.
const G_STACK_HI: u64 = 8;
const G_M: u64 = 48;
const G_SCHED_SP: u64 = 56;
const G_SCHED_PC: u64 = 64;
/// `m.g0` and `m.curg`.
const M_G0: u64 = 0;
/// Since 1.25 it is a word less.
const M_CURG: [u64; 2] = [192, 184];
/// Where `asmcgocall` puts the distance of the goroutine's stack pointer from the end of its stack, and
/// its `g`; the stack pointer itself where there was no `g`.
const CALL_DEPTH: u64 = 40;
const CALL_G: u64 = 48;
/// DWARF number of r14, which holds `g` in Go code (x86_64).
const R14: u16 = 14;

/// Functions remembered by address.
const CACHE_LIMIT: usize = 1 << 16;

/// A function of the runtime that is unwound in its own way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum GoFunction {
    /// Its return address is the instruction that faulted or was preempted.
    Fault,
    /// Calls a function on the thread's own stack, for the goroutine that called it.
    SystemStack,
    /// Calls `newstack` on the thread's own stack, for the function whose stack was full.
    MoreStack,
    /// Leaves the goroutine and runs the scheduler.
    Leave,
    /// Calls a C function on the thread's own stack.
    CallC,
    /// Where the program or a goroutine starts: nothing called it.
    Entry,
}

impl GoFunction {
    fn of(name: &str) -> Option<Self> {
        let name = name.strip_suffix(".abi0").unwrap_or(name);
        Some(match name.strip_prefix("runtime.")? {
            "sigpanic" | "sigpanic0" | "asyncPreempt" => Self::Fault,
            "systemstack" => Self::SystemStack,
            "morestack" => Self::MoreStack,
            "mcall" => Self::Leave,
            "asmcgocall" | "asmcgocall_no_g" => Self::CallC,
            // What lies above the stack of a goroutine is not its own.
            "rt0_go" | "goexit" => Self::Entry,
            _ => return None,
        })
    }

    /// Whether its caller is not where its unwind table says.
    pub(super) fn switches_stacks(self) -> bool {
        self != Self::Fault
    }
}

impl Unwinder<'_> {
    /// What the function at `lookup` is, where its module is a Go program.
    pub(super) fn go_runtime(&self, lookup: Avma, cache: &mut Cache) -> Option<GoFunction> {
        let place = self.places.get(self.module_at(lookup)?)?;
        let object = place.loaded.object.as_ref()?;
        let table = place.go.get_or_init(|| GoTable::open(object)).as_ref()?;
        if let Some(known) = cache.go_functions.get(&lookup.0) {
            return *known;
        }
        let found = table.function(Svma(lookup.0.wrapping_sub(place.bias?)));
        let found = found.and_then(|(_, name)| GoFunction::of(&name));
        if cache.go_functions.len() >= CACHE_LIMIT {
            cache.go_functions.clear();
        }
        cache.go_functions.insert(lookup.0, found);
        found
    }

    /// Start of the Go function at `pc`.
    pub(super) fn go_entry(&self, pc: Avma) -> Option<Avma> {
        let place = self.places.get(self.module_at(pc)?)?;
        let object = place.loaded.object.as_ref()?;
        let bias = place.bias?;
        let table = place.go.get_or_init(|| GoTable::open(object)).as_ref()?;
        let entry = table.entry(pc.0.wrapping_sub(bias))?;
        Some(Avma(entry.wrapping_add(bias)))
    }

    /// The goroutine that called `function`.
    pub(super) fn across_go_stacks(
        &self,
        here: &Here<'_>,
        function: GoFunction,
        memory: &dyn Memory,
        cache: &mut Cache,
    ) -> Step {
        let machine = here.registers.machine();
        // Before it calls, the function is on the stack that it was called on.
        if here.exact && function != GoFunction::Entry {
            return self.step(here, memory, cache);
        }
        let stop = match function {
            GoFunction::Entry | GoFunction::Leave => Stop::End,
            _ => Stop::NoRule,
        };
        if machine != Machine::X86_64 || here.doubtful {
            return Err(stop);
        }
        let callers = match function {
            GoFunction::CallC => callers_of_c(here.registers, memory),
            GoFunction::SystemStack | GoFunction::MoreStack => {
                goroutine(here.registers, function, memory)
            }
            GoFunction::Fault | GoFunction::Leave | GoFunction::Entry => None,
        };
        let is_caller = |caller: &Registers| {
            let pc = caller.pc().map_or(0, |pc| pc.0);
            self.is_return_address(machine, pc, None, memory)
        };
        let caller = callers.into_iter().flatten().flatten().find(is_caller);
        caller.map_or(Err(stop), |registers| {
            Ok(Caller {
                registers,
                trust: FrameTrust::Cfi,
                over_signal: false,
            })
        })
    }
}

fn field(memory: &dyn Memory, base: u64, offset: u64) -> Option<u64> {
    memory.read_u64(Avma(base.checked_add(offset)?))
}

fn at(sp: u64, pc: u64, g: Option<u64>) -> Registers {
    let mut registers = Registers::new(Machine::X86_64);
    registers.set(registers.sp_number(), Some(sp));
    registers.set(registers.pc_number(), Some(pc));
    registers.set(R14, g);
    registers
}

/// Callers that are possible, the first that is one counts.
type Callers = [Option<Registers>; 2];

/// The caller of a function whose stack pointer was `sp`. Its return address is on top, or since Go 1.21 below the
/// frame pointer that the function saved.
fn callers(sp: u64, g: Option<u64>, memory: &dyn Memory) -> Callers {
    let plain = || Some(at(sp.checked_add(8)?, memory.read_u64(Avma(sp))?, g));
    let framed = || {
        let pc = field(memory, sp, 8)?;
        let mut caller = at(sp.checked_add(16)?, pc, g);
        caller.set(caller.fp_number(), memory.read_u64(Avma(sp)));
        Some(caller)
    };
    [plain(), framed()]
}

fn callers_of_c(registers: &Registers, memory: &dyn Memory) -> Option<Callers> {
    let own = registers.sp()?.0;
    let g = field(memory, own, CALL_G)?;
    let left = field(memory, own, CALL_DEPTH)?;
    let sp = match g {
        0 => left,
        g => field(memory, g, G_STACK_HI)?.checked_sub(left)?,
    };
    Some(callers(sp, Some(g).filter(|g| *g != 0), memory))
}

fn goroutine(registers: &Registers, function: GoFunction, memory: &dyn Memory) -> Option<Callers> {
    let g0 = registers.get(R14)?;
    let m = field(memory, g0, G_M)?;
    if field(memory, m, M_G0)? != g0 {
        return None;
    }
    let curg = M_CURG.into_iter().find_map(|offset| {
        let curg = field(memory, m, offset).filter(|curg| *curg != 0 && *curg != g0)?;
        (field(memory, curg, G_M)? == m).then_some(curg)
    })?;
    let sp = field(memory, curg, G_SCHED_SP)?;
    if function == GoFunction::SystemStack {
        // The stated pc is that of `systemstack_switch`, which never runs.
        return Some(callers(sp, Some(curg), memory));
    }
    let pc = field(memory, curg, G_SCHED_PC)?;
    Some([Some(at(sp, pc, Some(curg))), None])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Words at addresses.
    struct Words(Vec<(u64, u64)>);

    impl Memory for Words {
        fn read(&self, at: Avma, buf: &mut [u8]) -> usize {
            let found = self.0.iter().find(|(address, _)| *address == at.0);
            match (found, buf.first_chunk_mut()) {
                (Some((_, word)), Some(buf)) => {
                    *buf = word.to_le_bytes();
                    8
                }
                _ => 0,
            }
        }
    }

    fn place(callers: Option<Callers>) -> Option<(u64, u64)> {
        let [first, _] = callers?;
        let registers = first?;
        Some((registers.sp()?.0, registers.pc()?.0))
    }

    #[test]
    fn caller_is_found_below_a_saved_frame_pointer() {
        let words = Words(vec![(0x9000, 0x9100), (0x9008, 0x40_1234)]);
        let [_, framed] = callers(0x9000, Some(0x1000), &words);
        let framed = framed.unwrap();
        assert_eq!(framed.fp(), Some(Avma(0x9100)));
        let expected = (Some(Avma(0x9010)), Some(Avma(0x40_1234)));
        assert_eq!((framed.sp(), framed.pc()), expected);
    }

    #[test]
    fn caller_of_a_c_function_is_on_the_stack_of_its_goroutine() {
        let (g, stack, system) = (0x1000, 0x8000, 0x5000);
        let mut words = vec![
            (system + CALL_G, g),
            (system + CALL_DEPTH, 0x200),
            (g + G_STACK_HI, stack),
            (stack - 0x200, 0x40_1234),
        ];
        let registers = at(system, 0x40_0000, None);
        let found = callers_of_c(&registers, &Words(words.clone()));
        assert_eq!(place(found), Some((stack - 0x1f8, 0x40_1234)));
        // Called on the thread's own stack.
        words[0].1 = 0;
        words[1].1 = stack - 0x200;
        let found = callers_of_c(&registers, &Words(words));
        assert_eq!(place(found), Some((stack - 0x1f8, 0x40_1234)));
    }

    #[test]
    fn goroutine_is_found_only_where_g_and_m_agree() {
        let (g0, m, curg) = (0x1000, 0x2000, 0x3000);
        let words = vec![
            (g0 + G_M, m),
            (m + M_G0, g0),
            (m + M_CURG[0], curg),
            (curg + G_M, m),
            (curg + G_SCHED_SP, 0x9000),
            (curg + G_SCHED_PC, 0x40_0100),
            (0x9000, 0x40_1234),
        ];
        let registers = at(0x5000, 0x40_0000, Some(g0));
        let find = |function, words: &[(u64, u64)]| {
            place(goroutine(&registers, function, &Words(words.to_vec())))
        };
        let (system, more) = (GoFunction::SystemStack, GoFunction::MoreStack);
        assert_eq!(find(system, &words), Some((0x9008, 0x40_1234)));
        assert_eq!(find(more, &words), Some((0x9000, 0x40_0100)));
        for wrong in 1..4 {
            let mut words = words.clone();
            words[wrong].1 ^= 0x40;
            assert_eq!(find(system, &words), None, "{wrong}");
        }
    }

    #[test]
    fn go_runtime_functions_are_known_by_both_of_their_names() {
        assert_eq!(
            GoFunction::of("runtime.systemstack"),
            Some(GoFunction::SystemStack)
        );
        assert_eq!(
            GoFunction::of("runtime.asmcgocall.abi0"),
            Some(GoFunction::CallC)
        );
        assert_eq!(GoFunction::of("runtime.goexit"), Some(GoFunction::Entry));
        assert_eq!(GoFunction::of("runtime.systemstack_switch"), None);
        assert_eq!(GoFunction::of("main.systemstack"), None);
    }
}
