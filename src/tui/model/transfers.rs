//! Downloads and pulls: progress, rate and result.

use cdh_store::DumpSummary;

use crate::report::RenderedError;

/// Id of a transfer; never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TransferId(pub u64);

/// Purpose of a transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Store the dump locally.
    Fetch,
    /// Start a debugger on the dump.
    Debug,
}

/// State of a transfer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Waits for other transfers.
    Waiting,
    /// Running.
    Running,
    /// Done; contains the path.
    Done(String),
    /// Failed.
    Failed(RenderedError),
    /// Cancelled by the user.
    Cancelled,
}

/// A transfer.
#[derive(Clone, Debug)]
pub struct Transfer {
    /// Its id.
    pub id: TransferId,
    /// The dump.
    pub dump: DumpSummary,
    /// Its purpose.
    pub purpose: Purpose,
    /// The current step, in words.
    pub what: String,
    /// Bytes of the current step, if known.
    pub total: Option<u64>,
    /// Bytes done of the current step.
    pub done: u64,
    /// Current rate in bytes per second.
    pub rate: f64,
    /// Its state.
    pub state: State,
    measured: (u64, u64),
}

impl Transfer {
    /// Creates a waiting transfer.
    #[must_use]
    pub fn new(id: TransferId, dump: DumpSummary, purpose: Purpose) -> Self {
        Self {
            id,
            dump,
            purpose,
            what: "waiting".to_owned(),
            total: None,
            done: 0,
            rate: 0.0,
            state: State::Waiting,
            measured: (0, 0),
        }
    }

    /// Whether it is waiting or running.
    #[must_use]
    pub fn is_active(&self) -> bool {
        matches!(self.state, State::Waiting | State::Running)
    }

    /// Starts a step at `clock` milliseconds.
    pub fn started(&mut self, what: String, total: Option<u64>, clock: u64) {
        self.state = State::Running;
        (self.what, self.total, self.done) = (what, total, 0);
        self.measured = (clock, 0);
    }

    /// Records progress at `clock` milliseconds. The rate is smoothed over about two seconds.
    pub fn advanced(&mut self, done: u64, clock: u64) {
        self.done = done;
        let (since, before) = self.measured;
        let passed = clock.saturating_sub(since);
        if passed < 200 {
            return;
        }
        let now = done.saturating_sub(before) as f64 * 1000.0 / passed as f64;
        let weight = (passed as f64 / 2000.0).min(1.0);
        self.rate = if self.rate == 0.0 {
            now
        } else {
            self.rate * (1.0 - weight) + now * weight
        };
        self.measured = (clock, done);
    }

    /// The fraction done, 0 to 1, if known.
    #[must_use]
    pub fn part(&self) -> Option<f64> {
        match (&self.state, self.total) {
            (State::Done(_), _) => Some(1.0),
            (_, Some(total)) if total > 0 => Some((self.done as f64 / total as f64).min(1.0)),
            _ => None,
        }
    }

    /// Estimated remaining seconds at the current rate.
    #[must_use]
    pub fn remaining(&self) -> Option<u64> {
        let left = self.total?.saturating_sub(self.done) as f64;
        (self.rate > 0.0 && self.state == State::Running).then(|| (left / self.rate).ceil() as u64)
    }
}

/// All transfers, newest first.
#[derive(Clone, Debug, Default)]
pub struct Transfers {
    /// The list.
    pub list: Vec<Transfer>,
    /// Index of the selected transfer.
    pub cursor: usize,
    /// Index of the first transfer on the screen.
    pub top: usize,
    count: u64,
}

impl Transfers {
    /// Adds a transfer and returns its id.
    pub fn add(&mut self, dump: DumpSummary, purpose: Purpose) -> TransferId {
        self.count += 1;
        let id = TransferId(self.count);
        self.list.insert(0, Transfer::new(id, dump, purpose));
        if self.cursor > 0 {
            self.cursor += 1;
        }
        id
    }

    /// The transfer with this id.
    pub fn get_mut(&mut self, id: TransferId) -> Option<&mut Transfer> {
        self.list.iter_mut().find(|transfer| transfer.id == id)
    }

    /// The transfer with this id.
    #[must_use]
    pub fn get(&self, id: TransferId) -> Option<&Transfer> {
        self.list.iter().find(|transfer| transfer.id == id)
    }

    /// Number of active transfers.
    #[must_use]
    pub fn active(&self) -> usize {
        self.list
            .iter()
            .filter(|transfer| transfer.is_active())
            .count()
    }

    /// The selected transfer.
    #[must_use]
    pub fn selected(&self) -> Option<&Transfer> {
        self.list.get(self.cursor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tui::tests::dump;

    #[test]
    fn transfer_rate_and_remaining_time_follow_the_progress() {
        let mut transfers = Transfers::default();
        let id = transfers.add(dump(1), Purpose::Fetch);
        let transfer = transfers.get_mut(id).unwrap();
        assert_eq!((transfer.part(), transfer.remaining()), (None, None));
        transfer.started("fetching".to_owned(), Some(10_000), 1_000);
        transfer.advanced(2_000, 2_000);
        assert_eq!(transfer.part(), Some(0.2));
        assert_eq!(transfer.rate as u64, 2_000);
        assert_eq!(transfer.remaining(), Some(4));
        transfer.state = State::Done("/x".to_owned());
        assert_eq!(transfer.part(), Some(1.0));
        assert_eq!(transfers.active(), 0);
    }
}
