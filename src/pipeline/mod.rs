//! The only place that combines the crates: a reference becomes a dump, a dump becomes a case, a
//! backtrace or a debugger's command line.
//!
//! Invariant: evidence is verified where it is used. A core is compared with its manifest, a
//! module's file with the build-id in the core. A mismatch is shown, and the data is not used.

mod backtrace;
mod cached_cases;
mod case;
mod cause;
mod compressed;
mod debugger_files;
mod drops;
mod dump;
mod fetch;
mod file_index;
mod files;
mod import;
mod integrity;
mod kept_modules;
mod listing_cache;
mod memory;
mod missing_files;
mod modules;
mod other_file;
mod plain_core;
mod pointer_names;
mod proc_facts;
mod source;
mod sources;
mod spooled;
mod stored_stacks;
mod stores;
mod surroundings;
mod symbol_cache;
mod sysroot;
mod top_frames;
mod variables;
mod zipped_core;

pub use backtrace::{
    BacktraceRequest, NamedStacks, TaskScope, backtrace, name_stacks, name_stored_stacks,
};
pub use cached_cases::{cache_entries, clear_cache};
pub use case::{Case, CaseInUse};
pub use drops::drops;
pub use dump::{Analysis, Dump, Origin, open_case, open_dump, open_dumps, open_summary};
pub use fetch::{FetchOptions, fetch_with};
pub use import::{Duplicates, ImportOutcome, Imported, Importer, StatedOrigin, importable_files};
pub use listing_cache::{Listed, cached_listing, forget_listed, remember_listing};
pub use modules::{FileSource, FoundModule, ModuleSearch, find_modules};
pub use plain_core::write_core;
pub use proc_facts::Surrounding;
pub use source::{SourceFinder, SourceQuestion, SourceSearch, sources};
pub use sources::{Gathered, gather_files, image_cache};
pub use stores::{
    catalog, hints_for_nothing, is_empty, open_existing_store, open_node_store,
    open_or_create_store, open_store, require_known_store, resolve, store_failure,
};
pub use sysroot::{DebugView, debug_view};
pub use top_frames::top_frames;
pub use variables::{WantedVariables, variables};

/// Receives the progress of long work, and decides whether to continue. Steps follow one another:
/// `started` begins one and ends the previous one; `finished` ends the last and may be called
/// repeatedly. `resumed`, `advanced` and `is_cancelled` are called in between, from any thread.
pub trait Observer: Sync {
    /// Work on `what` begins; `total` bytes if known.
    fn started(&self, what: &str, total: Option<u64>);
    /// An earlier run completed this many bytes.
    fn resumed(&self, bytes: u64) {
        self.advanced(bytes);
    }
    /// This many further bytes are done.
    fn advanced(&self, bytes: u64);
    /// Done or failed.
    fn finished(&self);
    /// Whether to stop now. It is called about ten times a second. The work then ends with
    /// [`ExitStatus::Interrupted`](crate::report::ExitStatus::Interrupted), in a state that the next
    /// run can resume.
    fn is_cancelled(&self) -> bool {
        false
    }
}
