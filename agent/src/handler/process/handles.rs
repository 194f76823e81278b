//! Handles on the dying process, taken first and used for everything that follows.
//!
//! Invariant: all reading goes through directory handles opened at the start, so a pid that is
//! reused while the handler works gives errors, never another process's facts. The kernel says
//! `CoreDumping: 1` (since 4.15) of a process that is being dumped. A process with 0 has only inherited the
//! number and is not touched.
//!
//! Where the thread that crashed is not the leader and the leader has already left
//! (`pthread_exit` in `main`), the leader's `maps`, `mem` and links are empty: everything that
//! exists there is therefore read from `/proc/<P>/task/<I>` first.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use cdh_bundle::RawText;
use rustix::fs::{Mode, OFlags, openat};

use crate::handler::os::pidfd::is_reaped;
use crate::handler::os::poll::{is_readable, is_ready};
use crate::handler::os::proc_status::{innermost_id, start_ticks, status_field, zombie_exit_code};

/// Bytes read of one file of `/proc` at most.
const PROC_FILE_LIMIT: u64 = 8 << 20;

/// Why there is no handle.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum ProcessError {
    /// The kernel named no process.
    #[error("no process id was given")]
    NoPid,
    /// It is gone, or `/proc` does not show it.
    #[error("cannot open /proc/{pid}")]
    Gone {
        /// Process id on the host.
        pid: u32,
        /// Cause.
        #[source]
        source: io::Error,
    },
    /// Another process has the number now.
    #[error("process {pid} is not being dumped: the one that crashed is gone")]
    NotDumping {
        /// Process id on the host.
        pid: u32,
    },
}

/// Handles on the process that crashed.
#[derive(Debug)]
pub(crate) struct ProcessHandles {
    pid: u32,
    directory: OwnedFd,
    task: Option<OwnedFd>,
    pidfd: Option<OwnedFd>,
    start_ticks: Option<u64>,
    status: Vec<u8>,
}

