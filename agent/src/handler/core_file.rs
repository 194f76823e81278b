//! The core's file in the entry: whole frames, and at the end the seek table.
//!
//! Invariant: the file holds whole frames only. A write that fails half-way (a full disk) is taken
//! back, so that what was stored before remains readable.

use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};

use cdh_bundle::{SEEKABLE_FRAME, SeekableWriter};

use super::core_copy::FrameSink;
use super::disk_guard::DiskGuard;

/// A file in which each write is there as a whole or not at all.
#[derive(Debug)]
struct WholeWrites {
    file: File,
    length: u64,
}

impl Write for WholeWrites {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.file.write_all(bytes) {
            Ok(()) => {
                self.length += bytes.len() as u64;
                Ok(bytes.len())
            }
            Err(error) => {
                self.file.set_len(self.length)?;
                self.file.seek(SeekFrom::Start(self.length))?;
                Err(error)
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The file that receives the core.
pub(super) struct CoreFile<'g> {
    frames: SeekableWriter<WholeWrites>,
    level: i32,
    guard: &'g DiskGuard,
}

impl<'g> CoreFile<'g> {
    /// Over an empty file.
    ///
    /// # Errors
    /// When the compressor cannot be set up.
    pub(super) fn new(file: File, level: i32, guard: &'g DiskGuard) -> io::Result<Self> {
        let out = WholeWrites { file, length: 0 };
        Ok(Self {
            frames: SeekableWriter::new(out, level, SEEKABLE_FRAME)?,
            level,
            guard,
        })
    }

    /// Appends bytes at once, in frames of their own: so that they are in the file now.
    ///
    /// # Errors
    /// When they cannot all be stored.
    pub(super) fn append_now(&mut self, bytes: &[u8]) -> io::Result<()> {
        for piece in bytes.chunks(SEEKABLE_FRAME) {
            let length = u32::try_from(piece.len()).map_err(io::Error::other)?;
            let frame = zstd::bulk::compress(piece, self.level)?;
            self.append(&frame, length)?;
        }
        Ok(())
    }

    /// Adds the seek table and syncs the file; its size.
    ///
    /// # Errors
    /// When the table cannot be stored.
    pub(super) fn finish(self) -> io::Result<u64> {
        let (out, stats) = self.frames.finish()?;
        out.file.sync_all()?;
        Ok(stats.stored)
    }
}

impl FrameSink for CoreFile<'_> {
    fn append(&mut self, frame: &[u8], plain: u32) -> io::Result<()> {
        self.guard.admit(frame.len() as u64)?;
        self.frames.write_frame(frame, plain)
    }
}
