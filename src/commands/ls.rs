//! `cdh ls`: lists the dumps in a store, newest first. Reads object names only, unless `--image` or
//! `--node` ask for what only manifests hold.

use anyhow::Result;
use cdh_store::{DumpSummary, Query, is_signal};
use jiff::Timestamp;

use crate::args::{ListFormat, LsArgs, SortBy};
use crate::pipeline;
use crate::query::add_term;
use crate::render::{self, DumpFacts, Group};
use crate::report::{ExitStatus, Failure};
use crate::settings::Settings;

pub(super) fn run(settings: &Settings, args: &LsArgs) -> Result<ExitStatus> {
    let now = Timestamp::now();
    if let Some(signal) = args.signal.as_deref().filter(|name| !is_signal(name)) {
        let shown = render::terminal_line(signal);
        let message = format!("invalid signal `{shown}`: expected a number or a name");
        let hint = "for example `11`, `SEGV` or `SIGSEGV`; `kill -l` lists all";
        return Err(Failure::new(ExitStatus::Failure, message).hint(hint).into());
    }
    let mut query = args.query(now)?;
    // The limit counts dumps in the order asked for, so another order needs them all first.
    query.limit = args
        .limit
        .filter(|_| args.sort == SortBy::Time && !args.group);
    let store = pipeline::open_store(settings)?;
    let mut dumps = pipeline::catalog(settings, store.as_ref())
        .find(&query)
        .map_err(|error| pipeline::store_failure(error, "list"))?;
    sort(&mut dumps, args.sort);
    if !args.group {
        dumps.truncate(args.limit.unwrap_or(usize::MAX));
    }
    let text = match args.output {
        ListFormat::Table | ListFormat::Wide if dumps.is_empty() => String::new(),
        ListFormat::Table | ListFormat::Wide if args.group => {
            let mut groups = Group::of(dumps.iter(), |_| DumpFacts::default());
            groups.truncate(args.limit.unwrap_or(usize::MAX));
            render::groups_text(&groups, now, settings.style)
        }
        ListFormat::Json if args.group => {
            render::groups_json(&Group::of(dumps.iter(), |_| DumpFacts::default()))?
        }
        ListFormat::Table => render::list_table(&dumps, now, settings.style, false),
        ListFormat::Wide => render::list_table(&dumps, now, settings.style, true),
        ListFormat::Json => render::list_json(&dumps)?,
        ListFormat::Jsonl => render::list_jsonl(&dumps)?,
        ListFormat::Csv => render::list_csv(&dumps),
        ListFormat::Id => render::list_ids(&dumps),
    };
    super::print(&text)?;
    if !dumps.is_empty() {
        return Ok(ExitStatus::Done);
    }
    if matches!(args.output, ListFormat::Table | ListFormat::Wide) {
        super::report_nothing(settings, store.as_ref(), args.is_filtered());
    }
    Ok(ExitStatus::Nothing)
}

impl LsArgs {
    /// The terms that were given.
    fn terms(&self) -> Vec<(&'static str, &str)> {
        let texts = [
            ("namespace", &self.namespace),
            ("pod", &self.pod),
            ("exe", &self.exe),
            ("image", &self.image),
            ("node", &self.node),
            ("signal", &self.signal),
            ("since", &self.since),
            ("until", &self.until),
            ("fingerprint", &self.fingerprint),
        ];
        let given = texts
            .into_iter()
            .filter_map(|(name, text)| Some((name, text.as_deref()?)));
        given
            .chain(self.truncated.then_some(("truncated", "yes")))
            .collect()
    }

    fn query(&self, now: Timestamp) -> Result<Query> {
        let mut query = Query::default();
        for (name, value) in self.terms() {
            add_term(&mut query, name, value, now)?;
        }
        Ok(query)
    }

    fn is_filtered(&self) -> bool {
        !self.terms().is_empty()
    }
}

fn sort(dumps: &mut [DumpSummary], by: SortBy) {
    match by {
        SortBy::Time => {}
        SortBy::Size => dumps.sort_by_key(|dump| std::cmp::Reverse(dump.size)),
        SortBy::Exe => dumps.sort_by(|a, b| a.exe.as_bytes().cmp(b.exe.as_bytes())),
        SortBy::Signal => dumps.sort_by(|a, b| a.signal.cmp(&b.signal)),
        SortBy::Pod => dumps.sort_by(|a, b| (&a.namespace, &a.pod).cmp(&(&b.namespace, &b.pod))),
    }
}
