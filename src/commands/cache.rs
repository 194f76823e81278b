//! `cdh cache ls|clear`: what was kept of images and debuginfod servers.

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
            entries.sort_by_key(|entry| std::cmp::Reverse(entry.used));
            super::print(&match args.output {
                TextFormat::Text => render::cache_text(&entries, std::time::SystemTime::now()),
                TextFormat::Json => render::cache_json(&entries)?,
            })?;
            Ok(match entries.is_empty() {
                true => ExitStatus::Nothing,
                false => ExitStatus::Done,
            })
        }
        CacheCommand::Clear => {
            let freed = cache.clear().with_context(|| {
                format!("cannot clear `{}`", settings.cache.join("images").display())
            })?;
            super::print(&format!("{} freed\n", render::bytes(freed)))?;
            Ok(ExitStatus::Done)
        }
    }
}
