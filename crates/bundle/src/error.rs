//! Errors of bundles and spool entries.

use std::io;
use std::path::PathBuf;

use crate::seekable::SeekableError;

/// A bundle or a spool entry cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BundleError {
    /// Neither a bundle nor one of IBM's zips.
    #[error("not a bundle: {why}")]
    NotABundle {
        /// What is missing.
        why: &'static str,
    },
    /// A zip from another program, which may hold a core under another name.
    #[error("not a bundle: none of its entries is named like those of a dump")]
    ForeignZip,
    /// The file has no bytes.
    #[error("the file is empty")]
    Empty,
    /// Truncated so early that nothing can be salvaged.
    #[error("the zip is truncated after {len} bytes, before its first entry is complete")]
    Cut {
        /// Bytes that exist.
        len: u64,
    },
    /// The bytes differ from what the manifest or the zip's directory states.
    #[error("entry `{entry}` does not match: expected {expected}, found {found}")]
    Mismatch {
        /// Name of the entry, safe to print.
        entry: String,
        /// What is stated.
        expected: String,
        /// What was found.
        found: String,
    },
    /// The manifest has a newer schema.
    #[error(
        "the manifest has schema {found}, this version reads up to {}",
        crate::SCHEMA
    )]
    Schema {
        /// Its version.
        found: u64,
    },
    /// The manifest is invalid.
    #[error("the manifest cannot be read")]
    Manifest {
        /// Error of the JSON parser.
        #[source]
        source: serde_json::Error,
    },
    /// The manifest's stem, or a name in it, is not one that we would write.
    #[error("the manifest names an entry `{name}` that no bundle has")]
    Name {
        /// The name, safe to print.
        name: String,
    },
    /// The bundle has no such entry.
    #[error("the bundle has no entry `{entry}`")]
    NoEntry {
        /// File name of its kind.
        entry: String,
    },
    /// Too large to read into memory.
    #[error("entry `{entry}` has {size} bytes, more than the {limit} that are read into memory")]
    TooLarge {
        /// Name of the entry, safe to print.
        entry: String,
        /// Its size.
        size: u64,
        /// The limit in bytes.
        limit: u64,
    },
    /// A zip feature that neither we nor IBM's agent use.
    #[error("entry `{entry}` cannot be read: {what}")]
    Unsupported {
        /// Name of the entry, safe to print.
        entry: String,
        /// The feature.
        what: String,
    },
    /// The compressed core is damaged.
    #[error("the compressed core cannot be read")]
    Seekable(#[from] SeekableError),
    /// The spool entry is still being written, or its handler died.
    #[error("`{path}` is not sealed")]
    NotSealed {
        /// The entry's directory.
        path: PathBuf,
    },
    /// Another process holds the spool entry.
    #[error("`{path}` is being written by another process")]
    Busy {
        /// The entry's directory.
        path: PathBuf,
    },
    /// A file in the spool is not what we created: a link, a device, a FIFO.
    #[error("`{path}` is not a regular file")]
    NotRegular {
        /// The file.
        path: PathBuf,
    },
    /// A system call failed.
    #[error("cannot {action}")]
    Io {
        /// The action that failed: "read `/spool/x`".
        action: String,
        /// Cause.
        #[source]
        source: io::Error,
    },
}

impl BundleError {
    /// For `map_err`: names the action that failed.
    pub(crate) fn io(action: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let action = action.into();
        move |source| Self::from_io(action, source)
    }

    /// Unwraps a `BundleError` that a reader passed through an `io::Error`.
    pub(crate) fn from_io(action: String, source: io::Error) -> Self {
        match source.downcast::<Self>() {
            Ok(error) => error,
            Err(source) => Self::Io { action, source },
        }
    }
}
