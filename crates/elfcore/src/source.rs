//! Where the bytes of a core or an ELF file come from: a memory map, a buffer, a file, a remote range reader.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

/// Random access to bytes that may be short, remote or changing.
pub trait ByteSource: Send + Sync {
    /// Length in bytes that the source really holds now.
    fn len(&self) -> u64;

    /// Whether there is nothing to read.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Fills `buf` from `offset` on; returns how many bytes there were, less than asked only at the end.
    ///
    /// # Errors
    /// What the file, the network or the decompressor says.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize>;

    /// All bytes at once, where they are in memory anyway.
    fn as_slice(&self) -> Option<&[u8]> {
        None
    }
}

fn copy_from(data: &[u8], offset: u64, buf: &mut [u8]) -> usize {
    let tail = usize::try_from(offset)
        .ok()
        .and_then(|at| data.get(at..))
        .unwrap_or_default();
    let count = tail.len().min(buf.len());
    if let (Some(to), Some(from)) = (buf.get_mut(..count), tail.get(..count)) {
        to.copy_from_slice(from);
    }
    count
}

impl ByteSource for Vec<u8> {
    fn len(&self) -> u64 {
        self.as_slice().len() as u64
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        Ok(copy_from(self, offset, buf))
    }
    fn as_slice(&self) -> Option<&[u8]> {
        Some(self)
    }
}

/// A file in memory through `mmap(2)`.
///
/// A file that shrinks while it is mapped raises SIGBUS on access: map only files that nobody else
/// writes, such as those of a case directory.
#[derive(Debug)]
pub struct MappedFile(memmap2::Mmap);

impl MappedFile {
    /// Maps all of the file at `path`.
    ///
    /// # Errors
    /// When it cannot be opened or mapped.
    pub fn open(path: &Path) -> io::Result<Self> {
        Self::from_file(&File::open(path)?)
    }

    /// Maps all of an open file.
    ///
    /// # Errors
    /// When it cannot be mapped.
    #[allow(unsafe_code)]
    pub fn from_file(file: &File) -> io::Result<Self> {
        // SAFETY: the map is read-only; the type's contract names the remaining danger (truncation).
        unsafe { memmap2::Mmap::map(file) }.map(Self)
    }

    /// The mapped bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl ByteSource for MappedFile {
    fn len(&self) -> u64 {
        self.0.len() as u64
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        Ok(copy_from(&self.0, offset, buf))
    }
    fn as_slice(&self) -> Option<&[u8]> {
        Some(&self.0)
    }
}

/// A file read by `pread(2)`: for files that may change or shrink.
#[derive(Debug)]
pub struct FileSource {
    file: File,
    len: u64,
}

impl FileSource {
    /// Takes over an open file with the length it has now.
    ///
    /// # Errors
    /// When its length cannot be asked.
    pub fn new(file: File) -> io::Result<Self> {
        let len = file.metadata()?.len();
        Ok(Self { file, len })
    }
}

impl ByteSource for FileSource {
    fn len(&self) -> u64 {
        self.len
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let mut done = 0;
        while let Some(rest) = buf.get_mut(done..).filter(|rest| !rest.is_empty()) {
            match self.file.read_at(rest, offset.saturating_add(done as u64)) {
                Ok(0) => break,
                Ok(count) => done = done.saturating_add(count),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }
}

/// Bytes that are read at once: of most stacks the frames take less than a page, and of a thousand stacks
/// each block more is megabytes that are copied in vain.
const BLOCK: u64 = 4 << 10;
/// Reads of this size and more are not kept.
const PIECE: u64 = 2 << 10;
/// Blocks that are kept: 2 MiB, enough for the threads that are unwound at the same time.
const BLOCKS: u64 = 512;

/// A file read by `pread(2)` in blocks, of which some are kept.
///
/// For cores: a thousand stacks in a map cost a page table's neighbourhood of memory each, and a core
/// may shrink while it is looked at.
#[derive(Debug)]
pub struct BlockSource {
    file: FileSource,
    /// Number of the block that each slot holds, and its bytes.
    slots: Vec<Mutex<(u64, Vec<u8>)>>,
}

impl BlockSource {
    /// Takes over an open file with the length it has now.
    ///
    /// # Errors
    /// When its length cannot be asked.
    pub fn new(file: File) -> io::Result<Self> {
        let empty = || Mutex::new((u64::MAX, Vec::new()));
        Ok(Self {
            file: FileSource::new(file)?,
            slots: std::iter::repeat_with(empty)
                .take(BLOCKS as usize)
                .collect(),
        })
    }

    /// Copies from the one block that holds `offset`.
    fn read_block(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let number = offset / BLOCK;
        let slot = usize::try_from(number % BLOCKS).unwrap_or(0);
        let Some(slot) = self.slots.get(slot) else {
            return Ok(0);
        };
        let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
        if slot.0 != number {
            slot.0 = u64::MAX;
            slot.1.resize(BLOCK as usize, 0);
            let count = self
                .file
                .read_at(number.saturating_mul(BLOCK), &mut slot.1)?;
            slot.1.truncate(count);
            slot.0 = number;
        }
        Ok(copy_from(&slot.1, offset % BLOCK, buf))
    }
}

impl ByteSource for BlockSource {
    fn len(&self) -> u64 {
        self.file.len()
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        // Who reads so much at once keeps it too.
        if buf.len() as u64 >= PIECE {
            return self.file.read_at(offset, buf);
        }
        let mut done = 0_usize;
        while let Some(rest) = buf.get_mut(done..).filter(|rest| !rest.is_empty()) {
            match self.read_block(offset.saturating_add(done as u64), rest)? {
                0 => break,
                count => done = done.saturating_add(count),
            }
        }
        Ok(done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn blocks_give_what_the_file_holds() {
        let content: Vec<u8> = (0..3 * BLOCK as u32 + 100)
            .map(|n| (n % 251) as u8)
            .collect();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&content).unwrap();
        let source = BlockSource::new(file).unwrap();
        let ends = [
            0,
            5,
            BLOCK as usize - 3,
            BLOCK as usize,
            3 * BLOCK as usize,
            content.len(),
        ];
        for from in ends {
            for length in [0, 1, 8, 100, PIECE as usize, 4096, BLOCK as usize + 1] {
                let mut found = vec![0; length];
                let count = source.read_at(from as u64, &mut found).unwrap();
                let expected = &content[from..(from + length).min(content.len())];
                assert_eq!(&found[..count], expected, "{from} {length}");
            }
        }
    }
}
