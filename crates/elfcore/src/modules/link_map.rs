//! The dynamic loader's list of what it loaded (`struct r_debug` and `struct link_map` in `<link.h>`).
//!
//! The list says which module is the program, also where the kernel started something else (`ld.so prog`) or
//! the core has no auxiliary vector. It names libraries where the core has no NT_FILE: the kernel leaves it out
//! when it would exceed `kernel.core_file_note_size_limit`, and some emulators and debuggers never write one.

use super::headers::{dynamic_value, read_bytes, read_path};
use crate::{Avma, Encoding, Memory};

const DT_DEBUG: u64 = 21;
/// Limit for what hostile memory may claim.
const MAX_ENTRIES: usize = 16_384;

/// One `struct link_map`.
#[derive(Debug)]
pub(super) struct Entry {
    /// `l_addr`: `avma - svma`, which is 0 for a prelinked library.
    pub(super) bias: u64,
    /// `l_name`; empty for the program and the vdso.
    pub(super) name: Vec<u8>,
    /// `l_ld`.
    pub(super) dynamic: Avma,
}

/// How much of the list is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Extent {
    /// The program alone.
    Program,
    All,
}

/// The list that the dynamic section at `dynamic` leads to: only the program's own does, and its first entry is
/// the program.
pub(super) fn read(
    memory: &dyn Memory,
    encoding: Encoding,
    dynamic: Avma,
    extent: Extent,
) -> Option<Vec<Entry>> {
    let word_size = encoding.word_size();
    let debug = dynamic_value(memory, encoding, dynamic, DT_DEBUG).filter(|at| *at != 0)?;
    // `r_debug`: int r_version, pad, struct link_map *r_map
    let mut node = memory.read_word(Avma(debug.checked_add(word_size as u64)?), encoding);
    let mut entries = Vec::new();
    let most = match extent {
        Extent::Program => 1,
        Extent::All => MAX_ENTRIES,
    };
    while entries.len() < most
        && let Some(at) = node.filter(|at| *at != 0)
        && let Some(entry) = read_bytes(memory, Avma(at), word_size.saturating_mul(4))
    {
        // `link_map`: l_addr, l_name, l_ld, l_next, l_prev
        let field = |index: usize| encoding.nth_word(&entry, index).unwrap_or(0);
        // Before the rest is read: many modules may lead to one list.
        if entries.is_empty() && Avma(field(2)) != dynamic {
            return None;
        }
        let name = match extent {
            Extent::Program => None,
            Extent::All => read_path(memory, Avma(field(1))),
        };
        entries.push(Entry {
            bias: field(0),
            name: name.unwrap_or_default(),
            dynamic: Avma(field(2)),
        });
        node = Some(field(3));
    }
    (!entries.is_empty()).then_some(entries)
}
