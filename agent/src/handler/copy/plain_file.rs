//! A core as it is, in a sparse file: quicker to write than to compress, so the process goes sooner.
//!
//! A disk that is slower than compressing is left to the compressor.
//!
//! Invariant: `core.progress` beside it never counts bytes that are not in the file yet; salvage relies on it.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::FileExt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use cdh_bundle::SEEKABLE_FRAME;

use super::core_copy::OffsetSink;
use super::core_source::{CoreSource, FrameSpan, SourceFailure, is_zero, to_next_boundary};
use super::direct_io::{BLOCK, Writing, open_again};
use super::disk_guard::DiskGuard;
use crate::handler::startup::log::readable_size;

/// Name of the file with the number of bytes of the core that are stored.
pub(crate) const PROGRESS: &str = "core.progress";
/// Pieces between two notes of the progress.
const NOTED: u64 = 16;
/// Past the page cache a hole costs a write of its own, and pays only when it is as large as this.
const DIRECT_HOLE: usize = 64 << 10;
/// Bytes after which the disk's speed is judged.
const TRIAL: u64 = 128 << 20;

/// A sparse core that is being written.
pub(crate) struct PlainFile<'g> {
    file: File,
    direct: Option<DirectFile>,
    progress: Mutex<File>,
    start: u64,
    noted: AtomicU64,
    guard: &'g DiskGuard,
}

/// The same file, written past the page cache.
struct DirectFile {
    file: File,
    refused: AtomicBool,
    begun: Instant,
    written: AtomicU64,
    slowest: u64,
}

impl DirectFile {
    fn open(file: &File, slowest: u64) -> io::Result<Self> {
        Ok(Self {
            file: open_again(file)?,
            refused: AtomicBool::new(false),
            begun: Instant::now(),
            written: AtomicU64::new(0),
            slowest,
        })
    }

    /// Whether these bytes can be written so: file and memory have to be aligned.
    fn takes(&self, bytes: &[u8], at: u64) -> bool {
        let aligned = |value: usize| value.is_multiple_of(BLOCK);
        !self.refused.load(Ordering::Relaxed)
            && aligned(bytes.len())
            && aligned(bytes.as_ptr() as usize)
            && at.is_multiple_of(BLOCK as u64)
    }

    /// Whether they were written: a file system may refuse at the first write only.
    fn write(&self, bytes: &[u8], at: u64) -> io::Result<bool> {
        match self.file.write_all_at(bytes, at) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                self.refused.store(true, Ordering::Relaxed);
                return Ok(false);
            }
            Err(error) => return Err(error),
        }
        let length = bytes.len() as u64;
        let written = self.written.fetch_add(length, Ordering::Relaxed) + length;
        let seconds = self.begun.elapsed().as_secs_f64();
        let rate = written as f64 / seconds.max(0.001);
        if written >= TRIAL && rate < self.slowest as f64 {
            let rate = readable_size(rate as u64);
            return Err(io::Error::other(format!("the disk takes {rate}/s")));
        }
        Ok(true)
    }
}

impl<'g> PlainFile<'g> {
    /// Puts the head into an empty file. `progress` is an empty file too.
    ///
    /// # Errors
    /// When the head cannot be written.
    pub(crate) fn begin(
        file: File,
        progress: File,
        head: &[u8],
        guard: &'g DiskGuard,
        writing: Writing,
    ) -> io::Result<Self> {
        guard.admit(head.len() as u64)?;
        file.write_all_at(head, 0)?;
        let direct = match writing {
            Writing::Cached => None,
            Writing::Direct(slowest) => DirectFile::open(&file, slowest).ok(),
        };
        let plain = Self {
            file,
            direct,
            progress: Mutex::new(progress),
            start: head.len() as u64,
            noted: AtomicU64::new(0),
            guard,
        };
        plain.note(0)?;
        Ok(plain)
    }

    /// Numbers of the files that it writes.
    pub(crate) fn descriptors(&self) -> Vec<RawFd> {
        let progress = self.progress.lock().ok().map(|file| file.as_raw_fd());
        let direct = self.direct.as_ref().map(|direct| direct.file.as_raw_fd());
        let own = Some(self.file.as_raw_fd());
        [own, direct, progress].into_iter().flatten().collect()
    }

