//! Which bytes of a bundle make which bytes of its core, for who fetches them in any order.

use std::io::{self, Read};
use std::ops::Range;

use super::{BundleEntry, BundleReader, seekable};
use crate::seekable::decode_frame;
use crate::zip::Method;
use crate::{BundleError, CoreEncoding, EntryKind};

/// Plain bytes of one piece of a core that is not compressed.
const PLAIN_PIECE: u64 = 1 << 20;

/// How the plain core is made from bytes of the bundle.
#[derive(Clone, Debug)]
pub enum CoreLayout {
    /// Each piece alone gives a run of plain bytes; together, in order, they give all.
    Pieces(Vec<CorePiece>),
    /// One compressed stream at this place of the bundle, which can only be decoded from its front.
    Stream(Range<u64>),
}

/// A piece of the core that can be decoded without the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CorePiece {
    /// Where it lies in the bundle.
    pub stored: Range<u64>,
    /// Where its plain bytes lie in the core.
    pub plain: Range<u64>,
    /// Number of its zstd frame; `None` where it is not compressed.
    frame: Option<usize>,
}

impl CorePiece {
    /// The plain bytes, exactly as many as promised, from the stored ones.
    ///
    /// # Errors
    /// When the bytes are not those of a frame of this size.
    pub fn decode(&self, stored: Vec<u8>) -> io::Result<Vec<u8>> {
        let plain_len = self.plain.end.saturating_sub(self.plain.start);
        match self.frame {
            Some(index) => decode_frame(&stored, index, plain_len),
            None if stored.len() as u64 == plain_len => Ok(stored),
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

/// A core that is not compressed, in pieces.
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
    /// How the core is laid out; `None` where there is no core.
    ///
    /// # Errors
    /// Those of the source, or when the zip or the core's seek table contradicts itself.
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

    /// The plain core from a copy of its stored bytes, which lay where [`CoreLayout::Stream`] said.
    ///
    /// # Errors
    /// As [`core_reader`](Self::core_reader).
    pub fn core_from_copy(
        &self,
        copy: impl Read + Send + 'static,
    ) -> Result<Option<Box<dyn Read + Send>>, BundleError> {
        self.core_entry()
            .map(|entry| self.plain_core(entry, copy))
            .transpose()
    }

    /// Where an entry's stored bytes lie in the bundle, as far as they are there.
    ///
    /// # Errors
    /// When it is stored in a way that is not supported, or the zip contradicts itself.
    pub fn stored_range(&self, entry: &BundleEntry) -> Result<Range<u64>, BundleError> {
        let window = self.content(entry)?;
        Ok(window.range())
    }
}
