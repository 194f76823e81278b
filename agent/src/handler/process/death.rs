//! What happened to the process while its core was read: who killed it, whether the kernel was short of
//! memory, whether its cgroup was frozen.
//!
//! Every source is opened at the start, for a process that is killed leaves its cgroups and
//! `/proc` within milliseconds. The exit code comes from the pidfd: the number that `wait` gives to
//! the parent is the same, but belongs to the parent.

#![allow(unsafe_code)]

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::time::{ClockId, clock_gettime};

use super::cgroups;
use super::handles::ProcessHandles;
use super::kill_trace::{self, SentKill};
use super::memory_headroom;
use crate::handler::os::proc_status::status_field;

/// Threads of the process that are remembered.
const THREADS: usize = 4096;
/// How long a process that was let go may take to end before its exit code stays unknown.
const ENDING: Duration = Duration::from_millis(300);
/// Descriptors that are looked at for an io_uring.
const DESCRIPTORS: usize = 4096;
/// Bit of SIGKILL in the masks of `status`.
const KILL_BIT: u64 = 1 << (libc::SIGKILL - 1);

/// Opened at the start, asked at the end.
#[derive(Debug)]
pub(crate) struct DeathWatch {
    begun: f64,
    pidfd: Option<OwnedFd>,
    threads: Vec<u32>,
    /// `memory.events` or `memory.oom_control`, and what it said at the start.
    out_of_memory: Option<(File, u64)>,
    /// Bytes that its cgroup left free at the start; `None` without a limit.
    memory_left: Option<u64>,
    /// `freezer.state` and `cgroup.events` of the cgroups, for a mixed node may freeze by either, and
    /// what was asked of its cgroup and those above: one that has lost its process is not frozen.
    freezers: Vec<File>,
    uses_io_uring: bool,
    kill_trace: Option<String>,
}

/// What is known of the end of the process.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Death {
    /// A SIGKILL is pending, says this field of `status`.
    pub pending: Option<&'static str>,
    /// It ended although it should have waited for us.
    pub ended_early: bool,
    /// As `wait(2)` gives it: 0x9 for a SIGKILL, 0x8b for a dumped SIGSEGV.
    pub exit_code: Option<i32>,
    /// The OOM killer struck in its cgroup.
    pub out_of_memory: bool,
    /// Its cgroup is frozen.
    pub frozen: bool,
    /// It had an io_uring, whose completions end a dump.
    pub uses_io_uring: bool,
    /// Who sent a SIGKILL, and how many seconds after the handler had begun.
    pub kill: Option<(SentKill, f64)>,
}

impl DeathWatch {
    /// Opens what can be opened. `kill_trace` names the tracefs instance with the
    /// SIGKILLs.
    #[must_use]
    pub(crate) fn open(process: &ProcessHandles, cgroup: &[u8], kill_trace: Option<&str>) -> Self {
        let mounts = std::fs::read("/proc/self/mountinfo").unwrap_or_default();
        let open = |controller: &str, names: &[&str]| {
            let directory = cgroups::directory(cgroup, &mounts, controller)?;
            names
                .iter()
                .find_map(|name| File::open(directory.join(name)).ok())
        };
        let memory = open("memory", &["memory.events", "memory.oom_control"]);
        let memory_directory = cgroups::directory(cgroup, &mounts, "memory");
        Self {
            begun: now(),
            pidfd: process.exit_watch(),
            threads: process.threads(THREADS),
            out_of_memory: memory.map(|file| {
                let count = oom_kills(&file);
                (file, count)
            }),
            memory_left: memory_directory
                .and_then(|directory| memory_headroom::left_in(&directory)),
            freezers: open("freezer", &["freezer.state"])
                .into_iter()
                .chain(open("", &["cgroup.events"]))
                .chain(freeze_files(cgroup, &mounts))
                .collect(),
            uses_io_uring: process.has_descriptor("anon_inode:[io_uring]", DESCRIPTORS),
            kill_trace: kill_trace.map(str::to_owned),
        }
    }

