//! `cdh import <core>…`: puts bare cores, bundles and IBM's zips into the store and prints the ids.

use anyhow::Result;

use crate::args::{ImportArgs, TextFormat};
use crate::pipeline;
use crate::progress::Bar;
use crate::render::{self, ImportedDump, terminal_line};
use crate::report::ExitStatus;
use crate::settings::Settings;

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
    let place = pipeline::Place {
        namespace: said.namespace.clone(),
        pod: said.pod.clone(),
        container: said.container.clone(),
        node: said.node.clone(),
        image: said.image.clone(),
        labels: said.labels.iter().cloned().collect(),
        image_labels: said.image_labels.iter().cloned().collect(),
    };
    let mut rows = Vec::new();
    for path in &args.cores {
        let manifest = pipeline::import(settings, store.as_ref(), path, &place, &bar)?;
        if args.output.format() == TextFormat::Text {
            super::print(&format!("{}\n", manifest.id))?;
        }
        rows.push(ImportedDump {
            id: manifest.id,
            verdict: manifest.verdict,
            signal: manifest.signal,
        });
    }
    if args.output.format() == TextFormat::Json {
        super::print(&render::sorted_json(&rows)?)?;
    }
    Ok(ExitStatus::Done)
}
