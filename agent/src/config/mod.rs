//! The agent's configuration: one TOML file, environment variables of the same names, flags.
//!
//! ```toml
//! store = "s3://dumps/prod?region=eu-central-1"
//!
//! [shipping]
//! mode = "events"        # events, interval, schedule or off
//! bandwidth = "20M"      # bytes a second; 0 means no limit
//! parallel = 2
//!
//! [metrics]
//! listen = "127.0.0.1:9464"
//!
//! [[notify.webhooks]]
//! url_file = "/etc/cdh/slack-url"
//! format = "slack"       # slack, json or cloudevents
//! ```
//!
//! Precedence, lowest to highest: defaults, file, IBM's variables, our own variables, flags. Each key
//! `section.key` has the variable `CDH_SECTION_KEY`. [`Layers`] combines them and records the origin
//! of each value. Nothing here opens a store or changes the node.

mod check;
mod environment;
mod ibm;
mod layers;
mod sections;

use serde::{Deserialize, Serialize};

pub use environment::{UnknownVariable, unknown_variables, variable};
pub use ibm::{IbmStore, ibm_store};
pub use layers::{Effective, HIDDEN, Layers, Origin, Problem, Secrets, toml_text};
pub use sections::{
    CaptureConfig, CollectConfig, LogConfig, LogFormat, MetricsConfig, NodeConfig, NotifyConfig,
    Pods, ShippingConfig, ShippingMode, WorkloadsConfig,
};

pub use crate::notify::{Secret, WebhookConfig, WebhookFormat};
use crate::policy::{LimitsConfig, PolicyConfig};
pub use crate::shipper::ShippingPlan;

/// The agent's configuration.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AgentConfig {
    /// The agent's directories, and the kernel's settings.
    pub node: NodeConfig,
    /// How cores are captured.
    pub capture: CaptureConfig,
    /// Nodes whose `core_pattern` cannot be a pipe.
    pub collect: CollectConfig,
    /// Which crashes become dumps.
    pub policy: PolicyConfig,
    /// Resource limits of captures.
    pub limits: LimitsConfig,
    /// When and how dumps go to the store.
    pub shipping: ShippingConfig,
    /// How dumps are attributed to pods.
    pub workloads: WorkloadsConfig,
    /// Numbers for Prometheus.
    pub metrics: MetricsConfig,
    /// Who is notified of a new crash.
    pub notify: NotifyConfig,
    /// The agent's own log.
    pub log: LogConfig,
}

impl AgentConfig {
    /// Whether the agent sets the kernel's settings when it runs. It does not if it only collects
    /// files.
    #[must_use]
    pub fn manages_node(&self) -> bool {
        self.node.manage && !self.collect.files
    }
}

impl ShippingConfig {
    /// Checks combinations of keys.
    ///
    /// # Errors
    /// A sentence that names the contradiction.
    pub fn plan(&self) -> Result<ShippingPlan, String> {
        let schedule = self
            .schedule
            .as_deref()
            .filter(|text| !text.trim().is_empty());
        if self.interval.is_some() && schedule.is_some() {
            let why = "`shipping.interval` and `shipping.schedule` are both set, but only one of them can apply";
            return Err(why.to_owned());
        }
        let mode = match (self.mode, self.interval, schedule) {
            (Some(mode), ..) => mode,
            (None, Some(_), _) => ShippingMode::Interval,
            (None, _, Some(_)) => ShippingMode::Schedule,
            (None, None, None) => ShippingMode::Events,
        };
        match mode {
            ShippingMode::Events => Ok(ShippingPlan::Events),
            ShippingMode::Off => Ok(ShippingPlan::Off),
            ShippingMode::Interval => match self.interval {
                Some(every) if every.0 > 0 => Ok(ShippingPlan::Interval(every.duration())),
                Some(_) => Err("`shipping.interval` is 0: give a time such as `10m`".to_owned()),
                None => Err(
                    "`shipping.mode` is `interval`, and `shipping.interval` is not set".to_owned(),
                ),
            },
            ShippingMode::Schedule => match schedule {
                Some(text) => match text.parse() {
                    Ok(schedule) => Ok(ShippingPlan::Schedule(Box::new(schedule))),
                    Err(error) => Err(format!("`shipping.schedule` is `{text}`: {error}")),
                },
                None => Err(
                    "`shipping.mode` is `schedule`, and `shipping.schedule` is not set".to_owned(),
                ),
            },
        }
    }
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
