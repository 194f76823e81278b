//! Names of pointers: the variable or member that held one. The caller reads the debug information.

use cdh_elfcore::Avma;

/// Where a pointer is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Held {
    /// In a register, by DWARF number.
    Register(u16),
    /// In memory.
    Memory(u64),
    /// In what another pointer points to, at this offset.
    Member(Box<Held>, u64),
}

/// The names of a pointer and of what was accessed through it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberName {
    /// The variable or member that holds the pointer: `order`, `cart->items`.
    pub pointer: String,
    /// The member at the offset: `order->count`. `None` if the pointer does not point to a record.
    pub member: Option<String>,
}

/// Names of variables in the frames of the crashing thread.
pub trait Names {
    /// The name of the pointer that is `held` when the frame with this program counter executes, and of what is at
    /// `offset` from where it points. `None` unless debug information names it.
    fn pointer(&self, pc: Avma, held: &Held, offset: u64) -> Option<MemberName>;
}
