//! A stable name for "the same crash": a hash of the normalised top of the crashing thread.
//!
//! It does not change with addresses, with builds, or with what the compiler chose to inline: it is made
//! of function names (inlined calls count as calls), without hashes, clones, template arguments and
//! parameters. What all crashes of a kind share (`raise`, `abort`, panic machinery) is left out, and a
//! recursion counts once. It ends at `main`, at the start of a thread, and where frames were only
//! guessed. Which names those are stands in `fingerprint/rules.txt`. Frames without a name count by module and address in its file, except those of the C
//! runtime: debug files of libc are installed here and missing there.
//!
//! Worked example: `raise`, `abort`, `core::panicking::panic`, `app::parse::h1f…`, `app::main` becomes
//! SHA-256 of `cdh 1\napp::parse\napp::main\n`, of which the first eight bytes are shown.

mod own;
mod rules;

use std::collections::BTreeMap;
use std::fmt;

use cdh_elfcore::{Module, Svma};
use sha2::{Digest, Sha256};

use crate::demangle::demangle;
use crate::symbol;
use crate::{Frame, FrameTrust, LoadedModule, ModuleReport, Stop, UnwoundFrame};
pub use rules::Role;
use rules::Rules;

/// Frames that are looked at, so that stacks unwound to different depths agree.
const REACH: usize = 48;
/// Frames of a stack that counts as whole, wherever its memory ends.
const DEEP: usize = 256;
/// Bytes of the hash that are kept.
const BYTES: usize = 8;

/// Sixteen hexadecimal digits.
#[derive(
    Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
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

/// How a fingerprint came about.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Explanation {
    /// What was made from it.
    pub fingerprint: Fingerprint,
    /// What counts, innermost first.
    pub counted: Vec<String>,
    /// What stood above it and says only how the process ended.
    pub skipped: Vec<String>,
}

