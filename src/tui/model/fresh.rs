//! Dumps that an automatic refresh brought: marked until the cursor has passed them, or for a while.

use std::collections::HashMap;

use cdh_bundle::DumpId;

/// Milliseconds for which a new row stays marked.
const MARKED: u64 = 60_000;

/// The marked rows and when they came.
#[derive(Clone, Debug, Default)]
pub struct Fresh(HashMap<DumpId, u64>);

impl Fresh {
    /// Marks a dump.
    pub fn mark(&mut self, id: DumpId, clock: u64) {
        self.0.insert(id, clock);
    }

    /// The cursor has passed it.
    pub fn pass(&mut self, id: DumpId) {
        self.0.remove(&id);
    }

    /// Time passes.
    pub fn expire(&mut self, clock: u64) {
        self.0
            .retain(|_, came| clock.saturating_sub(*came) < MARKED);
    }

    /// Whether it is marked.
    #[must_use]
    pub fn has(&self, id: DumpId) -> bool {
        self.0.contains_key(&id)
    }

    /// How many are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
