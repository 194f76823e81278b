//! Whether a core is complete, judged only by its own program headers.

use crate::Avma;

/// Expected against found, and what that means for segments and stacks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Completeness {
    /// Bytes that the program headers promise.
    pub expected: u64,
    /// Bytes that exist.
    pub found: u64,
    /// One per PT_LOAD with a non-zero file size, in program header order.
    pub segments: Vec<SegmentState>,
    /// One per thread, in note order.
    pub stacks: Vec<StackState>,
}

impl Completeness {
    /// Whether nothing is missing.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.found >= self.expected
    }
}

/// How much of one segment exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentState {
    /// Address in the process.
    pub start: Avma,
    /// Bytes the kernel meant to write.
    pub expected: u64,
    /// Bytes that exist.
    pub found: u64,
}

/// How much of one thread's stack exists, from its stack pointer to the end of the segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StackState {
    /// Thread.
    pub tid: u32,
    /// Bytes from the stack pointer to the end of its segment; 0 where no segment holds it.
    pub expected: u64,
    /// Bytes of them that exist.
    pub found: u64,
}
