//! Gives the kernel its settings back, whatever becomes of this process.

use std::fs;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};
use cdh_testkit::KernelSettingsLock;

/// In the order in which the kernel does not warn.
const SETTINGS: [&str; 3] = [
    "/proc/sys/fs/suid_dumpable",
    "/proc/sys/kernel/core_pattern",
    "/proc/sys/kernel/core_pipe_limit",
];

/// Waits for the end of its standard input, which is the end of us, and restores.
const SCRIPT: &str = r#"
trap '' INT TERM HUP
cat > /dev/null
printf '%s\n' "$1" > /proc/sys/fs/suid_dumpable
printf '%s\n' "$2" > /proc/sys/kernel/core_pattern
printf '%s\n' "$3" > /proc/sys/kernel/core_pipe_limit
"#;

/// Exclusive use of the kernel's core settings. They come back when it is dropped, and also when this
/// process is interrupted or killed.
pub(crate) struct Guardian {
    child: Child,
    _lock: KernelSettingsLock,
}

impl Guardian {
    /// `None` where this process may not change the settings.
    pub(crate) fn start() -> Result<Option<Self>> {
        let Some(lock) = KernelSettingsLock::acquire()? else {
            return Ok(None);
        };
        let mut command = Command::new("sh");
        command
            .args(["-c", SCRIPT, "guardian"])
            .args(read_settings()?);
        let child = command
            .stdin(Stdio::piped())
            // It prints nothing; as long as it has the lock, nobody changes what it is to restore.
            .stdout(lock.lend()?)
            .spawn()
            .context("cannot run sh")?;
        Ok(Some(Self { child, _lock: lock }))
    }
}

impl Drop for Guardian {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

/// The settings as they are, in the guardian's order.
pub(crate) fn read_settings() -> Result<Vec<String>> {
    let read = |path: &&str| -> Result<String> {
        let text = fs::read_to_string(path).with_context(|| format!("cannot read {path}"))?;
        Ok(text.trim_end_matches('\n').to_owned())
    };
    SETTINGS.iter().map(read).collect()
}
