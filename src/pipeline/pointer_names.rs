//! Names the pointers in a cause, using debug information of the crashed thread's frames.

use cdh_cause::{Held, MemberName, Names};
use cdh_elfcore::{Avma, Registers};
use cdh_inspect::{Inspector, Storage, TypeId, Variable};
use cdh_symbolize::FrameRegisters;

/// Maximum frames whose variables are searched.
const FRAMES: usize = 8;

/// The variables of a thread's innermost frames.
pub(super) struct PointerNames<'i, 'data> {
    inspector: &'i Inspector<'data>,
    frames: Vec<FrameRegisters>,
}

impl<'i, 'data> PointerNames<'i, 'data> {
    /// Creates the lookup for the thread with these registers.
    pub(super) fn new(inspector: &'i Inspector<'data>, registers: &Registers) -> Self {
        Self {
            frames: inspector.frames(registers, FRAMES),
            inspector,
        }
    }

    /// The source name of the pointer that is `held`, and its type.
    fn resolved(&self, frame: usize, held: &Held) -> Option<(String, TypeId)> {
        match held {
            Held::Register(number) => {
                let variable = self.in_register(frame, *number)?;
                Some((variable.name.clone(), variable.type_id?))
            }
            Held::Memory(at) => {
                let owner = self.inspector.owner_of(&self.frames, frame, *at)?;
                let name = joined(&owner.variable.name, ".", &owner.member.path);
                Some((
                    name,
                    owner.member.type_id.filter(|_| owner.member.offset == 0)?,
                ))
            }
            Held::Member(inner, offset) => {
                let (name, of) = self.resolved(frame, inner)?;
                let member = self
                    .inspector
                    .member_at(self.inspector.pointee(of)?, *offset)?;
                let of = member.type_id.filter(|_| member.offset == 0)?;
                match member.path.is_empty() {
                    true => Some((format!("*{name}"), of)),
                    false => Some((joined(&name, "->", &member.path), of)),
                }
            }
        }
    }

    /// The only variable of the innermost function that is in this register. Inlined functions share registers,
    /// so there may be several.
    fn in_register(&self, frame: usize, number: u16) -> Option<Variable> {
        let functions = self.inspector.variables(&self.frames, frame);
        functions.into_iter().find_map(|function| {
            let all = function.arguments.into_iter().chain(function.locals);
            let is_there = |variable: &Variable| variable.storage == Storage::Register(number);
            let mut found = all.filter(is_there);
            let first = found.next()?;
            found.next().is_none().then_some(first)
        })
    }
}

fn joined(name: &str, between: &str, path: &str) -> String {
    match path.chars().next() {
        None => name.to_owned(),
        Some('[') => format!("{name}{path}"),
        Some(_) => format!("{name}{between}{path}"),
    }
}

impl Names for PointerNames<'_, '_> {
    fn pointer(&self, pc: Avma, held: &Held, offset: u64) -> Option<MemberName> {
        let frame = self.frames.iter().position(|frame| frame.frame.pc == pc)?;
        let (pointer, of) = self.resolved(frame, held)?;
        // Only pointers are named: a number in the register means something else.
        let target = self.inspector.pointee(of)?;
        let member = self.inspector.member_at(target, offset);
        let member = member.filter(|member| !member.path.is_empty());
        Some(MemberName {
            member: member.map(|member| joined(&pointer, "->", &member.path)),
            pointer,
        })
    }
}
