//! `cdh ls`: lists the dumps in a store, newest first. It reads only object names, unless an image, a node, JSON or
//! CSV is requested: these need facts from manifests. Dumps of the same second are sorted by capture order if few
//! manifests are needed for that.

use std::collections::BTreeSet;

use anyhow::Result;
use cdh_bundle::Manifest;
use cdh_store::{DumpSummary, Store, StoreUrl};
use jiff::{SignedDuration, Timestamp};

use crate::args::{ListFormat, LsArgs, SortBy};
use crate::pipeline::{self, Listed};
use crate::query::{Field, Selection};
use crate::render::{self, DumpFacts, Group, GroupsView, ListView, Manifests, terminal_line};
use crate::report::ExitStatus;
use crate::settings::Settings;

/// Maximum manifests read to order dumps of the same second: one round of requests to a bucket.
const MANIFESTS: usize = 16;
/// The same, where a manifest is a file.
const MANIFEST_FILES: usize = 512;
/// Maximum dumps whose manifests are read for JSON.
const FACTS: usize = 1_000;
/// A crash counts as new this long after it was first seen.
const NEW: SignedDuration = SignedDuration::from_hours(24);

pub(super) fn run(settings: &Settings, args: &LsArgs) -> Result<ExitStatus> {
    let now = Timestamp::now();
    let mut selection = Selection::from_args(&args.selection, now)?;
    // The limit applies to the requested order, so any other order needs all dumps first.
    let sort = match args.sort {
        Some(SortBy::Count) if !args.group => return Err(super::count_without_groups()),
        sort => sort.unwrap_or(SortBy::Time),
    };
    let is_cut_by_store = sort == SortBy::Time && !args.group && selection.is_query();
    let limit = limit(args);
    selection.query.limit = limit.filter(|_| is_cut_by_store);
    let store = pipeline::open_store(settings)?;
    if args.group {
        return groups(settings, args, &selection, store.as_ref());
    }
    let mut dumps = find(settings, &selection, store.as_ref(), now)?;
    sort_dumps(&mut dumps, sort);
    dumps.truncate(limit.unwrap_or(usize::MAX));
    if args.reverse {
        dumps.reverse();
    }
    if let Some(field) = &args.field {
        let values = values(settings, store.as_ref(), field, &dumps);
        let text = match args.output.format() {
            ListFormat::Json => render::json_text(&values)?,
            _ => values.iter().map(|value| format!("{value}\n")).collect(),
        };
        super::print(&text)?;
        let is_empty = values.is_empty();
        return Ok(finish(settings, args, &selection, store.as_ref(), is_empty));
    }
    let facts = || manifests(settings, store.as_ref(), &dumps);
    let text = match args.output.format() {
        ListFormat::Table | ListFormat::Wide if dumps.is_empty() => String::new(),
        format @ (ListFormat::Table | ListFormat::Wide) => {
            let view = ListView {
                now,
                style: settings.style,
                is_wide: format == ListFormat::Wide,
                width: super::terminal_width(),
            };
            render::list_table(&dumps, &view)
        }
        ListFormat::Json => render::list_json(&dumps, &facts())?,
        ListFormat::Jsonl => render::list_jsonl(&dumps, &facts())?,
        ListFormat::Csv => render::list_csv(&dumps, &facts())?,
        ListFormat::Id => render::list_ids(&dumps),
    };
    super::print(&text)?;
    Ok(finish(
        settings,
        args,
        &selection,
        store.as_ref(),
        dumps.is_empty(),
    ))
}

/// The selected dumps, newest first.
fn find(
    settings: &Settings,
    selection: &Selection,
    store: &dyn Store,
    now: Timestamp,
) -> Result<Vec<DumpSummary>> {
    let catalog = pipeline::catalog(settings, store);
    let failed = |error| pipeline::store_failure(error, "list");
    let most = match settings.store {
        StoreUrl::S3 { .. } => MANIFESTS,
        _ => MANIFEST_FILES,
    };
    let mut dumps = match selection.new_since {
        Some(_) => {
            let mut dumps = selection.survey(&catalog, now).map_err(failed)?.dumps;
            catalog.sort_equal_seconds(&mut dumps, most);
            dumps
        }
        None => catalog
            .find_in_order(&selection.query, most)
            .map_err(failed)?,
    };
    let is_all = selection.is_empty() && selection.query.limit.is_none();
    let listed = if is_all { Listed::All } else { Listed::Part };
    pipeline::remember_listing(settings, &dumps, listed);
    selection
        .retain_words(&catalog, &mut dumps)
        .map_err(failed)?;
    Ok(dumps)
}

