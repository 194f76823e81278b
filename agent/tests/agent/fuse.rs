//! Crashes with pages of a file whose server is silent: a process that reads one sleeps, deaf to SIGKILL, until
//! the server ends. They cost their own dump only.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use cdh_agent::ledger::LedgerRecord;
use cdh_bundle::{Manifest, Verdict};
use cdh_testkit::NOT_HERE;
use serde_json::json;

use super::node::{Node, names_in, programs};
use super::socket::{node_with_socket, set, uninstall};

/// What [`cdh_testkit::Program::Fuse`] can be. With the last two, a process that shares the memory interferes.
const BATCHES: [&[&str]; 2] = [&["low", "high", "head", "library"], &["lock", "race"]];
/// Longer than any wait of a handler, with these settings and on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A process that crashes with such pages, until it is dropped.
struct Attacker {
    server: Child,
    pid: u32,
    _directory: tempfile::TempDir,
}

impl Attacker {
    /// `None`, with the reason on stderr, where the kernel has no FUSE for it.
    fn start(owner: &str, kind: &str) -> Option<Self> {
        let directory = tempfile::Builder::new().prefix("cdh").tempdir().unwrap();
        let open = PermissionsExt::from_mode(0o755);
        fs::set_permissions(directory.path(), open).unwrap();
        let (device, mount) = (directory.path().join("fuse"), directory.path().join("mnt"));
        fs::create_dir(&mount).unwrap();
        let made = Command::new("mknod")
            .args(["-m", "666"])
            .arg(&device)
            .args(["c", "10", "229"])
            .status();
        assert!(made.unwrap().success());
        let mut server = Command::new(programs().join("fuse"))
            .args([device.as_os_str(), mount.as_os_str()])
            .args([owner, kind])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let out = server.stdout.take().unwrap();
        BufReader::new(out).read_line(&mut line).unwrap();
        let pid = line
            .trim()
            .strip_prefix("pid ")
            .and_then(|pid| pid.parse().ok());
        let Some(pid) = pid else {
            let status = server.wait().unwrap();
            assert_eq!(status.code(), Some(NOT_HERE), "{owner} {kind}: {status}");
            eprintln!("skipped: {owner} {kind}: this kernel has no FUSE for it");
            return None;
        };
        Some(Self {
            server,
            pid,
            _directory: directory,
        })
    }
}

impl Drop for Attacker {
    fn drop(&mut self) {
        drop(self.server.stdin.take());
        let _ = self.server.wait();
    }
}

/// The manifest of a process's dump, once it is sealed.
fn sealed(node: &Node, pid: u32) -> Option<Manifest> {
    names_in(&node.paths.spool)
        .iter()
        .filter(|name| !name.ends_with(".partial"))
        .filter_map(|name| fs::read(node.paths.spool.join(name).join("manifest.json")).ok())
        .filter_map(|json| Manifest::from_json(&json).ok())
        .find(|manifest| manifest.process.pid == u64::from(pid))
}

