//! Stacks drawn by hand, for machines and C libraries that are not at hand.

mod doubt;
mod signals;

use super::*;
use crate::ModuleStatus;
use cdh_elfcore::{ElfObject, FileOffset, Machine, Module, ModuleKind, ModuleRange};

pub(super) const TEXT: u64 = 0x40_0000;
const STACK: u64 = 0x7000_0000;

/// Code at [`TEXT`], stack at [`STACK`].
struct Drawn {
    code: Vec<u8>,
    stack: Vec<u64>,
}

impl Memory for Drawn {
    fn read(&self, at: Avma, buf: &mut [u8]) -> usize {
        let stack: Vec<u8> = self
            .stack
            .iter()
            .flat_map(|word| word.to_le_bytes())
            .collect();
        let (bytes, at) = if at.0 >= STACK {
            (&stack, at.0 - STACK)
        } else {
            (&self.code, at.0.wrapping_sub(TEXT))
        };
        let tail = bytes.get(at as usize..).unwrap_or_default();
        let count = tail.len().min(buf.len());
        buf[..count].copy_from_slice(&tail[..count]);
        count
    }

    fn is_executable(&self, at: Avma) -> Option<bool> {
        let stack = STACK..STACK + 8 * self.stack.len() as u64;
        match (TEXT..TEXT + 0x1000).contains(&at.0) {
            true => Some(true),
            false => stack.contains(&at.0).then_some(false),
        }
    }
}

fn module() -> Module {
    Module {
        path: b"/app".to_vec(),
        deleted: false,
        kind: ModuleKind::Executable,
        ranges: vec![ModuleRange {
            start: Avma(TEXT),
            end: Avma(TEXT + 0x1000),
            offset: FileOffset(0),
        }],
        build_id: None,
        bias: Some(TEXT),
    }
}

/// An ELF file with one executable load and no unwind tables.
fn object(machine: u16, code: &[u8]) -> Vec<u8> {
    let mut file = vec![0; 0x1000];
    file[..6].copy_from_slice(b"\x7fELF\x02\x01");
    file[18..20].copy_from_slice(&machine.to_le_bytes());
    file[32..40].copy_from_slice(&64_u64.to_le_bytes());
    file[56..58].copy_from_slice(&1_u16.to_le_bytes());
    file[64..68].copy_from_slice(&1_u32.to_le_bytes());
    file[68..72].copy_from_slice(&5_u32.to_le_bytes());
    file[96..104].copy_from_slice(&0x1000_u64.to_le_bytes());
    file[104..112].copy_from_slice(&0x1000_u64.to_le_bytes());
    file[0x100..0x100 + code.len()].copy_from_slice(code);
    file
}

fn unwind(
    machine: u16,
    code: &[u8],
    stack: &[u64],
    set: &[(u16, u64)],
) -> (Vec<UnwoundFrame>, Stop) {
    unwind_object(machine, &object(machine, code), stack, set)
}

/// The same, of a whole file.
pub(super) fn unwind_object(
    machine: u16,
    file: &[u8],
    stack: &[u64],
    set: &[(u16, u64)],
) -> (Vec<UnwoundFrame>, Stop) {
    let module = module();
    let loaded = [LoadedModule::with_object(
        &module,
        ElfObject::parse(file).unwrap(),
    )];
    assert_eq!(loaded[0].status, ModuleStatus::Unverified);
    unwind_loaded(&loaded, file, Machine::from_elf(machine), stack, set)
}

