//! Go structures in synthetic memory, written by the layout of Go 1.21 without the reader's own tables.

// A failed test may panic; nothing of this ships.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used
)]

use cdh_elfcore::{
    Avma, FileOffset, Machine, Memory, Module, ModuleKind, ModuleRange, Registers, Thread,
};
use cdh_runtimes::{AttachedRuntimes, Options, Process, RuntimeReport, examine};
use cdh_symbolize::{Alone, BacktraceOptions, LoadedModule, SectionArena, backtrace};

/// Where the program is, and where its data is.
const PROGRAM: u64 = 0x40_0000;
const DATA: u64 = 0x50_0000;
const SIZE: usize = 0xa000;

const ALLGS: u64 = DATA;
const ALLM: u64 = DATA + 0x20;
const LIST: u64 = DATA + 0x100;
const FIRST: u64 = DATA + 0x1000;
const SECOND: u64 = DATA + 0x2000;
const MACHINE: u64 = DATA + 0x3000;
const PANIC: u64 = DATA + 0x4000;
const RECOVERED: u64 = DATA + 0x4100;
const TYPE: u64 = DATA + 0x5000;
const TEXT: u64 = DATA + 0x5100;
const STACK: u64 = DATA + 0x8000;

struct Image(Vec<u8>);

impl Image {
    fn put(&mut self, at: u64, bytes: &[u8]) {
        let start = usize::try_from(at - DATA).unwrap();
        self.0[start..start + bytes.len()].copy_from_slice(bytes);
    }

    fn word(&mut self, at: u64, value: u64) {
        self.put(at, &value.to_le_bytes());
    }
}

impl Memory for Image {
    fn read(&self, at: Avma, buffer: &mut [u8]) -> usize {
        let start =
            at.0.checked_sub(DATA)
                .and_then(|at| usize::try_from(at).ok());
        let known = start
            .and_then(|start| self.0.get(start..))
            .unwrap_or_default();
        let count = known.len().min(buffer.len());
        buffer[..count].copy_from_slice(&known[..count]);
        count
    }
}

fn put(file: &mut [u8], at: usize, bytes: &[u8]) {
    file[at..at + bytes.len()].copy_from_slice(bytes);
}

/// `main.leaf` at 0x100, `main.caller` at 0x110 with a frame of 24 bytes, `runtime.goexit` at 0x120.
fn program() -> Vec<u8> {
    let mut file = vec![0; 0x3000];
    put(&mut file, 0, b"\x7fELF\x02\x01");
    put(&mut file, 18, &62_u16.to_le_bytes());
    put(&mut file, 32, &64_u64.to_le_bytes());
    put(&mut file, 40, &0x800_u64.to_le_bytes());
    put(&mut file, 56, &1_u16.to_le_bytes());
    put(&mut file, 58, &[64, 0, 6, 0, 3, 0]);
    put(&mut file, 64, &[1, 0, 0, 0, 5]);
    put(&mut file, 96, &0x3000_u64.to_le_bytes());
    put(&mut file, 104, &0x3000_u64.to_le_bytes());
    let names = b"\0.gopclntab\0.go.buildinfo\0.shstrtab\0.symtab\0.strtab\0";
    put(&mut file, 0xa00, names);
    // Name, type, place, size, the section that it refers to, size of an entry.
    let sections: [(u8, u8, u64, u64, u32, u64); 5] = [
        (1, 1, 0x200, 0x300, 0, 0),
        (12, 1, 0xb00, 0x40, 0, 0),
        (26, 3, 0xa00, names.len() as u64, 0, 0),
        (36, 2, 0xc00, 72, 5, 24),
        (44, 3, 0xd00, 0x40, 0, 0),
    ];
    for (number, (name, kind, at, size, link, entry)) in sections.into_iter().enumerate() {
        let header = 0x840 + 64 * number;
        put(&mut file, header, &[name, 0, 0, 0, kind]);
        for (place, value) in [(16, at), (24, at), (32, size), (56, entry)] {
            put(&mut file, header + place, &value.to_le_bytes());
        }
        put(&mut file, header + 40, &link.to_le_bytes());
    }
    put(&mut file, 0x200, &[0xf1, 0xff, 0xff, 0xff, 0, 0, 1, 8]);
    let words = [3, 0, 0x100_u64, 0x60, 0x90, 0x90, 0xa0, 0xc0];
    for (number, word) in words.into_iter().enumerate() {
        put(&mut file, 0x208 + 8 * number, &word.to_le_bytes());
    }
    put(
        &mut file,
        0x260,
        b"main.leaf\0main.caller\0runtime.goexit\0",
    );
    put(&mut file, 0x2a4, &[2, 16, 0]);
    put(&mut file, 0x2a8, &[50, 16, 0]);
    let records = [(0, 0, 4), (0x10, 10, 8), (0x20, 22, 4), (0x30, 0, 0_u32)];
    for (number, (start, name, table)) in records.into_iter().enumerate() {
        let record = 0x40 + 0x30 * number as u32;
        put(&mut file, 0x2c0 + 8 * number, &u32::to_le_bytes(start));
        put(&mut file, 0x2c4 + 8 * number, &record.to_le_bytes());
        let at = 0x2c0 + record as usize;
        put(&mut file, at + 4, &u32::to_le_bytes(name));
        put(&mut file, at + 16, &table.to_le_bytes());
    }
    put(&mut file, 0xb00, b"\xff Go buildinf:\x08\x02");
    put(&mut file, 0xb20, b"\x09go1.21.13");
    put(&mut file, 0xd00, b"\0runtime.allgs\0runtime.allm\0");
    for (number, (name, at)) in [(1_u32, ALLGS), (15, ALLM)].into_iter().enumerate() {
        let symbol = 0xc18 + 24 * number;
        put(&mut file, symbol, &name.to_le_bytes());
        put(&mut file, symbol + 4, &[0x11, 0, 1, 0]);
        put(&mut file, symbol + 8, &(at - PROGRAM).to_le_bytes());
    }
    file
}

