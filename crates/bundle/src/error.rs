//! What can go wrong with a bundle or a spool entry.

use std::io;
use std::path::PathBuf;

use crate::seekable::SeekableError;

/// A bundle or a spool entry could not be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BundleError {
    /// Neither a bundle nor one of IBM's zips.
    #[error("not a bundle: {why}")]
    NotABundle {
        /// What is missing.
        why: &'static str,
    },
    /// A zip of somebody else, which may hold a core by another name.
    #[error("not a bundle: none of its entries is named like those of a dump")]
    ForeignZip,
    /// There are no bytes at all.
    #[error("the file is empty")]
    Empty,
    /// Cut so early that nothing can be salvaged.
    #[error("the zip is cut after {len} bytes, before its first entry is whole")]
    Cut {
        /// Bytes that are there.
        len: u64,
    },
    /// The bytes are not those that the manifest or the zip's directory promises.
    #[error("entry `{entry}` does not match: expected {expected}, found {found}")]
    Mismatch {
        /// Name of the entry, safe to print.
        entry: String,
        /// What is promised.
        expected: String,
        /// What is there.
        found: String,
    },
    /// The manifest is of a later schema.
    #[error(
        "the manifest has schema {found}, this version reads up to {}",
        crate::SCHEMA
    )]
    Schema {
        /// Its version.
        found: u64,
    },
    /// The manifest is not what it should be.
    #[error("the manifest cannot be read")]
    Manifest {
        /// What the JSON parser says.
        #[source]
        source: serde_json::Error,
    },
    /// The manifest's stem, or a name in it, is none that we would write.
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
    /// Too big for memory.
    #[error("entry `{entry}` has {size} bytes, more than the {limit} that are read into memory")]
    TooLarge {
        /// Name of the entry, safe to print.
        entry: String,
        /// Its size.
        size: u64,
        /// The most that is taken.
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
    /// Something in the spool is not what we put there: a link, a device, a FIFO.
    #[error("`{path}` is no regular file")]
    NotRegular {
        /// The file.
        path: PathBuf,
    },
    /// The system said no.
    #[error("cannot {action}")]
    Io {
        /// What was tried: "read `/spool/x`".
        action: String,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
}

impl BundleError {
    /// For `map_err`: names what was tried.
    pub(crate) fn io(action: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let action = action.into();
        move |source| Self::from_io(action, source)
    }

    /// Unwraps an error of ours that went through an `io::Error`, as those of readers do.
    pub(crate) fn from_io(action: String, source: io::Error) -> Self {
        match source.downcast::<Self>() {
            Ok(error) => error,
            Err(source) => Self::Io { action, source },
        }
    }
}
