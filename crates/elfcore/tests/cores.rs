//! Cores of real crashes, and bytes that no kernel writes.

// A failed test or task may panic; nothing of this ships.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used
)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use cdh_elfcore::{
    Avma, CoreError, CoreFile, CoreHead, Memory, ModuleKind, Registers, write_minicore,
};
use proptest::prelude::*;

const PROGRAM: &str = r"
#include <pthread.h>
#include <unistd.h>
static void *idle(void *p) { for (;;) sleep(100); return p; }
int main(void) {
    pthread_t t[3];
    for (int i = 0; i < 3; i++) pthread_create(&t[i], 0, idle, 0);
    usleep(50000);
    *(volatile int *)0x10 = 7;
}
";

/// Maps its own libc whole, as close below it as there is room.
const READS_ITS_LIBC: &str = r"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>
int main(void) {
    Dl_info libc;
    dladdr((void *)abort, &libc);
    int file = open(libc.dli_fname, O_RDONLY);
    long size = (lseek(file, 0, SEEK_END) + 4095) & -4096;
    char *at = (char *)libc.dli_fbase - size;
    while (mmap(at, size, PROT_READ, MAP_PRIVATE | MAP_FIXED_NOREPLACE, file, 0) != at) at -= 4096;
    *(volatile int *)0x10 = 7;
}
";

/// Recurses until a stack is full: the main one, or with an argument that of a thread.
const RECURSES: &str = r"
#include <pthread.h>
#include <string.h>
__attribute__((noinline)) static int deeper(volatile char *above) {
    volatile char frame[FRAME];
    frame[0] = above ? above[0] : 1;
    return deeper(frame) + frame[0];
}
static void *run(void *p) { return deeper(0) ? p : 0; }
int main(void) {
    pthread_t thread;
    if (IN_THREAD) { pthread_create(&thread, 0, run, 0); pthread_join(thread, 0); }
    return run(0) != 0;
}
";

#[test]
fn core_names_a_stack_overflow_of_any_thread_and_frame_size() {
    for (frame, in_thread) in [("200", "0"), ("200", "1"), ("100000", "0"), ("3000", "1")] {
        let dir = tempfile::tempdir().unwrap();
        let text = RECURSES
            .replace("FRAME", frame)
            .replace("IN_THREAD", in_thread);
        let Some(core) = make_core(dir.path(), &text) else {
            return;
        };
        let core = CoreFile::open(Box::new(std::fs::read(core).unwrap())).unwrap();
        let found = core.head().stack_overflow();
        let found = found.unwrap_or_else(|| panic!("frames of {frame}, in a thread: {in_thread}"));
        assert!(
            found.address < found.stack_start && found.stack_size >= 64 << 10,
            "{found:?}"
        );
    }
    let dir = tempfile::tempdir().unwrap();
    let Some(core) = make_core(dir.path(), PROGRAM) else {
        return;
    };
    let core = CoreFile::open(Box::new(std::fs::read(core).unwrap())).unwrap();
    assert_eq!(core.head().stack_overflow(), None);
}

/// A core of a crashing program, made by gdb: independent of the machine's core_pattern.
fn make_core(dir: &Path, text: &str) -> Option<PathBuf> {
    let (source, program, core) = (dir.join("p.c"), dir.join("p"), dir.join("core"));
    std::fs::write(&source, text).unwrap();
    let mut gcc = Command::new("gcc");
    gcc.args(["-g", "-pthread", "-Wl,--build-id", "-o"])
        .arg(&program)
        .arg(&source);
    assert!(gcc.status().unwrap().success());
    let made = Command::new("gdb")
        .args(["-q", "-batch", "-ex", "run", "-ex"])
        .arg(format!("generate-core-file {}", core.display()))
        .arg(&program)
        .output();
    if made.is_err() {
        eprintln!("skipped: gdb is not installed");
        return None;
    }
    assert!(
        core.is_file(),
        "{}",
        String::from_utf8_lossy(&made.unwrap().stdout)
    );
    Some(core)
}

