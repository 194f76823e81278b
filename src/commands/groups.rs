//! `cdh groups`: one line for each crash, the most frequent first.
//!
//! Object names show which crashes exist and since when. Manifests, for images and owners of pods, are
//! read for small selections or on request. Backtraces, for top frames, are read as far as time allows.

use std::collections::HashMap;
use std::sync::Arc;

use anyhow::Result;
use cdh_bundle::{DumpId, ImageRef, WorkloadOwner};
use cdh_store::{Catalog, DumpSummary, Reach, Store, Survey};
use jiff::{SignedDuration, Timestamp};

use crate::args::{GroupsArgs, ListFormat, SelectionArgs};
use crate::pipeline::{self, Listed};
use crate::query::Selection;
use crate::render::{self, DumpFacts, FirstFrom, Group, GroupsView};
use crate::report::ExitStatus;
use crate::settings::Settings;

/// A crash counts as new this long after it was first seen.
const NEW: SignedDuration = SignedDuration::from_hours(24);
/// Maximum manifests read without a request.
const MANIFESTS: usize = 1_000;
/// Digits of a fingerprint that identify a crash, as in keys.
const FINGERPRINT: usize = 8;

pub(super) fn run(settings: &Settings, args: &GroupsArgs) -> Result<ExitStatus> {
    let now = Timestamp::now();
    let terms = args.selection.terms.iter().map(|text| as_term(text));
    let selected = SelectionArgs {
        terms: terms.collect(),
        ..args.selection.clone()
    };
    let selection = Selection::from_args(&selected, now)?;
    let store: Arc<dyn Store> = Arc::from(pipeline::open_store(settings)?);
    let catalog = pipeline::catalog(settings, store.as_ref());
    let survey = selection.survey(&catalog, now);
    let Survey { dumps, first_seen } =
        survey.map_err(|error| pipeline::store_failure(error, "list"))?;
    let listed = match selection.is_empty() {
        true => Listed::All,
        false => Listed::Part,
    };
    pipeline::remember_listing(settings, &dumps, listed);
    let facts = Facts::read(&catalog, &dumps, args.images);
    let mut groups = Group::of(dumps.iter(), |dump| facts.of(dump));
    let new_since = selection.new_since.unwrap_or(now - NEW);
    Group::mark_first_seen(&mut groups, &first_seen, new_since);
    if selection.is_empty() {
        // All dumps were grouped, so the age of crashes without a fingerprint is correct too.
        groups
            .iter_mut()
            .for_each(|group| group.first_from = FirstFrom::Store);
    }
    super::sort_groups(&mut groups, args.sort);
    let limit = args.limit.or(args.selection.count());
    groups.truncate(limit.unwrap_or(usize::MAX));
    let format = args.output.format();
    if !args.no_top && format != ListFormat::Id {
        let newest = groups.iter().map(|group| group.newest.clone()).collect();
        let tops = pipeline::top_frames(settings, &store, newest);
        for (group, top) in groups.iter_mut().zip(tops) {
            group.top = top;
        }
    }
    if let (Reach::Since(since), false) = (first_seen.reach(), groups.is_empty()) {
        let date = since.strftime("%Y-%m-%d");
        eprintln!("note: first seen was looked up back to {date}; older crashes may look newer");
    }
    if facts.is_left_out && !groups.is_empty() {
        eprintln!(
            "note: the images of more than {MANIFESTS} dumps are shown with `--images`, or select fewer dumps"
        );
    }
    let view = GroupsView {
        now,
        style: settings.style,
        width: super::terminal_width().filter(|_| format != ListFormat::Wide),
    };
    match groups.as_slice() {
        [] if format.is_text() && selection.new_since.is_some() => {
            eprintln!(
                "no new crashes in {}",
                render::terminal_line(&store.describe())
            );
        }
        [] if format.is_text() => {
            super::report_nothing(settings, store.as_ref(), !selection.is_empty());
        }
        [group] if format == ListFormat::Table && selection.is_one_crash() => {
            super::print(&render::group_text(group, &view))?;
        }
        groups => {
            let text = super::groups_as(format, groups, &selection.as_terms(), &view)?;
            super::print(&text)?;
        }
    }
    Ok(if groups.is_empty() {
        ExitStatus::Nothing
    } else {
        ExitStatus::Done
    })
}

/// The user can type a fingerprint as the table shows it.
fn as_term(text: &str) -> String {
    let is_hex = |byte: u8| byte.is_ascii_hexdigit();
    match text.len() >= FINGERPRINT && text.bytes().all(is_hex) {
        true => format!("fingerprint:{text}"),
        false => text.to_owned(),
    }
}

/// What manifests say.
#[derive(Default)]
struct Facts {
    images: HashMap<DumpId, ImageRef>,
    owners: HashMap<DumpId, WorkloadOwner>,
    /// There are too many to read without a request.
    is_left_out: bool,
}

impl Facts {
    /// If a manifest cannot be read, only its facts are missing.
    fn read(catalog: &Catalog<'_>, dumps: &[DumpSummary], is_asked: bool) -> Self {
        let mut facts = Self::default();
        if dumps.len() > MANIFESTS && !is_asked {
            facts.is_left_out = true;
            return facts;
        }
        for (dump, manifest) in dumps.iter().zip(catalog.manifests(dumps)) {
            let Ok(manifest) = manifest else { continue };
            let owner = manifest.workload.and_then(|workload| workload.owner);
            facts.owners.extend(owner.map(|owner| (dump.id, owner)));
            facts
                .images
                .extend(manifest.image.map(|image| (dump.id, image)));
        }
        facts
    }

    fn of(&self, dump: &DumpSummary) -> DumpFacts<'_> {
        DumpFacts {
            image: self.images.get(&dump.id),
            owner: self.owners.get(&dump.id),
            top: None,
        }
    }
}
