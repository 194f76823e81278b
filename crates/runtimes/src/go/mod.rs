//! Go: goroutines, panics and fatal errors of programs that gc compiled, from 1.18 on, on 64-bit machines.
//!
//! Goroutines come from `runtime.allgs`, threads from `runtime.allm`. In a stripped program, the addresses of these
//! variables are searched in the code of the runtime's functions that use them, and what is found must look like
//! goroutines. Offsets of fields are those of the version in the build information.

mod goroutine;
mod layout;
mod message;
mod program;
mod stacks;

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

use cdh_elfcore::Svma;
use cdh_symbolize::Backtrace;

use self::goroutine::{Goroutine, Scheduler};
use self::layout::Layout;
use self::program::Program;
use crate::{
    Language, Options, Process, Report, Runtime, RuntimeReport, Task, TaskCount, Tasks, ThreadFacts,
};

/// Longest text of a wait reason.
const REASON: u64 = 128;
/// Functions of the runtime that run what the program asked for (`isSystemGoroutine`).
const OF_PROGRAM: [&str; 3] = [
    "runtime.main",
    "runtime.corostart",
    "runtime.handleAsyncEvent",
];

/// A Go program.
pub(crate) struct Go<'p> {
    program: Program<'p>,
    layout: Layout,
    gaps: Vec<String>,
}

impl<'p> Go<'p> {
    /// A Go program has a function table and build information.
    pub(crate) fn attach(process: &'p Process<'p>) -> Option<Self> {
        let program = Program::find(process)?;
        let mut gaps = Vec::new();
        let (layout, is_exact) = Layout::of_version(layout::minor(&program.version)?)?;
        if !is_exact {
            let version = &program.version;
            gaps.push(format!(
                "{version} is not known: read with the layout of an older version"
            ));
        }
        Some(Self {
            program,
            layout,
            gaps,
        })
    }
}

/// Goroutines have stacks of their own; the native frames are Go's.
impl Runtime for Go<'_> {
    fn crashing_thread(&self, received: u32) -> Option<u32> {
        Scheduler::of_threads(&self.program, &self.layout).dying_instead_of(received)
    }

    fn touch(&self, crashing: u32) {
        let Ok(scheduler) = Scheduler::read(&self.program, &self.layout) else {
            return;
        };
        let own = scheduler.crashing(Some(crashing));
        let machine = own.and_then(|one| scheduler.machine_of(one));
        let machine = machine.or_else(|| scheduler.machine_on(Some(crashing)));
        message::messages(&self.program, &self.layout, own, machine);
        self.wait_reasons();
        if let Some(own) = own {
            own.labels(&self.program);
            stacks::touch(&self.program, own);
        }
    }
}

impl Report for Go<'_> {
    fn report(&self, stacks: &Backtrace, options: &Options) -> RuntimeReport {
        let mut report = RuntimeReport {
            language: Language::Go,
            version: Some(self.program.version.clone()),
            ended_program: false,
            messages: Vec::new(),
            threads: Vec::new(),
            tasks: None,
            gaps: self.gaps.clone(),
        };
        let scheduler = match Scheduler::read(&self.program, &self.layout) {
            Ok(scheduler) => scheduler,
            Err(reason) => {
                report.gaps.push(format!("no goroutines: {reason}"));
                return report;
            }
        };
        if scheduler.missing > 0 {
            let missing = scheduler.missing;
            let total = missing.saturating_add(scheduler.goroutines.len());
            let gap = format!("{missing} of {total} goroutines are not in the core");
            report.gaps.push(gap);
        }
        let crashed = stacks.threads.iter().find(|thread| thread.crashing);
        let crashed = crashed.map(|thread| thread.tid);
        let crashing = scheduler.crashing(crashed);
        let machine = crashing.and_then(|one| scheduler.machine_of(one));
        let machine = machine.or_else(|| scheduler.machine_on(crashed));
        report.ended_program = machine.is_some_and(|one| one.dying != 0 || one.throwing != 0);
        report.messages = message::messages(&self.program, &self.layout, crashing, machine);
        report.threads = threads(&scheduler);
        report.tasks = Some(self.tasks(&scheduler, crashing, stacks, options));
        report
    }
}

/// Which goroutine runs on which thread.
fn threads(scheduler: &Scheduler) -> Vec<ThreadFacts> {
    let by_address: HashMap<u64, u64> = scheduler
        .goroutines
        .iter()
        .filter(|one| one.is_on_thread())
        .map(|one| (one.at, one.id))
        .collect();
    let facts = scheduler.machines.values().filter_map(|machine| {
        let task = by_address.get(&machine.running).copied();
        (machine.tid != 0 && task.is_some()).then(|| ThreadFacts {
            tid: machine.tid,
            task,
            ..ThreadFacts::default()
        })
    });
    let mut facts: Vec<ThreadFacts> = facts.collect();
    facts.sort_by_key(|thread| thread.tid);
    facts
}

