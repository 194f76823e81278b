//! A crashed process as the languages see it: memory with checked reads, modules, threads.

use cdh_elfcore::{Avma, Memory, Svma, Thread};
use cdh_symbolize::{LoadedModule, SectionArena, Surroundings};

/// Bytes read at a time of a text whose length is not known.
const TEXT_STEP: usize = 64;

/// A crashed process. Frames and reports refer to `modules` by index, as a backtrace does.
pub struct Process<'p> {
    /// Threads with their registers, the crashing one first.
    pub threads: &'p [Thread],
    /// The process's memory.
    pub memory: &'p (dyn Memory + Sync),
    /// Its modules and the files found for them.
    pub modules: &'p [LoadedModule<'p>],
    /// For sections that are decompressed.
    pub arena: &'p SectionArena,
    /// The caller's cache and further files.
    pub surroundings: &'p dyn Surroundings,
}

impl Process<'_> {
    /// Fills `buffer` with the bytes at `at`, or says that they are not known. A core lacks pages that are as they
    /// are in a file: constants come from the module's file.
    pub(crate) fn read(&self, at: u64, buffer: &mut [u8]) -> Option<()> {
        let known = self.memory.read(Avma(at), buffer);
        let rest = buffer.get_mut(known..).filter(|rest| !rest.is_empty());
        let Some(rest) = rest else {
            return Some(());
        };
        let at = Avma(at.checked_add(known as u64)?);
        let loaded = self
            .modules
            .iter()
            .find(|loaded| loaded.module.contains(at))?;
        let svma = Svma(at.0.wrapping_sub(loaded.bias()?));
        let bytes = loaded.object.as_ref()?.bytes_at(svma)?;
        rest.copy_from_slice(bytes.get(..rest.len())?);
        Some(())
    }

    /// Exactly `count` bytes at `at`, or `None`. The caller bounds `count`.
    pub(crate) fn bytes(&self, at: u64, count: usize) -> Option<Vec<u8>> {
        let mut bytes = vec![0; count];
        self.read(at, &mut bytes)?;
        Some(bytes)
    }

    pub(crate) fn u8(&self, at: u64) -> Option<u8> {
        let mut byte = [0; 1];
        self.read(at, &mut byte)?;
        Some(u8::from_le_bytes(byte))
    }

    pub(crate) fn u32(&self, at: u64) -> Option<u32> {
        let mut word = [0; 4];
        self.read(at, &mut word)?;
        Some(u32::from_le_bytes(word))
    }

    pub(crate) fn u64(&self, at: u64) -> Option<u64> {
        let mut word = [0; 8];
        self.read(at, &mut word)?;
        Some(u64::from_le_bytes(word))
    }

    /// The word in the field at `offset` of the structure at `base`; `None` for a null `base`.
    pub(crate) fn field(&self, base: u64, offset: u64) -> Option<u64> {
        self.u64(base.checked_add(offset).filter(|_| base != 0)?)
    }

    /// A text that ends with a NUL byte, of maximum `limit` bytes; longer ones are cut.
    pub(crate) fn c_text(&self, at: u64, limit: usize) -> Option<String> {
        let mut text = Vec::new();
        while text.len() < limit {
            let mut step = [0; TEXT_STEP];
            let next = at.checked_add(text.len() as u64)?;
            let mut known = self.memory.read(Avma(next), &mut step);
            if known == 0 {
                // A constant that only the file has.
                self.read(next, &mut step)?;
                known = step.len();
            }
            let step = step.get(..known).filter(|step| !step.is_empty())?;
            if let Some(end) = step.iter().position(|byte| *byte == 0) {
                text.extend_from_slice(step.get(..end)?);
                break;
            }
            text.extend_from_slice(step);
        }
        text.truncate(limit);
        Some(String::from_utf8_lossy(&text).into_owned())
    }
}

/// A little-endian word in bytes that were read before.
pub(crate) fn word_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// As [`word_at`], of four bytes.
pub(crate) fn half_word_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}
