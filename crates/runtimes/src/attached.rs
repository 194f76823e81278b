//! The runtimes that a process has, and what is asked of all of them.

use cdh_symbolize::Backtrace;

use crate::capture::{Replaced, crashing_explanation, stored_of};
use crate::go::Go;
use crate::python::Python;
use crate::{
    InterpretedStack, Options, Process, Report, Runtime, RuntimeReport, StoredFrames, UnwoundStack,
    replacement,
};

/// Bytes of text of all stored frames together; a thread that exceeds it keeps its native frames.
const STORED: usize = 4 << 20;

/// The runtime of one language. Not a trait object: what is never asked of it is not linked.
enum Attached<'p> {
    Go(Box<Go<'p>>),
    Python(Box<Python<'p>>),
}

impl<'p> Attached<'p> {
    fn runtime(&self) -> &(dyn Runtime + 'p) {
        match self {
            Self::Go(go) => &**go,
            Self::Python(python) => &**python,
        }
    }

    fn report(&self) -> &(dyn Report + 'p) {
        match self {
            Self::Go(go) => &**go,
            Self::Python(python) => &**python,
        }
    }
}

/// The runtimes in a process.
pub struct AttachedRuntimes<'p> {
    process: &'p Process<'p>,
    runtimes: Vec<Attached<'p>>,
    /// Bytes of text that may still be stored.
    left: usize,
}

impl<'p> AttachedRuntimes<'p> {
    /// Asks every language. Where there is none, the modules' names and sections show it.
    #[must_use]
    pub fn of(process: &'p Process<'p>) -> Self {
        let go = Go::attach(process).map(|go| Attached::Go(Box::new(go)));
        let python = Python::attach(process).map(|python| Attached::Python(Box::new(python)));
        Self {
            process,
            runtimes: go.into_iter().chain(python).collect(),
            left: STORED,
        }
    }

    /// Id of the thread that ended the program, where its runtime lets another one receive the signal: Go passes a
    /// fatal signal on to each of its threads, and the last one dies. The first thread of the process received it.
    #[must_use]
    pub fn crashing_thread(&self) -> Option<u32> {
        let received = self.process.threads.first()?.tid;
        let mut asked = self.runtimes();
        let found = asked.find_map(|runtime| runtime.crashing_thread(received))?;
        let mut threads = self.process.threads.iter();
        threads.any(|thread| thread.tid == found).then_some(found)
    }

    /// Reads the frames of the language that one thread interprets. The crashing one comes first.
    pub fn read(&mut self, stack: &UnwoundStack<'_>) -> InterpretedStack {
        let mut interpreters = self.runtimes.iter().map(Attached::runtime);
        let interpreter = interpreters.find(|runtime| runtime.interpreter().is_some());
        let Some((runtime, replaced)) = interpreter
            .and_then(|runtime| Some((runtime, Replaced::read(self.process, runtime, stack)?)))
        else {
            return InterpretedStack::default();
        };
        let explanation = stack
            .crashing
            .then(|| replaced.explanation(self.process, runtime, stack))
            .flatten();
        let stored = replaced.replacements.iter().filter_map(stored_of);
        let mut frames: Vec<StoredFrames> = stored.collect();
        let size = frames.iter().map(StoredFrames::size).sum();
        match self.left.checked_sub(size) {
            Some(left) => self.left = left,
            None => frames.clear(),
        }
        InterpretedStack {
            frames,
            explanation,
        }
    }

    /// Reads what reports need, so that a memory that records its pages has them.
    pub fn touch(&self, crashing: u32) {
        for runtime in self.runtimes() {
            runtime.touch(crashing);
        }
    }

    /// Asks every language. Frames in `backtrace` are replaced in place; a process with several runtimes, such as a Go
    /// program that embeds Python, has several reports.
    #[must_use]
    pub fn examine(&self, backtrace: &mut Backtrace, options: &Options) -> Vec<RuntimeReport> {
        let mut reports = Vec::new();
        for (runtime, report) in self.runtimes().zip(self.reports()) {
            reports.push(report.report(backtrace, options));
            // As native frames are, so that it does not depend on what they are called here.
            let made = crashing_explanation(self.process, runtime, backtrace);
            for (index, thread) in backtrace.threads.iter_mut().enumerate() {
                let replacements = runtime.frames(thread, usize::MAX);
                if let Some(original) = backtrace.original_signal.as_mut().filter(|_| index == 0) {
                    replacement::move_signal(original, &replacements);
                }
                replacement::apply(thread, replacements);
            }
            if let Some(made) = made {
                backtrace.fingerprint = Some(made.fingerprint.clone());
                backtrace.explanation = Some(made);
            }
        }
        reports
    }

    fn runtimes(&self) -> impl Iterator<Item = &(dyn Runtime + 'p)> {
        self.runtimes.iter().map(Attached::runtime)
    }

    pub(crate) fn reports(&self) -> impl Iterator<Item = &(dyn Report + 'p)> {
        self.runtimes.iter().map(Attached::report)
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.runtimes.is_empty()
    }
}
