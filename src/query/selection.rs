//! Selects dumps by flags, `name:value` arguments, and bare words.

use std::collections::HashSet;

use anyhow::Result;
use cdh_bundle::Manifest;
use cdh_store::{Catalog, DumpSummary, Query, StoreError, Survey, SurveyOptions, is_signal};
use jiff::Timestamp;

use super::{Haystack, Word, add_term, full_name, require_range, unknown_term};
use crate::args::SelectionArgs;
use crate::render::terminal_line;
use crate::report::{ExitStatus, Failure};
use crate::when::parse_when;

/// The term that needs more than keys and manifests: when the store first received a crash.
pub const NEW_SINCE: &str = "new-since";

/// Terms of the command line that the TUI's filter does not have, and what they filter by.
pub const LISTING_TERMS: [(&str, &str); 1] = [(
    NEW_SINCE,
    "of crashes that the store first received since then",
)];

/// Suffixes of systemd units (`systemd.unit(5)`).
const UNITS: [&str; 5] = [".service", ".scope", ".slice", ".socket", ".timer"];

/// Journal fields that coredumpctl matches by, and our terms.
const JOURNAL_FIELDS: [(&str, &str); 9] = [
    ("COREDUMP_PID", "pid"),
    ("COREDUMP_EXE", "exe"),
    ("COREDUMP_COMM", "exe"),
    ("COREDUMP_UNIT", "unit"),
    ("COREDUMP_USER_UNIT", "unit"),
    ("COREDUMP_SIGNAL", "signal"),
    ("COREDUMP_CMDLINE", "cmdline"),
    ("COREDUMP_HOSTNAME", "node"),
    ("_HOSTNAME", "node"),
];

/// The dumps that a command line selects. All terms and all words must match.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// What its terms ask.
    pub query: Query,
    /// Only crashes that the store first received since then.
    pub new_since: Option<Timestamp>,
    words: Vec<Words>,
    /// Each given term, as it was written.
    given: Vec<(&'static str, String)>,
    /// Terms as `name:value`, and words, in the order of the command line.
    normalized: Vec<String>,
}

/// One argument without a term's name. It is searched for in the key. A number may also be a process id, and a
/// text with spaces a command line; for these, manifests are read.
#[derive(Clone, Debug)]
struct Words {
    words: Vec<Word>,
    pid: Option<u64>,
    command_line: Option<String>,
}

impl Words {
    fn new(text: &str) -> Self {
        Self {
            words: text.split_whitespace().map(Word::new).collect(),
            pid: text.parse().ok(),
            command_line: text.contains(' ').then(|| text.to_owned()),
        }
    }

    fn is_in(&self, haystack: &Haystack) -> bool {
        self.words.iter().all(|word| haystack.has(word))
    }

    /// Whether a manifest may match although the key does not.
    fn needs_manifest(&self) -> bool {
        self.pid.is_some() || self.command_line.is_some()
    }

    fn is_in_manifest(&self, manifest: &Manifest) -> bool {
        let line = cdh_store::command_line(manifest).unwrap_or_default();
        self.pid == Some(manifest.process.pid)
            || self
                .command_line
                .as_ref()
                .is_some_and(|wanted| line.contains(wanted))
    }
}

impl Selection {
    /// Finds the newest dump that one argument matches, like coredumpctl: a process id, a program by name or path,
    /// a unit, a command line, or terms.
    ///
    /// # Errors
    /// If a term has an invalid value.
    pub fn of_reference(text: &str, now: Timestamp) -> Result<Self> {
        let mut selection = Self::default();
        let is_term = |piece: &str| {
            piece
                .split_once(':')
                .is_some_and(|pair| term(pair.0).is_some())
        };
        if text.split_whitespace().all(is_term) {
            for piece in text.split_whitespace() {
                selection.argument(piece, now)?;
            }
        } else if text.parse::<u64>().is_ok() {
            selection.add("pid", text, text.to_owned(), now)?;
        } else if text.contains(' ') && !is_path(text) {
            selection.add("cmdline", text, text.to_owned(), now)?;
        } else if !selection.add_match(text, now)? {
            selection.add("exe", text, text.to_owned(), now)?;
        }
        selection.query.limit = Some(1);
        Ok(selection)
    }

