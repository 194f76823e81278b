//! Cores that are read from the memory of the process, which the handler holds.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

use cdh_bundle::{Cause, Gap, Verdict};
use cdh_testkit::{KINDS, NOT_HERE};
use serde_json::json;

use super::node::{Node, SmallDisk, names_in, programs};

/// A setting of the kernel, as it was before when it is dropped.
pub(crate) struct Setting(&'static str, String);

impl Setting {
    pub(crate) fn new(path: &'static str, value: &str) -> Self {
        let before = fs::read_to_string(path).unwrap();
        let _ = fs::write(path, value);
        Self(path, before)
    }
}

impl Drop for Setting {
    fn drop(&mut self) {
        let _ = fs::write(self.0, &self.1);
    }
}

pub(crate) fn die(kind: &str, size: &str) -> ExitStatus {
    let program = programs().join("kinds");
    Command::new(program).args([kind, size]).status().unwrap()
}

/// Whether memory that may only be executed has a protection key of its own (`pku` in `/proc/cpuinfo`).
/// The kernel then writes zeros for it into a core; we store what is there.
pub(crate) fn has_protection_keys() -> bool {
    let processors = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    processors.split_whitespace().any(|flag| flag == "ospke")
}

#[test]
fn cores_of_every_kind_of_process_are_those_of_the_pipe() {
    let settings = json!({ "self_check": true });
    let Some(node) = Node::with_settings(&settings) else {
        return;
    };
    let _huge = Setting::new("/proc/sys/vm/nr_hugepages", "8");
    let _maps = Setting::new("/proc/sys/vm/max_map_count", "200000");
    fs::write("/proc/sys/fs/suid_dumpable", "2").unwrap();
    let mut seen = 0;
    for strategy in ["zstd", "raw"] {
        node.set(&json!({ "self_check": true, "strategy": strategy }));
        for kind in KINDS {
            let size = if kind == "many-mappings" {
                "70000"
            } else {
                "6"
            };
            let status = die(kind, size);
            if status.code() == Some(NOT_HERE) {
                eprintln!("skipped: {kind}: the machine does not offer it");
                continue;
            }
            let (manifest, log) = node.take_entry();
            assert_eq!(manifest.verdict, Verdict::Complete, "{kind}: {log}");
            // A page that only a stranger can provide is the kernel's business.
            let expected = match kind {
                "userfault-shared" => "read from the pipe: the process uses userfaultfd",
                "execute-only" if has_protection_keys() => "self-check: differs at",
                _ => "self-check: equal",
            };
            assert!(log.contains(expected), "{kind}, {strategy}: {log}");
            let is_same = !expected.contains("differs");
            assert_eq!(
                manifest.gaps.is_empty(),
                is_same,
                "{kind}: {:?}",
                manifest.gaps
            );
            seen += 1;
        }
    }
    assert!(seen >= 2 * 30, "{seen}");
}

#[test]
fn core_of_a_32_bit_process_is_stored_completely() {
    let Some(node) = Node::with_settings(&json!({})) else {
        return;
    };
    let Ok(program) = cdh_testkit::Program::Small.build(node.root.path()) else {
        return cdh_testkit::skip("the compiler makes no 32-bit programs");
    };
    // At the same addresses each time.
    let crash = || Command::new("setarch").arg("-R").arg(&program).status();
    if !crash().is_ok_and(|status| status.signal() == Some(11)) {
        return cdh_testkit::skip("the kernel runs no 32-bit programs");
    }
    node.wait_for_handlers();
    let stored = fs::File::open(node.entry().join("core.zst")).unwrap();
    let mut core = Vec::new();
    std::io::copy(&mut zstd::stream::Decoder::new(stored).unwrap(), &mut core).unwrap();
    assert!(core.starts_with(b"\x7fELF\x01") && core.len() > 4 << 20);
    let (manifest, log) = node.take_entry();
    assert_eq!(manifest.verdict, Verdict::Complete, "{log}");
    assert_eq!(manifest.machine, "i386");
    assert_eq!(manifest.core.unwrap().size, core.len() as u64);
    let gap = manifest
        .gaps
        .iter()
        .find(|gap| gap.what == "head of the core");
    assert!(gap.is_some_and(|gap| gap.why.contains("32-bit")), "{log}");
    // What the kernel writes into a file of its own for another process of that program.
    let plain = node.path("plain.core");
    fs::write("/proc/sys/kernel/core_pattern", plain.to_str().unwrap()).unwrap();
    assert_eq!(crash().unwrap().signal(), Some(11));
    let plain = fs::read(plain).unwrap();
    assert_eq!(plain.len(), core.len());
    let differ: Vec<usize> = (0..core.len())
        .filter(|&at| core[at] != plain[at])
        .collect();
    // Its ids and times, and on its stack 16 random bytes of AT_RANDOM.
    let memory = differ.iter().filter(|&&at| at >= 4096).count();
    assert!(memory <= 16, "{differ:?}");
    assert!(differ.len() < 200, "{differ:?}");
}

#[test]
fn copy_ends_at_its_time_limit_and_records_it() {
    let settings = json!({ "copy_seconds": 1, "workers": 1, "strategy": "zstd", "level": 15 });
    let Some(node) = Node::with_settings(&settings) else {
        return;
    };
    let program = programs().join("crash");
    let status = Command::new(program).args(["heap", "200"]).status();
    assert!(status.unwrap().signal().is_some());
    let (manifest, log) = node.take_entry();
    let Verdict::Truncated { cause, got, .. } = manifest.verdict else {
        panic!("{:?}: {log}", manifest.verdict)
    };
    assert_eq!(cause, Cause::Deadline, "{log}");
    assert!(manifest.core.is_some_and(|core| core.size == got), "{log}");
}

#[test]
fn early_release_captures_the_complete_core() {
    let settings = json!({ "release": "early" });
    let Some(node) = Node::with_settings(&settings) else {
        return;
    };
    for kind in ["plain", "threads", "memfd", "shared-sparse", "leader-gone"] {
        die(kind, "32");
        let (manifest, log) = node.take_entry();
        assert_eq!(manifest.verdict, Verdict::Complete, "{kind}: {log}");
        assert!(
            log.contains("released, its memory is held"),
            "{kind}: {log}"
        );
        assert!(manifest.gaps.is_empty(), "{kind}: {:?}", manifest.gaps);
    }
}

pub(crate) fn wait_for_dump(pid: u32) {
    let status = format!("/proc/{pid}/status");
    let deadline = Instant::now() + Duration::from_secs(30);
    while !fs::read_to_string(&status).is_ok_and(|text| text.contains("CoreDumping:\t1")) {
        assert!(Instant::now() < deadline, "it does not crash");
        std::thread::sleep(Duration::from_micros(200));
    }
}

/// When a process is killed.
enum Moment {
    /// This long after its handler began. On a busy machine that has read nothing by then.
    Begun(Duration),
    /// This long after the handler stored the first of its memory.
    Copied(Duration),
}

/// Kills the process in the middle of its dump; how long it took to die.
fn kill_while_dumping(node: &Node, moment: &Moment) -> Duration {
    let mut child = Command::new(programs().join("crash"))
        .args(["random", "256"])
        .spawn()
        .unwrap();
    wait_for_dump(child.id());
    // On a busy machine the handler may not even have begun.
    let deadline = Instant::now() + Duration::from_secs(30);
    while names_in(&node.paths.spool).is_empty() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_micros(200));
    }
    std::thread::sleep(match *moment {
        Moment::Begun(after) => after,
        Moment::Copied(after) => {
            node.wait_for_copy();
            after
        }
    });
    let begun = Instant::now();
    child.kill().unwrap();
    let status = child.wait().unwrap();
    assert!(status.signal().is_some());
    let took = begun.elapsed();
    node.wait_for_handlers();
    took
}