#[test]
fn core_of_a_real_crash_tells_what_happened() {
    let dir = tempfile::tempdir().unwrap();
    let Some(path) = make_core(dir.path(), PROGRAM) else {
        return;
    };
    let bytes = std::fs::read(&path).unwrap();
    let core = CoreFile::open(Box::new(bytes.clone())).unwrap();
    let head = core.head();
    assert_eq!(head.threads().len(), 4);
    assert_eq!(
        head.signal().unwrap().describe(),
        "SIGSEGV: address not mapped, at 0x10"
    );
    assert_eq!(head.process().unwrap().name, b"p");
    assert!(core.completeness().is_complete());
    let modules = core.modules();
    let executable = modules
        .iter()
        .find(|module| module.kind == ModuleKind::Executable)
        .unwrap();
    assert!(executable.path.ends_with(b"/p"));
    assert!(executable.build_id.is_some());
    assert!(modules.iter().any(|module| module.kind == ModuleKind::Vdso));
    let sp = head.threads()[0].registers.sp().unwrap();
    assert!(core.read_u64(sp).is_some());

    let cut = CoreFile::open(Box::new(bytes[..bytes.len() * 6 / 10].to_vec())).unwrap();
    assert!(!cut.completeness().is_complete());
    assert_eq!(cut.completeness().found, (bytes.len() * 6 / 10) as u64);

    let mut pages = BTreeMap::new();
    for thread in head.threads() {
        let page = thread.registers.sp().unwrap().0 & !0xfff;
        let mut data = vec![0; 4096];
        assert_eq!(core.read(Avma(page), &mut data), 4096);
        pages.insert(page, data);
    }
    let mut out = Vec::new();
    let written = write_minicore(head, &pages, &mut out).unwrap();
    assert_eq!(written, out.len() as u64);
    let mini = CoreFile::open(Box::new(out)).unwrap();
    assert_eq!(mini.head().threads().len(), 4);
    assert_eq!(mini.read_u64(sp), core.read_u64(sp));
    assert_eq!(mini.head().mappings(), head.mappings());
}

#[test]
fn library_that_is_also_mapped_as_a_whole_just_below_itself_keeps_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let Some(path) = make_core(dir.path(), READS_ITS_LIBC) else {
        return;
    };
    let core = CoreFile::open(Box::new(std::fs::read(&path).unwrap())).unwrap();
    let is_libc = |path: &[u8]| path.windows(5).any(|part| part == b"libc.");
    let mut starts = Vec::new();
    for mapping in core.head().mappings() {
        if is_libc(&mapping.path) && mapping.offset.0 == 0 {
            starts.push(mapping.start);
        }
    }
    assert_eq!(starts.len(), 2, "{starts:?}");
    let modules = core.modules();
    let found = modules.iter().filter(|module| is_libc(&module.path));
    let found: Vec<_> = found
        .map(|module| (module.start(), module.bias, module.ranges.len()))
        .collect();
    // The file is linked to 0, so that what is added is where it starts.
    assert_eq!(found[0], (starts[0], Some(starts[0].0), 1));
    assert_eq!((found[1].0, found[1].1), (starts[1], Some(starts[1].0)));
    assert!(found[1].2 > 1, "{found:?}");
}

/// The header of a core of x86-64 with its program headers behind it, and section headers at `sections_at`.
fn elf_header(segments: u64, sections_at: u64, sections: u64) -> Vec<u8> {
    let mut bytes = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    let fields: [(usize, u64); 13] = [
        (2, 4),
        (2, 62),
        (4, 1),
        (8, 0),
        (8, 64),
        (8, sections_at),
        (4, 0),
        (2, 64),
        (2, 56),
        (2, segments),
        (2, 64 * sections.min(1)),
        (2, sections),
        (2, 0),
    ];
    for (size, value) in fields {
        bytes.extend_from_slice(&value.to_le_bytes()[..size]);
    }
    bytes
}

/// A core of that many threads, with their floating-point registers and a list of files that is larger than
/// what is read at once, laid out as the kernel does.
fn many_threads(count: u32) -> Vec<u8> {
    let mut notes = Vec::new();
    let mut note = |name: &[u8; 8], kind: u32, data: &[u8]| {
        let name_size = name.iter().position(|byte| *byte == 0).unwrap() + 1;
        notes.extend_from_slice(&u32::try_from(name_size).unwrap().to_le_bytes());
        notes.extend_from_slice(&u32::try_from(data.len()).unwrap().to_le_bytes());
        notes.extend_from_slice(&kind.to_le_bytes());
        notes.extend_from_slice(name);
        notes.extend_from_slice(data);
        notes.resize(notes.len().next_multiple_of(4), 0);
    };
    for thread in 1..=count {
        let mut status = [0; 336];
        status[32..36].copy_from_slice(&thread.to_le_bytes());
        note(b"CORE\0\0\0\0", 1, &status);
        if thread == 1 {
            let files = 4000_u64;
            let mut list = [files.to_le_bytes(), 1_u64.to_le_bytes()].concat();
            for file in 1..=files {
                let range = [file << 20, (file << 20) + 4096, 0];
                list.extend(range.into_iter().flat_map(u64::to_le_bytes));
            }
            (0..files).for_each(|file| list.extend(format!("/file/{file}\0").bytes()));
            note(b"CORE\0\0\0\0", 0x4649_4c45, &list);
        }
        note(b"CORE\0\0\0\0", 2, &[0x22; 512]);
        note(b"LINUX\0\0\0", 0x202, &[0x11; 2697]);
    }
    let mut bytes = elf_header(1, 0, 0);
    bytes.extend_from_slice(&4_u64.to_le_bytes());
    for value in [120, 0, 0, notes.len() as u64, 0, 4] {
        bytes.extend_from_slice(&value.to_le_bytes());
    }
    bytes.extend_from_slice(&notes);
    bytes
}