    /// What [`Self::is_out_of_memory`] reads.
    pub(crate) fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.out_of_memory.as_ref().map(|(file, _)| file.as_fd())
    }

    /// Ids of the process's threads on the host.
    pub(crate) fn threads(&self) -> &[u32] {
        &self.threads
    }

    /// Bytes that its cgroup, or the tightest one above it, left free at the start. `None` if none limits memory.
    #[must_use]
    pub(crate) fn memory_left(&self) -> Option<u64> {
        self.memory_left
    }

    /// Whether the OOM killer has struck in its cgroup.
    #[must_use]
    pub(crate) fn is_out_of_memory(&self) -> bool {
        self.out_of_memory
            .as_ref()
            .is_some_and(|(file, before)| oom_kills(file) > *before)
    }

    /// What there is to see while the process still waits for us, if it does.
    #[must_use]
    pub(crate) fn while_it_waits(&self, process: &ProcessHandles) -> Death {
        let ended = process.has_exited() == Some(true);
        Death {
            pending: pending_kill(process).filter(|_| !ended),
            // Where the limit is 0, the kernel does not wait for the handler.
            ended_early: ended && waits_for_handler(),
            out_of_memory: self.is_out_of_memory(),
            frozen: self.freezers.iter().any(is_frozen),
            uses_io_uring: self.uses_io_uring,
            ..Death::default()
        }
    }

    /// Adds what is known once the process may end: its exit code, and who sent the SIGKILL.
    #[must_use]
    pub(crate) fn after_release(&self, mut death: Death, process: &ProcessHandles) -> Death {
        death.exit_code = self
            .pidfd
            .as_ref()
            .and_then(|pidfd| exit_code(pidfd, Some(process)));
        if let Some(trace) = &self.kill_trace {
            death.kill = kill_trace::find(trace, &self.threads, self.begun - BEFORE).map(|kill| {
                let after = (kill.at - self.begun).max(0.0);
                (kill, after)
            });
        }
        death
    }
}

/// A kill may be sent before the handler has begun: the kernel needs a moment to start it.
const BEFORE: f64 = 0.05;

impl Death {
    /// Whether the process was killed by a SIGKILL.
    #[must_use]
    pub(crate) fn was_killed(&self) -> bool {
        let killed = |code: i32| code & 0x7f == libc::SIGKILL;
        match self.exit_code {
            Some(code) => killed(code),
            None => self.pending.is_some() || self.ended_early || self.kill.is_some(),
        }
    }

    /// Who or what killed it, in words; `None` where it was not killed.
    #[must_use]
    pub(crate) fn evidence(&self) -> Option<String> {
        if !self.was_killed() {
            return None;
        }
        if let Some((kill, after)) = &self.kill {
            let by_kernel = if kill.by_kernel { " (the kernel)" } else { "" };
            return Some(format!(
                "SIGKILL from `{}` (pid {}){by_kernel} {after:.1} s into the dump",
                kill.sender, kill.sender_id
            ));
        }
        let seen = match (self.pending, self.exit_code) {
            (Some(field), _) => format!(" (pending in {field} of /proc/<pid>/status)"),
            (None, Some(_)) => String::new(),
            (None, None) => " (the process ended while its core was read)".to_owned(),
        };
        Some(format!("SIGKILL, sender unknown{seen}"))
    }
}

fn now() -> f64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec as f64 + now.tv_nsec as f64 / 1e9
}

fn waits_for_handler() -> bool {
    std::fs::read_to_string("/proc/sys/kernel/core_pipe_limit")
        .is_ok_and(|limit| limit.trim() != "0")
}

/// The field of `status` that shows a SIGKILL. The kernel ends the stream at one; until the process has gone,
/// the bit is in `ShdPnd`. A thread that was killed alone has it in `SigPnd`.
fn pending_kill(process: &ProcessHandles) -> Option<&'static str> {
    let status = process.read("status").ok()?;
    ["ShdPnd", "SigPnd"].into_iter().find(|name| {
        let mask = status_field(&status, name).and_then(|mask| std::str::from_utf8(mask).ok());
        mask.and_then(|mask| u64::from_str_radix(mask, 16).ok())
            .is_some_and(|mask| mask & KILL_BIT != 0)
    })
}

fn text(file: &File) -> String {
    let mut buffer = [0; 4096];
    let count = file.read_at(&mut buffer, 0).unwrap_or(0);
    String::from_utf8_lossy(buffer.get(..count).unwrap_or_default()).into_owned()
}

