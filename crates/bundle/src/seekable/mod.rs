//! zstd's seekable format: independent frames and a table of their sizes. Any page of a core can be
//! read by decompressing one frame. Plain `zstd -d` reads it too, because the table is in a
//! skippable frame.
//!
//! ```text
//! frame 0 | frame 1 | … | skippable frame { table }
//!
//! table:  5E 2A 4D 18  <u32 length of what follows>
//!         per frame: <u32 compressed size> <u32 plain size> [<u32 checksum>]
//!         footer: <u32 frames> <u8 flags> B1 EA 92 8F
//!
//! flags:  bit 7: there are checksums; bits 2-6: reserved, 0; bits 0-1: unused
//! ```
//!
//! All numbers are little-endian. Source: facebook/zstd,
//! `contrib/seekable_format/zstd_seekable_compression_format.md`. Our table has no checksums: each
//! frame ends with zstd's own content checksum (RFC 8878, 3.1.1). Every decoder verifies it, so a
//! reader of a few frames notices damage in them. Frames of older streams have no checksum, which
//! [`SeekableReader::is_verified`] reports.
//!
//! Worked example: 3 bytes `abc` in one frame of 16 bytes end with
//! `5e2a4d18 11000000 10000000 03000000 01000000 00 b1ea928f`.

mod frame;
mod reader;
mod table;
mod writer;

use std::io;

pub(crate) use frame::has_checksum;
pub use reader::SeekableReader;
pub(crate) use reader::decode_frame;
pub use writer::{SeekableStats, SeekableWriter, frame_compressor};

/// Plain bytes per frame of a core. Small enough that reading one page of a remote core is cheap,
/// and large enough that zstd compresses nearly as well as without frames.
pub const SEEKABLE_FRAME: usize = 1 << 20;

/// Largest frame that is read, in plain bytes: a frame is decompressed completely into memory.
const LARGEST_FRAME: u32 = 64 << 20;

/// Magic number of the skippable frame that holds the table.
const TABLE_MAGIC: [u8; 4] = 0x184D_2A5E_u32.to_le_bytes();

/// Magic number at the end of the stream.
const FOOTER_MAGIC: [u8; 4] = 0x8F92_EAB1_u32.to_le_bytes();

/// Size of the footer: count, flags, magic number.
const FOOTER_LEN: u64 = 9;

/// Size of the header before the table: magic number and length.
const TABLE_HEADER_LEN: u64 = 8;

/// Maximum number of frames in the format.
const MOST_FRAMES: u32 = 0x0800_0000;

/// A seekable zstd stream cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SeekableError {
    /// It does not end with a table: truncated, or another kind of zstd stream.
    #[error("there is no seek table")]
    NoTable,
    /// The table contradicts the stream or itself.
    #[error("the seek table is wrong: {what}")]
    Table {
        /// What is wrong.
        what: &'static str,
    },
    /// A frame would need too much memory.
    #[error(
        "a frame has {size} bytes, more than the {} that are read into memory",
        LARGEST_FRAME
    )]
    FrameTooLarge {
        /// Its plain size.
        size: u64,
    },
    /// A read failed.
    #[error("cannot read the stream")]
    Io(#[from] io::Error),
}

#[cfg(test)]
mod tests;
