//! Programs with a language runtime, captured through the kernel's pipe: handler and CLI make one fingerprint of a
//! crash, and different bugs of one interpreter have different ones.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use cdh_testkit::{KernelSettingsLock, or_skip, skip};
use serde_json::Value;

use super::Workstation;
use super::stored_stacks::remove_entries;

/// Dies in a C function that Python code calls. The argument selects the bug.
const SHOP: &str = r#"
import ctypes, sys, threading


def peek(address):
    return ctypes.string_at(address)


class Cart:
    def total(self):
        return sum(len(peek(at)) for at in (8, 16))


def load_order():
    return peek(8)


def deep(count):
    return deep(count - 1) if count else peek(8)


def refund():
    sys.setrecursionlimit(5000)
    return deep(800)


def worker():
    thread = threading.Thread(target=load_order)
    thread.start()
    thread.join()


{"total": Cart().total, "load": load_order, "refund": refund, "worker": worker}[sys.argv[1]]()
"#;

/// What counts in each crash: of a recursion that fills what is looked at, the recursion. The worker's thread is started by the standard library, which does not count.
const BUGS: [(&str, &[&str]); 4] = [
    ("total", &["shop.peek", "shop.Cart.total"]),
    ("load", &["shop.peek", "shop.load_order"]),
    ("refund", &["shop.deep"]),
    ("worker", &["shop.peek", "shop.load_order"]),
];

/// The installed Python; `None`, with the reason, where it is missing or not supported.
fn python() -> Option<PathBuf> {
    let found = Command::new("python3")
        .args([
            "-c",
            "import ctypes, sys; print(sys.executable, (3, 8) <= sys.version_info < (3, 15))",
        ])
        .output();
    let found = found.map(|found| String::from_utf8_lossy(&found.stdout).into_owned());
    match found.as_deref().unwrap_or_default().trim().split_once(' ') {
        Some((python, "True")) => Some(python.into()),
        _ => {
            skip("no python3 of versions 3.8 to 3.14 with ctypes");
            None
        }
    }
}

impl Workstation {
    fn run_agent(&self, words: &[&str]) {
        let mut command = self.command(&[&["agent"], words].concat());
        for name in ["state", "libexec"] {
            command.env(format!("CDH_{}", name.to_uppercase()), self.path(name));
        }
        let answer = self.answer(command.output().unwrap());
        assert_eq!(answer.code, 0, "{words:?}: {}", answer.err);
    }

    /// Captures crashes of these programs through the kernel, in their order, and ships them.
    fn capture(&self, programs: impl IntoIterator<Item = Command>) {
        fs::create_dir_all(self.path("store")).unwrap();
        let mut words = vec!["install"];
        let handler = std::env::var("CDH_TEST_HANDLER").unwrap_or_default();
        if !handler.is_empty() {
            words.extend(["--handler", &handler]);
        }
        self.run_agent(&words);
        let uninstall = Uninstall(self);
        for mut program in programs {
            program.current_dir(self.dir.path());
            let status = program.stdout(Stdio::null()).stderr(Stdio::null()).status();
            let status = status.unwrap();
            assert!(status.core_dumped(), "{program:?}: {status}");
            assert!(matches!(status.signal(), Some(6 | 11)), "{status}");
        }
        self.run_agent(&["sweep"]);
        drop(uninstall);
    }

    /// Ids of the dumps in the store.
    fn captured(&self) -> Vec<String> {
        let dumps = self.run(&["ls", "-o", "id"]).out;
        dumps.lines().map(str::to_owned).collect()
    }

    /// The case of a dump, and the core in it.
    fn case(&self, id: &str) -> (PathBuf, PathBuf) {
        self.run(&["fetch", id, "-d", id]);
        let case = self.path(id);
        let mut files = fs::read_dir(&case).unwrap().flatten();
        let is_core = |name: &str| name == "core" || name.starts_with("core.");
        let core = files.find(|file| is_core(file.file_name().to_str().unwrap()));
        let core = core.expect("a core").path();
        (case, core)
    }
}

/// Restores the kernel's settings, also when the test panics.
struct Uninstall<'w>(&'w Workstation);

impl Drop for Uninstall<'_> {
    fn drop(&mut self) {
        self.0.run_agent(&["uninstall"]);
    }
}

