//! Resource limits of captures on a node: the table `[limits]` of the configuration.
//!
//! ```toml
//! [limits]
//! spool_quota = "20G"
//! spool_quota_percent = 25         # of the spool's file system; the lower value applies
//! disk_floor = "1G"
//! disk_floor_percent = 5           # the higher value applies
//! core_limit = "8G"
//! handlers = 4
//!
//! [limits.rate]
//! window = "10m"
//! fingerprint_full = 1             # then minicores
//! fingerprint_dumps = 20           # then only counted
//! workload_full = 10
//! workload_dumps = 100
//! ```
//!
//! Everything has a default, unknown names are refused, and [`LimitsConfig::validate`] reports
//! invalid values. Nothing here opens a file.

use serde::{Deserialize, Serialize};

use super::config::{ConfigError, wrong};
use super::size::{Seconds, Size};

/// Number of dumps that each owner (pod, otherwise container, otherwise user) gets in a time
/// window. 0 means no limit. All pods of one controller, and all programs of one user, together get
/// four times the budget of one workload. The first crash of an owner in a window stores its core
/// even then.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RateConfig {
    /// Length of a window. It starts with the first crash in it.
    pub window: Seconds,
    /// Dumps with a core per fingerprint and owner; further ones get a minicore.
    pub fingerprint_full: u32,
    /// Dumps per fingerprint and owner; further crashes are only counted.
    pub fingerprint_dumps: u32,
    /// Dumps with a core per workload (pod, container, or program of a user on the host).
    pub workload_full: u32,
    /// Dumps per workload.
    pub workload_dumps: u32,
}

impl Default for RateConfig {
    fn default() -> Self {
        Self {
            window: Seconds(600),
            fingerprint_full: 10,
            fingerprint_dumps: 100,
            workload_full: 30,
            workload_dumps: 300,
        }
    }
}

impl RateConfig {
    /// No limits.
    #[must_use]
    pub fn unlimited() -> Self {
        Self {
            fingerprint_full: 0,
            fingerprint_dumps: 0,
            workload_full: 0,
            workload_dumps: 0,
            ..Self::default()
        }
    }

    /// Whether anything is limited.
    #[must_use]
    pub fn limits_anything(&self) -> bool {
        let counts = [
            self.fingerprint_full,
            self.fingerprint_dumps,
            self.workload_full,
            self.workload_dumps,
        ];
        counts.iter().any(|count| *count > 0)
    }
}

/// The table `[limits]`: resource limits of captures.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LimitsConfig {
    /// Maximum bytes of the spool; 0 means no limit. When it is reached, the owner that uses the most
    /// gives up its oldest cores first, then its minicores, then its dumps. Dumps of setuid programs
    /// have a quarter of it to themselves and are not given up for others.
    pub spool_quota: Size,
    /// The same as a percentage of the spool's file system; 0 means no limit. The lower value
    /// applies.
    pub spool_quota_percent: u8,
    /// Bytes of the spool's file system that stay free. Default: 256 MiB, maximum a twentieth of
    /// the file system.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk_floor: Option<Size>,
    /// The same as a percentage of the file system. The higher value applies.
    pub disk_floor_percent: u8,
    /// Maximum bytes of one stored core; 0 means no limit.
    pub core_limit: Size,
    /// Number of handlers that copy in parallel. The others wait with the memory pinned. 0 means
    /// two more than the number of processors.
    pub handlers: usize,
    /// How long a handler waits for its turn before it continues without one.
    pub handler_wait: Seconds,
    /// Time limit for a core; the rest is not copied. 0 means no limit.
    pub copy_time: Seconds,
    /// Maximum bytes of one minicore.
    pub minicore_limit: Size,
    /// The cgroup v2 that handlers join, relative to the cgroup file system's root: `cdh.slice`. If
    /// it does not exist, they remain where the kernel starts them, and report that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<String>,
    /// Limits for dumps of the same crash and of the same workload.
    pub rate: RateConfig,
}

impl Default for LimitsConfig {
    fn default() -> Self {
        Self {
            spool_quota: Size(0),
            spool_quota_percent: 50,
            disk_floor: None,
            disk_floor_percent: 0,
            core_limit: Size(0),
            handlers: 0,
            handler_wait: Seconds(600),
            copy_time: Seconds(3600),
            minicore_limit: Size(16 << 20),
            cgroup: None,
            rate: RateConfig::default(),
        }
    }
}

impl LimitsConfig {
    /// Only the floor of free disk space, for a handler without settings.
    #[must_use]
    pub fn unlimited() -> Self {
        Self {
            spool_quota_percent: 0,
            rate: RateConfig::unlimited(),
            ..Self::default()
        }
    }
}

impl LimitsConfig {
    /// Checks the values.
    ///
    /// # Errors
    /// The first invalid value.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let percents = [
            ("spool_quota_percent", self.spool_quota_percent),
            ("disk_floor_percent", self.disk_floor_percent),
        ];
        for (field, percent) in percents {
            if percent > 100 {
                let expected = "a part of the file system is 0 to 100 per cent";
                return Err(wrong(
                    format!("limits.{field}"),
                    &percent.to_string(),
                    expected,
                ));
            }
        }
        if self.disk_floor_percent == 100 {
            let expected = "less than 100, or no core can be stored";
            return Err(wrong(
                "limits.disk_floor_percent".to_owned(),
                "100",
                expected,
            ));
        }
        if self.handlers > 1024 {
            let found = self.handlers.to_string();
            return Err(wrong("limits.handlers".to_owned(), &found, "maximum 1024"));
        }
        /// Minimum for registers and the top of one stack.
        const SMALLEST: u64 = 64 << 10;
        /// It is collected in the handler's memory.
        const LARGEST: u64 = 256 << 20;
        if !(SMALLEST..=LARGEST).contains(&self.minicore_limit.0) {
            let found = self.minicore_limit.to_string();
            let expected = "a minicore has `64K` to `256M`";
            return Err(wrong("limits.minicore_limit".to_owned(), &found, expected));
        }
        if let Some(cgroup) = &self.cgroup {
            let plain = |part: &str| !part.is_empty() && part != "." && part != "..";
            let usable = cgroup.trim_start_matches('/').split('/').all(plain)
                && !cgroup.contains(['\0', '\n']);
            if !usable {
                let expected = "a path such as `cdh.slice` or `system.slice/cdh-handlers.slice`";
                return Err(wrong("limits.cgroup".to_owned(), cgroup, expected));
            }
        }
        self.rate.validate()
    }
}

impl RateConfig {
    fn validate(&self) -> Result<(), ConfigError> {
        if !(1..=31 * 86_400).contains(&self.window.0) {
            let expected = "a window lasts `1s` to `31d`";
            let field = "limits.rate.window".to_owned();
            return Err(wrong(field, &self.window.to_string(), expected));
        }
        let pairs = [
            ("fingerprint", self.fingerprint_full, self.fingerprint_dumps),
            ("workload", self.workload_full, self.workload_dumps),
        ];
        for (what, full, all) in pairs {
            if all > 0 && full > all {
                let expected = "not more than the number of all dumps (`…_dumps`)";
                let field = format!("limits.rate.{what}_full");
                return Err(wrong(field, &full.to_string(), expected));
            }
        }
        Ok(())
    }
}
