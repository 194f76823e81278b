//! The handler as a process: its arguments, settings and log, and how it protects and ranks itself.
//!
//! This room is the lowest of the handler. It knows nothing of the crashed process.

pub(crate) mod arguments;
pub(crate) mod footprint;
pub(crate) mod log;
pub(crate) mod priority;
pub(crate) mod protect;
pub mod settings;