fn wait_for_dump_of(node: &Node, pid: u32, what: &str) -> Manifest {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(manifest) = sealed(node, pid) {
            return manifest;
        }
        let names = names_in(&node.paths.spool);
        assert!(Instant::now() < deadline, "no dump of {what}: {names:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Threads of our programs that sleep uninterruptibly now.
fn asleep() -> Vec<String> {
    let mut found = Vec::new();
    for process in fs::read_dir("/proc").unwrap().flatten() {
        let threads = fs::read_dir(process.path().join("task"))
            .into_iter()
            .flatten();
        for thread in threads.flatten() {
            let stat = fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
            if stat.contains("(cdh-handler) D ") {
                found.push(thread.path().display().to_string());
            }
        }
    }
    found
}

fn ordinary_crash(node: &Node, what: &str) {
    let program = programs().join("kinds");
    let mut child = Command::new(program).args(["plain", "4"]).spawn().unwrap();
    let deadline = Instant::now() + PATIENCE;
    while child.try_wait().unwrap().is_none() {
        assert!(
            Instant::now() < deadline,
            "an ordinary crash hangs beside {what}"
        );
        std::thread::sleep(Duration::from_millis(2));
    }
    let manifest = wait_for_dump_of(node, child.id(), &format!("a crash beside {what}"));
    assert_eq!(
        manifest.verdict,
        Verdict::Complete,
        "{what}: {:?}",
        manifest.gaps
    );
    assert!(manifest.gaps.is_empty(), "{what}: {:?}", manifest.gaps);
    assert!(manifest.fingerprint.is_some(), "{what}");
}

/// The record of a process in the ledger; handlers write it when they have sealed the entry.
fn record_of(node: &Node, pid: u32, what: &str) -> LedgerRecord {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let records = node.ledger().since(0).into_iter();
        let mut records: Vec<_> = records
            .filter(|record| record.pid == u64::from(pid))
            .collect();
        if let Some(record) = records.pop() {
            assert!(records.is_empty(), "{what}: {records:?}");
            return record;
        }
        assert!(Instant::now() < deadline, "no record of {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Ordinary crashes are captured beside the attackers, whose own crashes end in a record. All servers of a
/// batch are silent at once.
fn survive(node: &Node) {
    for kinds in BATCHES {
        let each = ["user", "root"].map(|owner| kinds.iter().map(move |kind| (owner, *kind)));
        let each: Vec<_> = each.into_iter().flatten().collect();
        let start = |(owner, kind): &(&'static str, &'static str)| {
            Some((
                format!("{owner} {kind}"),
                *kind,
                Attacker::start(owner, kind)?,
            ))
        };
        let attackers: Vec<_> = each.iter().filter_map(start).collect();
        // More than there are places to copy.
        let more: Vec<_> = each.iter().filter_map(start).collect();
        if attackers.is_empty() {
            continue;
        }
        for _ in 0..6 {
            ordinary_crash(node, &format!("{kinds:?}"));
        }
        for (what, kind, attacker) in &attackers {
            let manifest = wait_for_dump_of(node, attacker.pid, what);
            eprintln!("{what}: {}", manifest.verdict.describe());
            for gap in &manifest.gaps {
                eprintln!("    {}: {}", gap.what, gap.why);
            }
            if ["low", "high"].contains(kind) {
                assert_eq!(manifest.verdict, Verdict::Complete, "{what}");
            }
            let is_reported = |gap: &cdh_bundle::Gap| gap.why.contains("pages of files on fuse");
            if *kind == "high" {
                assert!(
                    manifest.gaps.iter().any(is_reported),
                    "{what}: {:?}",
                    manifest.gaps
                );
            }
            record_of(node, attacker.pid, what);
        }
        // A process that holds its memory's lock, or exchanges its pages, can still put a handler's child to
        // sleep (docs/security.md).
        if !kinds.contains(&"race") {
            let before = asleep();
            std::thread::sleep(Duration::from_millis(1100));
            let after = asleep();
            let stuck: Vec<_> = before.iter().filter(|one| after.contains(one)).collect();
            assert!(stuck.is_empty(), "{kinds:?}: {stuck:?}");
        }
        drop((attackers, more));
        clear(&node.paths.spool);
    }
}

/// Processes of our handler that were started for the crash of `pid`.
fn handlers_of(node: &Node, pid: u32) -> Vec<rustix::process::Pid> {
    let program = node.path("cdh-handler").display().to_string();
    let own = format!("P{pid}");
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let of_crash = processes.filter(|process| {
        // The attacker's own `cmdline` waits for the lock that it holds.
        let name = fs::read(process.path().join("comm")).unwrap_or_default();
        if name != b"cdh-handler\n" {
            return false;
        }
        let line = fs::read(process.path().join("cmdline")).unwrap_or_default();
        let mut words = line.split(|byte| *byte == 0);
        words.next() == Some(program.as_bytes()) && words.any(|word| word == own.as_bytes())
    });
    let number = |process: fs::DirEntry| process.file_name().to_str()?.parse().ok();
    of_crash
        .filter_map(number)
        .filter_map(rustix::process::Pid::from_raw)
        .collect()
}

fn clear(spool: &Path) {
    let deadline = Instant::now() + PATIENCE;
    while names_in(spool)
        .iter()
        .any(|name| name.ends_with(".partial"))
    {
        assert!(Instant::now() < deadline, "{:?}", names_in(spool));
        std::thread::sleep(Duration::from_millis(5));
    }
    for name in names_in(spool) {
        fs::remove_dir_all(spool.join(name)).unwrap();
    }
}

#[test]
fn silent_file_servers_delay_no_other_crash_through_the_pipe() {
    let Some(node) = Node::with_settings(&json!({ "silence_seconds": 3 })) else {
        return;
    };
    survive(&node);
}

#[test]
fn silent_file_servers_delay_no_other_crash_through_the_socket() {
    let Some(node) = node_with_socket() else {
        return;
    };
    set(&node, &json!({ "silence_seconds": 3 }));
    survive(&node);
    uninstall(&node);
}

/// Nothing that the attacker blocks comes before its identity is on disk.
#[test]
fn killed_handlers_of_silent_file_servers_leave_a_record_each() {
    let Some(node) = Node::with_settings(&json!({ "silence_seconds": 60 })) else {
        return;
    };
    for kind in ["head", "lock", "race"] {
        let Some(attacker) = Attacker::start("user", kind) else {
            return;
        };
        let has_begun = || {
            let begun = fs::read_to_string(node.paths.state.join("ledger/begun.jsonl"));
            let pid = format!("\"pid\":{},", attacker.pid);
            begun.is_ok_and(|text| text.contains(&pid))
        };
        let deadline = Instant::now() + PATIENCE;
        while !has_begun() {
            assert!(Instant::now() < deadline, "{kind}: no line in the ledger");
            std::thread::sleep(Duration::from_millis(1));
        }
        for handler in handlers_of(&node, attacker.pid) {
            let _ = rustix::process::kill_process(handler, rustix::process::Signal::KILL);
        }
        // A child of it that sleeps uninterruptibly keeps nothing from the shipper.
        let is_open = || {
            let names = names_in(&node.paths.spool);
            names.iter().any(|name| name.ends_with(".partial"))
        };
        while is_open() {
            assert!(Instant::now() < deadline, "{kind}: {:?}", node.sweep());
            node.sweep();
        }
        let record = record_of(&node, attacker.pid, kind);
        eprintln!("{kind}: {} {:?}", record.key(), record.detail);
        // Beside it may be the dump of an attacker before, whose reader crashes when its server ends.
        let mut manifests = node.dumps().into_iter().map(|(manifest, _)| manifest);
        let manifest = manifests.find(|manifest| manifest.process.pid == u64::from(attacker.pid));
        let manifest = manifest.expect("its dump is in the store");
        assert_eq!(manifest.process.uid, Some(65534));
        fs::remove_dir_all(node.path("store")).unwrap();
    }
}
