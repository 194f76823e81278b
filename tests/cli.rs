//! The commands as a user types them: on a store in a directory, with cores of real crashes.

// A failed test or task may panic; nothing of this ships.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used
)]

#[path = "cli/agent.rs"]
mod agent;
#[path = "cli/backtrace.rs"]
mod backtrace;
#[path = "cli/completions.rs"]
mod completions;
#[path = "cli/core_files.rs"]
mod core_files;
#[path = "cli/coredumpctl.rs"]
mod coredumpctl;
mod corpus;
#[path = "cli/documented_commands.rs"]
mod documented_commands;
#[path = "cli/documented_names.rs"]
mod documented_names;
#[path = "cli/errors.rs"]
mod errors;
#[path = "cli/foreign_cores.rs"]
mod foreign_cores;
#[path = "cli/groups.rs"]
mod groups;
#[path = "cli/host_process.rs"]
mod host_process;
#[path = "cli/hostile_dumps.rs"]
mod hostile_dumps;
#[path = "cli/hostile_images.rs"]
mod hostile_images;
#[path = "cli/ibm.rs"]
mod ibm;
#[path = "cli/images.rs"]
mod images;
#[path = "cli/imports.rs"]
mod imports;
#[path = "cli/in_a_pod.rs"]
mod in_a_pod;
#[path = "cli/integrity.rs"]
mod integrity;
#[path = "cli/local_files.rs"]
mod local_files;
#[path = "cli/node_settings.rs"]
mod node_settings;
#[path = "cli/operator.rs"]
mod operator;
#[path = "cli/output.rs"]
mod output;
#[path = "cli/parallel.rs"]
mod parallel;
#[path = "cli/private_directories.rs"]
mod private_directories;
#[path = "cli/runtimes_at_capture.rs"]
mod runtimes_at_capture;
#[path = "cli/s3/mod.rs"]
mod s3;
#[path = "cli/schemas.rs"]
mod schemas;
#[path = "cli/stored_modules.rs"]
mod stored_modules;
#[path = "cli/stored_stacks.rs"]
mod stored_stacks;
#[path = "cli/tui.rs"]
mod tui;
#[path = "cli/updates.rs"]
mod updates;
#[path = "cli/why.rs"]
mod why;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use serde_json::Value;

/// Dies three calls deep, one of them inlined, with three threads beside it.
const PROGRAM: &str = r"
#include <pthread.h>
#include <unistd.h>
static void *idle(void *p) { for (;;) sleep(100); return p; }
static inline __attribute__((always_inline)) void poke(int *p) { *p = 7; }
__attribute__((noinline)) static void middle(int *p) { poke(p); sleep(0); }
int main(void) {
    pthread_t t[3];
    for (int i = 0; i < 3; i++) pthread_create(&t[i], 0, idle, 0);
    usleep(50000);
    middle((int *)0x10);
    return 0;
}
";

/// A core that gdb made of the program: independent of the machine's core_pattern.
struct Crash {
    dir: tempfile::TempDir,
}

impl Crash {
    fn core(&self) -> PathBuf {
        self.dir.path().join("app.core")
    }
}

fn crash() -> &'static Crash {
    static CRASH: OnceLock<Crash> = OnceLock::new();
    CRASH.get_or_init(|| {
        let dir = tempfile::tempdir().unwrap();
        let crash = Crash { dir };
        let (source, program) = (crash.dir.path().join("app.c"), crash.dir.path().join("app"));
        fs::write(&source, PROGRAM).unwrap();
        let mut cc = Command::new("cc");
        cc.args(["-g", "-O1", "-pthread", "-Wl,--build-id", "-o"])
            .arg(&program)
            .arg(&source);
        assert!(cc.status().expect("install gcc").success());
        let made = Command::new("gdb")
            .args(["-q", "-batch", "-ex", "run", "-ex"])
            .arg(format!("generate-core-file {}", crash.core().display()))
            .arg(&program)
            .output()
            .expect("install gdb");
        assert!(
            crash.core().is_file(),
            "{}",
            String::from_utf8_lossy(&made.stderr)
        );
        crash
    })
}

/// A workstation of its own: store, cache, configuration.
struct Workstation {
    dir: tempfile::TempDir,
}

struct Answer {
    code: i32,
    out: String,
    err: String,
}

