//! `cdh ls`: lists the dumps in a store, newest first. Reads object names only, unless `--image` or
//! `--node` ask for what only manifests hold.

use anyhow::Result;
use cdh_store::{DumpSummary, Query, is_signal};
use jiff::Timestamp;

use crate::args::{ListFormat, LsArgs, SortBy};
use crate::pipeline;
use crate::render;
use crate::report::{ExitStatus, Failure};
use crate::settings::Settings;
use crate::when::parse_when;

pub(super) fn run(settings: &Settings, args: &LsArgs) -> Result<ExitStatus> {
    let now = Timestamp::now();
    if let Some(signal) = args.signal.as_deref().filter(|name| !is_signal(name)) {
        let message = format!("`{}` is not a signal", render::terminal_line(signal));
        let hint = "give a number or a name: 11, SEGV or SIGSEGV (`kill -l` lists them)";
        return Err(Failure::new(ExitStatus::Failure, message).hint(hint).into());
    }
    let query = Query {
        namespace: args.namespace.clone(),
        pod: args.pod.clone(),
        exe: args.exe.clone(),
        image: args.image.clone(),
        node: args.node.clone(),
        signal: args.signal.clone(),
        since: args
            .since
            .as_deref()
            .map(|text| parse_when(text, now))
            .transpose()?,
        until: args
            .until
            .as_deref()
            .map(|text| parse_when(text, now))
            .transpose()?,
        truncated: args.truncated,
        fingerprint: args.fingerprint.clone(),
        // The limit counts dumps in the order asked for, so another order needs them all first.
        limit: args
            .limit
            .filter(|_| args.sort == SortBy::Time && !args.group),
    };
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
            render::list_groups(&dumps, now, settings.style, args.limit)
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
        let filtered = args.is_filtered();
        eprintln!(
            "no dumps {}in {}",
            if filtered { "match " } else { "" },
            render::terminal_line(&store.describe())
        );
        if !filtered && settings.store_is_default {
            eprintln!(
                "hint: capture crashes here with `cdh agent install`, put a core in with `cdh import <CORE>`,"
            );
            eprintln!("      or name another store with `--store` or `CDH_STORE`");
        }
    }
    Ok(ExitStatus::Nothing)
}

impl LsArgs {
    fn is_filtered(&self) -> bool {
        let texts = [
            &self.namespace,
            &self.pod,
            &self.exe,
            &self.image,
            &self.node,
            &self.signal,
            &self.since,
            &self.until,
            &self.fingerprint,
        ];
        self.truncated || texts.iter().any(|text| text.is_some())
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
