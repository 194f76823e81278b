//! Which memory a debugger asks for first: what the minicore holds, stacks, what registers point to, then everything that was
//! written.

use std::ops::Range;

use cdh_elfcore::{Avma, CoreHead, Registers};

/// Bytes below the stack pointer that a leaf function may use (x86_64 psABI).
const RED_ZONE: u64 = 128;
/// Bytes of the crashing thread's stack that come first.
const CRASHING_STACK: u64 = 1 << 20;
/// Bytes of each other thread's stack that come next.
const OTHER_STACK: u64 = 128 << 10;
/// Bytes on both sides of what a register points to.
const NEAR: u64 = 64 << 10;
/// Largest segment that comes as a whole because a register points into it.
const SEGMENT: u64 = 1 << 30;
/// Threads whose memory is put first.
const THREADS: usize = 2048;

/// Addresses by their importance, the most important first. They may overlap.
#[must_use]
pub(crate) fn by_importance(head: &CoreHead, minicore: Option<&CoreHead>) -> Vec<Range<u64>> {
    // What a backtrace needed is what a debugger needs to begin with: the lists of the loader too.
    let kept = minicore.into_iter().flat_map(CoreHead::segments);
    let mut ranges: Vec<_> = kept
        .map(|one| one.start.0..one.start.0.saturating_add(one.memory_size))
        .collect();
    for (index, thread) in head.threads().iter().take(THREADS).enumerate() {
        let window = if index == 0 {
            CRASHING_STACK
        } else {
            OTHER_STACK
        };
        if let Some(sp) = thread.registers.sp() {
            ranges.push(sp.0.saturating_sub(RED_ZONE)..sp.0.saturating_add(window));
        }
    }
    let near = |value: u64| value.saturating_sub(NEAR)..value.saturating_add(NEAR);
    let crashing = head.threads().first().map(|thread| &thread.registers);
    ranges.extend(crashing.into_iter().flat_map(values).map(near));
    if let Some(address) = head.signal().and_then(|signal| signal.address) {
        ranges.push(near(address.0));
    }
    for value in crashing.into_iter().flat_map(values) {
        let holder = head
            .segments()
            .iter()
            .find(|segment| segment.contains(Avma(value)) && segment.memory_size <= SEGMENT);
        ranges.extend(holder.map(|one| one.start.0..one.start.0.saturating_add(one.memory_size)));
    }
    let others = head.threads().iter().take(THREADS).skip(1);
    ranges.extend(
        others
            .flat_map(|thread| values(&thread.registers))
            .map(near),
    );
    ranges
}

/// Values of the registers that may be pointers.
fn values(registers: &Registers) -> impl Iterator<Item = u64> {
    /// No process has anything mapped below (`vm.mmap_min_addr`).
    const LOWEST: u64 = 0x1000;
    (0..Registers::COUNT as u16)
        .filter_map(|number| registers.get(number))
        .filter(|value| *value >= LOWEST)
}