impl Workstation {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cdh"));
        command.args(words).current_dir(self.dir.path()).env_clear();
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command
            .env("HOME", self.dir.path())
            .env("CDH_STORE", self.path("store"));
        command
    }

    fn run(&self, words: &[&str]) -> Answer {
        self.answer(self.command(words).output().unwrap())
    }

    /// Output with what changes from run to run replaced.
    fn answer(&self, output: Output) -> Answer {
        let place = self.dir.path().display().to_string();
        let text = |bytes: Vec<u8>| {
            String::from_utf8(bytes)
                .unwrap()
                .replace(&place, "[WORKSTATION]")
        };
        Answer {
            code: output.status.code().unwrap(),
            out: text(output.stdout),
            err: text(output.stderr),
        }
    }

    fn import(&self, core: &Path) -> String {
        let answer = self.run(&["import", core.to_str().unwrap()]);
        assert_eq!(answer.code, 0, "{}", answer.err);
        answer.out.trim().to_owned()
    }

    /// Lets dumps name this registry.
    fn allow_registry(&self, registry: &str) {
        let config = self.path(".config/cdh");
        fs::create_dir_all(&config).unwrap();
        let text = format!("[images]\nregistries = [\"quay.io\", \"{registry}\"]\n");
        fs::write(config.join("config.toml"), text).unwrap();
    }

    fn json_of_any_status(&self, words: &[&str]) -> Value {
        serde_json::from_str(&self.run(words).out).unwrap()
    }

    fn json(&self, words: &[&str]) -> Value {
        let answer = self.run(words);
        assert_eq!(answer.code, 0, "{}", answer.err);
        serde_json::from_str(&answer.out).unwrap()
    }
}

#[test]
fn imported_core_is_listed_explained_fetched_and_removed() {
    let workstation = Workstation::new();
    let id = workstation.import(&crash().core());
    let listing = workstation.json(&["ls", "-o", "json"]);
    assert_eq!(listing[0]["id"], id.as_str());
    assert_eq!(listing[0]["exe"], "app");
    assert_eq!(listing[0]["signal"], "SIGSEGV");
    assert_eq!(listing[0]["verdict"], "complete");
    for filter in [["--exe", "a*"], ["--signal", "11"], ["--since", "2h"]] {
        assert_eq!(
            workstation
                .run(&["ls", "-o", "id", filter[0], filter[1]])
                .out
                .trim(),
            id
        );
    }
    assert_eq!(workstation.run(&["ls", "--exe", "b*"]).code, 1);

    let info = workstation.json(&["info", &id[..8], "--json"]);
    let manifest = &info["manifest"];
    assert_eq!(
        manifest["signal"]["description"],
        "SIGSEGV: address not mapped, at 0x10"
    );
    assert_eq!(manifest["thread_count"], 4);
    assert_eq!(info["found"]["complete"], true);

    let case = PathBuf::from(
        workstation
            .run(&["fetch", "latest", "-d", "case"])
            .out
            .trim()
            .replace("[WORKSTATION]", workstation.dir.path().to_str().unwrap()),
    );
    assert!(fs::read(case.join("core")).unwrap() == fs::read(crash().core()).unwrap());

    assert_eq!(workstation.run(&["rm", "latest", "--dry-run"]).code, 0);
    assert_eq!(workstation.run(&["rm", "latest"]).code, 2);
    assert_eq!(workstation.run(&["rm", "latest", "--yes"]).code, 0);
    assert_eq!(workstation.run(&["ls"]).code, 1);
}