fn frames(bt: &Value) -> Vec<String> {
    let frames = bt["backtrace"]["threads"][0]["frames"].as_array().unwrap();
    let name = |frame: &Value| frame["function"]["name"].as_str().unwrap_or("?").to_owned();
    frames.iter().map(name).collect()
}

#[test]
fn python_crash_has_the_fingerprint_that_the_cli_computes() {
    let Some(python) = python() else { return };
    let Some(_lock) = or_skip(KernelSettingsLock::for_handlers()) else {
        return;
    };
    let workstation = Workstation::new();
    fs::write(workstation.path("shop.py"), SHOP).unwrap();
    let crashes = BUGS.iter().flat_map(|(bug, _)| [bug, bug]);
    workstation.capture(crashes.map(|bug| {
        let mut command = Command::new(&python);
        command.args(["-I", "shop.py", bug]);
        command
    }));
    let (mut seen, mut count) = (Vec::new(), 0);
    for id in &workstation.captured() {
        let (case, core) = workstation.case(id);
        let manifest = fs::read_to_string(case.join("manifest.json")).unwrap();
        // Another program of the machine may crash meanwhile.
        if !manifest.contains("shop.py") {
            continue;
        }
        count += 1;
        let is_of = |bug: &&(&str, _)| manifest.contains(&format!("\"{}\"", bug.0));
        let (bug, counted) = *BUGS.iter().find(is_of).expect("a bug of the list");
        let stored = fs::read_to_string(case.join("backtrace.json")).unwrap();
        let stored: Value = serde_json::from_str(&stored).unwrap();
        assert_eq!(stored["explanation"]["counted"], serde_json::json!(counted));
        // A core alone states no fingerprint.
        let bt = workstation.json(&["bt", core.to_str().unwrap(), "-o", "json"]);
        let here = &bt["backtrace"];
        assert_eq!(here["fingerprint"], stored["fingerprint"], "{bug}");
        assert_eq!(here["explanation"], stored["explanation"], "{bug}");
        if seen.contains(&bug) {
            continue;
        }
        seen.push(bug);
        let core = core.to_str().unwrap();
        let bounded = workstation.json(&["bt", core, "--limit", "5", "-o", "json"]);
        assert_eq!(bounded["backtrace"]["fingerprint"], stored["fingerprint"]);
        let imported = workstation.import(std::path::Path::new(core));
        let info = workstation.json(&["info", &imported, "-o", "json"]);
        assert!(
            info.to_string()
                .contains(stored["fingerprint"].as_str().unwrap()),
            "{info}"
        );
        workstation.run(&["rm", "-y", &imported]);

        // The minicore holds what the interpreter has, and the stored stack its functions.
        let case = format!("./{id}");
        let whole = workstation.json(&["bt", &case, "--locals", "-o", "json"]);
        remove_entries(&workstation.path(id), &["core"]);
        let small = workstation.json_of_any_status(&["bt", &case, "--locals", "-o", "json"]);
        assert_eq!(small["from_minicore"], true);
        assert_eq!(frames(&small), frames(&whole), "{bug}");
        assert_eq!(small["runtimes"], whole["runtimes"], "{bug}");
        remove_entries(&workstation.path(id), &["minicore"]);
        let alone = workstation.json_of_any_status(&["bt", &case, "-o", "json"]);
        // What is inlined into a native frame depends on debug information, which the handler does not read.
        let [alone, whole] = [&alone, &whole].map(|bt| {
            let mut names = frames(bt);
            names.retain(|name| !name.starts_with("pymain_"));
            names
        });
        // Of a deep recursion only as many functions are stored as make the fingerprint.
        match bug {
            "refund" => assert_eq!(alone[..100], whole[..100]),
            _ => assert_eq!(alone, whole, "{bug}"),
        }
    }
    assert_eq!(count, 2 * BUGS.len());
    let groups = workstation.json(&["groups", "-o", "json"]);
    let tops = groups.as_array().unwrap().iter();
    let tops = tops.map(|group| group["top_frame"].as_str().unwrap_or_default());
    let tops: Vec<&str> = tops.filter(|top| top.contains("shop.py")).collect();
    // The crash in a thread is that of the main thread.
    assert_eq!(tops.len(), 3, "{groups}");
    assert!(tops.iter().all(|top| top.starts_with("peek")), "{tops:?}");
}

