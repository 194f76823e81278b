//! Execution that reached an address without code: by a call, a return or a jump.

use cdh_elfcore::Machine;

use crate::cause::{Cause, Class, Fact};
use crate::instruction::{Flow, Instruction, Operand};
use crate::scene::Scene;
use crate::{heap, words};

/// DWARF number of `x30`, the return address of aarch64.
const LINK: u16 = 30;
const POINTER: u64 = 8;

/// Execution is at `pc`, where there is no code.
pub(super) fn not_code(scene: &Scene<'_>, pc: u64) -> Cause {
    let place = match scene.place(pc) {
        Some(place) => format!("which is in {place}, not code"),
        None => "where nothing is mapped".to_owned(),
    };
    if let Some((call, return_address)) = call_to(scene, pc) {
        return called(scene, pc, &place, &call, return_address);
    }
    if let Some(cause) = returned_to(scene, pc, &place) {
        return cause;
    }
    let from = match scene.own_frame_from(1).and_then(|own| scene.named(own)) {
        Some(name) => format!("; the innermost caller that is known is {name}"),
        None => String::new(),
    };
    let sentence = match pc {
        0 => format!("Execution jumped to address 0, where there is no code{from}."),
        _ => format!("Execution jumped to {pc:#x}, {place}{from}."),
    };
    Cause::new(Class::BadJump, sentence)
        .with(pc_fact(scene, pc))
        .with(top_fact(scene))
}

/// That no call leads here: the word on top of the stack is not a return address.
fn top_fact(scene: &Scene<'_>) -> Option<Fact> {
    if scene.crash.machine != Machine::X86_64 {
        return None;
    }
    let sp = scene.sp()?;
    let top = scene.u64_at(sp)?;
    let text = format!(
        "the stack at {sp:#x}, where a call leaves its return address, holds {top:#x}, which is none: the stack was overwritten, or this was not a call"
    );
    let is_none = scene.calls_before(top).is_empty();
    is_none.then(|| Fact::new(text).at(sp))
}

fn pc_fact(scene: &Scene<'_>, pc: u64) -> Fact {
    let name = match scene.crash.machine {
        Machine::X86_64 => "rip",
        _ => "pc",
    };
    let mut text = format!("the instruction pointer `{name}` is {pc:#x}");
    if let Some(spelled) = words::spelled(pc) {
        text.push_str(&format!(": its bytes are the text `{spelled}`"));
    }
    Fact::new(text).register(name).at(pc)
}

/// The call whose target was `pc`, and its return address.
fn call_to(scene: &Scene<'_>, pc: u64) -> Option<(Instruction, u64)> {
    let return_address = match scene.crash.machine {
        Machine::X86_64 => scene.u64_at(scene.sp()?)?,
        Machine::Aarch64 => scene.crash.registers?.get(LINK)?,
        _ => return None,
    };
    let goes_there = |call: &Instruction| match &call.flow {
        Flow::Call(target) => scene.value_of(call, target, POINTER) == Some(pc),
        _ => false,
    };
    let calls = scene.calls_before(return_address);
    // A longer one has the prefix that a shorter one lacks.
    let call = calls.into_iter().rev().find(goes_there)?;
    Some((call, return_address))
}

fn called(
    scene: &Scene<'_>,
    pc: u64,
    place: &str,
    call: &Instruction,
    return_address: u64,
) -> Cause {
    let at_call = |frame: &&cdh_symbolize::Frame| frame.pc.0 == return_address;
    let caller = scene.crash.frames.iter().position(|frame| at_call(&frame));
    let who = caller.map_or_else(|| "the program".to_owned(), |index| scene.actor_at(index));
    let location = caller.and_then(|index| scene.location(index));
    let shown = Fact::new(format!("the call at {} is `{}`", call.at, call.text))
        .at(call.at.0)
        .instruction(&call.text)
        .location(location);
    let pointer = match &call.flow {
        Flow::Call(Operand::Memory(index)) => call.accesses.get(*index).and_then(|access| {
            let at = access.address?;
            let text = format!("the pointer at {at:#x} holds {pc:#x}");
            Some(Fact::new(text).at(at))
        }),
        Flow::Call(Operand::Register(register)) => {
            Some(Fact::new(format!("`{}` is {pc:#x}", register.name)).register(&register.name))
        }
        _ => None,
    };
    let found = heap::allocator_word(scene, pc);
    let read_from = match &call.flow {
        Flow::Call(Operand::Memory(index)) => {
            call.accesses.get(*index).and_then(|access| access.address)
        }
        Flow::Call(Operand::Register(register)) => {
            caller.and_then(|index| scene.read_from(index, call.at.0, register))
        }
        _ => None,
    };
    let used = found.as_ref().map_or("", |found| found.words(read_from));
    let name = caller.and_then(|index| match &call.flow {
        Flow::Call(Operand::Memory(access)) => {
            let access = call.accesses.get(*access)?;
            scene.name_of_loaded(index, access, call.at.0)
        }
        Flow::Call(Operand::Register(register)) => scene.name_of(index, call.at.0, register, 0),
        _ => None,
    });
    let (class, sentence) = match (pc, &found) {
        (0, _) => (
            Class::NullCall,
            match &name {
                Some(name) => format!(
                    "{who} called a function through a null pointer: `{}` is null.",
                    name.pointer
                ),
                None => format!("{who} called a function through a null pointer."),
            },
        ),
        (_, Some(_)) => (
            Class::UseAfterFree,
            format!(
                "{who} {used}: it called a function through a pointer that `malloc` had written into a free block."
            ),
        ),
        _ => (
            Class::BadCall,
            format!("{who} called a function through a bad pointer: {pc:#x}, {place}."),
        ),
    };
    Cause::new(class, sentence)
        .with(shown)
        .with(pointer)
        .with(name.map(|name| Fact::new(format!("the function pointer is `{}`", name.pointer))))
        .with(found.map(|found| found.fact()))
        .with(pc_fact(scene, pc))
}

