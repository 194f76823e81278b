//! The spool: the directory between handler and shipper, one subdirectory per dump.
//!
//! ```text
//! <id>.partial/    its handler writes it and holds an flock on it; unlocked, it can be salvaged
//! <id>/            sealed: it has a manifest.json and changes only by amendment
//! quarantine/<id>/ cannot be processed, see `reason.txt`; never deleted by cdh
//! ```
//!
//! [`cdh_bundle::EntryDir`] implements the states and the renames between them; this module has the
//! additions of handler and shipper. Invariant: an entry changes state only by rename. The spool
//! does not know stores.

mod charged_entry;
mod core_salvage;
mod count;
mod entry;
mod entry_lock;
mod giving_up;
mod module_files;
mod quota;
mod shares;

pub(crate) use charged_entry::share_note;
pub(crate) use core_salvage::salvage_core;
pub(crate) use count::size_of;
pub use count::{QUARANTINE, SpoolCount, count};
pub(crate) use entry::{IDENTITY, prepare_spool};
pub use entry::{PartialEntry, SpoolError};
pub(crate) use entry_lock::EntryLock;
pub(crate) use module_files::{ModuleFiles, ModuleFilesSender};
pub(crate) use quota::{Wanted, floor_of, forget_need, make_room};
pub use quota::{quota_of, used};
