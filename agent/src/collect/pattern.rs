//! A core pattern that is an absolute path: the directory where the kernel writes cores, and the facts
//! in a file's name.
//!
//! The kernel resolves the path in the root of the crashed process. Names are untrusted: a container can create any
//! file, and the process chooses its own name (`%e`).

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// Maximum digits of a number that replaces a specifier.
const DIGITS: usize = 20;

/// A part of the file name.
#[derive(Clone, Debug, PartialEq, Eq)]
enum NamePart {
    Literal(Vec<u8>),
    /// A specifier that is replaced by a number, such as `%p`.
    Number(u8),
    /// A specifier that is replaced by any bytes but `/`, such as `%e`.
    Text(u8),
}

/// An absolute `core_pattern`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilePattern {
    directory: PathBuf,
    parts: Vec<NamePart>,
}

impl FilePattern {
    /// Parses `kernel.core_pattern`; `None` unless it is an absolute path whose directory has no specifiers.
    /// `uses_pid` is `kernel.core_uses_pid`, which appends the process id to a pattern without `%p`.
    #[must_use]
    pub fn parse(pattern: &[u8], uses_pid: bool) -> Option<Self> {
        let pattern = pattern.strip_suffix(b"\n").unwrap_or(pattern);
        let slash = pattern.iter().rposition(|&byte| byte == b'/')?;
        let (directory, name) = pattern.split_at_checked(slash)?;
        let name = name.get(1..)?;
        let is_usable = pattern.first() == Some(&b'/')
            && !directory.contains(&b'%')
            && !name.is_empty()
            && !pattern.contains(&0);
        if !is_usable {
            return None;
        }
        let directory = match directory {
            b"" => PathBuf::from("/"),
            directory => PathBuf::from(OsStr::from_bytes(directory)),
        };
        let mut parts = parts_of(name);
        if uses_pid && !parts.contains(&NamePart::Number(b'p')) {
            parts.push(NamePart::Literal(b".".to_vec()));
            parts.push(NamePart::Number(b'p'));
        }
        Some(Self { directory, parts })
    }

    /// The directory, as the crashed process sees it.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The values of the specifiers in this name, as arguments of the handler (`p4711`); `None` if this pattern
    /// cannot produce the name.
    #[must_use]
    pub fn matches(&self, name: &[u8]) -> Option<Vec<OsString>> {
        let mut values = BTreeMap::new();
        let mut failed = BTreeSet::new();
        if !matches_from(&self.parts, name, 0, &mut failed, &mut values) {
            return None;
        }
        let argument = |(letter, value): (u8, &[u8])| {
            let mut argument = vec![letter];
            argument.extend_from_slice(value);
            OsString::from_vec(argument)
        };
        // The handler reads a text up to the next argument with a known letter, so texts come last.
        let (texts, numbers): (Vec<_>, Vec<_>) = values
            .into_iter()
            .partition(|(letter, _)| matches!(letter, b'h' | b'e'));
        let texts = texts.into_iter().rev();
        Some(numbers.into_iter().chain(texts).map(argument).collect())
    }
}

fn parts_of(name: &[u8]) -> Vec<NamePart> {
    let mut parts = Vec::new();
    let mut literal = Vec::new();
    let mut bytes = name.iter().copied();
    while let Some(byte) = bytes.next() {
        let part = match byte {
            b'%' => match bytes.next() {
                Some(b'%') => {
                    literal.push(b'%');
                    continue;
                }
                Some(
                    letter @ (b'P' | b'p' | b'I' | b'i' | b's' | b't' | b'u' | b'g' | b'd' | b'c'
                    | b'C'),
                ) => NamePart::Number(letter),
                Some(letter @ (b'e' | b'f' | b'h' | b'E')) => NamePart::Text(letter),
                // The kernel removes unknown specifiers.
                _ => continue,
            },
            byte => {
                literal.push(byte);
                continue;
            }
        };
        if !literal.is_empty() {
            parts.push(NamePart::Literal(std::mem::take(&mut literal)));
        }
        parts.push(part);
    }
    if !literal.is_empty() {
        parts.push(NamePart::Literal(literal));
    }
    parts
}

