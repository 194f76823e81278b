//! Maps the bytes of a bundle to the bytes of its core, for downloads in any order.

use std::io::{self, Read};
use std::ops::Range;

use super::{BundleEntry, BundleReader, seekable};
use crate::seekable::decode_frame;
use crate::zip::Method;
use crate::{BundleError, CoreEncoding, EntryKind};

/// Plain bytes in one piece of an uncompressed core.
const PLAIN_PIECE: u64 = 1 << 20;

/// How the plain core is built from bytes of the bundle.
#[derive(Clone, Debug)]
pub enum CoreLayout {
    /// Independent pieces; decoded in order, they give the complete core.
    Pieces(Vec<CorePiece>),
    /// One compressed stream at this range of the bundle, which can only be decoded from its start.
    Stream(Range<u64>),
}

/// A piece of the core that can be decoded without the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CorePiece {
    /// Its range in the bundle.
    pub stored: Range<u64>,
    /// The range of its plain bytes in the core.
    pub plain: Range<u64>,
    /// Number of its zstd frame; `None` if it is not compressed.
    frame: Option<usize>,
}

impl CorePiece {
    /// Decodes the stored bytes into the plain bytes and checks their number.
    ///
    /// # Errors
    /// Fails if the bytes are not a frame of this size.
    pub fn decode(&self, stored: Vec<u8>) -> io::Result<Vec<u8>> {
        let plain_len = self.plain.end.saturating_sub(self.plain.start);
        match self.frame {
            Some(index) => decode_frame(&stored, index, plain_len),
            None if stored.len() as u64 == plain_len => Ok(stored),
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

/// The pieces of an uncompressed core.
fn plain_pieces(content: &Range<u64>) -> Vec<CorePiece> {
    let len = content.end.saturating_sub(content.start);
    let count = len.div_ceil(PLAIN_PIECE);
    let piece = |number: u64| {
        let start = number.saturating_mul(PLAIN_PIECE);
        let plain = start..start.saturating_add(PLAIN_PIECE).min(len);
        let at = |offset: u64| content.start.saturating_add(offset);
        CorePiece {
            stored: at(plain.start)..at(plain.end),
            plain,
            frame: None,
        }
    };
    (0..count).map(piece).collect()
}

impl BundleReader {
    /// The layout of the core; `None` if there is no core.
    ///
    /// # Errors
    /// Returns errors of the source, and errors if the zip or the core's seek table is
    /// inconsistent.
    pub fn core_layout(&self) -> Result<Option<CoreLayout>, BundleError> {
        let Some(entry) = self.core_entry() else {
            return Ok(None);
        };
        let place = self.stored_range(entry)?;
        if entry.method != Method::Stored {
            return Ok(Some(CoreLayout::Stream(place)));
        }
        if entry.kind != Some(EntryKind::Core(CoreEncoding::ZstdSeekable)) {
            return Ok(Some(CoreLayout::Pieces(plain_pieces(&place))));
        }
        let Some(core) = seekable(entry, self.content(entry)?)? else {
            return Ok(Some(CoreLayout::Stream(place)));
        };
        self.compare_plain_size(entry, core.plain_len())?;
        let mut pieces = Vec::new();
        for frame in core.frames().filter(|frame| frame.plain_len > 0) {
            if frame.stored_len == 0 || !frame.is_plausible() {
                return Err(BundleError::Mismatch {
                    entry: entry.name.to_string(),
                    expected: format!("a frame of {} bytes", frame.plain_len),
                    found: format!("{} bytes", frame.stored_len),
                });
            }
            let start = place.start.saturating_add(frame.stored_at);
            pieces.push(CorePiece {
                stored: start..start.saturating_add(frame.stored_len),
                plain: frame.plain_at..frame.plain_at.saturating_add(frame.plain_len),
                frame: Some(frame.index),
            });
        }
        Ok(Some(CoreLayout::Pieces(pieces)))
    }

    /// Decodes the plain core from a copy of the bytes at the range in [`CoreLayout::Stream`].
    ///
    /// # Errors
    /// Like [`core_reader`](Self::core_reader).
    pub fn core_from_copy(
        &self,
        copy: impl Read + Send + 'static,
    ) -> Result<Option<Box<dyn Read + Send>>, BundleError> {
        self.core_entry()
            .map(|entry| self.plain_core(entry, copy))
            .transpose()
    }

    /// The range of an entry's stored bytes in the bundle, up to the end of the file.
    ///
    /// # Errors
    /// Fails if the storage method is not supported, or if the zip is inconsistent.
    pub fn stored_range(&self, entry: &BundleEntry) -> Result<Range<u64>, BundleError> {
        let window = self.content(entry)?;
        Ok(window.range())
    }
}
