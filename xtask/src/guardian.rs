//! Puts the node in order, whatever becomes of this process: the kernel gets its settings back, and of a
//! measurement that is killed no process, cgroup, trace, mount or file is left.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};
use cdh_testkit::KernelSettingsLock;

/// In the order in which the kernel does not warn.
const SETTINGS: [&str; 3] = [
    "/proc/sys/fs/suid_dumpable",
    "/proc/sys/kernel/core_pattern",
    "/proc/sys/kernel/core_pipe_limit",
];

const SCRIPT: &str = include_str!("guardian.sh");

/// Exclusive use of the kernel's core settings. They come back when it is dropped, and also when this
/// process is interrupted or killed.
pub(crate) struct Guardian {
    child: Child,
    /// As they were, and are again afterwards.
    before: Vec<String>,
    _lock: KernelSettingsLock,
}

impl Guardian {
    /// For what happens in `place`, a directory of its own. Cgroups and traces are called
    /// `cdh-bench-…`. `None` where this process may not change the settings.
    pub(crate) fn start(place: &Path) -> Result<Option<Self>> {
        let Some(lock) = KernelSettingsLock::acquire()? else {
            return Ok(None);
        };
        let before = read_settings()?;
        let mut command = Command::new("sh");
        command
            .args(["-c", SCRIPT, "guardian"])
            .args(&before)
            .arg(place.canonicalize()?)
            .arg(traces());
        let child = command
            .stdin(Stdio::piped())
            // It prints nothing; while it has the lock, no other test changes what it is to restore.
            .stdout(lock.lend()?)
            .stderr(Stdio::null())
            .spawn()
            .context("cannot run sh")?;
        Ok(Some(Self {
            child,
            before,
            _lock: lock,
        }))
    }

    /// Restores the settings, and checks that before others may change them; they are returned.
    pub(crate) fn restore(mut self) -> Result<Vec<String>> {
        self.finish();
        let now = read_settings()?;
        let before = std::mem::take(&mut self.before);
        ensure!(
            now == before,
            "the kernel's settings are {now:?} and were {before:?}"
        );
        Ok(before)
    }

    fn finish(&mut self) {
        if let Some(mut input) = self.child.stdin.take() {
            let _ = input.write_all(b"done\n");
        }
        let _ = self.child.wait();
    }
}

impl Drop for Guardian {
    fn drop(&mut self) {
        self.finish();
    }
}

/// Instances of the kernel's trace, as `:one:another:`.
fn traces() -> String {
    let instances = fs::read_dir("/sys/kernel/tracing/instances");
    let names = instances.into_iter().flatten().flatten();
    names.fold(":".to_owned(), |all, entry| {
        format!("{all}{}:", entry.file_name().display())
    })
}

/// The settings as they are, in the guardian's order.
pub(crate) fn read_settings() -> Result<Vec<String>> {
    let read = |path: &&str| -> Result<String> {
        let text = fs::read_to_string(path).with_context(|| format!("cannot read {path}"))?;
        Ok(text.trim_end_matches('\n').to_owned())
    };
    SETTINGS.iter().map(read).collect()
}

#[cfg(all(test, feature = "bench"))]
#[path = "guardian_tests.rs"]
mod tests;
