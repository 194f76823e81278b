//! The top frame of each of several crashes: the first frame of the user's own code.
//!
//! Each backtrace costs reads and time, so everything is limited: the number of dumps, the size of a
//! minicore, the total time. Results are cached by fingerprint. Frames that are not found in time are
//! left out until the next run. Nothing is pulled from a registry.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::Result;
use cdh_bundle::{Digests, EntryKind};
use cdh_store::{DumpSummary, Store, StoreUrl};

use super::symbol_cache::SymbolCache;
use super::{BacktraceRequest, Dump, Observer, TaskScope, dump, name_stacks, name_stored_stacks};
use crate::render::{terminal_line, top_frame};
use crate::settings::Settings;

/// Maximum crashes whose newest dump is read in one run.
const MAX_READ: usize = 64;
/// Maximum size of a minicore read over a network.
const MAX_MINICORE: u64 = 4 << 20;
/// Total time limit.
const TIME: Duration = Duration::from_secs(3);
/// Dumps read in parallel over a network; on a disk, as many as there are processors.
const PARALLEL: usize = 8;
/// Maximum frames of a stack that are examined.
const FRAMES: usize = 64;
/// Maximum size of all cached frames: tens of thousands.
const CACHE_LIMIT: u64 = 2 << 20;
/// Maximum length of a frame, in characters.
const LONGEST: usize = 500;
/// First line of a cached frame. Increase the number if the rule changes.
const HEADER: &str = "cdh top frame 1\n";

struct Silent;

impl Observer for Silent {
    fn started(&self, _: &str, _: Option<u64>) {}
    fn advanced(&self, _: u64) {}
    fn finished(&self) {}
}

/// The result for one crash.
struct Found {
    number: usize,
    text: Option<String>,
    /// Whether the frame has a function name: without the module's file it may get one in a later run.
    is_named: bool,
}

/// The top frames of these dumps, in their order; `None` if there is none or a limit was reached.
#[must_use]
pub fn top_frames(
    settings: &Settings,
    store: &Arc<dyn Store>,
    dumps: Vec<DumpSummary>,
) -> Vec<Option<String>> {
    let deadline = Instant::now() + TIME;
    let cache = match settings.cache.get("top-frames") {
        Some(directory) => SymbolCache::in_directory(&directory).limited(CACHE_LIMIT),
        None => SymbolCache::nowhere(),
    };
    let place = store.describe();
    let mut tops: Vec<_> = dumps
        .iter()
        .map(|dump| cached(&cache, &name(&place, dump)))
        .collect();
    let missing = tops.iter().enumerate().filter(|(_, top)| top.is_none());
    let missing: VecDeque<usize> = missing.map(|(number, _)| number).take(MAX_READ).collect();
    if missing.is_empty() {
        return tops;
    }
    let is_remote = matches!(settings.store, StoreUrl::S3 { .. });
    let here = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = if is_remote { PARALLEL } else { here };
    let threads = threads.min(missing.len());
    let dumps = Arc::new(dumps);
    let queue = Arc::new(Mutex::new(missing));
    let (sender, receiver) = channel();
    for _ in 0..threads {
        let (queue, dumps, sender) = (Arc::clone(&queue), Arc::clone(&dumps), sender.clone());
        let (store, settings) = (Arc::clone(store), settings.offline());
        // The threads are not joined: a server that does not answer must not delay the known
        // results.
        std::thread::spawn(move || {
            while Instant::now() < deadline
                && let Some(number) = queue.lock().ok().and_then(|mut queue| queue.pop_front())
                && let Some(dump) = dumps.get(number)
            {
                let read = || read(&settings, &store, dump, is_remote);
                let found = catch_unwind(AssertUnwindSafe(read))
                    .ok()
                    .and_then(Result::ok);
                let (text, is_named) = found.flatten().unzip();
                let is_named = is_named.unwrap_or(false);
                let found = Found {
                    number,
                    text,
                    is_named,
                };
                if sender.send(found).is_err() {
                    return;
                }
            }
        });
    }
    drop(sender);
    let left = || deadline.saturating_duration_since(Instant::now());
    while let Ok(found) = receiver.recv_timeout(left()) {
        if let Some(dump) = dumps.get(found.number)
            && let Some(text) = found.text.as_ref().filter(|_| found.is_named)
        {
            cache.put(&name(&place, dump), format!("{HEADER}{text}\n").as_bytes());
        }
        if let Some(top) = tops.get_mut(found.number) {
            *top = found.text;
        }
    }
    tops
}

