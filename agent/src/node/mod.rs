//! The node's side of an installation: kernel settings, their backup, the handler's binary.

pub mod at_boot;
pub mod binary;
pub mod boot;
#[cfg(feature = "daemon")]
pub mod cleanup;
pub mod doctor;
pub mod install;
pub mod journal;
mod kill_trace;
pub mod settings;
pub mod socket;
pub mod status;
mod tidy;
mod trust;

pub(crate) use kill_trace::refresh_kill_trace;
pub use kill_trace::{ensure_kill_trace, remove_kill_trace};
pub use trust::{TrustError, check_config_file};
