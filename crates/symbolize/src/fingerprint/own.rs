//! Which frames are the user's own code, and which belong to a runtime library.
//!
//! A frame is judged by its module, by the path of its source, and by its name: parts of libraries are
//! compiled or linked into the program, and sources are known only with debug information. The lists are
//! in `rules.txt`.

use std::collections::BTreeSet;

use super::name::{of_demangled, without_arguments};
use super::rules::{Role, Rules};
use crate::{Backtrace, Frame, ModuleReport, Reason};

/// Marks of a function's clone, and of Go's two calling conventions.
const CLONES: [&str; 9] = [
    ".part.",
    ".isra.",
    ".constprop.",
    ".cold",
    ".llvm.",
    ".lto_priv.",
    ".localalias",
    ".abi0",
    ".abiinternal",
];
/// Directory of the extension modules that belong to Python.
pub(super) const EXTENSIONS: &str = "/lib-dynload/";
/// Directories below that of Python's library where other packages are installed.
const INSTALLED: [&str; 2] = ["/site-packages/", "/dist-packages/"];
/// Directories of the system's own libraries. Below them there may be one for the architecture.
const SYSTEM: [&str; 4] = ["/usr/lib64/", "/usr/lib/", "/lib64/", "/lib/"];

impl Frame {
    /// Whether it is the user's own code, and not a runtime library's, the way a process ends, or the
    /// start of a thread.
    #[must_use]
    pub fn is_own(&self, modules: &[ModuleReport]) -> bool {
        let rules = Rules::get();
        let module = self.module.and_then(|index| modules.get(index));
        let file = module.map_or("", |module| file_name(&module.path));
        if self.signal_handler || rules.is_library_module(file) {
            return false;
        }
        let source = self.location.as_ref().map(|place| place.file.as_str());
        if source.is_some_and(|path| rules.is_library_source(path) && !is_installed(path)) {
            return false;
        }
        if self.interpreted {
            return true;
        }
        if module.is_some_and(|module| module.path.contains(EXTENSIONS)) {
            return false;
        }
        let has_source = source.is_some();
        let named = match &self.function {
            Ok(function) => is_own_name(&function.name, has_source),
            Err(reason) => *reason != Reason::NoModule,
        };
        let of_system = |module: &ModuleReport| {
            !module.has_debug_info && is_system_library(&module.path) && !rules.is_interpreter(file)
        };
        named && !module.is_some_and(of_system)
    }
}

impl Backtrace {
    /// The crashing thread's first frame of the user's own code, below a signal handler that ran because of the
    /// crash. Where there is none, the first frame that
    /// does not only say how the process ended, and then the first that has a name.
    #[must_use]
    pub fn own_frame(&self) -> Option<&Frame> {
        let frames = self.crash_frames();
        let is_own = beside_interpreter(frames, &self.modules);
        let is_program = |frame: &&Frame| frame.role(&self.modules) == Role::Program;
        // A wild address is no place: its caller is to blame.
        let is_place = |frame: &&Frame| frame.function != Err(Reason::NoModule);
        frames
            .iter()
            .find(|frame| is_own(frame))
            .or_else(|| {
                let mut named = frames.iter().filter(|frame| frame.function.is_ok());
                named.find(is_program)
            })
            .or_else(|| frames.iter().find(|frame| frame.function.is_ok()))
            .or_else(|| frames.iter().filter(is_program).find(is_place))
            .or_else(|| frames.first())
    }
}

/// As [`Frame::is_own`] in a stack that may run code of an interpreted language: the interpreter's own functions are not
/// the user's code there.
fn beside_interpreter<'m>(
    frames: &[Frame],
    modules: &'m [ModuleReport],
) -> impl Fn(&Frame) -> bool + use<'m> {
    let interpreted = frames.iter().filter(|frame| frame.interpreted);
    let interpreters: BTreeSet<usize> = interpreted.filter_map(|frame| frame.module).collect();
    move |frame| {
        let is_interpreter = frame
            .module
            .is_some_and(|module| interpreters.contains(&module));
        frame.is_own(modules) && (frame.interpreted || !is_interpreter)
    }
}

/// Whether a file below a language's library belongs to another package.
fn is_installed(path: &str) -> bool {
    INSTALLED.iter().any(|directory| path.contains(directory))
}

