//! What is asked of an image, and what comes back.

use std::path::PathBuf;

use cdh_elfcore::BuildId;

use crate::Part;

/// One file that a core needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Absolute paths at which it may be, the likeliest first: hostile bytes.
    pub paths: Vec<Vec<u8>>,
    /// Its identity, where the core tells it.
    pub build_id: Option<BuildId>,
    /// Which of the files with this identity.
    pub part: Part,
    /// How much is done for it.
    pub need: Need,
    /// How much is done for its separate debug file, where it turns out to have none of its own.
    pub debug: Option<Need>,
}

/// How much is done for a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Layers are read until it is settled.
    Required,
    /// Taken where a layer that is read anyway holds it.
    Passing,
}

/// How a file was proven to be the right one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// Its build-id is the core's.
    BuildId,
    /// It stands at the path, in an image whose digest was checked; the core tells no build-id.
    Digest,
}

/// A file in the cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundFile {
    /// Where it is on this machine.
    pub file: PathBuf,
    /// Its own build-id.
    pub build_id: Option<BuildId>,
    /// Why it is believed.
    pub proof: Proof,
}

/// The answer for one wanted file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// Here it is.
    Found(FoundFile),
    /// Another file stands at its path: never used.
    Mismatch {
        /// What the core maps.
        expected: BuildId,
        /// What the image holds.
        found: Option<BuildId>,
    },
    /// The image does not hold it, with the reason.
    Absent(String),
}
