//! What is at an address, in words.

use cdh_elfcore::{Avma, Segment, Svma};

use crate::scene::{EXECUTABLE, READABLE, Scene, WRITABLE};
use crate::words;

impl Scene<'_> {
    /// `the stack`, `.rodata of /usr/bin/app`, `anonymous memory`; `None` if nothing is mapped there.
    pub(crate) fn place(&self, at: u64) -> Option<String> {
        let segment = self.segment(at)?;
        let is_stack = self
            .stack()
            .is_some_and(|stack| stack.start == segment.start);
        let module = self
            .crash
            .modules
            .iter()
            .find(|loaded| loaded.module.contains(Avma(at)));
        if let Some(loaded) = module {
            let path = words::quoted(&loaded.module.display_path());
            let section = || {
                let svma = Svma(at.wrapping_sub(loaded.bias()?));
                let object = loaded.object.as_ref()?;
                let holds = |section: &&cdh_elfcore::Section<'_>| {
                    section.address.0 != 0
                        && svma
                            .checked_sub(section.address)
                            .is_some_and(|inside| inside < section.size)
                };
                let section = object.sections().iter().find(holds)?;
                Some(words::quoted(&String::from_utf8_lossy(section.name)))
            };
            return Some(match section() {
                Some(section) => format!("section `{section}` of `{path}`"),
                None => format!("the mapped file `{path}`"),
            });
        }
        if let Some(path) = self.mapped_file(at) {
            return Some(format!("the mapped file `{path}`"));
        }
        Some(match is_stack {
            true => "the stack of the thread".to_owned(),
            false => "memory that belongs to no file, such as the heap".to_owned(),
        })
    }

    /// Path of the file that is mapped at `at`.
    pub(crate) fn mapped_file(&self, at: u64) -> Option<String> {
        let holds = |mapping: &&cdh_elfcore::Mapping| mapping.start.0 <= at && at < mapping.end.0;
        let mapping = self.crash.mappings.iter().find(holds)?;
        let path = String::from_utf8_lossy(&mapping.path);
        (!path.is_empty()).then(|| words::quoted(&path))
    }

    /// Where an unmapped address is, relative to its neighbours.
    pub(crate) fn neighbourhood(&self, at: u64) -> Option<String> {
        /// Farther away, a neighbour says nothing.
        const NEAR: u64 = 1 << 20;
        let mut segments = self.crash.segments.iter();
        if segments.any(|segment| segment.contains(Avma(at))) {
            return None;
        }
        let end = |segment: &Segment| segment.start.0.saturating_add(segment.memory_size);
        let below = self
            .crash
            .segments
            .iter()
            .filter(|segment| end(segment) <= at);
        let below = below.max_by_key(|segment| end(segment))?;
        let distance = at.saturating_sub(end(below));
        if distance > NEAR {
            return None;
        }
        let place = self.place(end(below).checked_sub(1)?)?;
        Some(match distance {
            0 => format!("the address is the first one after {place}"),
            _ => format!(
                "the address is {} after the end of {place}",
                words::bytes(distance)
            ),
        })
    }
}

/// `read-only`, `readable and writable`, `without any access`.
pub(crate) fn permissions(flags: u32) -> &'static str {
    match (
        flags & READABLE != 0,
        flags & WRITABLE != 0,
        flags & EXECUTABLE != 0,
    ) {
        (true, false, false) => "read-only",
        (true, true, false) => "readable and writable, not executable",
        (true, false, true) => "readable and executable, not writable",
        (true, true, true) => "readable, writable and executable",
        (false, true, _) => "writable",
        (false, false, true) => "only executable",
        (false, false, false) => "mapped without any access",
    }
}