/// A goroutine locked to its thread sends a signal to this thread, whose handler passes it on to all others: another one
/// dies.
const RELAY: &str = r#"
package main

import (
	"os"
	"runtime"
	"syscall"
	"time"
)

//go:noinline
func fall() {
	syscall.RawSyscall(syscall.SYS_TGKILL, uintptr(os.Getpid()), uintptr(syscall.Gettid()), uintptr(syscall.SIGQUIT))
	for {
		count++
	}
}

//go:noinline
func refund() { fall() }

//go:noinline
func deliver() {
	var order map[string]int
	order["id"] = 7
}

var count int

func main() {
	runtime.LockOSThread()
	for i := 0; i < 4; i++ {
		go func() {
			runtime.LockOSThread()
			time.Sleep(time.Hour)
		}()
	}
	time.Sleep(100 * time.Millisecond)
	if os.Args[1] == "refund" {
		refund()
	}
	deliver()
}
"#;

/// A program of Go; `None`, with the reason, where there is no compiler.
fn go_program(workstation: &Workstation) -> Option<PathBuf> {
    fs::write(workstation.path("relay.go"), RELAY).unwrap();
    let program = workstation.path("relay");
    let mut build = Command::new("go");
    build.args(["build", "-o"]).arg(&program).arg("relay.go");
    build.current_dir(workstation.dir.path());
    let cache = std::env::var_os("GOCACHE");
    build.env(
        "GOCACHE",
        cache.unwrap_or_else(|| workstation.path("go-cache").into()),
    );
    match build.output() {
        Ok(built) if built.status.success() => Some(program),
        Ok(built) => panic!("{}", String::from_utf8_lossy(&built.stderr)),
        Err(error) => {
            skip(format!("no Go: {error}"));
            None
        }
    }
}

#[test]
fn go_crash_is_that_of_the_goroutine_whichever_thread_died() {
    let workstation = Workstation::new();
    let Some(program) = go_program(&workstation) else {
        return;
    };
    let Some(_lock) = or_skip(KernelSettingsLock::for_handlers()) else {
        return;
    };
    workstation.capture(["refund", "deliver"].map(|bug| {
        let mut command = Command::new(&program);
        command.arg(bug).env("GOTRACEBACK", "crash");
        command
    }));
    let mut count = 0;
    for id in &workstation.captured() {
        let (case, core) = workstation.case(id);
        let manifest = fs::read_to_string(case.join("manifest.json")).unwrap();
        let is_of = |bug: &&str| manifest.contains(&format!("\"{bug}\""));
        let bugs = ["refund", "deliver"].into_iter();
        let Some(bug) = bugs
            .clone()
            .find(|bug| is_of(bug))
            .filter(|_| manifest.contains("relay"))
        else {
            continue;
        };
        count += 1;
        let counted = match bug {
            "refund" => ["main.fall", "main.refund"],
            _ => ["main.deliver", "main.main"],
        };
        let stored = fs::read_to_string(case.join("backtrace.json")).unwrap();
        let stored: Value = serde_json::from_str(&stored).unwrap();
        assert_eq!(stored["explanation"]["counted"], serde_json::json!(counted));
        let whole = workstation.json(&["bt", core.to_str().unwrap(), "-o", "json"]);
        let here = &whole["backtrace"];
        assert_eq!(here["fingerprint"], stored["fingerprint"], "{bug}");
        assert_eq!(here["threads"][0]["tid"], stored["threads"][0]["tid"]);

        remove_entries(&case, &["core"]);
        let case = format!("./{id}");
        let small = workstation.json_of_any_status(&["bt", &case, "-o", "json"]);
        assert_eq!(small["from_minicore"], true);
        assert_eq!(frames(&small), frames(&whole), "{bug}");
        assert_eq!(small["runtimes"], whole["runtimes"], "{bug}");
    }
    assert_eq!(count, 2);
    let groups = workstation.json(&["groups", "-o", "json"]);
    for top in ["main.fall", "main.deliver"] {
        assert!(groups.to_string().contains(top), "{groups}");
    }
}
