//! What `cdh bt` prints of deep stacks, of panics, and of source that may be wrong.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use cdh_testkit::Program;

use super::Workstation;

const RECURSION: &str = r#"
#include <stdlib.h>
int even(int n);
__attribute__((noinline)) int odd(int n) { if (n == 0) abort(); volatile int x = even(n - 1); return x + 1; }
__attribute__((noinline)) int even(int n) { if (n == 0) abort(); volatile int x = odd(n - 1); return x + 1; }
int main(int count, char **words) { return count + even(atoi(words[1])); }
"#;

/// Two threads in a recursion whose calls are half inlined.
const INLINED: &str = r#"
#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>
int down(int n, int wait);
static inline __attribute__((always_inline)) int step(int n, int wait) { volatile int x = down(n - 1, wait); return x + 1; }
__attribute__((noinline)) int down(int n, int wait) {
    if (n > 0) return step(n, wait);
    while (wait) pause();
    abort();
}
static void *work(void *p) { down(1500, 1); return p; }
int main(void) {
    pthread_t t;
    pthread_create(&t, 0, work, 0);
    usleep(300000);
    return down(700, 0);
}
"#;

const PANIC: &str = r#"
fn pick(list: &[u64], index: usize) -> u64 {
    list[index]
}
fn main() {
    let list: Vec<u64> = (0..3).collect();
    println!("{}", pick(&list, 9));
}
"#;

const EXCEPTION: &str = r#"
#include <stdexcept>
#include <thread>
#include <vector>
__attribute__((noinline)) int pick(std::vector<int> &list) { return list.at(9); }
int main() {
    std::vector<int> list(2);
    std::thread worker([&] { pick(list); });
    worker.join();
}
"#;

/// Builds `source` and writes a core of the program with gdb.
pub(crate) fn crash(
    workstation: &Workstation,
    file: &str,
    source: &str,
    compiler: &[&str],
    word: &str,
) -> PathBuf {
    let path = workstation.path(file);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, source).unwrap();
    let (program, core) = (workstation.path("program"), workstation.path("core"));
    let mut command = Command::new(compiler[0]);
    command
        .args(&compiler[1..])
        .arg("-o")
        .arg(&program)
        .arg(&path);
    command.current_dir(workstation.dir.path());
    assert!(command.status().expect("install gcc and rustc").success());
    let _ = fs::remove_file(&core);
    let made = Command::new("gdb")
        .args(["-q", "-nx", "-batch", "-ex"])
        .arg(format!("run {word}"))
        .arg("-ex")
        .arg(format!("generate-core-file {}", core.display()))
        .arg(&program)
        .current_dir(workstation.dir.path())
        .env("DEBUGINFOD_URLS", "")
        .output()
        .expect("install gdb");
    assert!(core.is_file(), "{}", String::from_utf8_lossy(&made.stderr));
    core
}

/// DWARF 5 with checksums, as clang writes it: gcc leaves them out, but the assembler takes them.
const WITH_CHECKSUMS: &str = r#"
set -e
gcc -g -gdwarf-5 -O0 -S -o app.s "$3"
md5=$(md5sum "$3" | cut -d' ' -f1)
sed -Ei "s/^(\s*\.file [0-9]+ .*)$/\1 md5 0x$md5/" app.s
gcc -Wl,--build-id -o "$2" app.s
"#;

const C: [&str; 4] = ["gcc", "-g", "-O0", "-Wl,--build-id"];

fn bt(workstation: &Workstation, words: &[&str]) -> String {
    bt_cached(workstation, &[&["--no-cache"], words].concat())
}

/// Not in the home directory, which is not a checkout.
fn bt_cached(workstation: &Workstation, words: &[&str]) -> String {
    let mut command = workstation.command(&[&["bt", "./core"], words].concat());
    command.env("HOME", "/nonexistent");
    command.env("XDG_CACHE_HOME", workstation.path("cache"));
    let answer = workstation.answer(command.output().unwrap());
    assert_eq!(answer.code, 0, "{}", answer.err);
    answer.out
}

/// The lines of the first thread without addresses, directories, columns and what depends on libc.
fn stack(text: &str, workstation: &Workstation) -> String {
    let place = workstation.dir.path().canonicalize().unwrap();
    let mut shown = String::new();
    let lines = text.lines().skip_while(|line| !line.starts_with("  #"));
    for line in lines.take_while(|line| !line.is_empty()) {
        let mut words: Vec<&str> = line.split(' ').collect();
        words.retain(|word| !word.starts_with("0x"));
        let line = words.join(" ").replace("[WORKSTATION]/", "");
        let line = line.replace(&format!("{}/", place.display()), "");
        shown.push_str(line.trim_end());
        shown.push('\n');
    }
    shown
}

