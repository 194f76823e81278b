//! The only place where the rooms meet: a reference becomes a dump, a dump becomes a case, a
//! backtrace or a debugger's command line.
//!
//! The invariant: evidence is checked where it is used. A core is compared with its manifest, a
//! module's file with the build-id that the core holds; what does not match is shown and not used.

mod backtrace;
mod case;
mod dump;
mod files;
mod import;
mod modules;
mod proc_facts;
mod sources;
mod stores;
mod surroundings;
mod symbol_cache;
mod sysroot;

pub use backtrace::{BacktraceRequest, NamedStacks, backtrace};
pub use case::{Case, fetch};
pub use dump::{Analysis, Dump, Origin, open_dump};
pub use import::import;
pub use modules::{FoundModule, ModuleSearch, find_modules};
pub use proc_facts::Surrounding;
pub use sources::{SourceSearch, sources};
pub use stores::{catalog, open_or_create_store, open_store, resolve, store_failure};
pub use sysroot::{DebugView, debug_view};

/// Is told how long work goes. `started` comes first, `finished` last, once each per piece of work;
/// `advanced` between them, from any thread.
pub trait Observer: Sync {
    /// Work on `what` begins; `total` bytes if known.
    fn started(&self, what: &str, total: Option<u64>);
    /// So many bytes more are done.
    fn advanced(&self, bytes: u64);
    /// Done or failed.
    fn finished(&self);
}
