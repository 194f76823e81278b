//! The instructions around a frame's address, with the values of what the current one uses.

use cdh_elfcore::{Avma, Machine};

use crate::instruction::{self, Instruction, LONGEST};
use crate::scene::Scene;
use crate::{AccessMode, Crash};

/// Longest function that is decoded from its start.
const LONGEST_FUNCTION: u64 = 256 << 10;
/// Bytes before an address from which a start is guessed.
const GUESSED: u64 = 48;

/// Instructions around an address.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Listing {
    /// In the order of their addresses.
    pub instructions: Vec<ListedInstruction>,
    /// Whether those before the current one may be wrong: the start of the function is not known.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub guessed: bool,
}

/// One instruction.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ListedInstruction {
    /// Its address.
    pub address: Avma,
    /// Its text.
    pub text: String,
    /// Whether the frame is here: the faulting instruction, or the call that has not returned.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub current: bool,
    /// Values of registers and memory that the faulting instruction uses: `rax = 0x0`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<String>,
}

/// The instructions around the address of the frame at `index`: some before, the current one, as many after.
///
/// `None` if the frame's code is not known, or if this build has no disassembler.
#[must_use]
pub fn listing(crash: &Crash<'_>, index: usize, around: usize) -> Option<Listing> {
    let scene = Scene { crash };
    let frame = crash.frames.get(index)?;
    let pc = frame.pc.0;
    let is_call = frame.is_return_address;
    let function = frame.function.as_ref().ok();
    // Inlined calls have no offset; the function around them has one.
    let offset = function.and_then(|function| function.offset).or_else(|| {
        let same = crash
            .frames
            .iter()
            .skip(index)
            .take_while(|other| other.pc == frame.pc);
        same.filter_map(|other| other.function.as_ref().ok()?.offset)
            .next()
    });
    let offset = offset.filter(|offset| *offset <= LONGEST_FUNCTION);
    let (mut before, guessed) = before(&scene, pc, offset);
    let mut shown = Vec::new();
    let current = match is_call {
        true => before.pop().map(|call| (call, false)),
        false => scene
            .instruction_at(pc, crash.registers)
            .map(|found| (found, true)),
    };
    let (current, is_faulting) = current?;
    let skipped = before.len().saturating_sub(around);
    shown.extend(
        before
            .into_iter()
            .skip(skipped)
            .map(|found| listed(found, false)),
    );
    let mut next = current.at.0.checked_add(current.length as u64)?;
    let values = match is_faulting && index == 0 {
        true => values(&scene, &current),
        false => Vec::new(),
    };
    shown.push(ListedInstruction {
        values,
        ..listed(current, true)
    });
    for _ in 0..around {
        let Some(found) = scene.instruction_at(next, None) else {
            break;
        };
        next = next.saturating_add(found.length as u64);
        shown.push(listed(found, false));
    }
    Some(Listing {
        instructions: shown,
        guessed,
    })
}

fn listed(found: Instruction, current: bool) -> ListedInstruction {
    ListedInstruction {
        address: found.at,
        text: found.text,
        current,
        values: Vec::new(),
    }
}

/// The instructions that end at `pc`, and whether where they start is a guess.
pub(crate) fn before(scene: &Scene<'_>, pc: u64, offset: Option<u64>) -> (Vec<Instruction>, bool) {
    if let Some(found) = offset.and_then(|offset| between(scene, pc.checked_sub(offset)?, pc)) {
        return (found, false);
    }
    if scene.crash.machine == Machine::Aarch64 {
        let found = between(scene, pc.saturating_sub(GUESSED), pc);
        return (found.unwrap_or_default(), false);
    }
    let starts = (1..=GUESSED).rev().filter_map(|back| pc.checked_sub(back));
    let found = starts.filter_map(|start| between(scene, start, pc)).next();
    (found.unwrap_or_default(), true)
}

/// Decodes from `start`; `None` if no instruction ends at `end`.
fn between(scene: &Scene<'_>, start: u64, end: u64) -> Option<Vec<Instruction>> {
    let size = usize::try_from(end.checked_sub(start)?).ok()?;
    let mut bytes = vec![0; size.checked_add(LONGEST)?];
    let known = scene.read(start, &mut bytes);
    let bytes = bytes.get(..known.min(size))?;
    let mut found = Vec::new();
    let mut at = 0;
    while at < size {
        let address = start.checked_add(at as u64)?;
        let next = instruction::decode(scene.crash.machine, Avma(address), bytes.get(at..)?, None)?;
        at = at.checked_add(next.length)?;
        found.push(next);
    }
    (at == size).then_some(found)
}

/// What the faulting instruction uses.
fn values(scene: &Scene<'_>, current: &Instruction) -> Vec<String> {
    let mut values: Vec<String> = Vec::new();
    let mut push = |text: String| {
        if !values.contains(&text) {
            values.push(text);
        }
    };
    for register in &current.reads {
        if let Some(value) = register.value {
            push(format!("{} = {value:#x}", register.name));
        }
    }
    for access in &current.accesses {
        let Some(at) = access.address else { continue };
        let size = usize::try_from(access.size).unwrap_or(0).min(8);
        let mut word = [0; 8];
        let known = word
            .get_mut(..size)
            .map_or(0, |bytes| scene.read(at, bytes));
        let what = match (access.mode, size > 0 && known == size) {
            (_, true) => format!("[{at:#x}] = {:#x}", u64::from_le_bytes(word)),
            (AccessMode::Write, false) => format!("writes [{at:#x}], which is not in the core"),
            (_, false) => format!("[{at:#x}] is not in the core"),
        };
        push(what);
    }
    values
}
