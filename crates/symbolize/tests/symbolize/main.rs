//! Backtraces of real cores against gdb's, and hostile files against the rule that nothing panics.

// A failed test or task may panic; nothing of this ships.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used
)]

mod against_addr2line;
mod files;
mod handlers;
mod hostile;
mod machines;

use std::path::{Path, PathBuf};
use std::process::Command;

use cdh_elfcore::{CoreFile, MappedFile, ModuleKind, Registers};
use cdh_symbolize::{
    Backtrace, BacktraceOptions, Frame, FrameTrust, LoadedModule, ModuleStatus, Need, Reason,
    SectionArena, Stop, Symbolizer, UnwoundFrame, backtrace, module_needs,
};

/// A program built in a directory of its own, run there until it dumps core.
struct Crash {
    dir: tempfile::TempDir,
    program: PathBuf,
    core: PathBuf,
}

impl Crash {
    fn of(source: &str, compiler: &str, flags: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let name = if compiler == "g++" {
            "program.cc"
        } else {
            "program.c"
        };
        std::fs::write(dir.path().join(name), source).unwrap();
        let program = dir.path().join("program");
        let build = Command::new(compiler)
            .current_dir(dir.path())
            .args(flags)
            .args(["-o", "program", name, "-lpthread"])
            .output()
            .unwrap();
        assert!(
            build.status.success(),
            "{}",
            String::from_utf8_lossy(&build.stderr)
        );
        let core = crash(dir.path(), "./program");
        Self { dir, program, core }
    }

    /// Frames of thread 1, or of all threads, as gdb prints them: `name file:line`.
    fn gdb(&self, all: bool) -> Vec<Vec<String>> {
        let command = if all {
            "thread apply all -ascending bt"
        } else {
            "bt"
        };
        let output = Command::new("gdb")
            .args(["-nx", "-batch", "-iex", "set debuginfod enabled off"])
            .args([
                "-iex",
                "set auto-load off",
                "-iex",
                "set width 0",
                "-iex",
                "set backtrace past-main on",
            ])
            .args(["-iex", "set print frame-arguments none", "-ex", command])
            .args([&self.program, &self.core])
            .output()
            .unwrap();
        let mut threads = vec![Vec::new()];
        for line in String::from_utf8_lossy(&output.stdout).lines() {
            if all && line.starts_with("Thread ") {
                threads.push(Vec::new());
            }
            if line.starts_with("Backtrace stopped") || !line.starts_with('#') {
                continue;
            }
            let rest = line.split_once(' ').unwrap().1.trim_start();
            let rest = match rest.split_once(" in ") {
                Some((address, rest)) if address.starts_with("0x") => rest,
                _ => rest,
            };
            let name = if rest.starts_with("<signal") {
                "<signal>"
            } else {
                rest
            };
            let name = name.split(" (").next().unwrap();
            // `at ./nptl/pthread_kill.c:44`: the file's own name and the line.
            let place = line
                .rsplit_once(" at ")
                .map(|(_, place)| place.rsplit('/').next().unwrap());
            threads
                .last_mut()
                .unwrap()
                .push(described(name, place.map(str::to_owned)));
        }
        // gdb prints the current frame once before the stack.
        if threads[0].first() == threads[0].get(1) && !all {
            threads[0].remove(0);
        }
        if all {
            threads.remove(0);
        }
        threads
    }

    fn ours(&self) -> Backtrace {
        trace(&self.core, &|path| path.to_owned())
    }
}

fn crash(dir: &Path, program: &str) -> PathBuf {
    // Others may have had the kernel send its cores elsewhere.
    let lock = cdh_testkit::KernelSettingsLock::acquire().unwrap();
    if lock.is_some() {
        std::fs::write("/proc/sys/kernel/core_pattern", "core").unwrap();
    }
    let shell = format!("ulimit -c unlimited; exec {program}");
    let status = Command::new("sh")
        .current_dir(dir)
        .args(["-c", &shell])
        .output()
        .unwrap()
        .status;
    assert!(!status.success());
    let found = |entry: &std::fs::DirEntry| entry.file_name().to_string_lossy().starts_with("core");
    let core = std::fs::read_dir(dir)
        .unwrap()
        .filter_map(Result::ok)
        .find(found);
    core.expect("the kernel writes cores where the process runs (core_pattern `core`)")
        .path()
}

