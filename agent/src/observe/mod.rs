//! How the agent is seen: numbers for Prometheus on a port or in a file, health, readiness.
//!
//! [`Watcher`] is told what the shipper does; what handlers did it reads in the ledger, what waits it
//! counts in the spool. Nothing here holds up a capture or an upload, and no label holds a text from
//! outside: there are as many series as there are reasons.

mod exposition;
mod listener;
mod textfile;
mod watcher;

pub use listener::{ListenError, Listener};
pub use watcher::{Readiness, Watcher};

#[cfg(test)]
#[path = "observe_tests.rs"]
mod tests;
