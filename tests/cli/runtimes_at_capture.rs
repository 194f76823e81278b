//! Programs with a language runtime, captured through the kernel's pipe: handler and CLI make one fingerprint of a
//! crash, and different bugs of one interpreter have different ones.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use cdh_testkit::{KernelSettingsLock, or_skip, skip};
use serde_json::Value;

use super::Workstation;
use super::stored_stacks::remove_core;

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

/// What counts in each crash. The worker's thread is started by the standard library, which does not count.
const BUGS: [(&str, &[&str]); 4] = [
    ("total", &["shop.peek", "shop.Cart.total"]),
    ("load", &["shop.peek", "shop.load_order"]),
    ("refund", &["shop.deep", "shop.peek"]),
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
    let dumps = workstation.captured();
    assert_eq!(dumps.len(), 2 * BUGS.len(), "{dumps:?}");
    let mut seen = Vec::new();
    for id in &dumps {
        let (case, core) = workstation.case(id);
        let manifest = fs::read_to_string(case.join("manifest.json")).unwrap();
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
        let bounded = ["bt", core.to_str().unwrap(), "-n", "5", "-o", "json"];
        let bounded = workstation.json_of_any_status(&bounded);
        assert_eq!(bounded["backtrace"]["fingerprint"], stored["fingerprint"]);
        if !seen.contains(&bug) {
            seen.push(bug);
            // As the interpreter replaced them, without core and minicore.
            let whole = frames(&bt);
            remove_core(&case);
            let case = format!("./{id}");
            let alone = workstation.json_of_any_status(&["bt", &case, "-o", "json"]);
            let alone = frames(&alone);
            assert_eq!(alone.iter().find(|name| *name == "peek").unwrap(), "peek");
            if bug != "refund" {
                assert_eq!(alone, whole, "{bug}");
            }
        }
    }
    // The crash in a thread is that of the main thread.
    let groups = workstation.json(&["groups", "-o", "json"]);
    let groups = groups.as_array().unwrap();
    assert_eq!(groups.len(), 3, "{groups:?}");
    for group in groups {
        let top = group["top"].as_str().unwrap_or_default();
        assert!(top.starts_with("peek") && top.contains("shop.py"), "{group}");
    }
}
