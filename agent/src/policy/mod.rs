//! Policy: which crashes become dumps, how much of them is stored, and resource limits on the node.
//!
//! An operator configures the tables `[policy]` and `[limits]` ([`PolicyConfig`],
//! [`LimitsConfig`]). The handler reads them from its settings and decides before it copies the
//! core. Invariant: what is not stored is recorded with its reason.

mod account;
mod config;
mod decision;
mod glob;
mod limits;
pub(crate) mod pod_settings;
mod rates;
mod size;

pub use crate::outcome::Action;
pub(crate) use account::Account;
pub use config::{ConfigError, OneOrMore, PolicyConfig, Rule, SetuidPolicy, signal_number};
pub(crate) use decision::{Crash, Decision, Pod, matches_name};
pub use limits::{LimitsConfig, RateConfig};
pub use pod_settings::{PodSettings, Profile, Selection};
pub(crate) use rates::{Rates, Subject};
pub use size::{QuantityError, Seconds, Size};
