//! Totals over everything that was ever recorded: counters and histograms for metrics.
//!
//! Their size is bounded: outcomes, reasons and causes are enums.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::record::LedgerRecord;

/// Upper bounds of the histogram of durations, in seconds.
pub const SECONDS: [f64; 10] = [0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0];
/// Upper bounds of the histogram of core sizes, in bytes: 64 KiB to 64 GiB.
pub const BYTES: [f64; 7] = [
    65_536.0,
    1_048_576.0,
    16_777_216.0,
    268_435_456.0,
    1_073_741_824.0,
    8_589_934_592.0,
    68_719_476_736.0,
];

/// Totals since the ledger was created. They survive restarts of handlers and daemon.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Totals {
    /// When the ledger was created.
    pub since: Timestamp,
    /// Number of the last record.
    pub seq: u64,
    /// By outcome and reason: `kept`, `reduced/rate_fingerprint`, `dropped/policy`.
    pub by_outcome: BTreeMap<String, u64>,
    /// Truncated or missing cores, by cause: `killed`, `no_space`.
    pub by_cause: BTreeMap<String, u64>,
    /// Captured bytes of cores, uncompressed.
    pub core_bytes: u64,
    /// Bytes that dumps occupied in the spool when they were sealed.
    pub stored_bytes: u64,
    /// Bytes that were freed in the spool for newer dumps.
    pub given_up_bytes: u64,
    /// Seconds from the handler's start to the sealed dump.
    pub seconds: Histogram,
    /// Seconds that the exit of crashed processes was delayed.
    pub blocked_seconds: Histogram,
    /// Sizes of cores.
    pub core_sizes: Histogram,
}

/// A histogram of values.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Histogram {
    /// One count for each bound and one for larger values; not cumulative.
    pub counts: Vec<u64>,
    /// Sum of the values.
    pub sum: f64,
}

impl Histogram {
    /// Adds a value.
    pub fn add(&mut self, bounds: &[f64], value: f64) {
        self.counts.resize(bounds.len().saturating_add(1), 0);
        let place = bounds.partition_point(|bound| *bound < value);
        if let Some(count) = self.counts.get_mut(place) {
            *count = count.saturating_add(1);
        }
        self.sum += value;
    }

    /// Number of values.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Cumulative counts for each bound, as Prometheus expects them; `+Inf` is [`Self::count`].
    #[must_use]
    pub fn cumulative(&self, bounds: &[f64]) -> Vec<(f64, u64)> {
        let mut sum = 0;
        let counts = self.counts.iter().copied().chain(std::iter::repeat(0));
        bounds
            .iter()
            .zip(counts)
            .map(|(bound, count)| {
                sum += count;
                (*bound, sum)
            })
            .collect()
    }
}

impl Totals {
    /// Number of recorded crashes.
    #[must_use]
    pub fn crashes(&self) -> u64 {
        self.sum(|key| {
            let outcome = key.split('/').next().unwrap_or_default();
            matches!(outcome, "kept" | "reduced" | "dropped")
        })
    }

    /// Number of records with this outcome, for any reason.
    #[must_use]
    pub fn of(&self, outcome: crate::outcome::Outcome) -> u64 {
        self.sum(|key| key.split('/').next() == Some(outcome.name()))
    }

    fn sum(&self, wanted: impl Fn(&str) -> bool) -> u64 {
        let counts = self.by_outcome.iter().filter(|(key, _)| wanted(key));
        counts.map(|(_, count)| *count).sum()
    }

    /// Adds a record.
    #[allow(clippy::cast_precision_loss)]
    pub(super) fn add(&mut self, record: &LedgerRecord) {
        let key = record.key();
        let count = self.by_outcome.entry(key).or_default();
        *count = count.saturating_add(1);
        if !record.outcome.is_crash() {
            self.given_up_bytes = self.given_up_bytes.saturating_add(record.stored_bytes);
            return;
        }
        if let Some(cause) = record.cause
            && let Ok(serde_json::Value::String(name)) = serde_json::to_value(cause)
        {
            let count = self.by_cause.entry(name).or_default();
            *count = count.saturating_add(1);
        }
        self.core_bytes = self.core_bytes.saturating_add(record.core_bytes);
        self.stored_bytes = self.stored_bytes.saturating_add(record.stored_bytes);
        if record.id.is_some() {
            self.seconds.add(&SECONDS, record.seconds);
            self.blocked_seconds.add(&SECONDS, record.blocked_seconds);
        }
        if record.core_bytes > 0 {
            self.core_sizes.add(&BYTES, record.core_bytes as f64);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn histogram_counts_a_value_under_its_first_bound() {
        let mut histogram = Histogram::default();
        for value in [0.005, 0.01, 2.0, 1e9] {
            histogram.add(&SECONDS, value);
        }
        assert_eq!(histogram.count(), 4);
        let found = histogram.cumulative(&SECONDS);
        assert_eq!(found.first(), Some(&(0.01, 2)));
        assert_eq!(found.last(), Some(&(300.0, 3)));
        assert_eq!(
            Histogram::default().cumulative(&SECONDS).last(),
            Some(&(300.0, 0))
        );
    }
}
