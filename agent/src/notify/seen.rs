//! Which crashes this node has seen, in which workloads: `<state>/uploads/fingerprints.json`, the newest last.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::CrashKey;
use crate::node::journal::write_atomically;

/// Crashes that are remembered. One more makes the namespace that has most of them forget its oldest, so
/// that no tenant makes another one's crashes look new.
const MOST: usize = 10_000;
/// Bytes of the file that are read.
const LIMIT: u64 = 16 << 20;

/// Crashes that were seen.
pub(super) struct Seen {
    path: PathBuf,
    order: Vec<CrashKey>,
    known: BTreeSet<CrashKey>,
}

impl Seen {
    /// What was remembered. A file that is gone or broken makes all crashes new: a repeated message is
    /// better than none.
    pub(super) fn read(state: &Path) -> Self {
        let path = state.join("uploads/fingerprints.json");
        let read = || {
            let mut bytes = Vec::new();
            fs::File::open(&path)
                .ok()?
                .take(LIMIT)
                .read_to_end(&mut bytes)
                .ok()?;
            serde_json::from_slice::<Vec<(String, String)>>(&bytes).ok()
        };
        let order = read().unwrap_or_default().into_iter();
        let order: Vec<CrashKey> = order
            .map(|(namespace, crash)| CrashKey { namespace, crash })
            .collect();
        Self {
            known: order.iter().cloned().collect(),
            path,
            order,
        }
    }

    /// Whether it was not seen before; it is from now on.
    pub(super) fn is_new(&mut self, key: &CrashKey) -> bool {
        if !self.known.insert(key.clone()) {
            return false;
        }
        self.order.push(key.clone());
        while self.order.len() > MOST {
            self.forget_one();
        }
        let pairs = self.order.iter().map(|key| (&key.namespace, &key.crash));
        // On a disk that takes nothing it is remembered as long as this process lives.
        if let Ok(json) = serde_json::to_vec(&pairs.collect::<Vec<_>>()) {
            let made = self.path.parent().map_or(Ok(()), fs::create_dir_all);
            let _ = made.and_then(|()| write_atomically(&self.path, &json, 0o600));
        }
        true
    }

    /// Forgets the oldest crash of the namespace that has most.
    fn forget_one(&mut self) {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for key in &self.order {
            *counts.entry(&key.namespace).or_default() += 1;
        }
        let most = counts.into_iter().max_by_key(|(_, count)| *count);
        let Some((namespace, _)) = most else { return };
        let oldest = self.order.iter().position(|key| key.namespace == namespace);
        if let Some(oldest) = oldest {
            let gone = self.order.remove(oldest);
            self.known.remove(&gone);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(namespace: &str, crash: &str) -> CrashKey {
        CrashKey {
            namespace: namespace.to_owned(),
            crash: crash.to_owned(),
        }
    }

    #[test]
    fn seen_forgets_crashes_of_the_namespace_that_has_most() {
        let state = tempfile::tempdir().unwrap();
        let order: Vec<_> = (0..MOST)
            .map(|n| ("flood".to_owned(), n.to_string()))
            .collect();
        let mut all = vec![("shop".to_owned(), "api".to_owned())];
        all.extend(order.into_iter().take(MOST - 1));
        let json = serde_json::to_vec(&all).unwrap();
        fs::create_dir(state.path().join("uploads")).unwrap();
        fs::write(state.path().join("uploads/fingerprints.json"), json).unwrap();
        let mut seen = Seen::read(state.path());
        assert!(seen.is_new(&key("flood", "one more")));
        assert_eq!(seen.order.len(), MOST);
        let mut seen = Seen::read(state.path());
        assert!(!seen.is_new(&key("shop", "api")));
        assert!(seen.is_new(&key("flood", "0")));
    }

    #[test]
    fn seen_begins_anew_with_a_file_that_it_cannot_read() {
        let state = tempfile::tempdir().unwrap();
        fs::create_dir(state.path().join("uploads")).unwrap();
        for text in ["", "{", "[\"of an older agent\"]"] {
            fs::write(state.path().join("uploads/fingerprints.json"), text).unwrap();
            assert!(
                Seen::read(state.path()).is_new(&key("shop", "api")),
                "{text}"
            );
        }
    }
}
