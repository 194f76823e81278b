//! Room for what is decompressed.

use memmap2::{Advice, MmapMut};

/// From this size on a buffer is memory of its own, in huge pages where the system gives some: entering pages
/// of 4 KiB one by one took up to a tenth of the time of a whole backtrace.
const LARGE: usize = 1 << 20;

/// Bytes that the caller fills.
pub(crate) enum Buffer {
    /// From the allocator.
    Small(Vec<u8>),
    /// Straight from the system.
    Large(MmapMut),
}

impl Buffer {
    /// So many zeros. Pages without a write take no memory.
    pub(crate) fn zeroed(size: usize) -> Self {
        if size >= LARGE
            && let Ok(map) = MmapMut::map_anon(size)
        {
            // A kernel without huge pages says no, and gives small ones.
            let _ = map.advise(Advice::HugePage);
            return Self::Large(map);
        }
        Self::Small(vec![0; size])
    }
}

impl From<Vec<u8>> for Buffer {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Small(bytes)
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        match self {
            Self::Small(bytes) => bytes,
            Self::Large(map) => map,
        }
    }
}

impl AsMut<[u8]> for Buffer {
    fn as_mut(&mut self) -> &mut [u8] {
        match self {
            Self::Small(bytes) => bytes,
            Self::Large(map) => map,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_of_any_size_begin_as_zeros_and_take_bytes() {
        for size in [0, 1, LARGE - 1, LARGE, 2 * LARGE + 3] {
            let mut buffer = Buffer::zeroed(size);
            assert!(buffer.as_ref().len() == size && buffer.as_ref().iter().all(|byte| *byte == 0));
            buffer.as_mut().fill(7);
            assert!(buffer.as_ref().iter().all(|byte| *byte == 7));
        }
    }
}
