//! A long job in a child process that reports in steps, and is given up when it stops reading.
//!
//! ```text
//! parent                         child
//!   start ──────────────────────▶ job: read memory, write the core     (counts reads as they begin and end)
//!   next  ◀──────── message ───── nothing of the process is needed any more
//!   go_on ──────────────────────▶ finish the file
//!   next  ◀──────── message ───── done
//! ```
//!
//! Invariant: a read that does not return costs [`STUCK`], never more: the parent goes on with what the
//! child has written.

#![allow(unsafe_code)]

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::pipe::{PipeFlags, pipe_with};
use serde::{Serialize, de::DeserializeOwned};

use super::core_source::{CoreSource, FrameSpan, SourceFailure};
use super::core_stream::BRIEF;
use super::slots::SlotRelease;
use crate::handler::os::isolated::{Child, fork_child};
use crate::handler::os::poll::is_ready;

/// How long a read of memory may take. One piece from a slow swap device takes up to 3 s.
const STUCK: Duration = Duration::from_secs(5);
/// Time between two looks.
const PAUSE: Duration = Duration::from_millis(50);
/// Maximum size of a message, bytes.
const MESSAGE: u32 = 16 << 20;

/// Reads of memory that have begun and ended, in memory that parent and child share.
#[derive(Debug)]
struct Counters(*mut [AtomicU64; 2]);

// SAFETY: atomics can be used from any thread, and the mapping stays until the value is dropped.
unsafe impl Send for Counters {}
// SAFETY: as above.
unsafe impl Sync for Counters {}

impl Counters {
    fn new() -> io::Result<Self> {
        // SAFETY: a new mapping wherever the kernel likes; all zero is a valid pair of atomics.
        let page = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                size_of::<[AtomicU64; 2]>(),
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        match page == libc::MAP_FAILED {
            true => Err(io::Error::last_os_error()),
            false => Ok(Self(page.cast())),
        }
    }

    fn pair(&self) -> &[AtomicU64; 2] {
        // SAFETY: mapped in `new`, unmapped only when this value is dropped.
        unsafe { &*self.0 }
    }

    fn values(&self) -> (u64, u64) {
        let [begun, ended] = self.pair();
        (begun.load(Ordering::Relaxed), ended.load(Ordering::Relaxed))
    }
}

impl Drop for Counters {
    fn drop(&mut self) {
        // SAFETY: the mapping is our own, and borrowed by nothing any more.
        unsafe { libc::munmap(self.0.cast(), size_of::<[AtomicU64; 2]>()) };
    }
}

/// Why there is no message.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SupervisedError {
    /// A read did not return.
    #[error("reading its memory did not return for {} s", STUCK.as_secs())]
    Stuck,
    /// The child ended, or its message makes no sense.
    #[error("the process that copied it failed")]
    Failed {
        /// Cause.
        #[source]
        source: io::Error,
    },
}

/// The parent's side. Dropping it kills the child.
#[derive(Debug)]
pub(crate) struct Supervised {
    _child: Child,
    messages: File,
    control: File,
    counters: Counters,
}

/// The child's side.
pub(crate) struct Reporter {
    messages: File,
    control: File,
    counters: Counters,
}

/// Starts `job` in a child that keeps the descriptors in `keep`.
///
/// # Errors
/// When no child can be made.
pub(crate) fn start(
    keep: &[RawFd],
    job: impl FnOnce(&mut Reporter) -> io::Result<()>,
) -> io::Result<Supervised> {
    let (messages, out) = pipe_with(PipeFlags::CLOEXEC)?;
    let (control, go) = pipe_with(PipeFlags::CLOEXEC)?;
    let counters = Counters::new()?;
    let mut kept = keep.to_vec();
    kept.extend([out.as_raw_fd(), control.as_raw_fd()]);
    let shared = counters.0;
    let child = fork_child(&kept, None, move || {
        let mut reporter = Reporter {
            messages: File::from(out),
            control: File::from(control),
            counters: Counters(shared),
        };
        job(&mut reporter)
    })?;
    Ok(Supervised {
        _child: child,
        messages: File::from(messages),
        control: File::from(go),
        counters,
    })
}

impl Supervised {
    /// Waits for the next message; while a read takes long, `slot` is given up.
    ///
    /// # Errors
    /// When a read does not return, or the child is gone.
    pub(crate) fn next<T: DeserializeOwned>(
        &mut self,
        slot: Option<&SlotRelease>,
    ) -> Result<T, SupervisedError> {
        let failed = |source| SupervisedError::Failed { source };
        let (mut last, mut since) = (self.counters.values(), Instant::now());
        while !is_ready(&self.messages, PAUSE).map_err(failed)? {
            let now = self.counters.values();
            if now != last {
                (last, since) = (now, Instant::now());
            }
            let is_reading = now.0 > now.1;
            if is_reading
                && since.elapsed() > BRIEF
                && let Some(slot) = slot
            {
                slot.release();
            }
            if is_reading && since.elapsed() > STUCK {
                return Err(SupervisedError::Stuck);
            }
        }
        self.receive().map_err(failed)
    }

    /// Lets the child go on.
    ///
    /// # Errors
    /// When it is gone.
    pub(crate) fn go_on(&mut self) -> io::Result<()> {
        self.control.write_all(&[1])
    }

    fn receive<T: DeserializeOwned>(&mut self) -> io::Result<T> {
        let mut length = [0; 4];
        self.messages.read_exact(&mut length)?;
        let length = u32::from_ne_bytes(length);
        if length > MESSAGE {
            return Err(io::Error::other("its message is too long"));
        }
        let mut bytes = vec![0; length as usize];
        self.messages.read_exact(&mut bytes)?;
        Ok(serde_json::from_slice(&bytes)?)
    }
}

