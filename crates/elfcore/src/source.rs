//! Where the bytes of a core or an ELF file come from: a memory map, a buffer, a file, a remote range reader.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

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
