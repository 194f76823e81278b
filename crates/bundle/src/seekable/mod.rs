//! zstd's seekable format: independent frames and a table of their sizes, so that any page of a
//! core is read by decompressing one frame. Plain `zstd -d` reads it too: the table is a frame that
//! decoders skip.
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
//! `contrib/seekable_format/zstd_seekable_compression_format.md`. We write no checksums into the
//! table: each frame ends with zstd's own content checksum (RFC 8878, 3.1.1), which every decoder
//! compares, so that a reader of a few frames notices damage in them. Streams written before have
//! frames without one, which [`SeekableReader::is_verified`] reports.
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

/// Plain bytes per frame that suit a core: small enough that reading one page of a remote core costs
/// little, big enough that zstd compresses nearly as well as without frames.
pub const SEEKABLE_FRAME: usize = 1 << 20;

/// Biggest frame that is read, in plain bytes: it is decompressed into memory as a whole.
const LARGEST_FRAME: u32 = 64 << 20;

/// Magic number of the skippable frame that holds the table.
const TABLE_MAGIC: [u8; 4] = 0x184D_2A5E_u32.to_le_bytes();

/// Magic number at the very end.
const FOOTER_MAGIC: [u8; 4] = 0x8F92_EAB1_u32.to_le_bytes();

/// Bytes of the footer: count, flags, magic number.
const FOOTER_LEN: u64 = 9;

/// Bytes before the table: magic number and length.
const TABLE_HEADER_LEN: u64 = 8;

/// Most frames that the format allows.
const MOST_FRAMES: u32 = 0x0800_0000;

/// A seekable zstd stream cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SeekableError {
    /// It does not end with a table: cut, or another kind of zstd stream.
    #[error("there is no seek table")]
    NoTable,
    /// The table contradicts the stream or itself.
    #[error("the seek table is wrong: {what}")]
    Table {
        /// In which way.
        what: &'static str,
    },
    /// A frame would take too much memory.
    #[error(
        "a frame has {size} bytes, more than the {} that are read into memory",
        LARGEST_FRAME
    )]
    FrameTooLarge {
        /// Its plain size.
        size: u64,
    },
    /// The system or the network said no.
    #[error("cannot read the stream")]
    Io(#[from] io::Error),
}

#[cfg(test)]
mod tests;