/// Whether `parts` can expand to `rest`. Failed combinations are remembered, so that the cost of a hostile name is
/// limited to parts times length squared.
fn matches_from<'n>(
    parts: &[NamePart],
    rest: &'n [u8],
    depth: usize,
    failed: &mut BTreeSet<(usize, usize)>,
    values: &mut BTreeMap<u8, &'n [u8]>,
) -> bool {
    let Some((part, others)) = parts.split_first() else {
        return rest.is_empty();
    };
    if failed.contains(&(depth, rest.len())) {
        return false;
    }
    let (letter, longest) = match part {
        NamePart::Literal(literal) => {
            return rest
                .strip_prefix(literal.as_slice())
                .is_some_and(|rest| matches_from(others, rest, depth + 1, failed, values));
        }
        NamePart::Number(letter) => {
            let digits = rest.iter().take_while(|byte| byte.is_ascii_digit());
            (*letter, digits.count().min(DIGITS))
        }
        NamePart::Text(letter) => (*letter, rest.len()),
    };
    for length in (1..=longest).rev() {
        let Some((value, rest)) = rest.split_at_checked(length) else {
            continue;
        };
        if matches_from(others, rest, depth + 1, failed, values) {
            values.entry(letter).or_insert(value);
            return true;
        }
    }
    failed.insert((depth, rest.len()));
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(pattern: &str, name: &[u8]) -> Option<Vec<String>> {
        let pattern = FilePattern::parse(pattern.as_bytes(), false).unwrap();
        let found = pattern.matches(name)?;
        let text = |value: OsString| value.to_string_lossy().into_owned();
        Some(found.into_iter().map(text).collect())
    }

    #[test]
    fn file_pattern_is_an_absolute_path_without_specifiers_in_its_directory() {
        let directory = |pattern: &str| {
            let parsed = FilePattern::parse(pattern.as_bytes(), false)?;
            Some(parsed.directory().display().to_string())
        };
        assert_eq!(directory("/core.%p\n").as_deref(), Some("/"));
        assert_eq!(directory("/var/tmp/core").as_deref(), Some("/var/tmp"));
        for other in [
            "core",
            "|/bin/x %P",
            "@/run/x.sock",
            "/cores/%u/core",
            "/cores/",
            "",
        ] {
            assert_eq!(directory(other), None, "{other}");
        }
    }

    #[test]
    fn file_name_yields_the_values_of_its_specifiers() {
        assert_eq!(
            found("/c/core.%e.%p.%s.%t", b"core.my.api.12.11.1700000000").unwrap(),
            ["p12", "s11", "t1700000000", "emy.api"]
        );
        assert_eq!(
            found("/c/%h!%e-%P%%", b"web!1!x-7%").unwrap(),
            ["P7", "hweb!1", "ex"]
        );
        for stranger in [
            &b"core.api.x.11.17"[..],
            b"core.api.12.11.17.gz",
            b"xcore.a.1.1.1",
            b"core..1.1.1",
        ] {
            assert_eq!(found("/c/core.%e.%p.%s.%t", stranger), None);
        }
    }

    #[test]
    fn file_name_has_the_pid_that_core_uses_pid_appends() {
        let pattern = FilePattern::parse(b"/tmp/core", true).unwrap();
        assert_eq!(pattern.matches(b"core.12").unwrap(), ["p12"]);
        assert_eq!(pattern.matches(b"core"), None);
        let named = FilePattern::parse(b"/tmp/core-%p", true).unwrap();
        assert_eq!(named.matches(b"core-12").unwrap(), ["p12"]);
    }

    #[test]
    fn hostile_file_name_is_matched_in_bounded_time() {
        let pattern = "/c/%e%h%f%E%e%h%f%E%e%h%f%E.%p";
        assert_eq!(found(pattern, &[b'a'; 255]), None);
    }
}
