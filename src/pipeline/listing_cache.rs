//! Caches the newest dumps of each store from its last listing, for completions: these must be fast and never
//! contact a store. Best effort: read and write errors are ignored.
//!
//! ```text
//! <cache>/listings/<hash of the store's location>    keys of bundles, the newest first, one a line
//! ```

use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::path::PathBuf;

use cdh_bundle::{DumpId, Sha256};
use cdh_store::{DumpSummary, ObjectKey};

use super::case;
use super::files::open_regular;
use crate::settings::Settings;

/// Maximum number of cached dumps per store.
const MAX_DUMPS: usize = 1000;
/// Maximum length of the file: keys have up to 1,024 bytes.
const MAX_SIZE: u64 = 1 << 20;

/// How much of a store a listing covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listed {
    /// All of it: dumps that are not in the listing do not exist.
    All,
    /// A part.
    Part,
}

/// The dumps of the last listing, newest first.
#[must_use]
pub fn cached_listing(settings: &Settings) -> Vec<DumpSummary> {
    let mut text = String::new();
    let Some(path) = path(settings) else {
        return Vec::new();
    };
    let read = open_regular(&path).and_then(|file| file.take(MAX_SIZE).read_to_string(&mut text));
    let keys = text.lines().filter_map(|line| ObjectKey::parse(line).ok());
    match read {
        Ok(_) => keys.filter_map(|key| DumpSummary::from_key(&key)).collect(),
        Err(_) => Vec::new(),
    }
}

/// Caches dumps that were listed or stored.
pub fn remember_listing(settings: &Settings, dumps: &[DumpSummary], listed: Listed) {
    let known = cached_listing(settings);
    let mut merged: Vec<DumpSummary> = dumps.iter().take(MAX_DUMPS).cloned().collect();
    if listed == Listed::Part {
        merged.extend(known.iter().cloned());
    }
    write(settings, &known, merged);
}

/// Removes deleted dumps from the cache.
pub fn forget_listed(settings: &Settings, gone: &[DumpSummary]) {
    let known = cached_listing(settings);
    let kept = known
        .iter()
        .filter(|dump| gone.iter().all(|gone| gone.key != dump.key));
    let kept = kept.cloned().collect();
    write(settings, &known, kept);
}

fn write(settings: &Settings, known: &[DumpSummary], mut dumps: Vec<DumpSummary>) {
    dumps.sort_by(|a, b| (b.captured_at, &b.key).cmp(&(a.captured_at, &a.key)));
    let mut seen = BTreeSet::new();
    dumps.retain(|dump| seen.insert(dump.key.clone()));
    dumps.truncate(MAX_DUMPS);
    let keys = |dumps: &[DumpSummary]| -> String {
        dumps.iter().map(|dump| format!("{}\n", dump.key)).collect()
    };
    let text = keys(&dumps);
    let Some(path) = path(settings) else {
        return;
    };
    if text == keys(known) && (path.exists() || text.is_empty()) {
        return;
    }
    let Some(directory) = path.parent() else {
        return;
    };
    let part = directory.join(format!(".{}.part", DumpId::random()));
    let written = case::private_directory(directory)
        .and_then(|()| fs::write(&part, text))
        .and_then(|()| fs::rename(&part, &path));
    if written.is_err() {
        let _ = fs::remove_file(part);
    }
}

/// `None` if there is no private directory for it.
fn path(settings: &Settings) -> Option<PathBuf> {
    let name = Sha256::of(settings.store.to_string().as_bytes()).to_string();
    let name = name.get(..16).unwrap_or(&name);
    Some(settings.cache.get("listings")?.join(name))
}
