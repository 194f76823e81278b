//! The coredump socket of a node: starts its receiver, tests it, and falls back to the pipe pattern
//! if it fails.
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

/// How the kernel passes cores to cdh.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CoreMode {
    /// The kernel starts the handler for each crash.
    #[default]
    Pipe,
    /// The kernel connects to a running receiver (Linux 6.16).
    Socket,
    /// `Socket` if a self-test crash succeeds, otherwise `Pipe`.
    Auto,
}

/// Time limit for the start of a receiver, and for capturing the self-test crash.
const PATIENCE: Duration = Duration::from_secs(10);
/// Time between two checks whether the receiver serves the socket.
const PAUSE: Duration = Duration::from_millis(100);

/// Whether this kernel supports coredump sockets (`/proc/sys/kernel/core_modes`, Linux 6.16).
#[must_use]
pub fn kernel_has_sockets() -> bool {
    fs::read_to_string("/proc/sys/kernel/core_modes")
        .is_ok_and(|modes| modes.lines().any(|mode| mode == "socket"))
}

/// Starts a receiver if there is none, and waits until it accepts connections.
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
    // In its own session, so that it outlives the installation.
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

/// Crashes a process deliberately and waits for its dump, which is then removed.
///
/// # Errors
/// A text that describes the failure.
pub(crate) fn self_test(paths: &AgentPaths) -> Result<(), String> {
    let crash = || {
        let handler = Runnable::open(&paths.handler)?;
        let mut command = handler.command();
        command.arg(SELF_TEST_CRASH).env_clear().current_dir("/");
        command.stdin(Stdio::null()).spawn()
    };
    let mut child = crash().map_err(|error| format!("cannot run the self-test crash: {error}"))?;
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
                other => Err(format!("the self-test crash was {}", other.describe())),
            };
        }
        if Instant::now() > deadline {
            return Err("the self-test crash left no dump".to_owned());
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Sets the pattern without changing the other settings.
fn set_pattern(paths: &AgentPaths, pattern: cdh_bundle::RawText) -> Option<()> {
    let now = NodeSettings::read(&paths.settings).ok()?;
    let wanted = NodeSettings {
        core_pattern: pattern,
        ..now
    };
    wanted.apply(&paths.settings).ok()
}

/// Makes the kernel start the handler, ends the receiver, and starts one of the present version.
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

/// Checks that the kernel's socket is served. If not, sets the pipe pattern until it is served again.
/// `is_interim` records between calls that the pipe pattern is set.
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
        // Another program has changed it, or the socket is served.
        _ => {
            *is_interim = false;
            return;
        }
    }
    // A stopped receiver may continue; if there is none, a new one is started.
    if is_receiving(&paths.socket()) || (!is_held(&paths.socket()) && start(paths).is_ok()) {
        set_pattern(paths, socket);
        *is_interim = false;
    }
}

/// Restores the pipe pattern and ends the receiver, because it will not outlive this process: a container
/// runtime kills all processes in the container. If the handler's file system is mounted `noexec`, the
/// receiver is the only way to capture, and remains as long as it lives.
///
/// # Errors
/// If the receiver cannot be stopped.
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

/// Supervises the receiver until it is dropped.
pub(crate) struct ReceiverWatch {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl ReceiverWatch {
    /// Starts supervising the receiver of an installation.
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
