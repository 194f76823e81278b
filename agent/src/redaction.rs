//! Removes secrets from command lines, logs and documents: values of variables with secret names, and
//! texts that look like secrets.
//!
//! ```text
//! by value     every occurrence of a secret value of 6 bytes or more; a shorter one only where it is a
//!              whole argument or the whole value behind a `=` or `:`, for `1` is everywhere
//! by shape     --token=X   --password X   -u user:X   password=X   "password": "X"   X-Api-Key: X
//!              Bearer X    scheme://user:X@host       user:X@host
//! ```
//!
//! The patterns of `policy.scrub` decide which names are secret. Invariants: the time is linear in
//! the text and limited ([`LIMIT`]). Text that was not examined within this time is removed, never
//! kept.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use aho_corasick::{AhoCorasick, AhoCorasickKind, MatchKind};
use cdh_bundle::RawText;

use crate::policy::{PolicyConfig, matches_name};

/// The replacement of a secret.
pub(crate) const REMOVED: &str = "<removed>";
/// A shorter value is removed only if it is the complete value.
const SHORTEST: usize = 6;
/// Bytes of a value that are searched for; the rest of the value is then compared.
const NEEDLE: usize = 64;
/// Maximum bytes of all search texts. The automaton takes some 20 times as much memory.
const NEEDLES: usize = 512 << 10;
/// Maximum bytes of a name that is examined; a longer one counts as secret.
const NAME: usize = 256;
/// Time limit of one redaction.
const LIMIT: Duration = Duration::from_millis(500);
/// Short values that are settings, not secrets.
const SETTINGS: [&[u8]; 11] = [
    b"", b"0", b"1", b"true", b"false", b"yes", b"no", b"on", b"off", b"none", b"null",
];
/// Words before a token in a header: `Authorization: Bearer X`.
const SCHEMES: [&[u8]; 4] = [b"bearer", b"basic", b"token", b"apikey"];
/// Options, in capitals, whose value is a secret although no pattern matches their name.
const OPTIONS: [&str; 4] = ["PW", "PWD", "PSW", "PASSWD"];
/// Options, in capitals, whose value is `user:password`.
const USER_OPTIONS: [&str; 3] = ["U", "USER", "PROXY_USER"];

/// Names of secrets.
#[derive(Clone, Debug)]
pub(crate) struct SecretNames {
    patterns: Vec<Pattern>,
}

/// A pattern in capitals. Most are a word between stars.
#[derive(Clone, Debug)]
struct Pattern {
    text: String,
    plain: Option<(bool, String, bool)>,
}

impl Pattern {
    fn of(text: &str) -> Self {
        let text = text.to_ascii_uppercase();
        let (starts, rest) = match text.strip_prefix('*') {
            Some(rest) => (false, rest),
            None => (true, text.as_str()),
        };
        let (ends, word) = match rest.strip_suffix('*') {
            Some(word) => (false, word),
            None => (true, rest),
        };
        let is_plain = !word.contains(['*', '?']);
        let plain = is_plain.then(|| (starts, word.to_owned(), ends));
        Self { text, plain }
    }

    fn matches(&self, name: &str) -> bool {
        match &self.plain {
            Some((true, word, true)) => name == word,
            Some((true, word, false)) => name.starts_with(word.as_str()),
            Some((false, word, true)) => name.ends_with(word.as_str()),
            Some((false, word, false)) => name.contains(word.as_str()),
            None => matches_name(&self.text, name),
        }
    }
}

impl SecretNames {
    /// The names in the policy.
    pub(crate) fn of(policy: &PolicyConfig) -> Self {
        Self {
            patterns: policy.scrub.iter().map(|text| Pattern::of(text)).collect(),
        }
    }

    /// Whether a variable, option or field of this name holds a secret.
    pub(crate) fn contain(&self, name: &[u8]) -> bool {
        if name.len() > NAME {
            return true;
        }
        let name = String::from_utf8_lossy(name).to_ascii_uppercase();
        let name = name.replace(['-', '.'], "_");
        self.patterns.iter().any(|pattern| pattern.matches(&name))
    }
}

/// Collects the values to remove.
#[derive(Debug)]
pub(crate) struct Secrets {
    names: SecretNames,
    long: HashSet<Vec<u8>>,
    short: HashSet<Vec<u8>>,
}

impl Secrets {
    /// None yet.
    pub(crate) fn new(names: SecretNames) -> Self {
        Self {
            names,
            long: HashSet::new(),
            short: HashSet::new(),
        }
    }

    /// Adds a variable's value, if its name is secret.
    pub(crate) fn note(&mut self, name: &[u8], value: &[u8]) {
        if self.names.contain(name) {
            self.add(value);
        }
    }

