//! The process's memory, with what it never wrote read from the files that were mapped.

use cdh_elfcore::{Avma, Memory, Svma};
use cdh_symbolize::LoadedModule;

/// `PF_W` of a program header.
const WRITABLE: u32 = 2;

/// A core's memory, and the read-only parts of its modules: the kernel leaves those out.
pub(crate) struct ProcessMemory<'a> {
    core: &'a dyn Memory,
    modules: &'a [LoadedModule<'a>],
    /// Start, end and index of each mapped range of a module, by address.
    ranges: Vec<(u64, u64, usize)>,
}

impl<'a> ProcessMemory<'a> {
    pub(crate) fn new(core: &'a dyn Memory, modules: &'a [LoadedModule<'a>]) -> Self {
        let mut ranges = Vec::new();
        for (index, loaded) in modules.iter().enumerate() {
            let own = loaded.module.ranges.iter();
            ranges.extend(own.map(|range| (range.start.0, range.end.0, index)));
        }
        ranges.sort_unstable();
        Self {
            core,
            modules,
            ranges,
        }
    }

    /// Index of the module that is mapped at an address.
    pub(crate) fn module_at(&self, at: u64) -> Option<usize> {
        let next = self.ranges.partition_point(|range| range.0 <= at);
        let (_, end, index) = self.ranges.get(next.checked_sub(1)?)?;
        (at < *end).then_some(*index)
    }

    fn file_bytes(&self, at: Avma) -> Option<&'a [u8]> {
        let loaded = self.modules.get(self.module_at(at.0)?)?;
        let object = loaded.object.as_ref()?;
        let svma = Svma(at.0.wrapping_sub(loaded.bias()?));
        let mut loads = object.load_segments().iter();
        let load = loads.find(|load| {
            svma.checked_sub(load.start)
                .is_some_and(|inside| inside < load.file_size)
        })?;
        (load.flags & WRITABLE == 0).then(|| object.bytes_at(svma))?
    }
}

impl Memory for ProcessMemory<'_> {
    fn read(&self, at: Avma, buf: &mut [u8]) -> usize {
        let known = self.core.read(at, buf);
        let Some(rest) = buf.get_mut(known..).filter(|rest| !rest.is_empty()) else {
            return known;
        };
        let from = Avma(at.0.wrapping_add(known as u64));
        let Some(bytes) = self.file_bytes(from) else {
            return known;
        };
        let count = bytes.len().min(rest.len());
        for (byte, from) in rest.iter_mut().zip(bytes) {
            *byte = *from;
        }
        known.saturating_add(count)
    }

    fn is_executable(&self, at: Avma) -> Option<bool> {
        self.core.is_executable(at)
    }
}
