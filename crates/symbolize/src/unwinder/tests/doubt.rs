//! Frames without a rule, and rules that lead nowhere.

use super::*;

/// A library at this address, whose file is missing.
const LIBRARY: u64 = 0x60_0000;
/// DWARF numbers: x86_64.
const RBP: u16 = 6;
const RSP: u16 = 7;
const RIP: u16 = 16;

/// `call 0x100`, which returns to 0x105, 0x115 and so on, as the code of a function at 0x100.
fn calls() -> Vec<u8> {
    let mut code = vec![0x90; 0x80];
    for at in (0..0x80).step_by(0x10) {
        code[at] = 0xe8;
        code[at + 1..at + 5].copy_from_slice(&(-5 - at as i32).to_le_bytes());
    }
    code
}

fn library() -> Module {
    Module {
        path: b"/lib/plugin.so".to_vec(),
        kind: ModuleKind::Library,
        ranges: vec![ModuleRange {
            start: Avma(LIBRARY),
            end: Avma(LIBRARY + 0x1000),
            offset: FileOffset(0),
        }],
        bias: Some(LIBRARY),
        ..module()
    }
}

/// Unwinds from a library without its file, above a program with the file `file`.
fn unwind_from(
    file: &[u8],
    stack: &[u64],
    machine: Machine,
    set: &[(u16, u64)],
) -> (Vec<UnwoundFrame>, Stop) {
    let (program, library) = (module(), library());
    let loaded = [
        LoadedModule::with_object(&program, ElfObject::parse(file).unwrap()),
        LoadedModule::missing(&library),
    ];
    unwind_loaded(&loaded, file, machine, stack, set)
}

/// Adds `.eh_frame`: from each of the given addresses on, 16 bytes have the given rules.
fn with_rules(mut file: Vec<u8>, rules: &[(u64, &[u8])]) -> Vec<u8> {
    const TABLE: usize = 0x800;
    const FRAME: usize = 0x900;
    let mut frame = Vec::new();
    let mut put = |id: u32, body: &[u8]| {
        let start = frame.len();
        frame.extend((body.len() as u32 + 4).to_le_bytes());
        frame.extend(id.to_le_bytes());
        frame.extend(body);
        start
    };
    // Version 1, "zR", factors 1 and -8, return address 16, addresses of eight bytes.
    put(0, &[1, b'z', b'R', 0, 1, 0x78, 16, 1, 0, 0, 0, 0]);
    let mut table = Vec::new();
    for (at, program) in rules {
        let mut body = [at.to_le_bytes(), 16_u64.to_le_bytes()].concat();
        body.push(0);
        body.extend(*program);
        body.resize(body.len().next_multiple_of(8) + 4, 0);
        let id = 24 + table.len() / 8 * (body.len() + 8);
        let start = put(id as u32, &body);
        assert_eq!(start + 4, id, "all entries have one size");
        table.extend((*at as i32 - TABLE as i32).to_le_bytes());
        table.extend((FRAME as i32 + start as i32 - TABLE as i32).to_le_bytes());
    }
    frame.extend([0; 4]);
    let mut head = vec![1, 3, 3, 0x3b];
    head.extend((FRAME as u32).to_le_bytes());
    head.extend((rules.len() as u32).to_le_bytes());
    head.extend(table);
    file[TABLE..TABLE + head.len()].copy_from_slice(&head);
    file[FRAME..FRAME + frame.len()].copy_from_slice(&frame);
    // A second program header: PT_GNU_EH_FRAME.
    file[56..58].copy_from_slice(&2_u16.to_le_bytes());
    let header = &mut file[120..176];
    header[..4].copy_from_slice(&0x6474_e550_u32.to_le_bytes());
    header[8..16].copy_from_slice(&(TABLE as u64).to_le_bytes());
    header[16..24].copy_from_slice(&(TABLE as u64).to_le_bytes());
    header[32..40].copy_from_slice(&(head.len() as u64).to_le_bytes());
    header[40..48].copy_from_slice(&(head.len() as u64).to_le_bytes());
    file
}

/// CFA is rsp + 16, the return address below it.
const BY_SP: &[u8] = &[0x0c, 7, 16, 0x90, 1];
/// CFA is rbp + 16, the return address below it.
const BY_FP: &[u8] = &[0x0c, 6, 16, 0x90, 1];

