//! Modules from every source that a core has: each test takes sources away from cores of real crashes.

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
    Avma, CoreFile, Disagreement, ElfObject, Module, ModuleKind, compare_module, modules_by_program,
};

const CRASHES: &str = "int main(void) { *(volatile int *)0x10 = 7; }";

/// Moves its own text to anonymous memory, as servers do for huge pages.
const MOVES_ITS_TEXT: &str = r"
#define _GNU_SOURCE
#include <link.h>
#include <string.h>
#include <sys/mman.h>
static unsigned long from, to;
static int segment(struct dl_phdr_info *info, size_t size, void *data) {
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *header = &info->dlpi_phdr[i];
        if (header->p_type != PT_LOAD || !(header->p_flags & PF_X)) continue;
        from = (info->dlpi_addr + header->p_vaddr) & -4096ul;
        to = (info->dlpi_addr + header->p_vaddr + header->p_memsz + 4095) & -4096ul;
    }
    return 1;
}
int main(void) {
    dl_iterate_phdr(segment, 0);
    void *copy = mmap(0, to - from, 3, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memcpy(copy, (void *)from, to - from);
    mprotect(copy, to - from, 5);
    mremap(copy, to - from, to - from, MREMAP_MAYMOVE | MREMAP_FIXED, (void *)from);
    *(volatile int *)0x10 = 7;
}
";

const NT_AUXV: u32 = 6;
const NT_FILE: u32 = 0x4649_4c45;

struct Crash {
    program: PathBuf,
    bytes: Vec<u8>,
    _dir: tempfile::TempDir,
}

impl Crash {
    /// A core made by gdb: independent of the machine's `core_pattern`. The command runs in the directory of
    /// the program `p`.
    fn of(source: &str, flags: &[&str], command: &[&str]) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let (program, core) = (dir.path().join("p"), dir.path().join("core"));
        std::fs::write(dir.path().join("p.c"), source).unwrap();
        let mut gcc = Command::new("gcc");
        gcc.current_dir(dir.path())
            .args(["-g", "-Wl,--build-id", "-o", "p", "p.c"])
            .args(flags);
        assert!(gcc.status().unwrap().success());
        let made = Command::new("gdb")
            .current_dir(dir.path())
            .args(["-q", "-nx", "-batch", "-ex", "run", "-ex"])
            .arg(format!("generate-core-file {}", core.display()))
            .arg("--args")
            .args(command)
            .output();
        let Ok(made) = made else {
            eprintln!("skipped: gdb is not installed");
            return None;
        };
        let bytes = std::fs::read(&core)
            .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&made.stdout)));
        Some(Self {
            program,
            bytes,
            _dir: dir,
        })
    }

    fn core(&self) -> CoreFile {
        CoreFile::open(Box::new(self.bytes.clone())).unwrap()
    }

    /// Makes notes of this kind unknown ones.
    fn remove_note(&mut self, kind: u32) {
        let (at, size) = self
            .headers()
            .find_map(|at| {
                let is_note = self.number(at, 4) == 4;
                is_note.then(|| (self.number(at + 8, 8), self.number(at + 32, 8)))
            })
            .unwrap();
        let mut note = at;
        while note < at + size {
            let name = self.number(note, 4).next_multiple_of(4);
            let data = self.number(note + 4, 4).next_multiple_of(4);
            if self.number(note + 8, 4) == u64::from(kind) {
                let field = usize::try_from(note).unwrap() + 8;
                self.bytes[field..field + 4].copy_from_slice(&0x7777_u32.to_le_bytes());
            }
            note += 12 + name + data;
        }
    }

    /// Changes the program header of each segment that starts in a range: its bytes are gone, or it is.
    fn remove_memory(&mut self, from: Avma, to: Avma, is_listed: bool) {
        let headers: Vec<u64> = self.headers().collect();
        for at in headers {
            let start = Avma(self.number(at + 16, 8));
            if self.number(at, 4) == 1 && from <= start && start < to {
                let at = usize::try_from(at).unwrap();
                match is_listed {
                    true => self.bytes[at + 32..at + 40].fill(0),
                    false => self.bytes[at..at + 4].fill(0),
                }
            }
        }
    }

    fn headers(&self) -> impl Iterator<Item = u64> + use<> {
        let (at, count) = (self.number(32, 8), self.number(56, 2));
        (0..count).map(move |index| at + 56 * index)
    }

    fn number(&self, at: u64, size: usize) -> u64 {
        let at = usize::try_from(at).unwrap();
        let mut bytes = [0; 8];
        bytes[..size].copy_from_slice(&self.bytes[at..at + size]);
        u64::from_le_bytes(bytes)
    }
}