/// Backtrace of a core; files are looked up through `locate`, debug files under /usr/lib/debug.
fn trace(core: &Path, locate: &dyn Fn(&Path) -> PathBuf) -> Backtrace {
    let core = CoreFile::open(Box::new(MappedFile::open(core).unwrap())).unwrap();
    let modules = core.modules();
    let files: Vec<Option<MappedFile>> = modules
        .iter()
        .map(|module| MappedFile::open(&locate(Path::new(&module.display_path()))).ok())
        .collect();
    let mut debug_files = Vec::new();
    let arena = SectionArena::new();
    let load = |(module, file)| match file {
        Some(file) => LoadedModule::from_file(module, MappedFile::bytes(file)),
        None => LoadedModule::missing(module),
    };
    let mut loaded: Vec<LoadedModule<'_>> = modules
        .iter()
        .zip(files.iter().map(Option::as_ref))
        .map(load)
        .collect();
    let options = BacktraceOptions {
        signal: core.head().signal(),
        ..BacktraceOptions::default()
    };
    let threads = core.head().threads();
    for need in module_needs(threads, &core, &loaded, &arena, &options) {
        if let Need::DebugFile {
            build_id: Some(id), ..
        } = &need.what
        {
            let id = id.to_string();
            let path = format!("/usr/lib/debug/.build-id/{}/{}.debug", &id[..2], &id[2..]);
            debug_files.push((
                need.module,
                need.what,
                MappedFile::open(Path::new(&path)).ok(),
            ));
        }
    }
    for (module, need, file) in &debug_files {
        let object = file
            .as_ref()
            .map(|file| cdh_elfcore::ElfObject::parse(file.bytes()).unwrap());
        loaded[*module].debug = object.filter(|object| need.accepts(object));
    }
    backtrace(threads, &core, &loaded, &arena, &options)
}

fn described(name: &str, place: Option<String>) -> String {
    place.map_or(name.to_owned(), |place| format!("{name} {place}"))
}

/// Frames of a thread as `name file:line`, as [`Crash::gdb`] gives them.
fn lines(backtrace: &Backtrace, thread: usize) -> Vec<String> {
    let line = |frame: &Frame| {
        if frame.signal_handler {
            return "<signal>".to_owned();
        }
        let name = frame
            .function
            .as_ref()
            .map_or("??", |function| &function.name);
        let place = frame.location.as_ref();
        let place = place.map(|at| format!("{}:{}", at.file.rsplit('/').next().unwrap(), at.line));
        described(name, place)
    };
    backtrace.threads[thread].frames.iter().map(line).collect()
}

fn assert_like_gdb(crash: &Crash) -> Backtrace {
    let ours = crash.ours();
    assert_eq!(lines(&ours, 0), crash.gdb(false)[0]);
    ours
}

const CHAIN: &str = r#"
#include <stdlib.h>
volatile int sink;
__attribute__((noinline)) void inner(int *p) { sink = 1; *p = 3; sink = 2; }
static inline __attribute__((always_inline)) void inlined(int *p) { sink = 4; inner(p); sink = 5; }
__attribute__((noinline)) void middle(int depth, int *p) {
    char buffer[depth + 16];
    sink = buffer[depth];
    if (depth > 0) { middle(depth - 1, p); } else { inlined(p); }
    sink = 6;
}
int main(void) { middle(3, (int *)sink); return 0; }
"#;

#[test]
fn stacks_of_every_optimisation_equal_gdbs() {
    for flags in [
        &["-O0", "-g"][..],
        &["-O2", "-g"],
        &["-O2", "-g", "-fomit-frame-pointer"],
        &[
            "-O2",
            "-g",
            "-fno-asynchronous-unwind-tables",
            "-fno-unwind-tables",
        ],
        &["-O2", "-g", "-static"],
        &["-O2", "-g", "-no-pie"],
        &["-O2", "-gdwarf-4", "-gz"],
        &["-O1", "-g3", "-fdebug-types-section"],
        &["-O2"],
    ] {
        let crash = Crash::of(CHAIN, "gcc", flags);
        let ours = crash.ours();
        assert_eq!(lines(&ours, 0), crash.gdb(false)[0], "{flags:?}");
    }
}

#[test]
fn signal_handler_on_its_own_stack_leads_back_to_what_it_interrupted() {
    let crash = Crash::of(
        r#"
#include <signal.h>
#include <stdlib.h>
volatile int sink;
static char stack[65536];
__attribute__((noinline)) void in_handler(void) { sink = 1; *(volatile int *)8 = 1; sink = 2; }
static void handler(int n) { in_handler(); sink = n; }
__attribute__((noinline)) void victim(int n) { if (n) raise(SIGUSR1); sink = n; }
int main(int argc, char **argv) {
    stack_t s = {.ss_sp = stack, .ss_size = sizeof stack};
    sigaltstack(&s, 0);
    struct sigaction a = {.sa_handler = handler, .sa_flags = SA_ONSTACK};
    sigaction(SIGUSR1, &a, 0);
    victim(argc);
    return 0;
}"#,
        "gcc",
        &["-O1", "-g"],
    );
    let ours = assert_like_gdb(&crash);
    let frames = &ours.threads[0].frames;
    let after = frames
        .iter()
        .position(|frame| frame.signal_handler)
        .unwrap()
        + 1;
    assert_eq!(frames[after].trust, FrameTrust::Signal);
    assert!(!frames[after].is_return_address);
}

