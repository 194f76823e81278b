//! Collects the flags and variables of an installation, because a unit that starts at boot has
//! neither.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use cdh_agent::config::{AgentConfig, Effective, Origin};
use cdh_agent::handler::settings::HandlerSettings;
use cdh_agent::supervise::socket::CoreMode;
use cdh_agent::{AgentPaths, PatternOwner};
use cdh_store::StoreUrl;
use serde::Serialize;
use serde_json::Value;

use super::config;
use crate::render::shell_word;
use crate::settings::{Settings, environment};

/// Keys whose values hold secrets: every user can read a unit file.
const SECRET: [&str; 1] = ["notify.webhooks"];

/// Flags and variables that make `cdh agent run` behave like this command.
#[derive(Debug, Default)]
pub(super) struct Given {
    /// Flags with their values.
    pub(super) words: Vec<String>,
    /// Variables that have no flag, or whose value the flag does not accept.
    pub(super) variables: BTreeMap<String, String>,
    /// Variables that are set here and must not be in a unit.
    pub(super) secrets: Vec<String>,
}

impl Given {
    /// Collects the options of this command, and those of the present installation that this
    /// command does not set.
    pub(super) fn of(settings: &Settings, effective: &Effective, handler: Option<&Path>) -> Self {
        let mut given = Self::default();
        let environment = environment();
        let node = &effective.config.node;
        for (key, flag, path) in [
            ("node.state", "--state", &node.state),
            ("node.libexec", "--libexec", &node.libexec),
        ] {
            if matches!(
                effective.origin(key),
                Origin::Flag(_) | Origin::Environment(_)
            ) {
                given.push(flag, absolute(path));
            }
        }
        for (key, value, origin) in effective.given() {
            match origin {
                _ if ["node.manage", "node.state", "node.libexec"].contains(&key) => {}
                Origin::Flag(flag) => given.flag(flag, value),
                Origin::Environment(name) | Origin::Ibm(name) if SECRET.contains(&key) => {
                    given.secrets.push(name.clone());
                }
                Origin::Environment(name) => {
                    let text = environment.get(name).cloned().unwrap_or_default();
                    given.variables.insert(name.clone(), text);
                }
                // These variables only have a meaning together with others.
                Origin::Ibm(_) => {
                    let name = cdh_agent::config::variable(key);
                    given.variables.insert(name, plain(value));
                }
                Origin::Default | Origin::File { .. } => {}
            }
        }
        for (key, flag, value) in of_installation(&effective.config) {
            if !matches!(
                effective.origin(key),
                Origin::Flag(_) | Origin::Environment(_)
            ) {
                given.flag(flag, &value);
            }
        }
        if let Some(path) = handler {
            given.push("--handler", absolute(path));
        }
        let is_given = !settings.store_is_default && settings.store_place().is_none();
        if is_given {
            given.push(
                "--store",
                match &settings.store {
                    StoreUrl::Directory(path) => absolute(path),
                    url => url.to_string(),
                },
            );
        }
        given
    }

    fn push(&mut self, flag: &str, value: String) {
        self.words.extend([flag.to_owned(), value]);
    }

    fn flag(&mut self, flag: &str, value: &Value) {
        match value {
            Value::Bool(true) => self.words.push(flag.to_owned()),
            value => self.push(flag, plain(value)),
        }
    }

    /// The flags as a shell reads them.
    pub(super) fn flags(&self) -> String {
        let words: Vec<String> = self.words.iter().map(shell_word).collect();
        words.join(" ")
    }

    /// The program with the variables before it, as a shell reads them: `CDH_POLICY_DEFAULT=minicore cdh`.
    pub(super) fn program(&self, program: &str) -> String {
        let variables = self.variables.iter();
        let assigned = variables.map(|(name, text)| format!("{name}={} ", shell_word(text)));
        assigned.chain([program.to_owned()]).collect()
    }
}

/// A value in the form that its flag or variable accepts.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(plain).collect::<Vec<_>>().join(","),
        value => value.to_string(),
    }
}

fn absolute(path: &Path) -> String {
    let path = std::path::absolute(path).unwrap_or_else(|_| PathBuf::from(path));
    path.display().to_string()
}

fn name(value: impl Serialize) -> Value {
    serde_json::to_value(value).unwrap_or_default()
}

/// Key, flag and value of the options of the present installation that the configuration does not
/// set.
fn of_installation(config: &AgentConfig) -> Vec<(&'static str, &'static str, Value)> {
    let paths = config::paths(config);
    let Some(node) = installed(&paths) else {
        return Vec::new();
    };
    let (now, problem) = HandlerSettings::read(&paths.handler_settings());
    if problem.is_some() {
        return Vec::new();
    }
    let mut configured = HandlerSettings::default();
    config::apply_to_handler(config, &mut configured);
    let is_socket = node.settings.core_pattern.as_bytes().starts_with(b"@");
    let mode = match is_socket {
        true => CoreMode::Socket,
        false => CoreMode::Pipe,
    };
    let is_other_mode = config.node.mode != mode && config.node.mode != CoreMode::Auto;
    let is_chained = now.chain.is_some() && !config.node.chain;
    let found = [
        (
            now.release != configured.release,
            "capture.release",
            "--release",
            name(now.release),
        ),
        (
            now.strategy != configured.strategy,
            "capture.strategy",
            "--strategy",
            name(now.strategy),
        ),
        (
            now.core_limit != configured.core_limit,
            "limits.core_limit",
            "--core-limit",
            now.core_limit.into(),
        ),
        (
            now.copy_seconds != configured.copy_seconds,
            "limits.copy_time",
            "--copy-limit",
            now.copy_seconds.into(),
        ),
        (
            now.floor != configured.floor,
            "limits.disk_floor",
            "--floor",
            now.floor.into(),
        ),
        (
            now.slots != configured.slots,
            "limits.handlers",
            "--slots",
            now.slots.into(),
        ),
        (
            node.settings.core_pipe_limit != config.node.core_pipe_limit,
            "node.core_pipe_limit",
            "--core-pipe-limit",
            node.settings.core_pipe_limit.into(),
        ),
        (
            node.settings.suid_dumpable != config.node.suid_dumpable,
            "node.suid_dumpable",
            "--suid-dumpable",
            node.settings.suid_dumpable.into(),
        ),
        (is_other_mode, "node.mode", "--mode", name(mode)),
        (is_chained, "node.chain", "--chain", Value::Bool(true)),
    ];
    let differs = found.into_iter().filter(|(differs, ..)| *differs);
    differs
        .map(|(_, key, flag, value)| (key, flag, value))
        .collect()
}

/// The node, with the handler that is installed in these paths.
fn installed(paths: &AgentPaths) -> Option<cdh_agent::Status> {
    let status = cdh_agent::status(paths).ok()?;
    (status.pattern == PatternOwner::Ours).then_some(status)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn given_flags_and_variables_are_what_a_shell_needs() {
        let mut given = Given::default();
        given.flag("--release", &Value::from("early"));
        given.flag("--chain", &Value::Bool(true));
        given.flag("--cri-socket", &serde_json::json!(["/a b", "/c"]));
        given.flag("--core-limit", &Value::from(5));
        assert_eq!(
            given.flags(),
            "--release early --chain --cri-socket '/a b,/c' --core-limit 5"
        );
        let none = Given::default();
        assert_eq!(
            (none.flags(), none.program("cdh")),
            (String::new(), "cdh".to_owned())
        );
        given
            .variables
            .insert("CDH_LOG_LINES".to_owned(), "7 x".to_owned());
        assert_eq!(given.program("cdh"), "CDH_LOG_LINES='7 x' cdh");
    }
}
