//! Damaged files and nonsense on the stack: nothing panics, everything ends.

use super::*;
use cdh_elfcore::{Avma, Machine, Memory};
use proptest::prelude::*;
use std::sync::OnceLock;

fn example() -> &'static (Vec<u8>, Vec<u8>) {
    static EXAMPLE: OnceLock<(Vec<u8>, Vec<u8>)> = OnceLock::new();
    EXAMPLE.get_or_init(|| {
        let crash = Crash::of(CHAIN, "gcc", &["-O2", "-g"]);
        (
            std::fs::read(&crash.program).unwrap(),
            std::fs::read(&crash.core).unwrap(),
        )
    })
}

/// More of them with `PROPTEST_CASES`.
fn cases() -> u32 {
    std::env::var("PROPTEST_CASES")
        .ok()
        .and_then(|cases| cases.parse().ok())
        .unwrap_or(64)
}

struct Noise(u64);

impl Memory for Noise {
    fn read(&self, at: Avma, buf: &mut [u8]) -> usize {
        for (byte, at) in buf.iter_mut().zip(at.0..) {
            let word = ((at / 8) ^ self.0).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
            // Mostly plausible addresses, so that unwinding goes on.
            let word = 0x40_0000 + word % 0x10_0000;
            *byte = word.to_le_bytes()[(at % 8) as usize];
        }
        buf.len()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(cases()) })]

    #[test]
    fn damaged_program_never_panics(
        edits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..200),
        cut in proptest::option::of(any::<prop::sample::Index>()),
    ) {
        let (program, core) = example();
        let core = CoreFile::open(Box::new(core.clone())).unwrap();
        let mut program = program.clone();
        for (at, byte) in edits {
            let at = at.index(program.len());
            program[at] = byte;
        }
        if let Some(cut) = cut {
            program.truncate(cut.index(program.len()));
        }
        let mut modules = core.modules();
        modules.iter_mut().for_each(|module| module.build_id = None);
        let arena = SectionArena::with_limit(64 << 20);
        let loaded: Vec<_> = modules
            .iter()
            .map(|module| LoadedModule::from_file(module, &program))
            .collect();
        let options = BacktraceOptions { all_threads: true, max_frames: 100, ..BacktraceOptions::default() };
        let threads = core.head().threads();
        let ours = backtrace(threads, &core, &loaded, &arena, &options);
        prop_assert!(ours.threads[0].frames.len() <= 100 * 300);
        serde_json::to_string(&ours).unwrap();
        let _ = module_needs(threads, &core, &loaded, &arena, &options);
    }

    #[test]
    fn noise_on_the_stack_ends(
        seed in any::<u64>(),
        values in proptest::collection::vec(any::<u64>(), 33),
        arm in any::<bool>(),
    ) {
        let (program, core) = example();
        let core = CoreFile::open(Box::new(core.clone())).unwrap();
        let modules = core.modules();
        let loaded: Vec<_> =
            modules.iter().map(|module| LoadedModule::from_file(module, program)).collect();
        let machine = if arm { Machine::Aarch64 } else { Machine::X86_64 };
        let mut registers = Registers::new(machine);
        for (number, value) in (0..).zip(values) {
            registers.set(number, Some(value));
        }
        registers.set(registers.pc_number(), Some(modules[0].start().0 + seed % 0x4000));
        let unwinder = cdh_symbolize::Unwinder::new(&loaded);
        let (frames, _) = unwinder.unwind(&registers, &Noise(seed), 10_000);
        prop_assert!(frames.len() <= 10_000);
    }
}
