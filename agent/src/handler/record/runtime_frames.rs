//! What runtimes of languages know of a crash, read while the process waits, within a time: the frames of interpreted
//! functions, and the thread that ended the program.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use cdh_elfcore::{Avma, CoreHead, Memory};
use cdh_runtimes::{AttachedRuntimes, InterpretedStack, Process, UnwoundStack};
use cdh_symbolize::{Alone, LoadedModule, SectionArena};
use rustix::time::{ClockId, clock_gettime};

use crate::handler::memory::live_memory::LiveMemory;

/// Time of the processor for the crashing thread, whose fingerprint it makes, and for all others together.
const CRASHING: Duration = Duration::from_millis(20 * SLOWNESS);
const OTHERS: Duration = Duration::from_millis(20 * SLOWNESS);
/// For what only the minicore needs.
const TOUCHING: Duration = Duration::from_millis(20 * SLOWNESS);
/// Without optimization everything takes longer.
const SLOWNESS: u64 = if cfg!(debug_assertions) { 50 } else { 1 };
/// Largest single read: no structure of a runtime is larger.
const LARGEST: usize = 4 << 20;
/// Reads between two looks at the clock, which is a system call.
const READS: u64 = 64;

/// A memory that ends when the time is up or enough was recorded, and with it every list that is read from it.
pub(super) struct TimedMemory<'m> {
    memory: &'m (dyn Memory + Sync),
    /// Bytes recorded so far.
    recorded: Box<dyn Fn() -> u64 + Sync + 'm>,
    /// Bytes recorded when it ends: the rest is for stacks.
    limit: u64,
    reads: AtomicU64,
    /// Nanoseconds on the clock of the thread.
    end: AtomicU64,
    is_late: AtomicBool,
}

impl<'m> TimedMemory<'m> {
    /// A maximum of `room` bytes is recorded in addition to what is.
    pub(super) fn new(memory: &'m LiveMemory<'m>, room: u64) -> Self {
        Self::of(memory, move || memory.recorded(), room)
    }

    fn of(
        memory: &'m (dyn Memory + Sync),
        recorded: impl Fn() -> u64 + Sync + 'm,
        room: u64,
    ) -> Self {
        Self {
            memory,
            limit: recorded().saturating_add(room),
            recorded: Box::new(recorded),
            reads: AtomicU64::new(0),
            end: AtomicU64::new(u64::MAX),
            is_late: AtomicBool::new(false),
        }
    }

    /// Runs `read` with `left` of time, and takes off what it needed. `None` if it took longer.
    fn within<T>(&self, left: &mut Duration, read: impl FnOnce() -> T) -> Option<T> {
        let start = now();
        let end = start.saturating_add(u64::try_from(left.as_nanos()).unwrap_or(u64::MAX));
        self.end.store(end, Ordering::Relaxed);
        self.is_late.store(false, Ordering::Relaxed);
        let found = read();
        *left = left.saturating_sub(Duration::from_nanos(now().saturating_sub(start)));
        (!self.is_late.load(Ordering::Relaxed)).then_some(found)
    }
}

impl Memory for TimedMemory<'_> {
    fn read(&self, at: Avma, buffer: &mut [u8]) -> usize {
        let number = self.reads.fetch_add(1, Ordering::Relaxed);
        let is_full = || (self.recorded)() > self.limit;
        if number.is_multiple_of(READS) && (now() > self.end.load(Ordering::Relaxed) || is_full()) {
            self.is_late.store(true, Ordering::Relaxed);
        }
        if self.is_late.load(Ordering::Relaxed) || buffer.len() > LARGEST {
            return 0;
        }
        self.memory.read(at, buffer)
    }

    fn is_executable(&self, at: Avma) -> Option<bool> {
        self.memory.is_executable(at)
    }
}

/// Processor time of this thread in nanoseconds: unlike the time of day it does not depend on what else runs.
fn now() -> u64 {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    let [seconds, nanoseconds] =
        [now.tv_sec, now.tv_nsec].map(|part| u64::try_from(part).unwrap_or(0));
    seconds
        .saturating_mul(1_000_000_000)
        .saturating_add(nanoseconds)
}

