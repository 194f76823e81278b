//! The sections of the configuration other than the policy: their keys and defaults.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::handler::startup::settings::{Release, Strategy};
use crate::install::{DEFAULT_CORE_PIPE_LIMIT, DEFAULT_SUID_DUMPABLE};
use crate::notify::WebhookConfig;
use crate::policy::{Seconds, Size};
use crate::supervise::socket::CoreMode;

/// The table `[node]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NodeConfig {
    /// Directory of the spool, the backup of the node's settings and the ledger.
    pub state: PathBuf,
    /// Directory where the handler is installed.
    pub libexec: PathBuf,
    /// Whether `cdh agent run` installs the handler at its start. Only `cdh agent uninstall`
    /// removes it.
    pub manage: bool,
    /// `kernel.core_pipe_limit`.
    pub core_pipe_limit: u32,
    /// `fs.suid_dumpable`.
    pub suid_dumpable: u32,
    /// How the kernel passes cores to cdh.
    pub mode: CoreMode,
    /// Whether cores are also passed to the previous owner of the core pattern.
    pub chain: bool,
}

impl Default for NodeConfig {
    fn default() -> Self {
        Self {
            state: "/var/lib/cdh".into(),
            libexec: "/usr/local/lib/cdh".into(),
            manage: false,
            core_pipe_limit: DEFAULT_CORE_PIPE_LIMIT,
            suid_dumpable: DEFAULT_SUID_DUMPABLE,
            mode: CoreMode::default(),
            chain: false,
        }
    }
}

/// The table `[capture]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CaptureConfig {
    /// When the crashed process is released.
    pub release: Release,
    /// How cores are written to the spool.
    pub strategy: Strategy,
}

/// The table `[collect]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CollectConfig {
    /// Whether the agent collects cores that the kernel writes into files, and leaves `core_pattern` as it is.
    pub files: bool,
}

/// When to ship dumps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ShippingMode {
    /// As soon as a capture is finished.
    Events,
    /// Every `interval`.
    Interval,
    /// At the times of `schedule`.
    Schedule,
    /// Never by itself.
    Off,
}

/// The table `[shipping]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ShippingConfig {
    /// When to ship; if not set, as `interval` or `schedule` imply, otherwise `events`.
    pub mode: Option<ShippingMode>,
    /// Time between two shipments.
    pub interval: Option<Seconds>,
    /// A cron expression, in UTC.
    pub schedule: Option<String>,
    /// Maximum bytes per second of all uploads together; 0 means no limit.
    pub bandwidth: Size,
    /// Uploads at once.
    pub parallel: usize,
    /// Whether to store the ELF files that crashed processes mapped.
    pub keep_modules: bool,
}

impl Default for ShippingConfig {
    fn default() -> Self {
        Self {
            mode: None,
            interval: None,
            schedule: None,
            bandwidth: Size(0),
            parallel: 2,
            keep_modules: false,
        }
    }
}

/// Which pods are dumped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Pods {
    /// All pods that do not opt out.
    #[default]
    #[serde(rename = "opt-out")]
    OptOut,
    /// Those that opt in.
    #[serde(rename = "opt-in")]
    OptIn,
}

/// The table `[workloads]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WorkloadsConfig {
    /// Sockets of container runtimes; empty means sockets that are found.
    pub sockets: Vec<PathBuf>,
    /// Name of this node in Kubernetes.
    pub node: Option<String>,
    /// Number of last log lines to store of each container.
    pub log_lines: usize,
    /// Which pods are dumped.
    pub pods: Pods,
    /// With `opt-in`: pods with this label are dumped too.
    pub opt_in_label: Option<String>,
}

impl Default for WorkloadsConfig {
    fn default() -> Self {
        Self {
            sockets: Vec::new(),
            node: None,
            log_lines: 500,
            pods: Pods::default(),
            opt_in_label: None,
        }
    }
}

/// The table `[metrics]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MetricsConfig {
    /// Address and port for `/metrics`, `/healthz` and `/readyz`: `127.0.0.1:9464`.
    pub listen: Option<String>,
    /// A file for the node exporter's textfile collector, whose name ends in `.prom`.
    pub textfile: Option<PathBuf>,
}

/// The table `[notify]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NotifyConfig {
    /// Receivers of each crash that is new on this node.
    pub webhooks: Vec<WebhookConfig>,
    /// Whether a new crash becomes an Event on its pod.
    pub kubernetes_events: bool,
}

/// Format of the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// A line for people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// The table `[log]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogConfig {
    /// How it is written.
    pub format: LogFormat,
}
