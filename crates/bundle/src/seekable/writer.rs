//! Writes a seekable stream in bounded memory: one plain frame, one compressed frame, and eight
//! bytes per frame for the table.

use std::io::{self, Write};

use super::{FOOTER_LEN, FOOTER_MAGIC, MOST_FRAMES, TABLE_MAGIC};

/// Counts of a [`SeekableWriter`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeekableStats {
    /// Plain bytes accepted.
    pub plain: u64,
    /// Bytes written, including the table.
    pub stored: u64,
}

/// Compresses the written bytes into independent frames. [`SeekableWriter::finish`] writes the
/// table; without it, only [`recover`](super::SeekableReader::recover) reads the stream.
pub struct SeekableWriter<W: Write> {
    out: W,
    compressor: zstd::bulk::Compressor<'static>,
    frame_size: usize,
    pending: Vec<u8>,
    compressed: Vec<u8>,
    /// A compressed frame of zeroes: cores contain many, so it is compressed once.
    zero_frame: Option<Vec<u8>>,
    table: Vec<(u32, u32)>,
    stats: SeekableStats,
}

impl<W: Write> SeekableWriter<W> {
    /// Writes to `out` with zstd compression `level`, one frame per `frame_size` bytes (1 byte to
    /// 64 MiB).
    ///
    /// # Errors
    /// Fails if `frame_size` is out of range, or if zstd cannot be set up.
    pub fn new(out: W, level: i32, frame_size: usize) -> io::Result<Self> {
        if !(1..=super::LARGEST_FRAME as usize).contains(&frame_size) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "frame size out of range",
            ));
        }
        Ok(Self {
            out,
            compressor: frame_compressor(level)?,
            frame_size,
            pending: Vec::with_capacity(frame_size),
            compressed: Vec::with_capacity(zstd::zstd_safe::compress_bound(frame_size)),
            zero_frame: None,
            table: Vec::new(),
            stats: SeekableStats {
                plain: 0,
                stored: 0,
            },
        })
    }

    /// Counts so far. Bytes that wait for a full frame do not count as stored.
    #[must_use]
    pub fn stats(&self) -> SeekableStats {
        self.stats
    }

    /// The inner writer.
    pub fn get_ref(&self) -> &W {
        &self.out
    }

    /// The inner writer, to change how it writes. What was already written to it is unaffected.
    pub fn get_mut(&mut self) -> &mut W {
        &mut self.out
    }

    /// Writes `count` zeroes; complete frames of zeroes are never allocated.
    ///
    /// # Errors
    /// Returns errors of the inner writer.
    pub fn write_zeroes(&mut self, mut count: u64) -> io::Result<()> {
        while count > 0 {
            if self.pending.is_empty() && count >= self.frame_size as u64 {
                self.write_zero_frame()?;
                self.stats.plain = self.stats.plain.saturating_add(self.frame_size as u64);
                count = count.saturating_sub(self.frame_size as u64);
                continue;
            }
            let room = self.frame_size.saturating_sub(self.pending.len());
            let part = usize::try_from(count).unwrap_or(usize::MAX).min(room);
            self.pending
                .resize(self.pending.len().saturating_add(part), 0);
            self.stats.plain = self.stats.plain.saturating_add(part as u64);
            count = count.saturating_sub(part as u64);
            self.flush_full()?;
        }
        Ok(())
    }

    /// Writes a precompressed frame: exactly one zstd frame of `plain_len` bytes that states its
    /// content size. Bytes that were written before get a frame of their own.
    ///
    /// # Errors
    /// Returns errors of the inner writer, and `InvalidInput` if the frame does not meet these
    /// conditions.
    pub fn write_frame(&mut self, compressed: &[u8], plain_len: u32) -> io::Result<()> {
        let stated = zstd::zstd_safe::get_frame_content_size(compressed)
            .ok()
            .flatten();
        let len = zstd::zstd_safe::find_frame_compressed_size(compressed).ok();
        if stated != Some(u64::from(plain_len))
            || len != Some(compressed.len())
            || !(1..=super::LARGEST_FRAME).contains(&plain_len)
        {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "not one zstd frame of this size",
            ));
        }
        self.flush_pending()?;
        self.out.write_all(compressed)?;
        self.stats.plain = self.stats.plain.saturating_add(u64::from(plain_len));
        self.note(compressed.len(), plain_len as usize)
    }

    /// Writes the last frame and the table.
    ///
    /// # Errors
    /// Returns errors of the inner writer.
    pub fn finish(mut self) -> io::Result<(W, SeekableStats)> {
        self.flush_pending()?;
        let too_many = || io::Error::other("too many frames for a seek table");
        let frames = u32::try_from(self.table.len()).map_err(|_| too_many())?;
        let len = u64::from(frames)
            .saturating_mul(8)
            .saturating_add(FOOTER_LEN);
        let mut tail = Vec::with_capacity(self.table.len().saturating_mul(8).saturating_add(17));
        tail.extend(TABLE_MAGIC);
        tail.extend(u32::try_from(len).map_err(|_| too_many())?.to_le_bytes());
        for (stored, plain) in &self.table {
            tail.extend(stored.to_le_bytes());
            tail.extend(plain.to_le_bytes());
        }
        tail.extend(frames.to_le_bytes());
        tail.push(0);
        tail.extend(FOOTER_MAGIC);
        self.out.write_all(&tail)?;
        self.out.flush()?;
        self.stats.stored = self.stats.stored.saturating_add(tail.len() as u64);
        Ok((self.out, self.stats))
    }

    fn flush_full(&mut self) -> io::Result<()> {
        if self.pending.len() >= self.frame_size {
            self.flush_pending()
        } else {
            Ok(())
        }
    }

    fn flush_pending(&mut self) -> io::Result<()> {
        let plain = self.pending.len();
        if plain == 0 {
            return Ok(());
        }
        if plain == self.frame_size && is_zero(&self.pending) {
            self.write_zero_frame()?;
        } else {
            self.compressed.clear();
            self.compressor
                .compress_to_buffer(&self.pending, &mut self.compressed)?;
            self.out.write_all(&self.compressed)?;
            self.note(self.compressed.len(), plain)?;
        }
        self.pending.clear();
        Ok(())
    }

    fn write_zero_frame(&mut self) -> io::Result<()> {
        let frame = match self.zero_frame.take() {
            Some(frame) => frame,
            None => self.compressor.compress(&vec![0; self.frame_size])?,
        };
        self.out.write_all(&frame)?;
        self.note(frame.len(), self.frame_size)?;
        self.zero_frame = Some(frame);
        Ok(())
    }

    fn note(&mut self, stored: usize, plain: usize) -> io::Result<()> {
        if self.table.len() >= MOST_FRAMES as usize {
            return Err(io::Error::other("too many frames for a seek table"));
        }
        let size = |len: usize| u32::try_from(len).map_err(io::Error::other);
        self.table.push((size(stored)?, size(plain)?));
        self.stats.stored = self.stats.stored.saturating_add(stored as u64);
        Ok(())
    }
}

/// A compressor at zstd's `level` whose frames end with a content checksum, as required for
/// seekable cores.
///
/// # Errors
/// Fails if zstd cannot be set up.
pub fn frame_compressor(level: i32) -> io::Result<zstd::bulk::Compressor<'static>> {
    let mut compressor = zstd::bulk::Compressor::new(level)?;
    // XXH64 is cheap compared with compression.
    compressor.include_checksum(true)?;
    Ok(compressor)
}

fn is_zero(data: &[u8]) -> bool {
    let (chunks, tail) = data.as_chunks::<64>();
    chunks.iter().all(|chunk| *chunk == [0; 64]) && tail.iter().all(|&byte| byte == 0)
}

impl<W: Write> Write for SeekableWriter<W> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        // Retry a frame whose write failed before, so that the buffer does not overflow.
        self.flush_full()?;
        let room = self.frame_size.saturating_sub(self.pending.len());
        let part = data.get(..room).unwrap_or(data);
        self.pending.extend_from_slice(part);
        self.stats.plain = self.stats.plain.saturating_add(part.len() as u64);
        self.flush_full()?;
        Ok(part.len())
    }

    /// Flushes the inner writer. An incomplete frame is not written: short frames compress worse.
    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
