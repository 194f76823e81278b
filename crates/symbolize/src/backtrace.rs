//! The whole job: threads, memory and modules to a backtrace with names.

use std::borrow::Cow;
use std::time::{Duration, Instant};

use cdh_elfcore::{BuildId, Memory, ModuleKind, Registers, SignalInfo, Thread};
use rayon::prelude::*;

use crate::lines::Lines;
use crate::symbolizer::{has_debug_info, has_symbols};
use crate::{
    Alone, Explanation, Fingerprint, Frame, FrameTrust, LoadedModule, ModuleNeed, ModuleStatus,
    OriginalSignal, SectionArena, Stop, Surroundings, Symbolizer, Unwinder, UnwoundFrame, needs_of,
};

/// Frames of all threads together, and those that each may have in any case: a hostile core can claim
/// ten thousand endless stacks. The crashing thread is not cut.
const FRAMES: usize = 1 << 20;
const FRAMES_OF_A_THREAD: usize = 256;

/// Threads that are unwound sooner than helpers are started for them.
const FEW: usize = 32;
/// Threads are unwound in so many tasks by each core, so that one deep stack does not hold up the rest.
const TASKS_OF_A_CORE: usize = 4;
const LARGEST_TASK: usize = 256;

/// What to unwind, and how far.
#[derive(Clone, Debug)]
pub struct BacktraceOptions {
    /// All threads, or only the crashing one.
    pub all_threads: bool,
    /// Most frames of one thread, inlined calls not counted.
    pub max_frames: usize,
    /// Whether the first thread is known to be the one that crashed.
    pub knows_crashed: bool,
    /// The signal that ended the process, where it is known.
    pub signal: Option<SignalInfo>,
    /// Id of the thread that crashed, if it is known not to be the one that received the signal.
    pub crashed: Option<u32>,
}

impl Default for BacktraceOptions {
    fn default() -> Self {
        Self {
            all_threads: true,
            max_frames: 16 << 10,
            knows_crashed: true,
            signal: None,
            crashed: None,
        }
    }
}

/// The stacks of a crashed process.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct Backtrace {
    /// The crashing thread first.
    pub threads: Vec<ThreadBacktrace>,
    /// The fault beneath a signal handler that then ended the process or crashed itself: the crash. Its frame
    /// numbers are those of the first thread here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub original_signal: Option<OriginalSignal>,
    /// All modules; frames refer to them by index.
    pub modules: Vec<ModuleReport>,
    /// Of the crashing thread.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<Fingerprint>,
    /// How the fingerprint came about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub explanation: Option<Explanation>,
    /// How long it took.
    pub elapsed: Elapsed,
}

/// Where the time went, in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Elapsed {
    /// Unwinding of all threads; debug information is opened meanwhile.
    pub unwind_micros: u64,
    /// Naming of all frames, after that.
    pub symbolize_micros: u64,
}

/// The stack of one thread.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct ThreadBacktrace {
    /// Thread id in the process's own pid namespace.
    pub tid: u32,
    /// Whether it is the one that received the fatal signal.
    pub crashing: bool,
    /// Innermost first.
    pub frames: Vec<Frame>,
    /// Why there are no more.
    pub stop: Stop,
    /// Whether the handler unwound it at the crash: the core or files that it takes are not here.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stored: bool,
}

/// A stack that was unwound earlier. The handler stores those of every crash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredStack {
    /// Thread id in the process's own pid namespace.
    pub tid: u32,
    /// Whether it is the one that received the fatal signal.
    pub crashing: bool,
    /// Innermost first.
    pub frames: Vec<UnwoundFrame>,
    /// Why there are no more.
    pub stop: Stop,
    /// The fault beneath a signal handler.
    pub original: Option<OriginalSignal>,
}

impl Backtrace {
    /// Frames of the crashing thread from the crash on: without those of a signal handler that ran because of it.
    #[must_use]
    pub fn crash_frames(&self) -> &[Frame] {
        let Some(thread) = self.threads.first() else {
            return &[];
        };
        let original = self.original_signal.as_ref();
        OriginalSignal::frames(original.filter(|_| thread.crashing), &thread.frames)
    }

    /// The registers at the crash.
    #[must_use]
    pub fn crash_registers<'r>(&'r self, threads: &'r [Thread]) -> Option<&'r Registers> {
        let tid = self.threads.first()?.tid;
        let thread = threads.iter().find(|thread| thread.tid == tid)?;
        Some(self.registers_of(thread))
    }

