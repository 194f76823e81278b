//! Unwinds the threads of a core and names their frames.
//!
//! The invariants: no input makes this crate panic, loop or allocate without bound; a file whose
//! build-id differs from the core's is used for nothing; every frame says how it was found, and every
//! frame without a name says why.
//!
//! It does no I/O and knows no paths of this machine: the caller hands in bytes ([`LoadedModule`]), and learns what
//! else would help ([`ModuleNeed`]). The [`Unwinder`] alone needs no symbols: it runs at
//! crash time too.

#![deny(clippy::arithmetic_side_effects)]
#![cfg_attr(test, allow(clippy::arithmetic_side_effects))]

mod abort_message;
mod arena;
mod backtrace;
mod buffer;
mod deadline;
mod debug_info;
mod demangle;
mod fingerprint;
mod frame;
mod go;
mod lines;
mod loaded;
mod memo;
mod need;
mod section;
mod surroundings;
mod symbol;
mod symbolizer;
mod tail_call;
mod unwinder;

pub use abort_message::abort_message;
pub use arena::SectionArena;
pub use backtrace::{
    Backtrace, BacktraceOptions, Elapsed, ModuleReport, StoredStack, ThreadBacktrace, backtrace,
    backtrace_of_stored, backtrace_with, module_needs, with_vdso,
};
pub use debug_info::{ModuleDwarf, Reader};
pub use demangle::demangle_with_parameters;
pub use fingerprint::{Explanation, Fingerprint, Role};
pub use frame::{Frame, Function, Location, Reason, frames_by_tables};
pub use go::GoTable;
pub use loaded::{LoadedModule, ModuleStatus};
pub use need::{ModuleNeed, Need, needs_of};
pub use surroundings::{Alone, Bytes, Surroundings};
pub use symbol::{address_of_symbol, symbol_at};
pub use symbolizer::{SymbolTable, Symbolizer};
pub use unwinder::{
    FrameRegisters, FrameTrust, NestedSignal, OriginalSignal, Stop, Unwinder, UnwoundFrame,
};
