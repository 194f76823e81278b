//! The other way in: the kernel connects to a socket of ours (`core_pattern` is `@/path`, Linux 6.16)
//! instead of starting a program, so that a receiver is already running when a crash happens. It writes the
//! core at once, and where `core_pipe_limit` is not 0, the process waits until the connection is closed.
//! The process comes as a pidfd of the socket's peer, so no number can be reused on the way.
//!
//! With `@@/path` (Linux 6.17) the kernel first asks what is wanted and waits for an answer. That wait is
//! cut short by whatever interrupts a dump: of 20 processes that poll on io_uring every 5 ms, 7 were lost
//! in it before a byte was written.
//!
//! Two processes hold the listening socket. The *worker* accepts and forks a child for each crash, which
//! does what a handler does. The *keeper* waits for the worker. Invariants: the worker looks at no process
//! that crashed, so no process can hold it up; if either of the two is killed, the other one goes on, and
//! what waits in the socket's queue is accepted; crashes that are being captured are processes of
//! their own and need neither. When the socket's path is gone, both end. The worker's heartbeat in the
//! lock file says that it accepts: who finds it old lets the kernel start handlers instead.

#![allow(unsafe_code)]

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use cdh_bundle::RawText;
use jiff::Timestamp;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{FlockOperation, flock};

use super::capture::capture_prepared;
use super::capture::prepared::Prepared;
use super::chain::Chain;
use super::os::pidfd::is_reaped;
use super::os::proc_status::{innermost_id, status_field};
use super::outcome_log::report;
use super::process::handles::ProcessHandles;
use super::startup::arguments::HandlerArguments;
use super::startup::log::{HandlerLog, Level, kernel_log};
use super::startup::priority;
use super::startup::settings::HandlerSettings;

/// Crashes that may wait to be accepted. The kernel drops cores beyond it; it takes less where
/// `net.core.somaxconn` is less.
const BACKLOG: libc::c_int = 4096;

/// Serves the socket until its path is gone; the exit code.
pub(super) fn run(path: &Path, settings: PathBuf) -> u8 {
    match serve(path, settings) {
        Ok(()) => 0,
        Err(error) => {
            let path = RawText::new(path.as_os_str().as_encoded_bytes().to_vec());
            kernel_log(Level::Error, &format!("cannot receive at {path}: {error}"));
            1
        }
    }
}

/// Where the heartbeat is in the lock file: behind the keeper's id. It is the time of CLOCK_MONOTONIC in
/// milliseconds, as a decimal number of this many digits.
const HEARTBEAT: (u64, usize) = (32, 20);
/// Time between two heartbeats.
const BEAT: Duration = Duration::from_millis(100);
/// How old a heartbeat may be: the worker may have to wait for a processor, or for memory to fork.
const STOPPED: Duration = Duration::from_secs(3);

/// Whether a receiver holds the socket at this path and accepts crashes.
#[must_use]
pub fn is_receiving(path: &Path) -> bool {
    let Some(file) = held_lock(path) else {
        return false;
    };
    let mut text = [0; HEARTBEAT.1];
    let beat = file
        .read_exact_at(&mut text, HEARTBEAT.0)
        .ok()
        .and_then(|()| std::str::from_utf8(&text).ok()?.parse::<u64>().ok());
    // One that has only just begun has no heartbeat yet.
    beat.is_none_or(|beat| u128::from(monotonic().saturating_sub(beat)) <= STOPPED.as_millis())
}

/// Whether a receiver holds the socket at this path, whether or not it accepts crashes.
#[must_use]
pub(crate) fn is_held(path: &Path) -> bool {
    held_lock(path).is_some()
}

/// The lock file, if a receiver holds it.
fn held_lock(path: &Path) -> Option<File> {
    let file = File::open(lock_path(path)).ok()?;
    // Two locks of our own, on two openings of the file, exclude each other as well.
    let is_held = flock(&file, FlockOperation::NonBlockingLockShared).is_err();
    is_held.then_some(file)
}

