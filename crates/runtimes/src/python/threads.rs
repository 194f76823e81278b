//! Interpreters, their threads, and which thread may run Python code.

use std::collections::BTreeSet;

use super::Interpreter;

/// Interpreters of a process, and threads of one.
const INTERPRETERS: usize = 256;
const THREADS: usize = 1 << 16;
/// Where glibc and musl keep the id of a thread, in the structure that `pthread_self()` points to: searched up to here.
const PTHREAD_SIZE: usize = 0x600;
/// `offsetof(struct pthread, tid)` of glibc on x86_64.
const PTHREAD_TID: usize = 0x2d0;
/// Smaller ids are found in too many places.
const SMALLEST_SEARCHED: u32 = 256;

/// A thread as an interpreter knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PythonThread {
    /// Address of its state.
    pub(super) at: u64,
    /// Id in the process's own pid namespace, if it is one of the core's threads.
    pub(super) tid: Option<u32>,
    /// Id of its interpreter; 0 is the main one.
    pub(super) interpreter: u64,
    /// Whether it may run Python code: it holds the lock of its interpreter.
    pub(super) holds_lock: bool,
}

impl Interpreter<'_> {
    /// All threads of all interpreters.
    pub(super) fn threads(&self) -> Vec<PythonThread> {
        let native: BTreeSet<u32> = self
            .process
            .threads
            .iter()
            .map(|thread| thread.tid)
            .collect();
        let mut threads = Vec::new();
        let mut seen = BTreeSet::new();
        for interpreter in self.interpreters() {
            let id = self
                .process
                .field(interpreter, self.layout.interpreter.id)
                .unwrap_or(0);
            let holder = self.lock_holder(interpreter);
            let head = self.layout.interpreter.threads_head;
            let mut next = self.process.field(interpreter, head);
            while let Some(at) =
                next.filter(|at| *at != 0 && threads.len() < THREADS && seen.insert(*at))
            {
                threads.push(PythonThread {
                    at,
                    tid: self.native_id(at, &native),
                    interpreter: id,
                    holds_lock: holder == Some(at),
                });
                next = self.process.field(at, self.layout.thread.next);
            }
        }
        threads
    }

    /// Addresses of all interpreters.
    pub(super) fn interpreters(&self) -> Vec<u64> {
        let mut found = Vec::new();
        let mut next = self
            .process
            .field(self.runtime, self.layout.runtime.interpreters_head);
        while let Some(at) =
            next.filter(|at| *at != 0 && !found.contains(at) && found.len() < INTERPRETERS)
        {
            found.push(at);
            next = self.process.field(at, self.layout.interpreter.next);
        }
        found
    }

    /// Whether the first interpreter and its first thread point at each other: the layout is the right one.
    pub(super) fn is_plausible(&self) -> bool {
        let interpreters = self.interpreters();
        interpreters.iter().any(|interpreter| {
            let head = self.layout.interpreter.threads_head;
            let thread = self.process.field(*interpreter, head);
            let back =
                thread.and_then(|thread| self.process.field(thread, self.layout.thread.interp));
            back == Some(*interpreter)
        })
    }

    /// Whether the interpreter was shutting down.
    pub(super) fn is_finalizing(&self) -> bool {
        let finalizing = self
            .process
            .field(self.runtime, self.layout.runtime.finalizing);
        finalizing.is_some_and(|thread| thread != 0)
    }

    fn lock_holder(&self, interpreter: u64) -> Option<u64> {
        let gil = match (self.layout.interpreter.gil, self.layout.runtime.gil) {
            (Some(pointer), _) => self.process.field(interpreter, pointer)?,
            (None, Some(offset)) => self.runtime.checked_add(offset)?,
            (None, None) => return None,
        };
        let locked = self.process.u32(gil.checked_add(self.layout.gil.locked)?)?;
        let holder = self.process.field(gil, self.layout.gil.holder)?;
        (locked == 1).then_some(holder)
    }

    fn native_id(&self, at: u64, native: &BTreeSet<u32>) -> Option<u32> {
        if let Some(offset) = self.layout.thread.native_thread_id {
            let id = self.process.field(at, offset)?;
            return u32::try_from(id).ok().filter(|id| native.contains(id));
        }
        let pthread = self.process.field(at, self.layout.thread.thread_id)?;
        let mut bytes = vec![0; PTHREAD_SIZE];
        let known = self
            .process
            .memory
            .read(cdh_elfcore::Avma(pthread), &mut bytes);
        bytes.truncate(known);
        let (words, _) = bytes.as_chunks::<4>();
        let number = |word: &[u8; 4]| u32::from_le_bytes(*word);
        let usual = words.get(PTHREAD_TID / 4).map(number);
        let usual = usual.filter(|id| native.contains(id));
        usual.or_else(|| {
            let mut numbers = words.iter().map(number);
            numbers.find(|id| *id >= SMALLEST_SEARCHED && native.contains(id))
        })
    }
}
