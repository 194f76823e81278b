//! The spool: the directory between handler and shipper, one sub-directory per dump.
//!
//! ```text
//! .<id>.new/        being made; nobody but its maker looks at it
//! <id>.partial/     a handler writes it and holds a flock on it; without the lock it is salvage
//! <id>/             sealed: manifest.json is there, nothing in it changes any more
//! <id>.shipped/     its successor in the store is verified; being removed
//! quarantine/<id>/  nothing can be made of it; `reason.txt` says why. Never removed by us.
//! ```
//!
//! Invariant: an entry changes its state by a rename only, and a rename towards the store happens
//! only after what it promises is on disk. The spool does not know what a store is.

mod core_salvage;
mod entry;
mod listing;
mod salvage;

pub(crate) use entry::rename_entry;
pub use entry::{IDENTITY, PartialEntry, SpoolError};
pub use listing::{Found, QUARANTINE, SpoolCount, SpoolEntry, count, list};
pub use salvage::{SalvageError, Salvaged, salvage};