impl ProcessHandles {
    /// Opens the handles, where the kernel has given one with a pidfd: no other process can be meant then.
    ///
    /// # Errors
    /// When the process is gone.
    pub(crate) fn open(
        pid: Option<u32>,
        tid: Option<u32>,
        pidfd: Option<OwnedFd>,
    ) -> Result<Self, ProcessError> {
        let pid = pid.ok_or(ProcessError::NoPid)?;
        let path = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        let directory =
            rustix::fs::open(format!("/proc/{pid}"), path, Mode::empty()).map_err(|error| {
                ProcessError::Gone {
                    pid,
                    source: error.into(),
                }
            })?;
        let task =
            tid.and_then(|tid| openat(&directory, format!("task/{tid}"), path, Mode::empty()).ok());
        let pidfd = pidfd.or_else(|| {
            let pid = rustix::process::Pid::from_raw(i32::try_from(pid).ok()?)?;
            rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).ok()
        });
        let mut handles = Self {
            pid,
            directory,
            task,
            pidfd,
            start_ticks: None,
            status: Vec::new(),
        };
        // As long as it was not waited for, what was opened above is its own.
        if let Some(pidfd) = &handles.pidfd
            && is_reaped(pidfd.as_fd())
        {
            let source = io::Error::from_raw_os_error(libc::ESRCH);
            return Err(ProcessError::Gone { pid, source });
        }
        let status = handles.read("status").unwrap_or_default();
        if status_field(&status, "CoreDumping").is_some_and(|value| value == b"0") {
            return Err(ProcessError::NotDumping { pid });
        }
        handles.status = status;
        handles.start_ticks = handles.leader_start_ticks();
        Ok(handles)
    }

    /// Process id on the host.
    #[must_use]
    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// `status` of the thread that crashed, as it was when the handles were opened.
    #[must_use]
    pub(crate) fn status(&self) -> &[u8] {
        &self.status
    }

    /// The directories that all reading goes through.
    pub(crate) fn directories(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let task = self.task.as_ref().map(AsFd::as_fd);
        std::iter::once(self.directory.as_fd()).chain(task)
    }

    /// Whom the kernel gives the files of the process to: its effective user, or root where the process
    /// may not be dumped by that user (`task_dump_owner` in `fs/proc/base.c`).
    #[must_use]
    pub(crate) fn owner(&self) -> Option<u32> {
        use std::os::unix::fs::MetadataExt;
        // Not of the directory: that one always belongs to the effective user.
        let metadata = self.open_file("limits").ok()?.metadata().ok()?;
        Some(metadata.uid())
    }

    /// Start of the process in clock ticks since boot (field 22 of `stat`).
    #[must_use]
    pub(crate) fn start_ticks(&self) -> Option<u64> {
        self.start_ticks
    }

    /// Whether the process has been reaped or is a zombie: its pidfd is readable then.
    #[must_use]
    pub(crate) fn has_exited(&self) -> Option<bool> {
        is_readable(self.pidfd.as_ref()?)
    }

    /// A descriptor that [`is_readable`] when the process has exited.
    #[must_use]
    pub(crate) fn exit_watch(&self) -> Option<OwnedFd> {
        self.pidfd.as_ref()?.try_clone().ok()
    }

    /// Waits for its end for a maximum of `limit`, and kills it then. Whether it was killed.
    pub(crate) fn end_if_it_stays(&self, limit: std::time::Duration) -> bool {
        let Some(pidfd) = &self.pidfd else {
            return false;
        };
        !matches!(is_ready(pidfd, limit), Ok(true))
            && rustix::process::pidfd_send_signal(pidfd, rustix::process::Signal::KILL).is_ok()
    }

    /// Whether a descriptor of the process leads to `target`; at most `limit` are looked at.
    #[must_use]
    pub(crate) fn has_descriptor(&self, target: &str, limit: usize) -> bool {
        let Ok(directory) = self.open_directory("fd") else {
            return false;
        };
        let Ok(names) = rustix::fs::Dir::read_from(&directory) else {
            return false;
        };
        names.take(limit).flatten().any(|name| {
            rustix::fs::readlinkat(&directory, name.file_name(), Vec::new())
                .is_ok_and(|link| link.as_bytes() == target.as_bytes())
        })
    }

    /// Ids of its threads on the host, at most so many, the leader's included.
    #[must_use]
    pub(crate) fn threads(&self, limit: usize) -> Vec<u32> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let names =
            openat(&self.directory, "task", flags, Mode::empty()).and_then(rustix::fs::Dir::new);
        let ids = names.into_iter().flatten().flatten().filter_map(|name| {
            let name = name.file_name().to_str().ok()?.to_owned();
            name.parse().ok()
        });
        std::iter::once(self.pid).chain(ids).take(limit).collect()
    }

    /// Reads a small file of one of its threads; `None` when that is gone.
    #[must_use]
    pub(crate) fn read_of_thread(&self, tid: u32, name: &str) -> Option<Vec<u8>> {
        let path = format!("task/{tid}/{name}");
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let file = openat(&self.directory, path, flags, Mode::empty()).ok()?;
        let mut bytes = Vec::new();
        File::from(file)
            .take(PROC_FILE_LIMIT)
            .read_to_end(&mut bytes)
            .ok()?;
        Some(bytes)
    }

    /// Id on the host of the thread with this id in the innermost pid namespace, which is how a core
    /// names it. The first so many threads are looked at.
    #[must_use]
    pub(crate) fn thread_called(&self, inner: u32, limit: usize) -> Option<u32> {
        let is_it = |tid: &u32| {
            let status = self.read_of_thread(*tid, "status");
            status.and_then(|status| innermost_id(&status, "NSpid")) == Some(inner)
        };
        // Outside of containers both are the same.
        let same = Some(inner).filter(is_it);
        same.or_else(|| self.threads(limit).into_iter().find(is_it))
    }

    /// Opens the file that is mapped at exactly these addresses, whatever its name leads to now.
    #[must_use]
    pub(crate) fn open_mapped_file(&self, start: u64, end: u64) -> Option<File> {
        self.open_file(&format!("map_files/{start:x}-{end:x}")).ok()
    }

    /// Reads a file of the crashed thread's directory, else of the process's.
    ///
    /// # Errors
    /// What the kernel says, `ESRCH` when the process is gone.
    pub(crate) fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.open_file(name)?
            .take(PROC_FILE_LIMIT)
            .read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// Opens a file of the crashed thread's directory, else of the process's.
    ///
    /// # Errors
    /// What the kernel says.
    pub(crate) fn open_file(&self, name: &str) -> io::Result<File> {
        self.first(|directory| {
            openat(
                directory,
                name,
                OFlags::RDONLY | OFlags::CLOEXEC,
                Mode::empty(),
            )
            .map(File::from)
            .map_err(io::Error::from)
        })
    }

    /// Opens a sub-directory (`fd`, `ns`) for listing.
    ///
    /// # Errors
    /// What the kernel says.
    pub(crate) fn open_directory(&self, name: &str) -> io::Result<OwnedFd> {
        self.open_directory_as(name, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC)
    }

    /// Opens a sub-directory with these flags.
    ///
    /// # Errors
    /// What the kernel says.
    pub(crate) fn open_directory_as(&self, name: &str, flags: OFlags) -> io::Result<OwnedFd> {
        self.first(|directory| {
            openat(directory, name, flags, Mode::empty()).map_err(io::Error::from)
        })
    }

    /// Target of a link such as `exe`, `cwd`, `root`.
    ///
    /// # Errors
    /// What the kernel says.
    pub(crate) fn read_link(&self, name: &str) -> io::Result<RawText> {
        self.first(|directory| {
            rustix::fs::readlinkat(directory, name, Vec::new())
                .map(|target| RawText::new(target.into_bytes()))
                .map_err(io::Error::from)
        })
    }

    /// `comm` of the process (that is, of its leader).
    #[must_use]
    pub(crate) fn leader_name(&self) -> Option<RawText> {
        let mut bytes = self.read_leader("comm").ok()?;
        if bytes.last() == Some(&b'\n') {
            bytes.pop();
        }
        Some(RawText::new(bytes))
    }

    /// The exit code that its parent will receive, if the process has ended and was not reaped.
    #[must_use]
    pub(crate) fn zombie_exit_code(&self) -> Option<i32> {
        zombie_exit_code(&self.read_leader("stat").ok()?)
    }

    fn read_leader(&self, name: &str) -> io::Result<Vec<u8>> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let file = File::from(openat(&self.directory, name, flags, Mode::empty())?);
        let mut bytes = Vec::new();
        file.take(PROC_FILE_LIMIT).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn leader_start_ticks(&self) -> Option<u64> {
        start_ticks(&self.read_leader("stat").ok()?)
    }

    fn first<T>(&self, attempt: impl Fn(BorrowedFd<'_>) -> io::Result<T>) -> io::Result<T> {
        match self.task.as_ref().map(|task| attempt(task.as_fd())) {
            Some(Ok(found)) => Ok(found),
            _ => attempt(self.directory.as_fd()),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Handles on a process that is not being dumped.
    pub(crate) fn living(pid: u32) -> ProcessHandles {
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        let path = format!("/proc/{pid}");
        let mut process = ProcessHandles {
            pid,
            directory: rustix::fs::open(path, flags, Mode::empty()).unwrap(),
            task: None,
            pidfd: None,
            start_ticks: None,
            status: Vec::new(),
        };
        process.status = process.read("status").unwrap();
        process.start_ticks = process.leader_start_ticks();
        process
    }

    #[test]
    fn a_living_process_with_the_number_is_not_the_one_that_crashed() {
        let own = std::process::id();
        let error = ProcessHandles::open(Some(own), None, None).unwrap_err();
        assert!(
            matches!(error, ProcessError::NotDumping { pid } if pid == own),
            "{error}"
        );
    }

    #[test]
    fn a_process_that_is_gone_is_said_to_be_gone() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = child.id();
        child.wait().unwrap();
        let error = ProcessHandles::open(Some(pid), Some(pid), None).unwrap_err();
        assert!(matches!(error, ProcessError::Gone { .. }), "{error}");
        assert!(matches!(
            ProcessHandles::open(None, None, None),
            Err(ProcessError::NoPid)
        ));
    }
}
