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

/// The error with its causes, on one line.
fn explain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}
