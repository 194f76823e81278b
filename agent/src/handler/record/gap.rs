//! Turns an error into a [`Gap`] of the manifest.

use cdh_bundle::Gap;

use crate::error_chain::explain;
use crate::spool::SpoolError;

/// The gap that this error leaves, with all its causes.
pub(crate) fn gap(what: &str, error: &dyn std::error::Error) -> Gap {
    Gap {
        what: what.to_owned(),
        why: explain(error),
    }
}

/// The kind of the innermost I/O error. It distinguishes a full disk from other failures.
pub(crate) fn kind_of(error: &SpoolError) -> std::io::ErrorKind {
    let mut source: Option<&dyn std::error::Error> = Some(error);
    let mut kind = std::io::ErrorKind::Other;
    while let Some(cause) = source {
        if let Some(cause) = cause.downcast_ref::<std::io::Error>() {
            kind = cause.kind();
        }
        source = cause.source();
    }
    kind
}

/// The error as an I/O error of the same kind.
pub(crate) fn io_error(error: SpoolError) -> std::io::Error {
    std::io::Error::new(kind_of(&error), explain(&error))
}