/// As on a terminal of its own.
fn on_a_terminal(workstation: &Workstation, words: &str) -> String {
    let line = format!(
        "{} bt ./core --no-cache --color never {words}",
        env!("CARGO_BIN_EXE_cdh")
    );
    let out = Command::new("script")
        .args(["-qec", &line, "/dev/null"])
        .current_dir(workstation.dir.path())
        .env("CDH_STORE", workstation.path("store"))
        .env("HOME", workstation.dir.path())
        .output()
        .expect("install bsdutils");
    let text = String::from_utf8(out.stdout).unwrap().replace('\r', "");
    let place = workstation.dir.path().display().to_string();
    text.replace(&place, "[WORKSTATION]")
}

fn frames(text: &str) -> usize {
    text.lines().filter(|line| line.starts_with("  #")).count()
}

#[test]
fn bt_folds_a_mutual_recursion_with_both_ends_visible() {
    let workstation = Workstation::new();
    crash(&workstation, "app.c", RECURSION, &C, "20001");
    let folded = bt(&workstation, &["--fold"]);
    let shown = stack(&folded, &workstation);
    let is_own = |line: &&str| line.contains("app.c:") || line.starts_with("    …");
    let own: Vec<&str> = shown.lines().filter(is_own).collect();
    // How many frames of libc are above them depends on whether its debug information is installed.
    let number = |line: &str| {
        let digits = line.trim_start().strip_prefix('#')?.split(' ').next()?;
        digits.parse::<usize>().ok()
    };
    let first = own.first().and_then(|line| number(line)).unwrap();
    let relative = own.iter().map(|line| match number(line) {
        Some(at) => line.replacen(&format!("#{at}"), &format!("#n+{}", at - first), 1),
        None => (*line).to_owned(),
    });
    insta::assert_snapshot!(relative.collect::<Vec<_>>().join("\n"));
    assert!(
        shown.contains(" how it ended: ") && shown.contains(" runtime start: "),
        "{shown}"
    );
    // A script reads what it always read.
    let plain = bt(&workstation, &[]);
    assert_eq!(plain, bt(&workstation, &["--no-fold"]));
    assert_eq!(plain, bt(&workstation, &["--fold", "--no-fold"]));
    assert!(
        frames(&plain) > 250 && plain.contains("raise `--limit`"),
        "{plain}"
    );
    let numbers = plain.lines().filter(|line| line.starts_with("  #1"));
    assert!(
        numbers.clone().any(|line| line.starts_with("  #100 0x")),
        "{plain}"
    );
    assert!(
        numbers.clone().any(|line| line.starts_with("  #10  0x")),
        "{plain}"
    );
    let deep = bt(&workstation, &["--limit", "100000"]);
    assert!(
        deep.contains("\n  #1000  0x") && deep.contains("\n  #20000 0x"),
        "no numbers"
    );
    assert_eq!(
        stack(&on_a_terminal(&workstation, ""), &workstation),
        stack(&folded, &workstation)
    );
    assert!(frames(&on_a_terminal(&workstation, "--no-fold")) > 250);
    let json = workstation.json(&["bt", "./core", "-o", "json", "--fold", "--limit", "30000"]);
    let all = json["backtrace"]["threads"][0]["frames"]
        .as_array()
        .unwrap();
    assert!(all.len() > 20_000);
}

#[test]
fn bt_folds_inlined_recursions_of_all_threads() {
    let workstation = Workstation::new();
    let compiler = ["gcc", "-g", "-O1", "-pthread", "-Wl,--build-id"];
    crash(&workstation, "app.c", INLINED, &compiler, "");
    let folded = bt(&workstation, &["-a", "--fold"]);
    let lines = folded.lines().filter(|line| line.starts_with("    …"));
    let lines: Vec<&str> = lines.collect();
    let repeated = |times: &str| format!("the 2 above repeat {times} times …");
    assert_eq!(lines.len(), 2, "{folded}");
    assert!(
        lines[0].ends_with(&repeated("698")) || lines[0].ends_with(&repeated("699")),
        "{folded}"
    );
    let other = lines[1].contains("repeat 1,49");
    assert!(other, "{folded}");
    assert!(
        folded.contains("step (wait=") && folded.contains("[inlined]"),
        "{folded}"
    );
    assert!(frames(&folded) < 30, "{folded}");
}

