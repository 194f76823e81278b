//! `cdh groups`: the same crash as one line, the most frequent first. Reads object names only, unless
//! `--images` asks for what only manifests hold.

use std::collections::HashMap;

use anyhow::Result;
use cdh_store::{DumpSummary, Query};
use jiff::Timestamp;

use crate::args::{GroupsArgs, TextFormat};
use crate::pipeline;
use crate::render::{self, DumpFacts, Group};
use crate::report::ExitStatus;
use crate::settings::Settings;
use crate::when::parse_when;

pub(super) fn run(settings: &Settings, args: &GroupsArgs) -> Result<ExitStatus> {
    let now = Timestamp::now();
    let when = |text: &Option<String>| {
        text.as_deref()
            .map(|text| parse_when(text, now))
            .transpose()
    };
    let query = Query {
        namespace: args.namespace.clone(),
        exe: args.exe.clone(),
        since: when(&args.since)?,
        until: when(&args.until)?,
        ..Query::default()
    };
    let is_filtered = [&args.namespace, &args.exe, &args.since, &args.until]
        .iter()
        .any(|term| term.is_some());
    let store = pipeline::open_store(settings)?;
    let catalog = pipeline::catalog(settings, store.as_ref());
    let dumps = catalog
        .find(&query)
        .map_err(|error| pipeline::store_failure(error, "list"))?;
    // A manifest that cannot be read only leaves its image out.
    let mut images = HashMap::new();
    if args.images {
        for (dump, manifest) in dumps.iter().zip(catalog.manifests(&dumps)) {
            let image = manifest.ok().and_then(|manifest| manifest.image);
            images.extend(image.map(|image| (dump.id, image)));
        }
    }
    let facts = |dump: &DumpSummary| DumpFacts {
        image: images.get(&dump.id),
        ..DumpFacts::default()
    };
    let mut groups = Group::of(dumps.iter(), facts);
    groups.truncate(args.limit.unwrap_or(usize::MAX));
    match args.output {
        TextFormat::Json => super::print(&render::groups_json(&groups)?)?,
        TextFormat::Text if groups.is_empty() => {
            super::report_nothing(settings, store.as_ref(), is_filtered);
        }
        TextFormat::Text => super::print(&render::groups_text(&groups, now, settings.style))?,
    }
    Ok(if groups.is_empty() {
        ExitStatus::Nothing
    } else {
        ExitStatus::Done
    })
}
