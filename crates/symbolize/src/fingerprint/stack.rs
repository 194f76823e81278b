//! The frames of a stack that make its fingerprint: the innermost functions of the program itself.
//!
//! Only what is the same wherever it is computed counts: the files that were mapped, their symbol tables up to a
//! size, and Go's function table. Separate debug files, debug information and inlined calls do not, for
//! they are there on one machine and missing on another. A stack that runs through a file that is missing
//! has no fingerprint.

use std::collections::{BTreeMap, BTreeSet};

use cdh_elfcore::{ElfObject, ModuleKind, Svma};

use super::name::{of_go, of_symbol};
use super::own::{EXTENSIONS, is_library_impl, is_system_library};
use super::rules::{Role, Rules};
use crate::{Frame, GoTable, LoadedModule, Stop, UnwoundFrame, symbol};

/// Frames that are looked at, so that stacks unwound to different depths agree.
pub(super) const REACH: usize = 128;
/// Largest symbol table that is searched, in bytes: the handler does it while the process waits.
const LARGEST_TABLE: u64 = 8 << 20;
/// Longest cycle of a recursion that is recognised.
const LONGEST_CYCLE: usize = 16;
/// Bytes behind the entry point that belong to `_start`.
const START_SIZE: u64 = 64;

/// What a stack says about a crash.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct OwnStack {
    /// Functions of the program, innermost first.
    pub(super) own: Vec<String>,
    /// Functions and libraries above them, which only show how the process ended.
    pub(super) skipped: Vec<String>,
    /// Whether the stack was read down to `main`.
    pub(super) reaches_main: bool,
    /// File name of the program.
    pub(super) program: String,
}

/// A frame as it counts.
enum Step {
    Own(String),
    /// Of a library without symbols: counts where no function of the program has a name.
    Unnamed(String),
    /// `main`, in any language.
    Main(String),
    /// Of a language's virtual machine: counts where nothing else does.
    Machine(String),
    Skipped(String),
}

struct Names<'m> {
    modules: &'m [LoadedModule<'m>],
    known: BTreeMap<(usize, u64), (String, bool)>,
}

