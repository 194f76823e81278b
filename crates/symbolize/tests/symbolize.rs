//! Backtraces of real cores against gdb's, and hostile files against the rule that nothing panics.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::{Path, PathBuf};
use std::process::Command;

use cdh_elfcore::{CoreFile, MappedFile, ModuleKind};
use cdh_symbolize::{
    Backtrace, BacktraceOptions, FrameTrust, LoadedModule, ModuleStatus, Need, Reason,
    SectionArena, Stop, backtrace, module_needs,
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
        let name = if compiler == "g++" { "program.cc" } else { "program.c" };
        std::fs::write(dir.path().join(name), source).unwrap();
        let program = dir.path().join("program");
        let build = Command::new(compiler)
            .current_dir(dir.path())
            .args(flags)
            .args(["-o", "program", name, "-lpthread"])
            .output()
            .unwrap();
        assert!(build.status.success(), "{}", String::from_utf8_lossy(&build.stderr));
        let core = crash(dir.path(), "./program");
        Self { dir, program, core }
    }

    /// Function names of thread 1 as gdb tells them, `<signal handler called>` included.
    fn gdb(&self, all: bool) -> Vec<Vec<String>> {
        let command = if all { "thread apply all -ascending bt" } else { "bt" };
        let output = Command::new("gdb")
            .args(["-nx", "-batch", "-iex", "set debuginfod enabled off"])
            .args(["-iex", "set auto-load off", "-iex", "set width 0", "-iex", "set backtrace past-main on"])
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
            let name = if rest.starts_with("<signal") { "<signal>" } else { rest };
            let name = name.split(" (").next().unwrap();
            threads.last_mut().unwrap().push(name.to_owned());
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
    let shell = format!("ulimit -c unlimited; exec {program}");
    let status = Command::new("sh").current_dir(dir).args(["-c", &shell]).output().unwrap().status;
    assert!(!status.success());
    let found = |entry: &std::fs::DirEntry| entry.file_name().to_string_lossy().starts_with("core");
    let core = std::fs::read_dir(dir).unwrap().filter_map(Result::ok).find(found);
    core.expect("the kernel writes cores where the process runs (core_pattern `core`)").path()
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
    let mut loaded: Vec<LoadedModule<'_>> =
        modules.iter().zip(files.iter().map(Option::as_ref)).map(load).collect();
    let options = BacktraceOptions::default();
    let threads = core.head().threads();
    for need in module_needs(threads, &core, &loaded, &arena, &options) {
        if let Need::DebugFile { build_id: Some(id), .. } = &need.what {
            let id = id.to_string();
            let path = format!("/usr/lib/debug/.build-id/{}/{}.debug", &id[..2], &id[2..]);
            debug_files.push((need.module, need.what, MappedFile::open(Path::new(&path)).ok()));
        }
    }
    for (module, need, file) in &debug_files {
        let object = file.as_ref().map(|file| cdh_elfcore::ElfObject::parse(file.bytes()).unwrap());
        loaded[*module].debug = object.filter(|object| need.accepts(object));
    }
    backtrace(threads, &core, &loaded, &arena, &options)
}

fn names(backtrace: &Backtrace, thread: usize) -> Vec<String> {
    let name = |frame: &cdh_symbolize::Frame| match &frame.function {
        _ if frame.signal_handler => "<signal>".to_owned(),
        Ok(function) => function.name.clone(),
        Err(_) => "??".to_owned(),
    };
    backtrace.threads[thread].frames.iter().map(name).collect()
}

fn assert_like_gdb(crash: &Crash) -> Backtrace {
    let ours = crash.ours();
    assert_eq!(names(&ours, 0), crash.gdb(false)[0]);
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
        &["-O2", "-g", "-fno-asynchronous-unwind-tables", "-fno-unwind-tables"],
        &["-O2", "-g", "-static"],
        &["-O2", "-g", "-no-pie"],
        &["-O2", "-gdwarf-4", "-gz"],
        &["-O1", "-g3", "-fdebug-types-section"],
        &["-O2"],
    ] {
        let crash = Crash::of(CHAIN, "gcc", flags);
        let ours = crash.ours();
        assert_eq!(names(&ours, 0), crash.gdb(false)[0], "{flags:?}");
    }
}
