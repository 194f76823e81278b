//! What `cdh agent status`, `sweep` and `check-config` print as JSON.

use cdh_agent::PatternOwner;
use cdh_agent::shipper::WaitingDump;
use cdh_bundle::DumpId;
#[cfg(feature = "schema")]
use cdh_bundle::schema::Time;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;

/// State of the agent on this node.
#[derive(Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct StatusDocument {
    /// The program that gets the cores of this node.
    pub pattern: PatternOwner,
    /// The kernel's settings.
    pub settings: KernelSettings,
    /// Path of the handler.
    pub handler: String,
    /// The spool.
    pub spool: SpoolState,
    /// Whether an agent or a sweep ships dumps; `null` if this user cannot see that.
    pub shipper_running: Option<bool>,
    /// The stores that were asked about; empty with `--no-store`.
    pub stores: Vec<StoreReport>,
    /// Container runtimes that do not answer the running agent.
    pub runtimes: Vec<RuntimeReport>,
    /// The state directory, if this user cannot look into it: what it holds is unknown then.
    pub hidden: Option<String>,
    /// Files that set the kernel's settings at the next boot.
    pub at_boot: Vec<BootReport>,
    /// What is wrong.
    pub problems: Vec<String>,
    /// The dumps in the spool, oldest first.
    pub dumps: Vec<WaitingReport>,
}

/// The kernel's settings.
#[derive(Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct KernelSettings {
    /// `kernel.core_pattern`.
    pub core_pattern: String,
    /// `kernel.core_pipe_limit`.
    pub core_pipe_limit: u32,
    /// `fs.suid_dumpable`.
    pub suid_dumpable: u32,
}

/// What is in the spool.
#[derive(Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct SpoolState {
    /// Path.
    pub path: String,
    /// Maximum bytes; `null` if there is no limit.
    pub quota: Option<u64>,
    /// What is in it; `null` if this user cannot see that.
    pub count: Option<SpoolCounts>,
}

/// Numbers of dumps in the spool.
#[derive(Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct SpoolCounts {
    /// Dumps that are complete.
    pub sealed: u64,
    /// Dumps that are being written, or that a dead handler left.
    pub partial: u64,
    /// Dumps in quarantine.
    pub quarantined: u64,
    /// Bytes on disk of all of these.
    pub bytes: u64,
}

/// A store.
#[derive(Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct StoreReport {
    /// Location, and the setting that names it; `null` if only root can see which store the agent
    /// uses.
    pub store: Option<String>,
    /// Whether it works.
    pub state: StoreHealth,
    /// Details: how it works, why it fails, or why that is unknown.
    pub detail: String,
    /// What to do about a failure.
    pub hint: Option<String>,
    /// When the running agent retries.
    #[cfg_attr(feature = "schema", schemars(with = "Option<Time>"))]
    pub next_try: Option<Timestamp>,
}

/// Whether a store works.
#[derive(Clone, Copy, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum StoreHealth {
    /// It works.
    Works,
    /// It answers, and refuses.
    Fails,
    /// It cannot be reached.
    Unreachable,
    /// This user cannot see that.
    Unknown,
}

/// A container runtime that does not answer.
#[derive(Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct RuntimeReport {
    /// Its socket; empty if no socket was found.
    pub socket: String,
    /// Since when it does not answer.
    #[cfg_attr(feature = "schema", schemars(with = "Time"))]
    pub since: Timestamp,
    /// The error with its causes.
    pub why: String,
}

/// A setting at the next boot.
#[derive(Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct BootReport {
    /// The file that sets it.
    pub file: String,
    /// Name, such as `kernel.core_pattern`.
    pub name: String,
    /// Value.
    pub value: String,
}

/// A dump in the spool.
#[derive(Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct WaitingReport {
    #[serde(flatten)]
    pub dump: WaitingDump,
    /// Why it is in the spool and what happens next, in words.
    pub explanation: String,
}

/// What a sweep did.
#[derive(Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct SweepDocument {
    /// Whether this command asked a running agent to ship. The lists are empty then.
    pub by_running_agent: bool,
    /// Dumps that are in the store now.
    pub shipped: Vec<DumpId>,
    /// Dumps of dead handlers that were sealed.
    pub salvaged: Vec<DumpId>,
    /// Dumps that were put into quarantine.
    pub quarantined: Vec<DumpId>,
    /// Dumps of setuid programs that remain on the node.
    pub kept: Vec<DumpId>,
    /// Dumps that could not be shipped.
    pub failed: Vec<DumpId>,
    /// Dumps of pods that opted out.
    pub unwanted: Vec<DumpId>,
    /// Dumps that are being written.
    pub in_progress: Vec<DumpId>,
    /// Number of dumps that should have been shipped and were not.
    pub left: u64,
}

/// Result of checking the agent's configuration.
#[derive(Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct CheckedConfig {
    /// The file that was read; `null` if there is none.
    pub file: Option<String>,
    /// Whether the configuration is valid.
    pub valid: bool,
    /// What is wrong.
    pub problems: Vec<ConfigProblem>,
    /// How variables of IBM's core-dump-handler change the configuration, and which have no effect.
    pub notes: Vec<String>,
    /// Variables `CDH_…` that cdh does not know.
    pub unknown_variables: Vec<UnknownVariable>,
    /// The store; `null` if the configuration is not valid.
    pub store: Option<ConfigValue>,
    /// Every key with its effective value; empty if the configuration is not valid.
    pub values: Vec<ConfigValue>,
}

/// A variable whose name begins with `CDH_` and that cdh does not know.
#[derive(Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct UnknownVariable {
    /// Its name.
    pub name: String,
    /// A known variable with a similar name.
    pub similar: Option<String>,
}

/// A mistake in the configuration.
#[derive(Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ConfigProblem {
    /// What is wrong, and where.
    pub text: String,
    /// How to fix it.
    pub hints: Vec<String>,
}

/// A setting.
#[derive(Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ConfigValue {
    /// Key, such as `shipping.interval`.
    pub key: String,
    /// Value as in the file; `null` if it is not set. Secrets are `(hidden)` without `--show-secrets`.
    pub value: Value,
    /// Where the value comes from: `default`, a file with its line, a variable, or a flag.
    pub origin: String,
}
