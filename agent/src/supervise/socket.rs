//! The coredump socket of a node: who serves it, whether it works here, and what happens when it
//! does not.
//!
//! Invariant: the kernel's pattern names the socket only while a receiver serves it. If there is none, the
//! agent restores the pipe pattern, which needs no receiver.

use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use cdh_bundle::{Manifest, Verdict};
use serde::{Deserialize, Serialize};

use crate::handler::{RECEIVE, SELF_TEST_CRASH, is_held, is_receiving, stop_receiving};
use crate::node::binary::Runnable;
use crate::node::settings::NodeSettings;
use crate::paths::AgentPaths;

/// How the kernel hands cores over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CoreMode {
    /// It starts the handler for each crash.
    #[default]
    Pipe,
    /// It connects to a receiver that is there already (Linux 6.16).
    Socket,
    /// `Socket` where a crash on purpose shows that it works, else `Pipe`.
    Auto,
}

/// How long a receiver may take to start, and a crash on purpose to be captured.
const PATIENCE: Duration = Duration::from_secs(10);
/// Time between two looks whether the receiver is there.
const PAUSE: Duration = Duration::from_millis(100);

/// Whether this kernel knows coredump sockets at all (`/proc/sys/kernel/core_modes`, Linux 6.16).
#[must_use]
pub fn kernel_has_sockets() -> bool {
    fs::read_to_string("/proc/sys/kernel/core_modes")
        .is_ok_and(|modes| modes.lines().any(|mode| mode == "socket"))
}

/// Starts a receiver where there is none, and waits until it can be connected to.
pub(crate) fn start(paths: &AgentPaths) -> io::Result<()> {
    let socket = paths.socket();
    if is_receiving(&socket) {
        return Ok(());
    }
    let handler = Runnable::open(&paths.handler)?;
    let mut command = handler.command();
    command
        .arg(RECEIVE)
        .arg(&socket)
        .arg(std::path::absolute(paths.handler_settings())?)
        .env_clear()
        .current_dir("/");
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    // Not of our session: it outlives the installation.
    let mut child = command.process_group(0).spawn()?;
    let deadline = Instant::now() + PATIENCE;
    while !(is_receiving(&socket) && socket.exists()) {
        if let Some(status) = child.try_wait()? {
            return Err(io::Error::other(format!("it ended: {status}")));
        }
        if Instant::now() > deadline {
            let _ = child.kill();
            let _ = child.wait();
            return Err(io::ErrorKind::TimedOut.into());
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

/// Crashes a process on purpose and waits for its dump, which is removed again.
///
/// # Errors
/// In words, what went wrong.
pub(crate) fn self_test(paths: &AgentPaths) -> Result<(), String> {
    let crash = || {
        let handler = Runnable::open(&paths.handler)?;
        let mut command = handler.command();
        command.arg(SELF_TEST_CRASH).env_clear().current_dir("/");
        command.stdin(Stdio::null()).spawn()
    };
    let mut child = crash().map_err(|error| format!("cannot crash on purpose: {error}"))?;
    let pid = u64::from(child.id());
    child.wait().map_err(|error| error.to_string())?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        for entry in fs::read_dir(&paths.spool).into_iter().flatten().flatten() {
            let manifest = fs::read(entry.path().join("manifest.json")).unwrap_or_default();
            let Ok(manifest) = Manifest::from_json(&manifest) else {
                continue;
            };
            if manifest.process.pid != pid || entry.path().extension().is_some() {
                continue;
            }
            let _ = fs::remove_dir_all(entry.path());
            return match manifest.verdict {
                Verdict::Complete => Ok(()),
                other => Err(format!("a crash on purpose was {}", other.describe())),
            };
        }
        if Instant::now() > deadline {
            return Err("a crash on purpose left no dump".to_owned());
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Sets the pattern, and leaves the other settings as they are.
fn set_pattern(paths: &AgentPaths, pattern: cdh_bundle::RawText) -> Option<()> {
    let now = NodeSettings::read(&paths.settings).ok()?;
    let wanted = NodeSettings {
        core_pattern: pattern,
        ..now
    };
    wanted.apply(&paths.settings).ok()
}

/// Lets the kernel start the handler, ends the receiver, and starts one of the present version.
pub(crate) fn restart(paths: &AgentPaths) -> io::Result<()> {
    if is_held(&paths.socket()) {
        if is_socket_pattern(paths) {
            let pattern = paths.core_pattern().map_err(io::Error::other)?;
            set_pattern(paths, pattern);
        }
        stop_receiving(&paths.socket())?;
    }
    start(paths)
}

fn is_socket_pattern(paths: &AgentPaths) -> bool {
    let now = NodeSettings::read(&paths.settings).map(|now| now.core_pattern);
    paths
        .socket_pattern()
        .is_ok_and(|socket| now.is_ok_and(|now| now == socket))
}

/// Looks whether the socket that the kernel connects to is served. If not, the kernel starts handlers
/// until it is again. `is_interim` says that it does so now, from one look to the next.
pub(crate) fn mend(paths: &AgentPaths, is_interim: &mut bool) {
    let (Ok(pipe), Ok(socket)) = (paths.core_pattern(), paths.socket_pattern()) else {
        return;
    };
    let now = NodeSettings::read(&paths.settings).map(|now| now.core_pattern);
    match now {
        Ok(now) if now == socket && !is_receiving(&paths.socket()) => {
            *is_interim = set_pattern(paths, pipe).is_some();
        }
        Ok(now) if now == pipe && *is_interim => {}
        // Another program has changed it, or all is well.
        _ => {
            *is_interim = false;
            return;
        }
    }
    // One that has stopped may go on; where none is left, a new one is started.
    if is_receiving(&paths.socket()) || (!is_held(&paths.socket()) && start(paths).is_ok()) {
        set_pattern(paths, socket);
        *is_interim = false;
    }
}

/// Lets the kernel start handlers again, and ends the receiver, because it will not outlive this process:
/// the runtime of a container kills all that was started in it. Where the handler's file system is
/// mounted `noexec`, the receiver is all there is, and stays as long as it lives.
///
/// # Errors
/// When the receiver cannot be stopped.
pub fn retire(paths: &AgentPaths) -> io::Result<()> {
    if !is_socket_pattern(paths) || crate::node::binary::is_noexec(&paths.handler) {
        return Ok(());
    }
    let pipe = paths.core_pattern().map_err(io::Error::other)?;
    match set_pattern(paths, pipe) {
        Some(()) => stop_receiving(&paths.socket()),
        None => Ok(()),
    }
}

/// Looks after the receiver until it is dropped.
pub(crate) struct ReceiverWatch {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl ReceiverWatch {
    /// Begins to look after the receiver of an installation.
    pub(crate) fn begin(paths: &AgentPaths) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (told, paths) = (Arc::clone(&stop), paths.clone());
        let watch = move || {
            let mut is_interim = false;
            while !told.load(Ordering::Relaxed) {
                mend(&paths, &mut is_interim);
                std::thread::sleep(PAUSE);
            }
        };
        Self {
            stop,
            thread: std::thread::Builder::new().spawn(watch).ok(),
        }
    }
}

impl Drop for ReceiverWatch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
