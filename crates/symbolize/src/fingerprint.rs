//! A stable name for "the same crash": a hash of the normalised top of the crashing thread.
//!
//! It does not change with addresses, with builds, or with what the compiler chose to inline: it is made
//! of function names (inlined calls count as calls), without hashes, clones, template arguments and
//! parameters. What all crashes of a kind share (`raise`, `abort`, panic machinery) is left out, and a
//! recursion counts once. It ends at `main`, at the start of a thread, and where frames were only
//! guessed. Frames without a name count by module and address in its file, except those of the C
//! runtime: debug files of libc are installed here and missing there.
//!
//! Worked example: `raise`, `abort`, `core::panicking::panic`, `app::parse::h1f…`, `app::main` becomes
//! SHA-256 of `cdh 1\napp::parse\napp::main\n`, of which the first eight bytes are shown.

use std::fmt;

use cdh_elfcore::{Module, Svma};
use sha2::{Digest, Sha256};

use crate::{Frame, FrameTrust, LoadedModule, Reason, UnwoundFrame};

/// Names that count: more would tell apart callers of the same bug, fewer would lump bugs together.
const DEPTH: usize = 6;
/// Frames that are looked at, so that stacks unwound to different depths agree.
const REACH: usize = 48;
/// Bytes of the hash that are kept.
const BYTES: usize = 8;

/// Sixteen hexadecimal digits.
#[derive(
    Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(transparent)]
pub struct Fingerprint(String);

/// One frame, normalised.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Name(String),
    /// No name: the file name of the module and the address in it.
    Place {
        text: String,
        /// Of the C or C++ runtime: whether it has a name depends on installed debug files.
        runtime: bool,
    },
}