    /// The registers of a thread; of the crashing one those at the crash, not those in its signal handler.
    #[must_use]
    pub fn registers_of<'r>(&'r self, thread: &'r Thread) -> &'r Registers {
        let is_crashing = |known: &&ThreadBacktrace| known.crashing && known.tid == thread.tid;
        let original = self.original_signal.as_ref();
        let original = original.filter(|_| self.threads.iter().any(|known| is_crashing(&known)));
        original
            .and_then(|original| original.registers.as_ref())
            .unwrap_or(&thread.registers)
    }
}

/// What was known of a module.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ModuleReport {
    /// Path as the process saw it, for people.
    pub path: String,
    /// From the core.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub build_id: Option<BuildId>,
    /// Whether its file was found and is the right one.
    pub status: ModuleStatus,
    /// Whether a symbol table was there.
    pub has_symbols: bool,
    /// Whether debug information was there.
    pub has_debug_info: bool,
}

/// Unwinds and names. The first of `threads` is the crashing one, as the kernel writes them.
///
/// The vdso's image is read from memory where the caller has none.
#[must_use]
pub fn backtrace(
    threads: &[Thread],
    memory: &(dyn Memory + Sync),
    modules: &[LoadedModule<'_>],
    arena: &SectionArena,
    options: &BacktraceOptions,
) -> Backtrace {
    backtrace_with(threads, memory, modules, arena, options, &Alone)
}

/// As [`backtrace`], with files and memories that the caller has.
#[must_use]
pub fn backtrace_with(
    threads: &[Thread],
    memory: &(dyn Memory + Sync),
    modules: &[LoadedModule<'_>],
    arena: &SectionArena,
    options: &BacktraceOptions,
    surroundings: &dyn Surroundings,
) -> Backtrace {
    let modules = with_vdso(modules, memory, arena);
    let start = Instant::now();
    let symbolizer = Symbolizer::new(&modules, arena, surroundings);
    let unwinder = Unwinder::new(&modules);
    let threads = &crashing_first(&unwinder, threads, memory, options);
    let unwind = || {
        let stacks = unwind_all(&unwinder, threads, memory, options);
        (stacks, Instant::now())
    };
    // Opening what the crashing thread needs takes longest: it begins while the others are unwound.
    let open = || {
        let crashing = threads.first().map(|thread| {
            let limit = options.max_frames.min(FRAMES_OF_A_THREAD);
            unwinder.unwind(&thread.registers, memory, limit)
        });
        symbolizer.open(crashing.iter().flat_map(|(frames, _)| frames));
    };
    let (stacks, unwound) = if is_many(threads, options) {
        rayon::join(unwind, open).0
    } else {
        unwind()
    };
    let is_unsure = |(frames, stop): (&[UnwoundFrame], Stop)| is_early(stop) || guesses(frames) > 0;
    let mut stored = match stacks.iter().any(is_unsure) {
        true => surroundings.stored_stacks(),
        false => Vec::new(),
    };
    stored.sort_by_key(|stack| stack.tid);
    let shown = threads.iter().zip(stacks.iter()).enumerate();
    let shown = shown.map(|(index, (thread, (frames, stop)))| {
        let crashing = index == 0 && options.knows_crashed;
        let original =
            crashing.then(|| unwinder.original_signal(thread, options.signal, frames, memory));
        let shown = Shown {
            tid: thread.tid,
            crashing,
            frames,
            stop,
            original: original.flatten(),
            stored: false,
            limit: options.max_frames,
        };
        shown.or_longer(&stored)
    });
    let spent = unwound.saturating_duration_since(start);
    named(&symbolizer, &modules, &shown.collect::<Vec<_>>(), spent)
}

/// Names stacks that were unwound earlier, of a process whose core is not here.
#[must_use]
pub fn backtrace_of_stored(
    stacks: &[StoredStack],
    modules: &[LoadedModule<'_>],
    arena: &SectionArena,
    options: &BacktraceOptions,
    surroundings: &dyn Surroundings,
) -> Backtrace {
    let symbolizer = Symbolizer::new(modules, arena, surroundings);
    let mut shown: Vec<Shown<'_>> = stacks
        .iter()
        .map(|stack| Shown::stored(stack, options.max_frames))
        .collect();
    shown.sort_by_key(|stack| !stack.crashing);
    shown.truncate(if options.all_threads { usize::MAX } else { 1 });
    named(&symbolizer, modules, &shown, Duration::ZERO)
}

/// A stack with frames that are going to be named.
struct Shown<'f> {
    tid: u32,
    crashing: bool,
    /// The crashing thread's may be more than are named: its fingerprint does not depend on that.
    frames: &'f [UnwoundFrame],
    stop: Stop,
    original: Option<OriginalSignal>,
    stored: bool,
    limit: usize,
}

impl<'f> Shown<'f> {
    fn stored(stack: &'f StoredStack, limit: usize) -> Self {
        Self {
            tid: stack.tid,
            crashing: stack.crashing,
            frames: &stack.frames,
            stop: stack.stop,
            original: stack.original.clone(),
            stored: true,
            limit,
        }
    }

    /// Frames of a handler count no more than those that the reader asked for: the crash is below them.
    fn limit(&self) -> usize {
        let handler = self.original.as_ref().map_or(0, |original| original.frame);
        self.limit.saturating_add(handler)
    }

    fn named(&self) -> &'f [UnwoundFrame] {
        self.frames.get(..self.limit()).unwrap_or(self.frames)
    }

    /// The frames with names, and the original signal with the numbers that its frames have among them.
    fn lines(&self, lines: &mut Lines<'_, '_>) -> (Vec<Frame>, Option<OriginalSignal>) {
        let named = self.named();
        let Some(mut original) = self.original.clone() else {
            return (lines.of(named), None);
        };
        // Frame numbers count inlined calls. Nothing is inlined or left out next to a trampoline.
        let mut frames = Vec::with_capacity(named.len());
        let mut start = 0;
        let interrupted = original.nested.iter_mut().rev().map(|one| &mut one.frame);
        for frame in interrupted.chain([&mut original.frame]) {
            frames.extend(lines.of(named.get(start..*frame).unwrap_or_default()));
            start = *frame;
            *frame = frames.len();
        }
        frames.extend(lines.of(named.get(start..).unwrap_or_default()));
        (frames, Some(original))
    }

    /// The stored stack of the same thread where it goes on after this one, or has fewer guesses: the handler
    /// had the files. `stored` is sorted by thread.
    fn or_longer(self, stored: &'f [StoredStack]) -> Self {
        let pc = |frames: &[UnwoundFrame]| frames.first().map(|frame| frame.pc);
        let goes_on = |stack: &&StoredStack| {
            let goes_on = is_early(self.stop) && stack.frames.len() > self.frames.len();
            let is_surer = !is_early(stack.stop) && guesses(&stack.frames) < guesses(self.frames);
            (goes_on || is_surer)
                && (self.frames.is_empty() || pc(&stack.frames) == pc(self.frames))
        };
        let place = stored.binary_search_by_key(&self.tid, |stack| stack.tid);
        let same = place.ok().and_then(|place| stored.get(place));
        match same.filter(goes_on) {
            Some(stack) => {
                let mut stored = Self::stored(stack, self.limit);
                let original = stored.original.as_mut().zip(self.original);
                // The handler stores no registers.
                if let Some((stored, here)) =
                    original.filter(|(stored, here)| stored.frame == here.frame)
                {
                    stored.registers = here.registers;
                }
                stored.crashing = self.crashing;
                stored
            }
            None => self,
        }
    }
}

/// Frames that were guessed.
fn guesses(frames: &[UnwoundFrame]) -> usize {
    let guessed = |frame: &&UnwoundFrame| frame.trust == FrameTrust::Scan;
    frames.iter().filter(guessed).count()
}

/// Whether a stack ended although its process had more of it.
fn is_early(stop: Stop) -> bool {
    matches!(stop, Stop::NoMemory(_) | Stop::NoRule | Stop::Loop)
}

fn named(
    symbolizer: &Symbolizer<'_>,
    modules: &[LoadedModule<'_>],
    stacks: &[Shown<'_>],
    unwound: Duration,
) -> Backtrace {
    let start = Instant::now();
    let table = symbolizer.look_up(stacks.iter().map(Shown::named));
    let mut lines = symbolizer.lines(&table);
    let mut original_signal = None;
    let name = |stack: &Shown<'_>| {
        let (frames, original) = stack.lines(&mut lines);
        if stack.crashing {
            original_signal = original;
        }
        ThreadBacktrace {
            tid: stack.tid,
            crashing: stack.crashing,
            frames,
            stop: match stack.frames.len() > stack.limit() {
                true => Stop::Limit,
                false => stack.stop,
            },
            stored: stack.stored,
        }
    };
    let threads: Vec<ThreadBacktrace> = stacks.iter().map(name).collect();
    let explanation = stacks.first().and_then(|stack| {
        let original = stack.original.as_ref();
        Fingerprint::from_stack(stack.frames, stack.stop, original, modules)
    });
    Backtrace {
        original_signal,
        fingerprint: explanation.as_ref().map(|found| found.fingerprint.clone()),
        explanation,
        modules: modules.iter().map(report).collect(),
        elapsed: Elapsed {
            unwind_micros: micros(unwound),
            symbolize_micros: micros(start.elapsed()),
        },
        threads,
    }
}

/// What would name more frames, or lead further: to be asked again after each find.
#[must_use]
pub fn module_needs(
    threads: &[Thread],
    memory: &(dyn Memory + Sync),
    modules: &[LoadedModule<'_>],
    arena: &SectionArena,
    options: &BacktraceOptions,
) -> Vec<ModuleNeed> {
    let modules = with_vdso(modules, memory, arena);
    let unwinder = Unwinder::new(&modules);
    let threads = &crashing_first(&unwinder, threads, memory, options);
    let stacks = unwind_all(&unwinder, threads, memory, options);
    let mut needs = needs_of(&modules, stacks.iter().flat_map(|(frames, _)| frames));
    // The vdso has no file, and no package ships its debug file with a crash.
    let is_vdso = |need: &ModuleNeed| {
        modules
            .get(need.module)
            .is_some_and(|loaded| loaded.module.kind == ModuleKind::Vdso)
    };
    needs.retain(|need| !is_vdso(need));
    needs
}

/// The modules with the image of the vdso, which has no file: it is read from memory.
#[must_use]
pub fn with_vdso<'data>(
    modules: &[LoadedModule<'data>],
    memory: &dyn Memory,
    arena: &'data SectionArena,
) -> Vec<LoadedModule<'data>> {
    let load = |loaded: &LoadedModule<'data>| {
        if loaded.module.kind == ModuleKind::Vdso && loaded.object.is_none() {
            LoadedModule::from_memory(loaded.module, memory, arena)
        } else {
            loaded.clone()
        }
    };
    modules.iter().map(load).collect()
}

/// The threads, with the one first whose signal handler ended the process.
fn crashing_first<'t>(
    unwinder: &Unwinder<'_>,
    threads: &'t [Thread],
    memory: &dyn Memory,
    options: &BacktraceOptions,
) -> Cow<'t, [Thread]> {
    let signal = options.signal.filter(|_| options.knows_crashed);
    let crashed = options.crashed.filter(|_| options.knows_crashed);
    let crashed = crashed.and_then(|tid| threads.iter().position(|thread| thread.tid == tid));
    match crashed.unwrap_or_else(|| unwinder.crashing_thread(threads, signal, memory)) {
        0 => Cow::Borrowed(threads),
        index => {
            let mut threads = threads.to_vec();
            if let Some(before) = threads.get_mut(..=index) {
                before.rotate_right(1);
            }
            Cow::Owned(threads)
        }
    }
}