#[test]
fn limits_delete_what_they_do_not_let_stay_and_ask_before() {
    let workstation = Workstation::new();
    for _ in 0..3 {
        let core = crash().core().display().to_string();
        assert_eq!(workstation.run(&["import", &core]).code, 0);
    }
    let count = || workstation.run(&["ls", "-o", "id"]).out.lines().count();
    let none = workstation.run(&["gc"]);
    assert_eq!(none.code, 2);
    assert!(
        none.err.contains("hint: give `--older-than 30d`"),
        "{}",
        none.err
    );
    let dry = workstation.run(&["gc", "--max-total", "0", "--dry-run"]);
    assert_eq!((dry.code, dry.out.lines().count(), count()), (0, 3, 3));
    let unasked = workstation.run(&["gc", "--max-total", "0"]);
    assert_eq!((unasked.code, count()), (2, 3));
    assert!(unasked.err.contains("--yes"), "{}", unasked.err);
    let old = workstation.run(&["gc", "--older-than", "1d", "--yes"]);
    assert_eq!((old.code, count()), (0, 3));
    let same = workstation.run(&["gc", "--keep-per-fingerprint", "1", "--yes"]);
    assert_eq!((same.code, count()), (0, 1));
    assert!(same.out.contains("enough newer ones"), "{}", same.out);
    let several = workstation.run(&["gc", "--older-than", "1d", "--max-total", "0", "--dry-run"]);
    assert!(
        several.out.contains(": newer dumps fill `--max-total`"),
        "{}",
        several.out
    );
    let note = "a dump is deleted if any limit applies; the first that applies is named: 0 by `--older-than`, 1 by \
                `--max-total`";
    assert!(several.err.contains(note), "{}", several.err);
    let modules = workstation.run(&["gc", "--modules-older-than", "2d", "--yes"]);
    assert_eq!((modules.code, count()), (0, 1), "{}", modules.err);
    let share = workstation.run(&["share", "latest", "--expires", "1h"]);
    assert_eq!((share.code, share.out.as_str()), (2, ""));
    assert!(share.err.contains("hint:"), "{}", share.err);
}

fn functions(document: &Value, thread: usize) -> Vec<String> {
    let frames = document["backtrace"]["threads"][thread]["frames"]
        .as_array()
        .unwrap();
    frames
        .iter()
        .filter_map(|frame| frame["function"]["name"].as_str())
        .map(str::to_owned)
        .collect()
}

#[test]
fn backtrace_names_inlined_frames_of_every_thread_wherever_the_dump_is() {
    let workstation = Workstation::new();
    workstation.import(&crash().core());
    let core = crash().core();
    workstation.run(&["fetch", "latest", "-d", "case"]);
    for reference in ["latest", core.to_str().unwrap(), "./case"] {
        let document = workstation.json(&["bt", reference, "-a", "-o", "json"]);
        assert_eq!(
            functions(&document, 0)[..3],
            ["poke", "middle", "main"],
            "{reference}"
        );
        let first = &document["backtrace"]["threads"][0]["frames"][0];
        assert_eq!(first["inline"], true);
        assert!(
            first["location"]["file"]
                .as_str()
                .unwrap()
                .ends_with("app.c")
        );
        assert_eq!(first["location"]["line"], 5);
        assert!(functions(&document, 1).contains(&"idle".to_owned()));
    }
    let text = workstation.run(&["bt", "latest", "--group"]).out;
    assert!(
        text.contains("(crashed)") && text.contains("threads: "),
        "{text}"
    );
    assert!(!text.contains('\u{1b}'));
}

#[test]
fn cut_core_says_how_far_it_goes_and_still_gives_what_it_holds() {
    let workstation = Workstation::new();
    let whole = fs::read(crash().core()).unwrap();
    for part in [1, 5, 30, 60, 90, 99] {
        let name = format!("cut{part}");
        fs::write(workstation.path(&name), &whole[..whole.len() * part / 100]).unwrap();
        let path = format!("./{name}");
        let info = workstation.run(&["info", &path]);
        if info.code == 0 {
            assert!(info.out.contains("truncated: "), "{}", info.out);
            assert!(info.out.contains("core is cut"), "{}", info.out);
            let bt = workstation.run(&["bt", &path, "-a"]);
            assert_eq!(bt.code, 0, "{}", bt.err);
            assert!(
                bt.out.contains("#0 ") || bt.out.contains("no threads are known"),
                "{}",
                bt.out
            );
        } else {
            assert!(info.err.contains("the core ends after"), "{}", info.err);
        }
    }
    fs::write(workstation.path("cut"), &whole[..whole.len() * 60 / 100]).unwrap();
    workstation.import(&workstation.path("cut"));
    assert_eq!(
        workstation.json(&["ls", "--truncated", "-o", "json"])[0]["verdict"],
        "truncated"
    );
}

