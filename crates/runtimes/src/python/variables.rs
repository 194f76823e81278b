//! Arguments and local variables of a frame.
//!
//! A frame's slots hold the arguments, the other local variables, cells (variables that inner functions use) and free
//! variables (those of outer functions), in this order up to 3.10; later versions say of each slot what it is.

use super::Interpreter;
use super::object::NAME;
use super::stack::TAG;
use crate::Variable;

/// Variables of one function that are read.
const VARIABLES: u64 = 256;
/// Flags of code: `CO_VARARGS`, `CO_VARKEYWORDS`.
const VARARGS: u32 = 4;
const VARKEYWORDS: u32 = 8;
/// Kinds of slots: `CO_FAST_CELL`, `CO_FAST_FREE`.
const CELL: u8 = 0x40;
const FREE: u8 = 0x80;

impl Interpreter<'_> {
    /// Those of the frame at `frame` that have a value.
    pub(super) fn variables(&self, frame: u64) -> Option<Vec<Variable>> {
        let code = self.code_of(frame)?;
        let slots = self.slots(code)?;
        let arguments = self.argument_count(code)?;
        let start = frame.checked_add(self.layout.frame.locals)?;
        let mut found: Vec<Variable> = Vec::new();
        for (index, (name, in_cell)) in slots.iter().enumerate() {
            let slot = start.checked_add((index as u64).checked_mul(8)?)?;
            let is_argument = index < arguments
                || slots
                    .get(..arguments)
                    .is_some_and(|slots| slots.iter().any(|(argument, _)| argument == name));
            let value = self
                .process
                .u64(slot)
                .and_then(|value| self.value(value, *in_cell));
            if let Some((type_name, value)) = value
                && !name.is_empty()
                && !found.iter().any(|known| known.name == *name)
            {
                found.push(Variable {
                    name: name.clone(),
                    type_name,
                    value,
                    is_argument,
                });
            }
        }
        // An argument that an inner function uses is in a cell, behind the others.
        let place = |name: &str| slots.iter().position(|(slot, _)| slot == name);
        found.sort_by_key(|variable| (!variable.is_argument, place(&variable.name)));
        Some(found)
    }

    /// Name of each slot, and whether its value is in a cell.
    fn slots(&self, code: u64) -> Option<Vec<(String, bool)>> {
        let layout = &self.layout.code;
        let names = |offset: u64| {
            let names = self
                .tuple(self.process.field(code, offset)?, VARIABLES)?
                .into_iter();
            Some(
                names
                    .map(|name| self.text(name, NAME).unwrap_or_default())
                    .collect::<Vec<_>>(),
            )
        };
        if let (Some(offset), Some(kinds)) = (layout.localsplusnames, layout.localspluskinds) {
            let kinds = self.process.field(code, kinds)?;
            let kinds = self.byte_string(kinds, usize::from(u16::MAX))?;
            let is_cell = kinds.into_iter().map(|kind| kind & (CELL | FREE) != 0);
            return Some(names(offset)?.into_iter().zip(is_cell).collect());
        }
        let plain = names(layout.varnames?)?
            .into_iter()
            .map(|name| (name, false));
        let cells = [layout.cellvars, layout.freevars]
            .into_iter()
            .flatten()
            .filter_map(names);
        Some(
            plain
                .chain(cells.flatten().map(|name| (name, true)))
                .collect(),
        )
    }

    fn argument_count(&self, code: u64) -> Option<usize> {
        let layout = &self.layout.code;
        let number = |offset: u64| self.process.u32(code.checked_add(offset)?);
        let flags = number(layout.flags)?;
        let count = number(layout.argcount)?
            .checked_add(number(layout.kwonlyargcount)?)?
            .checked_add(u32::from(flags & VARARGS != 0))?
            .checked_add(u32::from(flags & VARKEYWORDS != 0))?;
        usize::try_from(count).ok()
    }

    /// Type and description of a value in a slot.
    fn value(&self, slot: u64, in_cell: bool) -> Option<(String, String)> {
        let mut at = slot & !TAG;
        if in_cell && self.type_name(at)? == "cell" {
            at = self.process.field(at, self.layout.object.cell)?;
        }
        Some((self.type_name(at)?, self.describe(at)?))
    }
}
