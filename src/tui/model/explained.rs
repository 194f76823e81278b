//! Cache of what was read from single dumps beyond their keys: the last few dozen dumps.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use cdh_bundle::{DumpId, Manifest, WorkloadOwner};
use cdh_cause::{Cause, Listing};
use cdh_elfcore::{Completeness, Mapping, Segment, StackOverflow, Thread};
use cdh_inspect::FrameVariables;
use cdh_runtimes::RuntimeReport;
use cdh_store::ManifestFacts;
use cdh_symbolize::Backtrace;

use super::RequestId;
use crate::report::RenderedError;

/// Maximum number of cached dumps. A backtrace of ten thousand threads takes some hundred
/// megabytes, so frames are limited too.
const REMEMBERED: usize = 32;
/// Maximum number of frames in all cached backtraces.
const FRAMES: usize = 200_000;

/// How much of a dump is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Depth {
    /// The minicore, if there is one: enough for a backtrace.
    Quick,
    /// Everything.
    Full,
}

/// Facts from a manifest that filters and groups use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Facts for filters.
    pub compared: ManifestFacts,
    /// The object that owns the pod.
    pub owner: Option<WorkloadOwner>,
}

/// An open dump.
#[derive(Clone, Debug)]
pub struct Opened {
    /// Its manifest.
    pub manifest: Manifest,
    /// Where the dump was read from.
    pub origin: String,
    /// How much of a damaged bundle could be read.
    pub salvaged: Option<String>,
}

/// The stacks of a dump, and their inputs.
#[derive(Clone, Debug)]
pub struct Stacks {
    /// The stacks.
    pub backtrace: Backtrace,
    /// Threads with their registers.
    pub threads: Vec<Thread>,
    /// Variables of the frames.
    pub variables: FrameVariables,
    /// Which parts of the core exist.
    pub completeness: Option<Completeness>,
    /// The stack overflow, if that was the cause.
    pub overflow: Option<StackOverflow>,
    /// The message with which glibc aborted the process.
    pub abort_message: Option<String>,
    /// Why the process crashed.
    pub cause: Option<Cause>,
    /// Instructions around each frame of the crashing thread.
    pub listings: Vec<Option<Listing>>,
    /// What runtimes of languages know of the crash.
    pub runtimes: Vec<RuntimeReport>,
    /// Whether all of this came from the minicore.
    pub from_minicore: bool,
    /// Modification time of each module's file, if it is from this machine.
    pub module_times: Vec<Option<std::time::SystemTime>>,
    /// Names of threads, if known.
    pub names: BTreeMap<u32, String>,
    /// Mapped files.
    pub mappings: Vec<Mapping>,
    /// Mapped memory.
    pub segments: Vec<Segment>,
}

/// The texts of a dump.
#[derive(Clone, Debug, Default)]
pub struct Texts {
    /// Logs of containers: entry name and lines.
    pub logs: Vec<(String, String)>,
    /// JSON from the container runtime: entry name and value.
    pub runtime: Vec<(String, serde_json::Value)>,
    /// `/proc/<pid>/maps`.
    pub maps: Option<String>,
}

/// Lines of source around a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The file, as named in the debug information.
    pub file: String,
    /// The frame's line.
    pub line: u32,
    /// Number of the first line in `lines`.
    pub first: u32,
    /// Reasons why the lines may differ from the source of the program.
    pub warnings: Vec<String>,
    /// The lines, or why there are none.
    pub lines: Result<Vec<String>, String>,
}

/// What was read from a dump so far.
#[derive(Clone, Debug, Default)]
pub struct Explained {
    /// Its manifest, or why it cannot be opened.
    pub opened: Option<Result<Arc<Opened>, RenderedError>>,
    /// Its stacks, or why there are none.
    pub stacks: Option<Result<Arc<Stacks>, RenderedError>>,
    /// Its texts.
    pub texts: Option<Arc<Texts>>,
    /// How much was read.
    pub depth: Option<Depth>,
    /// The request in progress.
    pub pending: Option<(RequestId, Depth)>,
}

