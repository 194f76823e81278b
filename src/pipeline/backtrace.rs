//! Makes symbolized stacks from a dump.

use std::time::SystemTime;

use anyhow::Result;
use cdh_cause::{Cause, Listing};
use cdh_elfcore::{Completeness, StackOverflow, Thread};
use cdh_runtimes::{AttachedRuntimes, RuntimeReport};
use cdh_symbolize::{
    Backtrace, BacktraceOptions, Fingerprint, LoadedModule, SectionArena, ThreadBacktrace,
};

use super::cause::{self, Evidence, Explained};
use super::file_index::FileIndex;
use super::sources::CrashedProcess;
use super::stored_stacks::StoredStacks;
use super::surroundings::DiskSurroundings;
use super::symbol_cache::SymbolCache;
use super::{
    Analysis, Dump, FileSource, FoundModule, Gathered, ModuleSearch, Observer, Origin, gather_files,
};
use crate::args::FileArgs;
use crate::report::{self, ExitStatus};
use crate::settings::Settings;

/// The signal by which `abort` ends a process (`signal.h`).
const SIGABRT: i32 = 6;

/// What to compute.
#[derive(Clone, Debug)]
pub struct BacktraceRequest {
    /// Every thread, not only the one that crashed.
    pub all_threads: bool,
    /// Maximum frames per thread.
    pub limit: usize,
    /// Which stacks of tasks to unwind, such as goroutines.
    pub tasks: TaskScope,
    /// Whether to use and extend the cache of earlier results.
    pub use_cache: bool,
    /// Whether to list the instructions around each frame of the crashing thread.
    pub disassemble: bool,
}

/// Tasks that a language runtime schedules on threads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TaskScope {
    /// The one that crashed; others are counted.
    #[default]
    Crashing,
    /// Those that the program started.
    Program,
    /// Those of the runtime itself too.
    All,
}

/// Stacks, and what they were made from.
pub struct NamedStacks {
    /// The stacks.
    pub backtrace: Backtrace,
    /// The core; absent if only the handler's stored stacks exist.
    pub analysis: Option<Analysis>,
    /// The message with which glibc aborted the process.
    pub abort_message: Option<String>,
    /// Why the process crashed; `None` if the crashing thread is not known.
    pub cause: Option<Cause>,
    /// Instructions around each frame of the crashing thread, if the request asks for them.
    pub listings: Vec<Option<Listing>>,
    /// What language runtimes show about the crash.
    pub runtimes: Vec<RuntimeReport>,
    /// Errors of sources that could not help.
    pub remarks: Vec<anyhow::Error>,
    /// Modification time of each module's file, if it is from this machine.
    pub module_times: Vec<Option<SystemTime>>,
    /// Memory that was read. A command that ends soon need not free it piece by piece.
    pub(super) read: (Vec<FoundModule>, SectionArena),
}

impl Dump {
    /// Where to look for the files of this dump's modules.
    #[must_use]
    pub fn module_search(&self, files: &FileArgs) -> ModuleSearch {
        let beside = match &self.origin {
            Origin::Core(path) => path.parent().map(std::path::Path::to_owned),
            _ => None,
        };
        let case = match &self.origin {
            Origin::Case(path) => Some(path.join("sysroot")).filter(|root| root.is_dir()),
            _ => None,
        };
        ModuleSearch {
            case,
            sysroot: files.sysroot.clone(),
            index: files.sysroot.clone().map(FileIndex::new),
            executable: files.exe.clone(),
            mappings: files.map.clone(),
            beside,
        }
    }
}

impl NamedStacks {
    /// Threads of the core, with their registers.
    #[must_use]
    pub fn threads(&self) -> &[Thread] {
        let analysis = self.analysis.as_ref();
        analysis.map_or(&[], |analysis| analysis.head.threads())
    }

    /// The overflowed stack, if that was the cause.
    #[must_use]
    pub fn overflow(&self) -> Option<StackOverflow> {
        let head = &self.analysis.as_ref()?.head;
        match &self.backtrace.original_signal {
            Some(original) => {
                let tid = self.backtrace.threads.first()?.tid;
                head.stack_overflow_at(tid, &original.signal, original.registers.as_ref()?)
            }
            None => head.stack_overflow(),
        }
    }

