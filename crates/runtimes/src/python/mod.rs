//! CPython: frames of Python functions, threads and the exception in flight.
//!
//! Everything starts at `_PyRuntime`, which is exported by every build: static or shared, stripped or not. Which version
//! it is, is stated there (from 3.13 on), by `Py_Version` (from 3.11 on), or by the names of files; a layout is only used
//! if interpreters and threads point at each other in it.

mod code;
mod dict;
mod layout;
mod lines;
mod mixed;
mod name;
mod object;
mod stack;
mod task;
#[cfg(test)]
mod tests;
mod threads;
mod variables;

use std::cell::RefCell;

use cdh_elfcore::{Avma, ModuleKind};
use cdh_symbolize::{Backtrace, Fingerprint, Frame, LoadedModule, ThreadBacktrace};

use crate::{
    Language, Message, Options, Process, Replacement, Report, Runtime, RuntimeReport, ThreadFacts,
    Variable,
};
use layout::{COOKIE, Layout};
use stack::{Known, Segment};
use threads::PythonThread;

const RUNTIME: &[u8] = b"_PyRuntime";
const VERSION: &[u8] = b"Py_Version";
/// The section that `_PyRuntime` is in, from 3.13 on.
const SECTION: &str = ".PyRuntime";
/// Bytes of a module's memory that are searched for the cookie where its file is missing.
const SEARCHED: usize = 16 << 20;
/// Exceptions that are being handled, each while the one before is.
const HANDLED: usize = 64;

/// The interpreter in a process.
pub(crate) struct Interpreter<'p> {
    process: &'p Process<'p>,
    /// Index of the module that it is in.
    module: usize,
    /// Address of `_PyRuntime`.
    runtime: u64,
    /// As `Py_Version` or `_Py_DebugOffsets` state it, if they do.
    version: Option<u32>,
    layout: Layout,
}

/// The interpreter, and what was read of it.
pub(crate) struct Python<'p> {
    interpreter: Interpreter<'p>,
    threads: Vec<PythonThread>,
    /// Whether asyncio's module is loaded.
    has_tasks: bool,
    known: RefCell<Known>,
}

impl<'p> Interpreter<'p> {
    fn find(process: &'p Process<'p>) -> Option<Self> {
        let modules = process.modules.iter().enumerate();
        modules
            .filter(|(_, loaded)| may_hold_interpreter(loaded))
            .find_map(|(module, loaded)| {
                let runtime = address_of(loaded, RUNTIME).or_else(|| cookie_in(process, loaded))?;
                let stated = stated_version(process, loaded, runtime);
                Self::with_version(process, module, runtime, stated)
            })
    }

    fn with_version(
        process: &'p Process<'p>,
        module: usize,
        runtime: u64,
        version: Option<u32>,
    ) -> Option<Self> {
        let with = |layout: Layout| {
            let layout = match layout.debug_offsets.is_empty() {
                true => layout,
                false => layout.with_debug_offsets(process, runtime)?,
            };
            let found = Self {
                process,
                module,
                runtime,
                version,
                layout,
            };
            found.is_plausible().then_some(found)
        };
        match version {
            Some(version) => with(Layout::of_version(version >> 16 & 0xff)?),
            None => {
                let named = process
                    .modules
                    .iter()
                    .find_map(|loaded| version_in(&loaded.module.path));
                let named = named.and_then(Layout::of_version).and_then(with);
                named.or_else(|| {
                    Layout::all()
                        .filter(|layout| layout.debug_offsets.is_empty())
                        .find_map(with)
                })
            }
        }
    }

    /// The version for people: `3.12.1`, or `3.9` where the process does not state more.
    fn version(&self) -> String {
        match self.version {
            Some(version) => {
                let part = |shift: u32| version >> shift & 0xff;
                format!("{}.{}.{}", part(24), part(16), part(8))
            }
            None => format!("3.{}", self.layout.minor),
        }
    }

    /// The exception that the thread has raised and no code has caught yet.
    fn raised(&self, thread: u64) -> Option<String> {
        let layout = &self.layout.thread;
        let value = self.process.field(thread, layout.raised)?;
        if let Some(text) = self.exception(value) {
            return Some(text);
        }
        // Up to 3.11: a type, and nothing or the arguments that an exception is going to be made of.
        let kind = self
            .process
            .field(thread, layout.raised_type?)
            .filter(|kind| *kind != 0)?;
        let name = self.process.field(kind, self.layout.object.type_name)?;
        let name = self.process.c_text(name, object::NAME)?;
        let text = self
            .text(value, object::MESSAGE)
            .or_else(|| self.describe(value).filter(|_| value != 0));
        Some(match text {
            Some(text) => format!("{name}: {text}"),
            None => name,
        })
    }