fn is_own_name(name: &str, has_source: bool) -> bool {
    let rules = Rules::get();
    let plain = plain_name(name);
    if rules.is_always_library(&plain) {
        return false;
    }
    // `start`, `kill` and `clone` are names that a program gives to functions too.
    let is_common = !plain.contains([':', '.']);
    if rules.role(&plain) != Role::Program && !(has_source && is_common) {
        return false;
    }
    // The source is known and is not a library's: a specialisation, or an allocator of the program.
    has_source || !(rules.is_library_name(&plain) || is_library_impl(&plain))
}

/// As for fingerprints, but Go's names keep what is behind the dot.
pub(super) fn plain_name(name: &str) -> String {
    let end = CLONES.iter().filter_map(|mark| name.find(mark)).min();
    let name = match end {
        Some(end) if end > 0 => name.get(..end).unwrap_or(name),
        _ => name,
    };
    if !name.contains('.') {
        return of_demangled(name);
    }
    without_arguments(name)
}

/// Whether `<T as Trait>::f` is an implementation for types of the language by the language.
pub(super) fn is_library_impl(name: &str) -> bool {
    let Some(inner) = name.strip_prefix('<') else {
        return false;
    };
    let Some((subject, described)) = split_as(inner) else {
        return is_language_type(subject_of(inner));
    };
    let of_language = |path: &str| {
        let root = path.split("::").next().unwrap_or(path);
        matches!(root, "core" | "alloc" | "std" | "hashbrown")
    };
    of_language(described) && is_language_type(subject)
}

/// What is before the `>` that closes it.
fn subject_of(inner: &str) -> &str {
    let mut depth = 0_usize;
    for (at, character) in inner.char_indices() {
        match character {
            '<' => depth = depth.saturating_add(1),
            '>' if depth == 0 => return inner.get(..at).unwrap_or(inner),
            '>' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    inner
}

/// `T as Trait` on the outermost level.
fn split_as(inner: &str) -> Option<(&str, &str)> {
    const AS: &str = " as ";
    let whole = subject_of(inner);
    let mut depth = 0_usize;
    for (at, character) in whole.char_indices() {
        match character {
            '<' | '(' | '[' => depth = depth.saturating_add(1),
            '>' | ')' | ']' => depth = depth.saturating_sub(1),
            ' ' if depth == 0 && whole.get(at..).is_some_and(|rest| rest.starts_with(AS)) => {
                return Some((whole.get(..at)?, whole.get(at..)?.strip_prefix(AS)?));
            }
            _ => {}
        }
    }
    None
}

/// A primitive type, one of the standard library, or a parameter such as `T`.
fn is_language_type(subject: &str) -> bool {
    let subject = subject.trim_start_matches(['&', '*']);
    let subject = subject
        .trim_start_matches("mut ")
        .trim_start_matches("const ");
    let root = subject
        .split(|c: char| !c.is_alphanumeric() && c != '_')
        .next()
        .unwrap_or_default();
    let is_path = subject.starts_with("core::")
        || subject.starts_with("alloc::")
        || subject.starts_with("std::")
        || subject.starts_with("hashbrown::");
    let is_parameter = root.len() == 1 && root == subject && root.chars().all(char::is_uppercase);
    let is_primitive = root == subject
        && matches!(
            root,
            "bool"
                | "char"
                | "str"
                | "u8"
                | "u16"
                | "u32"
                | "u64"
                | "u128"
                | "usize"
                | "i8"
                | "i16"
                | "i32"
                | "i64"
                | "i128"
                | "isize"
                | "f32"
                | "f64"
        );
    let is_dyn_of_language = ["dyn core::", "dyn alloc::", "dyn std::"]
        .iter()
        .any(|start| subject.starts_with(start));
    let is_shape = subject.starts_with(['[', '(']);
    is_path || is_parameter || is_primitive || is_dyn_of_language || is_shape
}

/// A library that lies directly in a directory of the system.
pub(super) fn is_system_library(path: &str) -> bool {
    let Some(rest) = SYSTEM.iter().find_map(|start| path.strip_prefix(start)) else {
        return false;
    };
    let rest = match rest.split_once('/') {
        Some((directory, file)) if directory.contains("-linux-") => file,
        Some(_) => return false,
        None => rest,
    };
    rest.starts_with("lib") && rest.contains(".so") && !rest.contains('/')
}

fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

#[cfg(test)]
#[path = "own_tests.rs"]
mod tests;
