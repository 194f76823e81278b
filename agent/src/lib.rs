//! Never lose evidence: the part of `cdh` that lives on a node.
//!
//! ```text
//! kernel ─▶ handler ─▶ spool ─▶ shipper ─▶ store
//!              ▲
//!            install: core_pattern, its backup, the handler's binary
//! ```
//!
//! The kernel starts [`handler`] for each crash, which leaves a sealed entry in the [`spool`]. [`shipper`] uploads
//! sealed entries to the store, and [`salvage`] seals those of dead handlers. [`workload`] identifies pods and
//! containers, [`policy`] decides how much of a crash is stored, and [`ledger`] records each outcome. [`mod@install`]
//! changes the node's settings and restores them, [`supervise`] runs what the node needs besides, and [`diagnose`]
//! reports problems. Invariants: nothing is deleted before its successor is verified, and what cannot be captured is
//! a gap, never an abort. Functions are only named for fingerprints, and the handler never uses a network.

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
