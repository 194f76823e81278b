//! Code objects: what a function is called, where its source is, and which line an instruction belongs to.

use std::sync::Arc;

use cdh_symbolize::{Function, Location};

use super::Interpreter;
use super::lines;
use super::object::{NAME, PATH};

/// Bytes of a line table: those of generated functions have some hundred KiB.
const LINE_TABLE: usize = 4 << 20;

/// A function's code.
#[derive(Debug)]
pub(super) struct Code {
    pub(super) function: Arc<Function>,
    file: String,
    first_line: i32,
    /// Address of the first instruction, from 3.11 on.
    instructions: Option<u64>,
    line_table: Vec<u8>,
}

impl Code {
    /// Bytes that it takes.
    pub(super) fn size(&self) -> usize {
        let names = self.function.name.len().saturating_add(self.file.len());
        self.line_table.len().saturating_add(names)
    }

    /// The line that the instruction in a frame's field belongs to.
    pub(super) fn location(&self, minor: u32, instruction: u64, stated: Option<u32>) -> Location {
        let at = match self.instructions {
            Some(start) => instruction.wrapping_sub(start).cast_signed(),
            // An index of 32 bits: of code units in 3.10, of bytes before.
            None => {
                let index = i64::from((instruction as u32).cast_signed());
                index.wrapping_mul(if minor == 10 { 2 } else { 1 })
            }
        };
        let line = stated.or_else(|| lines::line(minor, &self.line_table, self.first_line, at));
        Location {
            file: self.file.clone(),
            line: line.unwrap_or(0),
            column: None,
            md5: None,
        }
    }
}

impl Interpreter<'_> {
    /// Reads the code object at `at`. `None` if it has no name: code that the interpreter runs for itself.
    pub(super) fn read_code(&self, at: u64) -> Option<Code> {
        let layout = &self.layout.code;
        let process = self.process;
        let string = |offset: u64, limit| self.text(process.field(at, offset)?, limit);
        let name = string(layout.name, NAME)?;
        let file = string(layout.filename, PATH)?;
        let qualified = layout.qualname.and_then(|qualname| string(qualname, NAME));
        let table = process.field(at, layout.linetable)?;
        Some(Code {
            function: Arc::new(Function {
                name: qualified.unwrap_or_else(|| name.clone()),
                raw: name,
                offset: None,
            }),
            file,
            first_line: process
                .u32(at.checked_add(layout.first_line)?)?
                .cast_signed(),
            instructions: match layout.instructions {
                Some(offset) => Some(at.checked_add(offset)?),
                None => None,
            },
            line_table: self.byte_string(table, LINE_TABLE).unwrap_or_default(),
        })
    }
}