#[test]
fn scan_finds_callers_of_a_module_without_its_file_and_all_after_it_are_guesses() {
    let file = with_rules(object(62, &calls()), &[(0x110, BY_SP), (0x120, BY_SP)]);
    // Data, a return address, data, one by its rule.
    let stack = [7, TEXT, TEXT + 0x115, 1, TEXT + 0x125, 2, 0, 0];
    let set = [(RIP, LIBRARY + 0x10), (RSP, STACK), (RBP, 3)];
    let (frames, stop) = unwind_from(&file, &stack, Machine::X86_64, &set);
    let expected = [
        (LIBRARY + 0x10 - TEXT, FrameTrust::Registers),
        (0x115, FrameTrust::Scan),
        (0x125, FrameTrust::Scan),
    ];
    assert_eq!(found(&frames), expected);
    assert_eq!(stop, Stop::NoRule);
}

#[test]
fn rule_that_a_stale_frame_pointer_leads_down_starts_another_scan() {
    let file = with_rules(object(62, &calls()), &[(0x110, BY_FP), (0x120, BY_SP)]);
    // rbp is that of another frame: its record holds no return address.
    let stack = [0, TEXT + 0x115, STACK + 8, 9, TEXT + 0x125, 0, 0, 0];
    for stale in [STACK + 16, STACK + 48, 5] {
        let set = [(RIP, LIBRARY + 0x10), (RSP, STACK), (RBP, stale)];
        let (frames, _) = unwind_from(&file, &stack, Machine::X86_64, &set);
        let pcs: Vec<_> = found(&frames).into_iter().map(|(pc, _)| pc).collect();
        assert_eq!(pcs[1..], [0x115, 0x125], "{stale:x}");
        assert!(
            frames[1..]
                .iter()
                .all(|frame| frame.trust == FrameTrust::Scan)
        );
    }
}

#[test]
fn record_of_a_caller_does_not_hide_the_one_that_called_into_the_missing_file() {
    // Two functions of the program: the one at 0x110 is called directly from 0x120.
    let mut code = calls();
    code[0x10..0x12].copy_from_slice(&[0xff, 0xd0]);
    code[0x12] = 0x90;
    code[0x20..0x25].copy_from_slice(&[0xe8, 0xeb, 0xff, 0xff, 0xff]);
    let file = object(62, &code);
    // The library does not use rbp: it is that of the function at 0x110.
    let stack = [0, TEXT + 0x112, 0, STACK + 56, TEXT + 0x125, 0, 0, 0, 0];
    let set = [(RIP, LIBRARY + 0x10), (RSP, STACK), (RBP, STACK + 24)];
    let (frames, _) = unwind_from(&file, &stack, Machine::X86_64, &set);
    assert_eq!(found(&frames)[1], (0x112, FrameTrust::Scan));
    assert_eq!(found(&frames)[2].0, 0x125);
}

#[test]
fn scan_prefers_the_call_that_leads_into_the_missing_file() {
    let mut code = calls();
    // 0x10f: call *0x300(%rip), where the address of a function of the library is.
    code[0xf..0x15].copy_from_slice(&[0xff, 0x15, 0xeb, 1, 0, 0]);
    let mut file = object(62, &code);
    file[0x300..0x308].copy_from_slice(&(LIBRARY + 0x40).to_le_bytes());
    let stack = [0, TEXT + 0x125, 0, TEXT + 0x115, 0, 0];
    let set = [(RIP, LIBRARY + 0x10), (RSP, STACK), (RBP, 3)];
    let (frames, _) = unwind_from(&file, &stack, Machine::X86_64, &set);
    assert_eq!(found(&frames)[1], (0x115, FrameTrust::Scan));
}

#[test]
fn scan_passes_over_frames_whose_callers_called_something_else() {
    // call *%rax, which returns to 0x10a and to 0x11a.
    let mut code = calls();
    code[0x8..0xa].copy_from_slice(&[0xff, 0xd0]);
    code[0x18..0x1a].copy_from_slice(&[0xff, 0xd0]);
    let file = with_rules(object(62, &code), &[(0x100, BY_SP), (0x110, BY_SP)]);
    // A stale frame of the function at 0x110, whose caller has called the one at 0x100 since.
    let stale = [0, TEXT + 0x11a, 9, TEXT + 0x125];
    let live = [0, TEXT + 0x10a, 9, TEXT + 0x135, 0, 0];
    let stack = [&stale[..], &live[..]].concat();
    let set = [(RIP, LIBRARY + 0x10), (RSP, STACK), (RBP, 3)];
    let (frames, _) = unwind_from(&file, &stack, Machine::X86_64, &set);
    assert_eq!(found(&frames)[1], (0x10a, FrameTrust::Scan));
    assert_eq!(found(&frames)[2], (0x135, FrameTrust::Scan));
}

