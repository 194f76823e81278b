//! Cores of other machines and systems, and of programs whose files are gone: what is not known is said.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use super::Workstation;
use super::backtrace::crash;

const MIPS64: u16 = 8;

fn note(owner: &str, kind: u32, data: &[u8]) -> Vec<u8> {
    let mut note = Vec::new();
    for word in [owner.len() as u32 + 1, data.len() as u32, kind] {
        note.extend(word.to_le_bytes());
    }
    note.extend(owner.as_bytes());
    note.resize((note.len() + 1).next_multiple_of(4), 0);
    note.extend(data);
    note.resize(note.len().next_multiple_of(4), 0);
    note
}

/// A core of a 64-bit process that has notes and no memory.
fn wide_core(workstation: &Workstation, machine: u16, notes: &[Vec<u8>]) -> PathBuf {
    let notes = notes.concat();
    let mut bytes = vec![0; 120];
    bytes[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
    bytes[16] = 4;
    bytes[18..20].copy_from_slice(&machine.to_le_bytes());
    (bytes[32], bytes[54], bytes[56], bytes[64], bytes[72]) = (64, 56, 1, 4, 120);
    bytes[96..104].copy_from_slice(&(notes.len() as u64).to_le_bytes());
    bytes.extend(notes);
    let path = workstation.path("core");
    fs::write(&path, bytes).unwrap();
    path
}

/// A core of a 32-bit process that was aborted.
fn narrow_core(workstation: &Workstation) -> PathBuf {
    let mut status = vec![0; 144];
    (status[12], status[24]) = (6, 23);
    let mut info = vec![0; 124];
    info[12] = 23;
    info[28..34].copy_from_slice(b"parser");
    info[44..50].copy_from_slice(b"parser");
    let notes = [note("CORE", 1, &status), note("CORE", 3, &info)].concat();
    let mut bytes = vec![0; 84];
    bytes[..7].copy_from_slice(b"\x7fELF\x01\x01\x01");
    (bytes[16], bytes[18], bytes[28], bytes[42], bytes[44]) = (4, 3, 52, 32, 1);
    (bytes[52], bytes[56]) = (4, 84);
    bytes[68..72].copy_from_slice(&(notes.len() as u32).to_le_bytes());
    bytes.extend(notes);
    let path = workstation.path("core");
    fs::write(&path, bytes).unwrap();
    path
}

#[test]
fn core_of_another_system_is_refused_by_name() {
    let workstation = Workstation::new();
    let cases = [
        (note("FreeBSD", 1, &[0; 256]), "a core of FreeBSD"),
        (note("NetBSD-CORE", 1, &[0; 256]), "a core of NetBSD"),
        (
            note("VMCOREINFO", 0, b"PAGESIZE=4096"),
            "a dump of a Linux kernel",
        ),
    ];
    for (note, name) in cases {
        let core = wide_core(&workstation, 62, &[note]);
        for command in ["bt", "info", "import"] {
            let answer = workstation.run(&[command, core.to_str().unwrap()]);
            assert_eq!(answer.code, 2, "{command}: {}", answer.out);
            assert!(answer.err.contains(name), "{command}: {}", answer.err);
            assert!(answer.err.contains("hint: open it with"), "{}", answer.err);
        }
    }
}

#[test]
fn bt_says_that_stacks_of_a_machine_are_not_unwound() {
    let workstation = Workstation::new();
    let mut status = vec![0; 336];
    (status[12], status[32]) = (11, 7);
    let core = wide_core(&workstation, MIPS64, &[note("CORE", 1, &status)]);
    let core = core.to_str().unwrap();
    let answer = workstation.run(&["bt", core]);
    assert_eq!(answer.code, 2);
    let said = "stacks of mips64el are not unwound: open the core with `cdh debug`";
    assert!(answer.out.contains(said), "{}", answer.out);
    assert!(!answer.out.contains("no way to find"), "{}", answer.out);
    let info = workstation.run(&["info", core]);
    assert!(info.out.contains("mips64el"), "{}", info.out);
    let debug = workstation.run(&["debug", "--print", core]);
    let names_it = debug.out.starts_with("gdb-multiarch ") || debug.err.contains("gdb-multiarch");
    assert!(names_it, "{}{}", debug.out, debug.err);
}

#[test]
fn core_of_a_32_bit_process_is_imported_fetched_and_debugged() {
    let workstation = Workstation::new();
    let id = workstation.import(&narrow_core(&workstation));
    let info = workstation.run(&["info", &id]).out;
    for fact in ["i386", "SIGABRT", "parser (pid 23"] {
        assert!(info.contains(fact), "{fact}: {info}");
    }
    let fetched = workstation.run(&["fetch", &id]);
    assert_eq!(fetched.code, 0, "{}", fetched.err);
    let debug = workstation.run(&["debug", "--print", &id]);
    assert_eq!(debug.code, 0, "{}", debug.err);
    assert!(debug.out.contains("--core="), "{}", debug.out);
    let bt = workstation.run(&["bt", &id]);
    assert_eq!(bt.code, 0, "{}", bt.err);
    assert!(bt.out.contains("thread 23 (crashed)"), "{}", bt.out);
}

#[test]
fn gcore_of_a_live_process_has_no_crashed_thread() {
    let workstation = Workstation::new();
    let mut child = Command::new("sleep").arg("600").spawn().unwrap();
    let core = workstation.path("core");
    let made = Command::new("gdb")
        .args(["-q", "-nx", "-batch", "-p", &child.id().to_string(), "-ex"])
        .arg(format!("generate-core-file {}", core.display()))
        .output();
    child.kill().unwrap();
    child.wait().unwrap();
    made.expect("install gdb");
    let bt = workstation.run(&["bt", core.to_str().unwrap()]);
    assert!(
        bt.out.contains("no signal: the process was alive"),
        "{}",
        bt.out
    );
    assert!(bt.out.contains("  #0 "), "{}", bt.out);
    assert!(!bt.out.contains("(crashed)"), "{}", bt.out);
}

/// Loads a plugin, deletes it, and crashes in it.
const HOST: &str = r#"
#include <dlfcn.h>
#include <unistd.h>
__attribute__((noinline)) int serve(int (*run)(int *), int *p) { return run(p) + 1; }
int main(void) {
    void *plugin = dlopen("./plugin.so", RTLD_NOW);
    int (*run)(int *) = (int (*)(int *))dlsym(plugin, "run");
    unlink("./plugin.so");
    return serve(run, 0) + 1;
}
"#;
const PLUGIN: &str = r"
static __attribute__((noinline)) int load(volatile int *p) { return *p; }
int run(int *p) { volatile char work[6000]; work[0] = 1; return load(p) + work[0]; }
";

#[test]
fn callers_of_a_deleted_library_are_guessed_and_marked() {
    let workstation = Workstation::new();
    fs::write(workstation.path("plugin.c"), PLUGIN).unwrap();
    let mut build = Command::new("gcc");
    build.args([
        "-O2",
        "-shared",
        "-fPIC",
        "-Wl,--build-id",
        "-o",
        "plugin.so",
        "plugin.c",
    ]);
    assert!(
        build
            .current_dir(workstation.dir.path())
            .status()
            .unwrap()
            .success()
    );
    let compiler = ["gcc", "-g", "-O1", "-Wl,--build-id"];
    let core = crash(&workstation, "host.c", HOST, &compiler, "");
    let bt = workstation
        .run(&["bt", "--no-cache", core.to_str().unwrap()])
        .out;
    let lines: Vec<&str> = bt.lines().filter(|line| line.starts_with("  #")).collect();
    assert!(
        lines[0].contains("(its file was not found) in plugin.so"),
        "{bt}"
    );
    assert!(lines[1].contains(" serve ("), "{bt}");
    assert!(lines[2].contains(" main ("), "{bt}");
    let guessed = lines.iter().skip(1);
    assert!(
        guessed
            .clone()
            .all(|line| line.contains("[guessed from the stack]")),
        "{bt}"
    );
    assert!(lines.last().unwrap().contains(" _start"), "{bt}");
}
