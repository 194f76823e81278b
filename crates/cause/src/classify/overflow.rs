//! A full stack: the cycle of calls that filled it, or its largest frame.

use cdh_elfcore::StackOverflow;
use cdh_symbolize::{Unwinder, UnwoundFrame};

use crate::cause::{Cause, Class, Fact};
use crate::scene::Scene;
use crate::words;

/// Frames that are looked at.
const FRAMES: usize = 2048;
/// Most functions in one cycle.
const LONGEST_CYCLE: usize = 32;
/// Repetitions that make a cycle certain.
const REPETITIONS: usize = 8;
/// Outermost frames differ in the first calls, innermost in the last ones.
const MARGIN: usize = 64;
/// Larger frames do not exist: the stack pointer is wrong.
const LARGEST_FRAME: u64 = 1 << 30;
/// Functions of a cycle that are named.
const NAMED: usize = 4;

pub(super) fn explain(scene: &Scene<'_>, overflow: StackOverflow) -> Cause {
    let size = words::size(overflow.stack_size);
    let frames = unwound(scene);
    let full = |sentence: String| {
        Cause::new(Class::StackOverflow, sentence).with(
            Fact::new(format!(
                "the address {} is {} below the stack, which starts at {} and is {size} long",
                overflow.address,
                words::bytes(overflow.stack_start.0.saturating_sub(overflow.address.0)),
                overflow.stack_start,
            ))
            .at(overflow.address.0),
        )
    };
    if let Some(cycle) = cycle(&frames) {
        let names = names(scene, &frames, &cycle);
        let who = match names.as_slice() {
            [] => "a function".to_owned(),
            [one] => one.clone(),
            [first, .., last] if names.len() <= NAMED && names.len() == 2 => {
                format!("{first} and {last}")
            }
            [first, second, ..] => format!("{first}, {second} and others"),
        };
        let call = match cycle.length {
            1 => format!("{who} called itself"),
            _ => format!("{who} called each other"),
        };
        let sentence = format!("The stack of {size} is full: {call} too many times.");
        let mut text = match cycle.length {
            1 => "the same call repeats on the stack".to_owned(),
            length => format!("the same {length} calls repeat on the stack"),
        };
        if let Some(bytes) = cycle.bytes {
            let times = overflow.stack_size.checked_div(bytes).unwrap_or(0);
            text.push_str(&format!(
                "; each round takes {}, so about {} rounds fit",
                words::bytes(bytes),
                words::grouped(times)
            ));
        }
        let first = frames.get(cycle.start);
        let fact = Fact::new(text).at(first.map_or(0, |frame| frame.pc.0));
        return full(sentence).with(fact.location(scene.location(cycle.start)));
    }
    let largest = largest(scene, &frames, overflow.stack_size);
    match largest {
        Some((index, bytes)) => {
            let name = scene
                .named(index)
                .unwrap_or_else(|| "a function".to_owned());
            let sentence = format!(
                "The stack is full: the local variables of {name} alone take {}.",
                words::size(bytes)
            );
            full(sentence).with(
                Fact::new(format!(
                    "the frame of {name} is {} long",
                    words::bytes(bytes)
                ))
                .location(scene.location(index)),
            )
        }
        None => full(format!("The stack is full{}.", scene.in_culprit())).with(super::here(scene)),
    }
}

fn unwound(scene: &Scene<'_>) -> Vec<UnwoundFrame> {
    let Some(registers) = scene.crash.registers else {
        return Vec::new();
    };
    Unwinder::new(scene.crash.modules)
        .unwind(registers, scene.crash.memory, FRAMES)
        .0
}

struct Cycle {
    /// First frame that belongs to it.
    start: usize,
    /// Frames of one round.
    length: usize,
    /// Bytes of the stack for one round, if all rounds take the same.
    bytes: Option<u64>,
}

fn cycle(frames: &[UnwoundFrame]) -> Option<Cycle> {
    let repeats = |start: usize, length: usize| {
        let count = length.checked_mul(REPETITIONS)?;
        let end = start.checked_add(count)?.checked_add(length)?;
        let all = frames.get(start..end)?;
        let pcs = all.iter().zip(all.iter().skip(length));
        pcs.clone().all(|(a, b)| a.pc == b.pc).then_some(all)
    };
    for start in 0..MARGIN {
        for length in 1..=LONGEST_CYCLE {
            let Some(all) = repeats(start, length) else {
                continue;
            };
            let round = |(a, b): (&UnwoundFrame, &UnwoundFrame)| b.sp?.checked_sub(a.sp?);
            let mut rounds = all.iter().zip(all.iter().skip(length)).map(round);
            let first = rounds.next().flatten();
            let bytes = first.filter(|_| rounds.all(|bytes| bytes == first));
            return Some(Cycle {
                start,
                length,
                bytes,
            });
        }
    }
    None
}

/// Names of the functions of one round, each once.
fn names(scene: &Scene<'_>, frames: &[UnwoundFrame], cycle: &Cycle) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    let end = cycle.start.saturating_add(cycle.length);
    for unwound in frames.get(cycle.start..end).unwrap_or_default() {
        let shown = scene.crash.frames.iter();
        let index = shown.clone().position(|frame| frame.pc == unwound.pc);
        let Some(name) = index.and_then(|index| scene.named(index)) else {
            continue;
        };
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

/// The frame that takes most of the stack, if it takes half of it.
fn largest(scene: &Scene<'_>, frames: &[UnwoundFrame], stack: u64) -> Option<(usize, u64)> {
    let sizes = frames
        .iter()
        .zip(frames.iter().skip(1))
        .filter_map(|(frame, caller)| {
            let bytes = caller.sp?.checked_sub(frame.sp?)?;
            Some((frame.pc, bytes))
        });
    let (pc, bytes) = sizes.max_by_key(|(_, bytes)| *bytes)?;
    let index = scene.crash.frames.iter().position(|frame| frame.pc == pc)?;
    (bytes >= stack / 2 && bytes <= LARGEST_FRAME).then_some((index, bytes))
}
