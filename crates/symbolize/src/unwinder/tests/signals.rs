//! Signal frames drawn by hand: what is known of a signal, and which of them is the crash.

use cdh_elfcore::{SignalInfo, Thread};

use super::*;

const X86_64: u16 = 62;
const AARCH64: u16 = 183;
const SEGV: i32 = 11;
const ALRM: i32 = 14;
/// Where the code is that was interrupted.
const PC: u64 = TEXT + 0x100;

/// What the kernel pushes for a handler.
#[derive(Clone, Copy, Default)]
struct Pushed {
    info: Option<(i32, i32, u64)>,
    /// Signals that were blocked before.
    mask: u64,
    /// Number, error code and address of the last trap; syndrome, nothing and address (aarch64).
    trap: (u64, u64, u64),
    /// Arguments of a system call: rdi, rsi, rdx.
    arguments: [u64; 3],
}

fn bit(number: i32) -> u64 {
    1 << (number - 1)
}

impl Pushed {
    /// As words from the stack pointer of the trampoline on.
    fn words(self, machine: u16) -> Vec<u64> {
        let mut info = [0; 16];
        if let Some((number, code, union)) = self.info {
            info[0] = number as u32 as u64;
            info[1] = code as u32 as u64;
            info[2] = union;
        }
        if machine == X86_64 {
            let mut words = vec![0; 38];
            // struct sigcontext_64 begins at word 5.
            words[5 + 8] = self.arguments[0];
            words[5 + 9] = self.arguments[1];
            words[5 + 12] = self.arguments[2];
            words[5 + 16] = PC;
            words[5 + 18] = 0x002b_0000_0000_0033;
            words[5 + 19] = self.trap.1;
            words[5 + 20] = self.trap.0;
            words[5 + 22] = self.trap.2;
            words[37] = self.mask;
            words.extend(info);
            return words;
        }
        let mut words = info.to_vec();
        words.resize(38 + 36 + 512, 0);
        words[16 + 5] = self.mask;
        words[38] = self.trap.2;
        words[39 + 32] = PC;
        if self.trap.0 != 0 {
            words[38 + 36] = 0x4553_5201 | 16 << 32;
            words[38 + 37] = self.trap.0;
        }
        words
    }
}

/// Signal and frame of the crash, of a thread whose handlers were pushed, the innermost first.
fn original(
    machine: u16,
    file: &[u8],
    (ended_by, blocked): (i32, u64),
    pushed: &[Pushed],
) -> Option<OriginalSignal> {
    let module = module();
    let loaded = [LoadedModule::with_object(
        &module,
        ElfObject::parse(file).unwrap(),
    )];
    let mut stack = Vec::new();
    let frame = |pc: u64, sp: u64, signal_frame: bool| UnwoundFrame {
        pc: Avma(pc),
        sp: Some(Avma(sp)),
        trust: FrameTrust::Cfi,
        module: Some(0),
        svma: None,
        is_return_address: false,
        signal_frame,
    };
    let mut frames = vec![frame(TEXT + 0x10, STACK, false)];
    for pushed in pushed {
        let sp = STACK + 8 * stack.len() as u64;
        frames.push(frame(TEXT + 0x20, sp, true));
        frames.push(frame(PC, sp, false));
        stack.extend(pushed.words(machine));
    }
    let mut registers = Registers::new(Machine::from_elf(machine));
    registers.set(registers.pc_number(), Some(TEXT + 0x10));
    let thread = Thread {
        tid: 77,
        signal: ended_by as u16,
        blocked,
        registers,
    };
    let memory = Drawn {
        code: file.to_vec(),
        stack,
    };
    let unwinder = Unwinder::new(&loaded);
    unwinder.original_signal(&thread, None, &frames, &memory)
}

#[test]
fn signal_is_what_the_kernel_told_the_handler() {
    for machine in [X86_64, AARCH64] {
        let trap = match machine {
            X86_64 => (14, 4, 8),
            _ => (0x24 << 26, 0, 8),
        };
        let pushed = Pushed {
            info: Some((SEGV, 1, 8)),
            trap,
            ..Pushed::default()
        };
        let found = original(machine, &object(machine, &[]), (6, bit(SEGV)), &[pushed]).unwrap();
        assert_eq!(found.signal, SignalInfo::new(SEGV, 1, (8, 0), Avma(8)));
        assert_eq!((found.frame, found.nested.len()), (2, 0));
        assert_eq!(found.registers.unwrap().pc(), Some(Avma(PC)));
        // Of another fault: the handler asked for no `siginfo_t`, and these bytes are old.
        let stale = Pushed {
            info: Some((SEGV, 1, 0x7777)),
            ..pushed
        };
        let found = original(machine, &object(machine, &[]), (6, bit(SEGV)), &[stale]).unwrap();
        assert_eq!(found.signal.address, Some(Avma(8)));
    }
}