    /// Gives the file its length: `plain` bytes behind the head are there.
    ///
    /// # Errors
    /// When that cannot be written.
    pub(crate) fn finish(self, plain: u64) -> io::Result<PlainCore> {
        let end = self.start.saturating_add(plain);
        self.file.set_len(end)?;
        self.note(plain)?;
        Ok(PlainCore {
            past_cache: self.direct.and_then(|_| open_again(&self.file).ok()),
            file: self.file,
            start: self.start,
            end,
        })
    }

    fn write(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        if let Some(direct) = self
            .direct
            .as_ref()
            .filter(|direct| direct.takes(bytes, at))
            && direct.write(bytes, at)?
        {
            return Ok(());
        }
        self.file.write_all_at(bytes, at)
    }

    fn note(&self, plain: u64) -> io::Result<()> {
        let text = format!("{:020}", self.start.saturating_add(plain));
        match self.progress.lock() {
            Ok(progress) => progress.write_all_at(text.as_bytes(), 0),
            Err(_) => Ok(()),
        }
    }
}

impl OffsetSink for PlainFile<'_> {
    fn store(&self, piece: FrameSpan, bytes: &[u8]) -> io::Result<()> {
        // The first block may be short: pieces need not begin at a block.
        let first = (BLOCK - (piece.offset % BLOCK as u64) as usize).min(bytes.len());
        let (head, rest) = bytes.split_at_checked(first).unwrap_or((bytes, &[]));
        let hole = if self.direct.is_some() {
            DIRECT_HOLE
        } else {
            BLOCK
        };
        let blocks: Vec<&[u8]> = std::iter::once(head)
            .filter(|head| !head.is_empty())
            .chain(rest.chunks(hole))
            .collect();
        let mut at = 0;
        for run in blocks.chunk_by(|a, b| is_zero(a) == is_zero(b)) {
            let length: usize = run.iter().map(|block| block.len()).sum();
            let end = at + length;
            if !run.first().is_none_or(|block| is_zero(block)) {
                self.guard.admit(length as u64)?;
                let bytes = bytes.get(at..end).unwrap_or_default();
                self.write(bytes, piece.offset + at as u64)?;
            }
            at = end;
        }
        Ok(())
    }

    fn reached(&self, number: u64, plain: u64) {
        let noted = self.noted.load(Ordering::Relaxed);
        if number >= noted + NOTED {
            self.noted.store(number, Ordering::Relaxed);
            let _ = self.note(plain);
        }
    }
}

/// A finished sparse core.
pub(crate) struct PlainCore {
    /// The file.
    pub file: File,
    /// The same file, where what is in it was written past the page cache and is read so.
    past_cache: Option<File>,
    /// Where the head ends.
    start: u64,
    end: u64,
}

impl PlainCore {
    fn read(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let aligned = buffer.len().is_multiple_of(BLOCK) && offset.is_multiple_of(BLOCK as u64);
        let past_cache = self.past_cache.as_ref().filter(|_| aligned);
        match past_cache.map(|file| file.read_exact_at(buffer, offset)) {
            Some(Ok(())) => Ok(()),
            // A file system may refuse it for reasons of its own.
            Some(Err(_)) | None => self.file.read_exact_at(buffer, offset),
        }
    }
}

/// What follows the head of a finished sparse core, to be compressed.
pub(crate) struct PlainSource<'f> {
    core: &'f PlainCore,
    next: AtomicU64,
}

impl<'f> PlainSource<'f> {
    /// From the beginning.
    #[must_use]
    pub(crate) fn new(core: &'f PlainCore) -> Self {
        Self {
            core,
            next: AtomicU64::new(0),
        }
    }
}