/// The process as readers of runtimes see it.
pub(super) fn process<'p>(
    head: &'p CoreHead,
    memory: &'p TimedMemory<'p>,
    modules: &'p [LoadedModule<'p>],
    arena: &'p SectionArena,
) -> Process<'p> {
    Process {
        threads: head.threads(),
        memory,
        modules,
        arena,
        surroundings: &Alone,
    }
}

/// What is read of runtimes, each in a time of its own.
pub(super) struct RuntimeFrames<'p> {
    runtimes: Option<AttachedRuntimes<'p>>,
    memory: &'p TimedMemory<'p>,
    crashing: Duration,
    others: Duration,
    /// Whether the time was up before all was read.
    pub(super) is_late: bool,
}

impl<'p> RuntimeFrames<'p> {
    pub(super) fn of(process: &'p Process<'p>, memory: &'p TimedMemory<'p>) -> Self {
        let mut crashing = CRASHING;
        let runtimes = memory.within(&mut crashing, || AttachedRuntimes::of(process));
        Self {
            is_late: runtimes.is_none(),
            runtimes: runtimes.filter(|runtimes| !runtimes.is_empty()),
            memory,
            crashing,
            others: OTHERS,
        }
    }

    /// Id of the thread that crashed, if the runtime let another one receive the signal.
    pub(super) fn crashing_thread(&mut self) -> Option<u32> {
        let runtimes = self.runtimes.as_ref()?;
        let find = || runtimes.crashing_thread();
        let found = self.memory.within(&mut self.crashing, find);
        self.is_late |= found.is_none();
        found.flatten()
    }

    /// Nothing of a thread for which the time did not suffice: its native frames remain.
    pub(super) fn read(&mut self, stack: &UnwoundStack<'_>) -> InterpretedStack {
        let Some(runtimes) = &mut self.runtimes else {
            return InterpretedStack::default();
        };
        let left = match stack.crashing {
            true => &mut self.crashing,
            false => &mut self.others,
        };
        let found = self.memory.within(left, || runtimes.read(stack));
        self.is_late |= found.is_none();
        found.unwrap_or_default()
    }

    /// Reads what a later report needs: the memory records its pages. What takes longer comes from the core.
    pub(super) fn touch(&self, crashing: u32) {
        if let Some(runtimes) = &self.runtimes {
            let mut left = TOUCHING;
            self.memory.within(&mut left, || runtimes.touch(crashing));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Zeros;

    impl Memory for Zeros {
        fn read(&self, _: Avma, buffer: &mut [u8]) -> usize {
            buffer.fill(0);
            buffer.len()
        }
    }

    #[test]
    fn memory_ends_with_the_time_and_what_was_read_does_not_count() {
        let recorded = AtomicU64::new(0);
        let memory = TimedMemory::of(&Zeros, || recorded.load(Ordering::Relaxed), 100);
        let read = |memory: &TimedMemory<'_>, count: usize| {
            (0..count).map(|_| memory.read(Avma(0), &mut [0; 8])).sum()
        };
        let mut left = Duration::from_secs(60);
        assert_eq!(memory.within(&mut left, || read(&memory, 4)), Some(32));
        assert!(left < Duration::from_secs(60));
        let mut none = Duration::ZERO;
        let found: Option<usize> = memory.within(&mut none, || read(&memory, 1000));
        assert_eq!((found, none), (None, Duration::ZERO));
        // The next thread has time of its own.
        assert_eq!(memory.within(&mut left, || read(&memory, 1)), Some(8));
        assert_eq!(memory.read(Avma(0), &mut vec![0; LARGEST + 1]), 0);
        recorded.store(101, Ordering::Relaxed);
        let found: Option<usize> = memory.within(&mut left, || read(&memory, 1000));
        assert_eq!(found, None);
    }
}
