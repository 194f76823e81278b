//! Whether the kernel starts core handlers where this process is.
//!
//! The kernel starts a handler, and connects to a coredump socket, in the root and mount namespace of the
//! machine's first process. In a container or a chroot the handler is not found there, or sees other paths
//! than the test. There is nothing to ask without a crash: `/proc/1/root` may not be read in most containers.
//! So a script that says where it runs is started once by this process and once by the kernel.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// How long a handler that was started may take to write where it runs.
const PATIENCE: Duration = Duration::from_secs(10);

/// Prints the mount namespace it runs in, and what it sees as the root of process `$1`.
const SCRIPT: &str = r#"#!/bin/sh
PATH=/usr/local/bin:/usr/bin:/bin
{ readlink /proc/self/ns/mnt; readlink "/proc/$1/root"; } > "$0.part" && mv "$0.part" "$0.out"
"#;

/// Found once per process.
static REASON: OnceLock<Option<&'static str>> = OnceLock::new();

/// As [`reason_without`], if it was asked before; needs no lock.
pub(crate) fn known_reason_without() -> Option<&'static str> {
    REASON.get().copied().flatten()
}

/// Why the kernel cannot start a handler of this process, if it cannot. The caller holds the lock of the kernel's
/// settings and has saved them, for this changes `core_pattern`.
pub(crate) fn reason_without() -> Option<&'static str> {
    *REASON.get_or_init(|| {
        // A probe that fails on this side proves nothing: the tests run, and fail if they must.
        probe(Path::new("/proc/sys/kernel/core_pattern")).unwrap_or_else(|error| {
            eprintln!("cannot find out where the kernel starts core handlers: {error}");
            None
        })
    })
}

fn probe(core_pattern: &Path) -> io::Result<Option<&'static str>> {
    let directory = tempfile::Builder::new().prefix("cdh").tempdir()?;
    let script = directory.path().join("where");
    let answer = directory.path().join("where.out");
    fs::write(&script, SCRIPT)?;
    fs::set_permissions(&script, PermissionsExt::from_mode(0o755))?;
    let status = Command::new(&script)
        .arg(std::process::id().to_string())
        .status()?;
    let here = fs::read(&answer)?;
    fs::remove_file(&answer)?;
    if !status.success() {
        return Err(io::Error::other(format!("the probe ended with {status}")));
    }
    let before = fs::read(core_pattern)?;
    fs::write(core_pattern, format!("|{} %P", script.display()))?;
    let crashed = Command::new("sh")
        .args([OsStr::new("-c"), OsStr::new("kill -SEGV $$")])
        .current_dir(directory.path())
        .stderr(std::process::Stdio::null())
        .status();
    let kernels = match &crashed {
        // The kernel waits for the handler only where `core_pipe_limit` says so.
        Ok(status) if status.core_dumped() => wait_for(&answer),
        _ => None,
    };
    fs::write(core_pattern, before)?;
    crashed?;
    Ok(compare(&here, kernels.as_deref()))
}

fn wait_for(answer: &Path) -> Option<Vec<u8>> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match fs::read(answer) {
            Ok(text) => return Some(text),
            Err(_) if Instant::now() > deadline => return None,
            Err(_) => std::thread::sleep(Duration::from_millis(5)),
        }
    }
}

/// What the script printed here, and what it printed to the kernel; `None` if the kernel did not start it.
fn compare(here: &[u8], kernels: Option<&[u8]>) -> Option<&'static str> {
    match kernels {
        None => Some(
            "the kernel does not start core handlers from here (run this on the host or in a VM)",
        ),
        Some(kernels) if kernels != here => Some(
            "the kernel starts core handlers in another root or mount namespace (run this on the host or in a VM)",
        ),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{KernelSettingsLock, or_skip};

    #[test]
    fn handlers_run_here_only_if_they_see_the_same_root_and_namespace() {
        let here = b"mnt:[4026531832]\n/\n";
        assert_eq!(compare(here, Some(here)), None);
        let elsewhere: [&[u8]; 2] = [b"mnt:[4026531832]\n/srv/root\n", b"mnt:[4026531841]\n/\n"];
        for kernels in elsewhere {
            let why = compare(here, Some(kernels)).unwrap();
            assert!(why.contains("another root"), "{why}");
        }
        assert!(compare(here, None).unwrap().contains("does not start"));
    }

    /// This test starts itself in another mount namespace, with a file system over the temporary directory
    /// and without.
    #[test]
    fn probe_notices_that_the_kernel_starts_handlers_elsewhere() {
        const CHILD: &str = "CDH_TEST_PROBE_CHILD";
        let pattern = Path::new("/proc/sys/kernel/core_pattern");
        if std::env::var_os(CHILD).is_some() {
            println!("probed: {:?}", probe(pattern).unwrap());
            return;
        }
        let Some(_lock) = or_skip(KernelSettingsLock::for_settings()) else {
            return;
        };
        if or_skip(crate::root_is_a_mount()).is_none() {
            return;
        }
        let before = fs::read(pattern).unwrap();
        // A directory of its own: a mount over the usual one could hide this program.
        let place = tempfile::tempdir().unwrap();
        let probed = |shell: &str| {
            let mut unshare = Command::new("unshare");
            unshare.args(["--mount", "sh", "-c", shell, "sh"]);
            unshare.arg(std::env::current_exe().unwrap());
            unshare.args(["--exact", "--nocapture"]);
            unshare.arg(
                "kernel_handlers::tests::probe_notices_that_the_kernel_starts_handlers_elsewhere",
            );
            let output = unshare
                .envs([
                    (CHILD, OsStr::new("1")),
                    ("TMPDIR", place.path().as_os_str()),
                ])
                .output()
                .unwrap();
            String::from_utf8(output.stdout).unwrap()
        };
        let seen = probed("exec \"$@\"");
        assert!(seen.contains("another root or mount namespace"), "{seen}");
        let seen = probed("mount -t tmpfs cdh-test \"$TMPDIR\" && exec \"$@\"");
        assert!(seen.contains("does not start core handlers"), "{seen}");
        assert_eq!(fs::read(pattern).unwrap(), before);
    }
}