#[test]
fn debug_starts_gdb_without_noise_on_the_right_line() {
    let workstation = Workstation::new();
    workstation.import(&crash().core());
    let answer = workstation.run(&["debug", "latest", "--", "-q", "-batch", "-ex", "bt"]);
    assert_eq!(answer.code, 0, "{}", answer.err);
    assert!(
        answer.out.contains("middle") && answer.out.contains("app.c:"),
        "{}",
        answer.out
    );
    for noise in ["Can't open file", "Illegal process-id", "No such file"] {
        assert!(
            !answer.err.contains(noise) && !answer.out.contains(noise),
            "{}",
            answer.err
        );
    }
    let printed = workstation.run(&["debug", "latest", "--print"]).out;
    assert!(
        printed.starts_with("gdb -iex 'set auto-load off'"),
        "{printed}"
    );
    let missing = workstation.run(&["debug", "latest", "--debugger", "no-such-debugger"]);
    assert_eq!(missing.code, 2);
    assert!(missing.out.contains("#0 ") && missing.err.contains("apt install gdb"));
}

#[test]
fn module_that_is_not_the_mapped_one_is_shown_and_not_used() {
    let workstation = Workstation::new();
    let root = workstation.path("root");
    let app = crash().dir.path().join("app");
    let inside = root.join(app.strip_prefix("/").unwrap());
    fs::create_dir_all(inside.parent().unwrap()).unwrap();
    let other = PathBuf::from(env!("CARGO_BIN_EXE_cdh"));
    fs::copy(other, &inside).unwrap();
    let core = crash().core();
    // Beside the core lies the right file: hide it by copying the core elsewhere.
    let moved = workstation.path("moved.core");
    fs::copy(core, &moved).unwrap();
    let document = workstation.json(&["bt", "./moved.core", "--sysroot", "root", "-o", "json"]);
    let modules = document["backtrace"]["modules"].as_array().unwrap();
    let module = modules
        .iter()
        .find(|m| m["path"].as_str().unwrap().ends_with("/app"))
        .unwrap();
    // The machine's own file has the right build-id, so it is found in the next place.
    assert_eq!(module["status"], "verified");
    assert_eq!(functions(&document, 0)[0], "poke");
}

#[test]
fn damaged_bundle_is_distinguished_from_an_intact_one() {
    let workstation = Workstation::new();
    workstation.import(&crash().core());
    let key = workstation.json(&["ls", "-o", "json"])[0]["key"]
        .as_str()
        .unwrap()
        .to_owned();
    let path = workstation.path("store").join(&key);
    let unzip = Command::new("unzip").arg("-tqq").arg(&path).status();
    assert!(unzip.expect("install unzip").success());
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0xff;
    fs::write(workstation.path("damaged.zip"), &bytes).unwrap();
    let answer = workstation.run(&["fetch", "./damaged.zip", "-d", "case"]);
    assert_ne!(answer.code, 0);
    assert!(!workstation.path("case").exists());
    fs::write(workstation.path("cut.zip"), &bytes[..middle]).unwrap();
    let answer = workstation.run(&["info", "./cut.zip"]);
    assert!(
        answer.code == 4 && answer.err.contains("damaged: "),
        "{}",
        answer.err
    );
}

#[test]
fn man_pages_pass_the_lint_of_mandoc() {
    let man = Path::new(env!("CARGO_MANIFEST_DIR")).join("man");
    for page in fs::read_dir(man).unwrap() {
        let page = page.unwrap().path();
        let Ok(lint) = Command::new("mandoc")
            .args(["-T", "lint"])
            .arg(&page)
            .output()
        else {
            println!("skipped: mandoc is not installed");
            return;
        };
        let findings = String::from_utf8_lossy(&lint.stdout);
        assert!(findings.is_empty() && lint.status.success(), "{findings}");
    }
}

#[test]
fn man_pages_and_completions_are_those_of_the_command_line() {
    let workstation = Workstation::new();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    assert_eq!(workstation.run(&["man", "man"]).code, 0);
    let mut pages = 0;
    for page in fs::read_dir(workstation.path("man")).unwrap() {
        let page = page.unwrap();
        let committed = fs::read(root.join("man").join(page.file_name())).unwrap_or_default();
        assert!(
            committed == fs::read(page.path()).unwrap(),
            "{:?} is stale: run `cargo xtask docs`",
            page.file_name()
        );
        pages += 1;
    }
    assert_eq!(pages, fs::read_dir(root.join("man")).unwrap().count());
    for (shell, file) in [("bash", "cdh.bash"), ("zsh", "_cdh"), ("fish", "cdh.fish")] {
        let committed = fs::read_to_string(root.join("completions").join(file)).unwrap();
        assert_eq!(
            workstation.run(&["completions", shell]).out,
            committed,
            "run `cargo xtask docs`"
        );
    }
}
