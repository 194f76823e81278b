//! Dumps added by an automatic refresh: marked until the cursor passes them, or for a limited time.

use std::collections::HashMap;

use cdh_bundle::DumpId;

/// How long a new row is marked, in milliseconds.
const MARKED: u64 = 60_000;

/// The marked rows and their arrival times.
#[derive(Clone, Debug, Default)]
pub struct Fresh(HashMap<DumpId, u64>);

impl Fresh {
    /// Marks a dump.
    pub fn mark(&mut self, id: DumpId, clock: u64) {
        self.0.insert(id, clock);
    }

    /// Removes the mark of a dump that the cursor passed.
    pub fn pass(&mut self, id: DumpId) {
        self.0.remove(&id);
    }

    /// Removes expired marks.
    pub fn expire(&mut self, clock: u64) {
        self.0
            .retain(|_, came| clock.saturating_sub(*came) < MARKED);
    }

    /// Whether it is marked.
    #[must_use]
    pub fn has(&self, id: DumpId) -> bool {
        self.0.contains_key(&id)
    }

    /// Number of marked rows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether no row is marked.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
