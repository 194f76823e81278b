//! Whether a thread crashed because its stack was full.
//!
//! The kernel only reports an access to an address that is not accessible. It was a stack overflow if the address
//! is just below a stack: in the guard pages of a thread's stack, or in the gap below the main one.

use std::fmt;

use crate::{Avma, CoreHead, Registers, Segment, SignalInfo};

const SIGSEGV: i32 = 11;
/// The kernel could not put a signal's frame onto the stack, and names no address (`force_fatal_sig`).
const SI_KERNEL: i32 = 0x80;
/// Address of 16 random bytes that the kernel puts onto the main stack (`getauxval(3)`).
const AT_RANDOM: u64 = 25;
/// How far below its stack pointer a program writes without having moved it: `-fstack-check` probes three pages
/// and more ahead (`STACK_CHECK_PROTECT` in GCC), aarch64 stores before it moves the pointer.
const AHEAD: u64 = 64 << 10;

/// A thread whose stack was full when it crashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct StackOverflow {
    /// The thread.
    pub tid: u32,
    /// The address below the stack that it used.
    pub address: Avma,
    /// The stack's lowest address.
    pub stack_start: Avma,
    /// Bytes of the stack.
    pub stack_size: u64,
}

impl fmt::Display for StackOverflow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let below = self.stack_start.0.saturating_sub(self.address.0);
        let (tid, start) = (self.tid, self.stack_start);
        let kib = self.stack_size >> 10;
        write!(
            f,
            "stack overflow: the address is {below} bytes below the stack of thread {tid}, which is full ({kib} KiB from {start})"
        )
    }
}

impl CoreHead {
    /// The stack overflow that the first thread died of; `None` if it died of something else.
    #[must_use]
    pub fn stack_overflow(&self) -> Option<StackOverflow> {
        let thread = self.threads().first()?;
        self.stack_overflow_at(thread.tid, &self.signal()?, &thread.registers)
    }

    /// The stack overflow that raised `signal` when a thread had these registers: those that a signal handler found,
    /// if it ended the process by another signal.
    #[must_use]
    pub fn stack_overflow_at(
        &self,
        tid: u32,
        signal: &SignalInfo,
        registers: &Registers,
    ) -> Option<StackOverflow> {
        if signal.number != SIGSEGV {
            return None;
        }
        let sp = registers.sp()?;
        let without_address = || {
            let is_undelivered = signal.code == Some(SI_KERNEL);
            is_undelivered.then(|| Avma(sp.0.saturating_sub(1)))
        };
        let untagged = |at: Avma| Avma(self.machine().untagged(at.0));
        let address = signal.address.map(untagged).or_else(without_address)?;
        let stack = stack_above(self.segments(), self.aux(AT_RANDOM).map(Avma), sp, address)?;
        Some(StackOverflow {
            tid,
            address,
            stack_start: stack.start,
            stack_size: stack.memory_size,
        })
    }
}

/// The stack that `address` is below, if it is the next thing in memory and `sp` had reached its end.
fn stack_above(
    segments: &[Segment],
    main_stack: Option<Avma>,
    sp: Avma,
    address: Avma,
) -> Option<&Segment> {
    let writable = || {
        segments
            .iter()
            .filter(|segment| segment.flags & WRITABLE != 0)
    };
    if writable().any(|segment| segment.contains(address)) || address.0 < sp.0.saturating_sub(AHEAD)
    {
        return None;
    }
    let above = writable().filter(|segment| segment.start > address);
    let next = above.min_by_key(|segment| segment.start)?;
    let is_guarded = segments.iter().any(|guard| {
        guard.flags == 0
            && guard.contains(address)
            && guard.start.checked_add(guard.memory_size) == Some(next.start)
    });
    let holds = |at: Avma| next.contains(at);
    // Cores of gdb call guard pages readable.
    let is_near = sp < next.start && sp.0 >= next.start.0.saturating_sub(AHEAD);
    let is_stack = is_guarded || is_near || holds(sp) || main_stack.is_some_and(holds);
    // A stack pointer far above its end has not used it up: the address is wrong for another reason.
    let is_full = sp.0 < next.start.0.saturating_add(AHEAD);
    (is_stack && is_full).then_some(next)
}

/// `PF_W`.
const WRITABLE: u32 = 2;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::FileOffset;

    const READ_WRITE: u32 = 6;
    const PAGE: u64 = 4096;

    fn segment(start: u64, size: u64, flags: u32) -> Segment {
        Segment {
            start: Avma(start),
            memory_size: size,
            offset: FileOffset(0),
            file_size: 0,
            flags,
        }
    }

    /// A program at 0x400000, a thread's stack with its guard, and the main stack.
    fn process() -> [Segment; 5] {
        [
            segment(0x40_0000, PAGE, 5),
            segment(0x40_4000, PAGE, READ_WRITE),
            segment(0x7f00_0000_0000, PAGE, 0),
            segment(0x7f00_0000_1000, 8 << 20, READ_WRITE),
            segment(0x7ffc_0000_0000, 8 << 20, READ_WRITE),
        ]
    }

    fn found(sp: u64, address: u64) -> Option<u64> {
        let main = Some(Avma(0x7ffc_0000_0000 + (8 << 20) - 100));
        let segments = process();
        let stack = stack_above(&segments, main, Avma(sp), Avma(address));
        stack.map(|stack| stack.start.0)
    }

    #[test]
    fn addresses_just_below_a_full_stack_are_its_overflow() {
        const THREAD: u64 = 0x7f00_0000_1000;
        const MAIN: u64 = 0x7ffc_0000_0000;
        for (name, sp, address, stack) in [
            ("a call at the very end", THREAD, THREAD - 8, THREAD),
            (
                "a frame that reaches into the guard",
                THREAD - 0x100,
                THREAD - 0x80,
                THREAD,
            ),
            ("a call of the main thread", MAIN, MAIN - 8, MAIN),
            (
                "a frame of 16 MiB",
                MAIN - (16 << 20),
                MAIN - (15 << 20),
                MAIN,
            ),
            (
                "a probe ahead of the stack pointer",
                MAIN + 0x40,
                MAIN - 3 * PAGE,
                MAIN,
            ),
        ] {
            assert_eq!(found(sp, address), Some(stack), "{name}");
        }
    }

    #[test]
    fn other_wrong_addresses_are_no_stack_overflow() {
        const THREAD: u64 = 0x7f00_0000_1000;
        const MAIN: u64 = 0x7ffc_0000_0000;
        for (name, sp, address) in [
            ("a null pointer", MAIN + 0x1000, 0x10),
            ("a stack pointer of zero", 0, 0),
            ("a write to constants", MAIN + 0x1000, 0x40_0010),
            ("a stack with room left", MAIN + (1 << 20), MAIN - 8),
            ("a guard of another thread", MAIN + 0x1000, THREAD - 8),
            (
                "past the top of the stack",
                MAIN + (8 << 20) - 16,
                MAIN + (8 << 20),
            ),
        ] {
            assert_eq!(found(sp, address), None, "{name}");
        }
    }
}
