//! The crashed process as minicore and backtrace read it.

use std::fs::File;

use crate::handler::process::handles::ProcessHandles;
use crate::handler::process::maps::Maps;

/// The handles that a minicore and a backtrace are read through.
#[derive(Clone, Copy)]
pub(crate) struct Subject<'p> {
    /// The process.
    pub process: &'p ProcessHandles,
    /// Its `mem`.
    pub memory: &'p File,
    /// Its `pagemap`.
    pub pagemap: &'p File,
    /// Its mappings, where they are known.
    pub maps: Option<&'p Maps>,
}
