//! Handles on the dying process, taken first and used for everything that follows.
//!
//! Invariant: all reading goes through directory handles opened at the start, so a pid that is
//! reused while the handler works gives errors, never another process's facts. The kernel says
//! `CoreDumping: 1` (since 4.15) of a process that is being dumped; one of which it says 0 has only
//! inherited the number and is not touched.
//!
//! Where the thread that crashed is not the leader and the leader has already left
//! (`pthread_exit` in `main`), the leader's `maps`, `mem` and links are empty: everything that
//! exists there is therefore read from `/proc/<P>/task/<I>` first.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use cdh_bundle::RawText;
use rustix::fs::{Mode, OFlags, openat};

use super::pidfd::is_reaped;

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
    pub(super) fn open(
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
    pub(super) fn pid(&self) -> u32 {
        self.pid
    }

    /// `status` of the thread that crashed, as it was when the handles were opened.
    #[must_use]
    pub(super) fn status(&self) -> &[u8] {
        &self.status
    }

    /// The directories that all reading goes through.
    pub(super) fn directories(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let task = self.task.as_ref().map(AsFd::as_fd);
        std::iter::once(self.directory.as_fd()).chain(task)
    }

    /// Whom the kernel gives the files of the process to: its effective user, or root where the process
    /// may not be dumped by that user (`task_dump_owner` in `fs/proc/base.c`).
    #[must_use]
    pub(super) fn owner(&self) -> Option<u32> {
        use std::os::unix::fs::MetadataExt;
        // Not of the directory: that one always belongs to the effective user.
        let metadata = self.open_file("limits").ok()?.metadata().ok()?;
        Some(metadata.uid())
    }

    /// Start of the process in clock ticks since boot (field 22 of `stat`).
    #[must_use]
    pub(super) fn start_ticks(&self) -> Option<u64> {
        self.start_ticks
    }

    /// Whether the process has been reaped or is a zombie: its pidfd is readable then.
    #[must_use]
    pub(super) fn has_exited(&self) -> Option<bool> {
        is_readable(self.pidfd.as_ref()?)
    }

    /// A descriptor that [`is_readable`] when the process has exited.
    #[must_use]
    pub(super) fn exit_watch(&self) -> Option<OwnedFd> {
        self.pidfd.as_ref()?.try_clone().ok()
    }

    /// Waits for its end for a maximum of `limit`, and kills it then. Whether it was killed.
    pub(super) fn end_if_it_stays(&self, limit: std::time::Duration) -> bool {
        let Some(pidfd) = &self.pidfd else {
            return false;
        };
        !matches!(super::isolated::is_ready(pidfd, limit), Ok(true))
            && rustix::process::pidfd_send_signal(pidfd, rustix::process::Signal::KILL).is_ok()
    }

    /// Whether a descriptor of the process leads to `target`; at most `limit` are looked at.
    #[must_use]
    pub(super) fn has_descriptor(&self, target: &str, limit: usize) -> bool {
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
    pub(super) fn threads(&self, limit: usize) -> Vec<u32> {
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
    pub(super) fn read_of_thread(&self, tid: u32, name: &str) -> Option<Vec<u8>> {
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
    pub(super) fn thread_called(&self, inner: u32, limit: usize) -> Option<u32> {
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
    pub(super) fn open_mapped_file(&self, start: u64, end: u64) -> Option<File> {
        self.open_file(&format!("map_files/{start:x}-{end:x}")).ok()
    }

    /// Reads a file of the crashed thread's directory, else of the process's.
    ///
    /// # Errors
    /// What the kernel says, `ESRCH` when the process is gone.
    pub(super) fn read(&self, name: &str) -> io::Result<Vec<u8>> {
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
    pub(super) fn open_file(&self, name: &str) -> io::Result<File> {
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
    pub(super) fn open_directory(&self, name: &str) -> io::Result<OwnedFd> {
        self.open_directory_as(name, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC)
    }

    /// Opens a sub-directory with these flags.
    ///
    /// # Errors
    /// What the kernel says.
    pub(super) fn open_directory_as(&self, name: &str, flags: OFlags) -> io::Result<OwnedFd> {
        self.first(|directory| {
            openat(directory, name, flags, Mode::empty()).map_err(io::Error::from)
        })
    }

    /// Target of a link such as `exe`, `cwd`, `root`.
    ///
    /// # Errors
    /// What the kernel says.
    pub(super) fn read_link(&self, name: &str) -> io::Result<RawText> {
        self.first(|directory| {
            rustix::fs::readlinkat(directory, name, Vec::new())
                .map(|target| RawText::new(target.into_bytes()))
                .map_err(io::Error::from)
        })
    }

    /// `comm` of the process (that is, of its leader).
    #[must_use]
    pub(super) fn leader_name(&self) -> Option<RawText> {
        let mut bytes = self.read_leader("comm").ok()?;
        if bytes.last() == Some(&b'\n') {
            bytes.pop();
        }
        Some(RawText::new(bytes))
    }

    /// What its parent will be told, of a process that has ended and whose parent has not asked yet.
    #[must_use]
    pub(super) fn zombie_exit_code(&self) -> Option<i32> {
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

/// Whether a descriptor can be read now without waiting; of a pidfd: whether the process has exited.
#[must_use]
pub(super) fn is_readable(descriptor: &OwnedFd) -> Option<bool> {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    poll(&mut [PollFd::new(descriptor, PollFlags::IN)], Some(&now))
        .ok()
        .map(|ready| ready > 0)
}

/// Value of a field of `/proc/<pid>/status`.
#[must_use]
pub(crate) fn status_field<'a>(status: &'a [u8], name: &str) -> Option<&'a [u8]> {
    status.split(|&byte| byte == b'\n').find_map(|line| {
        let value = line.strip_prefix(name.as_bytes())?.strip_prefix(b":")?;
        Some(value.trim_ascii())
    })
}

/// An id in the innermost pid namespace, from a thread's `status`: `NSpid` is that of the thread,
/// `NStgid` that of its process.
#[must_use]
pub(super) fn innermost_id(status: &[u8], field: &str) -> Option<u32> {
    let ids = std::str::from_utf8(status_field(status, field)?).ok()?;
    ids.split_whitespace().last()?.parse().ok()
}

/// Addresses in the stack of the first thread and of this one: fields 28 and 29 of
/// `/proc/<pid>/stat`, the second of which the kernel shows of a process that is being dumped.
#[must_use]
pub(super) fn stack_addresses(stat: &[u8]) -> Vec<u64> {
    let fields = [28, 29].map(|number| stat_field(stat, number));
    let addresses = fields.into_iter().flatten();
    addresses.filter(|address| *address != 0).collect()
}

/// Field 52 of `/proc/<pid>/stat` where field 3 is `Z`.
fn zombie_exit_code(stat: &[u8]) -> Option<i32> {
    let end = stat.iter().rposition(|&byte| byte == b')')?;
    let mut fields = stat
        .get(end.checked_add(1)?..)?
        .split(u8::is_ascii_whitespace)
        .filter(|field| !field.is_empty());
    let is_zombie = fields.next()? == b"Z";
    let code = std::str::from_utf8(fields.nth(52 - 4)?).ok()?.parse().ok();
    code.filter(|_| is_zombie)
}

/// Field 22 of `/proc/<pid>/stat`.
fn start_ticks(stat: &[u8]) -> Option<u64> {
    stat_field(stat, 22)
}

/// A number of `/proc/<pid>/stat`, counted from 1. The second field is the name in parentheses and may
/// hold both spaces and parentheses, so fields are counted from the last closing one.
fn stat_field(stat: &[u8], number: usize) -> Option<u64> {
    let end = stat.iter().rposition(|&byte| byte == b')')?;
    let rest = stat.get(end.checked_add(1)?..)?;
    let mut fields = rest
        .split(u8::is_ascii_whitespace)
        .filter(|field| !field.is_empty());
    let field = fields.nth(number.checked_sub(3)?)?;
    std::str::from_utf8(field).ok()?.parse().ok()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Handles on a process that is not being dumped.
    pub(in crate::handler) fn living(pid: u32) -> ProcessHandles {
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
    fn start_time_is_found_behind_a_name_that_imitates_the_format() {
        let stat = b"42 (a) S 1 (b c) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 777 20 21\n";
        assert_eq!(start_ticks(stat), Some(777));
        assert_eq!(start_ticks(b"42 (a) S 1 2"), None);
        assert_eq!(start_ticks(b""), None);
    }

    #[test]
    fn the_exit_code_of_a_zombie_is_its_last_field() {
        let mut child = std::process::Command::new("sh")
            .args(["-c", "exit 3"])
            .spawn()
            .unwrap();
        let path = format!("/proc/{}/stat", child.id());
        let code = loop {
            if let Some(code) = zombie_exit_code(&std::fs::read(&path).unwrap()) {
                break code;
            }
            std::thread::sleep(std::time::Duration::from_millis(1));
        };
        child.wait().unwrap();
        assert_eq!(code, 3 << 8);
        assert_eq!(
            zombie_exit_code(&std::fs::read("/proc/self/stat").unwrap()),
            None
        );
    }

    #[test]
    fn status_fields_are_whole_names() {
        let status = b"Name:\tx\nSigPnd:\t0\nShdPnd:\t0000000000000100\n";
        assert_eq!(
            status_field(status, "ShdPnd"),
            Some(&b"0000000000000100"[..])
        );
        assert_eq!(status_field(status, "Pnd"), None);
        assert_eq!(
            innermost_id(b"Pid:\t9\nNSpid:\t4711\t17\t3\n", "NSpid"),
            Some(3)
        );
        assert_eq!(innermost_id(b"NSpid:\t\n", "NSpid"), None);
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
