//! Cores that come through the kernel's coredump socket (Linux 6.16).

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use cdh_agent::InstallOptions;
use cdh_agent::supervise::socket::{CoreMode, kernel_has_sockets};
use cdh_bundle::{Cause, Manifest, Verdict};
use cdh_testkit::{KINDS, NOT_HERE};
use serde_json::json;

use super::direct::{Setting, a_sigkill_cuts_the_core, die, has_protection_keys, wait_for_dump};
use super::node::{Node, handler, names_in, programs};

/// A node whose kernel connects to a receiver; `None` where it cannot be tested.
pub(crate) fn node_with_socket() -> Option<Node> {
    let node = Node::new()?;
    if !kernel_has_sockets() {
        cdh_testkit::skip("this kernel has no coredump sockets");
        return None;
    }
    let mut options = InstallOptions::new(node.paths.clone(), handler());
    options.mode = CoreMode::Socket;
    let report = cdh_agent::install(&options).unwrap();
    assert!(report.now.core_pattern.to_string().starts_with('@'));
    assert!(
        names_in(&node.paths.spool).is_empty(),
        "the self-test's dump is gone"
    );
    Some(node)
}

pub(crate) fn uninstall(node: &Node) {
    cdh_agent::uninstall(&node.paths).unwrap();
    assert!(receivers(node).is_empty());
}

/// Processes that serve the socket of this node, in the order of their ids.
pub(crate) fn receivers(node: &Node) -> Vec<(i32, PathBuf)> {
    let socket = node.paths.socket();
    let socket = socket.to_str().unwrap();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
        else {
            continue;
        };
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        if String::from_utf8_lossy(&line).contains(socket) {
            found.push((pid, entry.path()));
        }
    }
    found.sort();
    found
}

pub(crate) fn set(node: &Node, settings: &serde_json::Value) {
    let mut all = json!({
        "spool": node.paths.spool, "state": node.paths.state, "fallback": node.paths.fallback,
    });
    for (name, value) in settings.as_object().unwrap() {
        all[name] = value.clone();
    }
    fs::write(node.paths.handler_settings(), all.to_string()).unwrap();
}

fn kill(pid: i32) {
    let status = Command::new("kill").args(["-9", &pid.to_string()]).status();
    assert!(status.unwrap().success());
}

