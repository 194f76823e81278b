//! What is kept of each crash, and that each one ends in a record.

use std::ffi::OsString;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::time::Instant;

use cdh_agent::ledger::{DropReason, Ledger, Outcome};
use cdh_agent::policy::Action;
use cdh_bundle::{Cause, DumpId, Manifest, Verdict};
use cdh_testkit::Program;
use serde_json::json;

use super::node::{Node, names_in, programs};
use super::{manifest_of, words};

/// Lets the program die without a process between the kernel and the handler.
pub(crate) fn crash(node: &Node, text: &str) -> std::process::ExitStatus {
    let mut command = Command::new(programs().join("crash"));
    command.args(words(text)).current_dir(&node.root);
    command.stdout(Stdio::null()).status().unwrap()
}

fn manifests(node: &Node) -> Vec<Manifest> {
    let names = names_in(&node.paths.spool);
    let entries = names.iter().filter(|name| name.parse::<DumpId>().is_ok());
    entries
        .map(|name| manifest_of(&node.paths.spool.join(name)))
        .collect()
}

fn has(manifest: &Manifest, end: &str) -> bool {
    manifest
        .entries
        .iter()
        .any(|entry| entry.name.ends_with(end))
}

#[test]
fn policy_decides_before_the_core_is_read() {
    let policy = json!({"rules": [
        {"signal": "SIGABRT", "action": "metadata", "name": "aborts"},
        {"signal": "SIGFPE", "action": "ignore"},
        {"exe": "**/crash", "uid": [0], "action": "minicore"},
    ], "environment": ["CDH_TEST_*"]});
    let Some(node) = Node::with_settings(&json!({ "policy": policy })) else {
        return;
    };
    for text in ["threads 2 random 64", "abort", "kill 8"] {
        assert!(crash(&node, text).signal().is_some());
    }
    let mut records = node.wait_for_records(3);
    // In the order in which they ended.
    records.sort_by_key(|record| record.action);
    let found: Vec<_> = records
        .iter()
        .map(|record| (record.outcome, record.action))
        .collect();
    let expected = [
        (Outcome::Reduced, Action::Minicore),
        (Outcome::Reduced, Action::Metadata),
        (Outcome::Dropped, Action::Ignore),
    ];
    assert_eq!(found, expected, "{records:?}");
    assert!(
        records
            .iter()
            .all(|record| record.reason == Some(DropReason::Policy))
    );
    node.wait_for_handlers();
    let manifests = manifests(&node);
    assert_eq!(manifests.len(), 2);
    let of = |signal: &str| {
        manifests
            .iter()
            .find(|one| one.signal.name == signal)
            .unwrap()
    };
    let small = of("SIGSEGV");
    assert!(has(small, "minicore.elf") && has(small, "backtrace.json") && !has(small, ".core.zst"));
    let Verdict::Empty {
        cause: Cause::Policy,
        evidence,
    } = &small.verdict
    else {
        panic!("{:?}", small.verdict)
    };
    assert_eq!(
        evidence.as_deref(),
        Some("rule 2 of the policy says `minicore`")
    );
    assert!(small.fingerprint.is_some());
    let facts = of("SIGABRT");
    assert!(!has(facts, "minicore.elf") && has(facts, "backtrace.json") && has(facts, "proc.json"));
    assert!(
        facts
            .gaps
            .iter()
            .any(|gap| gap.what == "core" && gap.why.contains("`aborts`"))
    );
    // The process of 64 MiB did not wait for anything to be copied.
    assert!(records[0].blocked_seconds < 2.0, "{records:?}");
    let entry = node.paths.spool.join(small.id.to_string());
    let facts = fs::read(entry.join("proc.json")).unwrap();
    let facts: serde_json::Value = serde_json::from_slice(&facts).unwrap();
    let threads = facts["threads"].as_array().unwrap();
    assert_eq!(threads.len(), 3);
    assert!(
        threads.iter().all(|thread| thread["name"] == "crash"),
        "{threads:?}"
    );
    // They can be shipped and verified as they are.
    assert_eq!(node.sweep().shipped.len(), 2);
    assert_eq!(node.dumps().len(), 2);
}