#[test]
fn sigkill_during_the_dump_does_not_truncate_the_core() {
    let settings = json!({ "strategy": "zstd" });
    let Some(node) = Node::with_settings(&settings) else {
        return;
    };
    for after in [10, 20, 40, 80] {
        let took = kill_while_dumping(&node, &Moment::Begun(Duration::from_millis(after)));
        assert!(took < Duration::from_millis(500), "{took:?}");
        let (manifest, log) = node.take_entry();
        assert_eq!(manifest.verdict, Verdict::Complete, "{after} ms: {log}");
    }
}

#[test]
fn unpinned_core_is_truncated_by_a_sigkill_and_records_it() {
    let settings = json!({ "strategy": "zstd", "pin": false });
    let Some(node) = Node::with_settings(&settings) else {
        return;
    };
    a_sigkill_cuts_the_core(&node);
}

/// Of a process whose memory is not pinned. On a busy machine it is still there for a while when its memory
/// is gone: what was copied by then was once thrown away for a pipe that gives nothing.
pub(crate) fn a_sigkill_cuts_the_core(node: &Node) {
    let busy = Busy::new();
    let moments = [0, 5, 10].map(|after| Moment::Begun(Duration::from_millis(after)));
    let later = [0, 10, 30].map(|after| Moment::Copied(Duration::from_millis(after)));
    for moment in moments.iter().chain(&later) {
        kill_while_dumping(node, moment);
        let (manifest, log) = node.take_entry();
        assert!(!log.contains("from the pipe after all"), "{log}");
        let begun = matches!(moment, Moment::Begun(_));
        let (cause, got) = match manifest.verdict {
            Verdict::Truncated { cause, got, .. } => (cause, got),
            // Killed before the kernel wrote its first byte.
            Verdict::Empty { cause, .. } if begun => (cause, 0),
            verdict => panic!("{verdict:?}: {log}"),
        };
        assert_eq!(cause, Cause::Killed, "{log}");
        let stored = manifest.core.map_or(0, |core| core.size);
        assert_eq!(stored, got, "{log}");
        // Of a process killed before its stack was read no bug has a name, and that is said.
        let told = |gap: &Gap| gap.what.contains("backtrace") || gap.what.contains("head");
        let too_early = manifest.gaps.iter().any(told);
        assert_ne!(manifest.fingerprint.is_some(), too_early, "{log}");
        assert!(begun || !too_early, "{log}");
    }
    drop(busy);
}

