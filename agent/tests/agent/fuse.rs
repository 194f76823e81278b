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

/// What [`cdh_testkit::Program::Fuse`] can be.
const KINDS: [&str; 6] = ["low", "high", "head", "library", "lock", "race"];
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

/// Ordinary crashes are captured beside each attacker, whose own crash ends in a record.
fn survive(node: &Node) {
    for owner in ["user", "root"] {
        for kind in KINDS {
            let what = format!("{owner} {kind}");
            let Some(attacker) = Attacker::start(owner, kind) else {
                continue;
            };
            // As many as there are places to copy, at least.
            let more: Vec<_> = (0..4)
                .filter_map(|_| Attacker::start(owner, kind))
                .collect();
            for _ in 0..3 {
                ordinary_crash(node, &what);
            }
            let manifest = wait_for_dump_of(node, attacker.pid, &what);
            eprintln!("{what}: {}", manifest.verdict.describe());
            for gap in &manifest.gaps {
                eprintln!("    {}: {}", gap.what, gap.why);
            }
            match kind {
                "low" => assert_eq!(manifest.verdict, Verdict::Complete, "{what}"),
                "high" => {
                    assert_eq!(manifest.verdict, Verdict::Complete, "{what}");
                    let is_told =
                        |gap: &cdh_bundle::Gap| gap.why.contains("pages of files on fuse");
                    assert!(
                        manifest.gaps.iter().any(is_told),
                        "{what}: {:?}",
                        manifest.gaps
                    );
                }
                _ => {}
            }
            // The line is written when the dump is sealed.
            let deadline = Instant::now() + PATIENCE;
            let count = || {
                let records = node.ledger().since(0);
                let of_attacker = |record: &&LedgerRecord| record.pid == u64::from(attacker.pid);
                records.iter().filter(of_attacker).count()
            };
            while count() == 0 {
                assert!(Instant::now() < deadline, "no record of {what}");
                std::thread::sleep(Duration::from_millis(5));
            }
            assert_eq!(count(), 1, "{what}");
            // A process that holds its memory's lock, or exchanges its pages, can still put a handler's child to
            // sleep, for as long as the handler waits for it.
            if !["lock", "race"].contains(&kind) {
                let before = asleep();
                std::thread::sleep(Duration::from_millis(1100));
                let after = asleep();
                let stuck: Vec<_> = before.iter().filter(|one| after.contains(one)).collect();
                assert!(stuck.is_empty(), "{what}: {stuck:?}");
            }
            drop(more);
            drop(attacker);
            clear(&node.paths.spool);
        }
    }
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
