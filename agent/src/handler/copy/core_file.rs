//! The core's file in the entry: whole frames, and at the end the seek table.
//!
//! ```text
//! frame ─▶ page cache ─▶ file
//! frame ─▶ staged, up to 2 MiB and a frame ─▶ past the page cache ─▶ file       a large core
//! ```
//!
//! Invariants: the file ends with a whole frame, but while frames are staged, when salvage may have to
//! take back a torn one. A write that fails half-way (a full disk) is taken back, so that what was stored
//! before remains readable. The room of a staged frame is reserved before it counts as stored.

use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use cdh_bundle::{Digests, SEEKABLE_FRAME, SeekableWriter};
use rustix::fs::{FallocateFlags, fallocate};
use serde::{Deserialize, Serialize};

use super::core_copy::FrameSink;
use super::direct_io::{AlignedBuffer, BLOCK, DirectReader, Writing, open_again};
use super::disk_guard::DiskGuard;

/// Bytes that are written past the page cache at once.
const STAGED: usize = 2 << 20;
/// Bytes that are reserved at once.
const RESERVED: u64 = 8 << 20;
/// Bytes after which the disk's speed is judged.
const TRIAL: u64 = 64 << 20;

/// A file in which each write is there as a whole or not at all.
#[derive(Debug)]
struct WholeWrites {
    file: File,
    length: u64,
    staged: Option<Staged>,
}

impl WholeWrites {
    /// Writes past the page cache from now on, where that can be.
    fn stage(&mut self, slowest: u64) {
        if self.staged.is_none() {
            self.staged = Staged::new(&self.file, self.length, slowest).ok();
        }
    }

    /// Brings what is staged into the file, whose next writes go into the page cache. Where that fails it
    /// stays staged: it counts as stored, and its place in the file is kept for it.
    fn unstage(&mut self) -> io::Result<()> {
        let Some(staged) = &mut self.staged else {
            return Ok(());
        };
        let (bytes, at) = staged.waiting();
        self.file.write_all_at(bytes, at)?;
        // Frees the reservation beyond it.
        self.file.set_len(self.length)?;
        self.file.seek(SeekFrom::Start(self.length))?;
        self.staged = None;
        Ok(())
    }
}

impl Write for WholeWrites {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some(staged) = &mut self.staged {
            if staged.put(&self.file, bytes).is_ok() {
                self.length += bytes.len() as u64;
                return Ok(bytes.len());
            }
            self.unstage()?;
        }
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
        self.unstage()
    }
}

/// What waits to be written past the page cache.
#[derive(Debug)]
struct Staged {
    file: File,
    buffer: AlignedBuffer,
    filled: usize,
    /// Place of the buffer in the file.
    at: u64,
    /// End of the reserved room in the file.
    reserved: u64,
    written: u64,
    spent: Duration,
    /// Bytes per second below which it is not worth it; 0: never.
    slowest: u64,
}

impl Staged {
    /// Behind `length` bytes of a file. The content of its last block is written once more.
    fn new(file: &File, length: u64, slowest: u64) -> io::Result<Self> {
        let behind = (length % BLOCK as u64) as usize;
        let at = length - behind as u64;
        let room = STAGED + zstd::zstd_safe::compress_bound(SEEKABLE_FRAME);
        let mut buffer = AlignedBuffer::new(room);
        let last = buffer.bytes().get_mut(..behind).unwrap_or_default();
        file.read_exact_at(last, at)?;
        Ok(Self {
            file: open_again(file)?,
            buffer,
            filled: behind,
            at,
            reserved: length,
            written: 0,
            spent: Duration::ZERO,
            slowest,
        })
    }

    /// What is not in the file yet, and its place there.
    fn waiting(&mut self) -> (&[u8], u64) {
        let bytes = self.buffer.bytes().get(..self.filled).unwrap_or_default();
        (bytes, self.at)
    }

    /// Takes all of the bytes, or nothing.
    fn put(&mut self, file: &File, bytes: &[u8]) -> io::Result<()> {
        if self.is_slow() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let (start, end) = (self.filled, self.filled.saturating_add(bytes.len()));
        let place = self.buffer.bytes().get_mut(start..end);
        place
            .ok_or(io::ErrorKind::InvalidInput)?
            .copy_from_slice(bytes);
        let past = self.at.saturating_add(end as u64);
        while self.reserved < past {
            fallocate(file, FallocateFlags::KEEP_SIZE, self.reserved, RESERVED)?;
            self.reserved = self.reserved.saturating_add(RESERVED);
        }
        if end >= STAGED {
            self.write(end)?;
        } else {
            self.filled = end;
        }
        Ok(())
    }