#[test]
fn bt_prints_the_time_it_took_when_asked() {
    let workstation = Workstation::new();
    crash(&workstation, "app.c", RECURSION, &C, "2");
    assert!(!bt(&workstation, &[]).contains(" ms"));
    assert!(bt(&workstation, &["-v"]).contains("1 of 1 threads in "));
}

#[test]
fn bt_folds_a_panic_down_to_the_frames_that_rust_prints() {
    let workstation = Workstation::new();
    let rustc = [
        "rustc",
        "-g",
        "-C",
        "panic=abort",
        "-C",
        "link-arg=-Wl,--build-id",
    ];
    crash(&workstation, "app.rs", PANIC, &rustc, "");
    let folded = stack(&bt(&workstation, &["--fold"]), &workstation);
    let own: Vec<&str> = folded
        .lines()
        .filter(|line| line.contains(" at "))
        .collect();
    assert!(
        own[0].contains("app::pick (list=..., index=9) at app.rs:3"),
        "{folded}"
    );
    assert!(own[1].contains("app::main () at app.rs:7"), "{folded}");
    assert_eq!(folded.lines().count(), 4, "{folded}");
    assert!(folded.starts_with("  #0-#"), "{folded}");
    assert!(
        folded.contains("how it ended: ") && folded.contains("panic_bounds_check)"),
        "{folded}"
    );
    assert!(
        folded.lines().last().unwrap().contains(" runtime start: "),
        "{folded}"
    );
    // The program's own words.
    let out = Command::new(workstation.path("program"))
        .env("RUST_BACKTRACE", "1")
        .output()
        .unwrap();
    let words = String::from_utf8_lossy(&out.stderr).into_owned();
    let printed = words.lines().filter(|line| line.contains(": app::"));
    assert_eq!(printed.count(), own.len(), "{words}");
}

#[test]
fn bt_folds_the_start_of_a_thread_and_the_end_by_an_exception() {
    let workstation = Workstation::new();
    let compiler = ["g++", "-g", "-O1", "-pthread", "-Wl,--build-id"];
    crash(&workstation, "app.cc", EXCEPTION, &compiler, "");
    let folded = stack(&bt(&workstation, &["--fold"]), &workstation);
    let lines: Vec<&str> = folded.lines().collect();
    assert!(lines[0].contains(" how it ended: "), "{folded}");
    assert!(
        lines.last().unwrap().contains(" runtime start: "),
        "{folded}"
    );
    assert!(
        lines.last().unwrap().contains("std::__invoke_impl"),
        "{folded}"
    );
    let own = lines.iter().filter(|line| line.contains("app.cc:"));
    assert_eq!(own.count(), 2, "{folded}");
}

fn age(path: &Path, by: Duration, back: bool) {
    let file = fs::File::options().write(true).open(path).unwrap();
    let now = SystemTime::now();
    file.set_modified(if back { now - by } else { now + by })
        .unwrap();
}

#[test]
fn bt_warns_of_source_that_may_be_wrong() {
    let hour = Duration::from_secs(3600);
    let workstation = Workstation::new();
    crash(&workstation, "src/app.c", RECURSION, &C, "0");
    let source = workstation.path("src/app.c");
    age(&source, hour, true);
    let right = bt(&workstation, &["--source"]);
    assert!(
        right.contains(">     4 ") || right.contains(">     5 "),
        "{right}"
    );
    assert!(!right.contains("warning"), "{right}");
    age(&source, hour, false);
    let newer = bt(&workstation, &["--source"]);
    let warnings = newer.matches("warning: src/app.c is newer than the program");
    assert_eq!(warnings.count(), 1, "{newer}");
    crash(
        &workstation,
        "src/app.c",
        RECURSION,
        &["sh", "-c", WITH_CHECKSUMS, "sh"],
        "0",
    );
    age(&source, hour, false);
    for _ in 0..2 {
        // The second time from the cache.
        let out = bt_cached(&workstation, &["--source"]);
        assert!(
            out.contains("volatile int x") && !out.contains("warning"),
            "{out}"
        );
    }
    fs::write(&source, RECURSION.replace("x + 1", "x + 2")).unwrap();
    age(&source, hour, true);
    let differs = bt(&workstation, &["--source"]);
    let warning = "warning: src/app.c differs from the source this program was built from (MD5)";
    assert!(differs.contains(warning), "{differs}");
}

