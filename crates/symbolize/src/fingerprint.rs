//! A stable name for "the same crash": a hash of the innermost functions of the program in the crashing
//! thread.
//!
//! It does not change with addresses, builds, or the kind of CPU, nor with where it is computed: the handler
//! and the CLI read the same symbol tables and nothing else (`fingerprint/stack.rs`). Function names count
//! without hashes, clones, template arguments and parameters; closures count as the function around them
//! (`fingerprint/name.rs`). Libraries of the language, and how the process ended, do not count. Which names
//! those are is listed in `fingerprint/rules.txt`. Functions without a name count by module and address.
//!
//! Worked example: `raise`, `abort`, `core::panicking::panic`, `app::parse::h1f…`, `app::main` becomes
//! SHA-256 of `cdh 2\napp::main\napp::parse\n` (sorted, so that of two functions that call each other it
//! does not matter which one crashed). Its first eight bytes are shown.
//!
//! Scheme 1 counted six names, with inlined calls where debug information was there.

mod name;
mod own;
mod rules;
mod stack;

use std::fmt;

use sha2::{Digest, Sha256};

use crate::{Frame, FrameTrust, LoadedModule, ModuleReport, OriginalSignal, Stop, UnwoundFrame};
pub use rules::Role;
use rules::Rules;
use stack::OwnStack;

/// Bytes of the hash that are kept.
const BYTES: usize = 8;
/// The way that fingerprints are made now.
const SCHEME: u32 = 2;

/// Sixteen hexadecimal digits.
#[derive(
    Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(transparent)]
pub struct Fingerprint(String);

/// How a fingerprint was made.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Explanation {
    /// Version of the rules: 2. Earlier agents wrote no explanation, or none with a version.
    #[serde(default = "first_scheme")]
    pub scheme: u32,
    /// What was made from it.
    pub fingerprint: Fingerprint,
    /// What counts, innermost first.
    pub counted: Vec<String>,
    /// What was above it and says only how the process ended.
    pub skipped: Vec<String>,
}

fn first_scheme() -> u32 {
    1
}

impl Fingerprint {
    /// Frames of a stack that can make a difference.
    pub const FRAMES: usize = stack::REACH;

    /// From the frames of the crashing thread and the files that were mapped. Frames of a signal handler that ran
    /// because of the crash (`original`) do not count. `None` where a file that the stack runs through is
    /// missing, where the stack is cut, and where nothing in it belongs to the program.
    #[must_use]
    pub fn from_stack(
        frames: &[UnwoundFrame],
        stop: Stop,
        original: Option<&OriginalSignal>,
        modules: &[LoadedModule<'_>],
    ) -> Option<Explanation> {
        let stack = OwnStack::of(OriginalSignal::frames(original, frames), modules)?;
        let counted = stack.counted(Rules::get().depth, stop)?;
        Some(Explanation {
            scheme: SCHEME,
            fingerprint: Self::of_names(&counted),
            counted,
            skipped: stack.skipped,
        })
    }

    /// From the frames of a stack that runs code of an interpreted language, innermost first: native ones as
    /// [`frames_by_tables`](crate::frames_by_tables) names them. `interpreted` names the functions of that language that
    /// count. Native functions count if they are the program's own, as those of an extension are. `frames` are without
    /// those of a signal handler that ran because of the crash. `None` where nothing counts, and where the file of a
    /// module is missing that may hold something that does.
    #[must_use]
    pub fn from_interpreted(
        frames: &[Frame],
        modules: &[LoadedModule<'_>],
        interpreted: impl Fn(&Frame) -> Option<String>,
    ) -> Option<Explanation> {
        let own = stack::mixed(frames, modules, interpreted)?;
        let counted = stack::units(&own, Rules::get().depth);
        (!counted.is_empty()).then(|| Explanation {
            scheme: SCHEME,
            fingerprint: Self::of_names(&counted),
            counted,
            skipped: Vec::new(),
        })
    }

    /// The functions of the program in a stack, innermost first: for comparing rules on a set of crashes. `frames`
    /// are without those of a signal handler that ran because of the crash.
    #[must_use]
    pub fn own_functions(
        frames: &[UnwoundFrame],
        modules: &[LoadedModule<'_>],
    ) -> Option<Vec<String>> {
        OwnStack::of(frames, modules).map(|stack| stack.own)
    }

    fn of_names(counted: &[String]) -> Self {
        let mut names: Vec<&str> = counted.iter().map(String::as_str).collect();
        names.sort_unstable();
        let mut hash = Sha256::new();
        hash.update(format!("cdh {SCHEME}\n"));
        for name in names {
            hash.update(name.as_bytes());
            hash.update(b"\n");
        }
        let digest = hash.finalize();
        let digits = digest.iter().take(BYTES);
        Self(digits.map(|byte| format!("{byte:02x}")).collect())
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

#[cfg(test)]
mod tests {
    use super::*;

    fn of(names: &[&str]) -> Fingerprint {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        Fingerprint::of_names(&names)
    }

    #[test]
    fn digits_are_those_of_the_documented_text() {
        let fingerprint = of(&["app::parse", "app::main"]);
        let digest = Sha256::digest(b"cdh 2\napp::main\napp::parse\n");
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
        assert_eq!(of(&["app::main", "app::parse"]), fingerprint);
    }

    #[test]
    fn explanation_without_a_scheme_is_of_the_first() {
        let json = r#"{"fingerprint":"0123456789abcdef","counted":["a"],"skipped":[]}"#;
        let explanation: Explanation = serde_json::from_str(json).unwrap();
        assert_eq!(explanation.scheme, 1);
    }
}
