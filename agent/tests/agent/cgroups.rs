//! Processes that lose their cgroup, their memory or their time while they are dumped.

use cdh_agent::diagnose::doctor::{Examined, examine};
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use cdh_bundle::{Cause, Verdict};
use serde_json::json;

use super::direct::wait_for_dump;
use super::node::{Node, names_in, programs};

/// A cgroup of our own, removed when it is dropped.
struct Cgroup(PathBuf);

impl Cgroup {
    /// Below the first of these directories that exists.
    fn new(parents: &[&str]) -> Option<Self> {
        let parent = parents.iter().map(Path::new).find(|path| path.is_dir())?;
        let directory = parent.join(format!("cdh-test-{}", std::process::id()));
        fs::create_dir_all(&directory).ok()?;
        Some(Self(directory))
    }

    fn write(&self, name: &str, value: &str) {
        fs::write(self.0.join(name), value).unwrap();
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.0.join(name)).unwrap()
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // The kernel lets go of the last process a moment after its end.
        for _ in 0..200 {
            if fs::remove_dir(&self.0).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// A cgroup whose memory can be limited, and its files of version 1 or 2.
struct MemoryCgroup {
    cgroup: Cgroup,
    limit: &'static str,
    usage: &'static str,
    events: &'static str,
}

impl MemoryCgroup {
    /// `None`, and said so, where nothing limits memory.
    fn new() -> Option<Self> {
        let Some(cgroup) = Cgroup::new(&["/sys/fs/cgroup/memory", "/sys/fs/cgroup"]) else {
            skipped("a memory cgroup");
            return None;
        };
        let files = [
            (
                "memory.limit_in_bytes",
                "memory.usage_in_bytes",
                "memory.oom_control",
            ),
            ("memory.max", "memory.current", "memory.events"),
        ];
        let found = files.iter().find(|one| cgroup.0.join(one.0).exists());
        let Some(&(limit, usage, events)) = found else {
            skipped("the memory controller");
            return None;
        };
        Some(Self {
            cgroup,
            limit,
            usage,
            events,
        })
    }

    fn limit_to(&self, bytes: u64) {
        self.cgroup.write(self.limit, &bytes.to_string());
    }

    /// Leaves so many bytes beside those that are used.
    fn limit_headroom(&self, bytes: u64) {
        let used: u64 = self.cgroup.read(self.usage).trim().parse().unwrap();
        self.limit_to(used + bytes);
    }

    fn counts_oom_kills(&self, count: usize) -> bool {
        let counted = format!("oom_kill {count}");
        self.cgroup.read(self.events).contains(&counted)
    }

    /// Has a second process ask for more than the 8 MiB that are left, for which `child` is killed.
    fn run_out_of_memory(&self, child: &mut Child) {
        let mut hungry = spawn(&self.cgroup, "64");
        assert_eq!(child.wait().unwrap().signal(), Some(9));
        hungry.kill().unwrap();
        hungry.wait().unwrap();
    }
}

/// A process with so much memory, in the cgroup from its first page on, that waits to crash.
fn ready(cgroup: &Cgroup, mebibytes: &str) -> Child {
    let mut child = spawn(cgroup, mebibytes);
    let mut line = String::new();
    let output = child.stdout.take().unwrap();
    BufReader::new(output).read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    child
}

fn spawn(cgroup: &Cgroup, mebibytes: &str) -> Child {
    let procs = cgroup.0.join("cgroup.procs");
    let crash = programs().join("crash");
    let script = r#"echo $$ > "$1"; exec "$2" random "$3" wait"#;
    Command::new("sh")
        .args(["-c", script, "sh"])
        .args([&procs, &crash])
        .arg(mebibytes)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

fn skipped(what: &str) {
    eprintln!("skipped: {what} is not here");
}

const UNIFIED: [&str; 2] = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"];

#[test]
fn killed_or_frozen_cgroup_does_not_truncate_a_pinned_core() {
    let Some(node) = Node::with_settings(&json!({ "strategy": "zstd" })) else {
        return;
    };
    let cases = [
        (&UNIFIED[..], "cgroup.kill", "1", ""),
        (&UNIFIED[..], "cgroup.freeze", "1", "0"),
        (
            &["/sys/fs/cgroup/freezer"][..],
            "freezer.state",
            "FROZEN",
            "THAWED",
        ),
    ];
    for (parents, file, value, back) in cases {
        for held in [true, false] {
            let Some(cgroup) = Cgroup::new(parents).filter(|one| one.0.join(file).exists()) else {
                skipped(file);
                continue;
            };
            node.set(&json!({ "strategy": "zstd", "pin": held }));
            let mut child = ready(&cgroup, "256");
            drop(child.stdin.take());
            wait_for_dump(child.id());
            node.wait_for_copy();
            cgroup.write(file, value);
            node.wait_for_handlers();
            if !back.is_empty() {
                cgroup.write(file, back);
            }
            assert!(child.wait().unwrap().signal().is_some());
            let (manifest, log) = node.take_entry();
            let cause = match &manifest.verdict {
                Verdict::Truncated { cause, .. } => Some(*cause),
                _ => None,
            };
            let expected = match (held, back.is_empty()) {
                (true, _) => None,
                (false, true) => Some(Cause::Killed),
                (false, false) => Some(Cause::Frozen),
            };
            assert_eq!(cause, expected, "{file}, held {held}: {log}");
        }
    }
}

#[test]
fn dump_of_a_container_at_its_memory_limit_causes_no_oom_kill() {
    let Some(node) = Node::with_settings(&json!({})) else {
        return;
    };
    let Some(memory) = MemoryCgroup::new() else {
        return;
    };
    let mut oom_kills = 0;
    for release in ["hold", "early", "auto"] {
        for headroom in [0, 64 << 10, 1 << 20] {
            node.set(&json!({ "release": release }));
            memory.limit_to(1 << 40);
            let mut child = ready(&memory.cgroup, "100");
            memory.limit_headroom(headroom);
            drop(child.stdin.take());
            let signal = child.wait().unwrap().signal();
            let (manifest, log) = node.take_entry();
            // Pages of the kernel's pipe are charged to the container. Where there is no room for one,
            // the kernel kills the process while it begins to write, with any reader: of 900 crashes into
            // `cat > /dev/null`, 18.
            if headroom == 0 && signal == Some(9) {
                oom_kills += 1;
                let killed = matches!(
                    manifest.verdict,
                    Verdict::Complete
                        | Verdict::Truncated {
                            cause: Cause::OomKilled | Cause::Killed,
                            ..
                        }
                );
                assert!(killed, "{:?}: {log}", manifest.verdict);
            } else {
                assert_eq!(signal, Some(11), "{release}, {headroom}: {log}");
                assert_eq!(manifest.verdict, Verdict::Complete, "{log}");
            }
            assert!(memory.counts_oom_kills(oom_kills), "{log}");
            // A second process of this size has no room beside the memory of the first.
            assert!(!log.contains("released, its memory is held"), "{log}");
        }
    }
}

/// Two seconds after the OOM killer chose a process the kernel frees its memory, even if a handler holds it: a
/// copy that takes longer was cut.
#[test]
fn oom_kill_does_not_truncate_a_copy_slower_than_the_reaper() {
    let settings = json!({ "strategy": "zstd", "level": 22, "workers": 1 });
    let Some(node) = Node::with_settings(&settings) else {
        return;
    };
    let Some(memory) = MemoryCgroup::new() else {
        return;
    };
    let mut child = ready(&memory.cgroup, "100");
    memory.limit_headroom(8 << 20);
    drop(child.stdin.take());
    wait_for_dump(child.id());
    node.wait_for_copy();
    memory.run_out_of_memory(&mut child);
    let killed = std::time::Instant::now();
    let (manifest, log) = node.take_entry();
    assert!(log.contains("were read at once"), "{log}");
    assert_eq!(manifest.verdict, Verdict::Complete, "{log}");
    assert!(manifest.gaps.is_empty(), "{:?}: {log}", manifest.gaps);
    assert!(manifest.killed.is_some(), "{log}");
    eprintln!(
        "copied {:.1} s after the kill",
        killed.elapsed().as_secs_f64()
    );
}

/// A handler that waited for others to have copied began when the memory was gone.
#[test]
fn waiting_handler_copies_immediately_after_an_oom_kill() {
    let settings = json!({ "slots": 1, "slot_seconds": 10, "release": "hold" });
    let Some(node) = Node::with_settings(&settings) else {
        return;
    };
    let Some(memory) = MemoryCgroup::new() else {
        return;
    };
    // The first handler makes the slot.
    let crash = programs().join("crash");
    assert!(Command::new(crash).status().unwrap().signal().is_some());
    node.take_entry();
    let slot = fs::File::open(node.paths.spool.join(".slots/0")).unwrap();
    slot.lock().unwrap();
    let mut child = ready(&memory.cgroup, "100");
    memory.limit_headroom(8 << 20);
    drop(child.stdin.take());
    // The last that is written before the handler waits.
    node.wait_for_file("proc.json");
    // Long enough for the log to record it.
    std::thread::sleep(Duration::from_millis(200));
    memory.run_out_of_memory(&mut child);
    let (manifest, log) = node.take_entry();
    assert!(log.contains("for other handlers"), "{log}");
    assert_eq!(manifest.verdict, Verdict::Complete, "{log}");
    assert!(manifest.killed.is_some(), "{log}");
}

#[test]
fn restarted_container_is_not_oom_killed_during_the_copy() {
    // Slow enough for the next process to be there before the copy is done.
    let settings = json!({ "release": "auto", "strategy": "zstd", "level": 9, "workers": 1 });
    let Some(node) = Node::with_settings(&settings) else {
        return;
    };
    let Some(memory) = MemoryCgroup::new() else {
        return;
    };
    // With room for one process of 100 MiB and for two.
    for (mebibytes, early) in [(150_u64, false), (300, true)] {
        memory.limit_to(mebibytes << 20);
        let mut child = ready(&memory.cgroup, "100");
        drop(child.stdin.take());
        child.wait().unwrap();
        let mut next = ready(&memory.cgroup, "100");
        let copying = names_in(&node.paths.spool)
            .iter()
            .any(|name| name.ends_with(".partial"));
        assert!(copying || !early, "the copy was done before");
        let (manifest, log) = node.take_entry();
        next.kill().unwrap();
        next.wait().unwrap();
        assert_eq!(manifest.verdict, Verdict::Complete, "{log}");
        let released = log.contains("released, its memory is held");
        assert_eq!(released, early, "{mebibytes} MiB: {log}");
        assert!(memory.counts_oom_kills(0), "{log}");
    }
}

/// Where no dump counts as one too many.
fn limits(cgroup: &str) -> serde_json::Value {
    let rate = json!({"fingerprint_full": 0, "fingerprint_dumps": 0, "workload_full": 0,
        "workload_dumps": 0});
    json!({ "strategy": "zstd", "limits": {"cgroup": cgroup, "rate": rate} })
}

#[test]
fn handlers_enter_the_cgroup_that_the_limits_name() {
    let Some(node) = Node::with_settings(&json!({})) else {
        return;
    };
    let Some(cgroup) = Cgroup::new(&UNIFIED).filter(|one| one.0.join("cgroup.kill").exists())
    else {
        return skipped("a cgroup of version 2");
    };
    node.set(&limits(cgroup.0.file_name().unwrap().to_str().unwrap()));
    let mut child = Command::new(programs().join("crash"))
        .args(["random", "256"])
        .spawn()
        .unwrap();
    let handler = node.path("cdh-handler");
    let deadline = std::time::Instant::now() + Duration::from_secs(30);
    let is_handler =
        |pid: &str| fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe == handler);
    while !cgroup.read("cgroup.procs").lines().any(is_handler) {
        assert!(std::time::Instant::now() < deadline, "no handler in it");
        std::thread::sleep(Duration::from_millis(1));
    }
    child.wait().unwrap();
    let (manifest, log) = node.take_entry();
    assert_eq!(manifest.verdict, Verdict::Complete, "{log}");
    assert!(!log.contains("not in the cgroup"), "{log}");
}

#[test]
fn missing_cgroup_of_handlers_is_reported_and_loses_no_dump() {
    let Some(node) = Node::with_settings(&limits("cdh-no-such.slice")) else {
        return;
    };
    let crash = programs().join("crash");
    assert!(Command::new(crash).status().unwrap().signal().is_some());
    let (manifest, log) = node.take_entry();
    assert_eq!(manifest.verdict, Verdict::Complete, "{log}");
    assert!(
        log.contains("not in the cgroup `cdh-no-such.slice`: "),
        "{log}"
    );
    // The doctor reports it before there is a crash, and so does the status of an installation.
    let mut options = cdh_agent::InstallOptions::new(node.paths.clone(), super::node::handler());
    options.handler.limits.cgroup = Some("cdh-no-such.slice".to_owned());
    cdh_agent::install(&options).unwrap();
    let findings = examine(&Examined::host(&node.paths, Path::new("/")));
    let found = findings
        .iter()
        .find(|one| one.check == "cgroup of the handlers")
        .unwrap();
    let problems = cdh_agent::status(&node.paths).unwrap().problems;
    cdh_agent::uninstall(&node.paths).unwrap();
    assert_eq!(found.state, cdh_agent::diagnose::doctor::State::Warning);
    assert!(
        found.what.contains("cdh-no-such.slice") && found.way.is_some(),
        "{found:?}"
    );
    assert!(
        problems.iter().any(|one| one.contains("cdh-no-such.slice")),
        "{problems:?}"
    );
}