    /// Takes in a secret value.
    pub(crate) fn add(&mut self, value: &[u8]) {
        if value.len() >= SHORTEST {
            self.long.insert(value.to_vec());
        } else if !SETTINGS.contains(&value.to_ascii_lowercase().as_slice()) {
            self.short.insert(value.to_vec());
        }
    }

    /// What removes them.
    pub(crate) fn redactor(self) -> Redactor {
        let values: Vec<Vec<u8>> = self.long.into_iter().collect();
        let needles = values
            .iter()
            .map(|value| value.get(..NEEDLE).unwrap_or(value));
        let size: usize = needles.clone().map(<[u8]>::len).sum();
        let needles: Vec<&[u8]> = needles.collect();
        let automaton = AhoCorasick::builder()
            .match_kind(MatchKind::LeftmostLongest)
            .kind(Some(AhoCorasickKind::NoncontiguousNFA))
            .build(&needles);
        let automaton = automaton.ok().filter(|_| size <= NEEDLES);
        Redactor {
            names: self.names,
            automaton,
            values,
            short: self.short,
        }
    }
}

/// Removes secrets from texts.
#[derive(Debug)]
pub(crate) struct Redactor {
    names: SecretNames,
    /// `None` if there are too many values; the text is then removed completely.
    automaton: Option<AhoCorasick>,
    values: Vec<Vec<u8>>,
    short: HashSet<Vec<u8>>,
}

impl Redactor {
    /// Removes the secrets of a command line. Returns how many arguments were removed without examination,
    /// because the time was over.
    pub(crate) fn arguments(&self, arguments: &mut [RawText]) -> usize {
        let deadline = Instant::now() + LIMIT;
        let mut unseen = 0;
        let mut secret_follows = None;
        for argument in arguments {
            if self.automaton.is_none() || Instant::now() > deadline {
                *argument = RawText::from(REMOVED);
                unseen += 1;
                continue;
            }
            let bytes = argument.as_bytes();
            let follows = secret_follows.take();
            let is_option = bytes.first() == Some(&b'-');
            let cleaned = match follows {
                Some(Follows::Secret) if !is_option => Some(REMOVED.into()),
                Some(Follows::UserAndSecret) if !is_option => without_password(bytes),
                _ if self.short.contains(bytes) => Some(REMOVED.into()),
                _ => {
                    secret_follows = self.option(bytes);
                    self.text(bytes, TextKind::Argument, deadline)
                }
            };
            if let Some(cleaned) = cleaned {
                *argument = RawText::new(cleaned);
            }
        }
        unseen
    }

    /// The text without its secrets; `None` if it contains none.
    pub(crate) fn cleaned(&self, text: &[u8]) -> Option<Vec<u8>> {
        if self.automaton.is_none() {
            return Some(REMOVED.into());
        }
        self.text(text, TextKind::Text, Instant::now() + LIMIT)
    }

    /// Whether the next argument is the value of an option without `=`, and a secret.
    fn option(&self, argument: &[u8]) -> Option<Follows> {
        let name = argument.strip_prefix(b"-")?;
        let name = name.strip_prefix(b"-").unwrap_or(name);
        if name.is_empty() || name.contains(&b'=') {
            return None;
        }
        let upper = String::from_utf8_lossy(name).to_ascii_uppercase();
        let upper = upper.replace(['-', '.'], "_");
        if USER_OPTIONS.contains(&upper.as_str()) {
            return Some(Follows::UserAndSecret);
        }
        self.is_secret_option(name).then_some(Follows::Secret)
    }

    fn is_secret_option(&self, name: &[u8]) -> bool {
        let upper = String::from_utf8_lossy(name).to_ascii_uppercase();
        OPTIONS.contains(&upper.as_str()) || self.names.contain(name)
    }

    fn text(&self, text: &[u8], part: TextKind, deadline: Instant) -> Option<Vec<u8>> {
        let mut cut = Cut::default();
        self.cut_values(text, &mut cut);
        if !self.cut_shapes(text, part, &mut cut, deadline) {
            return Some(REMOVED.into());
        }
        cut.apply(text)
    }

    /// Every occurrence of a value.
    fn cut_values(&self, text: &[u8], cut: &mut Cut) {
        let Some(automaton) = &self.automaton else {
            return;
        };
        let mut from = 0;
        while let Some(rest) = text.get(from..)
            && let Some(found) = automaton.find(rest)
        {
            let start = from + found.start();
            let value = self.values.get(found.pattern().as_usize());
            let here = text.get(start..).unwrap_or_default();
            let same = value.map_or(0, |value| {
                value.iter().zip(here).take_while(|(a, b)| a == b).count()
            });
            let end = start + same.max(found.len()).max(1);
            cut.add(start, end);
            from = end;
        }
    }

