//! Repairs a core file whose writer died: removes the torn frame and appends the seek table.
//!
//! ```text
//! frame | frame | frame | fra            file of a dead handler
//! frame | frame | frame | seek table     repaired in place
//! ```
//!
//! Invariant: every frame that can be decoded is preserved, and only these are. Memory is limited
//! to one frame. The operation is idempotent.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::rc::Rc;

use cdh_bundle::{DigestWriter, Digests, SEEKABLE_FRAME, SeekableWriter, Sha256};
use zstd::zstd_safe;

/// Result of the repair.
#[derive(Debug)]
pub(crate) struct SalvagedCore {
    /// Bytes of the plain core.
    pub(crate) plain: u64,
    /// SHA-256 of the plain core.
    pub(crate) sha256: Sha256,
    /// Digests of the file.
    pub(crate) stored: Digests,
}

/// Skips the bytes that the file already contains, then writes the new ones.
struct Replay {
    file: File,
    position: u64,
    fresh: Rc<Cell<bool>>,
}

impl Write for Replay {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.fresh.get() {
            self.file.write_all_at(bytes, self.position)?;
        }
        self.position += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Repairs the file; `None` if it has no complete frame.
pub(crate) fn salvage_core(file: File) -> io::Result<Option<SalvagedCore>> {
    let length = file.metadata()?.len();
    let fresh = Rc::new(Cell::new(false));
    let out = Replay {
        file: file.try_clone()?,
        position: 0,
        fresh: Rc::clone(&fresh),
    };
    let mut writer = SeekableWriter::new(DigestWriter::new(out), 1, SEEKABLE_FRAME)?;
    let mut decompressor = zstd::bulk::Decompressor::new()?;
    let mut stored = vec![0; zstd_safe::compress_bound(SEEKABLE_FRAME)];
    let mut plain: Vec<u8> = Vec::with_capacity(SEEKABLE_FRAME);
    let mut core = DigestWriter::new(io::sink());
    let mut position = 0;
    while position < length {
        let count = read_some(&file, &mut stored, position)?;
        let available = stored.get(..count).unwrap_or_default();
        let Some(frame) = whole_frame(available) else {
            break;
        };
        plain.clear();
        if decompressor
            .decompress_to_buffer(frame, &mut plain)
            .is_err()
        {
            break;
        }
        let Ok(plain_length) = u32::try_from(plain.len()) else {
            break;
        };
        core.write_all(&plain)?;
        position += frame.len() as u64;
        writer.write_frame(frame, plain_length)?;
    }
    let (_, core) = core.finish();
    if core.size == 0 {
        return Ok(None);
    }
    // The rest is a torn frame, or an older seek table.
    file.set_len(position)?;
    fresh.set(true);
    let (out, _) = writer.finish()?;
    let (out, stored) = out.finish();
    out.file.sync_all()?;
    Ok(Some(SalvagedCore {
        plain: core.size,
        sha256: core.sha256,
        stored,
    }))
}

/// The frame at the start of the bytes, if it is complete and contains data.
fn whole_frame(bytes: &[u8]) -> Option<&[u8]> {
    const MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
    if !bytes.starts_with(&MAGIC) {
        return None;
    }
    let size = zstd_safe::find_frame_compressed_size(bytes).ok()?;
    bytes.get(..size)
}

fn read_some(file: &File, buffer: &mut [u8], at: u64) -> io::Result<usize> {
    let mut done = 0;
    while let Some(rest) = buffer.get_mut(done..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, at + done as u64) {
            Ok(0) => break,
            Ok(count) => done += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames() -> Vec<(Vec<u8>, Vec<u8>)> {
        let frame = |n: u32| {
            let plain: Vec<u8> = (0..40_000u32)
                .map(|i| (i.wrapping_mul(n) >> 3) as u8)
                .collect();
            (zstd::bulk::compress(&plain, 1).unwrap(), plain)
        };
        (1..4).map(frame).collect()
    }

    fn file_of(bytes: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    #[test]
    fn salvage_core_preserves_every_complete_frame() {
        let frames = frames();
        let all: Vec<u8> = frames.iter().flat_map(|(frame, _)| frame.clone()).collect();
        for cut in (0..=all.len()).step_by(997).chain([all.len()]) {
            let mut whole = Vec::new();
            let mut end = 0;
            for (frame, plain) in &frames {
                end += frame.len();
                if end <= cut {
                    whole.extend_from_slice(plain);
                }
            }
            let file = file_of(&all[..cut]);
            let salvaged = salvage_core(file.try_clone().unwrap()).unwrap();
            let Some(salvaged) = salvaged else {
                assert!(whole.is_empty(), "cut at {cut}");
                continue;
            };
            assert_eq!(salvaged.plain, whole.len() as u64, "cut at {cut}");
            let stored = std::fs::read(format!("/proc/self/fd/{}", {
                use std::os::fd::AsRawFd;
                file.as_raw_fd()
            }))
            .unwrap();
            assert_eq!(salvaged.stored, Digests::of(&stored));
            let found = zstd::stream::decode_all(stored.as_slice()).unwrap();
            assert!(found == whole, "cut at {cut}");
        }
    }

    #[test]
    fn salvage_core_is_idempotent() {
        let mut bytes: Vec<u8> = frames()
            .iter()
            .flat_map(|(frame, _)| frame.clone())
            .collect();
        bytes.extend_from_slice(b"\x28\xb5\x2f\xfdtorn");
        let file = file_of(&bytes);
        let first = salvage_core(file.try_clone().unwrap()).unwrap().unwrap();
        let second = salvage_core(file).unwrap().unwrap();
        assert_eq!((first.plain, first.stored), (second.plain, second.stored));
    }
}
