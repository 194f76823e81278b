//! Debug information, decompressed only as far as the addresses need.
//!
//! Of a backtrace in libc with its debug file, most of the time is that of inflating `.debug_info`. Its
//! units are contiguous, and `.debug_aranges` shows which ones are needed: what comes after the last of them is left
//! alone. Where more is asked for than that, all of it is opened, and the answers
//! are made anew: they never depend on how much was there at first.

use std::sync::OnceLock;

use cdh_elfcore::ElfObject;

use super::{DebugInfo, Found, Source, TailCalls};
use crate::deadline::Deadline;

/// The debug information of one file, or its beginning.
pub(crate) struct Opened<'data> {
    first: DebugInfo<'data>,
    whole: OnceLock<Option<DebugInfo<'data>>>,
    object: ElfObject<'data>,
    alt: Option<ElfObject<'data>>,
    source: Source<'data>,
}

impl<'data> Opened<'data> {
    /// With room for `addresses` (as stated in the file). `None` where there is no debug information.
    pub(crate) fn open(
        object: &ElfObject<'data>,
        alt: Option<&ElfObject<'data>>,
        source: Source<'data>,
        addresses: &[u64],
        deadline: Deadline,
    ) -> Option<Self> {
        Some(Self {
            first: DebugInfo::open(object, alt, source, Some(addresses), deadline)?,
            whole: OnceLock::new(),
            object: object.clone(),
            alt: alt.cloned(),
            source,
        })
    }

    /// Looks up all of `addresses` (ascending, distinct, as stated in the file).
    pub(crate) fn find(
        &self,
        addresses: &[u64],
        tail_calls: TailCalls,
        deadline: Deadline,
    ) -> Vec<Found> {
        if !self.first.lacks_something() {
            let found = self.first.find(addresses, tail_calls, deadline);
            if !self.first.lacks_something() {
                return found;
            }
        }
        let alt = self.alt.as_ref();
        let open = || DebugInfo::open(&self.object, alt, self.source, None, deadline);
        match self.whole.get_or_init(open) {
            Some(whole) => whole.find(addresses, tail_calls, deadline),
            None => vec![Found::default(); addresses.len()],
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;
    use std::process::Command;
    use std::time::Duration;

    use super::*;
    use crate::{Alone, SectionArena, section};

    const UNITS: usize = 7;
    const FUNCTIONS: usize = 4000;

    /// A library of some large units, its debug information deflated.
    fn library() -> Vec<u8> {
        let directory = tempfile::tempdir().unwrap();
        let mut gcc = Command::new("gcc");
        gcc.current_dir(&directory).args([
            "-shared",
            "-fPIC",
            "-nostdlib",
            "-g",
            "-gz=zlib",
            "-o",
            "library",
        ]);
        for unit in 0..UNITS {
            let mut source = String::new();
            for number in 0..FUNCTIONS {
                let name = format!("unit{unit}_function{number}");
                writeln!(source, "int {name}(int a) {{ return a + {number}; }}").unwrap();
            }
            let name = format!("{unit}.c");
            std::fs::write(directory.path().join(&name), source).unwrap();
            gcc.arg(name);
        }
        assert!(gcc.status().unwrap().success());
        std::fs::read(directory.path().join("library")).unwrap()
    }

    #[test]
    fn answers_do_not_depend_on_how_much_was_inflated() {
        let bytes = library();
        let object = ElfObject::parse(&bytes).unwrap();
        let arena = SectionArena::new();
        let source = Source {
            module: 0,
            arena: &arena,
            surroundings: &Alone,
            keep: section::Keep::No,
        };
        let deadline = Deadline::after(Duration::from_secs(600));
        let whole = DebugInfo::open(&object, None, source, None, deadline).unwrap();
        let answers = |found: Vec<Found>| format!("{found:?}");
        let expected = |at: &[u64]| answers(whole.find(at, TailCalls::Ignore, deadline));
        let symbols = object.symbols();
        let in_unit = |unit: usize| {
            let name = format!("unit{unit}_function{}", 100 * unit);
            let symbol = symbols.iter().find(|one| one.name == name.as_bytes());
            symbol.unwrap().address.0 + 4
        };
        // The addresses ascend with the units. Of the last unit nothing can be left out.
        let last = in_unit(UNITS - 1);
        let cases: [(Vec<u64>, bool); 5] = [
            (vec![in_unit(0)], true),
            (vec![in_unit(0), in_unit(3)], true),
            (vec![in_unit(0), last], false),
            (vec![1], false),
            (vec![], false),
        ];
        for (addresses, is_beginning) in cases {
            let opened = Opened::open(&object, None, source, &addresses, deadline).unwrap();
            assert_eq!(opened.first.beginning.is_some(), is_beginning);
            let find = |at: &[u64]| answers(opened.find(at, TailCalls::Ignore, deadline));
            assert_eq!(find(&addresses), expected(&addresses));
            assert!(!opened.first.lacks_something());
            // More than it was opened for, and then less again.
            for beyond in [vec![in_unit(2), last], vec![1, last], addresses] {
                assert_eq!(find(&beyond), expected(&beyond), "{beyond:x?}");
            }
            assert_eq!(opened.first.lacks_something(), is_beginning);
        }
        assert!(expected(&[last]).contains("unit6_function600"));
    }
}
