//! `cdh gc`: deletes dumps that are too old, dumps with enough newer ones of the same crash, and the oldest if all
//! together exceed the size limit. A dump is deleted if any of the given limits applies to it; without limits,
//! nothing is deleted. A key alone never deletes another dump: the manifests of the dumps that replace it are read
//! first.
//!
//! It also deletes modules that agents stored and that no remaining dump needs, once they are a week old.
//! `--modules-older-than` alone deletes modules only.

use std::collections::BTreeSet;

use anyhow::Result;
use cdh_store::{
    Catalog, DumpSummary, Expired, ObjectKey, Query, Retention, Store, StoreError, StoredModule,
};
use jiff::{SignedDuration, Timestamp};

use crate::args::{GcArgs, TextFormat};
use crate::pipeline;
use crate::prompt;
use crate::render::{self, DeletedDump, DeletedModule, GarbageCollection, bytes, terminal_line};
use crate::report::{ExitStatus, Failure};
use crate::settings::Settings;
use crate::when::parse_when;

/// An agent sends a dump's modules before the dump, and for half a day does not upload a module again that
/// it found in the store. A younger module may therefore belong to a dump that is still being uploaded.
const YOUNGEST: SignedDuration = SignedDuration::from_hours(24);

/// Age from which unused modules are deleted, if no other is given.
const MODULES_AGE: &str = "7d";

/// What is to go.
struct Doomed {
    dumps: Vec<(DumpSummary, Expired)>,
    modules: Vec<StoredModule>,
}

pub(super) fn run(settings: &Settings, args: &GcArgs) -> Result<ExitStatus> {
    let now = Timestamp::now();
    let oldest = args
        .older_than
        .as_deref()
        .map(|text| parse_when(text, now))
        .transpose()?;
    let retention = Retention {
        oldest,
        per_fingerprint: args.keep_per_fingerprint,
        total: args.max_total,
    };
    if retention == Retention::default() && args.modules_older_than.is_none() {
        let failure = Failure::new(ExitStatus::Failure, "no retention limit given");
        let hint = "give `--older-than 30d`, `--keep-per-fingerprint 5`, `--max-total 500G`, or \
                    `--modules-older-than 7d` to delete unused modules only";
        return Err(failure.hint(hint).into());
    }
    let modules_before = args.modules_older_than.as_deref().unwrap_or(MODULES_AGE);
    let modules_before = parse_when(modules_before, now)?.min(now - YOUNGEST);
    let store = pipeline::open_store(settings)?;
    let listed = |error| pipeline::store_failure(error, "list");
    let catalog = Catalog::new(store.as_ref());
    let dumps = catalog.find(&Query::default()).map_err(listed)?;
    let stored = dumps.clone();
    let known: BTreeSet<ObjectKey> = dumps.iter().map(|dump| dump.key.clone()).collect();
    // An object that only has the name of a dump is never deleted without being read.
    let (dumps, unsure): (Vec<_>, Vec<_>) = dumps.into_iter().partition(|dump| dump.is_certain());
    if !unsure.is_empty() {
        eprintln!(
            "note: {} zips with another agent's names are not deleted: delete them with `cdh rm`",
            unsure.len()
        );
    }
    let plan = retention.plan(&dumps, now, &mut |some| catalog.manifests(some));
    report_not_counted(&plan.not_counted);
    let expired = plan.expired;
    let gone: BTreeSet<&ObjectKey> = expired.iter().map(|(dump, _)| &dump.key).collect();
    let (stay, all) = (dumps.iter(), dumps.len());
    let stay: Vec<_> = stay
        .filter(|dump| !gone.contains(&dump.key))
        .cloned()
        .collect();
    let modules = StoredModule::list(store.as_ref()).map_err(listed)?;
    let all_modules = modules.len();
    let old = modules.into_iter().filter(|module| {
        module
            .modified
            .is_some_and(|written| written < modules_before)
    });
    let doomed = Doomed {
        modules: unused(&catalog, old.collect(), &stay),
        dumps: expired,
    };
    let listing = doomed.listing();
    let sum = doomed.sum(all, all_modules);
    if let Some(by_limit) = doomed.by_limit(&retention) {
        eprintln!("{by_limit}");
    }
    let result = match args.output.format() {
        TextFormat::Text => listing.clone(),
        TextFormat::Json => doomed.json(args.dry_run)?,
    };
    if doomed.is_empty() || args.dry_run {
        super::print(&result)?;
        eprintln!("{sum} would be deleted");
        return Ok(ExitStatus::Done);
    }
    if !args.yes {
        eprint!("{listing}");
        let question = format!("Delete {sum}?");
        if !prompt::confirm(&question, settings.interactive)? {
            return Ok(ExitStatus::Interrupted);
        }
    }
    // After its old dumps are deleted, a crash must not look new.
    if let Err(error) = catalog.complete_first_seen(&stored, now) {
        eprintln!("note: cannot record when crashes were first seen: {error}");
    }
    let failed = |error| pipeline::store_failure(error, "delete from");
    for (dump, _) in &doomed.dumps {
        cdh_store::remove_dump(store.as_ref(), dump).map_err(failed)?;
    }
    delete_modules(store.as_ref(), doomed.modules, &known).map_err(failed)?;
    super::print(&result)?;
    eprintln!("{sum} deleted");
    Ok(ExitStatus::Done)
}

