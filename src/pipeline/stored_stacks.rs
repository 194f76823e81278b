//! The stacks that the handler unwound at the crash and stored as `backtrace.json`. They are used for dumps
//! without a core, and if files are missing here.
//!
//! The entry is untrusted like the rest of a bundle: indices are checked, and a file is used only if it
//! has the build-id that the handler read from the process.

use std::collections::HashMap;

use cdh_agent::handler::{RawBacktrace, RawModule, RawThread};
use cdh_bundle::{EntryKind, Manifest, ModuleRecord, RawText};
use cdh_elfcore::{
    Avma, BuildId, CoreFile, FileOffset, Machine, Memory, Module, ModuleKind, ModuleRange, Svma,
};
use cdh_symbolize::{
    Backtrace, Explanation, Frame, LoadedModule, ModuleNeed, StoredStack, UnwoundFrame, needs_of,
};

use super::files::open_regular;
use super::sources::CrashedProcess;
use super::{Dump, FoundModule, Origin};

/// Maximum size of the entry; that of a thousand threads has one or two MiB.
const LARGEST: u64 = 64 << 20;

/// Maximum number of threads; real processes have fewer.
const MAX_THREADS: usize = 16 << 10;

/// The handler's stored stacks of one process.
pub(super) struct StoredStacks {
    raw: RawBacktrace,
    modules: Vec<Module>,
    machine: Machine,
}

struct NoMemory;

impl Memory for NoMemory {
    fn read(&self, _: Avma, _: &mut [u8]) -> usize {
        0
    }
}

impl Dump {
    /// The stacks that the handler stored; `None` if there are none that can be read.
    pub(super) fn stored_stacks(&self) -> Option<StoredStacks> {
        let json = match (&self.origin, self.bundle()) {
            (Origin::Case(path), _) => {
                let file = open_regular(&path.join(EntryKind::Backtrace.file_name())).ok()?;
                let mut json = Vec::new();
                std::io::Read::read_to_end(&mut std::io::Read::take(file, LARGEST), &mut json)
                    .ok()?;
                json
            }
            (_, Some(bundle)) => {
                bundle.entry(&EntryKind::Backtrace)?;
                match bundle.small_entry(&EntryKind::Backtrace, LARGEST) {
                    Ok(json) => json,
                    Err(error) => {
                        self.note_damage(error.to_string());
                        return None;
                    }
                }
            }
            _ => return None,
        };
        StoredStacks::parse(&json, &self.manifest)
    }
}

impl StoredStacks {
    fn parse(json: &[u8], manifest: &Manifest) -> Option<Self> {
        let raw: RawBacktrace = serde_json::from_slice(json).ok()?;
        if raw.threads.len() > MAX_THREADS {
            return None;
        }
        let machine = Machine::from_name(&manifest.machine).unwrap_or(Machine::X86_64);
        let modules = modules_of(&raw, manifest);
        Some(Self {
            modules,
            machine,
            raw,
        })
    }

    /// How the handler computed the dump's fingerprint.
    pub(super) fn explanation(&self) -> Option<&Explanation> {
        self.raw.explanation.as_ref()
    }

    /// The message with which glibc aborted the process.
    pub(super) fn abort_message(&self) -> Option<String> {
        self.raw.abort_message.clone()
    }

    /// The stacks, whose frames refer to the modules of [`CrashedProcess::modules`].
    pub(super) fn stacks(&self) -> Vec<StoredStack> {
        let same = |index: usize| Some(index).filter(|index| *index < self.modules.len());
        self.raw
            .threads
            .iter()
            .map(|thread| self.stack(thread, same))
            .collect()
    }

    /// The stacks, whose frames refer to `modules`.
    pub(super) fn stacks_in(&self, modules: &[FoundModule]) -> Vec<StoredStack> {
        let known: HashMap<_, usize> = modules
            .iter()
            .enumerate()
            .map(|(index, found)| (key(&found.module.path, &found.module.build_id), index))
            .collect();
        let places: Vec<Option<usize>> = self
            .modules
            .iter()
            .map(|stored| known.get(&key(&stored.path, &stored.build_id)).copied())
            .collect();
        let place = |index: usize| places.get(index).copied().flatten();
        self.raw
            .threads
            .iter()
            .map(|thread| self.stack(thread, place))
            .collect()
    }

    fn stack(&self, thread: &RawThread, place: impl Fn(usize) -> Option<usize>) -> StoredStack {
        let frames = thread.frames.iter().map(|frame| {
            let module = frame.module.and_then(&place);
            UnwoundFrame {
                pc: Avma(frame.pc),
                sp: None,
                trust: frame.trust,
                module,
                svma: module.and(frame.svma).map(Svma),
                is_return_address: frame.is_return_address,
                signal_frame: frame.signal_frame,
            }
        });
        StoredStack {
            tid: thread.tid,
            crashing: thread.crashing,
            frames: frames.collect(),
            stop: thread.stop,
            original: self.raw.original_signal.clone().filter(|_| thread.crashing),
        }
    }

