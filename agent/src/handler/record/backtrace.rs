//! `backtrace.json`: the stacks as they were at the crash, as modules and addresses, without names.
//!
//! The files come from the process itself (`map_files`, else the path in the process's own root), so
//! that containers and deleted files give what was mapped; each is checked by build-id before it is
//! used. It runs in the child (see [`crate::handler::os::isolated`]), for these files are a stranger's: one that is
//! cut while it is mapped raises SIGBUS. A file on a foreign file system is not opened at all: its
//! server may never answer.

use std::fs::File;
use std::io::{self, BufWriter, Write};

use cdh_bundle::RawText;
use cdh_elfcore::{BuildId, CoreHead, MappedFile, Module, ModuleKind};
use cdh_runtimes::{StoredFrames, UnwoundStack};
use cdh_symbolize::{
    Explanation, Fingerprint, FrameTrust, LoadedModule, ModuleStatus, OriginalSignal, SectionArena,
    Stop, Unwinder, UnwoundFrame,
};
use rustix::fs::{Mode, OFlags, ResolveFlags, openat, openat2};
use serde::{Deserialize, Serialize};

use super::runtime_frames::{self, RuntimeFrames, TimedMemory};
use super::subject::Subject;
use crate::handler::memory::live_memory::LiveMemory;
use crate::handler::process::handles::ProcessHandles;
use crate::handler::process::maps::Kind;

/// Frames of the crashing thread at most: both ends of an endless recursion show enough.
const CRASHING_FRAMES: usize = Unwinder::CRASHING_FRAMES;
/// Frames of each other thread at most.
const OTHER_FRAMES: usize = 256;
/// By which `abort` ends a process (`signal.h`).
const SIGABRT: i32 = 6;
/// Bytes of decompressed sections (`.debug_frame`) that may be needed.
const SECTIONS: u64 = 32 << 20;

/// Contents of `backtrace.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RawBacktrace {
    /// 1.
    pub schema: u32,
    /// Of the crashing thread, by the names that symbol tables give.
    pub fingerprint: Option<String>,
    /// How the fingerprint was made; absent from dumps of earlier agents.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub explanation: Option<Explanation>,
    /// The fault beneath a signal handler that then ended the process or crashed itself; frame numbers are those of
    /// the first thread. Absent if there is none, and from dumps of earlier agents.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub original_signal: Option<OriginalSignal>,
    /// The text with which glibc ended the process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub abort_message: Option<String>,
    /// The crashing thread first.
    pub threads: Vec<RawThread>,
    /// Frames refer to these by index.
    pub modules: Vec<RawModule>,
}

/// One thread.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RawThread {
    /// Thread id in the process's own pid namespace.
    pub tid: u32,
    /// Whether it received the fatal signal.
    pub crashing: bool,
    /// Why there are no more frames.
    pub stop: Stop,
    /// Innermost first.
    pub frames: Vec<RawFrame>,
    /// Frames of an interpreted language that take the place of some of these. Absent if there are none, and from
    /// dumps of earlier agents.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub interpreted: Vec<StoredFrames>,
}

/// One frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RawFrame {
    /// Program counter.
    pub pc: u64,
    /// Module it lies in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub module: Option<usize>,
    /// `pc` as the module's file states it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub svma: Option<u64>,
    /// Whether `pc` is a return address: look up the byte before it.
    pub is_return_address: bool,
    /// How it was found.
    pub trust: FrameTrust,
    /// Whether it is the trampoline that called a signal handler.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub signal_frame: bool,
}

/// One module.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RawModule {
    /// Path as the process saw it.
    pub path: RawText,
    /// From the process's memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub build_id: Option<BuildId>,
    /// Whether its file was there and is the right one.
    pub status: ModuleStatus,
}

