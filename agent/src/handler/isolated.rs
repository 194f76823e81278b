//! Runs a job in a child process, so that whatever happens to it, the handler goes on.
//!
//! Unwinding reads files and memory that belong to a stranger: a library truncated while it is
//! mapped raises SIGBUS, hostile CFI may eat memory or time. None of that may cost the core. The
//! child is killed when its time is over, cannot have more than a bounded amount of memory, and
//! dies with the handler. Its memory is gone afterwards, so the handler's own peak stays low.

#![allow(unsafe_code)]

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::pipe::{PipeFlags, pipe_with};
use serde::{Serialize, de::DeserializeOwned};

/// Private writable memory the child may have beyond its parent's, bytes. A minicore of 16 MiB needs
/// about 24.
const CHILD_DATA: u64 = 96 << 20;
/// Bytes of the answer at most.
const ANSWER: u64 = 16 << 20;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(super) enum IsolatedError {
    /// No child could be made.
    #[error("cannot start a process for it: {source}")]
    Start {
        /// Cause.
        source: io::Error,
    },
    /// It took too long and was killed.
    #[error("it took longer than {seconds} s")]
    TooLong {
        /// Limit.
        seconds: u64,
    },
    /// It died.
    #[error("it failed: {status}")]
    Died {
        /// How it ended.
        status: ExitStatus,
    },
    /// Its answer makes no sense.
    #[error("its answer cannot be read: {source}")]
    Answer {
        /// Cause.
        source: io::Error,
    },
}

/// Runs `job` in a child and returns its answer.
///
/// # Errors
/// When the child dies, takes longer than `limit`, or cannot be started.
pub(super) fn run<T: Serialize + DeserializeOwned>(
    limit: Duration,
    job: impl FnOnce() -> T,
) -> Result<T, IsolatedError> {
    let start = |error: rustix::io::Errno| IsolatedError::Start {
        source: error.into(),
    };
    let (answer, question) = pipe_with(PipeFlags::CLOEXEC).map_err(start)?;
    let parent = rustix::process::getpid();
    // SAFETY: besides this thread the handler has at most one, which waits in a system call and holds
    // no lock. Where the library is called from a process with more, the child uses only what the C
    // library keeps usable after fork (malloc has its own fork handlers) and leaves by `_exit`.
    let child = match unsafe { libc::fork() } {
        -1 => {
            return Err(IsolatedError::Start {
                source: io::Error::last_os_error(),
            });
        }
        0 => {
            drop(answer);
            in_child(parent, question, job)
        }
        child => child,
    };
    drop(question);
    let received = receive(answer, limit);
    if received.is_err() {
        // SAFETY: the child has not been waited for, so the number is still its own.
        unsafe { libc::kill(child, libc::SIGKILL) };
    }
    let status = wait(child).map_err(|source| IsolatedError::Start { source })?;
    let bytes = received?;
    if !status.success() {
        return Err(IsolatedError::Died { status });
    }
    serde_json::from_slice(&bytes).map_err(|error| IsolatedError::Answer {
        source: error.into(),
    })
}

/// Private writable memory of this process, bytes: `VmData` of `/proc/<pid>/status`.
fn private_data() -> Option<u64> {
    let status = std::fs::read("/proc/self/status").ok()?;
    let value = super::process::status_field(&status, "VmData")?;
    let kib = std::str::from_utf8(value).ok()?.strip_suffix("kB")?;
    kib.trim().parse::<u64>().ok()?.checked_mul(1024)
}

fn in_child<T: Serialize>(
    parent: rustix::process::Pid,
    question: OwnedFd,
    job: impl FnOnce() -> T,
) -> ! {
    let prepare = || -> io::Result<()> {
        rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
        if rustix::process::getppid() != Some(parent) {
            return Err(io::Error::other("the handler is gone"));
        }
        // What the parent has of its own (other threads' stacks, when it is a test) counts as well.
        let most = CHILD_DATA.saturating_add(private_data().unwrap_or(0));
        let limit = libc::rlimit {
            rlim_cur: most,
            rlim_max: most,
        };
        // SAFETY: a plain system call on a valid structure.
        match unsafe { libc::setrlimit(libc::RLIMIT_DATA, &limit) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    };
    let work = || -> io::Result<()> {
        prepare()?;
        let bytes = serde_json::to_vec(&job())?;
        File::from(question).write_all(&bytes)
    };
    // A panic must not unwind into the caller's frames: this is another process.
    let code = match std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)) {
        Ok(Ok(())) => 0,
        Ok(Err(_)) => 1,
        Err(_) => 101,
    };
    // SAFETY: `_exit` runs nothing of the parent's (no destructors, no buffers).
    unsafe { libc::_exit(code) }
}

fn receive(answer: OwnedFd, limit: Duration) -> Result<Vec<u8>, IsolatedError> {
    let deadline = Instant::now() + limit;
    let failed = |source| IsolatedError::Answer { source };
    let mut file = File::from(answer);
    let mut bytes = Vec::new();
    let mut buffer = vec![0; 64 << 10];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        };
        let ready = match poll(&mut [PollFd::new(&file, PollFlags::IN)], Some(&timeout)) {
            Err(rustix::io::Errno::INTR) => continue,
            ready => ready.map_err(|error| failed(error.into()))?,
        };
        if ready == 0 {
            return Err(IsolatedError::TooLong {
                seconds: limit.as_secs(),
            });
        }
        match file.read(&mut buffer) {
            Ok(0) => return Ok(bytes),
            Ok(count) => bytes.extend_from_slice(buffer.get(..count).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(failed(error)),
        }
        if bytes.len() as u64 > ANSWER {
            return Err(failed(io::Error::other("it is too long")));
        }
    }
}

fn wait(child: libc::pid_t) -> io::Result<ExitStatus> {
    let mut status = 0;
    loop {
        // SAFETY: `status` is a valid place for the result.
        match unsafe { libc::waitpid(child, &mut status, 0) } {
            -1 if io::Error::last_os_error().kind() == io::ErrorKind::Interrupted => {}
            -1 => return Err(io::Error::last_os_error()),
            _ => return Ok(ExitStatus::from_raw(status)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_of_the_child_arrives_whole() {
        let text = "x".repeat(1 << 20);
        let found: String = run(Duration::from_secs(10), || text.clone()).unwrap();
        assert_eq!(found, text);
    }

    #[test]
    fn a_child_that_dies_is_an_error_and_nothing_else() {
        let job = || -> u32 {
            // SAFETY: this is the child; killing it is the test.
            unsafe { libc::raise(libc::SIGKILL) };
            7
        };
        let error = run(Duration::from_secs(10), job).unwrap_err();
        assert!(matches!(error, IsolatedError::Died { .. }), "{error}");
        assert!(error.to_string().contains("SIGKILL"), "{error}");
    }

    #[test]
    fn a_child_that_hangs_is_killed() {
        let job = || -> u32 {
            std::thread::sleep(Duration::from_secs(60));
            7
        };
        let begun = Instant::now();
        let error = run(Duration::from_millis(200), job).unwrap_err();
        assert!(matches!(error, IsolatedError::TooLong { .. }), "{error}");
        assert!(begun.elapsed() < Duration::from_secs(10));
    }
}