/// CLOCK_MONOTONIC in milliseconds, the same for all processes.
fn monotonic() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let milliseconds = now.tv_sec.saturating_mul(1000) + now.tv_nsec / 1_000_000;
    u64::try_from(milliseconds).unwrap_or(0)
}

/// Ends the receiver of the socket at this path, and waits for the end. Crashes that have connected are
/// still captured.
///
/// # Errors
/// When it does not end.
pub fn stop_receiving(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let deadline = Instant::now() + Duration::from_secs(5);
    while is_held(path) {
        if Instant::now() > deadline {
            return Err(io::Error::other("the receiver does not end"));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    match fs::remove_file(lock_path(path)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn lock_path(path: &Path) -> PathBuf {
    path.with_extension("lock")
}

/// Dies of a SIGSEGV; the exit code if it does not.
pub(super) fn crash_on_purpose() -> u8 {
    let limit = libc::rlimit {
        rlim_cur: libc::RLIM_INFINITY,
        rlim_max: libc::RLIM_INFINITY,
    };
    // SAFETY: system calls on valid values; the last one ends the process.
    unsafe {
        libc::prctl(libc::PR_SET_DUMPABLE, 1, 0, 0, 0);
        libc::setrlimit(libc::RLIMIT_CORE, &limit);
        // The runtime has a handler of its own, which would return.
        libc::signal(libc::SIGSEGV, libc::SIG_DFL);
        libc::raise(libc::SIGSEGV);
    }
    1
}

fn serve(path: &Path, settings: PathBuf) -> io::Result<()> {
    let mut lock = OpenOptions::new();
    let lock = lock
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(lock_path(path))?;
    flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
    let _ = fs::remove_file(path);
    let listener = UnixListener::bind(path)?;
    // SAFETY: a system call on a descriptor of ours.
    unsafe { libc::listen(listener.as_raw_fd(), BACKLOG) };
    leave_limits();
    join_node_cgroups();
    let server = Server {
        inode: fs::metadata(path)?.ino(),
        path: path.to_owned(),
        settings,
        listener,
        lock,
    };
    server.keep();
    Ok(())
}

/// Out of the cgroup of the process that started us: its end, its limits and its freezer are not ours. And
/// when memory is short, we are the last that should go.
fn leave_limits() {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    for line in mounts.lines() {
        let Some((mount, kind)) = line.split_once(" - ") else {
            continue;
        };
        if let (true, Some(point)) = (kind.starts_with("cgroup"), mount.split(' ').nth(4)) {
            let id = std::process::id().to_string();
            let _ = fs::write(Path::new(point).join("cgroup.procs"), id);
        }
    }
    let _ = fs::write("/proc/self/oom_score_adj", "-1000");
}

/// Into the cgroup namespace of the node's first process. In that of a container, `/proc/<pid>/cgroup` shows
/// paths relative to our own cgroup, from which no pod can be identified.
fn join_node_cgroups() {
    let Ok(namespace) = File::open("/proc/1/ns/cgroup") else {
        return;
    };
    // SAFETY: a system call on a descriptor of ours; this process has one thread.
    unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWCGROUP) };
}

/// What both processes have.
struct Server {
    path: PathBuf,
    /// File that is read anew for each crash.
    settings: PathBuf,
    inode: u64,
    listener: UnixListener,
    lock: File,
}

/// What a child is forked for.
enum Role {
    Parent(libc::pid_t),
    Child,
}

/// Forks. The child has the caller's thread only.
fn fork() -> io::Result<Role> {
    // SAFETY: other threads of this process wait in system calls and hold no lock; the C library's
    // allocator has its own handlers for fork.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Role::Child),
        child => Ok(Role::Parent(child)),
    }
}

fn pidfd_of(pid: i32) -> Option<OwnedFd> {
    let pid = rustix::process::Pid::from_raw(pid)?;
    rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).ok()
}

impl Server {
    /// Whether the socket is still where the kernel looks for it.
    fn is_wanted(&self) -> bool {
        fs::metadata(&self.path).is_ok_and(|found| found.ino() == self.inode)
    }