/// Cache of the most recently requested dumps.
#[derive(Clone, Debug, Default)]
pub struct DumpCache {
    dumps: HashMap<DumpId, Explained>,
    order: VecDeque<DumpId>,
}

impl DumpCache {
    /// What was read from a dump.
    #[must_use]
    pub fn get(&self, id: DumpId) -> Option<&Explained> {
        self.dumps.get(&id)
    }

    /// Its stacks, if they were read.
    #[must_use]
    pub fn stacks(&self, id: DumpId) -> Option<&Arc<Stacks>> {
        self.get(id)?.stacks.as_ref()?.as_ref().ok()
    }

    /// Its manifest and origin, if they were read.
    #[must_use]
    pub fn opened(&self, id: DumpId) -> Option<&Arc<Opened>> {
        self.get(id)?.opened.as_ref()?.as_ref().ok()
    }

    /// Whether a request is needed to reach this depth.
    #[must_use]
    pub fn lacks(&self, id: DumpId, depth: Depth) -> bool {
        self.get(id).is_none_or(|known| {
            let here = known.depth.is_some_and(|read| read >= depth);
            let comes = known.pending.is_some_and(|(_, asked)| asked >= depth);
            !here && !comes
        })
    }

    /// The cache entry of a dump; it becomes the most recent one.
    pub fn note(&mut self, id: DumpId) -> &mut Explained {
        self.order.retain(|known| *known != id);
        self.order.push_back(id);
        while self.order.len() > REMEMBERED || (self.order.len() > 2 && self.frames() > FRAMES) {
            if let Some(oldest) = self.order.pop_front() {
                self.dumps.remove(&oldest);
            }
        }
        self.dumps.entry(id).or_default()
    }

    fn frames(&self) -> usize {
        let stacks = self
            .dumps
            .values()
            .filter_map(|known| known.stacks.as_ref()?.as_ref().ok());
        let threads = stacks.flat_map(|stacks| &stacks.backtrace.threads);
        threads.map(|thread| thread.frames.len()).sum()
    }

    /// Clears the cache, or only failures, so that these are requested again.
    pub fn forget(&mut self, only_failures: bool) {
        let keep = |known: &Explained| {
            let failed =
                matches!(known.opened, Some(Err(_))) || matches!(known.stacks, Some(Err(_)));
            only_failures && !failed
        };
        self.dumps.retain(|_, known| keep(known));
        let dumps = &self.dumps;
        self.order.retain(|id| dumps.contains_key(id));
    }

    /// Whether answers are expected.
    #[must_use]
    pub fn is_pending(&self) -> bool {
        self.dumps.values().any(|known| known.pending.is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dump_cache_evicts_the_oldest_dumps_first() {
        let mut known = DumpCache::default();
        let ids: Vec<DumpId> = (0..40).map(|_| DumpId::random()).collect();
        for id in &ids {
            known.note(*id).depth = Some(Depth::Full);
            known.note(ids[0]);
        }
        assert!(known.get(ids[0]).is_some());
        assert!(known.get(ids[1]).is_none());
        assert!(known.get(ids[39]).is_some());
        assert!(known.dumps.len() <= REMEMBERED);
    }

    #[test]
    fn dump_cache_full_depth_satisfies_quick_requests() {
        let mut known = DumpCache::default();
        let id = DumpId::random();
        assert!(known.lacks(id, Depth::Quick));
        known.note(id).pending = Some((RequestId(1), Depth::Quick));
        assert!(!known.lacks(id, Depth::Quick) && known.lacks(id, Depth::Full));
        known.note(id).pending = None;
        known.note(id).depth = Some(Depth::Full);
        assert!(!known.lacks(id, Depth::Quick) && !known.lacks(id, Depth::Full));
    }
}
