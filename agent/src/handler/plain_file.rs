//! A core as it is, in a sparse file: quicker to write than to compress, so the process goes sooner.
//!
//! Invariant: `core.progress` beside it never says more than what stands in the file without a hole
//! that should not be one; salvage relies on it.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use cdh_bundle::SEEKABLE_FRAME;

use super::core_copy::PlaceSink;
use super::core_source::{CoreSource, Piece, SourceFailure, is_zero, to_next_boundary};
use super::disk_guard::DiskGuard;

/// Name of the file that tells how much of the core is there.
pub(crate) const PROGRESS: &str = "core.progress";
/// Pieces between two notes of the progress.
const NOTED: u64 = 16;
/// Bytes of a block: a smaller hole saves nothing.
const BLOCK: usize = 4096;

/// A sparse core that is being written.
pub(super) struct PlainFile<'g> {
    file: File,
    progress: Mutex<File>,
    start: u64,
    noted: AtomicU64,
    guard: &'g DiskGuard,
}

impl<'g> PlainFile<'g> {
    /// Puts the head into an empty file. `progress` is an empty file too.
    ///
    /// # Errors
    /// When the head cannot be written.
    pub(super) fn begin(
        file: File,
        progress: File,
        head: &[u8],
        guard: &'g DiskGuard,
    ) -> io::Result<Self> {
        guard.admit(head.len() as u64)?;
        file.write_all_at(head, 0)?;
        let plain = Self {
            file,
            progress: Mutex::new(progress),
            start: head.len() as u64,
            noted: AtomicU64::new(0),
            guard,
        };
        plain.note(0)?;
        Ok(plain)
    }

    /// Gives the file its length: `plain` bytes behind the head are there.
    ///
    /// # Errors
    /// When that cannot be written.
    pub(super) fn finish(self, plain: u64) -> io::Result<File> {
        self.file.set_len(self.start.saturating_add(plain))?;
        self.note(plain)?;
        Ok(self.file)
    }

    fn note(&self, plain: u64) -> io::Result<()> {
        let text = format!("{:020}", self.start.saturating_add(plain));
        match self.progress.lock() {
            Ok(progress) => progress.write_all_at(text.as_bytes(), 0),
            Err(_) => Ok(()),
        }
    }
}

impl PlaceSink for PlainFile<'_> {
    fn store(&self, piece: Piece, bytes: &[u8]) -> io::Result<()> {
        // The first block may be short: pieces need not begin at a block.
        let first = (BLOCK - (piece.offset % BLOCK as u64) as usize).min(bytes.len());
        let (head, rest) = bytes.split_at_checked(first).unwrap_or((bytes, &[]));
        let blocks: Vec<&[u8]> = std::iter::once(head)
            .filter(|head| !head.is_empty())
            .chain(rest.chunks(BLOCK))
            .collect();
        let mut at = 0;
        for run in blocks.chunk_by(|a, b| is_zero(a) == is_zero(b)) {
            let length: usize = run.iter().map(|block| block.len()).sum();
            let end = at + length;
            if !run.first().is_none_or(|block| is_zero(block)) {
                self.guard.admit(length as u64)?;
                let bytes = bytes.get(at..end).unwrap_or_default();
                self.file.write_all_at(bytes, piece.offset + at as u64)?;
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

/// A finished sparse core, to be compressed.
pub(super) struct PlainSource<'f> {
    file: &'f File,
    start: u64,
    end: u64,
    next: AtomicU64,
}

impl<'f> PlainSource<'f> {
    /// The bytes `[start, end)` of the file.
    #[must_use]
    pub(super) fn new(file: &'f File, start: u64, end: u64) -> Self {
        Self {
            file,
            start,
            end,
            next: AtomicU64::new(0),
        }
    }
}

impl CoreSource for PlainSource<'_> {
    fn next(&self, buffer: &mut [u8]) -> Result<Option<Piece>, SourceFailure> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let frame = SEEKABLE_FRAME as u64;
        let first = (self.start / frame).saturating_add(number);
        let offset = first.saturating_mul(frame).max(self.start);
        if offset >= self.end {
            return Ok(None);
        }
        let length = usize::try_from(self.end - offset)
            .unwrap_or(usize::MAX)
            .min(to_next_boundary(offset));
        let buffer = buffer.get_mut(..length).unwrap_or_default();
        self.file
            .read_exact_at(buffer, offset)
            .map_err(|error| SourceFailure { number, error })?;
        Ok(Some(Piece {
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

    use super::super::core_copy::copy_places;
    use super::super::settings::HandlerSettings;
    use super::*;

    #[test]
    fn a_core_comes_back_and_its_zero_blocks_take_no_room() {
        let directory = tempfile::tempdir().unwrap();
        let mut core = vec![0; 5 << 20];
        core[..1000].fill(1);
        core[(2 << 20) - 10..(2 << 20) + 10].fill(2);
        core[(4 << 20) + 77] = 3;
        let original = directory.path().join("original");
        std::fs::write(&original, &core).unwrap();
        let original = File::open(original).unwrap();
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
        let plain =
            PlainFile::begin(create("core"), create("progress"), &core[..700], &guard).unwrap();
        let source = PlainSource::new(&original, 700, core.len() as u64);
        let outcome = copy_places(&source, &plain, 2);
        assert_eq!(outcome.plain, core.len() as u64 - 700);
        let file = plain.finish(outcome.plain).unwrap();
        let progress = std::fs::read_to_string(directory.path().join("progress")).unwrap();
        assert_eq!(progress, format!("{:020}", core.len()));
        assert!(std::fs::read(directory.path().join("core")).unwrap() == core);
        let allocated = file.metadata().unwrap().blocks() * 512;
        assert!(allocated <= 5 * BLOCK as u64, "{allocated} bytes");
    }
}
