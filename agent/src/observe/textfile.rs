//! Writes the metrics to a file, for the node exporter's textfile collector.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Replaces the file atomically: a collector reads either the old text or the new one. The text
/// contains no secrets, and the file is world-readable, because the collector runs as another user.
pub(super) fn write(path: &Path, text: &str) -> io::Result<()> {
    let mut draft = path.as_os_str().to_owned();
    // The collector ignores files that do not end in `.prom`.
    draft.push(".new");
    let _ = fs::remove_file(&draft);
    let mut options = fs::OpenOptions::new();
    let mut file = options
        .write(true)
        .create_new(true)
        .mode(0o644)
        .open(&draft)?;
    let written = file
        .write_all(text.as_bytes())
        .and_then(|()| fs::rename(&draft, path));
    if written.is_err() {
        let _ = fs::remove_file(&draft);
    }
    written
}
