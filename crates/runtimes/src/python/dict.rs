//! Dictionaries with strings as keys: globals of a module, `sys.modules`.
//!
//! ```text
//! dict: used | keys *, values * (split tables, which only instances have)
//! keys: sizes, kind | indices, 1 to 8 bytes each | entries in insertion order
//! entry: hash, key *, value *; from 3.11 on only key *, value * if all keys are strings (kind 1)
//! ```

use super::Interpreter;
use super::object::NAME;

/// Entries of a dictionary that are searched: `sys.modules` of a large program has some thousands.
const ENTRIES: u64 = 1 << 16;

impl Interpreter<'_> {
    /// The value at `key` in the dictionary at `at`.
    pub(super) fn item(&self, at: u64, key: &str) -> Option<u64> {
        self.items(at)?
            .into_iter()
            .find(|(name, _)| self.text(*name, NAME).as_deref() == Some(key))
            .map(|(_, value)| value)
    }

    /// Keys and values of the dictionary at `at`, in the order of insertion.
    pub(super) fn items(&self, at: u64) -> Option<Vec<(u64, u64)>> {
        let layout = &self.layout.dict;
        let process = self.process;
        if process.field(at, layout.values)? != 0 {
            return None;
        }
        let keys = process.field(at, layout.keys).filter(|keys| *keys != 0)?;
        let (index_bytes, words) = match (layout.log2_index_bytes, layout.kind) {
            (Some(log2_bytes), Some(kind)) => {
                let log2_bytes = u32::from(process.u8(keys.checked_add(log2_bytes)?)?);
                let kind = process.u8(keys.checked_add(kind)?)?;
                (
                    1_u64.checked_shl(log2_bytes)?,
                    if kind == 0 { 3 } else { 2 },
                )
            }
            _ => {
                let size = process.field(keys, layout.size?)?;
                let width = match size {
                    0..0x100 => 1,
                    0x100..0x1_0000 => 2,
                    0x1_0000..0x1_0000_0000 => 4,
                    _ => 8,
                };
                (size.checked_mul(width)?, 3)
            }
        };
        let entries = keys.checked_add(layout.indices)?.checked_add(index_bytes)?;
        let count = process.field(keys, layout.entries)?.min(ENTRIES);
        let entry = 8_u64.checked_mul(words)?;
        let size = usize::try_from(count.checked_mul(entry)?).ok()?;
        let bytes = process.bytes(entries, size)?;
        let (words_read, _) = bytes.as_chunks::<8>();
        let item = |entry: &[[u8; 8]]| match entry {
            [.., key, value] => (u64::from_le_bytes(*key), u64::from_le_bytes(*value)),
            _ => (0, 0),
        };
        let items = words_read
            .chunks_exact(usize::try_from(words).ok()?)
            .map(item);
        Some(
            items
                .filter(|(key, value)| *key != 0 && *value != 0)
                .collect(),
        )
    }
}
