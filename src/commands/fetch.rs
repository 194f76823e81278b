//! `cdh fetch <dump>…`: unpacks dumps into case directories and prints where they are.

use anyhow::Result;
use serde_json::json;

use crate::args::{FetchArgs, TextFormat};
use crate::pipeline;
use crate::progress::Bar;
use crate::render::terminal_line;
use crate::report::ExitStatus;
use crate::settings::Settings;

pub(super) fn run(settings: &Settings, args: &FetchArgs) -> Result<ExitStatus> {
    let bar = Bar::new(settings.interactive);
    // All references are resolved before the first download: `latest` must not move meanwhile.
    let dumps = args
        .dumps
        .iter()
        .map(|reference| pipeline::open_dump(settings, reference))
        .collect::<Result<Vec<_>>>()?;
    let mut cases = Vec::new();
    for dump in &dumps {
        let directory = match &args.directory {
            Some(directory) if dumps.len() > 1 => {
                Some(directory.join(dump.manifest.id.to_string()))
            }
            other => other.clone(),
        };
        let case = pipeline::fetch(settings, dump, directory.as_deref(), &bar)?;
        if args.output == TextFormat::Text {
            super::print(&format!(
                "{}\n",
                terminal_line(&case.path.display().to_string())
            ))?;
        }
        cases.push(case);
    }
    if args.output == TextFormat::Json {
        let rows: Vec<_> = cases
            .iter()
            .map(|case| {
                json!({
                    "id": case.manifest.id,
                    "directory": case.path.display().to_string(),
                    "core": pipeline::Case::core_path(&case.path).map(|path| path.display().to_string()),
                    "verdict": case.manifest.verdict,
                })
            })
            .collect();
        super::print(&(serde_json::to_string_pretty(&rows)? + "\n"))?;
    }
    Ok(ExitStatus::Done)
}
