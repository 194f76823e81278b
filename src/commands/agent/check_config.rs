//! `cdh agent check-config`: says what is wrong with the agent's configuration and where, or what it
//! comes to.

use std::fmt::Write;

use anyhow::Result;
use cdh_agent::config::Origin;

use super::config::{Flags, effective};
use crate::args::{CheckConfigArgs, GlobalArgs};
use crate::pipeline;
use crate::render::terminal_line;
use crate::report::{self, ExitStatus};
use crate::settings::{Role, Settings};

pub(super) fn run(mut global: GlobalArgs, args: &CheckConfigArgs) -> Result<ExitStatus> {
    if let Some(file) = &args.file {
        global.config = Some(file.clone());
    }
    let settings = Settings::gather(&global, Role::Agent)?;
    let mut is_valid = true;
    let mut refuse = |lines: &[String], hints: &[String]| {
        is_valid = false;
        eprintln!("error: {}", terminal_line(&lines.join(": ")));
        for hint in hints {
            eprintln!("hint: {}", terminal_line(hint));
        }
    };
    for told in &settings.store_problems {
        refuse(&told.lines, &told.hints);
    }
    if let Err(error) = pipeline::require_known_store(&settings) {
        let told = report::tell(&error);
        refuse(&told.lines, &told.hints);
    }
    let effective = effective(&settings, Flags::default());
    for problem in effective.as_ref().err().into_iter().flatten() {
        let hint: Vec<String> = problem.hint.iter().cloned().collect();
        refuse(&[problem.to_string()], &hint);
    }
    let Some(effective) = effective.ok().filter(|_| is_valid) else {
        return Ok(ExitStatus::Failure);
    };
    for note in &effective.notes {
        eprintln!("note: {}", terminal_line(note));
    }
    let mut text = String::new();
    if args.print {
        let store = serde_json::Value::from(settings.store.to_string());
        let _ = writeln!(text, "store = {store}  # {}", settings.store_origin);
        let mut table = String::new();
        let mut listing = effective.listing();
        // TOML takes each table once: `limits.rate` must not come between two keys of `limits`.
        let section = |key: &str| key.rsplit_once('.').map(|(section, _)| section.to_owned());
        listing.sort_by_key(|(key, ..)| section(key));
        for (key, value, origin) in listing {
            let (section, name) = key.rsplit_once('.').unwrap_or(("", &key));
            if section != table {
                let _ = writeln!(text, "\n[{section}]");
                section.clone_into(&mut table);
            }
            let _ = match (value, origin) {
                (None, _) => writeln!(text, "# {name} is not set"),
                (Some(value), Origin::Default) => writeln!(text, "{name} = {value}"),
                (Some(value), origin) => writeln!(text, "{name} = {value}  # {origin}"),
            };
        }
    } else {
        let from = match &settings.file {
            Some((path, _)) => path.display().to_string(),
            None => "no file: defaults and environment".to_owned(),
        };
        let _ = writeln!(text, "ok: {from}");
    }
    super::super::print(&text)?;
    Ok(ExitStatus::Done)
}