#[test]
fn fault_beneath_a_handler_has_the_fingerprint_and_signal_of_the_fault_alone() {
    let Some(node) = Node::with_settings(&json!({})) else {
        return;
    };
    let program = Program::Handlers.build(node.root.path()).unwrap();
    for style in [
        "none",
        "abort",
        "reraise-plain",
        "crash-alternate",
        "raise-return",
    ] {
        let status = Command::new(&program)
            .args([style, "null"])
            .current_dir(&node.root)
            .stderr(std::process::Stdio::null())
            .status()
            .unwrap();
        assert!(status.signal().is_some(), "{style}: {status}");
    }
    let found = node.wait_for_records(5);
    for record in &found {
        assert_eq!(record.fingerprint, found[0].fingerprint);
        assert_eq!(record.signal, "SIGSEGV");
    }
    node.sweep();
    let mut addresses: Vec<_> = node
        .dumps()
        .iter()
        .map(|(manifest, _)| {
            assert_eq!(manifest.fingerprint, found[0].fingerprint);
            manifest.crash_signal().address
        })
        .collect();
    addresses.dedup();
    assert_eq!(addresses, [Some(8)]);
    let of_handlers = node
        .dumps()
        .iter()
        .filter(|(manifest, _)| manifest.original_signal.is_some())
        .count();
    assert_eq!(of_handlers, 4);
}

#[test]
fn two_builds_of_one_bug_have_one_fingerprint() {
    let Some(node) = Node::with_settings(&json!({})) else {
        return;
    };
    let other = node.path("crash");
    let source = node.path("crash.c");
    fs::write(&source, Program::Crash.source()).unwrap();
    let flags = ["-O0", "-pthread", "-DANOTHER", "-o"];
    let built = Command::new("cc")
        .args(flags)
        .args([&other, &source])
        .status()
        .unwrap();
    assert!(built.success());
    assert!(crash(&node, "bug 2").signal().is_some());
    let status = Command::new(&other)
        .args(["bug", "2"])
        .current_dir(&node.root)
        .status()
        .unwrap();
    assert!(status.signal().is_some());
    assert!(crash(&node, "bug 3").signal().is_some());
    let found = node.wait_for_records(3);
    let prints: Vec<_> = found
        .iter()
        .map(|record| record.fingerprint.clone().unwrap())
        .collect();
    assert_eq!(prints[0], prints[1]);
    assert_ne!(prints[0], prints[2]);
}

#[test]
fn storm_stores_the_first_core_of_each_bug_and_counts_the_others() {
    const BUGS: usize = 5;
    const EACH: usize = 8;
    let limits = json!({"rate": {"window": "10m", "fingerprint_full": 1, "fingerprint_dumps": 3,
        "workload_full": 0, "workload_dumps": 0}});
    let Some(node) = Node::with_settings(&json!({ "limits": limits })) else {
        return;
    };
    let children: Vec<_> = (0..BUGS * EACH)
        .map(|number| {
            Command::new(programs().join("crash"))
                .args(["heap", "8", "bug", &(number % BUGS).to_string()])
                .current_dir(&node.root)
                .spawn()
                .unwrap()
        })
        .collect();
    for mut child in children {
        assert!(child.wait().unwrap().signal().is_some());
    }
    let records = node.wait_for_records(BUGS * EACH);
    node.wait_for_handlers();
    let count = |outcome| {
        records
            .iter()
            .filter(|record| record.outcome == outcome)
            .count()
    };
    assert_eq!(count(Outcome::Kept), BUGS, "{records:?}");
    assert_eq!(count(Outcome::Reduced), 2 * BUGS);
    assert_eq!(count(Outcome::Dropped), BUGS * EACH - 3 * BUGS);
    let rate = Some(DropReason::RateFingerprint);
    let others = records
        .iter()
        .filter(|record| record.outcome != Outcome::Kept);
    assert!(
        others.clone().all(|record| record.reason == rate),
        "{records:?}"
    );
    let manifests = manifests(&node);
    let whole = manifests
        .iter()
        .filter(|one| one.verdict == Verdict::Complete);
    let mut prints: Vec<_> = whole.filter_map(|one| one.fingerprint.clone()).collect();
    prints.sort();
    prints.dedup();
    assert_eq!((prints.len(), manifests.len()), (BUGS, 3 * BUGS));
    // What was dropped reaches the store, too.
    node.sweep();
    let mut dropped = 0;
    for day in fs::read_dir(node.path("store/drops")).unwrap() {
        for object in fs::read_dir(day.unwrap().path()).unwrap() {
            for line in fs::read_to_string(object.unwrap().path()).unwrap().lines() {
                let line: cdh_agent::DropLine = serde_json::from_str(line).unwrap();
                assert_eq!(line.reason, rate);
                dropped += line.count;
            }
        }
    }
    assert_eq!(dropped as usize, count(Outcome::Dropped));
}