    /// Writes the whole blocks of the first `filled` bytes; what follows them waits.
    fn write(&mut self, filled: usize) -> io::Result<()> {
        let whole = filled / BLOCK * BLOCK;
        let begun = Instant::now();
        let bytes = self.buffer.bytes();
        let blocks = bytes.get(..whole).unwrap_or_default();
        self.file.write_all_at(blocks, self.at)?;
        bytes.copy_within(whole..filled, 0);
        self.spent += begun.elapsed();
        self.written += whole as u64;
        self.at += whole as u64;
        self.filled = filled - whole;
        Ok(())
    }

    fn is_slow(&self) -> bool {
        let rate = self.written as f64 / self.spent.as_secs_f64().max(0.001);
        self.written >= TRIAL && rate < self.slowest as f64
    }
}

/// The file that receives the core.
pub(crate) struct CoreFile<'g> {
    frames: SeekableWriter<WholeWrites>,
    level: i32,
    guard: &'g DiskGuard,
    past_cache: bool,
}

/// A core's file that is whole and on disk.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct FinishedFile {
    /// Bytes of it.
    pub size: u64,
    /// Of all its bytes, where reading it here is quicker than later.
    pub digests: Option<Digests>,
}

impl<'g> CoreFile<'g> {
    /// Over an empty file.
    ///
    /// # Errors
    /// When the compressor cannot be set up.
    pub(crate) fn new(file: File, level: i32, guard: &'g DiskGuard) -> io::Result<Self> {
        let out = WholeWrites {
            file,
            length: 0,
            staged: None,
        };
        Ok(Self {
            frames: SeekableWriter::new(out, level, SEEKABLE_FRAME)?,
            level,
            guard,
            past_cache: false,
        })
    }

    /// Appends bytes at once, in frames of their own: so that they are in the file now.
    ///
    /// # Errors
    /// When they cannot all be stored.
    pub(crate) fn append_now(&mut self, bytes: &[u8]) -> io::Result<()> {
        for piece in bytes.chunks(SEEKABLE_FRAME) {
            let length = u32::try_from(piece.len()).map_err(io::Error::other)?;
            let frame = cdh_bundle::frame_compressor(self.level)?.compress(piece)?;
            self.append(&frame, length)?;
        }
        Ok(())
    }

    /// The file.
    pub(crate) fn descriptor(&self) -> BorrowedFd<'_> {
        self.frames.get_ref().file.as_fd()
    }

    /// Writes the frames from now on so.
    pub(crate) fn write_so(&mut self, writing: Writing) {
        if let Writing::Direct(slowest) = writing {
            self.frames.get_mut().stage(slowest);
            self.past_cache = true;
        }
    }

    /// Adds the seek table and syncs the file.
    ///
    /// # Errors
    /// When the table cannot be stored.
    pub(crate) fn finish(self) -> io::Result<FinishedFile> {
        let (out, stats) = self.frames.finish()?;
        out.file.sync_all()?;
        let digests = match self.past_cache {
            true => DirectReader::new(&out.file).and_then(Digests::of_reader),
            false => Err(io::ErrorKind::Unsupported.into()),
        };
        Ok(FinishedFile {
            size: stats.stored,
            digests: digests.ok(),
        })
    }
}

