//! Cores that no 64-bit Linux process of a supported machine left, and cores that do not say who crashed.

// A failed test or task may panic; nothing of this ships.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used
)]

use cdh_elfcore::{Avma, CoreError, CoreFile, ElfObject, Machine};

const X86_64: u16 = 62;
const I386: u16 = 3;
const PRSTATUS: u32 = 1;
const PRPSINFO: u32 = 3;
const SIGINFO: u32 = 0x5349_4749;
const FILE: u32 = 0x4649_4c45;
const AUXV: u32 = 6;

fn note(owner: &str, kind: u32, data: &[u8]) -> Vec<u8> {
    let mut note = Vec::new();
    note.extend((owner.len() as u32 + 1).to_le_bytes());
    note.extend((data.len() as u32).to_le_bytes());
    note.extend(kind.to_le_bytes());
    note.extend(owner.as_bytes());
    note.resize((note.len() + 1).next_multiple_of(4), 0);
    note.extend(data);
    note.resize(note.len().next_multiple_of(4), 0);
    note
}

/// `ELFCLASS64`, one `PT_NOTE`.
fn wide_core(machine: u16, notes: &[Vec<u8>]) -> Vec<u8> {
    let notes = notes.concat();
    let mut bytes = vec![0; 120];
    bytes[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
    bytes[16] = 4;
    bytes[18..20].copy_from_slice(&machine.to_le_bytes());
    bytes[32] = 64;
    bytes[54] = 56;
    bytes[56] = 1;
    bytes[64] = 4;
    bytes[72..80].copy_from_slice(&120_u64.to_le_bytes());
    bytes[96..104].copy_from_slice(&(notes.len() as u64).to_le_bytes());
    bytes.extend(notes);
    bytes
}

fn open(bytes: Vec<u8>) -> Result<CoreFile, CoreError> {
    CoreFile::open(Box::new(bytes))
}

fn thread(tid: u32, signal: u16) -> Vec<u8> {
    let mut data = vec![0; 336];
    data[12..14].copy_from_slice(&signal.to_le_bytes());
    data[32..36].copy_from_slice(&tid.to_le_bytes());
    note("CORE", PRSTATUS, &data)
}

fn process() -> Vec<u8> {
    note("CORE", PRPSINFO, &[0; 136])
}

fn siginfo(number: i32) -> Vec<u8> {
    let mut data = vec![0; 128];
    data[..4].copy_from_slice(&number.to_le_bytes());
    note("CORE", SIGINFO, &data)
}

#[test]
fn cores_of_other_systems_are_refused_by_name() {
    let of_processor = || note("CORE", PRSTATUS, &[0; 336]);
    let cases = [
        (vec![note("FreeBSD", PRSTATUS, &[0; 256])], "FreeBSD"),
        (vec![note("NetBSD-CORE", PRSTATUS, &[0; 256])], "NetBSD"),
        (vec![note("NetBSD-CORE@1", 33, &[0; 208])], "NetBSD"),
        (vec![note("OpenBSD", 10, &[0; 64])], "OpenBSD"),
        (
            vec![of_processor(), note("VMCOREINFO", 0, b"OSRELEASE=6.1")],
            "a dump of a Linux kernel",
        ),
        (
            vec![
                of_processor(),
                note("VMCOREINFO", 0, b"OSRELEASE=6.1"),
                note("QEMU", 0, &[0; 440]),
            ],
            "QEMU",
        ),
        (vec![note("VBCORE", 0xb00, &[0; 16])], "VirtualBox"),
    ];
    for (notes, name) in cases {
        let Err(error) = open(wide_core(X86_64, &notes)) else {
            panic!("{name} was read");
        };
        assert!(matches!(error, CoreError::Foreign { .. }), "{error}");
        assert!(error.to_string().contains(name), "{error}");
    }
    let mut by_header = wide_core(X86_64, &[]);
    by_header[7] = 9;
    assert!(open(by_header).is_err_and(|error| error.to_string().contains("FreeBSD")));
}

#[test]
fn kernel_dump_with_many_processors_is_recognised_by_its_last_note() {
    let mut notes: Vec<_> = (0..1000)
        .map(|_| note("CORE", PRSTATUS, &[0; 336]))
        .collect();
    notes.push(note("VMCOREINFO", 0, b"OSRELEASE=6.1"));
    let found = open(wide_core(X86_64, &notes));
    assert!(found.is_err_and(|error| error.to_string().contains("kernel")));
}

#[test]
fn notes_of_other_owners_are_not_read_as_those_of_linux() {
    let notes = [thread(7, 11), note("GDB", PRSTATUS, &[1; 336])];
    let core = open(wide_core(X86_64, &notes)).unwrap();
    assert_eq!(core.head().threads().len(), 1);
}

#[test]
fn machines_are_named_where_their_stacks_are_not_unwound() {
    for (number, name) in [(8, "mips64el"), (258, "loongarch64")] {
        let core = open(wide_core(number, &[thread(7, 11)])).unwrap();
        let machine = core.head().machine();
        assert_eq!(
            (machine.to_string().as_str(), machine.is_unwound()),
            (name, false)
        );
        assert!(core.head().threads()[0].registers.named().is_empty());
    }
    let mut big = wide_core(X86_64, &[]);
    big[5] = 2;
    big[18..20].copy_from_slice(&21_u16.to_be_bytes());
    let refused = |bytes| open(bytes).err().map(|error| error.to_string());
    assert!(refused(big).is_some_and(|error| error.contains("big-endian ppc64")));
    let mut narrow = wide_core(8, &[]);
    narrow[4] = 1;
    assert!(refused(narrow).is_some_and(|error| error.contains("32-bit mips")));
}

#[test]
fn thread_is_called_crashed_only_where_the_core_says_which_it_was() {
    let known = |notes: &[Vec<u8>]| {
        let core = open(wide_core(X86_64, notes)).unwrap();
        let threads = core.head().threads().iter();
        let threads: Vec<u32> = threads.map(|thread| thread.tid).collect();
        (threads, core.head().knows_crashed_thread())
    };
    // The kernel: every thread has the signal, the first one received it.
    let kernel = [thread(7, 11), process(), siginfo(11), thread(8, 11)];
    assert_eq!(known(&kernel), (vec![7, 8], true));
    // gcore of a live process: stopped by the debugger.
    let live = [
        process(),
        thread(7, 0),
        siginfo(19),
        thread(8, 0),
        siginfo(19),
    ];
    assert_eq!(known(&live), (vec![7, 8], false));
    let core = open(wide_core(X86_64, &live)).unwrap();
    assert_eq!(core.head().signal(), None);
    // gdb's generate-core-file after a crash.
    let crashed = [
        process(),
        thread(7, 11),
        siginfo(11),
        thread(8, 11),
        siginfo(11),
    ];
    assert_eq!(known(&crashed), (vec![7, 8], true));
    // createdump: in the order of /proc/<pid>/task; the one that crashed has the signal.
    let created = [process(), thread(7, 0), thread(8, 0), thread(9, 6)];
    assert_eq!(known(&created), (vec![9, 7, 8], true));
    // All have the signal, and nothing says who received it.
    let unknown = [process(), thread(7, 6), thread(8, 6)];
    assert_eq!(known(&unknown), (vec![7, 8], false));
}

/// A core of i386: `ELFCLASS32`, notes, and one page of the program at 0x8048000.
fn narrow_core() -> Vec<u8> {
    let mut status = vec![0; 144];
    status[12] = 6;
    status[24..28].copy_from_slice(&23_u32.to_le_bytes());
    let mut info = vec![0; 124];
    info[8..12].copy_from_slice(&[0xe8, 3, 100, 0]);
    info[12..16].copy_from_slice(&23_u32.to_le_bytes());
    info[16..20].copy_from_slice(&1_u32.to_le_bytes());
    info[28..34].copy_from_slice(b"parser");
    info[44..53].copy_from_slice(b"parser -v");
    let mut signal = vec![0; 128];
    signal[0] = 11;
    signal[8] = 1;
    signal[12..16].copy_from_slice(&0x11_u32.to_le_bytes());
    let words = |words: &[u32]| {
        words
            .iter()
            .flat_map(|word| word.to_le_bytes())
            .collect::<Vec<_>>()
    };
    let mut files = words(&[1, 4096, 0x0804_8000, 0x0804_9000, 0]);
    files.extend(b"/srv/parser\0");
    let notes = [
        note("CORE", PRSTATUS, &status),
        note("CORE", PRPSINFO, &info),
        note("CORE", SIGINFO, &signal),
        note(
            "CORE",
            AUXV,
            &words(&[9, 0x0804_8100, 3, 0x0804_8034, 0, 0]),
        ),
        note("CORE", FILE, &files),
    ]
    .concat();
    let mut bytes = vec![0; 52];
    bytes[..7].copy_from_slice(b"\x7fELF\x01\x01\x01");
    (bytes[16], bytes[18], bytes[28], bytes[42], bytes[44]) = (4, I386 as u8, 52, 32, 2);
    bytes.extend(words(&[4, 116, 0, 0, notes.len() as u32, 0, 0, 4]));
    bytes.extend(words(&[
        1,
        0x1000,
        0x0804_8000,
        0,
        0x1000,
        0x1000,
        5,
        0x1000,
    ]));
    bytes.extend(notes);
    bytes.resize(0x1000, 0);
    let page = bytes.len();
    bytes.extend(narrow_program());
    bytes.resize(page + 0x1000, 0);
    bytes
}

/// An i386 program with one `PT_LOAD` and a build-id.
fn narrow_program() -> Vec<u8> {
    let mut bytes = vec![0; 52];
    bytes[..7].copy_from_slice(b"\x7fELF\x01\x01\x01");
    (bytes[16], bytes[18], bytes[28], bytes[42], bytes[44]) = (2, I386 as u8, 52, 32, 2);
    bytes[24..28].copy_from_slice(&0x0804_8100_u32.to_le_bytes());
    for header in [
        [1, 0, 0x0804_8000, 0, 0x1000, 0x1000, 5, 0x1000],
        [4, 116, 0x0804_8074, 0, 36, 36, 4, 4],
    ] {
        bytes.extend(header.iter().flat_map(|word: &u32| word.to_le_bytes()));
    }
    bytes.extend(note("GNU", 3, &[0xab; 20]));
    bytes.resize(0x1000, 0x90);
    bytes
}

#[test]
fn core_of_a_32_bit_process_has_facts_modules_and_memory() {
    let core = open(narrow_core()).unwrap();
    let head = core.head();
    assert_eq!(head.machine(), Machine::I386);
    assert_eq!(head.machine().to_string(), "i386");
    let process = head.process().unwrap();
    assert_eq!((process.pid, process.ppid), (23, 1));
    assert_eq!((process.uid, process.gid), (1000, 100));
    assert_eq!(process.name, b"parser");
    assert_eq!(process.arguments, b"parser -v");
    assert_eq!(head.threads()[0].tid, 23);
    let signal = head.signal().unwrap();
    assert_eq!((signal.number, signal.address), (11, Some(Avma(0x11))));
    assert!(core.completeness().is_complete());
    let modules = core.modules();
    assert_eq!(modules[0].path, b"/srv/parser");
    assert_eq!(modules[0].start(), Avma(0x0804_8000));
    let cut = narrow_core()[..0x1800].to_vec();
    assert!(!open(cut).unwrap().completeness().is_complete());
}

#[test]
fn program_of_a_32_bit_process_has_segments_and_a_build_id() {
    let bytes = narrow_program();
    let object = ElfObject::parse(&bytes).unwrap();
    assert_eq!(object.load_segments().len(), 1);
    assert_eq!(object.build_id().unwrap().as_bytes(), [0xab; 20]);
    assert_eq!(object.entry().0, 0x0804_8100);
    assert!(object.symbols().is_empty());
}

#[test]
fn cut_core_of_a_32_bit_process_does_not_panic() {
    let bytes = narrow_core();
    for end in (0..0x1010).step_by(3) {
        let _ = open(bytes[..end].to_vec()).map(|core| core.modules().len());
    }
}

/// `NT_PRSTATUS` of aarch64 with this return address in x30.
fn aarch64_thread(link: u64) -> Vec<u8> {
    let mut status = vec![0; 392];
    status[12] = 11;
    status[32] = 7;
    status[112 + 30 * 8..112 + 31 * 8].copy_from_slice(&link.to_le_bytes());
    note("CORE", PRSTATUS, &status)
}

#[test]
fn pointer_authentication_is_removed_by_the_mask_of_the_core() {
    const AARCH64: u16 = 183;
    let signed = 0x0055_ffff_9000_1234;
    let link = |notes: &[Vec<u8>]| {
        let core = open(wide_core(AARCH64, notes)).unwrap();
        core.head().threads()[0].registers.link()
    };
    assert_eq!(link(&[aarch64_thread(signed)]), Some(0xffff_9000_1234));
    // `struct user_pac_mask`: of data, then of code.
    let mask = [0x007f_u64 << 48, 0x0050 << 48].map(u64::to_le_bytes);
    let stated = note("LINUX", 0x406, mask.as_flattened());
    let found = link(&[aarch64_thread(signed), stated]);
    assert_eq!(found, Some(0x0005_ffff_9000_1234));
}

#[test]
fn addresses_of_52_bits_are_kept_where_the_process_uses_them() {
    let mut core = wide_core(183, &[aarch64_thread(0x0055_ffff_9000_1234)]);
    // A segment at the top of 52 bits, in the place of the notes' padding: a second program header.
    let notes = core.split_off(120);
    core[56] = 2;
    core[72..80].copy_from_slice(&176_u64.to_le_bytes());
    let mut load = vec![0; 56];
    load[0] = 1;
    load[16..24].copy_from_slice(&0x000f_ffff_0000_0000_u64.to_le_bytes());
    load[40..48].copy_from_slice(&0x1000_u64.to_le_bytes());
    let core = open([core, load, notes].concat()).unwrap();
    let link = core.head().threads()[0].registers.link();
    assert_eq!(link, Some(0x0005_ffff_9000_1234));
}

#[test]
fn registers_of_an_i386_thread_have_their_dwarf_numbers() {
    let mut status = vec![0; 144];
    for (slot, value) in [(6, 0xa_u32), (12, 0x0804_8100), (15, 0xffff_0000)] {
        let at = 72 + 4 * slot;
        status[at..at + 4].copy_from_slice(&value.to_le_bytes());
    }
    let mut core = narrow_core();
    let at = 116 + 12 + 8;
    core[at..at + status.len()].copy_from_slice(&status);
    let core = open(core).unwrap();
    let registers = &core.head().threads()[0].registers;
    assert_eq!(registers.get(0), Some(0xa));
    assert_eq!(registers.pc(), Some(Avma(0x0804_8100)));
    assert_eq!(registers.sp(), Some(Avma(0xffff_0000)));
}
