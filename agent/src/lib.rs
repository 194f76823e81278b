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

mod atomic_file;
pub mod collect;
#[cfg(feature = "daemon")]
pub mod config;
pub mod diagnose;
pub mod error_chain;
pub mod handler;
pub mod install;
pub mod ledger;
pub mod node;
#[cfg(feature = "daemon")]
pub mod notify;
pub mod observe;
mod outcome;
pub mod owner;
mod paths;
pub mod policy;
mod private_file;
mod redaction;
pub mod salvage;
pub mod shipper;
pub mod spool;
pub mod supervise;
mod tracefs;
pub mod workload;

pub use diagnose::status::{PatternOwner, Status, StatusError, status};
pub use handler::{handle, invoked_as_handler};
pub use install::{
    InstallError, InstallOptions, InstallReport, UninstallReport, install, uninstall,
    uninstall_and_wait,
};
pub use paths::{AgentPaths, CORE_PATTERN_MAX, HANDLER_NAME, PatternError, SettingsFiles};
pub use shipper::{
    DropLine, EntryTrouble, OpenStore, Schedule, SetuidDumps, ShipperError, ShipperEvent,
    ShipperOptions, ShipperRecord, ShippingPlan, StopSignals, StoreTrouble, SweepError,
    SweepReport, ask_to_ship, run, run_until, sweep, wait_for_stop,
};
pub use workload::WorkloadOptions;