/// Goroutine 1 died of a panic, goroutine 7 waits. The chains of panics and of threads are circles.
fn image() -> Image {
    let mut image = Image(vec![0; SIZE]);
    for (at, value) in [
        (ALLGS, LIST),
        (ALLGS + 8, 2),
        (ALLGS + 16, 2),
        (ALLM, MACHINE),
        (LIST, FIRST),
        (LIST + 8, SECOND),
        (FIRST, STACK),
        (FIRST + 8, STACK + 0x800),
        (FIRST + 32, PANIC),
        (FIRST + 48, MACHINE),
        (FIRST + 144, 2),
        (FIRST + 152, 1),
        (SECOND, STACK + 0x800),
        (SECOND + 8, STACK + 0x1000),
        (SECOND + 56, STACK + 0xf00),
        (SECOND + 64, PROGRAM + 0x114),
        (SECOND + 144, 4),
        (SECOND + 152, 7),
        (SECOND + 176, 2),
        (SECOND + 272, 1),
        (SECOND + 280, PROGRAM + 0x105),
        (SECOND + 296, PROGRAM + 0x110),
        (STACK + 0xf18, PROGRAM + 0x124),
        (MACHINE, FIRST),
        (MACHINE + 72, 42),
        (MACHINE + 192, FIRST),
        (MACHINE + 264, 1 << 32),
        (MACHINE + 336, MACHINE),
        (PANIC + 8, TYPE),
        (PANIC + 16, TEXT),
        (PANIC + 24, RECOVERED),
        (RECOVERED + 8, TYPE),
        (RECOVERED + 16, TEXT),
        (RECOVERED + 24, PANIC),
        (RECOVERED + 48, 1),
        (TYPE + 16, 24 << 56),
        (TEXT, TEXT + 0x100),
        (TEXT + 8, 5),
    ] {
        image.word(at, value);
    }
    image.put(TEXT + 0x100, b"boom!");
    image
}

