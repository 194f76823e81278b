//! Limits the memory for the windows of zstd frames, which all layers that are read in parallel
//! share.
//!
//! A window is the output that a decoder must remember. Today's builders request up to 8 MiB; at their
//! better levels, those of 2021 requested 16 and 32. A layer whose window does not fit beside those of
//! others waits for them.

use std::io::{self, BufReader, Chain, Cursor, Read};
use std::sync::{Condvar, Mutex, PoisonError};

/// The largest window that is accepted: 32 MiB.
const MAX_LOG: u32 = 25;
/// Window size that every decoder may use without waiting: RFC 8878, section 3.1.1.1.2, recommends
/// 8 MiB.
const USUAL_LOG: u32 = 23;
/// Maximum bytes of a frame's header: magic number, descriptor, window, dictionary, size.
const HEADER: u64 = 18;

/// Memory for windows: one layer with the largest one, or four usual ones.
pub(crate) struct Windows {
    left: Mutex<u64>,
    changed: Condvar,
}

impl Default for Windows {
    fn default() -> Self {
        Self {
            left: Mutex::new(1 << MAX_LOG),
            changed: Condvar::new(),
        }
    }
}

/// Memory for one window, until it is dropped.
struct Window<'w> {
    windows: &'w Windows,
    log: u32,
}

/// Decodes zstd frames, whose windows hold their share of the memory meanwhile.
pub(crate) struct ZstdReader<'w, R: Read> {
    decoder: zstd::Decoder<'static, BufReader<Chain<Cursor<Vec<u8>>, R>>>,
    _window: Window<'w>,
}

impl<'w, R: Read> ZstdReader<'w, R> {
    /// Waits until there is memory for the first frame's window.
    pub(crate) fn new(mut reader: R, windows: &'w Windows) -> io::Result<Self> {
        let mut beginning = Vec::new();
        reader.by_ref().take(HEADER).read_to_end(&mut beginning)?;
        let window = windows.share(window_log(&beginning));
        let mut decoder = zstd::Decoder::new(Cursor::new(beginning).chain(reader))?;
        decoder.window_log_max(window.log)?;
        Ok(Self {
            decoder,
            _window: window,
        })
    }
}

impl<R: Read> Read for ZstdReader<'_, R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.decoder.read(buf)
    }
}

impl Windows {
    fn share(&self, log: u32) -> Window<'_> {
        let log = log.clamp(USUAL_LOG, MAX_LOG);
        let left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        let too_little = |left: &mut u64| *left < 1 << log;
        let waited = self.changed.wait_while(left, too_little);
        let mut left = waited.unwrap_or_else(PoisonError::into_inner);
        *left = left.saturating_sub(1 << log);
        Window { windows: self, log }
    }
}

impl Drop for Window<'_> {
    fn drop(&mut self) {
        let left = self.windows.left.lock();
        let mut left = left.unwrap_or_else(PoisonError::into_inner);
        *left = left.saturating_add(1 << self.log);
        self.windows.changed.notify_all();
    }
}

/// The window size of the first frame, rounded up to a power of 2; 0 if it is not stated.
fn window_log(beginning: &[u8]) -> u32 {
    // RFC 8878, section 3.1.1.1: magic number, descriptor, window or, of one segment, the size.
    let Some((b"\x28\xb5\x2f\xfd", [descriptor, rest @ ..])) = beginning.split_at_checked(4) else {
        return 0;
    };
    let is_one_segment = descriptor & 0x20 != 0;
    if !is_one_segment {
        let Some(window) = rest.first() else { return 0 };
        let (exponent, mantissa) = (u32::from(window >> 3), window & 7);
        return exponent
            .saturating_add(10)
            .saturating_add(u32::from(mantissa != 0));
    }
    let dictionary = [0, 1, 2, 4].get(usize::from(descriptor & 3));
    let length = [1, 2, 4, 8].get(usize::from(descriptor >> 6));
    let size = dictionary.zip(length).and_then(|(dictionary, length)| {
        let bytes = rest.get(*dictionary..)?.get(..*length)?;
        let mut size = [0; 8];
        size.get_mut(..*length)?.copy_from_slice(bytes);
        Some(u64::from_le_bytes(size))
    });
    size.and_then(u64::checked_next_power_of_two)
        .map_or(u64::BITS, u64::trailing_zeros)
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    fn packed(log: u32, size: usize, is_size_known: bool) -> Vec<u8> {
        let mut packed = zstd::Encoder::new(Vec::new(), 1).unwrap();
        packed.window_log(log).unwrap();
        if is_size_known {
            packed.set_pledged_src_size(Some(size as u64)).unwrap();
        }
        packed.write_all(&vec![0; size]).unwrap();
        packed.finish().unwrap()
    }

    #[test]
    fn frame_header_states_the_window() {
        for log in [17, 23, 25, 27] {
            assert_eq!(window_log(&packed(log, 1 << 10, false)), log);
        }
        // A single segment: the window is as large as the contents.
        for (size, log) in [(200, 8), (60_000, 16), (70_000, 17)] {
            assert_eq!(window_log(&packed(20, size, true)), log, "{size}");
        }
        // The mantissa makes it larger than the power of 2.
        assert_eq!(window_log(b"\x28\xb5\x2f\xfd\x00\x69"), 24);
        for other in [
            &b""[..],
            b"\x28\xb5\x2f\xfd",
            b"\x28\xb5\x2f\xfd\x00",
            b"no",
        ] {
            assert_eq!(window_log(other), 0, "{other:?}");
        }
    }

    #[test]
    fn frames_are_read_up_to_the_largest_window() {
        let windows = Windows::default();
        for (log, is_read) in [(20, true), (24, true), (25, true), (26, false)] {
            let packed = packed(log, 40 << 20, false);
            let mut reader = ZstdReader::new(packed.as_slice(), &windows).unwrap();
            let read = io::copy(&mut reader, &mut io::sink());
            assert_eq!(read.ok(), is_read.then_some(40 << 20), "{log}");
        }
    }

    #[test]
    fn windows_together_never_take_more_than_the_largest() {
        let windows = Windows::default();
        let (taken, most) = (AtomicU64::new(0), AtomicU64::new(0));
        std::thread::scope(|scope| {
            for log in [25, 20, 24, 25, 23, 23, 27] {
                let (windows, taken, most) = (&windows, &taken, &most);
                scope.spawn(move || {
                    for _ in 0..50 {
                        let window = windows.share(log);
                        let size = 1 << window.log;
                        let now = taken.fetch_add(size, Ordering::SeqCst) + size;
                        most.fetch_max(now, Ordering::SeqCst);
                        std::thread::yield_now();
                        taken.fetch_sub(size, Ordering::SeqCst);
                    }
                });
            }
        });
        assert_eq!(most.into_inner(), 1 << MAX_LOG);
        assert_eq!(*windows.left.lock().unwrap(), 1 << MAX_LOG);
    }
}