    /// Which parts of the core exist.
    #[must_use]
    pub fn completeness(&self) -> Option<&Completeness> {
        self.analysis.as_ref()?.completeness.as_ref()
    }

    /// Whether everything came from the minicore.
    #[must_use]
    pub fn is_from_minicore(&self) -> bool {
        let analysis = self.analysis.as_ref();
        analysis.is_some_and(|analysis| analysis.from_minicore)
    }
}

/// Unwinds and symbolizes the stacks of `dump`. Without a core, symbolizes the stacks that the handler
/// stored.
///
/// # Errors
/// If the dump holds neither a core nor stored stacks.
pub fn backtrace(
    settings: &Settings,
    dump: &Dump,
    request: &BacktraceRequest,
    observer: &dyn Observer,
) -> Result<NamedStacks> {
    match dump.analysis(settings, observer) {
        Ok(analysis) => Ok(name_stacks(settings, dump, analysis, request, observer)),
        Err(error) => {
            let stacks = name_stored_stacks(settings, dump, request, observer);
            let Some(mut stacks) = stacks else {
                return Err(error);
            };
            // Why an existing core is not used. If the dump has no core, its verdict says so.
            if report::status_of(&error) != ExitStatus::Nothing && !dump.is_damaged() {
                stacks.remarks.insert(0, error);
            }
            Ok(stacks)
        }
    }
}

/// Unwinds and symbolizes the stacks of an opened dump.
#[must_use]
pub fn name_stacks(
    settings: &Settings,
    dump: &Dump,
    analysis: Analysis,
    request: &BacktraceRequest,
    observer: &dyn Observer,
) -> NamedStacks {
    let name = |modules: &[LoadedModule<'_>],
                arena: &SectionArena,
                surroundings: &DiskSurroundings<'_>| {
        let process = cdh_runtimes::Process {
            threads: analysis.head.threads(),
            memory: &analysis.memory,
            modules,
            arena,
            surroundings,
        };
        let attached = AttachedRuntimes::of(&process);
        let options = BacktraceOptions {
            knows_crashed: analysis.head.knows_crashed_thread(),
            signal: analysis.head.signal(),
            crashed: attached.crashing_thread(),
            ..request.options()
        };
        let mut backtrace = cdh_symbolize::backtrace_with(
            analysis.head.threads(),
            &analysis.memory,
            modules,
            arena,
            &options,
            surroundings,
        );
        let original = backtrace.original_signal.as_ref();
        let numbers = [
            dump.manifest.signal.number,
            original.map_or(0, |original| original.signal.number),
        ];
        let ended_itself = numbers.contains(&SIGABRT);
        let message = ended_itself.then(|| {
            let message = cdh_symbolize::abort_message(modules, &analysis.memory);
            // The page is not in the minicore, or the file is missing.
            message.or_else(|| dump.stored_stacks()?.abort_message())
        });
        let message = message.flatten();
        let runtimes = attached.examine(&mut backtrace, &request.of_runtimes());
        // A minicore or a truncated core may lack what they need.
        let lacks_frames = |thread: &ThreadBacktrace| {
            thread.crashing && thread.frames.iter().all(|frame| !frame.interpreted)
        };
        if backtrace.threads.first().is_some_and(lacks_frames)
            && cdh_runtimes::may_interpret(modules)
            && let Some(stored) = dump.stored_stacks()
        {
            stored.put_interpreted(&mut backtrace);
        }
        let evidence = Evidence {
            modules,
            arena,
            surroundings,
            abort_message: message.as_deref(),
            runtimes: &runtimes,
        };
        let explained = cause::explain(&analysis, &evidence, &backtrace, request.disassemble);
        Named {
            backtrace,
            abort_message: message,
            runtimes,
            explained,
        }
    };
    let stacks = name_with(settings, dump, &analysis, request, observer, name);
    NamedStacks {
        analysis: Some(analysis),
        ..stacks
    }
}

