//! The outcome of a crash: how much of it is stored, and why not more. Policy, spool, ledger and handler share
//! these words.

use cdh_bundle::Cause;
use serde::{Deserialize, Serialize};

/// How much of a crash is stored; each variant stores less than the one before.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Everything.
    #[default]
    Full,
    /// No core, but stacks and registers.
    Minicore,
    /// Neither; only facts and the raw backtrace.
    Metadata,
    /// No dump; the crash is counted.
    Ignore,
}

impl Action {
    /// The name in the configuration.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Minicore => "minicore",
            Self::Metadata => "metadata",
            Self::Ignore => "ignore",
        }
    }
}

/// Outcome of a crash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// A crash: its dump has the core, as much of it as exists.
    Kept,
    /// A crash: its dump has less than possible; the reason is recorded.
    Reduced,
    /// A crash without a dump.
    Dropped,
    /// Not a crash: a dump waiting in the spool lost its core, or also its minicore.
    Degraded,
    /// Not a crash: a dump was removed from the spool before it was uploaded.
    Removed,
    /// An outcome that only a newer handler knows.
    #[serde(other)]
    Unknown,
}

/// Why less was stored than existed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum DropReason {
    /// A rule of the node's policy, or its default.
    Policy,
    /// An annotation of the pod.
    Pod,
    /// The pod is not known.
    UnknownPod,
    /// The program gained privileges.
    Setuid,
    /// Enough crashes with the same fingerprint.
    RateFingerprint,
    /// Enough crashes of the same workload.
    RateWorkload,
    /// The spool's quota.
    Quota,
    /// The disk is full, or at its floor.
    NoSpace,
    /// The size limit for one core.
    Limit,
    /// The time limit for one core.
    Deadline,
    /// The spool cannot be written: read-only, missing, or not private.
    Spool,
    /// The handler died or failed.
    Handler,
    /// A reason that only a newer handler knows.
    #[serde(other)]
    Unknown,
}

impl Outcome {
    /// The name in records and metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Kept => "kept",
            Self::Reduced => "reduced",
            Self::Dropped => "dropped",
            Self::Degraded => "degraded",
            Self::Removed => "removed",
            Self::Unknown => "unknown",
        }
    }

    /// Whether this counts a crash; the other outcomes describe later changes to a dump.
    #[must_use]
    pub fn is_crash(self) -> bool {
        matches!(self, Self::Kept | Self::Reduced | Self::Dropped)
    }
}

impl DropReason {
    /// The name in records and metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Policy => "policy",
            Self::Pod => "pod",
            Self::UnknownPod => "unknown_pod",
            Self::Setuid => "setuid",
            Self::RateFingerprint => "rate_fingerprint",
            Self::RateWorkload => "rate_workload",
            Self::Quota => "quota",
            Self::NoSpace => "no_space",
            Self::Limit => "limit",
            Self::Deadline => "deadline",
            Self::Spool => "spool",
            Self::Handler => "handler",
            Self::Unknown => "unknown",
        }
    }

    /// The reason for a truncated core, if the node itself caused it.
    #[must_use]
    pub fn of_cause(cause: Cause) -> Option<Self> {
        Some(match cause {
            Cause::NoSpace => Self::NoSpace,
            Cause::Limit => Self::Limit,
            Cause::Deadline => Self::Deadline,
            Cause::Policy => Self::Policy,
            Cause::RateLimit => Self::RateFingerprint,
            Cause::Quota => Self::Quota,
            Cause::HandlerDied => Self::Handler,
            _ => return None,
        })
    }
}