impl Reporter {
    /// Reports to the parent.
    ///
    /// # Errors
    /// When the parent is gone.
    pub(crate) fn tell(&mut self, message: &impl Serialize) -> io::Result<()> {
        let bytes = serde_json::to_vec(message)?;
        let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
        self.messages.write_all(&length.to_ne_bytes())?;
        self.messages.write_all(&bytes)
    }

    /// Waits until the parent lets us go on.
    ///
    /// # Errors
    /// When the parent is gone.
    pub(crate) fn wait(&mut self) -> io::Result<()> {
        self.control.read_exact(&mut [0])
    }

    /// A source whose reads the parent watches.
    #[must_use]
    pub(crate) fn watch<'s>(&'s self, source: &'s dyn CoreSource) -> WatchedSource<'s> {
        WatchedSource {
            source,
            counters: &self.counters,
        }
    }
}

/// Counts the reads of another source.
pub(crate) struct WatchedSource<'s> {
    source: &'s dyn CoreSource,
    counters: &'s Counters,
}

impl CoreSource for WatchedSource<'_> {
    fn next(&self, buffer: &mut [u8]) -> Result<Option<FrameSpan>, SourceFailure> {
        let [begun, ended] = self.counters.pair();
        begun.fetch_add(1, Ordering::Relaxed);
        let piece = self.source.next(buffer);
        ended.fetch_add(1, Ordering::Relaxed);
        piece
    }
}

/// An error of the operating system that can be sent.
#[derive(Clone, Debug, Serialize, serde::Deserialize)]
pub(crate) struct SentError {
    code: Option<i32>,
    kind: Option<u8>,
    text: String,
}

/// Kinds that describe the outcome of a core.
const SENT_KINDS: [io::ErrorKind; 7] = [
    io::ErrorKind::TimedOut,
    io::ErrorKind::NotFound,
    io::ErrorKind::OutOfMemory,
    io::ErrorKind::StorageFull,
    io::ErrorKind::QuotaExceeded,
    io::ErrorKind::FileTooLarge,
    io::ErrorKind::Unsupported,
];

impl From<&io::Error> for SentError {
    fn from(error: &io::Error) -> Self {
        let kind = SENT_KINDS.iter().position(|kind| *kind == error.kind());
        Self {
            code: error.raw_os_error(),
            kind: kind.and_then(|kind| u8::try_from(kind).ok()),
            text: error.to_string(),
        }
    }
}

impl From<SentError> for io::Error {
    fn from(sent: SentError) -> Self {
        if let Some(code) = sent.code {
            return Self::from_raw_os_error(code);
        }
        let kind = sent.kind.and_then(|kind| SENT_KINDS.get(usize::from(kind)));
        Self::new(kind.copied().unwrap_or(io::ErrorKind::Other), sent.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One piece, for which it takes some time.
    struct Slow(Duration);

    impl CoreSource for Slow {
        fn next(&self, _buffer: &mut [u8]) -> Result<Option<FrameSpan>, SourceFailure> {
            std::thread::sleep(self.0);
            Ok(None)
        }
    }

    #[test]
    fn messages_arrive_in_order_and_the_child_waits_in_between() {
        let mut child = start(&[], |reporter| {
            reporter.tell(&"copied")?;
            reporter.wait()?;
            reporter.tell(&"finished")
        })
        .unwrap();
        assert_eq!(child.next::<String>(None).unwrap(), "copied");
        child.go_on().unwrap();
        assert_eq!(child.next::<String>(None).unwrap(), "finished");
        let gone = child.next::<String>(None);
        assert!(
            matches!(gone, Err(SupervisedError::Failed { .. })),
            "{gone:?}"
        );
    }

    #[test]
    fn read_that_does_not_return_is_given_up_and_slow_work_is_not() {
        let job = |read: u64, work: u64| {
            move |reporter: &mut Reporter| {
                let slow = Slow(Duration::from_secs(read));
                let _ = reporter.watch(&slow).next(&mut []);
                std::thread::sleep(Duration::from_secs(work));
                reporter.tell(&1)
            }
        };
        let begun = Instant::now();
        let mut stuck = start(&[], job(60, 0)).unwrap();
        let error = stuck.next::<i32>(None).unwrap_err();
        assert!(matches!(error, SupervisedError::Stuck), "{error}");
        drop(stuck);
        assert!(begun.elapsed() < Duration::from_secs(20));
        let mut busy = start(&[], job(0, 6)).unwrap();
        assert_eq!(busy.next::<i32>(None).unwrap(), 1);
    }

    #[test]
    fn errors_keep_what_the_verdict_depends_on() {
        let round = |error: io::Error| {
            let json = serde_json::to_vec(&SentError::from(&error)).unwrap();
            io::Error::from(serde_json::from_slice::<SentError>(&json).unwrap())
        };
        let ours = io::Error::new(io::ErrorKind::QuotaExceeded, "our quota");
        let found = round(ours);
        assert_eq!(
            (
                found.kind(),
                found.raw_os_error(),
                found.to_string().as_str()
            ),
            (io::ErrorKind::QuotaExceeded, None, "our quota")
        );
        let full = round(io::Error::from_raw_os_error(libc::ENOSPC));
        assert_eq!(full.kind(), io::ErrorKind::StorageFull);
        assert_eq!(round(io::Error::other("x")).to_string(), "x");
    }
}
