//! When the list is refreshed without a key, and what failed the last time.

use jiff::Timestamp;

use super::RequestId;

/// Milliseconds without a key that count as idle.
const IDLE: u64 = 3000;
/// Longest pause between two attempts while the store is unreachable, in milliseconds.
const LONGEST: u64 = 60_000;

/// Refreshes that fail one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failing {
    /// Since when.
    pub since: Timestamp,
    /// Whether the store cannot be reached. Otherwise it refuses to be listed.
    pub is_unreachable: bool,
}

/// The automatic refresh.
#[derive(Clone, Debug, Default)]
pub struct Refresh {
    /// Milliseconds between two refreshes; 0 turns it off.
    pub interval: u64,
    /// When the user pressed a key or used the mouse last, in milliseconds.
    pub touched: u64,
    /// The refresh that is under way.
    pub asked: Option<RequestId>,
    /// Since when refreshes fail, and how.
    pub failing: Option<Failing>,
    ended: u64,
    failures: u32,
}

impl Refresh {
    /// Every so many seconds; 0 turns it off.
    #[must_use]
    pub fn every(seconds: u64) -> Self {
        Self {
            interval: seconds.saturating_mul(1000),
            ..Self::default()
        }
    }

    /// Whether the user is idle and the interval has passed. It doubles with each failure.
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

    /// The store was listed, by a refresh or as a whole.
    pub fn succeeded(&mut self, clock: u64) {
        (self.ended, self.failures, self.failing) = (clock, 0, None);
    }

    /// It was not. Returns whether this is the first failure in a row.
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