/// Reports objects whose names look like dumps but that are not dumps.
fn report_not_counted(dumps: &[DumpSummary]) {
    let Some(first) = dumps.first() else {
        return;
    };
    eprintln!(
        "warning: {} dumps were not counted and are not deleted: their times are in the future, or their \
         manifests do not agree with their keys: `{}`{}",
        dumps.len(),
        terminal_line(first.key.as_str()),
        if dumps.len() > 1 { ", …" } else { "" }
    );
}

/// Modules that no dump names; empty if that cannot be determined.
fn unused(
    catalog: &Catalog<'_>,
    modules: Vec<StoredModule>,
    dumps: &[DumpSummary],
) -> Vec<StoredModule> {
    StoredModule::unused(catalog, modules, dumps).unwrap_or_else(|error| {
        eprintln!("note: no modules are deleted, because a dump cannot be read: {error}");
        Vec::new()
    })
}

/// The user may have taken an hour to answer, so dumps that arrived since then are checked too.
fn delete_modules(
    store: &dyn Store,
    modules: Vec<StoredModule>,
    known: &BTreeSet<ObjectKey>,
) -> Result<(), StoreError> {
    if modules.is_empty() {
        return Ok(());
    }
    let catalog = Catalog::new(store);
    let mut new = catalog.find(&Query::default())?;
    new.retain(|dump| !known.contains(&dump.key));
    for module in unused(&catalog, modules, &new) {
        store.delete(&module.key)?;
    }
    Ok(())
}

impl Doomed {
    fn is_empty(&self) -> bool {
        self.dumps.is_empty() && self.modules.is_empty()
    }

    fn listing(&self) -> String {
        let mut listing = String::new();
        let mut add = |line: &str| listing.push_str(&format!("{}\n", terminal_line(line)));
        for (dump, why) in &self.dumps {
            add(&format!(
                "{} {} {} {} {}: {}",
                dump.id,
                dump.captured_at,
                dump.exe,
                dump.signal,
                dump.size.map(bytes).unwrap_or_default(),
                why.describe()
            ));
        }
        for module in &self.modules {
            let size = bytes(module.size);
            let name = module.name();
            add(&format!("module {name} {size}: no dump needs it"));
        }
        listing
    }

    fn json(&self, dry_run: bool) -> Result<String> {
        let dumps = self.dumps.iter();
        let modules = self.modules.iter().map(|module| DeletedModule {
            name: module.name().to_string(),
            size: module.size,
        });
        render::json_text(&GarbageCollection {
            dry_run,
            dumps: dumps
                .map(|(dump, why)| DeletedDump::new(dump, Some(*why)))
                .collect(),
            modules: modules.collect(),
        })
    }

    /// How many dumps each limit deletes, if there are several limits.
    fn by_limit(&self, retention: &Retention) -> Option<String> {
        let limits = [
            (retention.oldest.is_some(), Expired::Age, "--older-than"),
            (
                retention.per_fingerprint.is_some(),
                Expired::Count,
                "--keep-per-fingerprint",
            ),
            (retention.total.is_some(), Expired::Size, "--max-total"),
        ];
        let given = limits.into_iter().filter(|(is_given, ..)| *is_given);
        let counts: Vec<String> = given
            .map(|(_, why, flag)| {
                let count = self.dumps.iter().filter(|(_, found)| *found == why).count();
                format!("{count} by `{flag}`")
            })
            .collect();
        (counts.len() > 1).then(|| {
            format!(
                "a dump is deleted if any limit applies; the first that applies is named: {}",
                counts.join(", ")
            )
        })
    }

    /// `3 of 10 dumps and 2 of 40 modules, 1.2 GiB`.
    fn sum(&self, dumps: usize, modules: usize) -> String {
        let size = |dump: &DumpSummary| dump.size.unwrap_or(0);
        let total: u64 = self.dumps.iter().map(|(dump, _)| size(dump)).sum::<u64>()
            + self.modules.iter().map(|module| module.size).sum::<u64>();
        let beside = match modules {
            0 => String::new(),
            _ => format!(" and {} of {modules} modules", self.modules.len()),
        };
        let count = self.dumps.len();
        format!("{count} of {dumps} dumps{beside}, {}", bytes(total))
    }
}
