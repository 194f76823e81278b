//! Removes our files after an uninstall, except dumps that were not shipped.

use std::fs;
use std::path::Path;

use crate::paths::AgentPaths;
use crate::shipper::ShipperRecord;
use crate::spool::count;

/// Removes empty directories and the agent's own files, and counts the remaining dumps. If a
/// shipper still runs, nothing is removed.
pub(super) fn tidy(paths: &AgentPaths) -> u64 {
    let left = dumps_in(&paths.spool);
    if let Some(directory) = paths.handler.parent() {
        let _ = fs::remove_dir(directory);
    }
    if !crate::shipper::is_running(paths) {
        let _ = fs::remove_dir_all(paths.spool.join(".pods"));
        // Running handlers hold these.
        if count(&paths.spool).is_ok_and(|found| found.partial == 0) {
            for place in [".slots", ".room"] {
                let _ = fs::remove_dir_all(paths.spool.join(place));
            }
            let _ = fs::remove_dir_all(paths.state.join("rates"));
        }
        let _ = fs::remove_file(paths.uploads().join("fingerprints.json"));
        // Records that the store does not have yet are evidence, like dumps.
        if crate::shipper::all_uploaded(&paths.state) {
            for place in ["ledger", "drops"] {
                let _ = fs::remove_dir_all(paths.state.join(place));
            }
        }
        // A remaining dump needs its journal: a part of it may be in the store.
        if left == 0 {
            remove_files(&paths.uploads(), |name| name.ends_with(".journal"));
        }
        crate::collect::forget_all(paths);
        // The uninstall has reported the remaining dumps, and a later agent finds them again.
        let _ = ShipperRecord::remove(&paths.state);
        let _ = fs::remove_file(paths.shipper_lock());
        let _ = fs::remove_file(paths.install_lock());
        // Removes those that are empty. In a pod, the last one is a mount, and remains.
        let quarantine = paths.spool.join(crate::spool::QUARANTINE);
        for directory in [&quarantine, &paths.spool, &paths.uploads(), &paths.state] {
            let _ = fs::remove_dir(directory);
        }
    }
    left
}

/// Number of dumps in the spool, complete or not.
pub(super) fn dumps_in(spool: &Path) -> u64 {
    let found = count(spool).unwrap_or_default();
    found.sealed + found.partial + found.quarantined
}

fn remove_files(directory: &Path, ours: impl Fn(&str) -> bool) {
    for item in fs::read_dir(directory).into_iter().flatten().flatten() {
        if item.file_name().to_str().is_some_and(&ours) {
            let _ = fs::remove_file(item.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dumps_that_were_not_shipped_stay_and_are_counted() {
        let root = tempfile::tempdir().unwrap();
        let paths = AgentPaths::below(root.path());
        let entry = paths.spool.join(cdh_bundle::DumpId::random().to_string());
        fs::create_dir_all(&entry).unwrap();
        fs::create_dir_all(paths.spool.join(".slots")).unwrap();
        fs::create_dir(paths.uploads()).unwrap();
        fs::write(paths.uploads().join("shipper.json"), "{}").unwrap();
        crate::shipper::UploadReceipts::of(&paths.uploads())
            .begin()
            .unwrap();
        fs::create_dir(paths.state.join("collected")).unwrap();
        assert_eq!(tidy(&paths), 1);
        assert!(entry.is_dir() && !paths.spool.join(".slots").exists());
        assert!(!paths.uploads().exists());
        fs::remove_dir(&entry).unwrap();
        assert_eq!(tidy(&paths), 0);
        assert!(!paths.state.exists());
    }

    #[test]
    fn records_of_crashes_without_a_dump_stay_until_the_store_has_them() {
        use crate::ledger::{Ledger, LedgerRecord};
        use crate::outcome::Outcome;
        use crate::shipper::{SetuidDumps, sweep};
        let root = tempfile::tempdir().unwrap();
        let paths = AgentPaths::below(root.path());
        crate::spool::prepare_spool(&paths.spool).unwrap();
        for place in ["rates", "uploads"] {
            fs::create_dir_all(paths.state.join(place)).unwrap();
        }
        fs::create_dir_all(paths.spool.join(".room")).unwrap();
        fs::write(paths.spool.join(".room/lock"), "").unwrap();
        fs::write(paths.uploads().join("fingerprints.json"), "[]").unwrap();
        let manifest = serde_json::json!({
            "schema": 1, "id": cdh_bundle::DumpId::random(), "stem": "dump",
            "captured_at": "2026-01-31T12:34:56Z", "process": {"pid": 7, "name": "app"},
            "signal": {"number": 11, "name": "SIGSEGV"}, "verdict": cdh_bundle::Verdict::Complete,
        });
        let manifest = serde_json::from_value(manifest).unwrap();
        let record = LedgerRecord::of(&manifest, Outcome::Dropped);
        Ledger::of(&paths.state).append(&record).unwrap();
        assert_eq!(tidy(&paths), 0);
        assert!(paths.state.join("ledger").exists());
        assert!(!paths.state.join("rates").exists() && !paths.spool.exists());
        crate::spool::prepare_spool(&paths.spool).unwrap();
        let store = cdh_store::DirectoryStore::create(root.path().join("store")).unwrap();
        sweep(&paths, &store, SetuidDumps::Keep, &mut |_| {}).unwrap();
        assert_eq!(tidy(&paths), 0);
        assert!(!paths.state.exists());
    }
}
