//! Measures a zstd frame from its header and block headers (RFC 8878) without decompressing it.
//! Used to recover a stream that lost its seek table.
//!
//! ```text
//! frame:  28 B5 2F FD  <descriptor> [window] [dictionary id] [content size]  block…  [checksum]
//! block:  <u24: last (bit 0), type (bits 1-2), size (bits 3-23)>  content
//! ```

#![deny(clippy::arithmetic_side_effects)]

use std::io;

use cdh_elfcore::ByteSource;

const FRAME_MAGIC: u32 = 0xFD2F_B528;

/// Block types: stored, one repeated byte, compressed. The fourth is reserved.
const RLE_BLOCK: u32 = 1;
const RESERVED_BLOCK: u32 = 3;

/// Flag in the frame header's descriptor: the frame ends with a checksum of its content.
const CHECKSUM_FLAG: u8 = 4;

/// Whether decompression of this frame verifies a checksum.
pub(crate) fn has_checksum(frame: &[u8]) -> bool {
    frame.starts_with(&FRAME_MAGIC.to_le_bytes())
        && frame.get(4).is_some_and(|bits| bits & CHECKSUM_FLAG != 0)
}

/// Length of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FrameSize {
    pub(super) stored: u64,
    /// `None` if the frame does not state it.
    pub(super) plain: Option<u64>,
}

/// Buffers small reads: block headers are a few kilobytes apart.
pub(super) struct Cursor<'s> {
    source: &'s dyn ByteSource,
    at: u64,
    buffer: Vec<u8>,
}

impl<'s> Cursor<'s> {
    pub(super) fn new(source: &'s dyn ByteSource) -> Self {
        Self {
            source,
            at: 0,
            buffer: Vec::new(),
        }
    }

    /// `N` bytes at `at`; `None` if the source ends before.
    fn take<const N: usize>(&mut self, at: u64) -> io::Result<Option<[u8; N]>> {
        for attempt in 0..2 {
            let found = at
                .checked_sub(self.at)
                .and_then(|skip| usize::try_from(skip).ok())
                .and_then(|skip| self.buffer.get(skip..)?.first_chunk::<N>());
            if let Some(bytes) = found {
                return Ok(Some(*bytes));
            }
            if attempt == 0 {
                self.buffer = crate::window::read_up_to(self.source, at, 256 << 10)?;
                self.at = at;
            }
        }
        Ok(None)
    }
}

/// The size of the frame at `at`; `None` if there is no complete frame.
pub(super) fn measure(cursor: &mut Cursor<'_>, at: u64) -> io::Result<Option<FrameSize>> {
    let Some([m0, m1, m2, m3, descriptor]) = cursor.take::<5>(at)? else {
        return Ok(None);
    };
    if u32::from_le_bytes([m0, m1, m2, m3]) != FRAME_MAGIC || descriptor & 0b1000 != 0 {
        return Ok(None);
    }
    let single_segment = descriptor & 0x20 != 0;
    let dictionary_len = match descriptor & 3 {
        0 => 0_u64,
        1 => 1,
        2 => 2,
        _ => 4,
    };
    let mut next = at
        .saturating_add(5)
        .saturating_add(u64::from(!single_segment))
        .saturating_add(dictionary_len);
    let (plain, len) = match (descriptor >> 6, single_segment) {
        (0, false) => (None, 0_u64),
        (0, true) => (cursor.take::<1>(next)?.map(|[byte]| u64::from(byte)), 1),
        (1, _) => (
            cursor
                .take(next)?
                .map(|raw| u64::from(u16::from_le_bytes(raw)).saturating_add(256)),
            2,
        ),
        (2, _) => (
            cursor
                .take(next)?
                .map(|raw| u64::from(u32::from_le_bytes(raw))),
            4,
        ),
        _ => (cursor.take(next)?.map(u64::from_le_bytes), 8),
    };
    next = next.saturating_add(len);
    loop {
        let Some([b0, b1, b2]) = cursor.take::<3>(next)? else {
            return Ok(None);
        };
        let header = u32::from_le_bytes([b0, b1, b2, 0]);
        let content = match (header >> 1) & 3 {
            RLE_BLOCK => 1,
            RESERVED_BLOCK => return Ok(None),
            _ => u64::from(header >> 3),
        };
        next = next.saturating_add(3).saturating_add(content);
        if header & 1 != 0 {
            break;
        }
    }
    if descriptor & CHECKSUM_FLAG != 0 {
        next = next.saturating_add(4);
    }
    let whole = next <= cursor.source.len();
    Ok(whole.then(|| FrameSize {
        stored: next.saturating_sub(at),
        plain,
    }))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn measured(bytes: &[u8]) -> Option<FrameSize> {
        measure(&mut Cursor::new(&bytes.to_vec()), 0).unwrap()
    }

    #[test]
    fn frame_measure_agrees_with_zstd() {
        let noise: Vec<u8> = (0..700_000_u32)
            .map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8)
            .collect();
        for len in [0, 1, 255, 256, 300, 70_000, 700_000] {
            for data in [&noise[..len], &vec![0; len]] {
                let frame = zstd::bulk::compress(data, 1).unwrap();
                let expected = FrameSize {
                    stored: frame.len() as u64,
                    plain: Some(len as u64),
                };
                assert_eq!(measured(&frame), Some(expected));
                assert_eq!(measured(&[&frame[..], b"tail"].concat()), Some(expected));
                assert_eq!(measured(&frame[..frame.len() - 1]), None);
            }
        }
    }

    #[test]
    fn frame_measure_of_a_streamed_frame_has_no_plain_size() {
        let mut encoder = zstd::stream::Encoder::new(Vec::new(), 1).unwrap();
        encoder.include_checksum(true).unwrap();
        encoder.write_all(b"abc").unwrap();
        let frame = encoder.finish().unwrap();
        assert_eq!(
            measured(&frame),
            Some(FrameSize {
                stored: frame.len() as u64,
                plain: None
            })
        );
    }
}
