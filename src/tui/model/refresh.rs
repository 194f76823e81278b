//! When the list is refreshed automatically, and the last failure.

use jiff::Timestamp;

use super::RequestId;

/// Milliseconds without a key after which the user counts as idle.
const IDLE: u64 = 3000;
/// Maximum pause between two attempts while the store is unreachable, in milliseconds.
const LONGEST: u64 = 60_000;

/// Consecutive failed refreshes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failing {
    /// When they started.
    pub since: Timestamp,
    /// Whether the store is unreachable. Otherwise it refuses the listing.
    pub is_unreachable: bool,
}

/// The automatic refresh.
#[derive(Clone, Debug, Default)]
pub struct Refresh {
    /// Milliseconds between two refreshes; 0 disables them.
    pub interval: u64,
    /// When the user last pressed a key or used the mouse, in milliseconds.
    pub touched: u64,
    /// The refresh in progress.
    pub asked: Option<RequestId>,
    /// The current series of failures.
    pub failing: Option<Failing>,
    ended: u64,
    failures: u32,
}

impl Refresh {
    /// A refresh every `seconds`; 0 disables it.
    #[must_use]
    pub fn every(seconds: u64) -> Self {
        Self {
            interval: seconds.saturating_mul(1000),
            ..Self::default()
        }
    }

    /// Whether the user is idle and the interval has passed. The interval doubles with each
    /// failure.
    #[must_use]
    pub fn is_due(&self, clock: u64) -> bool {
        let factor = 1_u64 << self.failures.min(16);
        let longest = LONGEST.max(self.interval);
        let pause = self.interval.saturating_mul(factor).min(longest);
        self.interval > 0
            && self.asked.is_none()
            && clock.saturating_sub(self.touched) >= IDLE
            && clock.saturating_sub(self.ended) >= pause
    }

    /// The store was listed, completely or by a refresh.
    pub fn succeeded(&mut self, clock: u64) {
        (self.ended, self.failures, self.failing) = (clock, 0, None);
    }

    /// A refresh failed. Returns whether this is the first of consecutive failures.
    pub fn failed(&mut self, is_unreachable: bool, now: Timestamp, clock: u64) -> bool {
        self.ended = clock;
        self.failures = self.failures.saturating_add(1);
        let since = self.failing.map_or(now, |failing| failing.since);
        let failing = Failing {
            since,
            is_unreachable,
        };
        self.failing.replace(failing).is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refresh_waits_for_an_idle_user_and_backs_off() {
        let mut refresh = Refresh::every(5);
        refresh.touched = 4000;
        assert!(!refresh.is_due(6999), "a key was pressed just now");
        assert!(refresh.is_due(7000));
        refresh.asked = Some(RequestId(1));
        assert!(!refresh.is_due(60_000), "one at a time");
        refresh.asked = None;
        let now = Timestamp::UNIX_EPOCH;
        assert!(refresh.failed(true, now, 10_000) && !refresh.failed(true, now, 20_000));
        assert!(
            !refresh.is_due(39_999) && refresh.is_due(40_000),
            "four times the interval"
        );
        for _ in 0..100 {
            refresh.failed(true, now, 50_000);
        }
        assert!(!refresh.is_due(109_999) && refresh.is_due(110_000));
        refresh.succeeded(50_000);
        assert!(refresh.is_due(55_000) && refresh.failing.is_none());
        assert!(!Refresh::every(0).is_due(1_000_000));
    }
}