#[test]
fn stack_that_goes_on_at_a_lower_address_is_no_loop() {
    let file = with_rules(object(62, &calls()), &[(0x110, BY_FP), (0x120, BY_SP)]);
    let stack = [0, TEXT + 0x125, 0, 0, 0, 0, 0, 0, 0, 0];
    let set = [(RIP, TEXT + 0x111), (RSP, STACK + 64), (RBP, STACK)];
    let (frames, stop) = unwind_from(&file, &stack, Machine::X86_64, &set);
    let expected = [(0x111, FrameTrust::Registers), (0x125, FrameTrust::Cfi)];
    assert_eq!(found(&frames), expected);
    assert_eq!(stop, Stop::End);
}

#[test]
fn rule_that_leads_to_data_leads_to_no_frame() {
    let file = with_rules(object(62, &calls()), &[(0x110, BY_SP)]);
    let stack = [0, STACK + 8, 0, 0];
    let set = [(RIP, TEXT + 0x111), (RSP, STACK)];
    let (frames, stop) = unwind_from(&file, &stack, Machine::X86_64, &set);
    assert_eq!((frames.len(), stop), (1, Stop::NoRule));
}

#[test]
fn function_that_a_context_begins_with_is_looked_up_at_its_start() {
    let file = with_rules(object(62, &calls()), &[(0x110, BY_SP), (0x130, BY_SP)]);
    let stack = [0, TEXT + 0x130, 0, STACK, 0, 0];
    let set = [(RIP, TEXT + 0x111), (RSP, STACK)];
    let (frames, stop) = unwind_from(&file, &stack, Machine::X86_64, &set);
    assert_eq!(found(&frames)[1], (0x130, FrameTrust::Cfi));
    assert!(!frames[1].is_return_address);
    assert_eq!((frames.len(), stop), (2, Stop::NoRule));
}

#[test]
fn start_ends_a_stack_without_a_rule() {
    let mut file = object(62, &calls());
    file[24..32].copy_from_slice(&0x120_u64.to_le_bytes());
    // What the kernel puts there could be return addresses.
    let stack = [TEXT + 0x115, TEXT + 0x125, 0];
    let set = [(RIP, TEXT + 0x141), (RSP, STACK), (RBP, 7)];
    let (frames, _) = unwind_from(&file, &stack, Machine::X86_64, &set);
    assert_eq!(frames.len(), 1, "{frames:?}");
    let set = [(RIP, LIBRARY + 0x10), (RSP, STACK + 8), (RBP, 7)];
    let (frames, stop) = unwind_from(&file, &stack, Machine::X86_64, &set);
    assert_eq!(found(&frames)[1], (0x125, FrameTrust::Scan));
    assert_eq!((frames.len(), stop), (2, Stop::End));
}

#[test]
fn aarch64_leaf_without_its_file_is_called_from_the_link_register() {
    let file = object(183, &[]);
    // A record: the caller of the caller.
    let stack = [0, 0, 0, LIBRARY + 0x300];
    let leaf = |link: u64| {
        let set = [
            (32, LIBRARY + 0x14c),
            (31, STACK),
            (29, STACK + 16),
            (30, link),
        ];
        let (frames, _) = unwind_from(&file, &stack, Machine::Aarch64, &set);
        frames
            .iter()
            .map(|frame| frame.pc.0 - LIBRARY)
            .collect::<Vec<_>>()
    };
    assert_eq!(leaf(LIBRARY + 0x180), [0x14c, 0x180, 0x300]);
    // Its own address, after a call of its own.
    assert_eq!(leaf(LIBRARY + 0x140), [0x14c, 0x300]);
    // The one of its record.
    assert_eq!(leaf(LIBRARY + 0x300), [0x14c, 0x300]);
}

#[test]
fn aarch64_record_lies_at_the_bottom_of_its_frame() {
    let file = object(183, &[]);
    let mut stack = vec![0; 16];
    (stack[0], stack[1]) = (STACK + 32, LIBRARY + 0x300);
    (stack[4], stack[5]) = (STACK + 80, LIBRARY + 0x400);
    let set = [
        (32, LIBRARY + 0x14c),
        (31, STACK),
        (29, STACK),
        (30, LIBRARY + 0x140),
    ];
    let (frames, _) = unwind_from(&file, &stack, Machine::Aarch64, &set);
    let places: Vec<_> = frames.iter().filter_map(|frame| frame.sp).collect();
    assert_eq!(places, [Avma(STACK), Avma(STACK + 32), Avma(STACK + 80)]);
}
