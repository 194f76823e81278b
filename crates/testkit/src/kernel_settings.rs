//! One test at a time may change the kernel's core settings, and leaves them as it found them.
//!
//! The settings are global to the machine, so the lock is a file every process of the machine can
//! find, held by `flock(2)`: it is free again when its holder dies, however it dies. Invariant: the
//! settings after the lock was dropped, by a panic too, are those from before it was taken. A
//! SIGKILL between leaves them changed; the saved values stay in the lock file, and the next holder
//! restores them first.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::PathBuf;

use rustix::fs::{FlockOperation, flock};

use crate::kernel_handlers;

const FILES: [&str; 3] = [
    "/proc/sys/fs/suid_dumpable",
    "/proc/sys/kernel/core_pattern",
    "/proc/sys/kernel/core_pipe_limit",
];

/// Exclusive use of the kernel's core settings for as long as it lives.
#[derive(Debug)]
pub struct KernelSettingsLock {
    file: File,
    saved: [Vec<u8>; 3],
}

impl KernelSettingsLock {
    /// Path of the lock.
    #[must_use]
    pub fn path() -> PathBuf {
        std::env::temp_dir().join("cdh-kernel-settings.lock")
    }

    /// The lock, for a child that restores the settings should this process die: no other test gets it before that
    /// child has ended.
    ///
    /// # Errors
    /// When there are no more descriptors.
    pub fn lend(&self) -> io::Result<File> {
        self.file.try_clone()
    }

    /// Waits for the lock and saves the settings; `None` where this process may not change them
    /// (not root, or a read-only `/proc/sys`).
    ///
    /// # Errors
    /// When the lock file cannot be used.
    pub fn acquire() -> io::Result<Option<Self>> {
        for path in FILES {
            if OpenOptions::new().write(true).open(path).is_err() {
                return Ok(None);
            }
        }
        let path = Self::path();
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(path)?;
        flock(&file, FlockOperation::LockExclusive)?;
        let mut left = Vec::new();
        file.read_to_end(&mut left)?;
        // A holder that was killed could not restore: do it for it.
        let left: Vec<_> = left.split(|&byte| byte == b'\n').collect();
        if let [first, second, third, ..] = left.as_slice() {
            restore(&[first, second, third]);
        }
        let mut saved = [const { Vec::new() }; 3];
        for (path, value) in FILES.iter().zip(&mut saved) {
            *value = fs::read(path)?;
            value.truncate(value.trim_ascii_end().len());
        }
        file.set_len(0)?;
        file.seek(SeekFrom::Start(0))?;
        for value in &saved {
            file.write_all(value)?;
            file.write_all(b"\n")?;
        }
        Ok(Some(Self { file, saved }))
    }

    /// As [`acquire`](Self::acquire), for a test that changes the settings.
    ///
    /// # Errors
    /// Why it cannot run here, for [`skip`](crate::skip).
    ///
    /// # Panics
    /// When the lock file cannot be used.
    pub fn for_settings() -> Result<Self, String> {
        let lock = Self::acquire().expect("the lock of the kernel's settings");
        lock.ok_or_else(|| "only root may change the kernel's core settings".to_owned())
    }

    /// As [`for_settings`](Self::for_settings), for a test whose handler the kernel starts: where the kernel
    /// starts handlers in another root, as in a container, it cannot run.
    ///
    /// # Errors
    /// Why it cannot run here, for [`skip`](crate::skip).
    ///
    /// # Panics
    /// When the lock file cannot be used.
    pub fn for_handlers() -> Result<Self, String> {
        if let Some(why) = kernel_handlers::known_reason_without() {
            return Err(why.to_owned());
        }
        let lock = Self::for_settings()?;
        match kernel_handlers::reason_without() {
            Some(why) => Err(why.to_owned()),
            None => Ok(lock),
        }
    }

    /// The pattern that will be restored.
    #[must_use]
    pub fn saved_core_pattern(&self) -> &[u8] {
        &self.saved[1]
    }
}

impl Drop for KernelSettingsLock {
    fn drop(&mut self) {
        let [first, second, third] = &self.saved;
        restore(&[first, second, third]);
        let _ = self.file.set_len(0);
    }
}

fn restore(values: &[&[u8]; 3]) {
    for (path, value) in FILES.iter().zip(values) {
        let mut line = value.to_vec();
        line.push(b'\n');
        let _ = fs::write(path, line);
    }
}
