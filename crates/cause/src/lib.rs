//! Explains why a process crashed: one sentence, and the facts that prove it.
//!
//! The invariant: a sentence says only what its facts prove. Where they leave a choice, the sentence names all of
//! it or less. Memory, registers, symbols and messages are hostile: every read is checked, every list and loop has
//! a limit.
//!
//! The crate does no I/O and knows no paths of this machine: the caller passes a [`Crash`].

#![deny(clippy::arithmetic_side_effects)]
#![cfg_attr(test, allow(clippy::arithmetic_side_effects))]

mod cause;
mod classify;
mod crash;
mod exception;
mod heap;
mod instruction;
mod listing;
mod names;
mod origin;
mod panic_message;
mod place;
mod sanitizer;
mod scene;
mod syscalls;
mod words;

pub use cause::{Cause, Class, Evidence, Fact};
pub use crash::{Crash, RuntimeFailure};
pub use instruction::{
    Access, AccessMode, Filling, Flow, Instruction, Operand, RegisterValue, decode,
};
pub use listing::{ListedInstruction, Listing, listing};
pub use names::{Held, MemberName, Names};

/// The cause of a crash. Its class is [`Class::Unknown`] if nothing beyond the signal is known.
#[must_use]
pub fn explain(crash: &Crash<'_>) -> Cause {
    classify::explain(crash)
}