    /// The selection that flags and arguments describe.
    ///
    /// # Errors
    /// If a term does not exist, is given twice, or has an invalid value; if the time range is empty.
    pub fn from_args(args: &SelectionArgs, now: Timestamp) -> Result<Self> {
        let mut selection = Self::default();
        let short = args.namespace_or_count.as_ref();
        let namespace = short.filter(|_| args.count().is_none());
        for (name, value) in [
            ("namespace", &namespace.cloned()),
            ("namespace", &args.namespace),
            ("pod", &args.pod),
            ("exe", &args.exe),
            ("image", &args.image),
            ("node", &args.node),
            ("pid", &args.pid),
            ("unit", &args.unit),
            ("cmdline", &args.cmdline),
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

    /// Adds an argument: `namespace:payments`, or a word that is searched for everywhere.
    fn argument(&mut self, text: &str, now: Timestamp) -> Result<()> {
        if self.add_match(text, now)? {
            return Ok(());
        }
        let named = text.split_once(':');
        let Some((name, value)) = named.filter(|(name, _)| !name.contains(' ')) else {
            self.words.push(Words::new(text));
            self.normalized.push(text.to_owned());
            return Ok(());
        };
        let known = term(name).ok_or_else(|| unknown_term(name))?;
        if value.is_empty() && known != "truncated" {
            let message = format!("`{known}:` has no value");
            let hint = format!("write `{known}:VALUE`, without a space");
            return Err(Failure::new(ExitStatus::Failure, message).hint(hint).into());
        }
        self.add(known, value, text.to_owned(), now)
    }

    /// Adds an argument that coredumpctl would recognize by its form: a path, a unit, or a journal
    /// field.
    fn add_match(&mut self, text: &str, now: Timestamp) -> Result<bool> {
        let field = text.split_once('=').and_then(|(name, value)| {
            let known = JOURNAL_FIELDS.iter().find(|(known, _)| *known == name)?;
            Some((known.1, value))
        });
        let (name, value) = match field {
            Some((name, value)) => (name, value.to_owned()),
            None if is_path(text) => ("exe", absolute(text)),
            None if UNITS.iter().any(|end| text.ends_with(end)) && !text.contains(':') => {
                ("unit", text.to_owned())
            }
            None => return Ok(false),
        };
        self.add(name, &value, text.to_owned(), now)?;
        Ok(true)
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

    /// The selected dumps, newest first, and when the store first received their crashes.
    ///
    /// # Errors
    /// If the store cannot be listed.
    pub fn survey(&self, catalog: &Catalog<'_>, now: Timestamp) -> Result<Survey, StoreError> {
        let mut query = self.query.clone();
        if let Some(new_since) = self.new_since {
            // All dumps of a new crash are newer than this.
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
        survey.dumps.retain(is_new);
        self.retain_words(catalog, &mut survey.dumps)?;
        Ok(survey)
    }

    /// Retains the dumps that the words match. Reads manifests only for words that may be a process id or a
    /// command line.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn retain_words(
        &self,
        catalog: &Catalog<'_>,
        dumps: &mut Vec<DumpSummary>,
    ) -> Result<(), StoreError> {
        if self.words.is_empty() {
            return Ok(());
        }
        let missing = |dump: &DumpSummary| {
            let haystack = Haystack::of(dump);
            let words = self.words.iter();
            words
                .filter(|words| !words.is_in(&haystack))
                .collect::<Vec<_>>()
        };
        let may_match =
            |dump: &DumpSummary| missing(dump).iter().all(|words| words.needs_manifest());
        dumps.retain(may_match);
        let unsure = dumps.iter().filter(|dump| !missing(dump).is_empty());
        let unsure: Vec<DumpSummary> = unsure.cloned().collect();
        let mut refused = HashSet::new();
        for (dump, manifest) in unsure.iter().zip(catalog.manifests(&unsure)) {
            let matches = match manifest {
                Ok(manifest) => missing(dump)
                    .iter()
                    .all(|words| words.is_in_manifest(&manifest)),
                // Removed since it was listed, or damaged: one dump must not hide the others.
                Err(StoreError::NotFound { .. } | StoreError::Bundle { .. }) => false,
                Err(error) => return Err(error),
            };
            if !matches {
                refused.insert(dump.key.clone());
            }
        }
        dumps.retain(|dump| !refused.contains(&dump.key));
        Ok(())
    }

    /// Whether it names one crash by its fingerprint.
    #[must_use]
    pub fn is_one_crash(&self) -> bool {
        self.query.fingerprint.is_some()
    }

    /// Whether keys and manifests are enough to decide, so that the store can apply a limit.
    #[must_use]
    pub fn is_query(&self) -> bool {
        self.words.is_empty() && self.new_since.is_none()
    }

    /// Whether it selects everything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.given.is_empty() && self.words.is_empty()
    }
}

/// The term that a name or an abbreviation means, including terms for listings only.
fn term(name: &str) -> Option<&'static str> {
    let mut listing = LISTING_TERMS.iter().map(|(known, _)| *known);
    full_name(name).or_else(|| listing.find(|known| *known == name))
}

/// Whether an argument is a path, as of a program.
fn is_path(text: &str) -> bool {
    ["/", "./", "../"]
        .iter()
        .any(|start| text.starts_with(start))
}

/// The absolute path, without `.` and `..`. A program may not exist on this machine.
fn absolute(text: &str) -> String {
    let path = std::path::Path::new(text);
    let absolute = std::fs::canonicalize(path).or_else(|_| std::path::absolute(path));
    match text.starts_with('/') {
        true => text.to_owned(),
        false => absolute.map_or_else(|_| text.to_owned(), |path| path.display().to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::rendered;
    use crate::tui::tests::dump;

    fn selection(arguments: &[&str]) -> Result<Selection> {
        let mut selection = Selection::default();
        for argument in arguments {
            selection.argument(argument, dump(1).captured_at)?;
        }
        Ok(selection)
    }

    fn problem(arguments: &[&str]) -> String {
        let shown = rendered(&selection(arguments).unwrap_err());
        [shown.lines, shown.hints].concat().join("; ")
    }

    #[test]
    fn arguments_match_as_the_filter_of_the_tui() {
        // payments/payments-worker-7d4b9-1, worker, SIGSEGV.
        let dump = dump(1);
        let matches = |arguments: &[&str]| {
            let selection = selection(arguments).unwrap();
            let haystack = Haystack::of(&dump);
            let has_words = selection.words.iter().all(|words| words.is_in(&haystack));
            selection.query.matches(&dump) && has_words
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
    fn arguments_match_as_those_of_coredumpctl() {
        let query = |text: &str| selection(&[text]).unwrap().query;
        let path = query("/opt/shop/bin/app");
        assert_eq!(
            (path.exe.as_deref(), path.exe_path.as_deref()),
            (Some("app"), Some("/opt/shop/bin/app"))
        );
        assert!(query("./app").exe_path.unwrap().starts_with('/'));
        assert_eq!(
            query("nginx.service").unit.as_deref(),
            Some("nginx.service")
        );
        assert_eq!(query("COREDUMP_PID=42").pid, Some(42));
        assert_eq!(query("COREDUMP_SIGNAL=11").signal.as_deref(), Some("11"));
        assert_eq!(
            query("cmdline:--port").command_line.as_deref(),
            Some("--port")
        );
        assert!(problem(&["pid:x"]).contains("invalid process id `x`"));
        // Words may be process ids and command lines.
        assert_eq!(selection(&["4242"]).unwrap().words[0].pid, Some(4242));
        let line = selection(&["app --url http://x"]).unwrap();
        assert_eq!(
            line.words[0].command_line.as_deref(),
            Some("app --url http://x")
        );

        let reference = |text: &str| {
            Selection::of_reference(text, Timestamp::UNIX_EPOCH)
                .unwrap()
                .query
        };
        assert_eq!(reference("4242").pid, Some(4242));
        assert_eq!(reference("app").exe.as_deref(), Some("app"));
        assert_eq!(
            reference("app --port 80").command_line.as_deref(),
            Some("app --port 80")
        );
        let both = reference("exe:app signal:SEGV");
        assert_eq!(
            (both.exe.as_deref(), both.signal.as_deref()),
            (Some("app"), Some("SEGV"))
        );
        assert_eq!(both.limit, Some(1));
    }

    #[test]
    fn short_n_is_a_number_or_a_namespace() {
        let args = |text: &str| SelectionArgs {
            namespace_or_count: Some(text.to_owned()),
            ..SelectionArgs::default()
        };
        let query = |text: &str| {
            let selection = Selection::from_args(&args(text), Timestamp::now()).unwrap();
            selection.query.namespace
        };
        assert_eq!((args("5").count(), query("5")), (Some(5), None));
        assert_eq!(
            (args("shop").count(), query("shop").as_deref()),
            (None, Some("shop"))
        );
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
        let shown = rendered(&error);
        assert_eq!(
            shown.lines,
            [
                "empty time range: `since` is 2026-01-31T11:00:00Z, later than `until`, 2026-01-31T10:00:00Z"
            ]
        );
        assert!(shown.hints[0].contains("swap"), "{:?}", shown.hints);
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