    /// Finds everything that looks like a secret; returns false when the time is over.
    fn cut_shapes(&self, text: &[u8], part: TextKind, cut: &mut Cut, deadline: Instant) -> bool {
        let mut steps = 0_u32;
        let mut at = 0;
        while let Some(&byte) = text.get(at) {
            if matches!(byte, b'=' | b':' | b'@' | b' ') {
                steps = steps.wrapping_add(1);
                if steps.is_multiple_of(64) && Instant::now() > deadline {
                    return false;
                }
            }
            let next = match byte {
                b'=' | b':' => self.cut_field(text, part, at, cut),
                b'@' => cut_password(text, at, cut),
                b' ' => cut_token(text, at, cut),
                _ => None,
            };
            at = next.unwrap_or(at + 1).max(at + 1);
        }
        true
    }

    /// `name=value`, `"name": "value"`, `Name: value`, with the separator at `at`. Returns where to
    /// continue.
    fn cut_field(&self, text: &[u8], part: TextKind, at: usize, cut: &mut Cut) -> Option<usize> {
        let before = text.get(..at)?;
        let is_header = text.get(at) == Some(&b':');
        let quoted = before.last().filter(|byte| is_quote(**byte));
        let before = before
            .strip_suffix(&[*quoted.unwrap_or(&0)])
            .unwrap_or(before);
        let length = before
            .iter()
            .rev()
            .take(NAME + 1)
            .take_while(|byte| is_name(**byte))
            .count();
        let name = before.get(before.len() - length..)?;
        let mut start = at + 1;
        while text.get(start) == Some(&b' ') && (is_header || quoted.is_some()) {
            start += 1;
        }
        let rest = text.get(start..)?;
        let quote = rest.first().copied().filter(|byte| is_quote(*byte));
        let (from, length) = match quote {
            Some(quote) => {
                let inner = rest.get(1..)?;
                let end = inner.iter().position(|byte| *byte == quote);
                (start + 1, end.unwrap_or(inner.len()))
            }
            // `--password=a,b`: the complete rest of an argument is the value.
            None if part == TextKind::Argument && !is_header && length == at => (start, rest.len()),
            // A header's value ends with the text, others at a separator.
            None if is_header && start > at + 1 && !has_brace(before) => {
                let end = rest
                    .iter()
                    .position(|byte| *byte == b'\n' || is_quote(*byte));
                (start, end.unwrap_or(rest.len()))
            }
            None => {
                let end = rest.iter().position(|byte| is_end(*byte));
                (start, end.unwrap_or(rest.len()))
            }
        };
        let end = from + length;
        let value = text.get(from..end)?;
        // `//` after a colon belongs to a URL.
        let is_url = is_header && value.starts_with(b"//");
        let bare = strip_dashes(name);
        let is_secret = !bare.is_empty() && !is_url && self.is_secret_option(bare);
        if !value.is_empty() && (is_secret || self.short.contains(value)) {
            cut.add(from, end);
            return Some(end);
        }
        // The value of one field may itself contain fields.
        None
    }
}

/// What is searched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TextKind {
    /// One argument of a command line.
    Argument,
    /// A log, a document.
    Text,
}

/// The kind of the argument after an option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Follows {
    Secret,
    UserAndSecret,
}

fn strip_dashes(name: &[u8]) -> &[u8] {
    let dashes = name.iter().take_while(|byte| **byte == b'-').count();
    name.get(dashes..).unwrap_or_default()
}

fn is_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.')
}

fn is_quote(byte: u8) -> bool {
    matches!(byte, b'"' | b'\'')
}

fn is_end(byte: u8) -> bool {
    byte.is_ascii_whitespace()
        || matches!(byte, b',' | b';' | b'&' | b'|' | b'}' | b')')
        || is_quote(byte)
}

/// Whether this looks like the inside of an object, in which a value ends at a comma.
fn has_brace(before: &[u8]) -> bool {
    before.iter().rev().take(NAME).any(|byte| *byte == b'{')
}

/// `user:password` of an option such as `curl -u`.
fn without_password(argument: &[u8]) -> Option<Vec<u8>> {
    let colon = argument.iter().position(|byte| *byte == b':')?;
    let mut clean = argument.get(..=colon)?.to_vec();
    clean.extend_from_slice(REMOVED.as_bytes());
    Some(clean)
}

