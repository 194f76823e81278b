//! Runs a job in a child process, so that whatever happens to it, the handler goes on.
//!
//! Everything that can block or crash on a stranger's account is such a job: reading memory and files
//! of the crashed process, unwinding, redaction. A library truncated while it is mapped raises SIGBUS. Hostile
//! CFI may use much memory or time. A page of a FUSE or NFS file may put its reader into uninterruptible sleep
//! until a server answers. Invariants: every wait has a limit, also the one after
//! SIGKILL; a child that does not die is left alone and holds nothing but the descriptors it was given.
//! In particular it never holds the kernel's pipe, whose last reader releases the process.

#![allow(unsafe_code)]

use std::fs::File;
use std::io::{self, Read, Write};
use std::marker::PhantomData;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use rustix::pipe::{PipeFlags, fcntl_setpipe_size, pipe_with};
use serde::{Serialize, de::DeserializeOwned};

use super::poll::is_ready;
use super::proc_status::kib;

/// Private writable memory the child may have beyond its parent's, bytes. A minicore of 16 MiB needs
/// about 24.
const CHILD_DATA: u64 = 96 << 20;
/// Maximum size of the answer, bytes.
const ANSWER: u64 = 16 << 20;
/// Bytes that a pipe takes before its writer has to wait (`pipe(7)`).
const PIPE: usize = 64 << 10;
/// Bytes to which a pipe may be enlarged (default of `/proc/sys/fs/pipe-max-size`).
const LARGE_PIPE: usize = 1 << 20;
/// How long a killed child may take to die. One that sleeps uninterruptibly takes longer.
const GRACE: Duration = Duration::from_millis(100);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum IsolatedError {
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

/// Runs `job` in a child and returns its answer. The child keeps only the descriptors in `keep`: those
/// that `job` uses.
///
/// # Errors
/// When the child dies, takes longer than `limit`, or cannot be started.
pub(crate) fn run<T: Serialize + DeserializeOwned>(
    limit: Duration,
    keep: &[BorrowedFd<'_>],
    job: impl FnOnce() -> T,
) -> Result<T, IsolatedError> {
    start(keep, job)?.finish(limit)
}

/// Starts `job` in a child, as [`run`] does, without waiting for it.
///
/// # Errors
/// When the child cannot be started.
pub(crate) fn start<T: Serialize + DeserializeOwned>(
    keep: &[BorrowedFd<'_>],
    job: impl FnOnce() -> T,
) -> Result<Running<T>, IsolatedError> {
    let (answer, question) = pipe()?;
    let mut kept: Vec<RawFd> = keep.iter().map(AsRawFd::as_raw_fd).collect();
    kept.push(question.as_raw_fd());
    let child = fork_child(&kept, Some(CHILD_DATA), || send(question, &job()));
    Ok(Running {
        child: child.map_err(|source| IsolatedError::Start { source })?,
        answer,
        answers: PhantomData,
    })
}

/// As [`start`], for a job that has something to say before it is done: `first` gives that, and what
/// `rest` goes on with.
///
/// # Errors
/// When the child cannot be started.
pub(crate) fn start_in_two<F: Serialize, C, T: Serialize>(
    keep: &[BorrowedFd<'_>],
    first: impl FnOnce() -> (F, C),
    rest: impl FnOnce(C) -> T,
) -> Result<(FirstAnswer<F>, Running<T>), IsolatedError> {
    let (early, early_end) = pipe()?;
    let (answer, question) = pipe()?;
    let mut kept: Vec<RawFd> = keep.iter().map(AsRawFd::as_raw_fd).collect();
    kept.extend([early_end.as_raw_fd(), question.as_raw_fd()]);
    let child = fork_child(&kept, Some(CHILD_DATA), || {
        let (first, context) = first();
        send(early_end, &first)?;
        send(question, &rest(context))
    });
    let running = Running {
        child: child.map_err(|source| IsolatedError::Start { source })?,
        answer,
        answers: PhantomData,
    };
    let first = FirstAnswer {
        answer: early,
        answers: PhantomData,
    };
    Ok((first, running))
}

/// The end that is read, and the end that is written.
fn pipe() -> Result<(File, File), IsolatedError> {
    let (from, to) = pipe_with(PipeFlags::CLOEXEC).map_err(|error| IsolatedError::Start {
        source: error.into(),
    })?;
    Ok((File::from(from), File::from(to)))
}

/// Sends an answer and closes the pipe, which marks it as complete.
fn send(mut pipe: File, answer: &impl Serialize) -> io::Result<()> {
    let bytes = serde_json::to_vec(answer)?;
    if bytes.len() > PIPE {
        // The child should go on with what it still has to read, also while the parent does not read this.
        let _ = fcntl_setpipe_size(&pipe, LARGE_PIPE);
    }
    pipe.write_all(&bytes)
}

/// What a child says first. It does not kill the child.
#[derive(Debug)]
pub(crate) struct FirstAnswer<F> {
    answer: File,
    answers: PhantomData<fn() -> F>,
}

impl<F: DeserializeOwned> FirstAnswer<F> {
    /// Waits for it for a maximum of `limit`.
    ///
    /// # Errors
    /// When the child dies or takes longer.
    pub(crate) fn receive(mut self, limit: Duration) -> Result<F, IsolatedError> {
        let bytes = receive(&mut self.answer, limit)?;
        serde_json::from_slice(&bytes).map_err(|error| IsolatedError::Answer {
            source: error.into(),
        })
    }
}

/// A job that runs in a child. Dropping it kills the child.
#[derive(Debug)]
pub(crate) struct Running<T> {
    child: Child,
    answer: File,
    answers: PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned> Running<T> {
    /// Waits for the answer for a maximum of `limit`.
    ///
    /// # Errors
    /// When the child dies or takes longer.
    pub(crate) fn finish(mut self, limit: Duration) -> Result<T, IsolatedError> {
        let bytes = receive(&mut self.answer, limit)?;
        match serde_json::from_slice(&bytes) {
            Ok(answer) => {
                self.child.reap();
                Ok(answer)
            }
            Err(error) => Err(match self.child.wait(GRACE) {
                Some(status) if !status.success() => IsolatedError::Died { status },
                _ => IsolatedError::Answer {
                    source: error.into(),
                },
            }),
        }
    }
}

/// A child process of ours. Dropping it kills it, and waits for its end for [`GRACE`] only.
#[derive(Debug)]
pub(crate) struct Child {
    pid: libc::pid_t,
    status: Option<ExitStatus>,
}

impl Child {
    /// How it ended, if it has.
    fn reap(&mut self) -> Option<ExitStatus> {
        if self.status.is_none() {
            let mut status = 0;
            // SAFETY: `status` is a valid place for the result.
            let found = unsafe { libc::waitpid(self.pid, &mut status, libc::WNOHANG) };
            if found == self.pid {
                self.status = Some(ExitStatus::from_raw(status));
            }
        }
        self.status
    }

    /// Waits for its end for a maximum of `limit`.
    pub(crate) fn wait(&mut self, limit: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + limit;
        loop {
            let status = self.reap();
            if status.is_some() || Instant::now() >= deadline {
                return status;
            }
            std::thread::sleep(Duration::from_micros(200));
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if self.reap().is_none() {
            // SAFETY: the child has not been waited for, so the number is still its own.
            unsafe { libc::kill(self.pid, libc::SIGKILL) };
            self.wait(GRACE);
        }
    }
}

/// Forks a child that does `work` and ends. It keeps the descriptors 0 to 2 and those in `keep`, dies
/// with its parent, and may have `data` bytes of private memory more than its parent.
///
/// # Errors
/// When the kernel makes no process.
pub(crate) fn fork_child(
    keep: &[RawFd],
    data: Option<u64>,
    work: impl FnOnce() -> io::Result<()>,
) -> io::Result<Child> {
    let parent = rustix::process::getpid();
    // SAFETY: besides this thread the handler has at most one, which waits in a system call and holds
    // no lock. If a process with more threads calls the library, the child uses only what the C library keeps
    // usable after fork. (malloc has its own fork handlers.) It leaves by `_exit`.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            close_all_but(keep);
            in_child(parent, data, work)
        }
        pid => Ok(Child { pid, status: None }),
    }
}

/// Closes every descriptor above 2 except these.
pub(crate) fn close_all_but(keep: &[RawFd]) {
    let mut keep: Vec<u32> = keep
        .iter()
        .filter_map(|number| u32::try_from(*number).ok())
        .collect();
    keep.sort_unstable();
    let mut from = 3;
    for end in keep.iter().copied().chain([u32::MAX]) {
        // The range ends before the one that is kept.
        if from < end && !close_range(from, end - 1) {
            return close_listed(&keep);
        }
        from = from.max(end.saturating_add(1));
    }
}

fn close_range(first: u32, last: u32) -> bool {
    // SAFETY: what is closed belongs to values that this process or thread never touches again.
    unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) == 0 }
}

/// As [`close_all_but`], on kernels before 5.9.
fn close_listed(keep: &[u32]) {
    let entries = std::fs::read_dir("/proc/self/fd").into_iter().flatten();
    let open: Vec<u32> = entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    for number in open {
        if number > 2 && !keep.contains(&number) {
            // SAFETY: as above.
            unsafe { libc::close(number.cast_signed()) };
        }
    }
}

/// Private writable memory of this process, bytes: `VmData` of `/proc/<pid>/status`.
fn private_data() -> Option<u64> {
    let status = std::fs::read("/proc/self/status").ok()?;
    kib(&status, "VmData")?.checked_mul(1024)
}

fn in_child(
    parent: rustix::process::Pid,
    data: Option<u64>,
    work: impl FnOnce() -> io::Result<()>,
) -> ! {
    let prepare = || -> io::Result<()> {
        rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
        if rustix::process::getppid() != Some(parent) {
            return Err(io::Error::other("the handler is gone"));
        }
        let Some(data) = data else {
            return Ok(());
        };
        // What the parent has of its own (other threads' stacks, when it is a test) counts as well.
        let most = data.saturating_add(private_data().unwrap_or(0));
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
    let work = || prepare().and_then(|()| work());
    // A panic must not unwind into the caller's frames: this is another process.
    let code = match std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)) {
        Ok(Ok(())) => 0,
        Ok(Err(_)) => 1,
        Err(_) => 101,
    };
    // SAFETY: `_exit` runs nothing of the parent's (no destructors, no buffers).
    unsafe { libc::_exit(code) }
}

fn receive(file: &mut File, limit: Duration) -> Result<Vec<u8>, IsolatedError> {
    let deadline = Instant::now() + limit;
    let failed = |source| IsolatedError::Answer { source };
    let mut bytes = Vec::new();
    let mut buffer = vec![0; 64 << 10];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match is_ready(file, left) {
            Ok(true) => {}
            Ok(false) => {
                return Err(IsolatedError::TooLong {
                    seconds: limit.as_secs(),
                });
            }
            Err(error) => return Err(failed(error)),
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

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn the_answer_of_the_child_arrives_whole() {
        let text = "x".repeat(1 << 20);
        let found: String = run(Duration::from_secs(10), &[], || text.clone()).unwrap();
        assert_eq!(found, text);
    }

    #[test]
    fn a_child_that_dies_is_an_error_and_nothing_else() {
        let job = || -> u32 {
            // SAFETY: this is the child; killing it is the test.
            unsafe { libc::raise(libc::SIGKILL) };
            7
        };
        let error = run(Duration::from_secs(10), &[], job).unwrap_err();
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
        let error = run(Duration::from_millis(200), &[], job).unwrap_err();
        assert!(matches!(error, IsolatedError::TooLong { .. }), "{error}");
        assert!(begun.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn first_answer_does_not_wait_for_the_second() {
        let keep = File::open("/dev/null").unwrap();
        let (mut go, wait) = std::io::pipe().map(|(from, to)| (to, from)).unwrap();
        let rest = |length: usize| {
            let _ = (&wait).read(&mut [0]);
            length
        };
        let first = || ("x".repeat(100_000), 7);
        let (early, running) =
            start_in_two::<String, _, usize>(&[keep.as_fd(), wait.as_fd()], first, rest).unwrap();
        assert_eq!(
            early.receive(Duration::from_secs(10)).unwrap().len(),
            100_000
        );
        go.write_all(&[1]).unwrap();
        assert_eq!(running.finish(Duration::from_secs(10)).unwrap(), 7);
    }

    #[test]
    fn first_answer_of_a_child_that_dies_or_hangs_is_an_error() {
        let rest = |()| 7;
        let hang = || (std::thread::sleep(Duration::from_secs(60)), ());
        let (early, running) = start_in_two::<(), (), i32>(&[], hang, rest).unwrap();
        let error = early.receive(Duration::from_millis(200)).unwrap_err();
        assert!(matches!(error, IsolatedError::TooLong { .. }), "{error}");
        drop(running);
        let die = || {
            // SAFETY: this is the child; killing it is the test.
            (unsafe { libc::raise(libc::SIGKILL) }, ())
        };
        let (early, _running) = start_in_two::<i32, (), i32>(&[], die, rest).unwrap();
        let error = early.receive(Duration::from_secs(10)).unwrap_err();
        assert!(matches!(error, IsolatedError::Answer { .. }), "{error}");
    }

    /// A child in uninterruptible sleep outlives a handler that is killed.
    #[test]
    fn child_that_hangs_does_not_keep_an_entry_from_salvage() {
        use crate::spool::PartialEntry;
        let spool = tempfile::tempdir().unwrap();
        let entry = PartialEntry::create(spool.path(), cdh_bundle::DumpId::random()).unwrap();
        let (id, directory) = (entry.id(), entry.directory().unwrap());
        let hang = || std::thread::sleep(Duration::from_secs(60));
        let _running = start::<()>(&[directory.as_fd()], hang).unwrap();
        assert!(PartialEntry::take_over(spool.path(), id).is_err());
        // As the kernel does when the handler dies.
        drop(entry);
        // The child, and children of tests that run beside this one, hold the lock until they close what they inherited.
        let end = Instant::now() + Duration::from_secs(10);
        while let Err(error) = PartialEntry::take_over(spool.path(), id) {
            assert!(Instant::now() < end, "{error}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// A child in uninterruptible sleep must not keep the process waiting that the kernel dumps.
    #[test]
    fn child_holds_only_the_descriptors_it_was_given() {
        let (reader, writer) = std::io::pipe().unwrap();
        let kept = File::open("/dev/null").unwrap();
        let dropped = File::open("/dev/null").unwrap();
        let numbers = [kept.as_raw_fd(), dropped.as_raw_fd(), writer.as_raw_fd()];
        let job = move || -> Vec<bool> {
            let is_open = |number: i32| {
                // SAFETY: asks about a number, whatever it is.
                unsafe { libc::fcntl(number, libc::F_GETFD) != -1 }
            };
            numbers.map(is_open).to_vec()
        };
        let found: Vec<bool> = run(Duration::from_secs(10), &[kept.as_fd()], job).unwrap();
        assert_eq!(found, [true, false, false]);
        drop((reader, writer));
    }
}
