//! `cdh import <path>…`: stores cores, journal exports, bundles and IBM's zips, and prints the ids. From a
//! directory, it imports only dumps that the store does not have yet.

use anyhow::Result;
use jiff::Timestamp;

use crate::args::{ImportArgs, TextFormat};
use crate::pipeline::{self, Duplicates, ImportOutcome, Imported, Importer};
use crate::progress::Bar;
use crate::render::{self, ImportedDump, terminal_line};
use crate::report::{ExitStatus, report, status_of};
use crate::settings::Settings;
use crate::when::parse_when;

pub(super) fn run(settings: &Settings, args: &ImportArgs) -> Result<ExitStatus> {
    super::require_reference("--image", args.workload.image.as_deref())?;
    if let Some(image) = &args.workload.image
        && !image.contains('@')
    {
        let shown = terminal_line(image);
        eprintln!(
            "warning: `{shown}` has no digest, so cdh cannot verify that an image pulled later is the one that ran"
        );
        eprintln!(
            "hint: pass `{shown}@sha256:…`, the digest that the registry or the container runtime shows"
        );
    }
    let store = pipeline::open_or_create_store(settings)?;
    let bar = Bar::new(settings.interactive);
    let said = &args.workload;
    let place = pipeline::StatedOrigin {
        namespace: said.namespace.clone(),
        pod: said.pod.clone(),
        container: said.container.clone(),
        node: said.node.clone(),
        time: match &said.time {
            Some(time) => Some(parse_when(time, Timestamp::now())?),
            None => None,
        },
        image: said.image.clone(),
        labels: said.labels.iter().cloned().collect(),
        image_labels: said.image_labels.iter().cloned().collect(),
    };
    let mut importer = Importer::new(settings, store.as_ref(), &place, &bar);
    let mut done = Done {
        output: args.output.format(),
        rows: Vec::new(),
        present: 0,
    };
    let mut status = ExitStatus::Done;
    let mut others = 0;
    for path in &args.cores {
        if !path.is_dir() {
            done.add(importer.import(path, Duplicates::Stored)?)?;
            continue;
        }
        let (files, not_dumps) = pipeline::importable_files(path)?;
        others += not_dumps;
        for file in files {
            match importer.import(&file, Duplicates::Skipped) {
                Ok(imported) => done.add(imported)?,
                // The store failed, or the user interrupted: the next file would fail too.
                Err(error) if status_of(&error) != ExitStatus::Failure => return Err(error),
                Err(error) => {
                    report(&error);
                    status = ExitStatus::Failure;
                }
            }
        }
    }
    if done.output == TextFormat::Json {
        super::print(&render::sorted_json(&done.rows)?)?;
    }
    for (count, what) in [
        (done.present, "already in the store"),
        (others, "not dumps"),
    ] {
        if count > 0 {
            eprintln!("note: skipped {count} ({what})");
        }
    }
    let is_nothing = done.rows.is_empty() && status == ExitStatus::Done;
    if is_nothing {
        eprintln!("no dumps found to import");
        status = ExitStatus::Nothing;
    }
    Ok(status)
}

/// The results so far.
struct Done {
    output: TextFormat,
    rows: Vec<ImportedDump>,
    present: usize,
}

impl Done {
    fn add(&mut self, imported: Vec<Imported>) -> Result<()> {
        for one in imported {
            let id = one.manifest.id;
            let is_new = one.outcome == ImportOutcome::Stored;
            if !is_new {
                self.present += 1;
            } else if self.output == TextFormat::Text {
                super::print(&format!("{id}\n"))?;
            }
            self.rows.push(ImportedDump {
                id,
                verdict: one.manifest.verdict,
                signal: one.manifest.signal,
                file: one.file.display().to_string(),
                outcome: one.outcome,
            });
        }
        Ok(())
    }
}
