//! The spool: the directory between handler and shipper, one sub-directory per dump.
//!
//! ```text
//! <id>.partial/    a handler writes it and holds a flock on it; without the lock it is salvage
//! <id>/            sealed: manifest.json is there, nothing in it changes any more
//! quarantine/<id>/ nothing can be made of it; `reason.txt` says why. Never removed by us.
//! ```
//!
//! The states and the renames between them are [`cdh_bundle::EntryDir`]'s; here is what handler and
//! shipper add. Invariant: an entry changes its state by a rename only. The spool does not know what
//! a store is.

mod core_salvage;
mod count;
mod entry;
mod salvage;

pub use count::{QUARANTINE, SpoolCount, count};
pub(crate) use entry::{IDENTITY, prepare_spool};
pub use entry::{PartialEntry, SpoolError};
pub use salvage::{SalvageError, Salvaged, salvage};
