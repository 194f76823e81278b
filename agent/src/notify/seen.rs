//! Which crashes this node has seen: `<state>/uploads/fingerprints.json`, the newest last.

use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::node::journal::write_atomically;

/// Crashes that are remembered; those that came first are forgotten first.
const MOST: usize = 10_000;
/// Bytes of the file at most.
const LIMIT: u64 = 8 << 20;

/// Crashes that were seen.
pub(super) struct Seen {
    path: PathBuf,
    order: Vec<String>,
    known: BTreeSet<String>,
}

impl Seen {
    /// What was remembered. A file that is gone or broken means that all crashes are new: told twice is
    /// better than never.
    pub(super) fn read(state: &Path) -> Self {
        let path = state.join("uploads/fingerprints.json");
        let read = || {
            let mut bytes = Vec::new();
            fs::File::open(&path)
                .ok()?
                .take(LIMIT)
                .read_to_end(&mut bytes)
                .ok()?;
            serde_json::from_slice::<Vec<String>>(&bytes).ok()
        };
        let order = read().unwrap_or_default();
        Self {
            known: order.iter().cloned().collect(),
            path,
            order,
        }
    }

    /// Whether it was not seen before; it is from now on.
    pub(super) fn is_new(&mut self, key: &str) -> bool {
        if !self.known.insert(key.to_owned()) {
            return false;
        }
        self.order.push(key.to_owned());
        if self.order.len() > MOST {
            let surplus = self.order.len() - MOST;
            for key in self.order.drain(..surplus) {
                self.known.remove(&key);
            }
        }
        // On a disk that takes nothing it is remembered as long as this process lives.
        if let Ok(json) = serde_json::to_vec(&self.order) {
            let _ = write_atomically(&self.path, &json, 0o600);
        }
        true
    }
}