#[test]
fn notes_of_many_threads_say_the_same_read_piece_by_piece() {
    let bytes = many_threads(300);
    let streamed = CoreHead::from_reader(&mut bytes.as_slice()).unwrap();
    let stored = CoreHead::from_source(&bytes).unwrap();
    assert_eq!(streamed.threads().len(), 300);
    assert_eq!(streamed.mappings().len(), 4000);
    let ids = |head: &CoreHead| -> Vec<u32> { head.threads().iter().map(|t| t.tid).collect() };
    assert_eq!(ids(&stored), ids(&streamed));
    assert_eq!(ids(&stored), (1..=300).collect::<Vec<_>>());
    assert_eq!(stored.mappings(), streamed.mappings());
    // Cut in the middle of them, it says what is there.
    let cut = CoreHead::from_source(&bytes[..bytes.len() - 300_000].to_vec()).unwrap();
    assert!((150..300).contains(&cut.threads().len()));
    assert_eq!(ids(&cut), ids(&streamed)[..cut.threads().len()]);
}

/// A core with more segments than `e_phnum` can count, laid out as the kernel does.
fn many_segments(count: u64) -> Vec<u8> {
    let table_end = 64 + 56 * (count + 1);
    let section_at = table_end + count;
    let mut bytes = elf_header(0xffff, section_at, 1);
    let mut header = |kind: u64, offset: u64, address: u64, size: u64| {
        bytes.extend_from_slice(&kind.to_le_bytes());
        for value in [offset, address, 0, size, size, 1] {
            bytes.extend_from_slice(&value.to_le_bytes());
        }
    };
    header(4, table_end, 0, 0);
    (0..count).for_each(|n| header(1, table_end + n, 0x1000 * (n + 1), 1));
    bytes.resize(usize::try_from(section_at).unwrap(), 0xaa);
    let mut section = [0; 64];
    section[44..48].copy_from_slice(&u32::try_from(count + 1).unwrap().to_le_bytes());
    bytes.extend_from_slice(&section);
    bytes
}

#[test]
fn more_segments_than_e_phnum_can_count_are_all_found() {
    let bytes = many_segments(70_000);
    let streamed = CoreHead::from_reader(&mut bytes.as_slice()).unwrap();
    let stored = CoreHead::from_source(&bytes).unwrap();
    for head in [streamed, stored] {
        assert_eq!(head.segments().len(), 70_000);
        assert_eq!(head.expected_len(), bytes.len() as u64);
    }
    let cut = bytes[..bytes.len() - 100].to_vec();
    assert_eq!(
        CoreHead::from_source(&cut).unwrap().segments().len(),
        70_000
    );
}

#[test]
fn what_is_no_core_is_named() {
    let open = |bytes: &[u8]| {
        CoreHead::from_source(&bytes.to_vec())
            .unwrap_err()
            .to_string()
    };
    assert_eq!(open(b""), "the file is empty");
    assert_eq!(open(b"hello, this is a text file"), "not an ELF file");
    assert_eq!(
        open(b"\x7fELF\x02\x01"),
        "the core ends after 6 bytes, inside its ELF header"
    );
    let own = std::fs::read(std::env::current_exe().unwrap()).unwrap();
    assert!(matches!(
        CoreHead::from_source(&own),
        Err(CoreError::NotCore { .. })
    ));
}

fn poke_everything(bytes: Vec<u8>) {
    let _ = CoreHead::from_reader(&mut bytes.as_slice());
    if let Ok(core) = CoreFile::open(Box::new(bytes)) {
        let _ = (core.completeness(), core.modules(), core.head().signal());
        let mut buf = [0; 64];
        for at in [0, 0x1000, 0x40_0000, u64::MAX, u64::MAX - 8] {
            let _ = core.read(Avma(at), &mut buf);
        }
        let registers = Registers::new(core.head().machine());
        assert!(registers.pc().is_none());
    }
}

proptest! {
    #[test]
    fn hostile_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..2048)) {
        let mut core = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x04\0\x3e\0".to_vec();
        core.extend_from_slice(&bytes);
        poke_everything(core);
        poke_everything(bytes);
    }

    #[test]
    fn flipped_bytes_never_panic(
        flips in proptest::collection::vec((0_usize..4000, any::<u8>()), 1..20)
    ) {
        let mut bytes = many_segments(60);
        for (at, value) in flips {
            if let Some(byte) = bytes.get_mut(at) {
                *byte = value;
            }
        }
        poke_everything(bytes);
    }
}