/// Symbolizes the stacks that the handler stored; `None` if there are none.
#[must_use]
pub fn name_stored_stacks(
    settings: &Settings,
    dump: &Dump,
    request: &BacktraceRequest,
    observer: &dyn Observer,
) -> Option<NamedStacks> {
    let stored = dump.stored_stacks().filter(StoredStacks::has_frames)?;
    let name = |modules: &[LoadedModule<'_>],
                arena: &SectionArena,
                surroundings: &DiskSurroundings<'_>| {
        let stacks = stored.stacks();
        let options = request.options();
        let mut backtrace =
            cdh_symbolize::backtrace_of_stored(&stacks, modules, arena, &options, surroundings);
        stored.put_interpreted(&mut backtrace);
        let message = stored.abort_message();
        let explained = cause::explain_stored(dump, modules, &backtrace, message.as_deref());
        Named {
            backtrace,
            abort_message: message,
            runtimes: Vec::new(),
            explained,
        }
    };
    Some(name_with(settings, dump, &stored, request, observer, name))
}

impl BacktraceRequest {
    fn of_runtimes(&self) -> cdh_runtimes::Options {
        cdh_runtimes::Options {
            task_stacks: self.tasks != TaskScope::Crashing,
            system_tasks: self.tasks == TaskScope::All,
            max_frames: self.limit,
        }
    }

    fn options(&self) -> BacktraceOptions {
        BacktraceOptions {
            all_threads: self.all_threads,
            max_frames: self.limit,
            ..BacktraceOptions::default()
        }
    }
}

/// Symbolized stacks, and what they and the files of the process show.
struct Named {
    backtrace: Backtrace,
    abort_message: Option<String>,
    runtimes: Vec<RuntimeReport>,
    explained: Option<Explained>,
}

/// Gathers the files of a process and symbolizes its stacks with them.
fn name_with(
    settings: &Settings,
    dump: &Dump,
    process: &dyn CrashedProcess,
    request: &BacktraceRequest,
    observer: &dyn Observer,
    name: impl Fn(&[LoadedModule<'_>], &SectionArena, &DiskSurroundings<'_>) -> Named,
) -> NamedStacks {
    let search = dump.module_search(&settings.images.files);
    let all_threads = request.all_threads;
    let Gathered {
        modules, remarks, ..
    } = gather_files(settings, dump, process, &search, all_threads, observer);
    let loaded: Vec<_> = modules.iter().map(FoundModule::loaded).collect();
    let arena = super::memory::section_arena();
    let surroundings = DiskSurroundings {
        dump,
        modules: &modules,
        search: &search,
        cache: settings
            .cache
            .get("symbols")
            .filter(|_| request.use_cache)
            .map(|directory| SymbolCache::in_directory(&directory)),
    };
    let Named {
        mut backtrace,
        abort_message,
        runtimes,
        explained,
    } = name(&loaded, &arena, &surroundings);
    drop(loaded);
    if dump.is_damaged() {
        // The fingerprint of an incomplete stack would look like another bug.
        backtrace.fingerprint = None;
        backtrace.explanation = None;
    }
    state_fingerprint(dump, &mut backtrace);
    let module_times = modules.iter().map(time_of).collect();
    let (cause, listings) = match explained {
        Some(explained) => (Some(explained.cause), explained.listings),
        None => (None, Vec::new()),
    };
    NamedStacks {
        backtrace,
        module_times,
        analysis: None,
        abort_message,
        cause,
        listings,
        runtimes,
        remarks,
        read: (modules, arena),
    }
}

/// The fingerprint of a dump is the one in its manifest, whatever files are available here.
fn state_fingerprint(dump: &Dump, backtrace: &mut Backtrace) {
    let stated = dump.manifest.fingerprint.as_deref();
    let Some(stated) = stated.and_then(Fingerprint::parse) else {
        return;
    };
    if backtrace.fingerprint.as_ref() == Some(&stated) {
        return;
    }
    let stored = dump.stored_stacks();
    let made = stored.as_ref().and_then(StoredStacks::explanation);
    if let Some(made) = made.filter(|made| made.fingerprint == stated) {
        backtrace.explanation = Some(made.clone());
    }
    backtrace.fingerprint = Some(stated);
}

/// Files from images and stores have the time of their download.
fn time_of(found: &FoundModule) -> Option<SystemTime> {
    let is_local = matches!(found.source, Some(FileSource::Host | FileSource::Sysroot));
    let path = found.path.as_ref().filter(|_| is_local)?;
    std::fs::metadata(path).ok()?.modified().ok()
}
