//! Reads the variables of frames from a core, with the help of DWARF.
//!
//! An [`Inspector`] evaluates where a variable is with the registers of its frame ([`Inspector::frames`]) and reads
//! typed values from the process's memory ([`Inspector::variables`]). Three answers connect
//! a fault with them: [`Inspector::owner_of`] (which variable or member holds this address), [`Variable::storage`]
//! (which register a variable is in) and [`Inspector::member_at`] (what is at an offset in a type).
//!
//! The invariants: a value is shown only if the debug information says where it is, otherwise it is
//! [`Missing::OptimizedOut`]; memory that the core does not hold is [`Missing::NotInTheCore`]. No input makes this crate
//! panic, loop or allocate without bound. It does no I/O: memory, files and symbols are handed in.

#![deny(clippy::arithmetic_side_effects)]
#![cfg_attr(test, allow(clippy::arithmetic_side_effects))]

mod containers;
mod dwarf;
mod format;
mod inspector;
mod location;
mod memory;
mod reader;
mod scope;
mod types;
mod value;

pub use inspector::{
    FrameVariables, FunctionVariables, Inspector, MemberPlace, Owner, Storage, TypeId, Variable,
    VariableKind,
};
pub use value::{
    Array, Container, Member, MemberKind, Missing, Pointer, Record, Style, Text, Value,
};