    /// Exceptions that the thread's code was handling, innermost first. A generator that an exception was thrown into
    /// handles the one that its caller handles: it is one.
    fn handled(&self, thread: u64) -> Vec<String> {
        let layout = &self.layout.thread;
        let (mut found, mut last) = (Vec::new(), None);
        let mut next = self.process.field(thread, layout.exc_info);
        for _ in 0..HANDLED {
            let Some(item) = next.filter(|item| *item != 0) else {
                break;
            };
            let value = item
                .checked_add(layout.exc_value)
                .and_then(|at| self.process.u64(at));
            if value.is_some() && value != last {
                found.extend(value.and_then(|value| self.exception(value)));
                last = value;
            }
            next = item
                .checked_add(layout.exc_previous)
                .and_then(|at| self.process.u64(at));
        }
        found
    }
}

impl<'p> Python<'p> {
    /// `None` for a process without an initialized CPython runtime.
    pub(crate) fn attach(process: &'p Process<'p>) -> Option<Self> {
        let interpreter = Interpreter::find(process)?;
        let is_asyncio =
            |loaded: &LoadedModule<'_>| file_name(&loaded.module.path).starts_with(b"_asyncio.");
        let is_built_in = interpreter.layout.thread.asyncio_task.is_some();
        Some(Self {
            has_tasks: is_built_in || process.modules.iter().any(is_asyncio),
            threads: interpreter.threads(),
            interpreter,
            known: RefCell::default(),
        })
    }

    /// The Python frames of a native thread: those of several interpreters run one below the other.
    fn segments(&self, tid: u32, limit: usize) -> Vec<Segment> {
        let mut own: Vec<&PythonThread> = self
            .threads
            .iter()
            .filter(|thread| thread.tid == Some(tid))
            .collect();
        // The one that runs is innermost. An interpreter that was made later was called by an earlier one.
        own.sort_by_key(|thread| (!thread.holds_lock, std::cmp::Reverse(thread.interpreter)));
        let segments = own.into_iter();
        segments
            .flat_map(|thread| self.interpreter.segments(thread.at, &self.known, limit))
            .collect()
    }

    fn messages(&self, crashing: Option<u32>) -> Vec<Message> {
        let mut messages = Vec::new();
        let own = self
            .threads
            .iter()
            .filter(|thread| thread.tid.is_some() && thread.tid == crashing);
        for thread in own {
            let message = |text: String, note: &'static str| Message {
                kind: "exception".into(),
                type_name: text.split(':').next().map(str::to_owned),
                text,
                note: Some(note.into()),
                thread: thread.tid,
                task: None,
            };
            let mut handled = self.interpreter.handled(thread.at);
            handled.reverse();
            messages.extend(
                handled
                    .into_iter()
                    .map(|text| message(text, "being handled")),
            );
            let raised = self.interpreter.raised(thread.at);
            messages.extend(raised.map(|text| message(text, "raised, not caught yet")));
        }
        messages
    }

    fn task(&self, thread: &PythonThread) -> Option<String> {
        if !self.has_tasks {
            return None;
        }
        let segments = self
            .interpreter
            .segments(thread.at, &self.known, usize::MAX);
        self.interpreter.task_of(thread.at, &segments)
    }

    fn facts(&self) -> Vec<ThreadFacts> {
        let facts = self.threads.iter().filter_map(|thread| {
            let mut notes = Vec::new();
            if thread.holds_lock {
                notes.push("holds the GIL".to_owned());
            }
            if thread.interpreter != 0 {
                notes.push(format!("in subinterpreter {}", thread.interpreter));
            }
            notes.extend(self.task(thread));
            Some(ThreadFacts {
                tid: thread.tid?,
                notes,
                ..ThreadFacts::default()
            })
        });
        facts.filter(|facts| !facts.notes.is_empty()).collect()
    }
}

impl Runtime for Python<'_> {
    fn counted_name(&self, frame: &Frame) -> Option<String> {
        let function = frame.function.as_ref().ok()?;
        let file = &frame.location.as_ref()?.file;
        self.interpreter
            .counted_name(frame.sp?.0, file, &function.name)
    }

    fn touch(&self, crashing: u32) {
        self.messages(Some(crashing));
        self.facts();
        self.interpreter.is_finalizing();
        let segments = self.segments(crashing, usize::MAX);
        let frames = segments.iter().flat_map(|segment| &segment.frames);
        for frame in frames.take(Fingerprint::FRAMES) {
            self.interpreter.variables(frame.at);
        }
        for tid in self.threads.iter().filter_map(|thread| thread.tid) {
            self.segments(tid, usize::MAX);
        }
    }

    fn interpreter(&self) -> Option<usize> {
        Some(self.interpreter.module)
    }

    fn frames(&self, thread: &ThreadBacktrace, limit: usize) -> Vec<Replacement> {
        let segments = self.segments(thread.tid, limit);
        mixed::replacements(thread, segments, self.interpreter.module)
    }
}