/// Maximum number of dumps or groups shown.
fn limit(args: &LsArgs) -> Option<usize> {
    let newest = args.newest.then_some(1);
    newest.or(args.limit).or(args.selection.count())
}

/// The values of a field, each once, in order.
fn values(
    settings: &Settings,
    store: &dyn Store,
    field: &Field,
    dumps: &[DumpSummary],
) -> BTreeSet<String> {
    let value = |dump: &DumpSummary, manifest: Option<&Manifest>| {
        let value = field.value(dump, manifest)?;
        Some(terminal_line(&value))
    };
    if !field.needs_manifest() {
        return dumps.iter().filter_map(|dump| value(dump, None)).collect();
    }
    let manifests = pipeline::catalog(settings, store).manifests(dumps);
    let mut found = BTreeSet::new();
    for (dump, manifest) in dumps.iter().zip(manifests) {
        let manifest = manifest.ok();
        found.extend(value(dump, manifest.as_ref()));
    }
    found
}

/// The manifests for a listing in JSON or CSV, which includes owner, labels and image. For a long
/// listing, none is read: that would take minutes.
fn manifests(settings: &Settings, store: &dyn Store, dumps: &[DumpSummary]) -> Manifests {
    if dumps.len() > FACTS {
        eprintln!(
            "note: owner, labels, node and image are left out of more than {FACTS} dumps; use `--limit` or select fewer"
        );
        return Manifests::new();
    }
    let found = pipeline::catalog(settings, store).manifests(dumps);
    let found = found.into_iter().flatten();
    found.map(|manifest| (manifest.id, manifest)).collect()
}

/// `cdh ls --group`: like `cdh groups`, from object names alone.
fn groups(
    settings: &Settings,
    args: &LsArgs,
    selection: &Selection,
    store: &dyn Store,
) -> Result<ExitStatus> {
    let now = Timestamp::now();
    let survey = selection.survey(&pipeline::catalog(settings, store), now);
    let survey = survey.map_err(|error| pipeline::store_failure(error, "list"))?;
    let mut groups = Group::of(survey.dumps.iter(), |_| DumpFacts::default());
    let new_since = selection.new_since.unwrap_or(now - NEW);
    Group::mark_first_seen(&mut groups, &survey.first_seen, new_since);
    super::sort_groups(&mut groups, args.sort.unwrap_or(SortBy::Count));
    groups.truncate(limit(args).unwrap_or(usize::MAX));
    if args.reverse {
        groups.reverse();
    }
    let view = GroupsView {
        now,
        style: settings.style,
        width: super::terminal_width(),
    };
    let format = args.output.format();
    super::print(&super::groups_as(
        format,
        &groups,
        &selection.as_terms(),
        &view,
    )?)?;
    Ok(finish(settings, args, selection, store, groups.is_empty()))
}

/// Reports that nothing was found, to people, with advice.
fn finish(
    settings: &Settings,
    args: &LsArgs,
    selection: &Selection,
    store: &dyn Store,
    is_empty: bool,
) -> ExitStatus {
    if !is_empty {
        return ExitStatus::Done;
    }
    if args.output.format().is_text() {
        super::report_nothing(settings, store, !selection.is_empty());
    }
    ExitStatus::Nothing
}

fn sort_dumps(dumps: &mut [DumpSummary], by: SortBy) {
    match by {
        SortBy::Time | SortBy::Count => {}
        SortBy::Size => dumps.sort_by_key(|dump| std::cmp::Reverse(dump.size)),
        SortBy::Exe => dumps.sort_by(|a, b| a.exe.as_bytes().cmp(b.exe.as_bytes())),
        SortBy::Signal => dumps.sort_by(|a, b| a.signal.cmp(&b.signal)),
        SortBy::Pod => dumps.sort_by(|a, b| (&a.namespace, &a.pod).cmp(&(&b.namespace, &b.pod))),
    }
}
