//! `cdh agent check-config`: checks the agent's configuration and shows each mistake with its place, or prints
//! the effective configuration as a file that the agent can read.

use std::fmt::Write;

use anyhow::Result;
use cdh_agent::config::{Effective, HIDDEN, Secrets, toml_text, unknown_variables};
use serde_json::Value;

use super::config::{Flags, effective};
use super::documents::{CheckedConfig, ConfigProblem, ConfigValue, UnknownVariable};
use crate::args::{CheckConfigArgs, GlobalArgs, TextFormat};
use crate::pipeline;
use crate::render::{self, terminal_line};
use crate::report::{self, ExitStatus, RenderedError};
use crate::settings::{Role, Settings, environment};

pub(super) fn run(mut global: GlobalArgs, args: &CheckConfigArgs) -> Result<ExitStatus> {
    if let Some(file) = &args.file {
        global.config = Some(file.clone());
    }
    let secrets = match args.show_secrets {
        true => Secrets::Shown,
        false => Secrets::Hidden,
    };
    let checked = match Settings::gather(&global, Role::Agent) {
        Ok(settings) => check(&settings, secrets),
        Err(error) if args.output.format() == TextFormat::Json => {
            invalid(None, vec![problem(report::rendered(&error))])
        }
        Err(error) => return Err(error),
    };
    let status = match checked.valid {
        true => ExitStatus::Done,
        false => ExitStatus::Failure,
    };
    if args.output.format() == TextFormat::Json {
        super::super::print(&render::json_text(&checked)?)?;
        return Ok(status);
    }
    for problem in &checked.problems {
        report::print_error(&problem.text, &problem.hints);
    }
    if !checked.valid {
        return Ok(status);
    }
    for note in &checked.notes {
        eprintln!("note: {}", terminal_line(note));
    }
    super::super::print(&match (args.print || args.show_secrets, &checked.file) {
        (true, _) => toml(&checked),
        (false, Some(file)) => format!("ok: {}\n", terminal_line(file)),
        (false, None) => "ok: no file: defaults and environment\n".to_owned(),
    })?;
    Ok(status)
}

fn check(settings: &Settings, secrets: Secrets) -> CheckedConfig {
    let mut problems: Vec<ConfigProblem> = { settings.store_problems.iter() }
        .map(|error| problem(error.clone()))
        .collect();
    if let Err(error) = pipeline::require_known_store(settings) {
        problems.push(problem(report::rendered(&error)));
    }
    let effective = effective(settings, Flags::default());
    for wrong in effective.as_ref().err().into_iter().flatten() {
        problems.push(ConfigProblem {
            text: wrong.to_string(),
            hints: wrong.hint.iter().cloned().collect(),
        });
    }
    let file = settings.file.as_ref();
    let file = file.map(|(path, _)| path.display().to_string());
    match effective {
        Ok(effective) if problems.is_empty() => valid(settings, file, &effective, secrets),
        _ => invalid(file, problems),
    }
}

fn valid(
    settings: &Settings,
    file: Option<String>,
    effective: &Effective,
    secrets: Secrets,
) -> CheckedConfig {
    let values = effective.listing(secrets).into_iter();
    CheckedConfig {
        file,
        valid: true,
        problems: Vec::new(),
        notes: effective.notes.clone(),
        unknown_variables: unknown(),
        store: Some(ConfigValue {
            key: "store".to_owned(),
            value: settings.store.to_string().into(),
            origin: settings.store_origin.clone(),
        }),
        values: values
            .map(|(key, value, origin)| ConfigValue {
                key,
                value,
                origin: origin.to_string(),
            })
            .collect(),
    }
}

fn invalid(file: Option<String>, problems: Vec<ConfigProblem>) -> CheckedConfig {
    CheckedConfig {
        file,
        valid: false,
        problems,
        notes: Vec::new(),
        unknown_variables: unknown(),
        store: None,
        values: Vec::new(),
    }
}

fn unknown() -> Vec<UnknownVariable> {
    let variables = unknown_variables(&environment()).into_iter();
    let variables = variables.map(|variable| UnknownVariable {
        name: variable.name,
        similar: variable.similar,
    });
    variables.collect()
}

fn problem(error: RenderedError) -> ConfigProblem {
    ConfigProblem {
        text: error.lines.join(": "),
        hints: error.hints,
    }
}

/// A file that the agent reads as the same configuration. Comments hold what TOML cannot express: values that
/// are not set, and hidden secrets.
fn toml(checked: &CheckedConfig) -> String {
    let mut text: String = { checked.store.iter() }
        .map(|store| toml_line(store, "store"))
        .collect();
    // TOML allows each table header once, so `limits.rate` must not come between two keys of
    // `limits`.
    let section = |value: &&ConfigValue| match value.key.rsplit_once('.') {
        Some((section, _)) => section.to_owned(),
        None => String::new(),
    };
    let mut values: Vec<_> = checked.values.iter().collect();
    values.sort_by_key(section);
    let mut table = String::new();
    for value in values {
        let (section, name) = value.key.rsplit_once('.').unwrap_or(("", &value.key));
        if section != table {
            let _ = writeln!(text, "\n[{section}]");
            section.clone_into(&mut table);
        }
        text.push_str(&toml_line(value, name));
    }
    text
}

/// A key with its value and its origin.
fn toml_line(setting: &ConfigValue, name: &str) -> String {
    let origin = terminal_line(&setting.origin);
    match toml_text(&setting.value) {
        None => format!("# {name} is not set\n"),
        Some(value) if has_hidden(&setting.value) => {
            format!("# {name} = {value}  # {origin}; `--show-secrets` prints it\n")
        }
        Some(value) => format!("{name} = {value}  # {origin}\n"),
    }
}

/// Whether the value contains a hidden secret.
fn has_hidden(value: &Value) -> bool {
    match value {
        Value::String(text) => text == HIDDEN,
        Value::Array(items) => items.iter().any(has_hidden),
        Value::Object(fields) => fields.values().any(has_hidden),
        _ => false,
    }
}
