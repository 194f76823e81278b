//! A trace of who sends SIGKILL to whom, in a tracefs instance of our own.
//!
//! ```text
//! <tracefs>/instances/cdh-<id>/events/signal/signal_generate/{filter: sig==9, enable: 1}
//! <tracefs>/instances/cdh-<id>/trace     what handlers read
//! ```
//! (`Documentation/trace/ftrace.rst`). The ring is small and needs no reader: a handler searches it
//! only if its own process was killed. If the kernel or the container does not allow the trace, dumps
//! only lack the sender's name. The instance belongs to the kernel: it outlives the agent and its mount
//! namespace, until an uninstall removes it.

use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::handler::startup::settings::HandlerSettings;
use crate::paths::AgentPaths;
use crate::tracefs::Tracefs;

/// KiB of the ring per processor; an event takes about 100 bytes.
const RING: &str = "64";
/// Enables and disables the event.
const ENABLE: &str = "events/signal/signal_generate/enable";
/// How long a handler may hold the trace open: it reads a few hundred KiB.
const READING: Duration = Duration::from_secs(5);

/// Creates or finds the trace of the installation with this state directory; returns the name of
/// its instance.
///
/// # Errors
/// If there is no tracefs, or it cannot be used.
pub fn ensure_kill_trace(state: &Path) -> io::Result<String> {
    let name = name(state);
    let instance = Tracefs::open()?.create(&name)?;
    for (file, value) in [
        ("trace_clock", "mono"),
        ("buffer_size_kb", RING),
        ("events/signal/signal_generate/filter", "sig==9"),
        (ENABLE, "1"),
        ("tracing_on", "1"),
    ] {
        instance.write(file, value)?;
    }
    Ok(name)
}

/// Creates the trace of an existing installation again after a reboot. If that fails, dumps lack a
/// name.
pub(crate) fn refresh_kill_trace(paths: &AgentPaths) {
    let (settings, problem) = HandlerSettings::read(&paths.handler_settings());
    if problem.is_none()
        && settings.kill_trace.is_some()
        && has_kill_trace(&paths.state) == Some(false)
    {
        let _ = ensure_kill_trace(&paths.state);
    }
}

/// Whether the kernel has the trace of this installation; `None` if that is not visible.
fn has_kill_trace(state: &Path) -> Option<bool> {
    Tracefs::open().ok()?.has(&name(state)).ok()
}

/// Removes the trace, from any mount namespace, and verifies that; a missing one is not an error.
///
/// # Errors
/// If it exists and cannot be removed, or if that cannot be verified.
pub fn remove_kill_trace(state: &Path) -> io::Result<()> {
    let tracefs = match Tracefs::open() {
        Ok(tracefs) => tracefs,
        // A kernel without tracefs has no instances.
        Err(error) if error.kind() == io::ErrorKind::Unsupported => return Ok(()),
        Err(error) => return Err(error),
    };
    let name = name(state);
    let deadline = Instant::now() + READING;
    while tracefs.has(&name)? {
        if let Ok(instance) = tracefs.instance(&name) {
            let _ = instance.write(ENABLE, "0");
        }
        match tracefs.remove(&name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error)
                if error.kind() == io::ErrorKind::ResourceBusy && Instant::now() < deadline =>
            {
                std::thread::sleep(Duration::from_millis(20));
            }
            removed => removed?,
        }
    }
    Ok(())
}

/// Each installation has its own: the name is derived from its state directory (FNV-1a).
fn name(state: &Path) -> String {
    use std::os::unix::ffi::OsStrExt;
    let hash = state
        .as_os_str()
        .as_bytes()
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, &byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
    format!("cdh-{hash:016x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kill_trace_is_made_twice_and_removed_twice() {
        use std::io::Read;
        let state = tempfile::tempdir().unwrap();
        let Ok(name) = ensure_kill_trace(state.path()) else {
            cdh_testkit::skip("tracefs cannot be used here");
            return;
        };
        assert_eq!(ensure_kill_trace(state.path()).unwrap(), name);
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        let id = child.id();
        child.kill().unwrap();
        child.wait().unwrap();
        let instance = Tracefs::open().unwrap().instance(&name).unwrap();
        let mut trace = String::new();
        let mut file = instance.read("trace").unwrap();
        file.read_to_string(&mut trace).unwrap();
        assert!(trace.contains(&format!("pid={id} ")), "{trace}");
        // A handler that is still reading holds the instance for a moment.
        let reader = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(200));
            drop(file);
        });
        remove_kill_trace(state.path()).unwrap();
        remove_kill_trace(state.path()).unwrap();
        reader.join().unwrap();
        assert_eq!(has_kill_trace(state.path()), Some(false));
        assert_eq!(std::fs::read_dir(state.path()).unwrap().count(), 0);
    }
}
