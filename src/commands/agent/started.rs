//! The messages that `cdh agent run` logs at its start: version, how cores are captured, store, spool,
//! policy, and the effect of a SIGTERM.

use cdh_agent::config::AgentConfig;
use cdh_agent::handler::settings::{HandlerSettings, Release};
use cdh_agent::policy::{Action, LimitsConfig, PolicyConfig, SetuidPolicy};
use cdh_agent::spool::{count, quota_of};
use cdh_agent::{AgentPaths, PatternOwner, ShippingPlan};
use serde_json::{Value, json};

use super::log::{Level, Log};
use crate::render::bytes;
use crate::settings::Settings;

/// The complete state, as lines for people and one object for machines.
pub(super) struct Started {
    lines: Vec<(Level, String)>,
    fields: Value,
}

impl Started {
    /// Reads the state of the node after an installation.
    pub(super) fn of(settings: &Settings, config: &AgentConfig, paths: &AgentPaths) -> Self {
        let (handler, problem) = HandlerSettings::read(&paths.handler_settings());
        let node = cdh_agent::status(paths).ok();
        let is_ours = node
            .as_ref()
            .is_some_and(|node| node.pattern == PatternOwner::Ours);
        // The installed handler captures cores, whatever options this process has.
        let is_installed = is_ours && problem.is_none() && !paths.collects_files;
        let (policy, limits) = match is_installed {
            true => (&handler.policy, &handler.limits),
            false => (&config.policy, &config.limits),
        };
        let release = match is_installed {
            true => handler.release,
            false => config.capture.release,
        };
        let release = match release {
            Release::Hold => "hold",
            Release::Early => "early",
            Release::Auto => "auto",
        };
        let pattern = node.map(|node| node.settings.core_pattern.to_string());
        let pattern = pattern.unwrap_or_else(|| "unknown".to_owned());
        let mode = match is_ours {
            true if paths.collects_files => "files",
            true if pattern.starts_with('@') => "socket",
            true => "pipe",
            false => "not installed",
        };
        let capture = match is_ours {
            true if paths.collects_files => (
                Level::Info,
                format!("capture: mode files, from {pattern} in each container"),
            ),
            true => (
                Level::Info,
                format!("capture: mode {mode}, release {release}"),
            ),
            false => (
                Level::Warning,
                format!(
                    "capture: not installed here (core_pattern is {pattern}): run `cdh agent install`, or start \
                     this with `--manage-node`; dumps already in the spool are shipped"
                ),
            ),
        };
        let plan = config.shipping.plan().unwrap_or_default();
        let store = settings.store.to_string();
        let shipping = match &plan {
            ShippingPlan::Events => "ships each dump as soon as it is captured".to_owned(),
            ShippingPlan::Interval(every) => format!("ships every {} s", every.as_secs()),
            ShippingPlan::Schedule(_) => format!(
                "ships at `{}` (UTC)",
                config.shipping.schedule.as_deref().unwrap_or_default()
            ),
            ShippingPlan::Off => "ships only what `cdh agent sweep` asks for".to_owned(),
        };
        let store_line = format!("store: {store} ({}); {shipping}", settings.store_origin);
        let (spool_line, used, quota) = spool(paths, limits);
        let (policy_line, policy) = policy_words(policy, config.policy.setuid);
        let at_end = "on SIGTERM: stops uploads (the next start resumes them); an installed handler keeps \
                      capturing into the spool until `cdh agent uninstall`";
        let version = env!("CARGO_PKG_VERSION");
        let pid = std::process::id();
        let lines = vec![
            (
                Level::Info,
                format!("cdh {version} agent started, pid {pid}"),
            ),
            capture,
            (Level::Info, store_line),
            (Level::Info, spool_line),
            (Level::Info, policy_line),
            (Level::Info, at_end.to_owned()),
        ];
        let fields = json!({
            "version": version, "pid": pid, "mode": mode, "release": release, "core_pattern": pattern,
            "store": store, "store_origin": settings.store_origin, "shipping": plan.word(),
            "spool": paths.spool, "spool_bytes": used, "spool_quota_bytes": quota,
            "policy": policy, "on_sigterm": "stay_installed",
        });
        Self { lines, fields }
    }

    /// Writes the state: several lines of text, or one object.
    pub(super) fn log(&self, log: Log) {
        if log.is_json() {
            let text: Vec<&str> = self.lines.iter().map(|(_, text)| text.as_str()).collect();
            let level = self.lines.iter().map(|(level, _)| *level).max();
            let level = level.unwrap_or(Level::Info);
            return log.line(level, "started", &text.join("; "), self.fields.clone());
        }
        for (level, text) in &self.lines {
            log.line(*level, "started", text, Value::Null);
        }
    }
}

fn spool(paths: &AgentPaths, limits: &LimitsConfig) -> (String, Option<u64>, Option<u64>) {
    let count = count(&paths.spool).ok();
    // The spool does not exist before the first start; it will be on the disk of the directory
    // above.
    let existing = paths.spool.ancestors().find(|path| path.exists());
    let quota = existing.and_then(|path| quota_of(path, limits).ok().flatten());
    let quota_text = quota.map_or_else(
        || "no quota".to_owned(),
        |quota| format!("quota {}", bytes(quota)),
    );
    let used = count.map(|count| count.bytes);
    let holds = match count {
        Some(count) if count.sealed + count.partial + count.quarantined > 0 => format!(
            ", {} ({}), {} in quarantine",
            super::dumps(count.sealed + count.partial),
            bytes(count.bytes),
            count.quarantined
        ),
        _ => ", empty".to_owned(),
    };
    let shown = paths.spool.display();
    (format!("spool: {shown}, {quota_text}{holds}"), used, quota)
}

fn policy_words(policy: &PolicyConfig, setuid: SetuidPolicy) -> (String, Value) {
    let default = match policy.default {
        Action::Full => "full",
        Action::Minicore => "minicore",
        Action::Metadata => "metadata",
        Action::Ignore => "ignore",
    };
    let setuid_word = match setuid {
        SetuidPolicy::Keep => "keep",
        SetuidPolicy::Ship => "ship",
        SetuidPolicy::Ignore => "ignore",
    };
    let setuid_text = match setuid {
        SetuidPolicy::Keep => "dumps of setuid programs stay on this node",
        SetuidPolicy::Ship => "dumps of setuid programs are shipped",
        SetuidPolicy::Ignore => "setuid programs are not dumped",
    };
    let rules = policy.rules.len();
    let rules_text = match rules {
        0 => "no rules".to_owned(),
        1 => "1 rule".to_owned(),
        rules => format!("{rules} rules"),
    };
    (
        format!("policy: default {default}, {rules_text}; {setuid_text}"),
        json!({"default": default, "rules": rules, "setuid": setuid_word}),
    )
}
