//! Private instances of the kernel's trace, to see when things happen without being in their way.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const TRACEFS: &str = "/sys/kernel/tracing";

/// A new instance; `None` where tracefs cannot be used.
pub(crate) fn instance(name: &str) -> Option<PathBuf> {
    let root = Path::new(TRACEFS);
    if !root.join("instances").is_dir() {
        let mount = ["-t", "tracefs", "tracefs", TRACEFS];
        let _ = Command::new("mount").args(mount).status();
    }
    let instance = root.join("instances").join(name);
    fs::create_dir(&instance).ok().map(|()| instance)
}

/// Removes an instance.
pub(super) fn remove(instance: &Path) {
    let _ = fs::write(instance.join("events/enable"), "0");
    let _ = fs::remove_dir(instance);
}

/// Looks at these events, each with its filter, until it is dropped.
pub(super) struct Events(PathBuf);

impl Events {
    /// Begins to look.
    pub(super) fn begin(name: &str, events: &[(&str, &str)]) -> Option<Self> {
        let found = Self(instance(name)?);
        fs::write(found.0.join("trace_clock"), "mono").ok()?;
        for (event, filter) in events {
            let event = found.0.join("events").join(event);
            fs::write(event.join("filter"), filter).ok()?;
            fs::write(event.join("enable"), "1").ok()?;
        }
        Some(found)
    }

    /// Forgets what was seen.
    pub(super) fn clear(&self) {
        let _ = fs::write(self.0.join("trace"), "");
    }

    /// Seconds at which lines with these words were seen first.
    pub(super) fn first(&self, words: &[&str]) -> Option<f64> {
        let text = fs::read(self.0.join("trace")).ok()?;
        let text = String::from_utf8_lossy(&text);
        let line = text
            .lines()
            .find(|line| !line.starts_with('#') && words.iter().all(|word| line.contains(word)))?;
        // name-pid [cpu] flags seconds: event: …
        let (_, rest) = line.split_once('[')?;
        let seconds = rest.split_whitespace().nth(2)?.strip_suffix(':')?;
        seconds.parse().ok()
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        remove(&self.0);
    }
}