fn named<'m>(modules: &'m [Module], part: &str) -> &'m Module {
    let is_it = |module: &&Module| module.display_path().contains(part);
    let found = modules.iter().find(is_it);
    found.unwrap_or_else(|| panic!("no {part} in {modules:#?}"))
}

fn executable(modules: &[Module]) -> &Module {
    let is_it = |module: &&Module| module.kind == ModuleKind::Executable;
    let mut found = modules.iter().filter(is_it);
    let executable = found
        .next()
        .unwrap_or_else(|| panic!("none in {modules:#?}"));
    assert!(found.next().is_none(), "{modules:#?}");
    executable
}

fn pc(core: &CoreFile) -> Avma {
    core.head().threads()[0].registers.pc().unwrap()
}

#[test]
fn text_that_was_moved_to_anonymous_memory_belongs_to_the_program() {
    let Some(mut crash) = Crash::of(MOVES_ITS_TEXT, &[], &["./p"]) else {
        return;
    };
    let file = std::fs::read(&crash.program).unwrap();
    let object = ElfObject::parse(&file).unwrap();
    let core = crash.core();
    let modules = core.modules();
    let program = executable(&modules);
    assert!(program.contains(pc(&core)), "{program:#?}");
    let compared = compare_module(core.head(), &core, program, &object).unwrap();
    assert!(compared.equal > 0 && compared.patched == 0, "{compared:?}");
    let svma = pc(&core).0.wrapping_sub(object.bias_in(program).unwrap());
    let main = object.symbols_named(&[b"main"])[0];
    assert!((main.address.0..main.address.0 + main.size).contains(&svma));

    // Without its headers in the core, the file that was found has them.
    let first = program.ranges[0];
    crash.remove_memory(first.start, first.end, true);
    let core = crash.core();
    let mut program = named(&core.modules(), "/p").clone();
    assert!(!program.contains(pc(&core)), "{program:#?}");
    program.complete_with(core.head(), &object);
    assert!(program.contains(pc(&core)), "{program:#?}");
    assert!(compare_module(core.head(), &core, &program, &object).is_ok());
}

#[test]
fn program_that_the_loader_was_asked_to_start_is_the_executable() {
    let Some(plain) = Crash::of(CRASHES, &[], &["./p"]) else {
        return;
    };
    let file = std::fs::read(&plain.program).unwrap();
    let loader = ElfObject::parse(&file)
        .unwrap()
        .interpreter()
        .unwrap()
        .to_vec();
    let loader = String::from_utf8(loader).unwrap();
    let crash = Crash::of(CRASHES, &[], &[&loader, "./p"]).unwrap();
    let modules = crash.core().modules();
    assert_eq!(
        executable(&modules).path,
        crash.program.as_os_str().as_encoded_bytes()
    );
    let kind = |module: &&Module| module.kind == ModuleKind::Loader;
    assert_eq!(modules.iter().filter(kind).count(), 1, "{modules:#?}");
    let modules = plain.core().modules();
    assert_eq!(
        executable(&modules).path,
        plain.program.as_os_str().as_encoded_bytes()
    );
}

#[test]
fn modules_are_found_in_memory_where_no_list_names_them() {
    let Some(mut crash) = Crash::of(CRASHES, &[], &["./p"]) else {
        return;
    };
    let all = crash.core().modules();
    let expected = |part: &str| {
        (
            named(&all, part).start(),
            named(&all, part).build_id.clone(),
        )
    };
    let (program, libc) = (expected("/p"), expected("libc.so"));
    for removed in [&[NT_FILE][..], &[NT_AUXV], &[NT_FILE, NT_AUXV]] {
        removed.iter().for_each(|kind| crash.remove_note(*kind));
        let core = crash.core();
        let modules = core.modules();
        let found = executable(&modules);
        assert!(
            found.path.ends_with(b"p") && found.contains(pc(&core)),
            "{found:#?}"
        );
        assert_eq!(
            (found.start(), found.build_id.clone()),
            program,
            "{removed:?}"
        );
        let found = named(&modules, "libc.so");
        assert_eq!((found.start(), found.build_id.clone()), libc, "{removed:?}");
        assert!(found.path.starts_with(b"/"), "{found:#?}");
        assert!(
            modules.iter().all(|module| !module.path.is_empty()),
            "{modules:#?}"
        );
    }
}