/// `cgroup.freeze` of a cgroup of version 2 and of all above it.
fn freeze_files(cgroup: &[u8], mounts: &[u8]) -> Vec<File> {
    /// Directories that are looked at.
    const DEPTH: usize = 32;
    let directory = cgroups::directory(cgroup, mounts, "").unwrap_or_default();
    let files = directory.ancestors().take(DEPTH);
    files
        .map_while(|directory| File::open(directory.join("cgroup.freeze")).ok())
        .collect()
}

/// `oom_kill N` is in both versions' files.
fn oom_kills(file: &File) -> u64 {
    let found = text(file);
    let line = found
        .lines()
        .find_map(|line| line.strip_prefix("oom_kill "));
    line.and_then(|count| count.trim().parse().ok())
        .unwrap_or(0)
}

fn is_frozen(file: &File) -> bool {
    let found = text(file);
    found
        .lines()
        .any(|line| matches!(line.trim(), "frozen 1" | "1" | "FROZEN" | "FREEZING"))
}

/// Exit code of a process that has ended, also when it was reaped (`PIDFD_GET_INFO` with
/// `PIDFD_INFO_EXIT`, Linux 6.15; `include/uapi/linux/pidfd.h`).
pub(crate) fn exit_code_of(pidfd: &OwnedFd) -> Option<i32> {
    /// `_IOWR(0xff, 11, struct pidfd_info)` with the first 64 bytes of it.
    const PIDFD_GET_INFO: libc::Ioctl = 0xc040_ff0b_u32 as libc::Ioctl;
    const PIDFD_INFO_EXIT: u64 = 1 << 3;
    // mask, cgroupid, eleven ids, exit_code
    let mut info = [PIDFD_INFO_EXIT, 0, 0, 0, 0, 0, 0, 0];
    // SAFETY: the structure has the size that the request states.
    let asked = unsafe { libc::ioctl(pidfd.as_raw_fd(), PIDFD_GET_INFO, info.as_mut_ptr()) } == 0;
    let [mask, .., last] = info;
    let [.., a, b, c, d] = last.to_ne_bytes();
    (asked && mask & PIDFD_INFO_EXIT != 0).then(|| i32::from_ne_bytes([a, b, c, d]))
}

/// Waits a little for the end of the process and asks for its exit code.
pub(crate) fn exit_code(pidfd: &OwnedFd, process: Option<&ProcessHandles>) -> Option<i32> {
    let deadline = Instant::now() + ENDING;
    loop {
        let pause = Timespec {
            tv_sec: 0,
            tv_nsec: 20_000_000,
        };
        let ended = poll(&mut [PollFd::new(pidfd, PollFlags::IN)], Some(&pause));
        if let Some(code) = exit_code_of(pidfd) {
            return Some(code);
        }
        // The pidfd of a zombie shows nothing until its parent has reaped it.
        if let Some(code) = process.and_then(ProcessHandles::zombie_exit_code) {
            return Some(code);
        }
        if Instant::now() >= deadline {
            return None;
        }
        if ended.is_ok_and(|count| count > 0) {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn evidence_names_the_sender_or_says_that_it_is_unknown() {
        let death = Death {
            pending: Some("ShdPnd"),
            ..Death::default()
        };
        assert_eq!(
            death.evidence().unwrap(),
            "SIGKILL, sender unknown (pending in ShdPnd of /proc/<pid>/status)"
        );
        let exited = Death {
            exit_code: Some(9),
            ..Death::default()
        };
        assert_eq!(exited.evidence().unwrap(), "SIGKILL, sender unknown");
        let sent = SentKill {
            sender: "runc".into(),
            sender_id: 4711,
            at: 100.0,
            by_kernel: false,
        };
        let named = Death {
            kill: Some((sent, 4.23)),
            exit_code: Some(9),
            ..death.clone()
        };
        assert_eq!(
            named.evidence().unwrap(),
            "SIGKILL from `runc` (pid 4711) 4.2 s into the dump"
        );
        // It was sent, but the process had already ended as it should.
        let too_late = Death {
            exit_code: Some(0x8b),
            ..named
        };
        assert_eq!(too_late.evidence(), None);
    }
}