#[test]
fn bt_reads_source_below_the_checkout_and_named_directories_only() {
    let workstation = Workstation::new();
    crash(&workstation, "src/app.c", RECURSION, &C, "0");
    let elsewhere = workstation.path("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    let core = workstation.path("core");
    let core = core.to_str().unwrap();
    let run = |words: &[&str]| {
        let mut command = workstation.command(&["bt", core, "--no-cache"]);
        command.args(words).current_dir(&elsewhere);
        command.env("HOME", "/nonexistent");
        workstation.answer(command.output().unwrap())
    };
    let answer = run(&["--source"]);
    assert!(!answer.out.contains("volatile int x"), "{}", answer.out);
    assert!(
        answer
            .err
            .contains("is not shown: no file of that name is below"),
        "{}",
        answer.err
    );
    assert!(answer.err.contains("--source-dir"), "{}", answer.err);
    for option in ["--source-dir", "--source-root"] {
        let answer = run(&[option, ".."]);
        assert!(answer.out.contains("volatile int x"), "{}", answer.out);
        assert_eq!(answer.err, "");
    }
    // The checkout is searched from its top.
    fs::create_dir(workstation.path(".git")).unwrap();
    let answer = run(&["--source"]);
    assert!(answer.out.contains("volatile int x"), "{}", answer.err);
    // The home directory is not a checkout, whatever is in it.
    let mut command = workstation.command(&["bt", core, "--no-cache", "--source"]);
    command.current_dir(&elsewhere);
    let answer = workstation.answer(command.output().unwrap());
    assert!(!answer.out.contains("volatile int x"), "{}", answer.out);
}

#[test]
fn bt_shows_no_hidden_file_that_debug_information_names() {
    let workstation = Workstation::new();
    let secret = workstation.path(".ssh/creds");
    fs::create_dir_all(secret.parent().unwrap()).unwrap();
    fs::write(&secret, "first\ntop secret\nthird\n").unwrap();
    let hostile = format!(
        "int main(void) {{\n#line 2 \"{}\"\n*(volatile int *)0 = 1; }}",
        secret.display()
    );
    crash(&workstation, "src/app.c", &hostile, &C, "");
    fs::create_dir(workstation.path(".git")).unwrap();
    for words in [
        &["--source"][..],
        &["--source-dir", "."],
        &["--source-dir", ".."],
    ] {
        let answer = bt(&workstation, words);
        assert!(!answer.contains("top secret"), "{words:?} {answer}");
    }
}

/// Recurses until its stack is full.
const DEEP: &str = r"
__attribute__((noinline)) static int deeper(volatile char *above) {
    volatile char frame[3000];
    frame[0] = above ? above[0] : 1;
    return deeper(frame) + frame[0];
}
int main(void) { return deeper(0); }
";

#[test]
fn stack_overflow_is_named_by_info_and_bt() {
    let dir = tempfile::tempdir().unwrap();
    let (source, program) = (dir.path().join("deep.c"), dir.path().join("deep"));
    fs::write(&source, DEEP).unwrap();
    let mut cc = Command::new("cc");
    cc.args(["-g", "-o"]).arg(&program).arg(&source);
    assert!(cc.status().expect("install gcc").success());
    let core = dir.path().join("deep.core");
    let made = Command::new("gdb")
        .args(["-q", "-batch", "-ex", "run", "-ex"])
        .arg(format!("generate-core-file {}", core.display()))
        .arg(&program)
        .output();
    assert!(made.expect("install gdb").status.success());
    let workstation = Workstation::new();
    let id = workstation.import(&core);
    for reference in [id.as_str(), core.to_str().unwrap()] {
        for command in ["info", "bt"] {
            let out = workstation.run(&[command, reference]).out;
            assert!(
                out.contains("stack overflow: the address is "),
                "{command}: {out}"
            );
            let json = workstation.json(&[command, reference, "-o", "json"]);
            let found = &json["stack_overflow"];
            assert!(
                found["address"].as_u64() < found["stack_start"].as_u64(),
                "{found}"
            );
        }
    }
    // Another SIGSEGV is not called one.
    let other = super::crash().core();
    let json = workstation.json(&["bt", other.to_str().unwrap(), "-o", "json"]);
    assert_eq!(json["stack_overflow"], serde_json::Value::Null);
}

#[test]
fn bt_says_which_fingerprint_is_listed() {
    let workstation = Workstation::new();
    let id = workstation.import(&super::crash().core());
    let out = workstation.run(&["bt", &id]).out;
    let lines = |out: &str| -> Vec<String> {
        let lines = out.lines().filter(|line| line.starts_with("fingerprint "));
        lines.map(str::to_owned).collect()
    };
    let own = lines(&out);
    assert!(own.len() == 1 && !own[0].contains('('), "{out}");
    // What was listed was computed by another version, or without files.
    workstation.run(&["fetch", &id, "-d", "case"]);
    let manifest = workstation.path("case/manifest.json");
    let text = fs::read_to_string(&manifest).unwrap();
    let mut json: serde_json::Value = serde_json::from_str(&text).unwrap();
    json["fingerprint"] = "0123456789abcdef".into();
    fs::write(&manifest, json.to_string()).unwrap();
    let answer = workstation.run(&["bt", "./case"]);
    let shown = lines(&answer.out);
    assert_eq!(
        shown,
        [
            "fingerprint 0123456789abcdef".to_owned(),
            format!("{} (of the stack below, by this version of cdh)", own[0]),
        ],
        "{}{}",
        answer.out,
        answer.err
    );
    assert_eq!(
        workstation.json(&["bt", "./case", "-o", "json"])["listed_fingerprint"],
        "0123456789abcdef"
    );
}

/// Calls a C function that faults, from a callback of a C function.
const PYTHON: &str = r#"
import ctypes

libc = ctypes.CDLL(None)
Compare = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)


