//! SIGILL and SIGTRAP: instructions that are none, that this processor lacks, and traps.

use cdh_elfcore::Machine;

use super::here;
use crate::cause::{Cause, Class, Fact};
use crate::instruction::{Flow, Instruction};
use crate::scene::Scene;

/// `brk` operands of `__builtin_trap` (clang, gcc), and the first of UBSan's.
const TRAPS: [u64; 2] = [1, 1000];
const UBSAN: u64 = 0x5500;
const TRAP_BRKPT: i32 = 1;

fn shown(scene: &Scene<'_>, instruction: &Instruction) -> Fact {
    let text = format!(
        "the instruction at {} is `{}`",
        instruction.at, instruction.text
    );
    Fact::new(text)
        .at(instruction.at.0)
        .instruction(&instruction.text)
        .location(scene.location(0))
}

pub(super) fn explain(scene: &Scene<'_>) -> Option<Cause> {
    let who = scene.actor();
    let pc = scene.pc()?;
    if scene.crash.signal.address.is_some_and(|at| at.0 != pc) {
        return None;
    }
    if !crate::instruction::is_built_in() {
        return None;
    }
    let mut bytes = [0; 4];
    let known = scene.read(pc, &mut bytes);
    let Some(instruction) = scene.faulting() else {
        if known < bytes.len() {
            return None;
        }
        let text: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let place = scene
            .place(pc)
            .map_or_else(String::new, |place| format!(", in {place}"));
        let sentence = format!(
            "{who} reached bytes at {pc:#x} that are not an instruction of {}.",
            scene.crash.machine
        );
        return Some(
            Cause::new(Class::IllegalInstruction, sentence)
                .with(
                    Fact::new(format!(
                        "the bytes at {pc:#x}{place} are `{}`",
                        text.join(" ")
                    ))
                    .at(pc),
                )
                .with(here(scene)),
        );
    };
    let fact = shown(scene, &instruction);
    match &instruction.flow {
        Flow::Trap(_) => Some(trapped(scene, &who, fact)),
        _ if !instruction.features.is_empty() => {
            let needs = instruction.features.join(" and ");
            let sentence = format!(
                "{who} used the instruction `{}`, which needs {needs}; the processor of this machine does not offer it.",
                instruction.text
            );
            Some(
                Cause::new(Class::MissingCpuFeature, sentence)
                    .with(fact)
                    .with(here(scene)),
            )
        }
        _ => None,
    }
}

fn trapped(scene: &Scene<'_>, who: &str, fact: Fact) -> Cause {
    let sentence = format!(
        "{who} reached a trap: an instruction that ends the program on purpose, where it must not continue."
    );
    Cause::new(Class::Trap, sentence)
        .with(fact)
        .with(here(scene))
}

pub(super) fn trap(scene: &Scene<'_>) -> Option<Cause> {
    let who = scene.actor();
    let pc = scene.pc()?;
    if !matches!(scene.crash.signal.code, Some(super::SI_KERNEL | TRAP_BRKPT)) {
        return None;
    }
    match scene.crash.machine {
        Machine::X86_64 => {
            let at = pc.checked_sub(1)?;
            let mut byte = [0];
            if scene.read(at, &mut byte) != 1 || byte != [0xcc] {
                return None;
            }
            let text = format!("the instruction at {at:#x} is `int3`");
            let fact = Fact::new(text)
                .at(at)
                .instruction("int3")
                .location(scene.location(0));
            Some(breakpoint(scene, &who, fact))
        }
        Machine::Aarch64 => {
            let instruction = scene.faulting()?;
            let fact = shown(scene, &instruction);
            match instruction.flow {
                Flow::Trap(Some(number)) if TRAPS.contains(&number) || number & 0xff00 == UBSAN => {
                    Some(trapped(scene, &who, fact))
                }
                Flow::Trap(_) => Some(breakpoint(scene, &who, fact)),
                _ => None,
            }
        }
        _ => None,
    }
}

fn breakpoint(scene: &Scene<'_>, who: &str, fact: Fact) -> Cause {
    let sentence = format!(
        "{who} reached a breakpoint instruction that is part of the program, and no debugger handled it."
    );
    Cause::new(Class::Breakpoint, sentence)
        .with(fact)
        .with(here(scene))
}