    /// The keeper: has a worker for as long as the socket is wanted.
    fn keep(&self) {
        let _ = self.lock.set_len(0);
        let _ = self
            .lock
            .write_all_at(std::process::id().to_string().as_bytes(), 0);
        while self.is_wanted() {
            let keeper = rustix::process::getpid().as_raw_nonzero().get();
            match fork() {
                Ok(Role::Child) => return self.work(keeper),
                Ok(Role::Parent(worker)) => {
                    let mut status = 0;
                    // SAFETY: a valid place for the status.
                    while unsafe { libc::waitpid(worker, &mut status, 0) } == -1
                        && io::Error::last_os_error().kind() == io::ErrorKind::Interrupted
                    {
                    }
                    // One that dies at once must not be made again without end.
                    std::thread::sleep(Duration::from_millis(1));
                }
                Err(_) => std::thread::sleep(Duration::from_millis(100)),
            }
        }
    }

    /// The worker: accepts crashes. When its keeper is gone, it becomes the keeper of another worker.
    fn work(&self, keeper: i32) {
        priority::raise();
        // Children end by themselves and are not waited for.
        // SAFETY: a plain system call.
        unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
        let keeper = pidfd_of(keeper);
        let mut beat = None;
        loop {
            if beat.is_none_or(|beat: Instant| beat.elapsed() >= BEAT) {
                self.beat();
                beat = Some(Instant::now());
            }
            let mut fds = vec![PollFd::new(&self.listener, PollFlags::IN)];
            fds.extend(
                keeper
                    .iter()
                    .map(|keeper| PollFd::new(keeper, PollFlags::IN)),
            );
            let pause = rustix::event::Timespec {
                tv_sec: 0,
                tv_nsec: 200_000_000,
            };
            let ready = poll(&mut fds, Some(&pause)).unwrap_or(0);
            let mut events = fds.iter().map(|fd| !fd.revents().is_empty());
            let connected = events.next().unwrap_or(false);
            let keeper_gone = keeper.is_some() && events.next().unwrap_or(false);
            drop(fds);
            if connected && let Ok((stream, _)) = self.listener.accept() {
                self.receive(stream);
                continue;
            }
            // No crash waits: now there is time for the rest.
            let alone = keeper_gone || (keeper.is_none() && ready == 0);
            if !self.is_wanted() {
                return;
            }
            if alone {
                // SAFETY: a plain system call.
                unsafe { libc::signal(libc::SIGCHLD, libc::SIG_DFL) };
                return self.keep();
            }
        }
    }

    /// Says that crashes are accepted.
    fn beat(&self) {
        let (at, digits) = HEARTBEAT;
        let text = format!("{:0digits$}", monotonic());
        let _ = self.lock.write_all_at(text.as_bytes(), at);
    }

    /// Lets a child capture the crash.
    fn receive(&self, stream: UnixStream) {
        match fork() {
            Ok(Role::Parent(_)) => {}
            Ok(Role::Child) => {
                let code = self.child(stream);
                // SAFETY: ends the child without running what belongs to its parent.
                unsafe { libc::_exit(i32::from(code)) }
            }
            Err(error) => {
                kernel_log(Level::Error, &format!("no dump: cannot fork: {error}"));
            }
        }
    }

