//! The filter typed after `/`: the terms of `cdh ls`, and words that match any text field.
//!
//! ```text
//! namespace:payments signal:SEGV since:2d worker        terms as flags are called, and a word
//! --namespace payments --truncated                      the flags themselves
//! ```
//!
//! A word matches a dump that contains it, or a name that it abbreviates (`pw`, `paywo` for
//! `payments-worker`). In an abbreviation, each letter continues the previous one or starts a part
//! of the name.
//! All terms and all words must match. Invalid terms are reported and do not filter.

use cdh_store::{DumpSummary, Query};
use jiff::Timestamp;

pub use crate::query::Haystack;
use crate::query::{NEW_SINCE, TERMS, Word, add_term, is_term, require_range, short, similar_term};
use crate::render::terminal_line;
use crate::report::rendered;

/// A parsed filter.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// The text as typed.
    pub text: String,
    /// The query of its terms.
    pub query: Query,
    /// Why a term is invalid.
    pub problem: Option<String>,
    words: Vec<Word>,
}

impl Filter {
    /// Parses the text. While it is being typed, the last term is a prefix: `namespace:pay` finds
    /// `payments`.
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
            } else if let Some((name, value)) = piece
                .split_once(':')
                .filter(|pair| is_term(pair.0) || looks_like_a_term(*pair))
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
        if !open && filter.problem.is_none() {
            let range = require_range(&filter.query);
            filter.problem = range
                .err()
                .and_then(|error| rendered(&error).lines.into_iter().next());
        }
        filter
    }

    fn word(&mut self, word: &str) {
        self.words.push(Word::new(word));
    }

    fn term(&mut self, name: &str, value: &str, now: Timestamp, open: bool) {
        let found = TERMS
            .iter()
            .map(|(known, _)| *known)
            .find(|known| *known == name || short(known) == name);
        let Some(name) = found else {
            if name == NEW_SINCE {
                self.problem = Some(format!(
                    "`{NEW_SINCE}` is a term of `cdh ls` and `cdh groups`; here, groups sort by first seen"
                ));
                return;
            }
            let shown = terminal_line(name);
            let hint = match similar_term(name) {
                Some(similar) => format!("did you mean \"{similar}\"?"),
                None => {
                    let terms: Vec<&str> = TERMS.iter().map(|(known, _)| *known).collect();
                    format!("terms: {}", terms.join(", "))
                }
            };
            self.problem = Some(format!("unknown term \"{shown}\"; {hint}"));
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
            // An incomplete date is not an error yet.
            if !open {
                self.problem = rendered(&error).lines.into_iter().next();
            }
        }
    }

    /// Whether every dump matches.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.text.trim().is_empty()
    }

    /// Whether the dump matches, judged by its key.
    #[must_use]
    pub fn matches(&self, dump: &DumpSummary, haystack: &Haystack) -> bool {
        self.is_empty()
            || self.words.iter().all(|word| haystack.has(word)) && self.query.matches(dump)
    }

    /// Whether it needs facts that only manifests contain.
    #[must_use]
    pub fn needs_facts(&self) -> bool {
        self.query.needs_manifest()
    }
}

/// Whether the user meant a term by `name:value`. `std::vec`, `10:30`, `a/b:c` and an incomplete
/// `word:` are words.
fn looks_like_a_term((name, value): (&str, &str)) -> bool {
    let is_name = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphabetic());
    (is_name || name == NEW_SINCE) && !value.is_empty() && !value.starts_with(':')
}

/// Completions for the last word of a filter, as full texts, the best first. `values` returns the
/// known values of a term that start with a prefix.
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
    fn filter_words_match_substrings_and_abbreviations() {
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
    fn filter_terms_are_those_of_ls() {
        for text in [
            "pid:4242 unit:shop cmdline:--port",
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
    fn filter_names_unknown_terms_and_takes_other_colons_as_words() {
        let problem = |text: &str| Filter::parse(text, Timestamp::UNIX_EPOCH, false).problem;
        let said = problem("worker foo:bar").unwrap();
        assert!(
            said.starts_with("unknown term \"foo\"; terms: namespace, pod, exe, image"),
            "{said}"
        );
        assert!(problem("new-since:1d").unwrap().contains("`cdh groups`"));
        assert!(problem("--foo bar").unwrap().contains("\"foo\""));
        for text in [
            "std::vec",
            "foo:",
            ":bar",
            "10:30",
            "a/b:c",
            "x-y:z",
            "image:shop/api:1.4.2",
        ] {
            assert_eq!(problem(text), None, "{text}");
        }
        // An invalid term does not filter.
        assert!(matches("worker foo:bar", false) && !matches("indexer foo:bar", false));
    }

    #[test]
    fn filter_last_term_is_a_prefix_while_it_is_typed() {
        assert!(matches("namespace:pay", true));
        assert!(!matches("namespace:pay ", true));
        let filter = Filter::parse("since:some", Timestamp::UNIX_EPOCH, true);
        assert_eq!(filter.problem, None);
        let filter = Filter::parse("since:someday", Timestamp::UNIX_EPOCH, false);
        assert!(filter.problem.unwrap().contains("invalid time"));
    }

    #[test]
    fn filter_completes_the_last_word() {
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