/// Unwinds from these registers over a stack; the code is that of `file`.
fn unwind_loaded(
    loaded: &[LoadedModule<'_>],
    file: &[u8],
    machine: Machine,
    stack: &[u64],
    set: &[(u16, u64)],
) -> (Vec<UnwoundFrame>, Stop) {
    let mut registers = Registers::new(machine);
    for (number, value) in set {
        registers.set(*number, Some(*value));
    }
    let memory = Drawn {
        code: file.to_vec(),
        stack: stack.to_vec(),
    };
    Unwinder::new(loaded).unwind(&registers, &memory, 100)
}

fn found(frames: &[UnwoundFrame]) -> Vec<(u64, FrameTrust)> {
    frames
        .iter()
        .map(|frame| (frame.pc.0 - TEXT, frame.trust))
        .collect()
}

#[test]
fn aarch64_follows_the_link_register_then_frame_records() {
    // 0x100: nop. 0x104: bl 0x100, 0x108. 0x10c: bl 0x104, 0x110.
    let code = [
        0xd503_201f_u32,
        0x97ff_ffff,
        0xd503_201f,
        0x97ff_fffe,
        0xd503_201f,
    ];
    let code: Vec<u8> = code.iter().flat_map(|word| word.to_le_bytes()).collect();
    // The record's return address carries an authentication code in its upper bits.
    let stack = [0, 0, 0, (0x2a << 48) | (TEXT + 0x110)];
    let set = [
        (32, TEXT + 0x100),
        (31, STACK),
        (29, STACK + 16),
        (30, TEXT + 0x108),
    ];
    let (frames, stop) = unwind(183, &code, &stack, &set);
    let expected = [
        (0x100, FrameTrust::Registers),
        (0x108, FrameTrust::FramePointer),
        (0x110, FrameTrust::FramePointer),
    ];
    assert_eq!(found(&frames), expected);
    assert_eq!(stop, Stop::End);
    assert!(frames[1].is_return_address && !frames[0].is_return_address);
}

#[test]
fn musl_signal_trampoline_is_known_by_its_code() {
    // 0x100: call 0x100, 0x105. 0x110: mov $15, %rax; syscall. 0x120: interrupted.
    let mut code = vec![0x90; 0x40];
    code[..5].copy_from_slice(&[0xe8, 0xfb, 0xff, 0xff, 0xff]);
    code[0x10..0x19].copy_from_slice(&[0x48, 0xc7, 0xc0, 0x0f, 0, 0, 0, 0x0f, 0x05]);
    let mut stack = vec![0; 64];
    // In the trampoline the saved registers start at sp + 40: rbp word 10, rsp word 15, rip word 16.
    stack[5 + 15] = STACK + 8 * 40;
    stack[5 + 16] = TEXT + 0x120;
    stack[41] = TEXT + 0x105;
    let set = [(16, TEXT + 0x110), (7, STACK), (6, 0)];
    let (frames, stop) = unwind(62, &code, &stack, &set);
    let expected = [
        (0x110, FrameTrust::Registers),
        (0x120, FrameTrust::Signal),
        (0x105, FrameTrust::Scan),
    ];
    assert_eq!(found(&frames), expected);
    assert!(frames[0].signal_frame && !frames[1].signal_frame);
    assert_eq!(stop, Stop::End);
}

#[test]
fn signal_frames_that_lead_in_a_circle_end() {
    let mut code = vec![0x90; 0x20];
    code[..9].copy_from_slice(&[0x48, 0xc7, 0xc0, 0x0f, 0, 0, 0, 0x0f, 0x05]);
    let mut stack = vec![0; 64];
    stack[5 + 15] = STACK;
    stack[5 + 16] = TEXT + 0x100;
    let (frames, stop) = unwind(62, &code, &stack, &[(16, TEXT + 0x100), (7, STACK)]);
    assert_eq!((frames.len(), stop), (2, Stop::Loop));
}

#[test]
fn frame_pointers_that_lead_down_end() {
    let mut code = vec![0x90; 0x20];
    code[..5].copy_from_slice(&[0xe8, 0xfb, 0xff, 0xff, 0xff]);
    let stack = [0, STACK, TEXT + 0x105, 0];
    let (frames, stop) = unwind(
        62,
        &code,
        &stack,
        &[(16, TEXT + 0x110), (7, STACK), (6, STACK + 8)],
    );
    assert_eq!(found(&frames)[1], (0x105, FrameTrust::FramePointer));
    assert_eq!(frames.len(), 2);
    assert!(matches!(stop, Stop::NoRule | Stop::Loop), "{stop:?}");
}

#[test]
fn module_without_file_is_crossed_by_frame_pointers_only() {
    let module = module();
    let loaded = [LoadedModule::missing(&module)];
    let mut registers = Registers::new(Machine::X86_64);
    for (number, value) in [(16, TEXT + 0x110), (7, STACK), (6, STACK + 8)] {
        registers.set(number, Some(value));
    }
    let stack = vec![TEXT + 0x120, STACK + 32, TEXT + 0x130, 0, 0, TEXT + 0x140];
    let memory = Drawn {
        code: Vec::new(),
        stack,
    };
    let (frames, _) = Unwinder::new(&loaded).unwind(&registers, &memory, 100);
    assert_eq!(
        found(&frames),
        [
            (0x110, FrameTrust::Registers),
            (0x130, FrameTrust::FramePointer),
            (0x140, FrameTrust::FramePointer),
        ]
    );
}
