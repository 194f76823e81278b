//! File-backed mappings as the kernel wrote them down (`NT_FILE`).

use crate::{Avma, FileOffset};

/// One mapped range of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// First address.
    pub start: Avma,
    /// First address after the range.
    pub end: Avma,
    /// Where in the file the range starts, in bytes.
    pub offset: FileOffset,
    /// Path as the process saw it: any bytes but NUL; may end in ` (deleted)`.
    pub path: Vec<u8>,
}
