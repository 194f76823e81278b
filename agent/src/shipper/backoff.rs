//! Backoff between retries.

use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

/// First wait.
const FIRST: Duration = Duration::from_secs(1);
/// Maximum wait: a store that recovers is noticed within this time.
const LONGEST: Duration = Duration::from_secs(120);

/// Doubles with each failure, up to a maximum.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// Counts a failure and returns the wait.
    pub(super) fn failed(&mut self) -> Duration {
        let wait = FIRST
            .saturating_mul(2_u32.saturating_pow(self.failures))
            .min(LONGEST);
        self.failures = self.failures.saturating_add(1);
        wait
    }

    /// Consecutive failures.
    #[must_use]
    pub(super) fn failures(&self) -> u32 {
        self.failures
    }
}

/// Between three quarters of the wait and the full wait: a thousand nodes that lost the store at
/// the same moment must not retry at the same moment.
fn jittered(wait: Duration) -> Duration {
    // The standard library seeds its hashers randomly.
    let random = RandomState::new().hash_one(0) % 1024;
    let random = u32::try_from(random).unwrap_or_default();
    wait.mul_f64(f64::from(3 * 1024 + random) / 4096.0)
}

/// Retry state of the store or of one entry.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct StorePatience {
    backoff: Backoff,
    next_try: Option<Instant>,
}

impl StorePatience {
    /// Whether it may be retried now.
    pub(super) fn is_over(&self) -> bool {
        self.left().is_none()
    }

    /// Time until the next retry; `None` if it may be retried now.
    pub(super) fn left(&self) -> Option<Duration> {
        let left = self.next_try?.saturating_duration_since(Instant::now());
        (!left.is_zero()).then_some(left)
    }

    /// Counts a failure and returns the wait. With `haste`, waits pass that many times faster.
    pub(super) fn failed(&mut self, haste: u32) -> Duration {
        let wait = jittered(self.backoff.failed()) / haste.max(1);
        self.next_try = Instant::now().checked_add(wait);
        wait
    }

    /// Consecutive failures.
    pub(super) fn failures(&self) -> u32 {
        self.backoff.failures()
    }

    /// Resets the state after a success.
    pub(super) fn succeeded(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_doubles_up_to_the_maximum() {
        let mut backoff = Backoff::default();
        let waits: Vec<_> = (0..9).map(|_| backoff.failed().as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 64, 120, 120]);
        for _ in 0..100 {
            backoff.failed();
        }
        assert_eq!(backoff.failed(), LONGEST);
    }

    #[test]
    fn store_patience_resets_after_a_success() {
        let mut patience = StorePatience::default();
        assert!(patience.is_over());
        for wait in [FIRST, FIRST * 2, FIRST * 4] {
            let jittered = patience.failed(1);
            assert!(wait * 3 / 4 <= jittered && jittered <= wait, "{jittered:?}");
        }
        assert!(!patience.is_over() && patience.left().is_some());
        patience.succeeded();
        assert!(patience.is_over());
        assert!(patience.failed(1) <= FIRST);
    }
}
