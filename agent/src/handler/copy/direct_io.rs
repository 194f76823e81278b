//! Writing and reading past the page cache (`O_DIRECT` of `open(2)`).
//!
//! What fits into the page cache goes there, at the speed of memory. Beyond it the kernel makes a writer
//! wait for its own flusher, and writing past the cache is some times faster: 3.5 GiB took 5.5 s through
//! the cache and 1.7 s past it on the disk where this was measured.

use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};

/// Bytes to which places in the file and in memory are aligned.
pub(crate) const BLOCK: usize = 4096;
/// Bytes that are read past the page cache at once.
const READ_AT_ONCE: usize = 2 << 20;

/// How a file is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Writing {
    /// Into the page cache.
    Cached,
    /// Past it, where the file system can; given up when it is slower than so many bytes per second
    /// (0: never).
    Direct(u64),
}

impl Writing {
    /// Past the cache what the kernel would make us wait for: it lets writers go on freely up to the middle
    /// between its two thresholds (`dirty_freerun_ceiling` in `mm/page-writeback.c`).
    #[must_use]
    pub(crate) fn of(bytes: u64, slowest: u64) -> Self {
        let text = std::fs::read_to_string("/proc/vmstat").unwrap_or_default();
        match cache_room(&text) {
            Some(room) if bytes > room => Self::Direct(slowest),
            _ => Self::Cached,
        }
    }
}

/// Bytes that can be written before the kernel makes a writer wait, by `/proc/vmstat`.
fn cache_room(vmstat: &str) -> Option<u64> {
    let pages = |name: &str| {
        let mut lines = vmstat.lines().filter_map(|line| line.split_once(' '));
        let (_, value) = lines.find(|(found, _)| *found == name)?;
        value.trim().parse::<u64>().ok()
    };
    let (begins, most) = (
        pages("nr_dirty_background_threshold")?,
        pages("nr_dirty_threshold")?,
    );
    let room = begins / 2 + most / 2;
    let used = pages("nr_dirty")?.saturating_add(pages("nr_writeback")?);
    Some(
        room.saturating_sub(used)
            .saturating_mul(rustix::param::page_size() as u64),
    )
}

/// Opens a file again, for reading and writing past the page cache.
///
/// # Errors
/// Where the file system cannot; some say so at the first use only, with `InvalidInput`.
pub(crate) fn open_again(file: &File) -> io::Result<File> {
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let mut options = File::options();
    options
        .read(true)
        .write(true)
        .custom_flags(libc::O_DIRECT)
        .open(path)
}

/// Memory from which it can be written past the page cache.
#[derive(Debug)]
pub(crate) struct AlignedBuffer {
    bytes: Vec<u8>,
    start: usize,
    length: usize,
}

impl AlignedBuffer {
    /// So many zeros.
    #[must_use]
    pub(crate) fn new(length: usize) -> Self {
        let bytes = vec![0; length.saturating_add(BLOCK)];
        let start = bytes.as_ptr().align_offset(BLOCK).min(BLOCK);
        Self {
            bytes,
            start,
            length,
        }
    }

    /// All of it.
    pub(crate) fn bytes(&mut self) -> &mut [u8] {
        let end = self.start.saturating_add(self.length);
        self.bytes.get_mut(self.start..end).unwrap_or_default()
    }
}

/// Reads a file from its beginning. What was written past the page cache is not in it, and bringing it
/// there to read it once costs more than the reading.
#[derive(Debug)]
pub(crate) struct DirectReader {
    file: File,
    buffer: AlignedBuffer,
    /// What of the buffer is still to be given.
    left: Range<usize>,
    at: u64,
    ended: bool,
}

impl DirectReader {
    /// Over a file that is no longer written.
    ///
    /// # Errors
    /// Where the file system cannot.
    pub(crate) fn new(file: &File) -> io::Result<Self> {
        Ok(Self {
            file: open_again(file)?,
            buffer: AlignedBuffer::new(READ_AT_ONCE),
            left: 0..0,
            at: 0,
            ended: false,
        })
    }
}

impl Read for DirectReader {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.left.is_empty() && !self.ended {
            let count = self.file.read_at(self.buffer.bytes(), self.at)?;
            self.at = self.at.saturating_add(count as u64);
            self.left = 0..count;
            // Only the file's end is not at a block.
            self.ended = count == 0 || !count.is_multiple_of(BLOCK);
        }
        let mut given = self
            .buffer
            .bytes()
            .get(self.left.clone())
            .unwrap_or_default();
        let count = given.read(out)?;
        self.left.start += count;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use cdh_bundle::Digests;

    use super::*;

    #[test]
    fn a_file_is_read_past_the_cache_to_its_last_byte() {
        let directory = tempfile::tempdir().unwrap();
        for length in [0, 1, BLOCK, READ_AT_ONCE, READ_AT_ONCE + BLOCK + 77] {
            let bytes: Vec<u8> = (0..length).map(|at| (at % 251) as u8).collect();
            let path = directory.path().join(length.to_string());
            std::fs::write(&path, &bytes).unwrap();
            let file = File::options().read(true).write(true).open(path).unwrap();
            file.sync_all().unwrap();
            // Not every file system can.
            let Ok(reader) = DirectReader::new(&file) else {
                return;
            };
            assert_eq!(Digests::of_reader(reader).unwrap(), Digests::of(&bytes));
        }
    }

    #[test]
    fn the_room_of_the_page_cache_is_what_the_kernel_says() {
        let vmstat = "nr_dirty 40\nnr_writeback 10\nnr_dirty_threshold 900\n\
            nr_dirty_background_threshold 450\n";
        let page = rustix::param::page_size() as u64;
        assert_eq!(cache_room(vmstat), Some(625 * page));
        assert_eq!(cache_room("nr_dirty 40\n"), None);
    }
}