#[test]
fn call_of_a_null_pointer_keeps_its_callers() {
    let crash = Crash::of(
        r#"
volatile int sink;
void (*volatile hook)(void);
__attribute__((noinline)) void caller(void) { sink = 1; hook(); sink = 2; }
int main(void) { caller(); return 0; }"#,
        "gcc",
        &["-O2", "-g"],
    );
    let ours = assert_like_gdb(&crash);
    let frames = &ours.threads[0].frames;
    assert_eq!(frames[0].function, Err(Reason::NoModule));
    assert_eq!(frames[1].trust, FrameTrust::BadCall);
    assert_eq!(ours.threads[0].stop, Stop::End);
}

#[test]
fn abort_and_failed_assertion_are_named_to_the_last_libc_frame() {
    let crash = Crash::of(
        "#include <assert.h>\nint main(int c, char **v) { assert(c == 7); return 0; }",
        "gcc",
        &["-O2", "-g"],
    );
    assert_like_gdb(&crash);
}

#[test]
fn all_threads_are_unwound_like_gdbs() {
    let crash = Crash::of(
        r#"
#include <pthread.h>
#include <unistd.h>
volatile int sink;
static pthread_barrier_t barrier;
static void *run(void *argument) {
    pthread_barrier_wait(&barrier);
    if (argument) { usleep(200000); sink = *(int *)8; }
    for (;;) pause();
}
int main(void) {
    pthread_t threads[8];
    pthread_barrier_init(&barrier, 0, 8);
    for (long n = 0; n < 8; n++) pthread_create(&threads[n], 0, run, n == 5 ? (void *)1 : 0);
    pthread_join(threads[0], 0);
    return 0;
}"#,
        "gcc",
        &["-O1", "-g"],
    );
    let ours = crash.ours();
    let ours: Vec<Vec<String>> = (0..ours.threads.len()).map(|n| lines(&ours, n)).collect();
    assert_eq!(ours.len(), 9);
    assert_eq!(ours, crash.gdb(true));
}

#[test]
fn cpp_names_are_those_of_the_source() {
    let crash = Crash::of(
        r#"
#include <stdexcept>
#include <vector>
namespace app {
struct Parser {
    template <typename T> __attribute__((noinline)) void parse(const std::vector<T> &v) {
        auto check = [&](int n) __attribute__((noinline)) {
            if (n > (int)v.size()) *(volatile int *)8 = n;
        };
        check(9);
    }
};
}
namespace { __attribute__((noinline)) void hidden() { app::Parser().parse(std::vector<int>(3)); } }
int main() { hidden(); return 0; }"#,
        "g++",
        &["-O0", "-g"],
    );
    let ours = crash.ours();
    let mut expected = crash.gdb(false).remove(0);
    // gdb has its own way to write a lambda.
    let lambda = expected[0].clone();
    assert!(lambda.contains("parse"), "{lambda}");
    expected.remove(0);
    assert_eq!(lines(&ours, 0)[1..], expected);
    assert!(lines(&ours, 0)[0].contains("parse"));
}

#[test]
fn endless_recursion_stops_at_the_limit_and_has_the_fingerprint_of_any_depth() {
    let source = r#"
volatile int sink;
__attribute__((noinline)) int down(int n) { char b[SIZE]; b[n & 7] = n; sink = b[1]; return down(n + 1) + b[2]; }
int main(void) { return down(1); }"#;
    let small = Crash::of(source, "gcc", &["-O1", "-g", "-DSIZE=64"]).ours();
    let large = Crash::of(source, "gcc", &["-O1", "-g", "-DSIZE=4096"]).ours();
    assert_eq!(small.threads[0].stop, Stop::Limit);
    assert_eq!(small.threads[0].frames.len(), 16 << 10);
    assert_eq!(large.threads[0].stop, Stop::End);
    assert!(large.fingerprint.is_some());
    assert_eq!(small.fingerprint, large.fingerprint);
}

