//! Observability of the agent: Prometheus metrics on a port or in a file, health, readiness.
//!
//! [`Watcher`] receives the shipper's events, reads the handlers' results from the ledger, and
//! counts waiting dumps in the spool. Nothing here delays a capture or an upload. No label contains
//! text from outside, so the number of series is limited by the number of reasons.

mod exposition;
mod listener;
mod textfile;
mod watcher;

pub use listener::{ListenError, Listener};
pub use watcher::{Readiness, Watcher};

#[cfg(test)]
#[path = "observe_tests.rs"]
mod tests;
