//! Hostile cores: whatever signal, registers, mappings and memory are, there is one bounded answer and no panic.

// A failed test may panic; nothing of this ships.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used
)]

use std::sync::Arc;

use cdh_cause::{Crash, explain, listing};
use cdh_elfcore::{
    Avma, FileOffset, Machine, Memory, Registers, Segment, SignalInfo, StackOverflow,
};
use cdh_symbolize::{Frame, FrameTrust, Function};
use proptest::prelude::*;

/// Memory that has the same bytes everywhere.
struct Repeated(Vec<u8>);

impl Memory for Repeated {
    fn read(&self, at: Avma, buf: &mut [u8]) -> usize {
        let length = self.0.len() as u64;
        for (index, byte) in buf.iter_mut().enumerate() {
            let place = at.0.wrapping_add(index as u64) % length;
            *byte = self.0[usize::try_from(place).unwrap()];
        }
        buf.len()
    }
}

const NAMES: [&str; 12] = [
    "main",
    "abort",
    "__cxa_throw",
    "std::terminate",
    "rust_panic",
    "std::panicking::begin_panic_handler::{{closure}}",
    "__asan_report_load4",
    "__stack_chk_fail",
    "__assert_fail",
    "__cxa_pure_virtual",
    "std::sys::pal::unix::stack_overflow::imp::signal_handler",
    "\u{1b}[31m\n",
];

fn frame(pc: u64, name: usize) -> Frame {
    Frame {
        pc: Avma(pc),
        module: None,
        svma: None,
        trust: FrameTrust::Cfi,
        function: Ok(Arc::new(Function {
            name: NAMES[name].to_owned(),
            raw: String::new(),
            offset: Some(pc & 0xffff),
        })),
        inline: false,
        location: None,
        tail_call: false,
        signal_handler: false,
        is_return_address: pc & 1 == 1,
        interpreted: false,
        language: None,
        sp: None,
    }
}

fn address() -> impl Strategy<Value = u64> {
    prop_oneof![
        any::<u64>(),
        0..0x2000_u64,
        Just(0x7fff_0000_1000),
        Just(u64::MAX)
    ]
}

fn segment() -> impl Strategy<Value = Segment> {
    (address(), any::<u64>(), 0..8_u32).prop_map(|(start, size, flags)| Segment {
        start: Avma(start),
        memory_size: size,
        offset: FileOffset(0),
        file_size: size,
        flags,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn hostile_cores_have_one_bounded_answer(
        number in prop_oneof![Just(11), Just(6), Just(7), Just(8), Just(4), Just(5), Just(31), any::<i32>()],
        code in prop_oneof![0..9_i32, Just(0x80), Just(-6), any::<i32>()],
        union in address(),
        values in proptest::collection::vec(address(), 33),
        bytes in proptest::collection::vec(any::<u8>(), 1..64),
        segments in proptest::collection::vec(segment(), 0..6),
        names in proptest::collection::vec((address(), 0..NAMES.len()), 0..6),
        is_arm in any::<bool>(),
        is_full in any::<bool>(),
        message in proptest::option::of("\\PC{0,80}"),
    ) {
        let machine = if is_arm { Machine::Aarch64 } else { Machine::X86_64 };
        let mut registers = Registers::new(machine);
        for (register, value) in values.iter().enumerate() {
            registers.set(u16::try_from(register).unwrap(), Some(*value));
        }
        let memory = Repeated(bytes);
        let frames: Vec<Frame> = names.iter().map(|(pc, name)| frame(*pc, *name)).collect();
        let crash = Crash {
            signal: SignalInfo::new(number, code, (union as i32, 0), Avma(union)),
            pid: Some(7),
            machine,
            registers: Some(&registers),
            memory: &memory,
            segments: &segments,
            mappings: &[],
            modules: &[],
            frames: &frames,
            handler_frames: 0,
            reports: &[],
            overflow: is_full.then_some(StackOverflow {
                tid: 7,
                address: Avma(union),
                stack_start: Avma(values[0]),
                stack_size: values[1],
            }),
            abort_message: message.as_deref(),
            names: None,
            runtime_failure: None,
        };
        let cause = explain(&crash);
        prop_assert!(!cause.sentence.is_empty() && !cause.sentence.contains('\n'));
        prop_assert!(cause.sentence.len() < 4096 && cause.facts.len() <= 5);
        for index in 0..frames.len() {
            if let Some(found) = listing(&crash, index, 6) {
                prop_assert!(found.instructions.len() <= 13);
            }
        }
    }
}