    /// Puts frames of an interpreted language that the handler read into those threads that have only native ones, and
    /// the same native ones.
    pub(super) fn put_interpreted(&self, backtrace: &mut Backtrace) {
        let stored: HashMap<u32, &RawThread> = self
            .raw
            .threads
            .iter()
            .filter(|thread| !thread.interpreted.is_empty())
            .map(|thread| (thread.tid, thread))
            .collect();
        for (index, thread) in backtrace.threads.iter_mut().enumerate() {
            let native = || thread.frames.iter().filter_map(Frame::as_unwound);
            let is_same = |stored: &&&RawThread| {
                let pairs = native().zip(&stored.frames);
                let is_native = thread.frames.iter().all(|frame| !frame.interpreted);
                is_native
                    && pairs
                        .into_iter()
                        .all(|(here, stored)| here.pc.0 == stored.pc)
            };
            if let Some(stored) = stored.get(&thread.tid).filter(is_same) {
                let original = backtrace.original_signal.as_mut().filter(|_| index == 0);
                cdh_runtimes::put_stored(thread, original, &stored.interpreted);
            }
        }
    }

    /// Whether there is any frame.
    pub(super) fn has_frames(&self) -> bool {
        self.raw
            .threads
            .iter()
            .any(|thread| !thread.frames.is_empty())
    }
}

impl CrashedProcess for StoredStacks {
    fn modules(&self) -> Vec<FoundModule> {
        let modules = self.modules.iter().cloned();
        modules
            .map(|module| FoundModule::new(module, &NoMemory))
            .collect()
    }

    fn evidence(&self) -> &[CoreFile] {
        &[]
    }

    fn machine(&self) -> Machine {
        self.machine
    }

    fn needs(&self, modules: &[LoadedModule<'_>], all_threads: bool) -> Vec<ModuleNeed> {
        let stacks = self.stacks();
        let wanted = stacks.iter().filter(|stack| all_threads || stack.crashing);
        needs_of(modules, wanted.flat_map(|stack| &stack.frames))
    }
}

/// The facts that identify a module.
fn key<'a>(path: &'a [u8], id: &'a Option<BuildId>) -> (&'a [u8], Option<&'a BuildId>) {
    (path, id.as_ref())
}

/// The modules as a core would show them, as far as frames and manifest say.
fn modules_of(raw: &RawBacktrace, manifest: &Manifest) -> Vec<Module> {
    let mut biases: HashMap<usize, u64> = HashMap::new();
    for frame in raw.threads.iter().flat_map(|thread| &thread.frames) {
        if let (Some(module), Some(svma)) = (frame.module, frame.svma) {
            let bias = frame.pc.wrapping_sub(svma);
            biases.entry(module).or_insert(bias);
        }
    }
    let records: HashMap<_, &ModuleRecord> = manifest
        .modules
        .iter()
        .map(|record| (key(record.path.as_bytes(), &record.build_id), record))
        .collect();
    let exe = manifest.process.exe.as_ref().map(RawText::as_bytes);
    let module = |(index, stored): (usize, &RawModule)| {
        let path = stored.path.as_bytes();
        let record = records.get(&key(path, &stored.build_id));
        let range = record.map(|record| ModuleRange {
            start: Avma(record.start),
            end: Avma(record.end),
            offset: FileOffset(0),
        });
        Module {
            path: path.to_vec(),
            // Without a build-id, nothing proves that a file at this path is the mapped one.
            deleted: stored.build_id.is_none(),
            kind: match record {
                Some(record) => record.kind,
                None if path == b"[vdso]" => ModuleKind::Vdso,
                None if exe == Some(path) => ModuleKind::Executable,
                None => ModuleKind::Library,
            },
            ranges: range.into_iter().collect(),
            build_id: stored.build_id.clone(),
            bias: biases.get(&index).copied(),
        }
    };
    raw.modules.iter().enumerate().map(module).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn stored_frame_that_names_no_module_has_none() {
        let manifest = json!({
            "schema": 1, "id": "6a4f4e4d-9c55-4f0b-8f38-8a8f7c5d4e3b", "stem": "s",
            "captured_at": "2026-01-01T00:00:00Z", "process": {"pid": 7},
            "signal": {"number": 11}, "verdict": {"state": "complete"},
        });
        let manifest = Manifest::from_json(manifest.to_string().as_bytes()).unwrap();
        let frame = |module: usize| {
            json!({"pc": 0x5010, "svma": 0x10, "module": module,
                   "is_return_address": false, "trust": "registers"})
        };
        let stored = json!({
            "schema": 1, "fingerprint": null,
            "threads": [{"tid": 7, "crashing": true, "stop": "end", "frames": [frame(0), frame(9)]}],
            "modules": [{"path": "/app", "status": "verified"}],
        });
        let stored = StoredStacks::parse(stored.to_string().as_bytes(), &manifest).unwrap();
        let stacks = stored.stacks();
        let frames = &stacks[0].frames;
        assert_eq!(
            (frames[0].module, frames[0].svma),
            (Some(0), Some(Svma(0x10)))
        );
        assert_eq!((frames[1].module, frames[1].svma), (None, None));
        let module = &stored.modules()[0].module;
        assert_eq!((module.bias, module.deleted), (Some(0x5000), true));
        assert!(StoredStacks::parse(b"[1]", &manifest).is_none());
    }
}
