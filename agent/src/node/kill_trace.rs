//! A trace of who sends SIGKILL to whom, in a tracefs instance of our own.
//!
//! ```text
//! <tracefs>/instances/cdh-<id>/events/signal/signal_generate/{filter: sig==9, enable: 1}
//! <tracefs>/instances/cdh-<id>/trace     what handlers read
//! ```
//! (`Documentation/trace/ftrace.rst`). The ring is small and needs nobody who drains it: a handler
//! looks for its own process when that was killed. Where the kernel or the container does not allow
//! it, dumps lack the sender's name and nothing else.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use crate::handler::settings::HandlerSettings;
use crate::paths::AgentPaths;

/// KiB of the ring for each processor; an event takes about 100 bytes.
const RING: &str = "64";
/// Where tracefs stands on nearly every host.
const USUAL: [&str; 2] = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];

/// Makes the trace of the installation with this state directory, or finds it.
///
/// # Errors
/// When there is no tracefs, or it cannot be used.
pub fn ensure_kill_trace(state: &Path) -> io::Result<PathBuf> {
    let instance = tracefs(state)?.join("instances").join(name(state));
    match fs::create_dir(&instance) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let event = instance.join("events/signal/signal_generate");
    let settings = [
        (instance.join("trace_clock"), "mono"),
        (instance.join("buffer_size_kb"), RING),
        (event.join("filter"), "sig==9"),
        (event.join("enable"), "1"),
        (instance.join("tracing_on"), "1"),
    ];
    for (path, value) in settings {
        fs::write(path, value)?;
    }
    Ok(instance)
}

/// Makes the trace anew that an installation had before the node was started again. Where that
/// fails, dumps lack a name.
pub(crate) fn refresh_kill_trace(paths: &AgentPaths) {
    let (settings, problem) = HandlerSettings::read(&paths.handler_settings());
    if problem.is_none() && settings.kill_trace.is_some_and(|trace| !trace.is_dir()) {
        let _ = ensure_kill_trace(&paths.state);
    }
}

/// Removes the trace; one that is not there is no error.
///
/// # Errors
/// When it is there and cannot be removed.
pub fn remove_kill_trace(state: &Path) -> io::Result<()> {
    let private = mount_point(state);
    for tracefs in USUAL.iter().map(Path::new).chain([private.as_path()]) {
        let instance = tracefs.join("instances").join(name(state));
        if instance.is_dir() {
            let _ = fs::write(instance.join("events/signal/signal_generate/enable"), "0");
            fs::remove_dir(&instance)?;
        }
    }
    if is_tracefs(&private) {
        unmount(&private, UnmountFlags::DETACH)?;
    }
    match fs::remove_dir(&private) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// A tracefs that is mounted, else one that we mount for ourselves.
fn tracefs(state: &Path) -> io::Result<PathBuf> {
    if let Some(usual) = USUAL.iter().map(Path::new).find(|path| is_tracefs(path)) {
        return Ok(usual.to_owned());
    }
    let private = mount_point(state);
    if !is_tracefs(&private) {
        fs::create_dir_all(&private)?;
        let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        mount("tracefs", &private, "tracefs", flags, None)?;
    }
    Ok(private)
}

fn mount_point(state: &Path) -> PathBuf {
    state.join("tracing")
}

fn is_tracefs(path: &Path) -> bool {
    /// `TRACEFS_MAGIC` (`include/uapi/linux/magic.h`).
    const MAGIC: u64 = 0x7472_6163;
    rustix::fs::statfs(path).is_ok_and(|found| found.f_type.cast_unsigned() == MAGIC)
}

/// Each installation has its own: the name follows from its state directory (FNV-1a).
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
    fn a_trace_is_made_twice_and_removed_twice_without_a_trace() {
        let state = tempfile::tempdir().unwrap();
        let Ok(instance) = ensure_kill_trace(state.path()) else {
            cdh_testkit::skip("tracefs cannot be used here");
            return;
        };
        assert_eq!(ensure_kill_trace(state.path()).unwrap(), instance);
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        let id = child.id();
        child.kill().unwrap();
        child.wait().unwrap();
        let trace = fs::read_to_string(instance.join("trace")).unwrap();
        assert!(trace.contains(&format!("pid={id} ")), "{trace}");
        remove_kill_trace(state.path()).unwrap();
        remove_kill_trace(state.path()).unwrap();
        assert!(!instance.exists());
        assert_eq!(fs::read_dir(state.path()).unwrap().count(), 0);
    }
}