impl Report for Python<'_> {
    fn variables(&self, frame: &Frame) -> Vec<Variable> {
        let at = frame
            .sp
            .filter(|_| frame.interpreted && frame.module == Some(self.interpreter.module));
        at.and_then(|at| self.interpreter.variables(at.0))
            .unwrap_or_default()
    }

    fn report(&self, stacks: &Backtrace, _options: &Options) -> RuntimeReport {
        let crashing = stacks.threads.iter().find(|thread| thread.crashing);
        let mut messages = self.messages(crashing.map(|thread| thread.tid));
        if self.interpreter.is_finalizing() {
            messages.push(Message {
                kind: "state".into(),
                text: "the interpreter was shutting down".to_owned(),
                ..Message::default()
            });
        }
        RuntimeReport {
            ended_program: false,
            language: Language::Python,
            version: Some(self.interpreter.version()),
            messages,
            threads: self.facts(),
            tasks: None,
            gaps: Vec::new(),
        }
    }
}

/// Whether it is worth to look for an interpreter: a program of half a million symbols is not searched.
pub(crate) fn may_hold_interpreter(loaded: &LoadedModule<'_>) -> bool {
    let name = file_name(&loaded.module.path);
    if name.starts_with(b"libpython") || name.starts_with(b"python") {
        return true;
    }
    // A program that embeds it.
    let is_program = loaded.module.kind == ModuleKind::Executable;
    let exports = |loaded: &LoadedModule<'_>| {
        let object = loaded.object.as_ref()?;
        let names = object.section(".dynstr")?.data;
        Some(object.section(SECTION).is_some() || contains(names, RUNTIME))
    };
    is_program && exports(loaded).unwrap_or(false)
}

fn contains(bytes: &[u8], wanted: &[u8]) -> bool {
    bytes.split(|byte| *byte == 0).any(|name| name == wanted)
}

fn file_name(path: &[u8]) -> &[u8] {
    path.rsplit(|byte| *byte == b'/').next().unwrap_or(path)
}

/// Where a symbol was loaded.
fn address_of(loaded: &LoadedModule<'_>, name: &[u8]) -> Option<u64> {
    let object = loaded.object.as_ref()?;
    let symbols = object.symbols_named(&[name]);
    let at = symbols.first()?.address.0;
    Some(at.wrapping_add(loaded.bias()?))
}

/// Where `_Py_DebugOffsets` is in the memory of a module, for one without symbols or without a file.
fn cookie_in(process: &Process<'_>, loaded: &LoadedModule<'_>) -> Option<u64> {
    let mut left = SEARCHED;
    loaded.module.ranges.iter().find_map(|range| {
        let size = range.end.0.saturating_sub(range.start.0);
        let mut bytes = vec![0; usize::try_from(size).ok()?.min(left)];
        left = left.saturating_sub(bytes.len());
        let known = process.memory.read(Avma(range.start.0), &mut bytes);
        let words = bytes.get(..known)?.as_chunks::<8>().0;
        let found = words.iter().position(|word| word == COOKIE)?;
        range.start.0.checked_add((found as u64).checked_mul(8)?)
    })
}

/// As `PY_VERSION_HEX`: 0x030c01f0 for 3.12.1.
fn stated_version(process: &Process<'_>, loaded: &LoadedModule<'_>, runtime: u64) -> Option<u32> {
    let is_version = |version: &u32| version >> 24 == 3;
    if process.u64(runtime) == Some(u64::from_le_bytes(*COOKIE)) {
        let version = process.u64(runtime.checked_add(8)?)?;
        return u32::try_from(version).ok().filter(is_version);
    }
    let at = address_of(loaded, VERSION)?;
    // It is constant, so the core may lack its page.
    let in_file = || {
        let at = at.wrapping_sub(loaded.bias()?);
        let bytes = loaded.object.as_ref()?.bytes_at(cdh_elfcore::Svma(at))?;
        Some(u32::from_le_bytes(*bytes.first_chunk()?))
    };
    process.u32(at).or_else(in_file).filter(is_version)
}

/// The minor version in a name such as `libpython3.9.so.1.0`, `python3.10` or `_ctypes.cpython-39-x86_64-linux-gnu.so`.
fn version_in(path: &[u8]) -> Option<u32> {
    let name = String::from_utf8_lossy(file_name(path));
    let behind = |mark: &str| name.split_once(mark).map(|(_, rest)| rest.to_owned());
    let rest = behind("python3.").or_else(|| behind(".cpython-3"))?;
    let end = rest
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(rest.len());
    rest.get(..end)?.parse().ok()
}