    fn child(&self, stream: UnixStream) -> u8 {
        let mut log = HandlerLog::default();
        // SAFETY: a plain system call. Children of its own have to be waited for.
        unsafe { libc::signal(libc::SIGCHLD, libc::SIG_DFL) };
        // Whether we live says nothing about the server.
        for descriptor in [self.listener.as_fd(), self.lock.as_fd()] {
            if let Ok(null) = File::open("/dev/null") {
                // SAFETY: both are open; the second becomes the first.
                unsafe { libc::dup2(null.as_raw_fd(), descriptor.as_raw_fd()) };
            }
        }
        let Some(mut peer) = Peer::of(&stream) else {
            return 1;
        };
        let (settings, problem) = HandlerSettings::read(&self.settings);
        if let Some(problem) = problem {
            log.note(&format!("settings: {problem}; the defaults hold"));
        }
        let mut arguments = peer.arguments();
        let prepared = Prepared::take(&arguments, &settings, peer.pidfd.take(), log);
        peer.complete(&mut arguments, &prepared);
        let stream = File::from(OwnedFd::from(stream));
        // The process waits while the connection is open: the previous handler may look at it.
        let held = settings.chain.as_ref().map(|_| stream.try_clone());
        let chain = Chain::begin(&settings, &arguments);
        let captured = capture_prepared(&arguments, &settings, stream, prepared);
        chain.hand_on(&arguments, captured.as_ref().ok());
        drop(held);
        report(&arguments, captured)
    }
}

/// The process at the other end.
struct Peer {
    /// `struct pidfd_info`, as `u64`s. Of a process that was waited for, only exit code and coredump mask.
    info: [u64; 9],
    /// Who connected. Its uid and gid are the effective ones.
    connected: libc::ucred,
    pidfd: Option<OwnedFd>,
    /// Its UTS namespace, which dies with it.
    names: Option<OwnedFd>,
}

/// `PIDFD_INFO_PID | PIDFD_INFO_CREDS | PIDFD_INFO_EXIT | PIDFD_INFO_COREDUMP`. Without the flag of the exit
/// the kernel shows nothing of a process that was reaped, for example because its dump was interrupted at once.
const INFO: u64 = 1 | 2 | 8 | 16;

impl Peer {
    /// `None` where it is no process that is being dumped: no other user may connect.
    fn of(stream: &UnixStream) -> Option<Self> {
        /// `SO_PEERPIDFD` (`asm-generic/socket.h`, Linux 6.5).
        const SO_PEERPIDFD: libc::c_int = 77;
        /// `_IOWR(0xff, 11, struct pidfd_info)` with its first 72 bytes.
        const PIDFD_GET_INFO: libc::Ioctl = 0xc048_ff0b_u32 as libc::Ioctl;
        let lost = |what: &str| {
            kernel_log(Level::Error, &format!("no dump: {what}"));
            None
        };
        let Ok(number) = socket_option(stream, SO_PEERPIDFD, -1) else {
            return lost("the kernel does not say who connected");
        };
        let nobody = libc::ucred {
            pid: 0,
            uid: 0,
            gid: 0,
        };
        let connected = socket_option(stream, libc::SO_PEERCRED, nobody).unwrap_or(nobody);
        // SAFETY: the kernel has just opened it for us.
        let pidfd = unsafe { OwnedFd::from_raw_fd(number) };
        let mut info = [INFO, 0, 0, 0, 0, 0, 0, 0, 0];
        // SAFETY: the structure has the size that the request states.
        let told =
            unsafe { libc::ioctl(pidfd.as_raw_fd(), PIDFD_GET_INFO, info.as_mut_ptr()) } == 0;
        let mut peer = Self {
            info,
            connected,
            pidfd: Some(pidfd),
            names: None,
        };
        /// `PIDFD_COREDUMPED`.
        const DUMPED: u32 = 1;
        if !told {
            let pid = peer.pid();
            return lost(&format!("the kernel shows nothing of process {pid}"));
        }
        if peer.word(16) & DUMPED == 0 {
            return None;
        }
        let names = format!("/proc/{}/ns/uts", peer.pid());
        peer.names = File::open(names).ok().map(OwnedFd::from);
        // Whose number may be another's by now.
        if peer.is_gone() {
            peer.names = None;
        }
        Some(peer)
    }

    /// The number-th `u32` of the structure: pid 4, tgid 5, ppid 6, ruid 7, rgid 8, …, exit code 15,
    /// coredump mask 16.
    fn word(&self, number: usize) -> u32 {
        let bytes = self
            .info
            .get(number / 2)
            .copied()
            .unwrap_or(0)
            .to_ne_bytes();
        let [a, b, c, d, e, f, g, h] = bytes;
        match number % 2 {
            0 => u32::from_ne_bytes([a, b, c, d]),
            _ => u32::from_ne_bytes([e, f, g, h]),
        }
    }

