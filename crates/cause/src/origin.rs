//! Where the value of a register came from, within the instructions that certainly ran before.

use crate::instruction::{Access, Filling, Instruction, RegisterValue};
use crate::listing::before;
use crate::names::{Held, MemberName};
use crate::scene::Scene;
use crate::{Flow, Operand};

/// Steps that are followed.
const STEPS: usize = 8;
/// Longest function whose jumps are searched, in bytes.
const FUNCTION: u64 = 64 << 10;
/// Instructions of a function that are looked at.
const INSTRUCTIONS: usize = 32 << 10;

/// The instructions of the frame's function before `at`, and the addresses that jumps lead to.
pub(crate) struct Past {
    before: Vec<Instruction>,
    /// Sorted.
    targets: Vec<u64>,
}

impl Past {
    /// Of the code before `at`, which is in the frame at `index`. `None` if the function's start is not known, or
    /// if it has jumps whose targets are not known.
    pub(crate) fn of(scene: &Scene<'_>, index: usize, at: u64) -> Option<Self> {
        let frame = scene.crash.frames.get(index)?;
        let same = scene.crash.frames.iter().skip(index);
        let mut same = same.take_while(|other| other.pc == frame.pc);
        let offset = same.find_map(|other| other.function.as_ref().ok()?.offset)?;
        let start = frame.pc.0.checked_sub(offset)?;
        let (found, guessed) = before(
            scene,
            at,
            at.checked_sub(start).filter(|size| *size <= FUNCTION),
        );
        if guessed || found.first().is_none_or(|first| first.at.0 != start) {
            return None;
        }
        let mut targets = Vec::new();
        let mut next = at;
        let rest = std::iter::from_fn(|| {
            let found = scene.instruction_at(next, None)?;
            next = next.checked_add(found.length as u64)?;
            let is_padding =
                found.text.starts_with("nop") || matches!(found.flow, Flow::Breakpoint);
            (!is_padding && next.wrapping_sub(start) <= FUNCTION).then_some(found)
        });
        let rest: Vec<Instruction> = rest.take(INSTRUCTIONS).collect();
        for instruction in found.iter().chain(&rest) {
            match &instruction.flow {
                Flow::Jump(Operand::Constant(target)) => targets.push(*target),
                // A table of jumps may lead anywhere.
                Flow::Jump(_) => return None,
                _ => {}
            }
        }
        targets.sort_unstable();
        Some(Self {
            before: found,
            targets,
        })
    }

    /// Where the value that `register` has at the end was held before. `None` if that is not certain.
    pub(crate) fn held(&self, scene: &Scene<'_>, register: u16) -> Option<Held> {
        self.held_before(scene, register, self.before.len(), STEPS)
    }

    fn held_before(
        &self,
        scene: &Scene<'_>,
        register: u16,
        end: usize,
        steps: usize,
    ) -> Option<Held> {
        let steps = steps.checked_sub(1)?;
        for (index, instruction) in self.before.get(..end)?.iter().enumerate().rev() {
            let next = self.before.get(index.checked_add(1)?);
            // Whether the next one is reached from elsewhere too.
            let is_joined = next.is_some_and(|next| self.targets.binary_search(&next.at.0).is_ok());
            let is_end_joined = next.is_none() && self.is_target_after(instruction);
            // What a call or a jump that is always followed leaves behind is not what runs next.
            let is_passed = match &instruction.flow {
                Flow::Jump(Operand::Constant(_)) => !is_always_followed(instruction),
                Flow::Next | Flow::Divide { .. } => true,
                _ => false,
            };
            if is_joined || is_end_joined || !is_passed {
                return None;
            }
            if !instruction.writes.contains(&register) {
                continue;
            }
            return match instruction.filling? {
                Filling::Copy { to, from } if to == register => {
                    self.held_before(scene, from, index, steps)
                }
                Filling::Load { to } if to == register => {
                    self.loaded(scene, instruction, index, steps)
                }
                _ => None,
            };
        }
        None
    }