/// Whether the text after an `@` is the digest of an image: `sha256:` and hexadecimal digits (OCI
/// image-spec, descriptor.md). The text before it is then the image's name.
fn is_digest(text: &[u8]) -> bool {
    const LEAST_DIGITS: usize = 32;
    let rest = text
        .strip_prefix(b"sha256:")
        .or(text.strip_prefix(b"sha512:"));
    rest.is_some_and(|rest| {
        let digits = rest.iter().take_while(|byte| byte.is_ascii_hexdigit());
        digits.count() >= LEAST_DIGITS
    })
}

/// Whether this is a port followed by a path.
fn is_port(text: &[u8]) -> bool {
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    (1..=5).contains(&digits) && text.get(digits) == Some(&b'/')
}

/// `user:password@host`, or a long `token@host` after `//`, with the `@` at `at`.
fn cut_password(text: &[u8], at: usize, cut: &mut Cut) -> Option<usize> {
    /// Maximum characters of a user name and password that are examined.
    const LONGEST: usize = 2048;
    /// A user name is shorter than a token.
    const TOKEN: usize = 20;
    if is_digest(text.get(at + 1..)?) {
        return None;
    }
    let before = text.get(..at)?;
    let is_outside = |byte: &u8| byte.is_ascii_whitespace() || is_quote(*byte);
    let length = before
        .iter()
        .rev()
        .take(LONGEST)
        .take_while(|byte| !is_outside(byte))
        .count();
    let start = at - length;
    let run = text.get(start..at)?;
    let slashes = run.windows(3).rposition(|three| three == b"://");
    let start = start + slashes.map_or(0, |slashes| slashes + 3);
    let run = text.get(start..at)?;
    // A password may contain both, but a path after the host is not part of it.
    let host = run
        .iter()
        .position(|byte| *byte == b'@')
        .and_then(|end| run.get(end..));
    if host.is_some_and(|rest| rest.contains(&b'/')) {
        return None;
    }
    // Without a scheme, the text before the user name is not part of it.
    let skip = match slashes {
        Some(_) => 0,
        None => run
            .iter()
            .rposition(|byte| matches!(byte, b'=' | b',' | b'/'))
            .filter(|end| run.get(*end..).is_some_and(|rest| rest.contains(&b':')))
            .map_or(0, |end| end + 1),
    };
    let start = start + skip;
    let run = text.get(start..at)?;
    match run.iter().position(|byte| *byte == b':') {
        // `host:port/path@version`
        Some(colon) if slashes.is_none() && is_port(run.get(colon + 1..)?) => {}
        Some(colon) if colon + 1 < run.len() => cut.add(start + colon + 1, at),
        None if slashes.is_some() && run.len() >= TOKEN => cut.add(start, at),
        _ => {}
    }
    None
}

/// `Bearer X`, with the space at `at`.
fn cut_token(text: &[u8], at: usize, cut: &mut Cut) -> Option<usize> {
    /// A shorter following word is not a token.
    const TOKEN: usize = 6;
    let before = text.get(..at)?;
    let length = before
        .iter()
        .rev()
        .take(16)
        .take_while(|byte| byte.is_ascii_alphabetic())
        .count();
    let word = before.get(at - length..)?.to_ascii_lowercase();
    if !SCHEMES.contains(&word.as_slice()) {
        return None;
    }
    let rest = text.get(at + 1..)?;
    let is_of_token = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~+/=:%".contains(byte);
    let length = rest.iter().take_while(|byte| is_of_token(byte)).count();
    // In `basic authentication` and `token expired`, the second word is not a token.
    let token = rest.get(..length)?;
    let is_word = token.iter().all(u8::is_ascii_lowercase);
    if length < TOKEN || (is_word && word != b"bearer") {
        return None;
    }
    cut.add(at + 1, at + 1 + length);
    Some(at + 1 + length)
}

/// Ranges of a text to remove.
#[derive(Debug, Default)]
struct Cut(Vec<(usize, usize)>);

impl Cut {
    fn add(&mut self, start: usize, end: usize) {
        self.0.push((start, end));
    }

    fn apply(mut self, text: &[u8]) -> Option<Vec<u8>> {
        if self.0.is_empty() {
            return None;
        }
        self.0.sort_unstable();
        let mut clean = Vec::with_capacity(text.len());
        let mut at = 0;
        for (start, end) in self.0 {
            if start >= at {
                clean.extend_from_slice(text.get(at..start).unwrap_or_default());
                clean.extend_from_slice(REMOVED.as_bytes());
            }
            at = at.max(end);
        }
        clean.extend_from_slice(text.get(at..).unwrap_or_default());
        Some(clean)
    }
}

#[cfg(test)]
#[path = "redaction_tests.rs"]
mod tests;
