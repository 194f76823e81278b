//! The asyncio task that a thread runs.
//!
//! Up to 3.13 `asyncio.tasks._current_tasks` says which task each event loop runs; the loop of a thread is the `self` of
//! its innermost method of an event loop. From 3.14 on the thread's state has the task.

use super::Interpreter;
use super::object::NAME;
use super::stack::{Segment, TAG};

/// The type that asyncio's own tasks have, unless it is replaced.
const TASK: &str = "_asyncio.Task";
/// Methods of an event loop that run as long as it does, and the module that defines them.
const METHODS: [&str; 3] = ["_run_once", "run_forever", "run_until_complete"];
const MODULE: &str = "asyncio/base_events.py";

impl Interpreter<'_> {
    /// A task in a few words: its name, and the coroutine that it runs.
    pub(super) fn task_of(&self, thread: u64, segments: &[Segment]) -> Option<String> {
        let task = match self.layout.thread.asyncio_task {
            Some(offset) => self.process.field(thread, offset)?,
            None => self.task_of_loop(self.loop_of(segments)?)?,
        };
        self.describe_task(task)
    }

    fn loop_of(&self, segments: &[Segment]) -> Option<u64> {
        let mut frames = segments.iter().flat_map(|segment| &segment.frames);
        let method = frames.find(|frame| {
            METHODS.contains(&frame.function.raw.as_str()) && frame.location.file.ends_with(MODULE)
        })?;
        let first_slot = method.at.checked_add(self.layout.frame.locals)?;
        Some(self.process.u64(first_slot)? & !TAG)
    }

    fn task_of_loop(&self, event_loop: u64) -> Option<u64> {
        self.interpreters().into_iter().find_map(|interpreter| {
            let modules = self
                .process
                .field(interpreter, self.layout.interpreter.modules)?;
            let module = self.item(modules, "asyncio.tasks")?;
            let names = self.process.field(module, self.layout.object.module_dict)?;
            let tasks = self.items(self.item(names, "_current_tasks")?)?;
            let own = tasks.into_iter().find(|(key, _)| *key == event_loop)?;
            Some(own.1)
        })
    }

    fn describe_task(&self, task: u64) -> Option<String> {
        if self.type_name(task)? != TASK {
            return None;
        }
        let name = self.process.field(task, self.layout.task.name)?;
        // Names are made of a number when they are first asked for.
        let name = self
            .text(name, NAME)
            .or_else(|| Some(format!("Task-{}", self.integer(name)?)))?;
        let coroutine = self.process.field(task, self.layout.task.coroutine)?;
        let qualname = self
            .process
            .field(coroutine, self.layout.object.generator_qualname);
        let function = qualname.and_then(|qualname| self.text(qualname, NAME));
        Some(match function {
            Some(function) => format!("runs asyncio task `{name}` ({function})"),
            None => format!("runs asyncio task `{name}`"),
        })
    }
}