    /// Whether it was waited for, as a process is whose dump was interrupted at once.
    fn is_gone(&self) -> bool {
        self.pidfd
            .as_ref()
            .is_none_or(|pidfd| is_reaped(pidfd.as_fd()))
    }

    fn pid(&self) -> u32 {
        match self.word(5) {
            0 => self.connected.pid.cast_unsigned(),
            pid => pid,
        }
    }

    /// What the kernel would have passed to a handler, as far as it is known before the core.
    fn arguments(&self) -> HandlerArguments {
        /// `PIDFD_COREDUMP_ROOT`: for root only.
        const ROOT: u32 = 8;
        let pid = self.pid();
        let (uid, gid) = match self.word(5) {
            0 => (self.connected.uid, self.connected.gid),
            _ => (self.word(7), self.word(8)),
        };
        HandlerArguments {
            pid: Some(pid),
            tid: living_thread(pid).filter(|_| !self.is_gone()),
            time: Some(Timestamp::now().as_second()),
            dumpable: Some(if self.word(16) & ROOT != 0 { 2 } else { 1 }),
            uid: Some(uid),
            gid: Some(gid),
            ..HandlerArguments::default()
        }
    }

    /// Adds what takes longer to find.
    fn complete(&self, arguments: &mut HandlerArguments, prepared: &Prepared) {
        let status = prepared.process.as_ref().map(ProcessHandles::status);
        let status = status.unwrap_or_default();
        arguments.namespace_pid = innermost_id(status, "NStgid");
        arguments.namespace_tid = innermost_id(status, "NSpid");
        if let Some(name) = status_field(status, "Name") {
            arguments.name = RawText::from(name);
        }
        arguments.hostname = self
            .names
            .as_ref()
            .and_then(node_name_in)
            .unwrap_or_else(own_node_name);
    }
}

/// An option of the socket, whose place holds `value` before.
fn socket_option<T: Copy>(stream: &UnixStream, option: libc::c_int, value: T) -> io::Result<T> {
    let mut value = value;
    let mut length = size_of::<T>() as libc::socklen_t;
    // SAFETY: a valid place of the size that is passed.
    let asked = unsafe {
        libc::getsockopt(
            stream.as_raw_fd(),
            libc::SOL_SOCKET,
            option,
            (&raw mut value).cast(),
            &mut length,
        )
    };
    match asked {
        0 => Ok(value),
        _ => Err(io::Error::last_os_error()),
    }
}

fn own_node_name() -> RawText {
    RawText::new(rustix::system::uname().nodename().to_bytes().to_vec())
}

/// Name of the node in another UTS namespace: asked in a thread of its own, which enters it.
fn node_name_in(names: &OwnedFd) -> Option<RawText> {
    let asking = || {
        // SAFETY: only this thread changes its namespace, and it ends.
        let entered = unsafe { libc::setns(names.as_raw_fd(), libc::CLONE_NEWUTS) } == 0;
        entered.then(own_node_name)
    };
    std::thread::scope(|scope| scope.spawn(asking).join().ok().flatten())
}

/// A thread through which the process can be looked at: the leader may have ended, and has no memory then.
/// Its `status` says so; `maps` would wait for a lock of that memory.
fn living_thread(pid: u32) -> Option<u32> {
    let lives = |tid: &u32| {
        let status = fs::read(format!("/proc/{pid}/task/{tid}/status"));
        status.is_ok_and(|status| status_field(&status, "VmSize").is_some())
    };
    if lives(&pid) {
        return Some(pid);
    }
    let threads = fs::read_dir(format!("/proc/{pid}/task")).ok()?;
    threads
        .flatten()
        .filter_map(|thread| thread.file_name().to_str()?.parse().ok())
        .find(lives)
}
