//! The text with which glibc ended a process: a failed assertion, a broken heap, a smashed stack.
//!
//! glibc leaves it for debuggers where `__abort_msg` points (`assert/assert.c`, `sysdeps/posix/libc_fatal.c`):
//!
//! ```text
//! size of the mapping u32 | the text, with a NUL at its end
//! ```

use cdh_elfcore::{Avma, Memory, ModuleKind};

use crate::LoadedModule;

const SYMBOL: &[u8] = b"__abort_msg";
/// Bytes of the text that are read.
const LONGEST: usize = 4096;
/// Largest symbol table of a static program that is searched, in bytes.
const LARGEST_TABLE: u64 = 8 << 20;

/// The text, without the line's end. `None` where the C library is another one, or wrote none.
#[must_use]
pub fn abort_message(modules: &[LoadedModule<'_>], memory: &dyn Memory) -> Option<String> {
    let is_libc = |loaded: &&LoadedModule<'_>| {
        let name = loaded.module.path.rsplit(|byte| *byte == b'/').next();
        name.is_some_and(|name| name.starts_with(b"libc.so") || name.starts_with(b"libc-"))
    };
    // A static program has a copy of its own.
    let is_program = |loaded: &&LoadedModule<'_>| loaded.module.kind == ModuleKind::Executable;
    let loaded = modules
        .iter()
        .find(is_libc)
        .or_else(|| modules.iter().find(is_program))?;
    let object = loaded.object.as_ref()?;
    let table = object
        .section(".symtab")
        .or_else(|| object.section(".dynsym"))?;
    if table.size > LARGEST_TABLE {
        return None;
    }
    let symbols = object.symbols_named(&[SYMBOL]);
    let variable = symbols.first()?.address.0.wrapping_add(loaded.bias()?);
    let message = memory.read_word(Avma(variable), object.encoding());
    let message = message.filter(|at| *at != 0)?;
    let mut text = vec![0; LONGEST];
    let known = memory.read(Avma(message.checked_add(4)?), &mut text);
    text.truncate(known);
    let end = text.iter().position(|byte| *byte == 0)?;
    let text = String::from_utf8_lossy(text.get(..end)?).trim().to_owned();
    (!text.is_empty()).then_some(text)
}