/// More that wants to run than there are processors, until it is dropped.
struct Busy(Vec<std::process::Child>);

impl Busy {
    fn new() -> Self {
        let processors = std::thread::available_parallelism().unwrap().get();
        let spin = |_| {
            Command::new("sh")
                .args(["-c", "while :; do :; done"])
                .spawn()
        };
        Self((0..2 * processors).map(spin).map(Result::unwrap).collect())
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A separate program that kills, so that the sender is not the test.
fn kill_by_program(node: &Node, settings: &serde_json::Value) -> (cdh_bundle::Manifest, String) {
    node.set(settings);
    let mut child = Command::new(programs().join("crash"))
        .args(["random", "256"])
        .spawn()
        .unwrap();
    wait_for_dump(child.id());
    std::thread::sleep(Duration::from_millis(20));
    let mut kill = Command::new("kill");
    let mut killer = kill.args(["-9", &child.id().to_string()]).spawn().unwrap();
    let id = killer.id();
    killer.wait().unwrap();
    child.wait().unwrap();
    let (manifest, log) = node.take_entry();
    assert!(
        log.contains(&format!("SIGKILL from `kill` (pid {id})")),
        "{log}"
    );
    (manifest, log)
}

#[test]
fn dump_records_the_sender_of_a_sigkill() {
    let Some(node) = Node::with_settings(&json!({})) else {
        return;
    };
    let Ok(trace) = cdh_agent::supervise::ensure_kill_trace(node.root.path()) else {
        cdh_testkit::skip("tracefs cannot be used here");
        return;
    };
    let held = json!({ "strategy": "zstd", "kill_trace": trace });
    let (manifest, log) = kill_by_program(&node, &held);
    assert_eq!(manifest.verdict, Verdict::Complete, "{log}");
    assert!(manifest.killed.is_some_and(|who| who.contains("`kill`")));
    let not_held = json!({ "strategy": "zstd", "kill_trace": trace, "pin": false });
    let (manifest, log) = kill_by_program(&node, &not_held);
    let Verdict::Truncated {
        cause, evidence, ..
    } = manifest.verdict
    else {
        panic!("{:?}: {log}", manifest.verdict)
    };
    assert_eq!(cause, Cause::Killed);
    assert!(evidence.unwrap().contains("s into the dump"), "{log}");
    cdh_agent::supervise::remove_kill_trace(node.root.path()).unwrap();
}

#[test]
fn full_disk_for_the_plain_core_still_stores_the_compressed_one() {
    let settings = json!({ "strategy": "raw" });
    let Some(node) = Node::with_settings(&settings) else {
        return;
    };
    let Some(_disk) = SmallDisk::mount(node.paths.spool.clone(), "size=60m,mode=0700") else {
        return;
    };
    let program = programs().join("crash");
    let status = Command::new(program).args(["heap", "80"]).status().unwrap();
    assert!(status.signal().is_some());
    let (manifest, log) = node.take_entry();
    assert_eq!(manifest.verdict, Verdict::Complete, "{log}");
    assert!(log.contains("compressed at once"), "{log}");
}

#[test]
fn core_limit_truncates_the_core_and_is_recorded() {
    let limit = 20 << 20;
    let settings = json!({ "core_limit": limit });
    let Some(node) = Node::with_settings(&settings) else {
        return;
    };
    let program = programs().join("crash");
    let status = Command::new(program).args(["random", "80"]).status();
    assert!(status.unwrap().signal().is_some());
    let (manifest, log) = node.take_entry();
    let Verdict::Truncated { cause, got, .. } = manifest.verdict else {
        panic!("{:?}: {log}", manifest.verdict)
    };
    assert_eq!(cause, Cause::Limit, "{log}");
    assert!(got > limit / 2 && got < 2 * limit, "{got}: {log}");
}

#[test]
fn core_limit_drops_the_least_useful_memory_and_leaves_a_valid_core() {
    let Some(node) = Node::with_settings(&json!({})) else {
        return;
    };
    let Some(_disk) = SmallDisk::mount(node.paths.spool.clone(), "size=100m,mode=0700") else {
        return;
    };
    // 95 MiB may be written: 99, 50 and 10 per cent of these.
    for size in ["96", "190", "950"] {
        let program = programs().join("crash");
        let status = Command::new(program)
            .args(["threads", "9", "random", size])
            .status();
        assert!(status.unwrap().signal().is_some());
        node.wait_for_handlers();
        let entry = node.entry();
        let log = fs::read_to_string(entry.join("handler.log")).unwrap();
        let stored = fs::File::open(entry.join("core.zst")).unwrap();
        let core = node.path("core");
        let mut plain = fs::File::create(&core).unwrap();
        std::io::copy(&mut zstd::stream::Decoder::new(stored).unwrap(), &mut plain).unwrap();
        let file = cdh_elfcore::FileSource::new(fs::File::open(&core).unwrap()).unwrap();
        let found = cdh_elfcore::CoreFile::open(Box::new(file)).unwrap();
        let length = plain.metadata().unwrap().len();
        let completeness = found.head().completeness(length);
        assert!(!completeness.is_complete());
        // All of the stacks that the handler puts first, and of the crashing one.
        assert!(completeness.stacks[0].found >= completeness.stacks[0].expected.min(1 << 20));
        for stack in &completeness.stacks {
            assert!(
                stack.found >= stack.expected.min(128 << 10),
                "{stack:?}: {log}"
            );
        }
        let (manifest, _) = node.take_entry();
        assert!(
            matches!(
                manifest.verdict,
                Verdict::Truncated {
                    cause: Cause::NoSpace,
                    ..
                }
            ),
            "{:?}: {log}",
            manifest.verdict
        );
        let gdb = Command::new("gdb")
            .args(["-nx", "-batch", "-iex", "set auto-load off"])
            .args(["-ex", "thread apply all bt"])
            .arg(programs().join("crash"))
            .arg(&core)
            .output();
        let Ok(gdb) = gdb else { continue };
        let text = String::from_utf8_lossy(&gdb.stdout);
        assert!(
            text.contains("write_to") && text.contains("wait_for_ever"),
            "{text}"
        );
        assert_eq!(text.matches("wait_for_ever").count(), 9, "{text}");
        assert!(manifest.fingerprint.is_some(), "{log}");
    }
}
