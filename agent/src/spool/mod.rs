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
mod entry_lock;
mod giving_up;
mod module_files;
mod quota;
mod salvage;
mod shares;
mod waiting;

pub(crate) use core_salvage::salvage_core;
pub(crate) use count::size_of;
pub use count::{QUARANTINE, SpoolCount, count};
pub(crate) use entry::prepare_spool;
pub use entry::{PartialEntry, SpoolError};
pub(crate) use entry_lock::EntryLock;
pub(crate) use module_files::{ModuleFiles, ModuleFilesSender};
pub(crate) use quota::{Wanted, floor_of, forget_need, make_room};
pub use quota::{quota_of, used};
pub use salvage::{SalvageError, Salvaged, salvage};
pub(crate) use shares::share_note;
pub use waiting::{WaitReason, WaitingDump, waiting};
