//! Files compared with cores of real crashes: the ones that were mapped, and others with their build-id.

// A failed test or task may panic; nothing of this ships.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used
)]

use std::path::{Path, PathBuf};
use std::process::Command;

use cdh_elfcore::{
    ComparedPages, CoreFile, Disagreement, ElfObject, Module, ModuleKind, compare_module,
};

/// Has all of its mappings dumped, and writes breakpoints into its own code where it is built with `PATCH`.
const PROGRAM: &str = r#"
#include <stdio.h>
#include <sys/mman.h>
#ifndef ANSWER
#define ANSWER 42
#endif
static int table[4096] = { 1 };
static const char text[8192] = { 'a', 'b' };
int answer(int n) { return n * ANSWER + table[n] + text[n]; }
int patched(int n) { return n * 3; }
int main(int argc, char **argv) {
    FILE *filter = fopen("/proc/self/coredump_filter", "w");
    fputs("0x7f", filter);
    fclose(filter);
#ifdef PATCH
    unsigned char *page = (unsigned char *)((unsigned long)patched & -4096);
    mprotect(page, 8192, PROT_READ | PROT_WRITE | PROT_EXEC);
    *(unsigned char *)patched = 0xcc;
    mprotect(page, 8192, PROT_READ | PROT_EXEC);
#endif
    *(volatile int *)0x10 = answer(argc);
}
"#;

fn compile(dir: &Path, name: &str, flags: &[&str]) -> PathBuf {
    let source = dir.join("p.c");
    std::fs::write(&source, PROGRAM).unwrap();
    let program = dir.join(name);
    let mut gcc = Command::new("gcc");
    gcc.args(["-g", "-w", "-Wl,--build-id=0x0123456789abcdef"]);
    gcc.args(flags).arg("-o").arg(&program).arg(&source);
    assert!(gcc.status().unwrap().success(), "{flags:?}");
    program
}

/// A core of `program` with all of its files' pages.
fn core_of(program: &Path) -> Option<CoreFile> {
    let core = program.with_extension("core");
    let made = Command::new("gdb")
        .args(["-q", "-nx", "-batch", "-ex", "run", "-ex"])
        .arg(format!("generate-core-file {}", core.display()))
        .arg(program)
        .output();
    if made.is_err() {
        eprintln!("skipped: gdb is not installed");
        return None;
    }
    Some(CoreFile::open(Box::new(std::fs::read(core).unwrap())).unwrap())
}

fn executable(core: &CoreFile) -> Module {
    let mut modules = core.modules().into_iter();
    modules
        .find(|module| module.kind == ModuleKind::Executable)
        .unwrap()
}

fn compare(core: &CoreFile, module: &Module, file: &[u8]) -> Result<ComparedPages, Disagreement> {
    compare_module(core.head(), core, module, &ElfObject::parse(file).unwrap())
}

#[test]
fn files_that_were_mapped_agree_and_others_with_their_build_id_do_not() {
    let dir = tempfile::tempdir().unwrap();
    let program = compile(dir.path(), "p", &[]);
    let Some(core) = core_of(&program) else {
        return;
    };
    for module in core.modules() {
        if module.kind != ModuleKind::Vdso {
            let file = std::fs::read(module.display_path()).unwrap();
            let pages = compare(&core, &module, &file).unwrap();
            assert!(pages.equal > 2, "{}: {pages:?}", module.display_path());
            assert_eq!(pages.patched, 0, "{}", module.display_path());
        }
    }
    let module = executable(&core);
    let file = std::fs::read(&program).unwrap();
    let id = |file: &[u8]| ElfObject::parse(file).unwrap().build_id();

    let stripped = dir.path().join("stripped");
    let mut strip = Command::new("strip");
    strip.arg("-o").args([&stripped, &program]);
    assert!(strip.status().unwrap().success());
    let stripped = std::fs::read(stripped).unwrap();
    assert_ne!(stripped.get(..64), file.get(..64));
    compare(&core, &module, &stripped).unwrap();

    // The same layout, one other constant in many places; another layout; another machine.
    let other = std::fs::read(compile(dir.path(), "other", &["-Os", "-DANSWER=43"])).unwrap();
    assert_eq!(id(&other), id(&file));
    let refused = compare(&core, &module, &other).unwrap_err();
    assert!(
        matches!(
            refused,
            Disagreement::Headers | Disagreement::Contents { .. }
        ),
        "{refused}"
    );
    let text = ElfObject::parse(&file).unwrap();
    let text = text.section(".text").unwrap().offset.0 as usize;
    let mut planted = file.clone();
    planted[text..text + 200].fill(0x90);
    let refused = compare(&core, &module, &planted).unwrap_err();
    assert!(
        matches!(refused, Disagreement::Contents { .. }),
        "{refused}"
    );
    let mut writable = planted.clone();
    // The first PT_LOADs become writable, so that nothing would be compared.
    for header in 0..12 {
        writable[64 + header * 56 + 4] |= 2;
    }
    assert_eq!(
        compare(&core, &module, &writable).unwrap_err(),
        Disagreement::Headers
    );
    let mut foreign = file.clone();
    foreign[18] = 183;
    assert!(matches!(
        compare(&core, &module, &foreign).unwrap_err(),
        Disagreement::Machine { .. }
    ));
    let cut = compare(&core, &module, &file[..4096]).unwrap_err();
    assert!(
        matches!(
            cut,
            Disagreement::Short { .. } | Disagreement::Contents { .. }
        ),
        "{cut}"
    );
}

#[test]
fn breakpoints_and_text_relocations_do_not_refuse_the_right_file() {
    let dir = tempfile::tempdir().unwrap();
    let patched = compile(dir.path(), "patched", &["-DPATCH"]);
    let Some(core) = core_of(&patched) else {
        return;
    };
    let module = executable(&core);
    let file = std::fs::read(&patched).unwrap();
    let pages = compare(&core, &module, &file).unwrap();
    assert_eq!(pages.patched, 1, "{pages:?}");

    let flags = [
        "-DPATCH",
        "-fno-pic",
        "-mcmodel=large",
        "-pie",
        "-Wl,-z,notext",
    ];
    let relocated = compile(dir.path(), "relocated", &flags);
    let module_and_core = core_of(&relocated).map(|core| (executable(&core), core));
    let (module, core) = module_and_core.unwrap();
    let file = std::fs::read(&relocated).unwrap();
    let pages = compare(&core, &module, &file).unwrap();
    assert!(pages.patched > 0 && pages.equal > 0, "{pages:?}");
}