/// A return to `pc`: the word that was popped is still below the stack pointer, or in the link register.
fn returned_to(scene: &Scene<'_>, pc: u64, place: &str) -> Option<Cause> {
    let registers = scene.crash.registers?;
    let (evidence, at) = match scene.crash.machine {
        Machine::X86_64 => {
            let at = scene.sp()?.checked_sub(POINTER)?;
            // After a jump instead of a return, the caller's return address would be on top of the stack.
            let top = scene.u64_at(scene.sp()?)?;
            if scene.u64_at(at)? != pc || !scene.calls_before(top).is_empty() {
                return None;
            }
            // A leaf function has its variables below the stack pointer: the word could be one that it jumped to.
            // Then a register holds it too, unless the epilogue filled that from the overwritten stack.
            let is_elsewhere = (0..16).any(|number| registers.get(number) == Some(pc));
            let frame = registers.fp()?.0;
            let is_popped = scene.u64_at(at.checked_sub(POINTER)?) == Some(frame)
                && scene.segment(frame).is_none();
            if is_elsewhere && !is_popped {
                return None;
            }
            (
                format!("the return address on the stack, at {at:#x}, is {pc:#x}"),
                at,
            )
        }
        Machine::Aarch64 => {
            let is_elsewhere = (0..LINK).any(|number| registers.get(number) == Some(pc));
            if registers.get(LINK)? != pc || is_elsewhere {
                return None;
            }
            (format!("the return address in `x30` is {pc:#x}"), pc)
        }
        _ => return None,
    };
    let sentence = format!(
        "A function returned to {pc:#x}, {place}: its return address on the stack was overwritten."
    );
    Some(
        Cause::new(Class::BadReturn, sentence)
            .with(Fact::new(evidence).at(at))
            .with(pc_fact(scene, pc)),
    )
}

/// A call, jump or return whose target cannot be an address: the processor refused the instruction itself.
pub(super) fn corrupted_target(scene: &Scene<'_>, instruction: &Instruction) -> Option<Cause> {
    let who = scene.actor();
    let shown = Fact::new(format!(
        "the instruction at {} is `{}`",
        instruction.at, instruction.text
    ))
    .at(instruction.at.0)
    .instruction(&instruction.text)
    .location(scene.location(0));
    match &instruction.flow {
        Flow::Return => {
            let sp = scene.sp()?;
            let target = scene.u64_at(sp)?;
            if !scene.is_non_canonical(target) {
                return None;
            }
            let mut text = format!("the return address on the stack, at {sp:#x}, is {target:#x}");
            if let Some(spelled) = words::spelled(target) {
                text.push_str(&format!(": its bytes are the text `{spelled}`"));
            }
            let sentence = format!(
                "{who} could not return: its return address on the stack was overwritten with {target:#x}."
            );
            Some(
                Cause::new(Class::BadReturn, sentence)
                    .with(shown)
                    .with(Fact::new(text).at(sp)),
            )
        }
        Flow::Call(operand) | Flow::Jump(operand) => {
            let target = scene.value_of(instruction, operand, POINTER)?;
            if !scene.is_non_canonical(target) {
                return None;
            }
            let found = heap::allocator_word(scene, target);
            let used = found.as_ref().map_or("", |found| found.words(None));
            let spelled = words::spelled(target);
            let mut text = match operand {
                Operand::Memory(index) => {
                    let access = instruction.accesses.get(*index)?;
                    format!("the pointer at {:#x} holds {target:#x}", access.address?)
                }
                Operand::Register(register) => format!("`{}` is {target:#x}", register.name),
                _ => format!("the target is {target:#x}"),
            };
            if let Some(spelled) = &spelled {
                text.push_str(&format!(": its bytes are the text `{spelled}`"));
            }
            let name = match operand {
                Operand::Memory(index) => instruction
                    .accesses
                    .get(*index)
                    .and_then(|access| scene.name_of_loaded(0, access, instruction.at.0)),
                Operand::Register(register) => scene.name_of(0, instruction.at.0, register, 0),
                _ => None,
            };
            let (class, sentence) = match &found {
                Some(_) => (
                    Class::UseAfterFree,
                    format!(
                        "{who} {used}: it called a function through a pointer that `malloc` had written into a free block."
                    ),
                ),
                None => (
                    Class::BadCall,
                    match &spelled {
                        Some(spelled) => format!(
                            "{who} called a function through a bad pointer, {target:#x}: text (`{spelled}`) is where a pointer should be."
                        ),
                        None => format!(
                            "{who} called a function through a bad pointer: {target:#x} cannot be an address."
                        ),
                    },
                ),
            };
            Some(
                Cause::new(class, sentence)
                    .with(shown)
                    .with(Fact::new(text))
                    .with(name.map(|name| {
                        Fact::new(format!("the function pointer is `{}`", name.pointer))
                    }))
                    .with(found.map(|found| found.fact())),
            )
        }
        _ => None,
    }
}
