//! `cdh import <core>…`: puts bare cores, bundles and IBM's zips into the store and prints the ids.

use anyhow::Result;
use serde_json::json;

use crate::args::{ImportArgs, TextFormat};
use crate::pipeline;
use crate::progress::Bar;
use crate::render;
use crate::report::ExitStatus;
use crate::settings::Settings;

pub(super) fn run(settings: &Settings, args: &ImportArgs) -> Result<ExitStatus> {
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
        if args.output == TextFormat::Text {
            super::print(&format!("{}\n", manifest.id))?;
        }
        rows.push(
            json!({"id": manifest.id, "verdict": manifest.verdict, "signal": manifest.signal}),
        );
    }
    if args.output == TextFormat::Json {
        super::print(&render::json_text(&rows)?)?;
    }
    Ok(ExitStatus::Done)
}