impl Go<'_> {
    fn tasks(
        &self,
        scheduler: &Scheduler,
        crashing: Option<&Goroutine>,
        known: &Backtrace,
        options: &Options,
    ) -> Tasks {
        let reasons = self.wait_reasons();
        let mut starts = HashMap::new();
        let mut is_system = |one: &Goroutine| {
            *starts
                .entry(one.starts_at)
                .or_insert_with(|| self.is_of_runtime(one.starts_at))
        };
        let alive = scheduler.goroutines.iter().filter(|one| !one.is_dead());
        let mut alive: Vec<(&Goroutine, bool)> = alive.map(|one| (one, is_system(one))).collect();
        let is_crashing = |one: &Goroutine| crashing.is_some_and(|other| other.at == one.at);
        alive.sort_by_key(|(one, _)| (!is_crashing(one), one.id));
        let mut states: BTreeMap<Cow<'static, str>, usize> = BTreeMap::new();
        for (one, _) in alive.iter().filter(|(_, is_system)| !is_system) {
            let count = states.entry(one.state(&reasons)).or_default();
            *count = count.saturating_add(1);
        }
        let mut states: Vec<TaskCount> = states
            .into_iter()
            .map(|(state, count)| TaskCount { state, count })
            .collect();
        states.sort_by_key(|state| std::cmp::Reverse(state.count));
        let listed: Vec<(&Goroutine, bool)> = match options.task_stacks {
            true => {
                let is_listed = |(one, is_system): &&(&Goroutine, bool)| {
                    options.system_tasks || !is_system || is_crashing(one)
                };
                alive.iter().filter(is_listed).copied().collect()
            }
            false => {
                let first = alive.first().filter(|(one, _)| is_crashing(one));
                first.copied().into_iter().collect()
            }
        };
        let wanted: Vec<&Goroutine> = listed.iter().map(|(one, _)| *one).collect();
        let found = stacks::stacks_of(&self.program, scheduler, &wanted, known, options);
        let task = |((one, system), stack): (&(&Goroutine, bool), &Option<usize>)| Task {
            id: one.id,
            state: one.state(&reasons),
            waited_seconds: one.waited(scheduler.now),
            thread: thread_of(scheduler, one),
            locked: one.locked_m != 0,
            system: *system,
            labels: one.labels(&self.program),
            parent: Some(one.parent).filter(|parent| *parent != 0),
            created_by: found.created.get(&one.created_at).cloned(),
            stack: *stack,
        };
        Tasks {
            noun: Cow::Borrowed("goroutine"),
            total: alive.len(),
            system: alive.iter().filter(|(_, is_system)| *is_system).count(),
            states,
            crashing: crashing.map(|one| one.id),
            list: listed.iter().zip(&found.of).map(task).collect(),
            stacks: found.stacks,
        }
    }

    /// Whether the runtime started a goroutine for itself.
    fn is_of_runtime(&self, start: u64) -> bool {
        let svma = Svma(start.wrapping_sub(self.program.bias));
        let function = self.program.table.function(svma);
        function.is_some_and(|(_, name)| {
            name.starts_with("runtime.") && !OF_PROGRAM.contains(&name.as_str())
        })
    }

    /// Texts of wait reasons: of the version, else of the program itself.
    fn wait_reasons(&self) -> BTreeMap<u8, Cow<'static, str>> {
        let known = &self.layout.wait_reasons;
        if !known.is_empty() {
            let known = known.iter();
            return known
                .map(|(number, text)| (*number, Cow::Borrowed(*text)))
                .collect();
        }
        let texts = self.program.variable("runtime.waitReasonStrings");
        let text = |number: u8| {
            let at = texts?.checked_add(u64::from(number).checked_mul(16)?)?;
            let text = self.program.text(at, REASON)?;
            (!text.is_empty()).then_some((number, Cow::Owned(text)))
        };
        (1..64).filter_map(text).collect()
    }
}

/// The thread that a goroutine runs on, or is locked to.
fn thread_of(scheduler: &Scheduler, one: &Goroutine) -> Option<u32> {
    let running = Some(one.m).filter(|_| one.is_on_thread());
    let locked = Some(one.locked_m).filter(|locked| *locked != 0);
    let machine = scheduler.machines.get(&running.or(locked)?)?;
    Some(machine.tid).filter(|tid| *tid != 0)
}