impl RawBacktrace {
    /// Unwinds every thread of the process. Also returns whether frames of an interpreted language are missing because
    /// the time was up. What is read of runtimes may add `room` bytes to the record of `memory`.
    pub(crate) fn take(
        head: &CoreHead,
        modules: &[Module],
        of: Subject<'_>,
        memory: &LiveMemory<'_>,
        room: u64,
    ) -> (Self, bool) {
        let files: Vec<_> = modules.iter().map(|module| open(of, module)).collect();
        let arena = SectionArena::with_limit(SECTIONS);
        let loaded: Vec<LoadedModule<'_>> = modules
            .iter()
            .zip(&files)
            .map(|(module, file)| match file {
                _ if module.kind == ModuleKind::Vdso => {
                    LoadedModule::from_memory(module, memory, &arena)
                }
                Ok(file) => LoadedModule::from_file(module, file.bytes()),
                Err(error) => LoadedModule::unreadable(module, error.to_string()),
            })
            .collect();
        let unwinder = Unwinder::new(&loaded);
        let timed = TimedMemory::new(memory, room);
        let process = runtime_frames::process(head, &timed, &loaded, &arena);
        let mut runtime_frames = RuntimeFrames::of(&process, &timed);
        let (mut explanation, mut original_signal) = (None, None);
        let mut threads = Vec::new();
        let threads_of = head.threads();
        let stated = runtime_frames.crashing_thread();
        let stated = stated.and_then(|tid| threads_of.iter().position(|one| one.tid == tid));
        let crashing =
            stated.unwrap_or_else(|| unwinder.crashing_thread(threads_of, head.signal(), memory));
        let (before, after) = threads_of.split_at(crashing);
        let (first, after) = after.split_at(after.len().min(1));
        let in_order = first.iter().chain(before).chain(after);
        for (index, thread) in in_order.enumerate() {
            let limit = if index == 0 {
                CRASHING_FRAMES
            } else {
                OTHER_FRAMES
            };
            let (frames, stop) = unwinder.unwind(&thread.registers, memory, limit);
            if index == 0 {
                original_signal = unwinder.original_signal(thread, head.signal(), &frames, memory);
                let original = original_signal.as_ref();
                explanation = Fingerprint::from_stack(&frames, stop, original, &loaded);
            }
            let interpreted = runtime_frames.read(&UnwoundStack {
                tid: thread.tid,
                crashing: index == 0,
                frames: &frames,
                stop,
                original: original_signal.as_ref().filter(|_| index == 0),
            });
            explanation = interpreted.explanation.or(explanation);
            threads.push(RawThread {
                tid: thread.tid,
                crashing: index == 0,
                stop,
                frames: frames.iter().map(raw_frame).collect(),
                interpreted: interpreted.frames,
            });
        }
        if let Some(first) = threads.first() {
            runtime_frames.touch(first.tid);
        }
        let module = |loaded: &LoadedModule<'_>| RawModule {
            path: RawText::new(loaded.module.path.clone()),
            build_id: loaded.module.build_id.clone(),
            status: loaded.status.clone(),
        };
        let taken = Self {
            schema: 1,
            fingerprint: explanation
                .as_ref()
                .map(|explained| explained.fingerprint.to_string()),
            explanation,
            abort_message: head
                .signal()
                .into_iter()
                .chain(original_signal.as_ref().map(|original| original.signal))
                .any(|signal| signal.number == SIGABRT)
                .then(|| cdh_symbolize::abort_message(&loaded, memory))
                .flatten(),
            original_signal,
            threads,
            modules: loaded.iter().map(module).collect(),
        };
        (taken, runtime_frames.is_late)
    }

    /// Writes the file.
    pub(crate) fn write(&self, out: &File) -> io::Result<()> {
        let mut out = BufWriter::with_capacity(64 << 10, out);
        serde_json::to_writer(&mut out, self)?;
        out.flush()?;
        out.get_ref().sync_all()
    }
}

fn raw_frame(frame: &UnwoundFrame) -> RawFrame {
    RawFrame {
        pc: frame.pc.0,
        module: frame.module,
        svma: frame.svma.map(|svma| svma.0),
        is_return_address: frame.is_return_address,
        trust: frame.trust,
        signal_frame: frame.signal_frame,
    }
}

/// Maps the file of a module.
#[allow(unsafe_code)]
fn open(of: Subject<'_>, module: &Module) -> io::Result<MappedFile> {
    let file = open_file(of, module)?;
    // SAFETY: this runs in the isolated child, whose answer the handler checks: a file that is changed or
    // cut meanwhile costs this backtrace, not the dump.
    unsafe { MappedFile::map(&file) }
}

/// Opens the file of a module.
///
/// # Errors
/// When there is none, it is not a regular file, or its server may not answer.
pub(crate) fn open_file(of: Subject<'_>, module: &Module) -> io::Result<File> {
    if module.kind == ModuleKind::Vdso {
        return Err(io::ErrorKind::NotFound.into());
    }
    let maps = of
        .maps
        .ok_or_else(|| io::Error::other("its file system is not known"))?;
    let is_foreign = module.ranges.iter().any(|range| {
        let mapped = range.start.0..range.end.0;
        maps.overlapping(&mapped)
            .any(|range| range.kind == Kind::Foreign)
    });
    if is_foreign {
        return Err(io::Error::other(
            "it is on a file system whose server may not answer",
        ));
    }
    let process = of.process;
    let file = open_mapped(process, module).or_else(|_| open_in_root(process, module))?;
    // Never a FIFO or a device: reading could block or have an effect.
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    Ok(file)
}

/// The mapped file itself, whatever its path leads to now.
fn open_mapped(process: &ProcessHandles, module: &Module) -> io::Result<File> {
    let range = module.ranges.first().ok_or(io::ErrorKind::NotFound)?;
    process.open_file(&format!("map_files/{:x}-{:x}", range.start.0, range.end.0))
}

/// The file at the path in the root of the process. No link leads out of it.
fn open_in_root(process: &ProcessHandles, module: &Module) -> io::Result<File> {
    let path = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = process.open_directory_as("root", path)?;
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    match openat2(&root, module.path.as_slice(), flags, Mode::empty(), resolve) {
        Ok(file) => Ok(file.into()),
        // Before Linux 5.6: only for processes in our own root, where a plain open means the same.
        Err(rustix::io::Errno::NOSYS) if process.read_link("root")?.as_bytes() == b"/" => {
            Ok(openat(&root, module.path.as_slice(), flags, Mode::empty())?.into())
        }
        Err(error) => Err(error.into()),
    }
}
