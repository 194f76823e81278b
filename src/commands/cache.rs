//! `cdh cache ls|clear`: unpacked dumps, and what was cached of images and debuginfod servers.

use anyhow::{Context, Result};

use crate::args::{CacheArgs, CacheCommand, TextFormat};
use crate::pipeline;
use crate::render;
use crate::report::ExitStatus;
use crate::settings::Settings;

pub(super) fn run(settings: &Settings, args: &CacheArgs) -> Result<ExitStatus> {
    let cache = pipeline::image_cache(settings);
    match &args.command {
        CacheCommand::Ls(args) => {
            let mut entries = cache.entries();
            entries.extend(pipeline::cached_cases(settings));
            entries.sort_by_key(|entry| std::cmp::Reverse(entry.used));
            super::print(&match args.output.format() {
                TextFormat::Text => render::cache_text(&entries, std::time::SystemTime::now()),
                TextFormat::Json => render::cache_json(&entries)?,
            })?;
            Ok(match entries.is_empty() {
                true => ExitStatus::Nothing,
                false => ExitStatus::Done,
            })
        }
        CacheCommand::Clear(args) => {
            let shown = |name: &str| settings.cache.join(name).display().to_string();
            let mut freed = pipeline::clear_cases(settings)
                .with_context(|| format!("cannot clear `{}`", shown("cases")))?;
            if !args.cases {
                let cleared = cache.clear();
                freed += cleared.with_context(|| format!("cannot clear `{}`", shown("images")))?;
            }
            super::print(&match args.output.format() {
                TextFormat::Text => format!("{} freed\n", render::bytes(freed)),
                TextFormat::Json => render::json_text(&render::Freed { freed_bytes: freed })?,
            })?;
            Ok(ExitStatus::Done)
        }
    }
}
