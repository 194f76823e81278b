//! What an uninstall leaves behind: dumps that were not shipped, and nothing else of ours.

use std::fs;
use std::path::Path;

use crate::paths::AgentPaths;
use crate::spool::count;

/// Removes empty directories and what only the agent needs, and counts the dumps that stay. Where a
/// shipper still works, or there are dumps, the spool stays as it is.
pub(super) fn tidy(paths: &AgentPaths) -> u64 {
    let found = count(&paths.spool).unwrap_or_default();
    let left = found.sealed + found.partial + found.quarantined;
    if left == 0 && !crate::shipper::is_running(paths) {
        for ours in [".pods", ".slots"] {
            let _ = fs::remove_dir_all(paths.spool.join(ours));
        }
        for directory in [&paths.spool.join(crate::spool::QUARANTINE), &paths.spool] {
            let _ = fs::remove_dir(directory);
        }
        remove_files(&paths.uploads(), |name| name.ends_with(".journal"));
        let _ = fs::remove_dir(paths.uploads());
        let _ = fs::remove_file(paths.shipper_lock());
        let _ = fs::remove_file(paths.install_lock());
        // In a pod it is a mount, and stays; a store of its own stays too.
        let _ = fs::remove_dir(&paths.state);
    }
    if let Some(directory) = paths.handler.parent() {
        let _ = fs::remove_dir(directory);
    }
    left
}

fn remove_files(directory: &Path, ours: impl Fn(&str) -> bool) {
    for item in fs::read_dir(directory).into_iter().flatten().flatten() {
        if item.file_name().to_str().is_some_and(&ours) {
            let _ = fs::remove_file(item.path());
        }
    }
}