#[test]
fn libraries_are_known_where_the_core_lists_only_the_memory_that_it_holds() {
    let Some(mut crash) = Crash::of(CRASHES, &[], &["./p"]) else {
        return;
    };
    let all = crash.core().modules();
    let libc = named(&all, "libc.so");
    let bias = libc.bias;
    crash.remove_memory(libc.start(), libc.end(), false);
    let modules = crash.core().modules();
    let found = named(&modules, "libc.so");
    assert_eq!((found.bias, &found.ranges), (bias, &libc.ranges));
    // The list of the loader knows them too.
    crash.remove_note(NT_FILE);
    assert!(
        crash
            .core()
            .modules()
            .iter()
            .all(|module| module.start() != libc.start())
    );
}

#[test]
fn libraries_are_found_with_the_headers_of_the_program_s_file() {
    let Some(mut crash) = Crash::of(CRASHES, &[], &["./p"]) else {
        return;
    };
    let all = crash.core().modules();
    let first = executable(&all).ranges[0];
    crash.remove_note(NT_FILE);
    crash.remove_memory(first.start, first.end, true);
    let core = crash.core();
    let file = std::fs::read(&crash.program).unwrap();
    let object = ElfObject::parse(&file).unwrap();
    let program = executable(&core.modules()).clone();
    assert_eq!(program.build_id, None);
    let new = modules_by_program(
        core.head(),
        &core,
        &program,
        &object,
        std::slice::from_ref(&program),
    );
    let found = named(&new, "libc.so");
    assert_eq!(found.build_id, named(&all, "libc.so").build_id);
    assert!(
        new.iter()
            .all(|module| module.kind != ModuleKind::Executable),
        "{new:#?}"
    );
}

#[test]
fn file_whose_first_page_is_mapped_twice_is_one_module() {
    // Text and data on one page of the file, in pages of their own in memory.
    let flags = [
        "-no-pie",
        "-Wl,-z,noseparate-code,-z,max-page-size=0x200000,-z,norelro",
    ];
    let Some(mut crash) = Crash::of(CRASHES, &flags, &["./p"]) else {
        return;
    };
    let all = crash.core().modules();
    let expected = executable(&all).clone();
    let copies = expected.ranges.iter().filter(|range| range.offset.0 == 0);
    assert_eq!(copies.count(), 2, "{expected:#?}");
    let first = expected.ranges[0];
    crash.remove_memory(first.start, first.end, true);
    let modules = crash.core().modules();
    assert_eq!(executable(&modules), &expected);
}

#[test]
fn file_with_other_segments_is_refused_where_the_core_lacks_the_headers() {
    let Some(mut crash) = Crash::of(CRASHES, &[], &["./p"]) else {
        return;
    };
    let own = std::fs::read(&crash.program).unwrap();
    let program = executable(&crash.core().modules()).clone();
    crash.remove_memory(program.start(), program.end(), true);
    let core = crash.core();
    let program = executable(&core.modules()).clone();
    assert_eq!(program.build_id, None);
    let compare = |file: &[u8]| {
        let object = ElfObject::parse(file).unwrap();
        compare_module(core.head(), &core, &program, &object)
    };
    assert!(compare(&own).is_ok());
    // Larger text moves what follows it.
    let text = format!("{CRASHES} __asm__(\".text\\n.skip 20000\");");
    let other = Crash::of(&text, &[], &["./p"]).unwrap();
    let refused = compare(&std::fs::read(&other.program).unwrap());
    assert!(
        matches!(refused, Err(Disagreement::Segments { .. })),
        "{refused:?}"
    );
    let libc = named(&core.modules(), "libc.so").display_path();
    let refused = compare(&std::fs::read(Path::new(&libc)).unwrap());
    assert!(matches!(refused, Err(Disagreement::Headers)), "{refused:?}");
}

#[test]
fn program_keeps_the_path_of_the_list_of_files_where_it_is_relative() {
    let Some(mut crash) = Crash::of(CRASHES, &[], &["./p"]) else {
        return;
    };
    // The kernel writes such a path for a file outside of the process.s root.
    let path = [crash.program.as_os_str().as_encoded_bytes(), b"\0"].concat();
    let notes = crash
        .headers()
        .find(|at| crash.number(*at, 4) == 4)
        .unwrap();
    let start = usize::try_from(crash.number(notes + 8, 8)).unwrap();
    let size = usize::try_from(crash.number(notes + 32, 8)).unwrap();
    for at in start..start + size - path.len() {
        if crash.bytes[at..].starts_with(&path) {
            crash.bytes[at] = b'x';
        }
    }
    let modules = crash.core().modules();
    let expected = [b"x", &path[1..path.len() - 1]].concat();
    assert_eq!(executable(&modules).path, expected);
}