impl CoreSource for PlainSource<'_> {
    fn next(&self, buffer: &mut [u8]) -> Result<Option<FrameSpan>, SourceFailure> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let frame = SEEKABLE_FRAME as u64;
        let PlainCore { start, end, .. } = *self.core;
        let first = (start / frame).saturating_add(number);
        let offset = first.saturating_mul(frame).max(start);
        if offset >= end {
            return Ok(None);
        }
        let length = usize::try_from(end - offset)
            .unwrap_or(usize::MAX)
            .min(to_next_boundary(offset));
        let buffer = buffer.get_mut(..length).unwrap_or_default();
        self.core
            .read(buffer, offset)
            .map_err(|error| SourceFailure { number, error })?;
        Ok(Some(FrameSpan {
            number,
            offset,
            length,
            zero: is_zero(buffer),
        }))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::super::core_copy::copy_at_offsets;
    use super::super::direct_io::AlignedBuffer;
    use super::*;
    use crate::handler::startup::settings::HandlerSettings;

    /// What its pieces are, one behind the other.
    fn read_back(core: &PlainCore) -> Vec<u8> {
        let source = PlainSource::new(core);
        let mut buffer = AlignedBuffer::new(SEEKABLE_FRAME);
        let mut pieces = Vec::new();
        while let Some(piece) = source.next(buffer.bytes()).unwrap() {
            pieces.extend_from_slice(&buffer.bytes()[..piece.length]);
        }
        pieces
    }

    #[test]
    fn a_core_comes_back_and_its_zero_blocks_take_no_room() {
        let directory = tempfile::tempdir().unwrap();
        let mut core = vec![0; 5 << 20];
        core[..1000].fill(1);
        core[(2 << 20) - 10..(2 << 20) + 10].fill(2);
        core[(4 << 20) + 77] = 3;
        let original = directory.path().join("original");
        std::fs::write(&original, &core).unwrap();
        let original = PlainCore {
            file: File::open(original).unwrap(),
            past_cache: None,
            start: 700,
            end: core.len() as u64,
        };
        let guard = DiskGuard::new(
            File::open(directory.path()).unwrap().into(),
            &HandlerSettings {
                floor: 0,
                ..HandlerSettings::default()
            },
        );
        let create = |name: &str| {
            let mut options = File::options();
            options.read(true).write(true).create_new(true);
            options.open(directory.path().join(name)).unwrap()
        };
        for (writing, most) in [
            (Writing::Cached, 5 * BLOCK),
            (Writing::Direct(0), 260 << 10),
        ] {
            let [name, noted] = ["core", "progress"].map(|name| format!("{name} {writing:?}"));
            let (file, progress) = (create(&name), create(&noted));
            let plain = PlainFile::begin(file, progress, &core[..700], &guard, writing).unwrap();
            let source = PlainSource::new(&original);
            let outcome = copy_at_offsets(&source, &plain, 2);
            assert_eq!(outcome.plain, core.len() as u64 - 700);
            let written = plain.finish(outcome.plain).unwrap();
            let progress = std::fs::read_to_string(directory.path().join(noted)).unwrap();
            assert_eq!(progress, format!("{:020}", core.len()));
            assert!(std::fs::read(directory.path().join(name)).unwrap() == core);
            let allocated = written.file.metadata().unwrap().blocks() * 512;
            assert!(allocated <= most as u64, "{allocated} bytes");
            assert!(read_back(&written) == core[700..]);
        }
    }

    #[test]
    fn a_disk_that_is_slower_than_compressing_is_left_to_it() {
        let directory = tempfile::tempdir().unwrap();
        let file = File::create_new(directory.path().join("core")).unwrap();
        let direct = DirectFile {
            slowest: u64::MAX,
            written: AtomicU64::new(TRIAL),
            ..match DirectFile::open(&file, 0) {
                Ok(direct) => direct,
                // Not every file system can.
                Err(_) => return,
            }
        };
        let mut buffer = AlignedBuffer::new(BLOCK);
        let bytes = &*buffer.bytes();
        assert!(direct.takes(bytes, 0) && !direct.takes(bytes, 1));
        let error = direct.write(bytes, 0);
        assert!(error.is_err_and(|error| error.to_string().contains("the disk takes")));
    }
}