impl FrameSink for CoreFile<'_> {
    fn append(&mut self, frame: &[u8], plain: u32) -> io::Result<()> {
        self.guard.admit(frame.len() as u64)?;
        self.frames.write_frame(frame, plain)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use cdh_bundle::SeekableReader;
    use cdh_elfcore::{ByteSource, FileSource};

    use super::*;
    use crate::handler::startup::settings::HandlerSettings;

    /// Writes a head and noise in frames. Returns the file, its plain content, and the result of `finish`
    /// unless the handler dies before.
    fn written(writing: Writing, dies: bool) -> (File, Vec<u8>, Option<FinishedFile>) {
        let directory = tempfile::tempdir().unwrap();
        let mut options = File::options();
        options.read(true).write(true).create_new(true);
        let file = options.open(directory.path().join("core")).unwrap();
        let guard = DiskGuard::new(
            File::open(directory.path()).unwrap().into(),
            &HandlerSettings {
                floor: 0,
                ..HandlerSettings::default()
            },
        );
        let mut core = CoreFile::new(file.try_clone().unwrap(), 1, &guard).unwrap();
        let mut plain = b"the head".repeat(100);
        core.append_now(&plain).unwrap();
        let mut state = 1_u64;
        for number in 0..11 {
            if number == 1 {
                core.write_so(writing);
            }
            let length = SEEKABLE_FRAME - (number * 777) % 5000;
            let mut noise = vec![0; length];
            for word in noise.chunks_mut(8) {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                word.copy_from_slice(&state.to_be_bytes()[..word.len()]);
            }
            let frame = zstd::bulk::compress(&noise, 1).unwrap();
            core.append(&frame, length as u32).unwrap();
            plain.extend(noise);
        }
        let finished = (!dies).then(|| core.finish().unwrap());
        (file, plain, finished)
    }

    /// What a reader finds that does not ask for the seek table.
    fn read_back(file: File) -> Vec<u8> {
        let reader = SeekableReader::recover(FileSource::new(file).unwrap()).unwrap();
        let mut bytes = vec![0; reader.plain_len() as usize];
        assert_eq!(reader.read_at(0, &mut bytes).unwrap(), bytes.len());
        bytes
    }

    #[test]
    fn a_handler_that_dies_leaves_all_frames_but_those_that_are_staged() {
        let (file, plain, _) = written(Writing::Direct(0), true);
        let found = read_back(file);
        assert!(plain.starts_with(&found));
        assert!(plain.len() - found.len() <= STAGED + SEEKABLE_FRAME);
    }

    #[test]
    fn what_goes_past_the_cache_is_the_file_that_the_cache_makes() {
        let (expected, ..) = written(Writing::Cached, false);
        let mut bytes = vec![0; expected.metadata().unwrap().len() as usize];
        expected.read_exact_at(&mut bytes, 0).unwrap();
        let (file, plain, finished) = written(Writing::Direct(0), false);
        let (metadata, finished) = (file.metadata().unwrap(), finished.unwrap());
        assert_eq!(metadata.len(), finished.size);
        let mut ours = vec![0; bytes.len()];
        file.read_exact_at(&mut ours, 0).unwrap();
        assert!(ours == bytes);
        let digests = finished.digests;
        assert!(digests.is_none_or(|found| found == Digests::of(&bytes)));
        // What was reserved beyond the end is freed.
        assert!(metadata.blocks() * 512 < metadata.len() + (1 << 20));
        assert!(read_back(file) == plain);
    }

    #[test]
    fn a_slow_disk_is_written_through_the_cache() {
        let directory = tempfile::tempdir().unwrap();
        let mut options = File::options();
        options.read(true).write(true).create_new(true);
        let file = options.open(directory.path().join("core")).unwrap();
        let mut out = WholeWrites {
            file: file.try_clone().unwrap(),
            length: 0,
            staged: None,
        };
        out.write_all(&[1; 5000]).unwrap();
        out.stage(u64::MAX);
        let Some(staged) = &mut out.staged else {
            // Not every file system can.
            return;
        };
        staged.written = TRIAL;
        out.write_all(&[2; 5000]).unwrap();
        assert!(out.staged.is_none());
        let mut bytes = vec![0; 10_000];
        file.read_exact_at(&mut bytes, 0).unwrap();
        assert!(bytes == [[1; 5000], [2; 5000]].concat());
    }

    #[test]
    fn frames_that_cannot_be_brought_into_the_file_now_are_when_it_is_finished() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("core");
        let mut out = WholeWrites {
            file: File::create_new(&path).unwrap(),
            length: 0,
            staged: None,
        };
        out.write_all(&[1; 5000]).unwrap();
        out.file = File::options().read(true).write(true).open(&path).unwrap();
        out.stage(u64::MAX);
        if out.staged.is_none() {
            // Not every file system can.
            return;
        }
        out.write_all(&[2; 5000]).unwrap();
        out.staged.as_mut().unwrap().written = TRIAL;
        // A file that takes nothing.
        let writable = std::mem::replace(&mut out.file, File::open(&path).unwrap());
        out.write_all(&[3; 5000]).unwrap_err();
        out.file = writable;
        out.write_all(&[4; 5000]).unwrap();
        out.flush().unwrap();
        let bytes = std::fs::read(path).unwrap();
        assert!(bytes == [[1; 5000], [2; 5000], [4; 5000]].concat());
    }
}
