//! What is known of single dumps beyond their keys: as it comes, the last few dozen of them.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use cdh_bundle::{DumpId, Manifest, WorkloadOwner};
use cdh_elfcore::{Completeness, Mapping, Segment, StackOverflow, Thread};
use cdh_store::ManifestFacts;
use cdh_symbolize::Backtrace;

use super::RequestId;
use crate::report::Told;

/// Dumps that are remembered. A backtrace of ten thousand threads takes some hundred megabytes, so the
/// frames are counted too.
const REMEMBERED: usize = 32;
/// Frames of all remembered backtraces together.
const FRAMES: usize = 200_000;

/// How much of a dump is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Depth {
    /// The minicore, where there is one: enough for a backtrace.
    Quick,
    /// Whatever there is.
    Full,
}

/// What filters and groups need of a manifest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// What filters compare.
    pub compared: ManifestFacts,
    /// The object that its pod belongs to.
    pub owner: Option<WorkloadOwner>,
}

/// A dump that was opened.
#[derive(Clone, Debug)]
pub struct Opened {
    /// What it says of itself.
    pub manifest: Manifest,
    /// Where it is.
    pub origin: String,
    /// How far a damaged bundle could be read.
    pub salvaged: Option<String>,
}

/// Its stacks, and what they were made from.
#[derive(Clone, Debug)]
pub struct Stacks {
    /// The stacks.
    pub backtrace: Backtrace,
    /// Threads with their registers.
    pub threads: Vec<Thread>,
    /// What there is of the core.
    pub completeness: Option<Completeness>,
    /// The stack that was full, if that was the cause.
    pub overflow: Option<StackOverflow>,
    /// The text with which glibc ended the process.
    pub abort_message: Option<String>,
    /// Whether all came from the minicore.
    pub from_minicore: bool,
    /// When the file of each module was written, if it is this machine's.
    pub module_times: Vec<Option<std::time::SystemTime>>,
    /// Names of threads, where they are known.
    pub names: BTreeMap<u32, String>,
    /// Files that were mapped.
    pub mappings: Vec<Mapping>,
    /// Memory that was mapped.
    pub segments: Vec<Segment>,
}

/// Its texts.
#[derive(Clone, Debug, Default)]
pub struct Texts {
    /// Logs of containers: the entry's name, and its lines.
    pub logs: Vec<(String, String)>,
    /// What the runtime told: the entry's name, and its JSON.
    pub runtime: Vec<(String, serde_json::Value)>,
    /// `/proc/<pid>/maps`.
    pub maps: Option<String>,
}

/// Lines of source around a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The file as the debug information names it.
    pub file: String,
    /// The frame's line.
    pub line: u32,
    /// Number of the first line here.
    pub first: u32,
    /// Why they may not be what the program was built from.
    pub warnings: Vec<String>,
    /// The lines; or why there are none.
    pub lines: Result<Vec<String>, String>,
}

/// What has come of a dump until now.
#[derive(Clone, Debug, Default)]
pub struct Explained {
    /// Its manifest; or why it cannot be opened.
    pub opened: Option<Result<Arc<Opened>, Told>>,
    /// Its stacks; or why there are none.
    pub stacks: Option<Result<Arc<Stacks>, Told>>,
    /// Its texts.
    pub texts: Option<Arc<Texts>>,
    /// How deep it was read.
    pub depth: Option<Depth>,
    /// What was asked and is not answered yet.
    pub pending: Option<(RequestId, Depth)>,
}

/// What is known of dumps, the last ones that were asked for.
#[derive(Clone, Debug, Default)]
pub struct Known {
    dumps: HashMap<DumpId, Explained>,
    order: VecDeque<DumpId>,
}

impl Known {
    /// What is known of a dump.
    #[must_use]
    pub fn get(&self, id: DumpId) -> Option<&Explained> {
        self.dumps.get(&id)
    }

    /// Its stacks, where they have come.
    #[must_use]
    pub fn stacks(&self, id: DumpId) -> Option<&Arc<Stacks>> {
        self.get(id)?.stacks.as_ref()?.as_ref().ok()
    }

    /// Its manifest and what goes with it, where they have come.
    #[must_use]
    pub fn opened(&self, id: DumpId) -> Option<&Arc<Opened>> {
        self.get(id)?.opened.as_ref()?.as_ref().ok()
    }

    /// Whether a question has to be asked to know this much.
    #[must_use]
    pub fn lacks(&self, id: DumpId, depth: Depth) -> bool {
        self.get(id).is_none_or(|known| {
            let here = known.depth.is_some_and(|read| read >= depth);
            let comes = known.pending.is_some_and(|(_, asked)| asked >= depth);
            !here && !comes
        })
    }

    /// A place to note what is known of a dump; it is the last to be forgotten.
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

    /// Forgets everything, or what failed, so that it is asked again.
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

    /// Whether answers are awaited.
    #[must_use]
    pub fn is_pending(&self) -> bool {
        self.dumps.values().any(|known| known.pending.is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn oldest_dumps_are_forgotten_first() {
        let mut known = Known::default();
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
    fn deeper_knowledge_answers_shallower_questions() {
        let mut known = Known::default();
        let id = DumpId::random();
        assert!(known.lacks(id, Depth::Quick));
        known.note(id).pending = Some((RequestId(1), Depth::Quick));
        assert!(!known.lacks(id, Depth::Quick) && known.lacks(id, Depth::Full));
        known.note(id).pending = None;
        known.note(id).depth = Some(Depth::Full);
        assert!(!known.lacks(id, Depth::Quick) && !known.lacks(id, Depth::Full));
    }
}
