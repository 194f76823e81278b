//! Which dumps a command line selects: flags, `name:value` arguments, and bare words.

use anyhow::Result;
use cdh_store::{Catalog, DumpSummary, Query, StoreError, Survey, SurveyOptions, is_signal};
use jiff::Timestamp;

use super::{Haystack, Word, add_term, full_name, require_range, unknown_term};
use crate::args::SelectionArgs;
use crate::render::terminal_line;
use crate::report::{ExitStatus, Failure};
use crate::when::parse_when;

/// The term that needs more than keys and manifests: when a crash was first seen in the store.
pub const NEW_SINCE: &str = "new-since";

/// The dumps that a command line selects. All terms and all words must match.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// What its terms ask.
    pub query: Query,
    /// Only crashes that were first seen since then.
    pub new_since: Option<Timestamp>,
    words: Vec<Word>,
    /// Each term that was given, and how it was written.
    given: Vec<(&'static str, String)>,
    /// Terms as `name:value`, and words, in the order in which they were given.
    normalized: Vec<String>,
}

impl Selection {
    /// What flags and arguments select.
    ///
    /// # Errors
    /// When a term does not exist, is given twice, or cannot have its value; when no time is in the range.
    pub fn from_args(args: &SelectionArgs, now: Timestamp) -> Result<Self> {
        let mut selection = Self::default();
        for (name, value) in [
            ("namespace", &args.namespace),
            ("pod", &args.pod),
            ("exe", &args.exe),
            ("image", &args.image),
            ("node", &args.node),
            ("signal", &args.signal),
            ("since", &args.since),
            ("until", &args.until),
            (NEW_SINCE, &args.new_since),
            ("fingerprint", &args.fingerprint),
        ] {
            selection.flag(name, value.as_deref(), now)?;
        }
        selection.switch("truncated", args.truncated, now)?;
        for term in &args.terms {
            selection.argument(term, now)?;
        }
        require_range(&selection.query)?;
        Ok(selection)
    }

    /// The filter as terms: `namespace:payments since:1d worker`; empty if everything is selected.
    #[must_use]
    pub fn as_terms(&self) -> String {
        self.normalized.join(" ")
    }

    /// Adds a flag's value, if it was given.
    fn flag(&mut self, name: &'static str, value: Option<&str>, now: Timestamp) -> Result<()> {
        match value {
            Some(value) => self.add(name, value, format!("--{name} {value}"), now),
            None => Ok(()),
        }
    }

    /// Adds a flag without a value.
    fn switch(&mut self, name: &'static str, is_on: bool, now: Timestamp) -> Result<()> {
        match is_on {
            true => self.add(name, "yes", format!("--{name}"), now),
            false => Ok(()),
        }
    }

    /// Adds an argument: `namespace:payments`, or a word that is looked for everywhere.
    fn argument(&mut self, text: &str, now: Timestamp) -> Result<()> {
        let Some((name, value)) = text.split_once(':') else {
            self.words.extend(text.split_whitespace().map(Word::new));
            self.normalized.push(text.to_owned());
            return Ok(());
        };
        let known = full_name(name).or((name == NEW_SINCE).then_some(NEW_SINCE));
        let known = known.ok_or_else(|| unknown_term(name))?;
        if value.is_empty() && known != "truncated" {
            let message = format!("`{known}:` has no value");
            let hint = format!("write `{known}:VALUE`, without a space");
            return Err(Failure::new(ExitStatus::Failure, message).hint(hint).into());
        }
        self.add(known, value, text.to_owned(), now)
    }

    fn add(
        &mut self,
        name: &'static str,
        value: &str,
        written: String,
        now: Timestamp,
    ) -> Result<()> {
        if let Some((_, before)) = self.given.iter().find(|(known, _)| *known == name) {
            let (before, again) = (terminal_line(before), terminal_line(&written));
            let message = format!("`{name}` is given twice: `{before}` and `{again}`");
            let failure = Failure::new(ExitStatus::Failure, message);
            let hint = "give each term once; `*` and `?` match several names";
            return Err(failure.hint(hint).into());
        }
        self.given.push((name, written));
        self.normalized.push(format!("{name}:{value}"));
        match name {
            NEW_SINCE => self.new_since = Some(parse_when(value, now)?),
            "signal" if !is_signal(value) => {
                let shown = terminal_line(value);
                let message = format!("invalid signal `{shown}`: expected a number or a name");
                let hint = "for example `11`, `SEGV` or `SIGSEGV`; `kill -l` lists all";
                return Err(Failure::new(ExitStatus::Failure, message).hint(hint).into());
            }
            _ => add_term(&mut self.query, name, value, now)?,
        }
        Ok(())
    }

    /// The dumps that it selects, newest first, and when their crashes were first seen in the whole store.
    ///
    /// # Errors
    /// When the store cannot be listed.
    pub fn survey(&self, catalog: &Catalog<'_>, now: Timestamp) -> Result<Survey, StoreError> {
        let mut query = self.query.clone();
        if let Some(new_since) = self.new_since {
            // All dumps of a crash that is new are newer than that.
            query.since = Some(query.since.map_or(new_since, |since| since.max(new_since)));
        }
        let options = SurveyOptions {
            enough: self.new_since,
            now,
        };
        let mut survey = catalog.survey(&query, options)?;
        let first_seen = &survey.first_seen;
        let is_new = |dump: &DumpSummary| {
            let Some(new_since) = self.new_since else {
                return true;
            };
            let fingerprint = dump.fingerprint.as_deref();
            let first = fingerprint.and_then(|text| first_seen.first(text));
            // Keys have whole seconds.
            first.is_some_and(|first| first.as_second() >= new_since.as_second())
        };
        survey
            .dumps
            .retain(|dump| self.has_words_of(dump) && is_new(dump));
        Ok(survey)
    }

