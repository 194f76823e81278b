//! Reads a layer's bytes as a tar: gzip, zstd or plain, recognized by its first bytes, within
//! limits.

use std::io::{self, Read};

use crate::window::{Windows, ZstdReader};

/// Minimum expanded size that is allowed for any layer.
const FREE_BYTES: u64 = 1 << 30;
/// Additional expanded bytes that are allowed per compressed byte. gzip reaches 1032 on zeros.
const MAX_RATIO: u64 = 50;

/// The tar in a layer of `size` bytes. For zstd, waits until there is memory for its window.
pub(crate) fn tar_of<'r>(
    mut reader: impl Read + 'r,
    size: u64,
    windows: &'r Windows,
) -> io::Result<impl Read + 'r> {
    let mut magic = Vec::new();
    reader.by_ref().take(4).read_to_end(&mut magic)?;
    let kind = magic.clone();
    let whole = io::Cursor::new(magic).chain(reader);
    let plain: Box<dyn Read + 'r> = match kind.as_slice() {
        [0x1f, 0x8b, ..] => Box::new(flate2::read::MultiGzDecoder::new(
            io::BufReader::with_capacity(64 << 10, whole),
        )),
        // A frame, or a skippable one.
        [0x28, 0xb5, 0x2f, 0xfd] | [0x50..=0x5f, 0x2a, 0x4d, 0x18] => {
            Box::new(ZstdReader::new(whole, windows)?)
        }
        _ => Box::new(whole),
    };
    let limit = FREE_BYTES.max(size.saturating_mul(MAX_RATIO));
    Ok(Bounded {
        inner: plain,
        left: limit,
    })
}

/// Ends with an error after the allowed number of bytes.
struct Bounded<R> {
    inner: R,
    left: u64,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buf)?;
        self.left = self.left.checked_sub(count as u64).ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::InvalidData,
                format!("it expands to more than {MAX_RATIO} times its size"),
            )
        })?;
        Ok(count)
    }
}
