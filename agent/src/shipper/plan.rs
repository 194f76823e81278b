//! When dumps are uploaded (immediately, periodically or never), how many in parallel, and how
//! fast.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use cdh_bundle::DumpId;
use jiff::Timestamp;

use super::event::SetuidDumps;
use super::schedule::Schedule;

/// When dumps are uploaded.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum ShippingPlan {
    /// As soon as they are sealed.
    #[default]
    Events,
    /// All waiting dumps, at start and after each interval.
    Interval(Duration),
    /// All waiting dumps, at the times of a cron expression.
    Schedule(Box<Schedule>),
    /// Never: they stay on the node.
    Off,
}

impl ShippingPlan {
    /// The value of `shipping.mode`.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Events => "events",
            Self::Interval(_) => "interval",
            Self::Schedule(_) => "schedule",
            Self::Off => "off",
        }
    }
}

/// Options of the shipper.
#[derive(Clone, Debug)]
pub struct ShipperOptions {
    /// Dumps of setuid programs.
    pub setuid: SetuidDumps,
    /// When dumps are uploaded.
    pub plan: ShippingPlan,
    /// Total bandwidth of all uploads in bytes per second; 0 means no limit.
    pub bandwidth: u64,
    /// Maximum parallel uploads.
    pub parallel: usize,
    /// Ship only these dumps.
    pub only: Option<BTreeSet<DumpId>>,
    /// Location of the store, for `cdh agent status`.
    pub store: String,
    /// Whether this process installed the handler, for `cdh agent status`.
    pub manages_node: bool,
    /// How many times faster than the clock the shipper's waits pass. For tests.
    pub haste: u32,
}

impl Default for ShipperOptions {
    fn default() -> Self {
        Self {
            setuid: SetuidDumps::default(),
            plan: ShippingPlan::default(),
            bandwidth: 0,
            parallel: 1,
            only: None,
            store: String::new(),
            manages_node: false,
            haste: 1,
        }
    }
}

impl From<SetuidDumps> for ShipperOptions {
    fn from(setuid: SetuidDumps) -> Self {
        Self {
            setuid,
            ..Self::default()
        }
    }
}

/// When the next shipment is due.
pub(super) struct Due {
    plan: ShippingPlan,
    haste: u32,
    /// `None` means immediately.
    next: Option<Instant>,
}

impl Due {
    pub(super) fn new(options: &ShipperOptions) -> Self {
        let mut due = Self {
            plan: options.plan.clone(),
            haste: options.haste.max(1),
            next: None,
        };
        // An interval begins with a shipment, like IBM's agent; a schedule does not.
        if matches!(due.plan, ShippingPlan::Schedule(_)) {
            due.shipped();
        }
        due
    }

    /// Time until the next shipment; zero if it is due, `None` if the plan is `off`.
    pub(super) fn left(&self) -> Option<Duration> {
        match self.plan {
            ShippingPlan::Off => None,
            ShippingPlan::Events => Some(Duration::ZERO),
            _ => Some(
                self.next
                    .map(|at| at.saturating_duration_since(Instant::now()))
                    .unwrap_or_default(),
            ),
        }
    }

    /// When the next shipment is due; `None` if dumps are uploaded immediately.
    pub(super) fn next_shipment(&self) -> Option<Timestamp> {
        let left = match self.plan {
            ShippingPlan::Interval(_) | ShippingPlan::Schedule(_) => self.left()?,
            _ => return None,
        };
        let next = Timestamp::now().checked_add(left).ok()?;
        // Rounded to the second, so that it does not change with each call.
        next.round(jiff::Unit::Second).ok()
    }

    /// Records that an upload of all waiting dumps was attempted.
    pub(super) fn shipped(&mut self) {
        let wait = match &self.plan {
            ShippingPlan::Interval(every) => *every,
            ShippingPlan::Schedule(schedule) => {
                let now = Timestamp::now();
                let next = schedule.next_after(now);
                // A schedule without a next time is computed again after `LONGEST`.
                let wait = next.and_then(|next| Duration::try_from(next.duration_since(now)).ok());
                wait.unwrap_or(LONGEST)
            }
            _ => return,
        };
        self.next = Instant::now().checked_add(wait / self.haste);
    }
}

/// Wait before a schedule without a next time is computed again.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// A token bucket for bytes, filled at the configured rate; uploads take tokens before they
/// continue.
#[derive(Clone)]
pub(super) struct Bandwidth {
    bytes_per_second: u64,
    /// When all bytes taken so far are paid for.
    paid_until: Arc<Mutex<Option<Instant>>>,
}

/// Allowed burst: reads of up to a few megabytes are not split.
const AHEAD: Duration = Duration::from_millis(200);
/// Time between two checks whether the upload should stop.
const LOOK: Duration = Duration::from_millis(100);

impl Bandwidth {
    pub(super) fn new(bytes_per_second: u64) -> Self {
        Self {
            bytes_per_second,
            paid_until: Arc::default(),
        }
    }

    /// Takes `bytes` and waits until they are paid for, or until `stop` returns true.
    pub(super) fn take(&self, bytes: usize, stop: &dyn Fn() -> bool) {
        if self.bytes_per_second == 0 || bytes == 0 {
            return;
        }
        let seconds = bytes as f64 / self.bytes_per_second as f64;
        let cost = Duration::try_from_secs_f64(seconds).unwrap_or(LONGEST);
        let until = {
            let mut paid = self
                .paid_until
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            let now = Instant::now();
            // Unused bandwidth is lost: a pause gives no credit.
            let from = paid.filter(|at| *at > now).unwrap_or(now);
            let until = from.checked_add(cost).unwrap_or(from);
            *paid = Some(until);
            until
        };
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left <= AHEAD || stop() {
                return;
            }
            std::thread::sleep((left - AHEAD).min(LOOK));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bandwidth_limits_all_uploads_together() {
        let bandwidth = Bandwidth::new(1 << 20);
        let begun = Instant::now();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..4).for_each(|_| bandwidth.take(64 << 10, &|| false)));
            }
        });
        // One megabyte, less the allowed burst.
        let took = begun.elapsed();
        let expected = Duration::from_millis(750)..Duration::from_secs(3);
        assert!(expected.contains(&took), "{took:?}");
        let begun = Instant::now();
        bandwidth.take(1 << 30, &|| true);
        Bandwidth::new(0).take(1 << 30, &|| false);
        assert!(begun.elapsed() < Duration::from_secs(1));
    }

    #[test]
    fn interval_starts_immediately_and_schedule_at_its_time() {
        let due = |plan| {
            Due::new(&ShipperOptions {
                plan,
                ..ShipperOptions::default()
            })
        };
        let mut interval = due(ShippingPlan::Interval(Duration::from_secs(60)));
        assert_eq!(interval.left(), Some(Duration::ZERO));
        interval.shipped();
        assert!(interval.left().unwrap() > Duration::from_secs(58));
        let schedule = due(ShippingPlan::Schedule(Box::new(
            "* * * * *".parse().unwrap(),
        )));
        assert!(schedule.left().unwrap() <= Duration::from_secs(60));
        assert_eq!(due(ShippingPlan::Off).left(), None);
    }
}
