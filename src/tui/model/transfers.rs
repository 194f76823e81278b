//! Downloads and pulls: how far they are, how fast, and what became of them.

use cdh_store::DumpSummary;

use crate::report::Told;

/// Number of a transfer, never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TransferId(pub u64);

/// What for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To have it here.
    Fetch,
    /// To start a debugger on it.
    Debug,
}

/// How it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Waits for others.
    Waiting,
    /// Runs.
    Running,
    /// Done; where it is.
    Done(String),
    /// Failed.
    Failed(Told),
    /// Nobody wanted it any more.
    Cancelled,
}

/// One of them.
#[derive(Clone, Debug)]
pub struct Transfer {
    /// Its number.
    pub id: TransferId,
    /// Which dump.
    pub dump: DumpSummary,
    /// What for.
    pub purpose: Purpose,
    /// What is being done, in words.
    pub what: String,
    /// Bytes of the current piece of work, if known.
    pub total: Option<u64>,
    /// Bytes that are done of it.
    pub done: u64,
    /// Bytes a second, of the last moments.
    pub rate: f64,
    /// How it stands.
    pub state: State,
    measured: (u64, u64),
}

impl Transfer {
    /// One that is about to begin.
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

    /// Whether it is not over.
    #[must_use]
    pub fn is_active(&self) -> bool {
        matches!(self.state, State::Waiting | State::Running)
    }

    /// A piece of work begins at `clock` milliseconds.
    pub fn started(&mut self, what: String, total: Option<u64>, clock: u64) {
        self.state = State::Running;
        (self.what, self.total, self.done) = (what, total, 0);
        self.measured = (clock, 0);
    }

    /// So many bytes are done at `clock` milliseconds. The rate is smoothed over about two seconds.
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

    /// The part that is done, where it can be told: 0 to 1.
    #[must_use]
    pub fn part(&self) -> Option<f64> {
        match (&self.state, self.total) {
            (State::Done(_), _) => Some(1.0),
            (_, Some(total)) if total > 0 => Some((self.done as f64 / total as f64).min(1.0)),
            _ => None,
        }
    }

    /// Seconds that it will still take, at the present rate.
    #[must_use]
    pub fn remaining(&self) -> Option<u64> {
        let left = self.total?.saturating_sub(self.done) as f64;
        (self.rate > 0.0 && self.state == State::Running).then(|| (left / self.rate).ceil() as u64)
    }
}

/// All of them, the newest first.
#[derive(Clone, Debug, Default)]
pub struct Transfers {
    /// The list.
    pub list: Vec<Transfer>,
    /// Which one the keys act on.
    pub cursor: usize,
    /// First on the screen.
    pub top: usize,
    count: u64,
}

impl Transfers {
    /// Adds one; tells its number.
    pub fn add(&mut self, dump: DumpSummary, purpose: Purpose) -> TransferId {
        self.count += 1;
        let id = TransferId(self.count);
        self.list.insert(0, Transfer::new(id, dump, purpose));
        if self.cursor > 0 {
            self.cursor += 1;
        }
        id
    }

    /// One by its number.
    pub fn get_mut(&mut self, id: TransferId) -> Option<&mut Transfer> {
        self.list.iter_mut().find(|transfer| transfer.id == id)
    }

    /// One by its number.
    #[must_use]
    pub fn get(&self, id: TransferId) -> Option<&Transfer> {
        self.list.iter().find(|transfer| transfer.id == id)
    }

    /// How many are not over.
    #[must_use]
    pub fn active(&self) -> usize {
        self.list
            .iter()
            .filter(|transfer| transfer.is_active())
            .count()
    }

    /// The one that the keys act on.
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
    fn rate_and_rest_come_from_what_was_done() {
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
