//! `cdh cache ls|clear`: unpacked dumps, and what was cached of images, stores and debuginfod servers.

use anyhow::Result;

use crate::args::{CacheArgs, CacheCommand, TextFormat};
use crate::pipeline;
use crate::render::{self, CacheLimits};
use crate::report::ExitStatus;
use crate::settings::Settings;

pub(super) fn run(settings: &Settings, args: &CacheArgs) -> Result<ExitStatus> {
    match &args.command {
        CacheCommand::Ls(args) => {
            let entries = pipeline::cache_entries(settings)?;
            let limits = CacheLimits {
                case_age: settings.case_age,
                case_bytes: settings.case_bytes,
                case_count: settings.case_count,
                image_bytes: settings.images.cache_limit,
            };
            super::print(&match args.output.format() {
                TextFormat::Text => {
                    render::cache_text(&entries, &limits, std::time::SystemTime::now())
                }
                TextFormat::Json => render::cache_json(&entries)?,
            })?;
            Ok(match entries.is_empty() {
                true => ExitStatus::Nothing,
                false => ExitStatus::Done,
            })
        }
        CacheCommand::Clear(args) => {
            let cleared = pipeline::clear_cache(settings, args.cases)?;
            let freed_bytes = cleared.bytes;
            super::print(&match args.output.format() {
                TextFormat::Text => format!("{} freed\n", render::bytes(freed_bytes)),
                TextFormat::Json => render::json_text(&render::Freed { freed_bytes })?,
            })?;
            if cleared.in_use > 0 {
                eprintln!("note: {} in use and not deleted", cleared.in_use);
            }
            Ok(ExitStatus::Done)
        }
    }
}