/// What is asked of the process with these threads, the one that received the signal first.
fn asked<T>(image: &Image, threads: &[u32], ask: impl FnOnce(&Process<'_>) -> T) -> T {
    let file = program();
    let module = Module {
        path: b"/bin/program".to_vec(),
        deleted: false,
        kind: ModuleKind::Executable,
        ranges: vec![ModuleRange {
            start: Avma(PROGRAM),
            end: Avma(PROGRAM + 0x3000),
            offset: FileOffset(0),
        }],
        build_id: None,
        bias: Some(PROGRAM),
    };
    let threads: Vec<Thread> = threads
        .iter()
        .map(|tid| Thread {
            tid: *tid,
            signal: 6,
            registers: Registers::new(Machine::X86_64),
            blocked: 0,
        })
        .collect();
    let process = Process {
        threads: &threads,
        memory: image,
        modules: &[LoadedModule::from_file(&module, &file)],
        arena: &SectionArena::new(),
        surroundings: &Alone,
    };
    ask(&process)
}

fn examined(image: &Image) -> Vec<RuntimeReport> {
    asked(image, &[], |process| {
        let options = BacktraceOptions::default();
        let (modules, arena) = (process.modules, process.arena);
        let mut stacks = backtrace(&[], image, modules, arena, &options);
        let options = Options {
            task_stacks: true,
            system_tasks: true,
            max_frames: 64,
        };
        examine(process, &mut stacks, &options)
    })
}

#[test]
fn thread_that_ended_the_program_is_not_always_the_one_that_received_the_signal() {
    let crashing = |image: &Image, threads: &[u32]| {
        asked(image, threads, |process| {
            AttachedRuntimes::of(process).crashing_thread()
        })
    };
    let mut image = image();
    assert_eq!(crashing(&image, &[7, 42]), Some(42));
    assert_eq!(crashing(&image, &[42, 7]), None);
    // It is not a thread of the process.
    assert_eq!(crashing(&image, &[7, 8]), None);
    image.word(MACHINE + 264, 0);
    assert_eq!(crashing(&image, &[7, 42]), None);
}

#[test]
fn goroutines_that_are_not_in_the_core_are_counted() {
    let mut image = image();
    for number in 2..20 {
        image.word(LIST + 8 * number, SECOND);
    }
    image.word(LIST + 8 * 20, DATA + SIZE as u64);
    image.word(ALLGS + 8, 21);
    image.word(ALLGS + 16, 21);
    let report = &examined(&image)[0];
    assert_eq!(report.tasks.as_ref().unwrap().total, 20);
    assert_eq!(report.gaps, ["1 of 21 goroutines are not in the core"]);
}

#[test]
fn goroutines_and_panics_are_read_and_circles_end() {
    let reports = examined(&image());
    let report = &reports[0];
    assert_eq!(report.version.as_deref(), Some("go1.21.13"));
    assert!(report.ended_program);
    let lines: Vec<String> = report.messages.iter().map(|one| one.line()).collect();
    assert_eq!(lines, ["panic: boom! [recovered]", "panic: boom!"]);
    let tasks = report.tasks.as_ref().unwrap();
    assert_eq!((tasks.total, tasks.crashing), (2, Some(1)));
    let waiting = &tasks.list[1];
    assert_eq!(
        (waiting.id, &*waiting.state, waiting.parent),
        (7, "IO wait", Some(1))
    );
    let name = |frame: &cdh_symbolize::Frame| frame.function.as_ref().unwrap().name.clone();
    assert_eq!(name(waiting.created_by.as_ref().unwrap()), "main.leaf");
    let stack = &tasks.stacks[waiting.stack.unwrap()];
    let names: Vec<String> = stack.frames.iter().map(name).collect();
    assert_eq!(names, ["main.caller", "runtime.goexit"]);
}

#[test]
fn list_of_goroutines_that_cannot_be_one_is_a_gap() {
    for (at, value) in [(ALLGS + 8, u64::MAX), (LIST, 0x10), (ALLGS, 1)] {
        let mut image = image();
        image.word(at, value);
        let reports = examined(&image);
        assert!(reports[0].tasks.is_none(), "{at:#x}");
        assert_eq!(reports[0].gaps.len(), 1, "{:?}", reports[0].gaps);
    }
}

#[test]
fn damaged_memory_never_panics() {
    let mut state = 1_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let values = [
        0,
        1,
        8,
        u64::MAX,
        u64::MAX / 8,
        LIST,
        FIRST,
        PANIC,
        1 << 32,
        PROGRAM,
    ];
    for _ in 0..300 {
        let mut image = image();
        for _ in 0..next() % 6 + 1 {
            let at = DATA + next() % (SIZE as u64 / 8) * 8;
            // Most of the memory is empty: aim at what is read.
            let aim = [
                ALLGS, LIST, FIRST, SECOND, MACHINE, PANIC, RECOVERED, TYPE, TEXT,
            ];
            let near = aim[next() as usize % aim.len()] + next() % 48 * 8;
            let at = if next() % 4 == 0 { at } else { near };
            image.word(at, values[next() as usize % values.len()]);
        }
        drop(examined(&image));
    }
}