#[test]
fn signal_without_siginfo_follows_from_trap_call_and_mask() {
    let division = [0x48, 0xf7, 0xf9];
    let call = [0x0f, 0x05];
    let at_fault = [0x90; 8];
    let trap = |number, error, cr2| Pushed {
        trap: (number, error, cr2),
        ..Pushed::default()
    };
    let raised = |arguments| Pushed {
        arguments,
        trap: (14, 4, 8),
        ..Pushed::default()
    };
    // Code behind PC - 2, how the process ended and what was blocked, what was pushed, signal and address.
    type Row<'a> = (
        &'a str,
        Vec<u8>,
        (i32, u64),
        Pushed,
        Option<(i32, Option<u64>)>,
    );
    let at_pc = |code: &[u8]| [&[0; 2][..], code].concat();
    let table: [Row<'_>; 14] = [
        (
            "page fault",
            at_pc(&at_fault),
            (6, bit(SEGV)),
            trap(14, 4, 8),
            Some((SEGV, Some(8))),
        ),
        (
            "file that was cut",
            at_pc(&at_fault),
            (6, bit(7)),
            trap(14, 4, 8),
            Some((7, Some(8))),
        ),
        (
            "call of a null pointer",
            at_pc(&at_fault),
            (6, bit(SEGV)),
            trap(14, 0x14, PC),
            Some((SEGV, Some(PC))),
        ),
        (
            "wild address",
            at_pc(&at_fault),
            (6, bit(SEGV)),
            trap(13, 0, 0),
            Some((SEGV, None)),
        ),
        (
            "division",
            at_pc(&division),
            (6, bit(8)),
            trap(0, 0, 0),
            Some((8, Some(PC))),
        ),
        (
            "illegal instruction",
            at_pc(&at_fault),
            (6, bit(4)),
            trap(6, 0, 0),
            Some((4, Some(PC))),
        ),
        (
            "breakpoint",
            at_pc(&at_fault),
            (6, bit(5)),
            trap(3, 0, 0),
            Some((5, None)),
        ),
        (
            "abort after another fault",
            call.to_vec(),
            (6, bit(6)),
            raised([1, 77, 6]),
            Some((6, None)),
        ),
        (
            "unblocked, raised again",
            at_pc(&at_fault),
            (SEGV, 0),
            trap(14, 4, 8),
            Some((SEGV, Some(8))),
        ),
        (
            "unblocked, aborted",
            at_pc(&at_fault),
            (6, 0),
            trap(14, 4, 8),
            Some((SEGV, Some(8))),
        ),
        (
            "unblocked call",
            call.to_vec(),
            (6, 0),
            raised([1, 77, 6]),
            Some((6, None)),
        ),
        (
            "timer after a fault",
            at_pc(&at_fault),
            (SEGV, bit(ALRM)),
            trap(14, 4, 8),
            None,
        ),
        (
            "timer in a call after a fault",
            call.to_vec(),
            (SEGV, 0),
            raised([1, 2, 3]),
            None,
        ),
        (
            "no trap, no division",
            at_pc(&at_fault),
            (6, 0),
            trap(0, 0, 0),
            None,
        ),
    ];
    for (name, code, ended, pushed, expected) in table {
        let mut file = object(X86_64, &code[2..]);
        file[0xfe..0x100].copy_from_slice(&code[..2]);
        let found = original(X86_64, &file, ended, &[pushed]);
        let found = found.map(|found| (found.signal.number, found.signal.address.map(|at| at.0)));
        assert_eq!(found, expected, "{name}");
    }
}

#[test]
fn crash_is_the_outermost_fault_and_no_other_signal() {
    let info = |number, code, union| Pushed {
        info: Some((number, code, union)),
        ..Pushed::default()
    };
    let fault = |at| Pushed {
        trap: (14, 4, at),
        ..info(SEGV, 1, at)
    };
    let (timer, user) = (info(ALRM, 0x80, 0), info(10, -6, 1));
    // The handlers on a stack, the innermost first; the crash's address and frame, and nested faults.
    let table: [(&str, Vec<Pushed>, Option<(u64, usize, usize)>); 6] = [
        ("a timer's handler crashed", vec![timer], None),
        ("a fault", vec![fault(8)], Some((8, 2, 0))),
        (
            "a fault in a timer's handler",
            vec![fault(8), timer],
            Some((8, 2, 0)),
        ),
        (
            "a timer while a crash is handled",
            vec![timer, fault(8)],
            Some((8, 4, 0)),
        ),
        (
            "a fault in a handler",
            vec![fault(16), fault(8)],
            Some((8, 4, 1)),
        ),
        (
            "a signal in between",
            vec![fault(16), user, fault(8), timer],
            Some((8, 6, 1)),
        ),
    ];
    for (name, pushed, expected) in table {
        let found = original(X86_64, &object(X86_64, &[]), (SEGV, 0), &pushed);
        let found = found.map(|found| {
            let address = found.signal.address.unwrap().0;
            (address, found.frame, found.nested.len())
        });
        assert_eq!(found, expected, "{name}");
    }
}

/// aarch64: x29 leads from the handler's record to one that the kernel made, behind what it pushed.
#[test]
fn handler_with_frame_records_only_leads_to_what_it_interrupted() {
    // mov x8, #139; svc #0
    let trampoline = [0x68, 0x11, 0x80, 0xd2, 0x01, 0x00, 0x00, 0xd4];
    let pushed = Pushed {
        info: Some((SEGV, 1, 8)),
        trap: (0x24 << 26, 0, 8),
        ..Pushed::default()
    };
    let mut words = pushed.words(AARCH64);
    (words[39 + 29], words[39 + 30]) = (0x1234, 0x5678);
    let record = STACK + 16 + 8 * words.len() as u64;
    let mut stack = vec![record, TEXT + 0x100];
    stack.extend(words);
    stack.extend([0x1234, 0x5678]);
    let set = [(32, TEXT + 0x180), (31, STACK), (29, STACK), (30, 0)];
    let (frames, _) = unwind(AARCH64, &trampoline, &stack, &set);
    let shown: Vec<_> = frames
        .iter()
        .map(|frame| (frame.pc.0, frame.signal_frame, frame.trust))
        .take(3)
        .collect();
    assert_eq!(
        shown,
        [
            (TEXT + 0x180, false, FrameTrust::Registers),
            (TEXT + 0x100, true, FrameTrust::FramePointer),
            (PC, false, FrameTrust::Signal),
        ]
    );
    assert_eq!(frames[1].sp, Some(Avma(STACK + 16)));
}
