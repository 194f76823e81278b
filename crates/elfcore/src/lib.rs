//! Untrusted bytes to typed ELF and core facts.
//!
//! Everything in here reads what a crashed process, a cut-off download or an attacker may have
//! written. The invariant: no input makes this crate panic, loop or allocate without bound. Numbers
//! are read with checked arithmetic and `get`, counts are bounded by the bytes that back them.
//!
//! Supported: ELF64 little-endian of x86_64 and aarch64. Of other machines, and of 32-bit processes of i386,
//! arm and x32, threads have no registers. It does not unwind, does not look for
//! files and does not know what a bundle is.

#![deny(clippy::arithmetic_side_effects)]
#![cfg_attr(test, allow(clippy::arithmetic_side_effects))]

mod address;
mod agreement;
mod build_id;
mod bytes;
mod completeness;
mod core_file;
mod elf_header;
mod encoding;
mod foreign;
mod head;
mod machine;
mod mapping;
mod memory;
mod minicore;
mod module;
mod modules;
mod note;
mod object;
mod rearrange;
mod registers;
mod signal;
mod source;
mod stack_overflow;

pub use address::{Avma, FileOffset, Svma};
pub use agreement::{ComparedPages, Disagreement, compare_module};
pub use build_id::BuildId;
pub use completeness::{Completeness, SegmentState, StackState};
pub use core_file::CoreFile;
pub use encoding::{ByteOrder, Class, Encoding};
pub use foreign::ForeignCore;
pub use head::{CoreError, CoreHead, Segment, promised_len};
pub use machine::Machine;
pub use mapping::Mapping;
pub use memory::{CodeMap, Memory};
pub use minicore::{MinicoreError, write_minicore};
pub use module::{Module, ModuleKind, ModuleRange};
pub use modules::modules_by_program;
pub use note::{ProcessInfo, Thread};
pub use object::{ElfError, ElfObject, LoadSegment, Section, Symbol};
pub use rearrange::{CorePart, RearrangedHead};
pub use registers::Registers;
pub use signal::SignalInfo;
pub use source::{BlockSource, ByteSource, FileSource, MappedFile};
pub use stack_overflow::StackOverflow;