impl OwnStack {
    /// From the frames of the crashing thread; `None` where the file of a module is missing.
    pub(super) fn of(frames: &[UnwoundFrame], modules: &[LoadedModule<'_>]) -> Option<Self> {
        let frames = frames.get(..REACH).unwrap_or(frames);
        let mut names = Names::new(modules);
        names.look_up(frames.iter().filter(|frame| {
            let loaded = frame.module.and_then(|index| modules.get(index));
            loaded.is_some_and(|loaded| !is_library(loaded))
        }));
        let is_dynamic = modules.iter().any(is_c_library);
        let mut stack = Self {
            program: modules
                .iter()
                .find(|loaded| loaded.module.kind == ModuleKind::Executable)
                .map(file_name)
                .unwrap_or_default(),
            ..Self::default()
        };
        let (mut machine, mut all) = (Vec::new(), Vec::new());
        for frame in frames.iter().filter(|frame| !frame.signal_frame) {
            // A wild address, or code that was generated.
            let Some(loaded) = frame.module.and_then(|index| modules.get(index)) else {
                continue;
            };
            match names.step(frame, loaded, is_dynamic)? {
                Step::Own(text) => {
                    all.push(text.clone());
                    stack.own.push(text);
                }
                Step::Unnamed(text) => all.push(text),
                Step::Main(text) => {
                    if stack.own.is_empty() {
                        stack.own.append(&mut all);
                    }
                    stack.own.push(text);
                    stack.reaches_main = true;
                    break;
                }
                Step::Machine(text) => machine.push(text),
                Step::Skipped(text) => {
                    if stack.own.is_empty() && stack.skipped.last() != Some(&text) {
                        stack.skipped.push(text);
                    }
                }
            }
        }
        if stack.own.is_empty() {
            stack.own = if all.is_empty() { machine } else { all };
        } else {
            stack.skipped.extend(machine);
            stack.skipped.dedup();
        }
        Some(stack)
    }

    /// What counts: so many functions, or those of a recursion.
    pub(super) fn counted(&self, depth: usize, stop: Stop) -> Option<Vec<String>> {
        let units = units(&self.own, depth);
        // A stack that was cut may show a caller elsewhere that is missing here.
        let is_cut = matches!(stop, Stop::NoMemory(_)) && !self.reaches_main;
        if units.is_empty() || (is_cut && units.len() < depth) {
            return None;
        }
        Some(match units.as_slice() {
            // All programs have one.
            [only] if self.reaches_main && self.own.len() == 1 => {
                vec![format!("{}:{only}", self.program)]
            }
            _ => units,
        })
    }
}

/// Functions of the program in a stack that runs code of an interpreted language, innermost first. `None` where the
/// file of a module is missing that may be the program's.
pub(super) fn mixed(
    frames: &[Frame],
    modules: &[LoadedModule<'_>],
    interpreted: impl Fn(&Frame) -> Option<String>,
) -> Option<Vec<String>> {
    let frames = frames.get(..REACH).unwrap_or(frames);
    let runs_code = frames.iter().filter(|frame| frame.interpreted);
    let interpreters: BTreeSet<usize> = runs_code.filter_map(|frame| frame.module).collect();
    // What is not the program's is left out by its place, for its file may be missing.
    let native: Vec<(&Frame, UnwoundFrame, &LoadedModule<'_>)> = frames
        .iter()
        .filter(|frame| !frame.interpreted && !frame.signal_handler)
        .filter_map(|frame| {
            let index = frame.module.filter(|index| !interpreters.contains(index))?;
            let loaded = modules.get(index)?;
            let path = String::from_utf8_lossy(&loaded.module.path);
            let is_of_language = path.contains(EXTENSIONS) || is_system_library(&path);
            let unwound = frame.as_unwound().filter(|_| !is_of_language)?;
            (!is_library(loaded)).then_some((frame, unwound, loaded))
        })
        .collect();
    let mut names = Names::new(modules);
    names.look_up(native.iter().map(|(_, unwound, _)| unwound));
    let is_dynamic = modules.iter().any(is_c_library);
    let mut own = Vec::new();
    let mut native = native.into_iter().peekable();
    for frame in frames {
        if frame.interpreted {
            own.extend(interpreted(frame));
        } else if let Some((_, unwound, loaded)) =
            native.next_if(|(next, ..)| std::ptr::eq(*next, frame))
            && let Step::Own(text) = names.step(&unwound, loaded, is_dynamic)?
        {
            own.push(text);
        }
    }
    Some(own)
}

impl<'m> Names<'m> {
    fn new(modules: &'m [LoadedModule<'m>]) -> Self {
        Self {
            modules,
            known: BTreeMap::new(),
        }
    }

    /// Finds the names of these frames, each table in one pass.
    fn look_up<'f>(&mut self, frames: impl Iterator<Item = &'f UnwoundFrame>) {
        let mut wanted: BTreeMap<usize, Vec<u64>> = BTreeMap::new();
        for frame in frames {
            if let (Some(module), Some(at)) = (frame.module, frame.lookup_svma()) {
                wanted.entry(module).or_default().push(at.0);
            }
        }
        for (index, mut addresses) in wanted {
            let object = self
                .modules
                .get(index)
                .and_then(|loaded| loaded.object.as_ref());
            let Some(object) = object else { continue };
            addresses.sort_unstable();
            addresses.dedup();
            let table = GoTable::open(object);
            if let Some(table) = table {
                addresses.retain(|at| match table.function(Svma(*at)) {
                    Some((_, name)) => {
                        self.known.insert((index, *at), (of_go(&name), false));
                        false
                    }
                    None => true,
                });
            }
            if !addresses.is_empty() && has_small_table(object) {
                for (at, found) in addresses.iter().zip(symbol::find(&[object], &addresses)) {
                    if let Some(found) = found {
                        let raw = String::from_utf8_lossy(found.name);
                        let is_start = raw == "_start";
                        self.known.insert((index, *at), (of_symbol(&raw), is_start));
                    }
                }
            }
        }
    }

    /// `None`: its file is missing, so that what it is cannot be said.
    fn step(&self, frame: &UnwoundFrame, loaded: &LoadedModule<'_>, dynamic: bool) -> Option<Step> {
        if loaded.module.kind == ModuleKind::Vdso {
            return Some(Step::Skipped("[vdso]".to_owned()));
        }
        let object = loaded.object.as_ref()?;
        let rules = Rules::get();
        let file = file_name(loaded);
        let Some(svma) = frame.svma else {
            return Some(Step::Skipped(file));
        };
        if is_library(loaded) {
            return Some(match rules.is_interpreter(&file) {
                true => Step::Machine(format!("{file}+{svma}")),
                false => Step::Skipped(file),
            });
        }
        let at = frame.lookup_svma().map_or(svma.0, |at| at.0);
        let key = frame.module.map(|module| (module, at));
        let Some((name, is_start)) = key.and_then(|key| self.known.get(&key)) else {
            let entry = object.entry().0;
            let is_start = (entry..entry.saturating_add(START_SIZE)).contains(&svma.0);
            let text = format!("{file}+{svma}");
            return Some(match loaded.module.kind {
                _ if is_start => Step::Skipped("_start".to_owned()),
                ModuleKind::Executable => Step::Own(text),
                _ => Step::Unnamed(text),
            });
        };
        let name = name.clone();
        Some(match () {
            () if rules.is_last(&name) => Step::Main(name),
            () if rules.is_machine(&name) => Step::Machine(name),
            () if *is_start || is_of_library(&name, dynamic) => Step::Skipped(name),
            () => Step::Own(name),
        })
    }
}

fn has_small_table(object: &ElfObject<'_>) -> bool {
    let table = object
        .section(".symtab")
        .or_else(|| object.section(".dynsym"));
    table.is_some_and(|table| table.size <= LARGEST_TABLE)
}

fn file_name(loaded: &LoadedModule<'_>) -> String {
    let path = &loaded.module.path;
    let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or(path);
    String::from_utf8_lossy(name).into_owned()
}

/// Whether its frames are never the program's own.
fn is_library(loaded: &LoadedModule<'_>) -> bool {
    let rules = Rules::get();
    let file = file_name(loaded);
    loaded.module.kind != ModuleKind::Executable
        && (rules.is_library_module(&file) || rules.is_interpreter(&file))
}

fn is_c_library(loaded: &LoadedModule<'_>) -> bool {
    loaded.module.kind != ModuleKind::Executable && Rules::get().is_runtime(&file_name(loaded))
}

/// Whether a function that is linked into the program belongs to a library of its language.
fn is_of_library(name: &str, is_dynamic: bool) -> bool {
    let rules = Rules::get();
    if rules.is_always_library(name) || rules.is_linked(name) {
        return true;
    }
    // The C library is a file of its own: a program's `kill` or `start` is the program's.
    if is_dynamic && !name.contains([':', '.', '<']) {
        return false;
    }
    rules.role(name) != Role::Program || rules.is_library_name(name) || is_library_impl(name)
}

/// The first `depth` functions, each once. Of a recursion through several functions it is all of them, in the
/// order of their names: the one that reached the end of the stack varies.
pub(super) fn units(own: &[String], depth: usize) -> Vec<String> {
    let repeated = (2..=LONGEST_CYCLE).find(|length| is_periodic(own, *length));
    let cycle = endless(own).or(repeated.map(|length| (0, length)));
    let cycle = cycle.and_then(|(start, length)| own.get(start..start.saturating_add(length)));
    let mut units: Vec<String> = Vec::new();
    if let Some(cycle) = cycle {
        units.extend_from_slice(cycle);
        units.sort_unstable();
        units.dedup();
        if units.len() > 1 || endless(own).is_some() {
            return units;
        }
        units.clear();
    }
    for name in own {
        if units.len() == depth {
            break;
        }
        if !units.contains(name) {
            units.push(name.clone());
        }
    }
    units
}

/// Whether the next `length` functions are repeated right behind.
fn is_periodic(own: &[String], length: usize) -> bool {
    let again = own.get(length..length.saturating_mul(2));
    again.is_some() && own.get(..length) == again
}

/// Start and length of a cycle that fills the rest of what is looked at.
fn endless(own: &[String]) -> Option<(usize, usize)> {
    if own.len() < REACH / 2 {
        return None;
    }
    (0..LONGEST_CYCLE).find_map(|start| {
        let rest = own.get(start..)?;
        (1..=LONGEST_CYCLE).find_map(|length| {
            let mut pairs = rest.iter().zip(rest.iter().skip(length));
            pairs.all(|(a, b)| a == b).then_some((start, length))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Vec<String> {
        text.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn recursion_counts_once_and_its_callers_count() {
        let table = [
            ("walk walk walk visit main", "walk visit"),
            ("walk visit main", "walk visit"),
            ("a b a b main", "a b"),
            ("b a b a main", "a b"),
            ("a b main", "a b"),
            ("c a b c a b main", "a b c"),
            ("leaf a b a b main", "leaf a"),
            ("walk walk walk walk visit", "walk visit"),
            ("factor term expr factor term main", "factor term"),
            ("factor main", "factor main"),
        ];
        for (stack, expected) in table {
            assert_eq!(units(&names(stack), 2).join(" "), expected, "{stack}");
        }
    }

    #[test]
    fn endless_recursion_is_its_cycle_wherever_it_ended() {
        let cycle = names("c a b");
        for start in 0..3 {
            let stack: Vec<String> = cycle
                .iter()
                .cycle()
                .skip(start)
                .take(REACH)
                .cloned()
                .collect();
            assert_eq!(units(&stack, 2), ["a", "b", "c"], "{start}");
            let mut with_leaf = names("leaf");
            with_leaf.extend(stack);
            assert_eq!(units(&with_leaf, 2), ["a", "b", "c"]);
        }
    }

    #[test]
    fn main_alone_is_told_apart_by_its_program() {
        let stack = |own: &str, reaches_main| OwnStack {
            own: names(own),
            reaches_main,
            program: "app".to_owned(),
            ..OwnStack::default()
        };
        let counted = |stack: OwnStack, stop| stack.counted(2, stop);
        let end = Stop::End;
        assert_eq!(counted(stack("main", true), end), Some(names("app:main")));
        assert_eq!(counted(stack("f main", true), end), Some(names("f main")));
        assert_eq!(counted(stack("worker", false), end), Some(names("worker")));
        let cut = Stop::NoMemory(cdh_elfcore::Avma(0));
        assert_eq!(counted(stack("f", false), cut), None);
        assert_eq!(counted(stack("f g", false), cut), Some(names("f g")));
        assert_eq!(counted(OwnStack::default(), end), None);
    }
}