#[test]
fn fingerprint_does_not_depend_on_debug_information_or_frames_shown() {
    let crash = Crash::of(CHAIN, "gcc", &["-O2", "-g"]);
    let with = crash.ours();
    assert!(with.threads[0].frames.iter().any(|frame| frame.inline));
    assert!(with.fingerprint.is_some());
    let program = crash.dir.path().join("program");
    let strip = |option: &str| {
        let mut command = std::process::Command::new("objcopy");
        let status = command.arg(option).arg(&program).status().unwrap();
        assert!(status.success());
    };
    strip("--strip-debug");
    let without = crash.ours();
    assert!(!without.threads[0].frames.iter().any(|frame| frame.inline));
    assert_eq!(with.fingerprint, without.fingerprint);
    assert_eq!(with.explanation, without.explanation);
    // A stack that runs through a missing file could have any number of frames there.
    let missing = trace(&crash.core, &|path| match path.ends_with("program") {
        true => PathBuf::from("/nowhere"),
        false => path.to_owned(),
    });
    assert_eq!(missing.fingerprint, None);
}

#[test]
fn fingerprint_tells_bugs_apart_and_is_one_for_builds_hosts_and_cut_cores() {
    let source = r#"
#include <stdlib.h>
#include <string.h>
volatile int sink;
struct request { int kind; char *text; };
__attribute__((noinline)) static void copy(char *to, const char *from) { sink = 1; *to = *from; sink = 2; }
__attribute__((noinline)) static void parse(struct request *r) { copy(r->text, "x"); sink = 3; }
__attribute__((noinline)) static void check(struct request *r) { if (r->kind) abort(); }
__attribute__((noinline)) static void serve(struct request *r) { if (r->kind == 2) check(r); parse(r); sink = 4; }
int main(int argc, char **argv) { struct request r = {argc > 1 ? 2 : 1, 0}; serve(&r); return 0; }"#;
    let first = Crash::of(source, "gcc", &["-O0", "-g"]);
    let print = |backtrace: &Backtrace| backtrace.fingerprint.clone().unwrap();
    let bug = print(&first.ours());
    // Another build: other compiler settings, other offsets, another path and, by ASLR, other addresses.
    let padded = source.replace(
        "struct request {",
        "int padding[100] = {1};\nstruct request {",
    );
    let second = Crash::of(
        &padded,
        "gcc",
        &["-O2", "-g", "-no-pie", "-fno-omit-frame-pointer"],
    );
    assert_eq!(print(&second.ours()), bug);
    // Another host, without debug files: symbols only.
    let third = Crash::of(source, "gcc", &["-O1"]);
    assert_eq!(print(&third.ours()), bug);
    // What a node knows of the stripped one's builds, when there is a symbol table.
    let at_the_crash = |crash: &Crash| {
        let core = CoreFile::open(Box::new(MappedFile::open(&crash.core).unwrap())).unwrap();
        let modules = core.modules();
        let open =
            |module: &cdh_elfcore::Module| MappedFile::open(Path::new(&module.display_path())).ok();
        let files: Vec<_> = modules.iter().map(open).collect();
        let load = |(module, file): (_, &Option<MappedFile>)| match file {
            Some(file) => LoadedModule::from_file(module, Box::leak(file.bytes().to_vec().into())),
            None => LoadedModule::missing(module),
        };
        let loaded: Vec<_> = modules.iter().zip(&files).map(load).collect();
        let unwinder = cdh_symbolize::Unwinder::new(&loaded);
        let (frames, stop) = unwinder.unwind(&core.head().threads()[0].registers, &core, 64);
        cdh_symbolize::Fingerprint::from_stack(&frames, stop, None, &loaded).unwrap()
    };
    assert_eq!(at_the_crash(&first).counted, ["copy", "parse"]);
    assert_eq!(at_the_crash(&first).fingerprint, bug);
    assert_eq!(
        at_the_crash(&second).fingerprint,
        at_the_crash(&third).fingerprint
    );
    // A core that was cut has the same, or admits that it has none.
    let whole = std::fs::read(&first.core).unwrap();
    for part in [50, 80, 90, 95, 99] {
        let cut = first.dir.path().join("cut");
        std::fs::write(&cut, &whole[..whole.len() * part / 100]).unwrap();
        let ours = trace(&cut, &|path| path.to_owned());
        assert!(
            ours.fingerprint.is_none() || ours.fingerprint.as_ref() == Some(&bug),
            "{part}"
        );
    }
    // Another bug of the same program.
    std::fs::remove_file(&first.core).unwrap();
    let other = trace(&crash(first.dir.path(), "./program 1"), &|path| {
        path.to_owned()
    });
    assert_ne!(print(&other), bug);
    let counted = other.explanation.unwrap();
    assert_eq!(counted.counted, ["check", "serve"]);
    assert_eq!(counted.skipped, ["libc.so.6"]);
}