    /// Whether the words match.
    #[must_use]
    pub fn has_words_of(&self, dump: &DumpSummary) -> bool {
        if self.words.is_empty() {
            return true;
        }
        let haystack = Haystack::of(dump);
        self.words.iter().all(|word| haystack.has(word))
    }

    /// Whether it names one crash by its fingerprint.
    #[must_use]
    pub fn is_one_crash(&self) -> bool {
        self.query.fingerprint.is_some()
    }

    /// Whether keys and manifests decide it all, so that a limit can be left to the store.
    #[must_use]
    pub fn is_query(&self) -> bool {
        self.words.is_empty() && self.new_since.is_none()
    }

    /// Whether it lets everything through.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.given.is_empty() && self.words.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tell;
    use crate::tui::tests::dump;

    fn selection(arguments: &[&str]) -> Result<Selection> {
        let mut selection = Selection::default();
        for argument in arguments {
            selection.argument(argument, dump(1).captured_at)?;
        }
        Ok(selection)
    }

    fn problem(arguments: &[&str]) -> String {
        let told = tell(&selection(arguments).unwrap_err());
        [told.lines, told.hints].concat().join("; ")
    }

    #[test]
    fn arguments_match_as_the_filter_of_the_tui() {
        // payments/payments-worker-7d4b9-1, worker, SIGSEGV.
        let dump = dump(1);
        let matches = |arguments: &[&str]| {
            let selection = selection(arguments).unwrap();
            selection.query.matches(&dump) && selection.has_words_of(&dump)
        };
        for text in [
            &["namespace:payments", "signal:SEGV", "since:2d"][..],
            &["ns:pay*", "sig:11", "worker"],
            &["pw"],
            &["WORK payments"],
            &[],
        ] {
            assert!(matches(text), "{text:?}");
        }
        for text in [
            &["ns:shop"][..],
            &["wroker"],
            &["truncated:"],
            &["until:2d"],
        ] {
            assert!(!matches(text), "{text:?}");
        }
        let new = selection(&["new-since:1d"]).unwrap();
        assert!(new.new_since.is_some() && !new.is_query() && !new.is_empty());
    }

    #[test]
    fn empty_time_range_is_an_error_that_shows_both_ends() {
        let now: Timestamp = "2026-01-31T12:00:00Z".parse().unwrap();
        let range = |since: &str, until: &str| SelectionArgs {
            since: Some(since.to_owned()),
            terms: vec![format!("until:{until}")],
            ..SelectionArgs::default()
        };
        let error = Selection::from_args(&range("1h", "2h"), now).unwrap_err();
        let told = tell(&error);
        assert_eq!(
            told.lines,
            [
                "empty time range: `since` is 2026-01-31T11:00:00Z, later than `until`, 2026-01-31T10:00:00Z"
            ]
        );
        assert!(told.hints[0].contains("swap"), "{:?}", told.hints);
        assert!(Selection::from_args(&range("2h", "1h"), now).is_ok());
        assert!(Selection::from_args(&range("2026-01-01", "2026-01-01"), now).is_ok());
    }

    #[test]
    fn flags_and_arguments_are_one_filter() {
        let args = SelectionArgs {
            namespace: Some("shop".to_owned()),
            truncated: true,
            new_since: Some("1d".to_owned()),
            terms: vec!["sig:11".to_owned(), "worker".to_owned()],
            ..SelectionArgs::default()
        };
        let selection = Selection::from_args(&args, Timestamp::now()).unwrap();
        assert_eq!(
            selection.as_terms(),
            "namespace:shop new-since:1d truncated:yes signal:11 worker"
        );
        assert!(selection.new_since.is_some() && selection.query.truncated);
    }

    #[test]
    fn arguments_that_mean_nothing_are_named() {
        let unknown = problem(&["foo:bar"]);
        assert!(
            unknown.starts_with("unknown filter term `foo`"),
            "{unknown}"
        );
        for term in ["namespace", "fingerprint", "new-since"] {
            assert!(unknown.contains(term), "{unknown}");
        }
        for (slip, meant) in [
            ("namepsace", "namespace"),
            ("sine", "since"),
            ("new-sicne", "new-since"),
        ] {
            let found = problem(&[&format!("{slip}:x")]);
            assert!(
                found.contains(&format!("did you mean `{meant}`?")),
                "{found}"
            );
        }
        assert_eq!(
            problem(&["ns:a", "namespace:b"]).split(';').next(),
            Some("`namespace` is given twice: `ns:a` and `namespace:b`")
        );
        assert!(problem(&["exe:"]).contains("`exe:` has no value"));
        assert!(problem(&["signal:oops"]).contains("invalid signal `oops`"));
        assert!(problem(&["a\x1b[2J:b"]).contains("`a\\x1b[2J`"));
        let mut selection = selection(&["exe:api"]).unwrap();
        let now = Timestamp::UNIX_EPOCH;
        let error = selection.flag("exe", Some("api"), now).unwrap_err();
        assert!(
            error.to_string().contains("`exe:api` and `--exe api`"),
            "{error}"
        );
    }
}
