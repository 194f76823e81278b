//! Reads files on disks or mounts that may never answer, with a time limit.
//!
//! A disk or mount can stop answering after a file on it was opened. A process that reads it then
//! sleeps uninterruptibly. Therefore a thread reads, and the shipper waits for it with a limit.
//! Invariant: a read that does not return costs one thread and [`PATIENCE`]; while [`STUCK`]
//! threads are blocked, nothing more is read.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::Duration;

/// Time limit of one step. A read from a slow disk on a busy node takes seconds.
const PATIENCE: Duration = Duration::from_secs(30);
/// Maximum number of blocked threads.
const STUCK: usize = 4;
/// Size of one read, in bytes.
const CHUNK: usize = 256 << 10;

/// Runs blocking work in threads that it can abandon.
#[derive(Clone, Debug)]
pub(super) struct Patience {
    limit: Duration,
    threads: Arc<AtomicUsize>,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            limit: PATIENCE,
            threads: Arc::default(),
        }
    }
}

/// Counts a thread until it ends.
struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Patience {
    /// Returns the result of `work`; `None` if it takes too long, or if too many threads are
    /// blocked.
    pub(super) fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        let (sender, answer) = sync_channel(1);
        self.spawn(move || {
            let _ = sender.send(work());
        })
        .ok()?;
        answer.recv_timeout(self.limit).ok()
    }

    /// A reader for the first `length` bytes of a file, with a time limit for each step.
    ///
    /// # Errors
    /// Fails if too many threads are blocked, or if no thread can be created.
    pub(super) fn read(&self, file: File, length: u64) -> io::Result<PatientReader> {
        self.read_from(FromStart { file, at: 0 }.take(length))
    }

    fn read_from(&self, mut reader: impl Read + Send + 'static) -> io::Result<PatientReader> {
        let (sender, chunks) = sync_channel(1);
        self.spawn(move || {
            loop {
                let mut chunk = vec![0; CHUNK];
                let read = reader.read(&mut chunk);
                let is_last = matches!(read, Ok(0) | Err(_));
                let chunk = read.map(|count| {
                    chunk.truncate(count);
                    chunk
                });
                if sender.send(chunk).is_err() || is_last {
                    return;
                }
            }
        })?;
        Ok(PatientReader {
            chunks,
            limit: self.limit,
            chunk: Vec::new(),
            at: 0,
            is_stuck: false,
        })
    }

    fn spawn(&self, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
        if self.threads.load(Ordering::Relaxed) >= STUCK {
            return Err(io::Error::other("too many reads are blocked"));
        }
        self.threads.fetch_add(1, Ordering::Relaxed);
        let counted = Counted(Arc::clone(&self.threads));
        let work = move || {
            let _counted = counted;
            work();
        };
        std::thread::Builder::new().spawn(work).map(drop)
    }
}

/// Reads a file with its own offset, independent of other users of the same open file.
struct FromStart {
    file: File,
    at: u64,
}

impl Read for FromStart {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read_at(buffer, self.at)?;
        self.at = self.at.saturating_add(count as u64);
        Ok(count)
    }
}

/// See [`Patience::read`].
#[derive(Debug)]
pub(super) struct PatientReader {
    chunks: Receiver<io::Result<Vec<u8>>>,
    limit: Duration,
    chunk: Vec<u8>,
    at: usize,
    is_stuck: bool,
}

impl PatientReader {
    /// Whether a read did not return in time.
    pub(super) fn is_stuck(&self) -> bool {
        self.is_stuck
    }
}

impl Read for PatientReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at >= self.chunk.len() {
            self.chunk = match self.chunks.recv_timeout(self.limit) {
                Ok(chunk) => chunk?,
                Err(RecvTimeoutError::Disconnected) => return Ok(0),
                Err(RecvTimeoutError::Timeout) => {
                    self.is_stuck = true;
                    return Err(io::ErrorKind::TimedOut.into());
                }
            };
            self.at = 0;
        }
        let rest = self.chunk.get(self.at..).unwrap_or_default();
        let count = rest.len().min(buffer.len());
        if let (Some(to), Some(from)) = (buffer.get_mut(..count), rest.get(..count)) {
            to.copy_from_slice(from);
        }
        self.at = self.at.saturating_add(count);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn brief() -> Patience {
        Patience {
            limit: Duration::from_millis(50),
            ..Patience::default()
        }
    }

    #[test]
    fn patient_reader_stops_at_the_requested_length() {
        let mut file = tempfile::tempfile().unwrap();
        let bytes: Vec<u8> = (0..700_000_u32).map(|at| (at % 251) as u8).collect();
        file.write_all(&bytes).unwrap();
        let mut found = Vec::new();
        let mut reader = Patience::default().read(file, 600_000).unwrap();
        reader.read_to_end(&mut found).unwrap();
        assert_eq!(found, bytes[..600_000]);
        assert!(!reader.is_stuck());
    }

    #[test]
    fn patient_reader_abandons_blocked_reads_and_limits_them() {
        let patience = brief();
        let mut writers = Vec::new();
        for _ in 0..STUCK {
            let (from, to) = io::pipe().unwrap();
            writers.push(to);
            let mut reader = patience.read_from(from).unwrap();
            let error = reader.read(&mut [0; 8]).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::TimedOut);
            assert!(reader.is_stuck());
        }
        assert!(patience.read_from(io::empty()).is_err());
        assert_eq!(patience.run(|| 7), None);
        // They end when the file answers.
        drop(writers);
        let end = std::time::Instant::now() + Duration::from_secs(60);
        while patience.threads.load(Ordering::Relaxed) > 0 {
            assert!(std::time::Instant::now() < end);
            std::thread::sleep(Duration::from_millis(1));
        }
        let patience = Patience {
            limit: PATIENCE,
            ..patience
        };
        assert_eq!(patience.run(|| 7), Some(7));
    }
}
