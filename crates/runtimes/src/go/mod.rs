//! Go: goroutines, panics and fatal errors of programs that gc compiled.

use crate::{Process, Runtime};

/// A Go program, recognised by its build information.
pub(crate) fn attach<'p>(_process: &'p Process<'p>) -> Option<Box<dyn Runtime + 'p>> {
    None
}