impl Fingerprint {
    /// From the named frames of the crashing thread; `None` where nothing in them can be relied on.
    #[must_use]
    pub fn from_frames(
        frames: &[Frame],
        stop: Stop,
        modules: &[LoadedModule<'_>],
    ) -> Option<Explanation> {
        let steps = frames
            .iter()
            .filter(|frame| !frame.tail_call && !frame.signal_handler)
            .take_while(|frame| frame.trust != FrameTrust::Scan)
            .take(REACH)
            .filter_map(|frame| match &frame.function {
                Ok(function) => Some(Step::Name(normalised(&function.name))),
                Err(_) => place(modules.get(frame.module?)?.module, frame.svma?),
            });
        // How far a deep stack was unwound must not decide.
        let on_stack = frames
            .iter()
            .filter(|frame| !frame.inline && !frame.tail_call);
        let whole = is_whole(stop) || on_stack.count() > DEEP;
        Self::from_steps(steps.collect(), whole)
    }

    /// From the names that the files' own symbol tables give, as far as those are small enough to be read
    /// where a process dies: the same crash of another build too. Inlined calls do not show; the rest
    /// counts by module and address.
    #[must_use]
    pub fn from_symbols(
        frames: &[UnwoundFrame],
        stop: Stop,
        modules: &[LoadedModule<'_>],
        largest_table: u64,
    ) -> Option<Explanation> {
        let frames: Vec<&UnwoundFrame> = frames
            .iter()
            .filter(|frame| !frame.signal_frame)
            .take_while(|frame| frame.trust != FrameTrust::Scan)
            .take(REACH)
            .collect();
        let mut wanted: BTreeMap<usize, Vec<u64>> = BTreeMap::new();
        for frame in &frames {
            if let (Some(module), Some(at)) = (frame.module, frame.lookup_svma()) {
                wanted.entry(module).or_default().push(at.0);
            }
        }
        let mut names: BTreeMap<(usize, u64), String> = BTreeMap::new();
        for (index, mut addresses) in wanted {
            let Some(object) = modules.get(index).and_then(|loaded| loaded.object.as_ref()) else {
                continue;
            };
            addresses.sort_unstable();
            addresses.dedup();
            let table = object
                .section(".symtab")
                .or_else(|| object.section(".dynsym"));
            if table.is_none_or(|table| table.size > largest_table) {
                continue;
            }
            let found = symbol::find(&[object], &addresses);
            for (at, symbol) in addresses.iter().zip(found) {
                if let Some(symbol) = symbol {
                    let name = demangle(&String::from_utf8_lossy(symbol.name));
                    names.insert((index, *at), normalised(&name));
                }
            }
        }
        let step = |frame: &&UnwoundFrame| {
            let module = frame.module?;
            match names.get(&(module, frame.lookup_svma()?.0)) {
                Some(name) => Some(Step::Name(name.clone())),
                None => place(modules.get(module)?.module, frame.svma?),
            }
        };
        Self::from_steps(frames.iter().filter_map(step).collect(), is_whole(stop))
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
        Self::from_steps(steps.collect(), true).map(|explanation| explanation.fingerprint)
    }

    /// `whole`: the stack was not cut, so that another core of the crash cannot show more of it.
    fn from_steps(mut steps: Vec<Step>, whole: bool) -> Option<Explanation> {
        let rules = Rules::get();
        let in_runtime = |step: &Step| matches!(step, Step::Place { runtime: true, .. });
        if !steps.iter().all(in_runtime) {
            steps.retain(|step| !in_runtime(step));
        }
        // Frames without a name may stand between those of the machinery.
        let leading = steps.iter().take_while(|step| match step {
            Step::Name(name) => rules.role(name) == Role::Machinery,
            Step::Place { .. } => true,
        });
        let last = leading
            .enumerate()
            .filter(|(_, step)| matches!(step, Step::Name(_)))
            .last();
        let start = last.map_or(0, |(index, _)| index.saturating_add(1));
        let (skipped, rest) = steps.split_at_checked(start)?;
        // A stack of nothing else: then that is the crash.
        let (skipped, rest) = if rest.is_empty() {
            (rest, skipped)
        } else {
            (skipped, rest)
        };
        let mut counted: Vec<String> = Vec::new();
        let mut ended = false;
        for step in rest {
            let text = step.text();
            ended = counted.len() == rules.depth
                || (!counted.is_empty() && rules.role(text) == Role::Start);
            if ended {
                break;
            }
            if !counted.iter().any(|known| known == text) {
                counted.push(text.to_owned());
            }
            if rules.is_last(text) {
                ended = true;
                break;
            }
        }
        let enough = whole || ended || counted.len() == rules.depth;
        if counted.is_empty() || !enough {
            return None;
        }
        let mut hash = Sha256::new();
        hash.update(b"cdh 1\n");
        for name in &counted {
            hash.update(name.as_bytes());
            hash.update(b"\n");
        }
        let digest = hash.finalize();
        let digits = digest.iter().take(BYTES);
        Some(Explanation {
            fingerprint: Self(digits.map(|byte| format!("{byte:02x}")).collect()),
            counted,
            skipped: skipped.iter().map(|step| step.text().to_owned()).collect(),
        })
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

impl Step {
    fn text(&self) -> &str {
        match self {
            Self::Name(text) | Self::Place { text, .. } => text,
        }
    }
}

/// Whether the stack ends by itself or by our own limit, and not because memory is missing or damaged.
fn is_whole(stop: Stop) -> bool {
    !matches!(stop, Stop::NoMemory(_))
}

impl Frame {
    /// What it is in its stack: what the program does, how it ended, how it began.
    #[must_use]
    pub fn role(&self, modules: &[ModuleReport]) -> Role {
        let rules = Rules::get();
        match &self.function {
            _ if self.signal_handler => Role::Machinery,
            Ok(function) => rules.role(&own::plain_name(&function.name)),
            // Without its debug file, libc's own frames around `raise` have no names.
            Err(_) => {
                let path = self.module.and_then(|index| modules.get(index));
                let file = path.and_then(|module| module.path.rsplit('/').next());
                let abort = self.is_return_address && self.trust != FrameTrust::Registers;
                match file {
                    Some(file) if rules.is_runtime(file) && !abort => Role::Machinery,
                    Some(file) if rules.is_runtime(file) => Role::Start,
                    _ => Role::Program,
                }
            }
        }
    }
}

/// A frame without a name.
fn place(module: &Module, svma: Svma) -> Option<Step> {
    let name = String::from_utf8_lossy(module.path.rsplit(|byte| *byte == b'/').next()?);
    let runtime = Rules::get().is_runtime(&name);
    Some(Step::Place {
        text: format!("{name}+{svma}"),
        runtime,
    })
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
        let steps = names.iter().map(step).collect();
        Fingerprint::from_steps(steps, true).map(|explanation| explanation.fingerprint)
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
    fn cut_stack_has_the_fingerprint_of_the_whole_one_or_none() {
        let steps = |names: &[&str]| {
            names
                .iter()
                .map(|name| Step::Name((*name).to_owned()))
                .collect()
        };
        let names = [
            "raise", "abort", "a", "b", "c", "d", "e", "f", "g", "h", "main",
        ];
        let whole = Fingerprint::from_steps(steps(&names), true).unwrap();
        assert_eq!(whole.skipped, ["raise", "abort"]);
        assert_eq!(whole.counted, ["a", "b", "c", "d", "e", "f"]);
        assert_eq!(
            Fingerprint::from_steps(steps(&names[..9]), false),
            Some(whole)
        );
        assert_eq!(Fingerprint::from_steps(steps(&names[..5]), false), None);
        assert!(Fingerprint::from_steps(steps(&["a", "main"]), false).is_some());
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
