//! The seek table of a stream: read from its end, or rebuilt from its frames.

#![deny(clippy::arithmetic_side_effects)]

use cdh_elfcore::ByteSource;

use super::frame::{self, FrameSize};
use super::{
    FOOTER_LEN, FOOTER_MAGIC, LARGEST_FRAME, MOST_FRAMES, SeekableError, TABLE_HEADER_LEN,
    TABLE_MAGIC,
};

/// Start offsets of the frames, in the stream and in the plain bytes, plus the end.
#[derive(Debug)]
pub(super) struct Table {
    starts: Vec<(u64, u64)>,
}

/// Offset and size of one frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SeekTableEntry {
    pub(crate) index: usize,
    pub(crate) stored_at: u64,
    pub(crate) stored_len: u64,
    pub(crate) plain_at: u64,
    pub(crate) plain_len: u64,
}

impl SeekTableEntry {
    /// Whether a frame of this plain size can have this length: zstd stores what it cannot
    /// compress.
    pub(crate) fn is_plausible(&self) -> bool {
        let plain_len = usize::try_from(self.plain_len).unwrap_or(0);
        let most = zstd::zstd_safe::compress_bound(plain_len) as u64;
        self.stored_len <= most.saturating_add(64)
    }
}

impl Table {
    pub(super) fn read(source: &dyn ByteSource) -> Result<Self, SeekableError> {
        let wrong = |what| SeekableError::Table { what };
        let len = source.len();
        let footer_at = len.checked_sub(FOOTER_LEN).ok_or(SeekableError::NoTable)?;
        let mut footer = [0; FOOTER_LEN as usize];
        if source.read_at(footer_at, &mut footer)? != footer.len() {
            return Err(SeekableError::NoTable);
        }
        let [n0, n1, n2, n3, flags, magic @ ..] = footer;
        if magic != FOOTER_MAGIC {
            return Err(SeekableError::NoTable);
        }
        let frames = u32::from_le_bytes([n0, n1, n2, n3]);
        if flags & 0b0111_1100 != 0 {
            return Err(wrong("reserved flags are set"));
        }
        let row: usize = if flags & 0x80 == 0 { 8 } else { 12 };
        let rows_len = u64::from(frames).saturating_mul(row as u64);
        let rows_at = footer_at
            .checked_sub(rows_len)
            .ok_or(wrong("it is longer than the stream"))?;
        let table_at = rows_at
            .checked_sub(TABLE_HEADER_LEN)
            .ok_or(wrong("it is longer than the stream"))?;
        let mut header = [0; TABLE_HEADER_LEN as usize];
        if frames > MOST_FRAMES || source.read_at(table_at, &mut header)? != header.len() {
            return Err(wrong("it has too many frames"));
        }
        let [m0, m1, m2, m3, l0, l1, l2, l3] = header;
        let stated = u64::from(u32::from_le_bytes([l0, l1, l2, l3]));
        if [m0, m1, m2, m3] != TABLE_MAGIC || Some(stated) != rows_len.checked_add(FOOTER_LEN) {
            return Err(wrong("its frame does not begin where it should"));
        }
        Self::read_rows(source, rows_at, frames, row, table_at)
    }

    fn read_rows(
        source: &dyn ByteSource,
        mut at: u64,
        frames: u32,
        row: usize,
        table_at: u64,
    ) -> Result<Self, SeekableError> {
        let mut table = Self {
            starts: vec![(0, 0)],
        };
        // Read in pieces: memory grows with the bytes that exist, not with an untrusted count.
        let mut left = frames as usize;
        while left > 0 {
            let count = left.min(8192);
            let piece = crate::window::read_up_to(source, at, count.saturating_mul(row))?;
            if piece.len() != count.saturating_mul(row) {
                return Err(SeekableError::Table { what: "it is cut" });
            }
            for row in piece.chunks_exact(row) {
                if let [s0, s1, s2, s3, p0, p1, p2, p3, ..] = *row {
                    let stored = u32::from_le_bytes([s0, s1, s2, s3]);
                    let plain = u32::from_le_bytes([p0, p1, p2, p3]);
                    table.push(u64::from(stored), u64::from(plain))?;
                }
            }
            at = at.saturating_add(piece.len() as u64);
            left = left.saturating_sub(count);
        }
        if table.stored_len() != table_at {
            return Err(SeekableError::Table {
                what: "the frames do not fill the stream",
            });
        }
        Ok(table)
    }

    /// Finds the complete frames from the start of the stream.
    pub(super) fn scan(source: &dyn ByteSource) -> Result<Self, SeekableError> {
        let mut table = Self {
            starts: vec![(0, 0)],
        };
        let mut cursor = frame::Cursor::new(source);
        loop {
            match frame::measure(&mut cursor, table.stored_len())? {
                Some(FrameSize {
                    stored,
                    plain: Some(plain),
                }) if plain <= LARGEST_FRAME.into() => {
                    table.push(stored, plain)?;
                }
                // The end, a truncated frame, or a frame that is not ours.
                _ => return Ok(table),
            }
        }
    }

    fn push(&mut self, stored: u64, plain: u64) -> Result<(), SeekableError> {
        if plain > u64::from(LARGEST_FRAME) {
            return Err(SeekableError::FrameTooLarge { size: plain });
        }
        let wrong = SeekableError::Table {
            what: "sizes overflow",
        };
        let (stored_at, plain_at) = self.starts.last().copied().unwrap_or_default();
        match (stored_at.checked_add(stored), plain_at.checked_add(plain)) {
            (Some(stored_at), Some(plain_at)) => self.starts.push((stored_at, plain_at)),
            _ => return Err(wrong),
        }
        Ok(())
    }

    pub(super) fn plain_len(&self) -> u64 {
        self.starts.last().map_or(0, |&(_, plain)| plain)
    }

    pub(super) fn stored_len(&self) -> u64 {
        self.starts.last().map_or(0, |&(stored, _)| stored)
    }

    /// The frame that holds the plain byte at `offset`.
    pub(super) fn find(&self, offset: u64) -> Option<SeekTableEntry> {
        // Frames may be empty: the last one that begins at or before the offset contains it.
        let after = self.starts.partition_point(|&(_, plain)| plain <= offset);
        self.entry(after.checked_sub(1)?)
    }

    /// Every frame, in order.
    pub(super) fn entries(&self) -> impl Iterator<Item = SeekTableEntry> + '_ {
        (0..self.starts.len()).map_while(|index| self.entry(index))
    }

    fn entry(&self, index: usize) -> Option<SeekTableEntry> {
        let after = index.checked_add(1)?;
        let &(stored_at, plain_at) = self.starts.get(index)?;
        let &(stored_end, plain_end) = self.starts.get(after)?;
        Some(SeekTableEntry {
            index,
            stored_at,
            stored_len: stored_end.saturating_sub(stored_at),
            plain_at,
            plain_len: plain_end.saturating_sub(plain_at),
        })
    }
}