/// The frame, and whether it has a function's name.
fn read(
    settings: &Settings,
    store: &Arc<dyn Store>,
    summary: &DumpSummary,
    is_remote: bool,
) -> Result<Option<(String, bool)>> {
    let dump = dump::open_summary(settings, store, summary.clone())?;
    if is_remote && !has_small_minicore(&dump) {
        return Ok(None);
    }
    let request = BacktraceRequest {
        all_threads: false,
        limit: FRAMES,
        tasks: TaskScope::Crashing,
        use_cache: true,
        disassemble: false,
    };
    let quick = match dump.quick_analysis() {
        Some(analysis) => Some(name_stacks(settings, &dump, analysis, &request, &Silent)),
        None => name_stored_stacks(settings, &dump, &request, &Silent),
    };
    let stacks = match quick {
        Some(stacks) => stacks,
        None => {
            let analysis = dump.analysis_in_place(settings, &Silent)?;
            name_stacks(settings, &dump, analysis, &request, &Silent)
        }
    };
    let frame = stacks.backtrace.own_frame();
    let is_named = frame.is_some_and(|frame| frame.function.is_ok());
    Ok(top_frame(&stacks.backtrace).map(|text| (text.chars().take(LONGEST).collect(), is_named)))
}

/// A dump without a minicore is read by ranges, which transfers as little.
fn has_small_minicore(dump: &Dump) -> bool {
    let entries = dump.bundle().map(|bundle| bundle.entries());
    let mut entries = entries.into_iter().flatten();
    let minicore = entries.find(|entry| entry.kind == Some(EntryKind::Minicore));
    minicore.is_none_or(|entry| entry.size <= MAX_MINICORE)
}

/// The cache file's name for a crash of a store. Without a fingerprint, each dump is a crash of its
/// own.
fn name(place: &str, dump: &DumpSummary) -> String {
    let crash = match &dump.fingerprint {
        Some(fingerprint) => format!("{fingerprint}\n{}\n{}", dump.exe, dump.signal),
        None => dump.id.to_string(),
    };
    Digests::of(format!("{place}\n{crash}").as_bytes())
        .sha256
        .to_string()
}

/// A file that is not in the exact format that we write is ignored.
fn cached(cache: &SymbolCache, name: &str) -> Option<String> {
    let bytes = cache.get(name)?;
    let text = std::str::from_utf8((*bytes).as_ref()).ok()?;
    let frame = text.strip_prefix(HEADER)?.strip_suffix('\n')?;
    let is_plain = !frame.is_empty() && !frame.contains('\n') && frame.chars().count() <= LONGEST;
    is_plain.then(|| terminal_line(frame))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tui::tests::dump;

    #[test]
    fn cached_frame_is_checked_before_it_is_used() {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().join("top-frames");
        let cache = SymbolCache::in_directory(&place);
        let name = name("here", &dump(1));
        assert_eq!(cached(&cache, &name), None);
        for (text, expected) in [
            ("cdh top frame 1\nmain a.c:7\n", Some("main a.c:7")),
            ("cdh top frame 1\nmain\x1b[2J\n", Some("main\\x1b[2J")),
            ("cdh top frame 1\nmain a.c:7", None),
            ("cdh top frame 1\n\n", None),
            ("cdh top frame 0\nmain\n", None),
            ("cdh top frame 1\na\nb\n", None),
            ("", None),
        ] {
            cache.put(&name, text.as_bytes());
            assert_eq!(cached(&cache, &name).as_deref(), expected, "{text:?}");
        }
    }

    #[test]
    fn crashes_of_other_stores_and_programs_have_other_frames() {
        let one = dump(1);
        let mut other = one.clone();
        other.exe = "other".into();
        assert_ne!(name("here", &one), name("there", &one));
        assert_ne!(name("here", &one), name("here", &other));
        let (mut first, mut second) = (dump(1), dump(2));
        (first.fingerprint, second.fingerprint) = (None, None);
        assert_ne!(name("here", &first), name("here", &second));
    }
}