fn unwind_all(
    unwinder: &Unwinder<'_>,
    threads: &[Thread],
    memory: &(dyn Memory + Sync),
    options: &BacktraceOptions,
) -> Stacks {
    let count = if options.all_threads {
        threads.len()
    } else {
        threads.len().min(1)
    };
    let share = FRAMES
        .checked_div(count)
        .unwrap_or(FRAMES)
        .max(FRAMES_OF_A_THREAD);
    let wanted = threads.get(..count).unwrap_or_default();
    let unwind = |number: usize, task: &[Thread]| {
        let limits = task.iter().enumerate().map(|(index, thread)| {
            // The first one is the one that crashed.
            let limit = match (number, index) {
                (0, 0) => options.max_frames.max(Unwinder::CRASHING_FRAMES),
                _ => options.max_frames.min(share),
            };
            (&thread.registers, limit)
        });
        unwinder.unwind_many(limits, memory)
    };
    if !is_many(threads, options) {
        return Stacks(vec![unwind(0, wanted)]);
    }
    let tasks = rayon::current_num_threads().saturating_mul(TASKS_OF_A_CORE);
    let size = count.div_ceil(tasks.max(1)).clamp(1, LARGEST_TASK);
    let tasks = wanted.par_chunks(size).enumerate();
    Stacks(tasks.map(|(number, task)| unwind(number, task)).collect())
}

fn is_many(threads: &[Thread], options: &BacktraceOptions) -> bool {
    options.all_threads && threads.len() > FEW
}

/// Unwound stacks in the order of their threads.
struct Stacks(Vec<Piece>);

/// The frames of some threads one behind the other, and for each where they end.
type Piece = (Vec<UnwoundFrame>, Vec<(usize, Stop)>);

impl Stacks {
    fn iter(&self) -> impl Iterator<Item = (&[UnwoundFrame], Stop)> + Clone {
        self.0.iter().flat_map(|(frames, ends)| {
            let starts = std::iter::once(0).chain(ends.iter().map(|(end, _)| *end));
            starts.zip(ends).map(|(start, (end, stop))| {
                let own = frames.get(start..*end).unwrap_or_default();
                (own, *stop)
            })
        })
    }
}

fn report(loaded: &LoadedModule<'_>) -> ModuleReport {
    ModuleReport {
        path: loaded.module.display_path(),
        build_id: loaded.module.build_id.clone(),
        status: loaded.status.clone(),
        has_symbols: has_symbols(loaded),
        has_debug_info: has_debug_info(loaded),
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