/// Waits for so many sealed entries and takes them.
fn take_all(node: &Node, count: usize) -> Vec<Manifest> {
    let deadline = Instant::now() + Duration::from_secs(120);
    loop {
        let names = names_in(&node.paths.spool);
        let sealed = names
            .iter()
            .filter(|name| !name.ends_with(".partial"))
            .count();
        if sealed >= count {
            break;
        }
        assert!(Instant::now() < deadline, "{sealed} of {count}: {names:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
    let mut names = names_in(&node.paths.spool);
    names.retain(|name| !name.ends_with(".partial"));
    let take = |name: &String| {
        let entry = node.paths.spool.join(name);
        let manifest = fs::read(entry.join("manifest.json")).unwrap();
        fs::remove_dir_all(entry).unwrap();
        Manifest::from_json(&manifest).unwrap()
    };
    names.iter().map(take).collect()
}

#[test]
fn socket_captures_every_kind_of_process_like_the_pipe() {
    let Some(node) = node_with_socket() else {
        return;
    };
    let _huge = Setting::new("/proc/sys/vm/nr_hugepages", "8");
    let _maps = Setting::new("/proc/sys/vm/max_map_count", "200000");
    set(&node, &json!({ "self_check": true }));
    for kind in KINDS {
        let size = if kind == "many-mappings" {
            "70000"
        } else {
            "6"
        };
        if die(kind, size).code() == Some(NOT_HERE) {
            continue;
        }
        let (manifest, log) = node.take_entry();
        // The signal comes after the first manifest here.
        let signal = format!("-{}", manifest.signal.number);
        assert!(
            manifest.signal.number != 0 && manifest.stem.ends_with(&signal),
            "{kind}: {}",
            manifest.stem
        );
        assert_eq!(manifest.verdict, Verdict::Complete, "{kind}: {log}");
        let expected = match kind {
            "userfault-shared" => "read from the pipe: the process uses userfaultfd",
            "execute-only" if has_protection_keys() => "self-check: differs at",
            _ => "self-check: equal",
        };
        assert!(log.contains(expected), "{kind}: {log}");
        let is_same = !expected.contains("differs");
        assert_eq!(
            manifest.gaps.is_empty(),
            is_same,
            "{kind}: {:?}",
            manifest.gaps
        );
        assert!(
            manifest.process.name.to_string().starts_with("kinds"),
            "{log}"
        );
        assert!(manifest.signal.name == "SIGSEGV" || manifest.signal.name == "SIGABRT");
        assert!(!manifest.hostname.is_empty() && manifest.process.namespace_pid.is_some());
    }
    uninstall(&node);
}

/// Lets so many processes crash at once.
fn crash_at_once(count: usize, during: impl FnOnce()) {
    let (reader, writer) = std::io::pipe().unwrap();
    let crash = || {
        Command::new(programs().join("crash"))
            .args(["heap", "8", "wait"])
            .stdin(reader.try_clone().unwrap())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap()
    };
    let mut children: Vec<_> = (0..count).map(|_| crash()).collect();
    for child in &mut children {
        let mut line = [0; 6];
        std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut line).unwrap();
    }
    drop(reader);
    drop(writer);
    during();
    for mut child in children {
        child.wait().unwrap();
    }
}

#[test]
fn killed_receiver_process_loses_no_waiting_crash() {
    let Some(node) = node_with_socket() else {
        return;
    };
    for victim in [0, 1] {
        let before = receivers(&node);
        assert_eq!(before.len(), 2, "{before:?}");
        crash_at_once(30, || {
            std::thread::sleep(Duration::from_millis(15));
            kill(before[victim].0);
        });
        // The one that is being received at that very moment is lost with its receiver, as it would be
        // with a handler.
        let manifests = take_all(&node, 29);
        for manifest in &manifests {
            assert_eq!(manifest.verdict, Verdict::Complete);
        }
        // The last one, if it was not that one.
        std::thread::sleep(Duration::from_millis(500));
        for name in names_in(&node.paths.spool) {
            fs::remove_dir_all(node.paths.spool.join(name)).unwrap();
        }
        let deadline = Instant::now() + Duration::from_secs(10);
        while receivers(&node).len() != 2 {
            assert!(Instant::now() < deadline, "{:?}", receivers(&node));
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    uninstall(&node);
}

#[test]
fn missing_receiver_falls_back_to_the_pipe() {
    let Some(node) = node_with_socket() else {
        return;
    };
    let pattern = || fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap();
    let (reader, writer) = std::io::pipe().unwrap();
    let paths = node.paths.clone();
    let store = node.path("store");
    std::thread::scope(|scope| {
        scope.spawn(move || {
            use std::os::fd::AsFd;
            let open = || {
                let store = cdh_store::DirectoryStore::create(&store)?;
                Ok(Box::new(store) as Box<dyn cdh_store::Store>)
            };
            let setuid = cdh_agent::SetuidDumps::Ship;
            cdh_agent::run_until(reader.as_fd(), &paths, &open, setuid, &mut |_| {}).unwrap();
        });
        for (pid, _) in receivers(&node) {
            kill(pid);
        }
        let deadline = Instant::now() + Duration::from_secs(20);
        while !(pattern().starts_with('@') && receivers(&node).len() == 2) {
            assert!(Instant::now() < deadline, "{}", pattern());
            std::thread::sleep(Duration::from_millis(5));
        }
        die("plain", "4");
        while node.dumps().is_empty() {
            assert!(Instant::now() < deadline);
            std::thread::sleep(Duration::from_millis(20));
        }
        drop(writer);
    });
    uninstall(&node);
    assert!(!pattern().starts_with('@'));
}

#[test]
fn process_that_polls_on_io_uring_always_leaves_a_dump() {
    let Some(node) = node_with_socket() else {
        return;
    };
    // What comes before the memory is held still cuts the core: on a busy machine often at 5 ms, seldom at
    // 100 ms, which is less than the copy would take there.
    for (interval, wanted) in [("5000", 0), ("100000", 5)] {
        let mut complete = 0;
        for _ in 0..10 {
            let program = programs().join("kinds");
            let status = Command::new(program)
                .args(["io-uring-busy", "64", interval])
                .status()
                .unwrap();
            if status.code() == Some(NOT_HERE) {
                return eprintln!("skipped: no io_uring here");
            }
            let (manifest, log) = node.take_entry();
            match manifest.verdict {
                Verdict::Complete => complete += 1,
                Verdict::Truncated { cause, .. } | Verdict::Empty { cause, .. } => {
                    assert_eq!(cause, Cause::Interrupted, "{log}");
                }
                verdict => panic!("{verdict:?}: {log}"),
            }
        }
        eprintln!("every {interval} us: {complete} of 10 complete");
        assert!(complete >= wanted, "every {interval} us: {complete} of 10");
    }
    uninstall(&node);
}

/// Found on a busy machine: nothing at all was left of a process that polls on io_uring, for the kernel reports
/// less about a reaped process.
#[test]
fn process_that_was_reaped_early_leaves_a_dump() {
    let Some(node) = node_with_socket() else {
        return;
    };
    // While the receiver is stopped. Its id and how it ended, if it did.
    let crash = |arguments: &[&str], is_killed: bool| {
        signal_all(&node, "-STOP");
        let mut kinds = Command::new(programs().join("kinds"));
        let mut child = kinds.args(arguments).spawn().unwrap();
        if is_killed {
            wait_for_dump(child.id());
            child.kill().unwrap();
        }
        let deadline = Instant::now() + Duration::from_secs(5);
        let mut status = None;
        while status.is_none() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
            status = child.try_wait().unwrap();
        }
        signal_all(&node, "-CONT");
        child.wait().unwrap();
        (child.id(), status)
    };
    let check = |pid: u32, wanted: Cause| {
        let (manifest, log) = node.take_entry();
        assert_eq!(manifest.process.pid, u64::from(pid), "{log}");
        let (Verdict::Truncated { cause, .. } | Verdict::Empty { cause, .. }) = manifest.verdict
        else {
            panic!("{:?}: {log}", manifest.verdict)
        };
        assert_eq!(cause, wanted, "{log}");
        // The first note of the core names the signal. Where the kill came before that note, only the exit
        // code is left, and that of a killed process says only that it was killed.
        let nothing = manifest.signal.number == 0 && wanted == Cause::Killed;
        assert!(manifest.signal.name == "SIGSEGV" || nothing, "{log}");
        assert_eq!(manifest.process.uid, Some(0), "{log}");
    };
    let (killed, _) = crash(&["plain", "64"], true);
    check(killed, Cause::Killed);
    for interval in ["1000", "20000"] {
        let (pid, status) = crash(&["io-uring-busy", "64", interval], false);
        match status.map(|status| status.code()) {
            Some(Some(NOT_HERE)) => eprintln!("skipped: no io_uring here"),
            // A process that is not interrupted has waited for the receiver.
            None => drop(node.take_entry()),
            _ => check(pid, Cause::Interrupted),
        }
    }
    uninstall(&node);
}

/// A receiver that does not accept crashes still holds its lock.
#[test]
fn stopped_receiver_is_noticed_and_the_kernel_starts_handlers_meanwhile() {
    let Some(node) = node_with_socket() else {
        return;
    };
    let pattern = || fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap();
    let (reader, writer) = std::io::pipe().unwrap();
    let (paths, store) = (node.paths.clone(), node.path("store"));
    std::thread::scope(|scope| {
        scope.spawn(move || {
            use std::os::fd::AsFd;
            let open = || {
                let store = cdh_store::DirectoryStore::create(&store)?;
                Ok(Box::new(store) as Box<dyn cdh_store::Store>)
            };
            let setuid = cdh_agent::SetuidDumps::Ship;
            cdh_agent::run_until(reader.as_fd(), &paths, &open, setuid, &mut |_| {}).unwrap();
        });
        let wait_for = |wanted: char| {
            let deadline = Instant::now() + Duration::from_secs(60);
            while !pattern().starts_with(wanted) {
                if Instant::now() > deadline {
                    signal_all(&node, "-CONT");
                    panic!("{wanted} is expected: {}", pattern());
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        };
        signal_all(&node, "-STOP");
        wait_for('|');
        die("plain", "4");
        signal_all(&node, "-CONT");
        let deadline = Instant::now() + Duration::from_secs(60);
        while node.dumps().is_empty() {
            assert!(Instant::now() < deadline);
            std::thread::sleep(Duration::from_millis(20));
        }
        wait_for('@');
        drop(writer);
    });
    uninstall(&node);
}

/// Sends a signal to every process of the receiver.
fn signal_all(node: &Node, signal: &str) {
    for (pid, _) in receivers(node) {
        let mut kill = Command::new("kill");
        let status = kill.args([signal, &pid.to_string()]).status();
        assert!(status.unwrap().success());
    }
}

#[test]
fn through_the_socket_too_nothing_is_held_that_the_settings_do_not_want_held() {
    let Some(node) = node_with_socket() else {
        return;
    };
    set(&node, &json!({ "strategy": "zstd", "pin": false }));
    a_sigkill_cuts_the_core(&node);
    uninstall(&node);
}