impl Fingerprint {
    /// From the named frames of the crashing thread; `None` where nothing in them can be relied on.
    #[must_use]
    pub fn from_frames(frames: &[Frame], modules: &[LoadedModule<'_>]) -> Option<Self> {
        let steps = frames
            .iter()
            .filter(|frame| !frame.tail_call && !frame.signal_handler)
            .take_while(|frame| frame.trust != FrameTrust::Scan)
            .take(REACH)
            .filter_map(|frame| match &frame.function {
                Ok(function) => Some(Step::Name(normalised(&function.name))),
                Err(_) => place(modules.get(frame.module?)?.module, frame.svma?),
            });
        Self::from_steps(steps.collect())
    }

    /// From frames without names, as known at the moment of the crash: same build, same crash.
    #[must_use]
    pub fn from_unwound(frames: &[UnwoundFrame], modules: &[LoadedModule<'_>]) -> Option<Self> {
        let steps = frames
            .iter()
            .filter(|frame| !frame.signal_frame)
            .take_while(|frame| frame.trust != FrameTrust::Scan)
            .take(REACH)
            .filter_map(|frame| place(modules.get(frame.module?)?.module, frame.svma?));
        Self::from_steps(steps.collect())
    }

    fn from_steps(mut steps: Vec<Step>) -> Option<Self> {
        let in_runtime = |step: &Step| matches!(step, Step::Place { runtime: true, .. });
        if !steps.iter().all(in_runtime) {
            steps.retain(|step| !in_runtime(step));
        }
        // Frames without a name may stand between those of the machinery.
        let leading = steps.iter().take_while(|step| match step {
            Step::Name(name) => is_machinery(name),
            Step::Place { .. } => true,
        });
        let last = leading
            .enumerate()
            .filter(|(_, step)| matches!(step, Step::Name(_)))
            .last();
        let start = last.map_or(0, |(index, _)| index.saturating_add(1));
        let rest = steps
            .get(start..)
            .filter(|rest| !rest.is_empty())
            .unwrap_or(&steps);
        let mut chosen: Vec<&str> = Vec::new();
        for step in rest {
            let (Step::Name(text) | Step::Place { text, .. }) = step;
            if chosen.len() == DEPTH || (!chosen.is_empty() && is_start(text)) {
                break;
            }
            if !chosen.contains(&text.as_str()) {
                chosen.push(text);
            }
            if text == "main" {
                break;
            }
        }
        if chosen.is_empty() {
            return None;
        }
        let mut hash = Sha256::new();
        hash.update(b"cdh 1\n");
        for name in chosen {
            hash.update(name.as_bytes());
            hash.update(b"\n");
        }
        let digest = hash.finalize();
        Some(Self(
            digest
                .iter()
                .take(BYTES)
                .map(|byte| format!("{byte:02x}"))
                .collect(),
        ))
    }

    /// Takes sixteen hexadecimal digits.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let right = text.len() == 2 * BYTES && text.bytes().all(|b| b.is_ascii_hexdigit());
        right.then(|| Self(text.to_ascii_lowercase()))
    }

    /// All sixteen digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first eight digits, for people and for keys.
    #[must_use]
    pub fn short(&self) -> &str {
        self.0.get(..BYTES).unwrap_or(&self.0)
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The frame that a crash is called after: the first that is no part of ending the process.
#[must_use]
pub fn blamed_frame(frames: &[Frame]) -> Option<&Frame> {
    let named = |frame: &Frame| match &frame.function {
        Ok(function) => Some(is_machinery(&normalised(&function.name))),
        Err(_) => None,
    };
    let counted = |frame: &&Frame| !frame.tail_call && !frame.signal_handler;
    let frames: Vec<&Frame> = frames.iter().filter(counted).take(REACH).collect();
    // Frames without a name may stand between those of the machinery.
    let leading = frames
        .iter()
        .take_while(|frame| named(frame).unwrap_or(true));
    let last = leading
        .enumerate()
        .filter(|(_, frame)| named(frame).is_some())
        .last();
    let start = last.map_or(0, |(index, _)| index.saturating_add(1));
    let rest = frames.get(start..).unwrap_or_default();
    // A wild address is no place: whoever called it is to blame.
    let wild = |frame: &&&Frame| frame.function == Err(Reason::NoModule);
    let somewhere = rest.iter().find(|frame| !wild(frame));
    somewhere.or(rest.first()).or(frames.first()).copied()
}

/// A frame without a name.
fn place(module: &Module, svma: Svma) -> Option<Step> {
    let name = String::from_utf8_lossy(module.path.rsplit(|byte| *byte == b'/').next()?);
    let runtime = [
        "libc.so",
        "libc-",
        "libpthread",
        "libstdc++",
        "libgcc_s",
        "ld-",
    ];
    let runtime = runtime.iter().any(|prefix| name.starts_with(prefix));
    Some(Step::Place {
        text: format!("{name}+{svma}"),
        runtime,
    })
}

/// What lies below the first function of a thread.
fn is_start(name: &str) -> bool {
    const NAMES: [&str; 7] = [
        "libc_start_call_main",
        "libc_start_main_impl",
        "libc_start_main",
        "start",
        "start_thread",
        "clone",
        "clone3",
    ];
    NAMES.contains(&name)
}

/// The name without what differs between builds of the same source.
fn normalised(name: &str) -> String {
    let mut plain = without_arguments(name);
    // GCC and LLVM mark clones of a function: `.part.0`, `.isra.0.cold`, `.llvm.123`.
    if let Some((start, _)) = plain.split_once('.').filter(|(start, _)| !start.is_empty()) {
        plain = start.to_owned();
    }
    let trimmed = plain.trim_start_matches('_');
    let trimmed = trimmed.strip_prefix("GI_").unwrap_or(trimmed);
    let trimmed = trimmed.trim_start_matches('_');
    if trimmed.is_empty() {
        plain
    } else {
        trimmed.to_owned()
    }
}

/// Removes `<…>` where it holds arguments (`f<T>`, `f::<T>`), not where it is a name of its own
/// (`<T as Trait>::f`, `path::<impl Trait for T>::f`).
fn without_arguments(name: &str) -> String {
    let mut plain = String::new();
    let mut depth = 0_usize;
    let mut previous = ' ';
    for (at, character) in name.char_indices() {
        match character {
            '<' if depth > 0 || starts_arguments(&plain, name.get(at..).unwrap_or_default()) => {
                depth = depth.saturating_add(1);
            }
            // `->` inside of arguments.
            '>' if depth > 0 && previous != '-' => {
                depth = depth.saturating_sub(1);
                if depth == 0 && plain.ends_with("::") {
                    plain.truncate(plain.len().saturating_sub(2));
                }
            }
            _ if depth == 0 => plain.push(character),
            _ => {}
        }
        previous = character;
    }
    plain
}

fn starts_arguments(before: &str, rest: &str) -> bool {
    let after_name = before.ends_with(|last: char| last.is_alphanumeric() || last == '_');
    let turbofish = before.ends_with("::") && !rest.starts_with("<impl ");
    (after_name && !before.ends_with("operator")) || turbofish
}

/// Functions that end a process or report its end: the crash is in what called them.
fn is_machinery(name: &str) -> bool {
    const NAMES: [&str; 30] = [
        "raise",
        "gsignal",
        "abort",
        "kill",
        "tgkill",
        "pthread_kill",
        "pthread_kill_implementation",
        "pthread_kill_internal",
        "kernel_vsyscall",
        "libc_message",
        "libc_message_impl",
        "libc_fatal",
        "fortify_fail",
        "chk_fail",
        "stack_chk_fail",
        "assert_fail",
        "assert_fail_base",
        "assert",
        "malloc_printerr",
        "restore_rt",
        "std::terminate",
        "cxxabiv1::__terminate",
        "gnu_cxx::__verbose_terminate_handler",
        "cxa_throw",
        "cxa_rethrow",
        "rust_begin_unwind",
        "rust_panic",
        "rust_start_panic",
        "runtime.raise",
        "runtime.dieFromSignal",
    ];
    const PREFIXES: [&str; 10] = [
        "core::panicking::",
        "std::panicking::",
        "std::process::abort",
        "std::sys::",
        "panic_abort::",
        "panic_unwind::",
        "core::option::",
        "core::result::",
        "rustc::",
        "std::__throw_",
    ];
    NAMES.contains(&name) || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(names: &[&str]) -> Option<Fingerprint> {
        // `?` stands for a frame of the program without a name, `-` for one of libc.
        let step = |name: &&str| match *name {
            "?" => Step::Place {
                text: "app+0x10".to_owned(),
                runtime: false,
            },
            "-" => Step::Place {
                text: "libc.so.6+0x20".to_owned(),
                runtime: true,
            },
            name => Step::Name(normalised(name)),
        };
        Fingerprint::from_steps(names.iter().map(step).collect())
    }

    #[test]
    fn names_lose_what_differs_between_builds() {
        let table = [
            ("parse.part.0", "parse"),
            ("parse.isra.0.cold", "parse"),
            ("__GI_raise", "raise"),
            (
                "std::vector<int, std::allocator<int> >::push_back",
                "std::vector::push_back",
            ),
            (
                "<app::Loop as core::ops::Drop>::drop",
                "<app::Loop as core::ops::Drop>::drop",
            ),
            ("app::run::<u8>", "app::run"),
            ("operator<", "operator<"),
            ("Foo::operator->", "Foo::operator->"),
            ("__", "__"),
            ("main.main", "main"),
        ];
        for (name, expected) in table {
            assert_eq!(normalised(name), expected, "{name}");
        }
    }

    #[test]
    fn machinery_and_recursion_do_not_count() {
        let plain = of(&["parse", "main"]);
        assert_eq!(
            of(&[
                "__pthread_kill_implementation",
                "raise",
                "abort",
                "parse",
                "main"
            ]),
            plain
        );
        assert_eq!(of(&["parse", "parse", "parse", "main", "parse"]), plain);
        assert_ne!(of(&["parse", "other"]), plain);
        assert!(of(&["abort"]).is_some());
        assert_eq!(
            of(&["parse", "main", "__libc_start_call_main", "_start"]),
            plain
        );
    }

    #[test]
    fn installed_debug_files_of_libc_do_not_count() {
        let with = of(&[
            "__pthread_kill_implementation",
            "raise",
            "abort",
            "parse",
            "main",
            "_start",
        ]);
        assert_eq!(
            of(&["-", "raise", "abort", "parse", "main", "-", "-", "_start"]),
            with
        );
        assert_eq!(of(&["-", "raise", "?", "abort", "parse", "main"]), with);
        assert_ne!(of(&["?", "parse", "main"]), with);
        assert!(of(&["-", "-"]).is_some());
        assert_eq!(of(&[]), None);
    }

    #[test]
    fn a_crash_is_called_after_the_first_frame_that_is_no_machinery() {
        let frame = |name: &str| Frame {
            pc: cdh_elfcore::Avma(1),
            module: None,
            svma: None,
            trust: FrameTrust::Cfi,
            function: match name {
                "?" => Err(Reason::NoSymbols),
                "wild" => Err(Reason::NoModule),
                name => Ok(crate::Function {
                    name: name.to_owned(),
                    raw: name.to_owned(),
                    offset: None,
                }),
            },
            inline: false,
            location: None,
            tail_call: false,
            signal_handler: false,
            is_return_address: false,
        };
        let table: [(&[&str], Option<usize>); 6] = [
            (&["parse", "main"], Some(0)),
            (
                &[
                    "__pthread_kill_implementation",
                    "raise",
                    "abort",
                    "parse",
                    "main",
                ],
                Some(3),
            ),
            (&["?", "raise", "?", "abort", "parse"], Some(4)),
            (&["wild", "dispatch", "main"], Some(1)),
            (&["wild"], Some(0)),
            (&[], None),
        ];
        for (names, expected) in table {
            let frames: Vec<Frame> = names.iter().map(|name| frame(name)).collect();
            let found = blamed_frame(&frames);
            let place =
                found.and_then(|found| frames.iter().position(|frame| std::ptr::eq(frame, found)));
            assert_eq!(place, expected, "{names:?}");
        }
    }

    #[test]
    fn digits_are_those_of_the_documented_text() {
        let fingerprint = of(&["raise", "app::parse", "app::main"]).unwrap();
        let digest = Sha256::digest(b"cdh 1\napp::parse\napp::main\n");
        assert_eq!(
            fingerprint.as_str().get(..2),
            Some(format!("{:02x}", digest[0]).as_str())
        );
        assert_eq!(fingerprint.as_str().len(), 16);
        assert_eq!(
            Fingerprint::parse(fingerprint.as_str()),
            Some(fingerprint.clone())
        );
        assert!(fingerprint.as_str().starts_with(fingerprint.short()));
        assert_eq!(fingerprint.short().len(), 8);
    }
}