def compare(a, b):
    return fault(8, note="for you")


def fault(address, note):
    values = [1, 2, 3]
    libc.memset(ctypes.c_void_p(address), 0, 16)


def sort(count):
    array = (ctypes.c_int * count)()
    libc.qsort(array, count, 4, Compare(compare))


try:
    raise ValueError("before")
except ValueError:
    sort(3)
"#;

#[test]
fn bt_shows_python_functions_in_place_of_the_interpreter() {
    let found = Command::new("python3")
        .args([
            "-c",
            "import ctypes, sys; print(sys.executable, sys.version_info >= (3, 8))",
        ])
        .output();
    let found = found.map(|found| String::from_utf8_lossy(&found.stdout).into_owned());
    let Some((python, "True")) = found.as_deref().unwrap_or_default().trim().split_once(' ') else {
        eprintln!("skipped: no python3 of version 3.8 or later with ctypes");
        return;
    };
    let workstation = Workstation::new();
    fs::write(workstation.path("sorted.py"), PYTHON).unwrap();
    let core = workstation.path("core");
    let made = Command::new("gdb")
        .args(["-q", "-nx", "-batch", "-ex", "run -I sorted.py", "-ex"])
        .arg(format!("generate-core-file {}", core.display()))
        .arg(python)
        .current_dir(workstation.dir.path())
        .env("DEBUGINFOD_URLS", "")
        .output()
        .expect("install gdb");
    assert!(core.is_file(), "{}", String::from_utf8_lossy(&made.stderr));
    let text = bt(&workstation, &["--locals"]);
    let place = |wanted: &str| {
        text.find(wanted)
            .unwrap_or_else(|| panic!("{wanted}: {text}"))
    };
    place("runtime Python 3.");
    place("exception: ValueError: before [being handled]");
    place("sorted.py:14 [Python]");
    place("values = list of 3 items");
    // The C function is between the two Python functions.
    assert!(place(" fault (address=8, note='for you') at ") < place(" compare ("));
    assert!(place(" compare (") < place("qsort"));
    assert!(place("qsort") < place(" sort (count=3)"));
    assert!(place(" sort (count=3)") < place("sorted.py:25 [Python]"));
    assert!(!text.contains("_PyEval_EvalFrameDefault"), "{text}");

    let json = bt(&workstation, &["-o", "json"]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    let frames = json["backtrace"]["threads"][0]["frames"].as_array();
    let is_fault = |frame: &&serde_json::Value| frame["function"]["raw"] == "fault";
    let fault = frames.unwrap().iter().find(is_fault).unwrap();
    assert_eq!(fault["language"], "Python");
    assert_eq!(fault["location"]["line"], 14);
    let counted = &json["backtrace"]["explanation"]["counted"];
    let expected = serde_json::json!(["sorted.fault", "sorted.compare"]);
    assert_eq!(*counted, expected);
}

/// A core of `handlers.c`, whose handler ran until the program aborted. gdb does not stop at the fault itself.
fn crash_in_a_handler(workstation: &Workstation, arguments: &str) {
    let program = Program::Handlers.build(workstation.dir.path()).unwrap();
    let core = workstation.path("core");
    let made = Command::new("gdb")
        .args(["-q", "-nx", "-batch"])
        .args(["-ex", "handle SIGSEGV SIGFPE nostop noprint pass", "-ex"])
        .arg(format!("run {arguments}"))
        .arg("-ex")
        .arg(format!("generate-core-file {}", core.display()))
        .arg(&program)
        .current_dir(workstation.dir.path())
        .env("DEBUGINFOD_URLS", "")
        .output()
        .expect("install gdb");
    assert!(core.is_file(), "{}", String::from_utf8_lossy(&made.stderr));
}

#[test]
fn bt_shows_the_fault_beneath_a_signal_handler_first() {
    let workstation = Workstation::new();
    crash_in_a_handler(&workstation, "nested divide");
    let folded = bt(&workstation, &["--fold", "--registers"]);
    // The cause comes first.
    let lines = folded
        .lines()
        .skip_while(|line| !line.starts_with("handlers (pid "));
    let lines: Vec<&str> = lines.collect();
    assert!(
        lines[0].contains(": SIGFPE: integer division by zero, at 0x"),
        "{folded}"
    );
    assert_eq!(
        lines[1],
        "signal handler crashed: SIGSEGV: address not mapped, at 0x10"
    );
    assert!(
        lines[2].starts_with("signal handler ended by SIGABRT"),
        "{folded}"
    );
    let json: serde_json::Value = serde_json::from_str(&bt(&workstation, &["-o", "json"])).unwrap();
    let original = &json["original_signal"];
    let frame = original["frame"].as_u64().unwrap();
    assert_eq!(
        (&json["signal"]["name"], &original["signal"]["name"]),
        (&"SIGABRT".into(), &"SIGFPE".into())
    );
    assert_eq!(original["nested"][0]["signal"]["address"], 16);
    let frames = json["backtrace"]["threads"][0]["frames"]
        .as_array()
        .unwrap();
    let first = &frames[usize::try_from(frame).unwrap()];
    assert_eq!(first["function"]["name"], "fault_divide");
    assert_eq!(original["signal"]["address"], first["pc"]);
    let pc = format!("{:#x}", first["pc"].as_u64().unwrap());
    let registers = original["registers"].as_object().unwrap();
    assert!(registers.values().any(|value| *value == pc), "{original}");
    // The handler takes one line, and its registers are not shown.
    let title = format!("    registers of frame #{frame}, at SIGFPE");
    assert!(lines.contains(&title.as_str()), "{folded}");
    let shown = stack(&folded, &workstation);
    let mut shown = shown.lines();
    let handler = shown.next().unwrap();
    assert!(
        handler.starts_with("  #0-#") && handler.contains(" signal handler: "),
        "{handler}"
    );
    assert!(handler.contains("on_nested"), "{handler}");
    let first = shown.next().unwrap();
    assert!(
        first.contains(" fault_divide ") && first.contains("handlers.c:"),
        "{folded}"
    );
    let whole = bt(&workstation, &["--no-fold"]);
    assert!(
        whole.contains(" crash_in_handler ") && whole.contains(" on_nested "),
        "{whole}"
    );
    // Frames that were asked for are those of the crash.
    let short = bt(&workstation, &["--no-fold", "--limit", "2"]);
    assert!(
        short.contains(" fault_divide ") && short.contains(" work "),
        "{short}"
    );
    assert!(
        !short.contains(" main (") && !short.contains(" main at"),
        "{short}"
    );
}

#[test]
fn imported_core_is_listed_by_the_fault_beneath_its_handler() {
    let workstation = Workstation::new();
    crash_in_a_handler(&workstation, "abort-alternate null");
    let id = workstation.import(&workstation.path("core"));
    let row = workstation.json(&["ls", "-o", "json"]);
    assert_eq!(row[0]["signal"], "SIGSEGV", "{row}");
    let info = workstation.run(&["info", &id]).out;
    assert!(
        info.contains("SIGSEGV: address not mapped, at 0x8"),
        "{info}"
    );
    assert!(info.contains("ended by SIGABRT"), "{info}");
    let json = workstation.json(&["info", &id, "-o", "json"]);
    let of_info = &json["manifest"];
    assert_eq!(of_info["original_signal"]["name"], "SIGSEGV", "{json}");
    assert_eq!(of_info["signal"]["name"], "SIGABRT", "{json}");
}