#[test]
fn quota_is_respected_and_the_oldest_cores_are_deleted() {
    const MIB: u64 = 1 << 20;
    let limits = json!({"spool_quota": "40M", "rate": {"fingerprint_full": 0,
        "fingerprint_dumps": 0, "workload_full": 0, "workload_dumps": 0}});
    let Some(node) = Node::with_settings(&json!({ "limits": limits })) else {
        return;
    };
    for count in 1..=5 {
        assert!(crash(&node, "random 12").signal().is_some());
        node.wait_for_records(count);
        node.wait_for_handlers();
        let used = cdh_agent::spool::used(&node.paths.spool).unwrap();
        assert!(used <= 40 * MIB, "{used}");
    }
    let manifests = manifests(&node);
    let whole = manifests
        .iter()
        .filter(|one| one.verdict == Verdict::Complete);
    assert!(whole.clone().count() >= 2, "{manifests:?}");
    let newest = manifests.iter().max_by_key(|one| one.finished_at).unwrap();
    assert_eq!(newest.verdict, Verdict::Complete);
    let degraded = |one: &&Manifest| {
        matches!(
            one.verdict,
            Verdict::Empty {
                cause: Cause::Quota,
                ..
            }
        )
    };
    assert_eq!(manifests.iter().filter(degraded).count(), 5 - whole.count());
    assert!(node.ledger().totals().of(Outcome::Degraded) >= 2);
    assert_eq!(node.sweep().shipped.len(), 5);
    assert_eq!(node.dumps().len(), 5);
}

