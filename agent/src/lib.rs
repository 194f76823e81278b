//! Never lose evidence: the part of `cdh` that lives on a node.
//!
//! ```text
//! kernel ─▶ handler ─▶ spool ─▶ shipper ─▶ store
//!              ▲
//!            node: core_pattern, its backup, the handler's binary
//! ```
//!
//! [`handler`] is run by the kernel for each crash and leaves a sealed entry in the [`spool`];
//! [`shipper`] takes sealed entries to the store and salvages what dead handlers left; [`workload`]
//! tells whose they are; [`policy`] how much of them is kept; [`ledger`] remembers what became of each
//! crash; [`node`] installs and removes all this. The invariant of the whole: nothing is deleted
//! before its successor is verified, and what could not be captured is a gap, never an abort. Names of
//! functions are looked up for fingerprints only, and the handler never touches a network.

pub mod collect;
#[cfg(feature = "daemon")]
pub mod config;
pub mod error_chain;
pub mod handler;
pub mod ledger;
pub mod node;
#[cfg(feature = "daemon")]
pub mod notify;
pub mod observe;
mod paths;
pub mod policy;
mod private_file;
mod redaction;
pub mod shipper;
pub mod spool;
mod tracefs;
pub mod workload;

pub use handler::{handle, invoked_as_handler};
pub use node::install::{
    InstallError, InstallOptions, InstallReport, UninstallReport, install, uninstall,
    uninstall_and_wait,
};
pub use node::status::{PatternOwner, Status, StatusError, status};
pub use paths::{AgentPaths, HANDLER_NAME, PatternError};
pub use shipper::{
    DropLine, EntryTrouble, OpenStore, Schedule, SetuidDumps, ShipperError, ShipperEvent,
    ShipperOptions, ShipperRecord, ShippingPlan, StopSignals, StoreTrouble, SweepError,
    SweepReport, ask_to_ship, run, run_until, sweep, wait_for_stop,
};
pub use workload::WorkloadOptions;
