//! What is asked of an image, and what comes back.

use std::path::PathBuf;

use cdh_elfcore::BuildId;

use crate::FileRole;

/// One file that a core needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Absolute paths at which it may be, the likeliest first: hostile bytes.
    pub paths: Vec<Vec<u8>>,
    /// Its identity, if the core has it.
    pub build_id: Option<BuildId>,
    /// Which of the files with this identity.
    pub part: FileRole,
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
    /// It is at the path, in an image whose digest was checked; the core has no build-id.
    Digest,
}

/// A file in the cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundFile {
    /// Where it is on this machine.
    pub file: PathBuf,
    /// Its own build-id.
    pub build_id: Option<BuildId>,
    /// Why it is trusted.
    pub proof: Proof,
}

/// The answer for one wanted file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// Here it is.
    Found(FoundFile),
    /// Another file is at its path: never used.
    Mismatch {
        /// What the core maps.
        expected: BuildId,
        /// What the image holds.
        found: Option<BuildId>,
    },
    /// The image does not hold it, with the reason.
    Absent(String),
}

/// Where debuggers look for the file that `.gnu_debuglink` names (GDB manual, "Debugging Information in
/// Separate Files").
pub(crate) fn debug_paths(wanted: &Wanted, link: Option<&[u8]>) -> Vec<Vec<u8>> {
    let (Some(path), Some(link)) = (wanted.paths.first(), link) else {
        return Vec::new();
    };
    if link.contains(&b'/') {
        return Vec::new();
    }
    let slash = path.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
    let directory = path.get(..slash).unwrap_or_default();
    let place = |before: &[u8], between: &[u8]| [before, directory, between, link].concat();
    let mut paths = vec![
        place(b"", b"/"),
        place(b"", b"/.debug/"),
        place(b"/usr/lib/debug", b"/"),
    ];
    // A file whose link names itself is no debug file.
    paths.retain(|one| one != path);
    paths
}

/// `/usr/lib/debug/.build-id/ab/cdef.debug`.
pub(crate) fn build_id_path(id: &BuildId) -> Option<Vec<u8>> {
    let hex = id.to_string();
    let (first, rest) = hex.split_at_checked(2)?;
    Some(format!("/usr/lib/debug/.build-id/{first}/{rest}.debug").into_bytes())
}
