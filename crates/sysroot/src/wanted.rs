//! Questions to an image, and the answers.

use std::path::PathBuf;

use cdh_elfcore::BuildId;

use crate::FileRole;

/// One file that a core needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Absolute paths at which it may be, the likeliest first: untrusted bytes.
    pub paths: Vec<Vec<u8>>,
    /// Its build-id, if the core has it.
    pub build_id: Option<BuildId>,
    /// Which of the files with this build-id.
    pub part: FileRole,
    /// How much effort it is worth.
    pub need: Need,
    /// How much effort its separate debug file is worth, if it needs one.
    pub debug: Option<Need>,
}

/// How much effort a file is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Layers are read until it is found or known to be missing.
    Required,
    /// Stored if a layer that is read anyway holds it.
    Passing,
}

/// How a file was verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// It has the build-id from the core.
    BuildId,
    /// It is at the path, in an image whose digest was verified; the core has no build-id.
    Digest,
}

/// A file in the cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundFile {
    /// Its path on this machine.
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
    /// Another file is at its path; it is never used.
    Mismatch {
        /// What the core maps.
        expected: BuildId,
        /// What the image holds.
        found: Option<BuildId>,
    },
    /// The image does not contain it, with the reason.
    Absent(String),
}

/// Paths where debuggers look for the file that `.gnu_debuglink` names (GDB manual, "Debugging
/// Information in Separate Files").
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
    // A file whose link names itself is not a debug file.
    paths.retain(|one| one != path);
    paths
}

/// `/usr/lib/debug/.build-id/ab/cdef.debug`.
pub(crate) fn build_id_path(id: &BuildId) -> Option<Vec<u8>> {
    let hex = id.to_string();
    let (first, rest) = hex.split_at_checked(2)?;
    Some(format!("/usr/lib/debug/.build-id/{first}/{rest}.debug").into_bytes())
}
