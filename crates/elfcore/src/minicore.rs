//! Writes a small valid ELF core: the notes of a core and the pages that a backtrace needs.
//!
//! ```text
//! ELF header | program headers: PT_NOTE, one PT_LOAD per run of pages | notes | pages
//! ```

use std::collections::BTreeMap;
use std::io::Write;

use crate::CoreHead;

/// Why no minicore could be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MinicoreError {
    /// A page address that is not a multiple of the page size.
    #[error("page address {address:#x} is not aligned to {page_size} bytes")]
    Unaligned {
        /// Given address.
        address: u64,
        /// Page size, bytes.
        page_size: u64,
    },
    /// Too many or too large pages for one core.
    #[error("the pages do not fit into one core")]
    TooLarge,
    /// The writer failed.
    #[error("cannot write the minicore")]
    Io(#[from] std::io::Error),
}

/// Writes a core with the notes of `head` and the given pages (address → bytes of one page each).
/// Segment flags are those of the segment in `head` that holds the page.
///
/// # Errors
/// When the pages are not aligned, or `out` fails.
pub fn write_minicore(
    _head: &CoreHead,
    _pages: &BTreeMap<u64, Vec<u8>>,
    _out: &mut impl Write,
) -> Result<u64, MinicoreError> {
    todo!()
}
