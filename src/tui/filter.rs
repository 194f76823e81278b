//! The filter that is typed after `/`: the terms of `cdh ls`, and words that are looked for everywhere.
//!
//! ```text
//! namespace:payments signal:SEGV since:2d worker        terms as flags are called, and a word
//! --namespace payments --truncated                      the flags themselves
//! ```
//!
//! A word matches a dump that holds it, or one with a name that it abbreviates: each of its letters
//! continues the one before or begins a part of the name (`pw`, `paywo` for `payments-worker`). All
//! terms and all words must match. What cannot be understood is told and does not filter.

use cdh_store::{DumpSummary, Query};
use jiff::Timestamp;

use crate::query::{TERMS, add_term};
use crate::report::tell;

/// A filter that was understood.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// As it was typed.
    pub text: String,
    /// What its terms ask.
    pub query: Query,
    /// What was not understood.
    pub problem: Option<String>,
    words: Vec<Word>,
}

#[derive(Clone, Debug)]
struct Word {
    text: String,
    letters: u64,
}

/// What a filter looks at: made once for each dump.
#[derive(Clone, Debug)]
pub struct Haystack {
    /// Everything that words are looked for in, in lower case, one part a line.
    text: Box<str>,
    /// Which letters are in it.
    letters: u64,
}

impl Haystack {
    /// Of a dump, as its key describes it.
    #[must_use]
    pub fn of(dump: &DumpSummary) -> Self {
        let mut text = String::with_capacity(128);
        let mut push = |part: &str| {
            // Nearly all are ASCII; the others need a second string.
            if part.is_ascii() {
                text.push_str(part);
            } else {
                text.push_str(&part.to_lowercase());
            }
            text.push('\n');
        };
        push(dump.namespace.as_deref().unwrap_or_default());
        push(dump.pod.as_deref().unwrap_or_default());
        push(&dump.exe.to_string());
        push(&dump.signal);
        push(&dump.verdict);
        push(dump.fingerprint.as_deref().unwrap_or_default());
        push(&dump.id.to_string());
        text.make_ascii_lowercase();
        Self {
            letters: letters(&text),
            text: text.into(),
        }
    }

    fn has(&self, word: &Word) -> bool {
        word.letters & !self.letters == 0
            && (self.text.contains(&word.text)
                || self
                    .text
                    .split('\n')
                    .any(|part| abbreviates(&word.text, part)))
    }
}

/// One bit for each letter or digit, some shared.
fn letters(text: &str) -> u64 {
    text.bytes()
        .filter(|byte| *byte != b'\n')
        .fold(0, |bits, byte| bits | 1 << (byte & 63))
}

/// Whether each letter of `word` continues the one before in `name`, or begins a part of it.
fn abbreviates(word: &str, name: &str) -> bool {
    let (word, name) = (word.as_bytes(), name.as_bytes());
    if word.is_empty() || name.len() > 128 || word.len() > name.len() {
        return false;
    }
    let begins = |at: usize| {
        let before = at.checked_sub(1).and_then(|before| name.get(before));
        before.is_none_or(|before| !before.is_ascii_alphanumeric())
    };
    // Bit n: the letters so far can end at place n.
    let mut places: u128 = 0;
    for (number, letter) in word.iter().enumerate() {
        let mut next: u128 = 0;
        for (at, _) in name
            .iter()
            .enumerate()
            .filter(|(_, found)| *found == letter)
        {
            let below = (1_u128 << at) - 1;
            let continues = at > 0 && places & (1 << (at - 1)) != 0;
            let jumps = begins(at) && (number == 0 || places & below != 0);
            if continues || jumps {
                next |= 1 << at;
            }
        }
        if next == 0 {
            return false;
        }
        places = next;
    }
    true
}

impl Filter {
    /// Reads what was typed. While it is still being typed, the last term is open at its end:
    /// `namespace:pay` finds `payments`.
    #[must_use]
    pub fn parse(text: &str, now: Timestamp, being_typed: bool) -> Self {
        let mut filter = Self {
            text: text.to_owned(),
            ..Self::default()
        };
        let mut parts: Vec<(String, Option<String>)> = Vec::new();
        let mut pieces = text.split_whitespace().peekable();
        while let Some(piece) = pieces.next() {
            if let Some(flag) = piece.strip_prefix("--") {
                let (name, value) = match flag.split_once('=') {
                    Some((name, value)) => (name, Some(value)),
                    None if flag == "truncated" => (flag, Some("yes")),
                    None => (flag, pieces.next_if(|next| !next.starts_with("--"))),
                };
                parts.push((name.to_owned(), Some(value.unwrap_or_default().to_owned())));
            } else if let Some((name, value)) =
                piece.split_once(':').filter(|(name, _)| is_term(name))
            {
                parts.push((name.to_owned(), Some(value.to_owned())));
            } else {
                parts.push((piece.to_owned(), None));
            }
        }
        let open = being_typed && !text.ends_with(char::is_whitespace);
        let last = parts.len().saturating_sub(1);
        for (number, (name, value)) in parts.into_iter().enumerate() {
            match value {
                None => filter.word(&name),
                Some(value) => filter.term(&name, &value, now, open && number == last),
            }
        }
        filter
    }

