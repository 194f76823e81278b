//! Spools that take nothing: full, read-only, gone. Each crash ends in a record and a number that one can
//! be woken by, and nothing in spool or store looks like a dump and is none.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use cdh_agent::ledger::{DropReason, LedgerRecord, Outcome};
use cdh_agent::observe::Watcher;
use serde_json::json;

use super::manifest_of;
use super::node::{Node, SmallDisk, names_in};
use super::policy::crash;

/// All files below a directory.
fn files_below(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).into_iter().flatten() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => files.extend(files_below(&path)),
            false => files.push(path),
        }
    }
    files
}

/// Whatever is in the spool is a dump and not an empty one; whatever is in the store can be opened, and is
/// what its manifest says. How many there are of each.
fn assert_no_broken_dump(node: &Node) -> (usize, usize) {
    let spool = &node.paths.spool;
    let mut entries = names_in(spool);
    entries.retain(|name| name != "filler");
    for name in &entries {
        let entry = spool.join(name);
        assert!(!manifest_of(&entry).process.name.is_empty());
        for file in files_below(&entry) {
            let name = file.file_name().unwrap().to_string_lossy().into_owned();
            // The name of a mark is all that it says.
            let is_mark = name.starts_with(".share-") || name.starts_with(".setuid-");
            assert!(
                file.metadata().unwrap().len() > 0 || is_mark,
                "{}",
                file.display()
            );
        }
    }
    // Each of them by its checksums, and by `unzip -t`.
    let dumps = node.dumps();
    let objects = files_below(&node.path("store"));
    for object in &objects {
        assert!(object.metadata().unwrap().len() > 0, "{}", object.display());
    }
    let of = |end: &str| {
        let found = objects
            .iter()
            .filter(|path| path.to_string_lossy().ends_with(end));
        found.count()
    };
    assert_eq!(
        (of(".zip"), of(".manifest.json")),
        (dumps.len(), dumps.len()),
        "{objects:?}"
    );
    (entries.len(), dumps.len())
}

/// The shipper looks at a spool like this one, too, and may say that it cannot.
fn sweep_somehow(node: &Node) {
    let swept = cdh_agent::sweep(
        &node.paths,
        &node.store(),
        cdh_agent::SetuidDumps::Ship,
        &mut |event| eprintln!("{event:?}"),
    );
    eprintln!("{swept:?}");
}

/// The number with this name and these labels.
fn metric(node: &Node, name: &str) -> u64 {
    let text = Watcher::new(node.paths.clone(), None).metrics();
    let mut lines = text.lines();
    let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value
        .unwrap_or_else(|| panic!("no {name} in {text}"))
        .parse()
        .unwrap()
}

const DROPPED: &str = r#"cdh_crashes_total{outcome="dropped",reason="spool"}"#;

/// The newest of so many records: a crash that left no dump.
fn last_of(node: &Node, count: usize) -> LedgerRecord {
    let records = node.wait_for_records(count);
    let last = records.last().unwrap().clone();
    assert_eq!(
        (last.outcome, last.reason),
        (Outcome::Dropped, Some(DropReason::Spool)),
        "{last:?}"
    );
    last
}

#[test]
fn unusable_spool_loses_the_dump_but_not_the_ledger_record() {
    let Some(node) = Node::with_settings(&json!({})) else {
        return;
    };
    let spool = node.paths.spool.clone();
    let Some(disk) = SmallDisk::mount(spool.clone(), "size=2m,mode=0700") else {
        return;
    };
    // Full, to the last byte and name.
    let filler = fs::File::create(spool.join("filler")).unwrap();
    let _ = std::io::copy(&mut std::io::repeat(7), &mut &filler);
    drop(filler);
    crash(&node, "random 8");
    let records = node.wait_for_records(1);
    assert_eq!(records[0].reason, Some(DropReason::NoSpace), "{records:?}");
    let detail = records[0].detail.as_ref();
    assert!(detail.is_some_and(|why| why.contains("No space left")));
    assert_no_broken_dump(&node);
    fs::remove_file(spool.join("filler")).unwrap();
    node.sweep();
    let (waiting, stored) = assert_no_broken_dump(&node);
    assert_eq!(waiting, 0);

    let remount = |how: &str| {
        let options = format!("remount,{how}");
        let mut mount = Command::new("mount");
        mount.args(["-o", &options]).arg(&spool).status().unwrap()
    };
    assert!(remount("ro").success());
    crash(&node, "");
    let last = last_of(&node, 2);
    assert!(
        last.detail.as_ref().unwrap().contains("Read-only"),
        "{last:?}"
    );
    sweep_somehow(&node);
    assert_eq!(assert_no_broken_dump(&node), (0, stored));
    assert_eq!(metric(&node, DROPPED), 1);
    // What had been sealed before stays a dump, and is not sent in part.
    assert!(remount("rw").success());
    crash(&node, "");
    node.wait_for_records(3);
    node.wait_for_handlers();
    assert!(remount("ro").success());
    crash(&node, "");
    last_of(&node, 4);
    sweep_somehow(&node);
    assert_eq!(assert_no_broken_dump(&node).0, 1);
    assert!(remount("rw").success());
    node.sweep();
    assert_eq!(assert_no_broken_dump(&node), (0, stored + 1));

    drop(disk);
    let _ = fs::remove_dir(&spool);
    fs::write(&spool, "no directory").unwrap();
    crash(&node, "");
    last_of(&node, 5);
    sweep_somehow(&node);
    assert_eq!(fs::read_to_string(&spool).unwrap(), "no directory");
    assert_eq!(assert_no_broken_dump(&node), (0, stored + 1));
    assert_eq!(
        (metric(&node, DROPPED), metric(&node, "cdh_spool_up")),
        (3, 0)
    );
    assert_eq!(
        node.ledger().totals().crashes() as usize,
        node.ledger().since(0).len()
    );

    // The state is gone with it: the record is in memory until it is back.
    node.set(&json!({ "state": "/proc/no-such-place" }));
    crash(&node, "");
    let fallback = node.wait_for_fallback();
    fs::remove_file(&spool).unwrap();
    node.sweep();
    assert_eq!(fallback.totals().crashes(), 0);
    last_of(&node, 6);
    assert_eq!(metric(&node, DROPPED), 4);
    assert_eq!(assert_no_broken_dump(&node), (0, stored + 1));
}

#[test]
fn missing_state_directory_is_created_again() {
    let Some(node) = Node::with_settings(&json!({})) else {
        return;
    };
    // A disk for both that is pulled out, and another one that is read-only in its place.
    let Some(disk) = SmallDisk::mount(node.paths.state.clone(), "size=32m,mode=0700") else {
        return;
    };
    crash(&node, "");
    node.wait_for_records(1);
    node.wait_for_handlers();
    drop(disk);
    crash(&node, "");
    node.wait_for_records(1);
    node.wait_for_handlers();
    assert_eq!(assert_no_broken_dump(&node).0, 1, "on the directory below");
    let Some(_disk) = SmallDisk::mount(node.paths.state.clone(), "size=1m,mode=0700,ro") else {
        return;
    };
    crash(&node, "");
    let fallback = node.wait_for_fallback();
    let records = fallback.since(0);
    assert_eq!(records[0].reason, Some(DropReason::Spool), "{records:?}");
    sweep_somehow(&node);
    assert_eq!(assert_no_broken_dump(&node).0, 0);
}