    /// Whether a jump leads to the instruction after this one.
    fn is_target_after(&self, instruction: &Instruction) -> bool {
        let next = instruction.at.0.saturating_add(instruction.length as u64);
        self.targets.binary_search(&next).is_ok()
    }

    fn loaded(
        &self,
        scene: &Scene<'_>,
        load: &Instruction,
        index: usize,
        steps: usize,
    ) -> Option<Held> {
        let access = load
            .accesses
            .first()
            .filter(|access| access.index.is_none())?;
        let registers = scene.crash.registers?;
        let Some(base) = &access.base else {
            // A global variable.
            return access.address.map(Held::Memory);
        };
        let is_kept = self
            .before
            .get(index..)?
            .iter()
            .all(|later| !later.writes.contains(&base.number));
        let is_frame = base.number == registers.fp_number() || base.number == registers.sp_number();
        if is_frame {
            let start = registers.get(base.number).filter(|_| is_kept)?;
            return Some(Held::Memory(start.wrapping_add_signed(access.displacement)));
        }
        let offset = u64::try_from(access.displacement).ok()?;
        let inner = match self.held_before(scene, base.number, index, steps) {
            Some(inner) => inner,
            // It may be a variable that is still there.
            None if is_kept => Held::Register(base.number),
            None => return None,
        };
        Some(Held::Member(Box::new(inner), offset))
    }
}

/// Whether a jump has no condition.
fn is_always_followed(jump: &Instruction) -> bool {
    let mnemonic = jump.text.split(' ').next();
    matches!(mnemonic, Some("jmp" | "b"))
}

/// The value that is `held` now.
pub(crate) fn value(scene: &Scene<'_>, held: &Held) -> Option<u64> {
    match held {
        Held::Register(number) => scene.crash.registers?.get(*number),
        Held::Memory(at) => scene.u64_at(*at),
        Held::Member(inner, offset) => scene.u64_at(value(scene, inner)?.checked_add(*offset)?),
    }
}

impl Scene<'_> {
    /// Where in memory the value of a register of the frame at `index` was read from.
    pub(crate) fn read_from(&self, index: usize, at: u64, register: &RegisterValue) -> Option<u64> {
        let held = Past::of(self, index, at)?.held(self, register.number)?;
        if value(self, &held) != register.value {
            return None;
        }
        match held {
            Held::Register(_) => None,
            Held::Memory(at) => Some(at),
            Held::Member(inner, offset) => value(self, &inner)?.checked_add(offset),
        }
    }

    /// The name of the pointer in a register of the frame at `index` before the instruction at `at`, and of what is
    /// at `offset` from where it points.
    pub(crate) fn name_of(
        &self,
        index: usize,
        at: u64,
        register: &RegisterValue,
        offset: u64,
    ) -> Option<MemberName> {
        let names = self.crash.names?;
        let pc = self.crash.frames.get(index)?.pc;
        let here = Held::Register(register.number);
        if let Some(found) = names.pointer(pc, &here, offset) {
            return Some(found);
        }
        let held = Past::of(self, index, at)?.held(self, register.number)?;
        if value(self, &held) != register.value {
            return None;
        }
        names.pointer(pc, &held, offset)
    }

    /// The name of a pointer that an instruction of the frame at `index` read from memory.
    pub(crate) fn name_of_loaded(
        &self,
        index: usize,
        access: &Access,
        at: u64,
    ) -> Option<MemberName> {
        let names = self.crash.names?;
        let pc = self.crash.frames.get(index)?.pc;
        let direct = names.pointer(pc, &Held::Memory(access.address?), 0);
        let through = || {
            let offset = u64::try_from(access.displacement).ok()?;
            let base = access.base.as_ref().filter(|_| access.index.is_none())?;
            let held = Held::Member(Box::new(Held::Register(base.number)), offset);
            if let Some(found) = names.pointer(pc, &held, 0) {
                return Some(found);
            }
            let inner = Past::of(self, index, at)?.held(self, base.number)?;
            if value(self, &inner) != base.value {
                return None;
            }
            names.pointer(pc, &Held::Member(Box::new(inner), offset), 0)
        };
        direct.or_else(through)
    }
}
