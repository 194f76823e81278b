//! A sparse file that is written in any order; zeros become holes.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

/// Granularity of holes: the block size of file systems.
const BLOCK: usize = 4 << 10;

/// The file.
pub(in crate::pipeline) struct SparseFile(File);

impl SparseFile {
    /// Opens the file for reading and writing, creates it if it is missing, and sets its length.
    pub(in crate::pipeline) fn open(path: &Path, len: u64) -> io::Result<Self> {
        let file = Self(options().truncate(false).open(path)?);
        file.set_len(len)?;
        Ok(file)
    }

    /// An empty one.
    pub(in crate::pipeline) fn create(path: &Path) -> io::Result<Self> {
        Ok(Self(options().truncate(true).open(path)?))
    }

    pub(in crate::pipeline) fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    pub(in crate::pipeline) fn sync(&self) -> io::Result<()> {
        self.0.sync_all()
    }

    /// Writes the parts that are not zero; unwritten parts are zero already.
    pub(in crate::pipeline) fn write_at(&self, at: u64, data: &[u8]) -> io::Result<()> {
        let mut run = 0..0;
        let flush = |run: &std::ops::Range<usize>| match data.get(run.clone()) {
            Some(bytes) if !bytes.is_empty() => self.0.write_all_at(bytes, at + run.start as u64),
            _ => Ok(()),
        };
        for (number, block) in data.chunks(BLOCK).enumerate() {
            let start = number * BLOCK;
            if is_zero(block) {
                flush(&run)?;
                run = start..start;
            } else if run.end == start && !run.is_empty() {
                run.end = start + block.len();
            } else {
                run = start..start + block.len();
            }
        }
        flush(&run)
    }

    /// Reads exactly `buf`.
    pub(in crate::pipeline) fn read_at(&self, at: u64, buf: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(buf, at)
    }
}

fn options() -> std::fs::OpenOptions {
    let mut options = File::options();
    options.read(true).write(true).create(true).mode(0o600);
    options
}

fn is_zero(block: &[u8]) -> bool {
    // Sixteen at a time, so that the compiler vectorizes the loop.
    let chunks = block.chunks_exact(16);
    let rest = chunks.remainder();
    rest.iter().all(|byte| *byte == 0)
        && chunks
            .map(|chunk| chunk.iter().fold(0, |sum, byte| sum | byte))
            .all(|sum| sum == 0)
}

/// Fills the block; returns how far, and whether the end was reached.
pub(in crate::pipeline) fn fill(
    reader: &mut dyn Read,
    block: &mut [u8],
) -> (usize, io::Result<bool>) {
    let mut done = 0;
    while let Some(rest) = block.get_mut(done..).filter(|rest| !rest.is_empty()) {
        match reader.read(rest) {
            Ok(0) => return (done, Ok(true)),
            Ok(count) => done += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return (done, Err(error)),
        }
    }
    (done, Ok(false))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn zeros_become_holes_and_the_rest_is_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let mut data = vec![0; 1 << 20];
        for at in [0, 5000, 300_000, (1 << 20) - 1] {
            data[at] = 7;
        }
        data.extend([0; 100]);
        let file = SparseFile::open(&path, 8 << 20).unwrap();
        file.write_at(4096, &data).unwrap();
        let mut found = vec![1; data.len()];
        file.read_at(4096, &mut found).unwrap();
        assert!(found == data);
        let metadata = std::fs::metadata(&path).unwrap();
        assert_eq!(metadata.len(), 8 << 20);
        assert!(metadata.blocks() * 512 <= 64 << 10, "{}", metadata.blocks());
    }
}