#[test]
fn reused_pid_reveals_nothing_of_the_other_process() {
    let Some(node) = Node::with_settings(&json!({})) else {
        return;
    };
    let mut gone = Command::new("/bin/true").spawn().unwrap();
    let pid = gone.id();
    gone.wait().unwrap();
    // The next process gets the number of the one that is gone.
    let mut other = None;
    for _ in 0..50 {
        if fs::write("/proc/sys/kernel/ns_last_pid", (pid - 1).to_string()).is_err() {
            cdh_testkit::skip("no pid can be chosen here");
            return;
        }
        let mut child = Command::new("/bin/sleep")
            .arg("60")
            .env("CDH_TEST_SECRET", "of-another")
            .spawn()
            .unwrap();
        if child.id() == pid {
            other = Some(child);
            break;
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let Some(mut other) = other else {
        cdh_testkit::skip("another process got the number");
        return;
    };
    let words = [
        format!("P{pid}"),
        format!("I{pid}"),
        "s11".to_owned(),
        "d1".to_owned(),
    ];
    let mut handler = Command::new(node.path("cdh-handler"))
        .args(words.map(OsString::from))
        .arg("evictim")
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    drop(handler.stdin.take());
    handler.wait().unwrap();
    let manifest = manifest_of(&node.entry_of_anybody());
    other.kill().unwrap();
    other.wait().unwrap();
    let text = serde_json::to_string(&manifest).unwrap();
    assert!(!text.contains("sleep"), "{text}");
    assert_eq!(manifest.process.exe, None);
    assert_eq!(manifest.process.name.to_string(), "victim");
    assert!(
        manifest.gaps.iter().any(|gap| gap.what == "/proc/<pid>"),
        "{:?}",
        manifest.gaps
    );
    for file in fs::read_dir(node.entry_of_anybody()).unwrap() {
        let bytes = fs::read(file.unwrap().path()).unwrap();
        let leak = bytes.windows(10).any(|window| window == b"of-another");
        assert!(!leak);
    }
}

#[test]
fn process_that_execs_while_dying_is_identified_correctly() {
    let Some(node) = Node::with_settings(&json!({})) else {
        return;
    };
    let mut died = 0;
    for number in 0..24 {
        let pause = (number * 40).to_string();
        let status = crash(&node, &format!("name {} race {pause}", "renamed"));
        died += usize::from(status.signal().is_some());
    }
    if died == 0 {
        cdh_testkit::skip("no process died in the race");
        return;
    }
    let records = node.wait_for_records(died);
    node.wait_for_handlers();
    for manifest in manifests(&node) {
        // All of one program or all of nobody's, never the name of one and the file of the other.
        let exe = manifest.process.exe.as_ref().map(ToString::to_string);
        let is_ours = exe.as_ref().is_none_or(|exe| exe.ends_with("/crash"));
        assert!(is_ours, "{manifest:?}");
        assert_eq!(manifest.process.name.to_string(), "renamed");
        assert_eq!(manifest.verdict, Verdict::Complete);
    }
    assert!(
        records.iter().all(|record| record.outcome == Outcome::Kept),
        "{records:?}"
    );
}

#[test]
fn planted_files_in_the_spool_are_not_followed() {
    use std::os::unix::fs::{DirBuilderExt, symlink};
    let Some(node) = Node::with_settings(&json!({ "limits": {"spool_quota": "1G"} })) else {
        return;
    };
    let spool = &node.paths.spool;
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(spool)
        .unwrap();
    let victim = node.path("victim");
    fs::create_dir(&victim).unwrap();
    fs::write(victim.join("precious"), "precious").unwrap();
    for name in [".slots", ".held", ".room", ".pods"] {
        symlink(&victim, spool.join(name)).unwrap();
    }
    let id = || DumpId::random().to_string();
    symlink(&victim, spool.join(id())).unwrap();
    symlink(&victim, spool.join(format!("{}.partial", id()))).unwrap();
    fs::hard_link(victim.join("precious"), spool.join(id())).unwrap();
    let fifo = spool.join(format!("{}.partial", id()));
    assert!(
        Command::new("mkfifo")
            .arg(&fifo)
            .status()
            .unwrap()
            .success()
    );
    fs::create_dir_all(node.paths.state.join("ledger")).unwrap();
    for name in ["records.jsonl", "begun.jsonl"] {
        let planted = node.paths.state.join("ledger").join(name);
        symlink(victim.join("precious"), planted).unwrap();
    }
    fs::create_dir_all(node.paths.state.join("rates")).unwrap();
    symlink(
        victim.join("precious"),
        node.paths.state.join("rates/counts.json"),
    )
    .unwrap();

    assert!(crash(&node, "heap 4").signal().is_some());
    let fallback = Ledger::of(&node.paths.fallback);
    let deadline = Instant::now() + std::time::Duration::from_secs(30);
    while fallback.totals().crashes() == 0 {
        assert!(Instant::now() < deadline, "no record");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    assert_eq!(node.sweep().shipped.len(), 1);
    assert_eq!(names_in(&victim), ["precious"]);
    assert_eq!(
        fs::read_to_string(victim.join("precious")).unwrap(),
        "precious"
    );
}
