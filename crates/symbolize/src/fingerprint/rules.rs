//! The rules of the fingerprint, read from `rules.txt`.

use std::sync::OnceLock;

/// What a frame is in a stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Code of the program and its libraries.
    Program,
    /// Ends the process or reports its end: `abort`, a panic, a signal's trampoline.
    Machinery,
    /// Below the first function of a thread.
    Start,
}

/// A name, or the beginning of names, perhaps with something in between.
#[derive(Debug)]
struct Pattern(Vec<&'static str>);

impl Pattern {
    fn matches(&self, name: &str) -> bool {
        let mut parts = self.0.iter();
        let Some(mut rest) = parts.next().and_then(|first| name.strip_prefix(*first)) else {
            return false;
        };
        for part in parts {
            match rest
                .find(part)
                .and_then(|at| rest.get(at..)?.get(part.len()..))
            {
                Some(after) => rest = after,
                None => return false,
            }
            if part.is_empty() {
                return true;
            }
        }
        rest.is_empty()
    }
}

#[derive(Debug, Default)]
pub(super) struct Rules {
    skip: Vec<Pattern>,
    start: Vec<Pattern>,
    last: Vec<Pattern>,
    runtime: Vec<&'static str>,
    module: Vec<&'static str>,
    interpreter: Vec<&'static str>,
    source: Vec<Pattern>,
    library: Vec<Pattern>,
    always: Vec<Pattern>,
    linked: Vec<Pattern>,
    machine: Vec<Pattern>,
    pub(super) depth: usize,
}

impl Rules {
    /// The rules; parsed once.
    pub(super) fn get() -> &'static Self {
        static RULES: OnceLock<Rules> = OnceLock::new();
        RULES.get_or_init(|| Self::parse(include_str!("rules.txt")))
    }

    fn parse(text: &'static str) -> Self {
        let mut rules = Self::default();
        for line in text.lines() {
            let Some((kind, value)) = line.split_once(' ') else {
                continue;
            };
            let pattern = Pattern(value.split('*').collect());
            match kind {
                "skip" => rules.skip.push(pattern),
                "start" => rules.start.push(pattern),
                "last" => rules.last.push(pattern),
                "runtime" => rules.runtime.push(value),
                "module" => rules.module.push(value),
                "interpreter" => rules.interpreter.push(value),
                "source" => rules.source.push(pattern),
                "library" => rules.library.push(pattern),
                "always" => rules.always.push(pattern),
                "linked" => rules.linked.push(pattern),
                "machine" => rules.machine.push(pattern),
                "depth" => rules.depth = value.parse().unwrap_or(1),
                _ => {}
            }
        }
        rules
    }

    /// Role of a normalised name.
    pub(super) fn role(&self, name: &str) -> Role {
        let any = |patterns: &[Pattern]| patterns.iter().any(|pattern| pattern.matches(name));
        match () {
            () if any(&self.skip) => Role::Machinery,
            () if any(&self.start) => Role::Start,
            () => Role::Program,
        }
    }

    pub(super) fn is_last(&self, name: &str) -> bool {
        self.last.iter().any(|pattern| pattern.matches(name))
    }

    pub(super) fn is_runtime(&self, file: &str) -> bool {
        self.runtime.iter().any(|prefix| file.starts_with(prefix))
    }

    /// Whether a module with this file name is a runtime library.
    pub(super) fn is_library_module(&self, file: &str) -> bool {
        self.module.iter().any(|prefix| file.starts_with(prefix))
    }

    /// Whether a library of the system runs programs in a language of its own.
    pub(super) fn is_interpreter(&self, file: &str) -> bool {
        self.interpreter
            .iter()
            .any(|prefix| file.starts_with(prefix))
    }

    /// Whether a source path belongs to a runtime library.
    pub(super) fn is_library_source(&self, path: &str) -> bool {
        self.source.iter().any(|pattern| pattern.matches(path))
    }

    /// Whether a name is a runtime library's, unless its source path says otherwise.
    pub(super) fn is_library_name(&self, name: &str) -> bool {
        self.library.iter().any(|pattern| pattern.matches(name))
    }

    /// Whether a name is a runtime library's, whatever its source path.
    pub(super) fn is_always_library(&self, name: &str) -> bool {
        self.always.iter().any(|pattern| pattern.matches(name))
    }

    /// Whether a name is a library's that is linked into dynamic programs too.
    pub(super) fn is_linked(&self, name: &str) -> bool {
        self.linked.iter().any(|pattern| pattern.matches(name))
    }

    /// Whether a name belongs to the virtual machine of a language.
    pub(super) fn is_machine(&self, name: &str) -> bool {
        self.machine.iter().any(|pattern| pattern.matches(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_of_the_rules_is_a_rule() {
        let text = include_str!("rules.txt");
        let rules = Rules::parse(text);
        let lines = text
            .lines()
            .filter(|line| !line.is_empty() && !line.starts_with('#'));
        let of_fingerprints =
            rules.skip.len() + rules.start.len() + rules.last.len() + rules.runtime.len() + 1;
        let of_own_code = rules.module.len()
            + rules.interpreter.len()
            + rules.source.len()
            + rules.library.len()
            + rules.always.len()
            + rules.linked.len()
            + rules.machine.len();
        assert_eq!(lines.count(), of_fingerprints + of_own_code);
        assert_eq!(rules.depth, 2);
    }

    #[test]
    fn star_stands_for_anything() {
        let matches =
            |pattern: &'static str, name| Pattern(pattern.split('*').collect()).matches(name);
        assert!(matches("abort", "abort") && !matches("abort", "aborted"));
        assert!(matches("a::*", "a::b::c") && !matches("a::*", "b::a::c"));
        assert!(matches("a::*::Log*", "a::b::LogMessage") && !matches("a::*::Log*", "a::b"));
    }
}