    fn word(&mut self, word: &str) {
        let text = word.to_lowercase();
        self.words.push(Word {
            letters: letters(&text),
            text,
        });
    }

    fn term(&mut self, name: &str, value: &str, now: Timestamp, open: bool) {
        let name = TERMS
            .iter()
            .map(|(known, _)| *known)
            .find(|known| *known == name || short(known) == name);
        let Some(name) = name else {
            self.problem = Some("no such term; tab completes".to_owned());
            return;
        };
        if value.is_empty() && name != "truncated" {
            return;
        }
        let patterns = ["namespace", "pod", "exe", "image", "node"];
        let value = if open && patterns.contains(&name) && !value.ends_with('*') {
            format!("{value}*")
        } else {
            value.to_owned()
        };
        if let Err(error) = add_term(&mut self.query, name, &value, now) {
            // Half a date is no mistake yet.
            if !open {
                self.problem = tell(&error).lines.into_iter().next();
            }
        }
    }

    /// Whether it lets everything through.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.text.trim().is_empty()
    }

    /// Whether what the key tells lets the dump through.
    #[must_use]
    pub fn matches(&self, dump: &DumpSummary, haystack: &Haystack) -> bool {
        self.is_empty()
            || self.words.iter().all(|word| haystack.has(word)) && self.query.matches(dump)
    }

    /// Whether it asks for what only manifests hold.
    #[must_use]
    pub fn needs_facts(&self) -> bool {
        self.query.needs_manifest()
    }
}

fn is_term(name: &str) -> bool {
    TERMS
        .iter()
        .any(|(known, _)| *known == name || short(known) == name)
}

/// What people type instead.
fn short(name: &str) -> &'static str {
    match name {
        "namespace" => "ns",
        "signal" => "sig",
        "fingerprint" => "fp",
        _ => "",
    }
}

/// Ways to go on with the last word of a filter, whole texts, the best first. `values` tells what is
/// known for a term and begins so.
#[must_use]
pub fn completions(text: &str, values: impl Fn(&str, &str) -> Vec<String>) -> Vec<String> {
    let (before, last) = match text.rfind(char::is_whitespace) {
        Some(at) => text.split_at(at + 1),
        None => ("", text),
    };
    if let Some((name, start)) = last.split_once(':') {
        let mut known = values(name, start);
        known.sort();
        known.dedup();
        known.retain(|value| value.starts_with(start) && !value.contains(char::is_whitespace));
        return known
            .into_iter()
            .map(|value| format!("{before}{name}:{value} "))
            .collect();
    }
    let names = TERMS.iter().filter(|(name, _)| name.starts_with(last));
    names.map(|(name, _)| format!("{before}{name}:")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tui::tests::dump;

    fn matches(text: &str, being_typed: bool) -> bool {
        let dump = dump(1);
        let now = dump.captured_at;
        Filter::parse(text, now, being_typed).matches(&dump, &Haystack::of(&dump))
    }

    #[test]
    fn words_match_whole_or_abbreviated() {
        // payments/payments-worker-7d4b9-1, worker, SIGSEGV.
        for text in [
            "",
            "worker",
            "WORK",
            "pw",
            "paywo",
            "segv",
            "worker payments",
        ] {
            assert!(matches(text, false), "{text}");
        }
        for text in ["wroker", "pmts", "worker shop", "xyz"] {
            assert!(!matches(text, false), "{text}");
        }
    }

    #[test]
    fn terms_are_those_of_ls() {
        for text in [
            "namespace:payments",
            "ns:pay*",
            "signal:SEGV since:2d",
            "--namespace payments --exe=worker",
            "sig:11",
        ] {
            assert!(matches(text, false), "{text}");
        }
        for text in [
            "namespace:pay",
            "signal:ABRT",
            "truncated:",
            "--truncated",
            "until:2d",
        ] {
            assert!(!matches(text, false), "{text}");
        }
    }

    #[test]
    fn last_term_is_open_while_it_is_typed() {
        assert!(matches("namespace:pay", true));
        assert!(!matches("namespace:pay ", true));
        let filter = Filter::parse("since:yest", Timestamp::UNIX_EPOCH, true);
        assert_eq!(filter.problem, None);
        let filter = Filter::parse("since:yesterday", Timestamp::UNIX_EPOCH, false);
        assert!(filter.problem.unwrap().contains("invalid time"));
    }

    #[test]
    fn last_word_is_completed() {
        let values = |name: &str, _: &str| match name {
            "namespace" => vec![
                "shop".to_owned(),
                "payments".to_owned(),
                "payroll".to_owned(),
            ],
            _ => Vec::new(),
        };
        assert_eq!(completions("x na", values), ["x namespace:"]);
        assert_eq!(
            completions("namespace:pay", values),
            ["namespace:payments ", "namespace:payroll "]
        );
        assert_eq!(completions("colour:", values), Vec::<String>::new());
    }
}
