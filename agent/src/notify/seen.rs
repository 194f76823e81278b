//! Remembers which crashes this node has seen in which workloads:
//! `<state>/uploads/fingerprints.json`, newest last.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::CrashKey;
use crate::atomic_file::write_atomically;

/// Maximum number of remembered crashes. When it is exceeded, the namespace with most crashes loses
/// its oldest one, so no tenant can make another tenant's crashes look new.
const MOST: usize = 10_000;
/// Maximum bytes of the file that are read.
const LIMIT: u64 = 16 << 20;

/// Crashes seen so far.
pub(super) struct Seen {
    path: PathBuf,
    order: Vec<CrashKey>,
    known: BTreeSet<CrashKey>,
}

impl Seen {
    /// Reads the remembered crashes. If the file is missing or invalid, all crashes are new: a
    /// repeated message is better than none.
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

    /// Whether the crash is new; remembers it.
    pub(super) fn is_new(&mut self, key: &CrashKey) -> bool {
        if !self.known.insert(key.clone()) {
            return false;
        }
        self.order.push(key.clone());
        while self.order.len() > MOST {
            self.forget_one();
        }
        let pairs = self.order.iter().map(|key| (&key.namespace, &key.crash));
        // If the disk cannot be written, it is remembered until this process ends.
        if let Ok(json) = serde_json::to_vec(&pairs.collect::<Vec<_>>()) {
            let made = self.path.parent().map_or(Ok(()), fs::create_dir_all);
            let _ = made.and_then(|()| write_atomically(&self.path, &json, 0o600));
        }
        true
    }

    /// Removes the oldest crash of the namespace with the most crashes.
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
    fn seen_evicts_crashes_of_the_largest_namespace() {
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
    fn seen_starts_empty_with_an_invalid_file() {
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
