//! Goroutines and the threads (`m`) that run them, as the scheduler's structures state them.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::layout::Layout;
use super::program::Program;
use crate::process::{half_word_at, word_at};

/// Most goroutines that are read.
const GOROUTINES: usize = 1 << 20;
/// Most threads.
const THREADS: usize = 1 << 16;
/// Bytes of a goroutine's structure that are read: more than any version's fields need.
const G_SIZE: usize = 416;
/// Longest label, and how many one goroutine may have.
const LABEL: u64 = 256;
const LABELS: u64 = 64;
/// Goroutines that must look right for a list to be the list.
const CHECKED: usize = 16;
/// Highest state, without the mark of the garbage collector.
const STATES: [&str; 12] = [
    "idle",
    "runnable",
    "running",
    "syscall",
    "waiting",
    "???",
    "dead",
    "???",
    "copystack",
    "preempted",
    "leaked",
    "waiting for cgo callback",
];
const SCAN: u32 = 0x1000;
const RUNNING: u32 = 2;
const SYSCALL: u32 = 3;
const WAITING: u32 = 4;
const DEAD: u32 = 6;
const COPYING: u32 = 8;
const LEAKED: u32 = 10;
const DEAD_EXTRA: u32 = 11;

/// A goroutine.
#[derive(Clone, Debug, Default)]
pub(super) struct Goroutine {
    /// Address of its structure.
    pub(super) at: u64,
    pub(super) id: u64,
    /// Ends of its stack.
    pub(super) stack: (u64, u64),
    pub(super) panic: u64,
    /// Its thread's structure.
    pub(super) m: u64,
    /// Where it goes on: stack pointer, program counter, frame pointer.
    pub(super) saved: (u64, u64, u64),
    /// Where it entered a system call.
    pub(super) syscall: (u64, u64, u64),
    pub(super) status: u32,
    pub(super) wait_since: u64,
    pub(super) wait_reason: u8,
    pub(super) locked_m: u64,
    pub(super) signal: u32,
    pub(super) signal_code: u64,
    pub(super) signal_address: u64,
    pub(super) signal_pc: u64,
    pub(super) parent: u64,
    pub(super) created_at: u64,
    pub(super) starts_at: u64,
    pub(super) labels: u64,
}

/// Offsets of a goroutine's fields: looked up once for all goroutines.
struct Fields {
    id: usize,
    panic: usize,
    m: usize,
    saved: [usize; 3],
    syscall: [Option<usize>; 3],
    status: usize,
    wait_since: usize,
    wait_reason: usize,
    locked_m: usize,
    signal: usize,
    signal_code: usize,
    signal_address: usize,
    signal_pc: usize,
    parent: Option<usize>,
    created_at: usize,
    starts_at: usize,
    labels: usize,
}

impl Fields {
    fn of(layout: &Layout) -> Option<Self> {
        let field = |name: &str| usize::try_from(layout.at(name)?).ok();
        let saved = |name: &str| field("g.sched")?.checked_add(field(name)?);
        Some(Self {
            id: field("g.goid")?,
            panic: field("g._panic")?,
            m: field("g.m")?,
            saved: [saved("gobuf.sp")?, saved("gobuf.pc")?, saved("gobuf.bp")?],
            syscall: [
                field("g.syscallsp"),
                field("g.syscallpc"),
                field("g.syscallbp"),
            ],
            status: field("g.atomicstatus")?,
            wait_since: field("g.waitsince")?,
            wait_reason: field("g.waitreason")?,
            locked_m: field("g.lockedm")?,
            signal: field("g.sig")?,
            signal_code: field("g.sigcode0")?,
            signal_address: field("g.sigcode1")?,
            signal_pc: field("g.sigpc")?,
            parent: field("g.parentGoid"),
            created_at: field("g.gopc")?,
            starts_at: field("g.startpc")?,
            labels: field("g.labels")?,
        })
    }
}

impl Goroutine {
    fn read(program: &Program<'_>, fields: &Fields, at: u64) -> Option<Self> {
        let mut room = [0; G_SIZE];
        let shorter = G_SIZE.saturating_sub(32);
        let is_read = program.process.read(at, &mut room).is_some()
            // At the end of the memory.
            || program.process.read(at, room.get_mut(..shorter)?).is_some();
        let bytes = room.as_slice();
        let word = |field: usize| word_at(bytes, field);
        let half = |field: usize| half_word_at(bytes, field);
        let [sp, pc, bp] = fields.saved;
        let of_call = |field: Option<usize>| field.and_then(word).unwrap_or(0);
        let [call_sp, call_pc, call_bp] = fields.syscall.map(of_call);
        is_read.then_some(())?;
        Some(Self {
            at,
            id: word(fields.id)?,
            stack: (word(0)?, word(8)?),
            panic: word(fields.panic)?,
            m: word(fields.m)?,
            saved: (word(sp)?, word(pc)?, word(bp)?),
            syscall: (call_sp, call_pc, call_bp),
            status: half(fields.status)?,
            wait_since: word(fields.wait_since)?,
            wait_reason: *bytes.get(fields.wait_reason)?,
            locked_m: word(fields.locked_m)?,
            signal: half(fields.signal)?,
            signal_code: word(fields.signal_code)?,
            signal_address: word(fields.signal_address)?,
            signal_pc: word(fields.signal_pc)?,
            parent: fields.parent.and_then(word).unwrap_or(0),
            created_at: word(fields.created_at)?,
            starts_at: word(fields.starts_at)?,
            labels: word(fields.labels)?,
        })
    }

    /// Whether this can be a goroutine: memory of another kind rarely has a stack, a state and an aligned thread.
    fn is_plausible(&self) -> bool {
        let (low, high) = self.stack;
        let state = self.status & !SCAN;
        let is_dead = self.is_dead();
        let has_stack = low < high && high.wrapping_sub(low) <= 1 << 31 && low.is_multiple_of(8);
        usize::try_from(state).is_ok_and(|state| state < STATES.len())
            && (has_stack || (is_dead && low == 0))
            && self.m.is_multiple_of(8)
            && self.id < 1 << 48
    }

    fn state_number(&self) -> u32 {
        self.status & !SCAN
    }

    pub(super) fn is_dead(&self) -> bool {
        matches!(self.state_number(), 0 | DEAD | DEAD_EXTRA)
    }

    /// Whether its stack is that of the thread.
    pub(super) fn is_on_thread(&self) -> bool {
        matches!(self.state_number(), RUNNING | SYSCALL) && self.m != 0
    }

    pub(super) fn is_in_syscall(&self) -> bool {
        self.state_number() == SYSCALL
    }

    /// Whether its stack is being moved: what was saved may be the old one's.
    pub(super) fn is_moving(&self) -> bool {
        self.state_number() == COPYING
    }

    /// Whether `at` is on its stack.
    pub(super) fn owns(&self, at: u64) -> bool {
        self.stack.0 <= at && at < self.stack.1
    }

    /// The state as the runtime prints it.
    pub(super) fn state(&self, reasons: &BTreeMap<u8, Cow<'static, str>>) -> Cow<'static, str> {
        let number = self.state_number();
        let reason = (number == WAITING || number == LEAKED)
            .then(|| reasons.get(&self.wait_reason))
            .flatten();
        let state = STATES.get(usize::try_from(number).unwrap_or(usize::MAX));
        let mut text = reason.map_or_else(
            || Cow::Borrowed(state.copied().unwrap_or("???")),
            Clone::clone,
        );
        if number == LEAKED {
            text.to_mut().push_str(" (leaked)");
        }
        if self.status & SCAN != 0 {
            text.to_mut().push_str(" (scan)");
        }
        text
    }

    /// Seconds that it has waited.
    pub(super) fn waited(&self, now: u64) -> Option<u64> {
        let waits = matches!(self.state_number(), WAITING | SYSCALL) && self.wait_since != 0;
        let nanoseconds = now.checked_sub(self.wait_since).filter(|_| waits)?;
        Some(nanoseconds / 1_000_000_000)
    }

    /// Labels that the program set. Since Go 1.24 they are a list, before a hash table.
    pub(super) fn labels(&self, program: &Program<'_>) -> BTreeMap<String, String> {
        let minor = super::layout::minor(&program.version).unwrap_or(0);
        if self.labels == 0 || minor < 24 {
            return BTreeMap::new();
        }
        let pair = |index: u64| {
            let list = program.process.u64(self.labels)?;
            let at = list.checked_add(index.checked_mul(32)?)?;
            let key = program.text(at, LABEL)?;
            Some((key, program.text(at.checked_add(16)?, LABEL)?))
        };
        let count = program.process.field(self.labels, 8).unwrap_or(0);
        (0..count.min(LABELS)).map_while(pair).collect()
    }
}

/// A thread of the scheduler.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Machine {
    pub(super) tid: u32,
    pub(super) running: u64,
    /// The goroutine whose signal it handles.
    pub(super) caught: u64,
    /// Whether it reports a fatal error, and the kind: 2 is the runtime's own.
    pub(super) throwing: u32,
    pub(super) dying: u32,
}

/// All goroutines and threads.
#[derive(Debug, Default)]
pub(super) struct Scheduler {
    /// In the runtime's order.
    pub(super) goroutines: Vec<Goroutine>,
    /// By the address of their structure.
    pub(super) machines: BTreeMap<u64, Machine>,
    /// Goroutines of the list whose structures are not in the core.
    pub(super) missing: usize,
    /// Nanoseconds of the runtime's clock at the end, as far as anything recorded it.
    pub(super) now: u64,
}

impl Scheduler {
    /// `Err` with the reason where the list is not found.
    pub(super) fn read(program: &Program<'_>, layout: &Layout) -> Result<Self, &'static str> {
        let process = program.process;
        let fields = Fields::of(layout).ok_or("the layout of this version is not complete")?;
        let list = |at: u64| {
            let first = process.u64(at)?;
            let count = process.u64(at.checked_add(8)?)?;
            let capacity = process.u64(at.checked_add(16)?)?;
            let count = usize::try_from(count).ok()?;
            (first != 0 && count > 0 && count <= GOROUTINES && count as u64 <= capacity)
                .then_some((first, count))
        };
        let addresses = |(first, count): (u64, usize)| {
            let bytes = process.bytes(first, count.checked_mul(8)?)?;
            let word = |word: &[u8]| word_at(word, 0);
            bytes
                .chunks_exact(8)
                .map(word)
                .collect::<Option<Vec<u64>>>()
        };
        let fits = |at: u64| {
            let addresses =
                list(at).and_then(|(first, count)| addresses((first, count.min(CHECKED))));
            let is_goroutine = |at: &u64| {
                let found = Goroutine::read(program, &fields, *at);
                found.is_some_and(|found| found.is_plausible())
            };
            addresses.is_some_and(|addresses| addresses.iter().all(is_goroutine))
        };
        let functions = ["runtime.allgadd", "runtime.malg", "runtime.newproc1"];
        let all = program
            .variable_in("runtime.allgs", &functions, fits)
            .ok_or("the list of goroutines was not found: the program has no symbols")?;
        let addresses = list(all)
            .and_then(addresses)
            .ok_or("the list of goroutines is not in the core")?;
        if !fits(all) {
            return Err("the list of goroutines is damaged, or of an unknown layout");
        }
        let total = addresses.len();
        let read = |at: u64| Goroutine::read(program, &fields, at);
        let mut goroutines: Vec<Goroutine> = addresses.into_iter().filter_map(read).collect();
        let missing = total.saturating_sub(goroutines.len());
        goroutines.retain(Goroutine::is_plausible);
        let mut scheduler = Self {
            goroutines,
            missing,
            ..Self::default()
        };
        scheduler.read_machines(program, layout);
        let last_poll = program
            .variable("runtime.sched")
            .and_then(|sched| process.field(sched, layout.at("sched.lastpoll")?));
        let since = scheduler.goroutines.iter().map(|one| one.wait_since);
        scheduler.now = since.chain(last_poll).max().unwrap_or(0);
        Ok(scheduler)
    }

    /// The threads alone, as far as their list leads to them.
    pub(super) fn of_threads(program: &Program<'_>, layout: &Layout) -> Self {
        let mut scheduler = Self::default();
        scheduler.read_machines(program, layout);
        scheduler
    }

    /// The thread that reports a fatal error, if it is not `received`.
    pub(super) fn dying_instead_of(&self, received: u32) -> Option<u32> {
        let is_dying = |machine: &&Machine| machine.dying != 0;
        let on = self.machine_on(Some(received));
        if on.as_ref().is_some_and(is_dying) {
            return None;
        }
        let dying = self.machines.values().find(is_dying)?;
        Some(dying.tid)
    }

    fn read_machines(&mut self, program: &Program<'_>, layout: &Layout) {
        let process = program.process;
        // A thread and the goroutine of its scheduler refer to each other.
        let fits = |at: u64| {
            let pair = process.u64(at).and_then(|machine| {
                let scheduler = process.field(machine, layout.at("m.g0")?)?;
                Some((machine, process.field(scheduler, layout.at("g.m")?)?))
            });
            pair.is_some_and(|(machine, back)| machine == back)
        };
        let functions = ["runtime.mcommoninit", "runtime.checkdead"];
        let all = program.variable_in("runtime.allm", &functions, fits);
        let first = all.and_then(|at| process.u64(at));
        let of_goroutines = self.goroutines.iter();
        let of_goroutines = of_goroutines.flat_map(|one| [one.m, one.locked_m & !7]);
        let starts: Vec<u64> = first.into_iter().chain(of_goroutines).collect();
        for start in starts {
            let mut at = start;
            while at != 0 && !self.machines.contains_key(&at) && self.machines.len() < THREADS {
                let Some((machine, next)) = read_machine(program, layout, at) else {
                    break;
                };
                self.machines.insert(at, machine);
                at = next;
            }
        }
    }

    pub(super) fn machine_of(&self, goroutine: &Goroutine) -> Option<&Machine> {
        self.machines.get(&goroutine.m)
    }

    /// The goroutine that ended the program: the one whose panic or fatal error is reported, else the one that ran on
    /// the thread that received the signal.
    pub(super) fn crashing(&self, crashed: Option<u32>) -> Option<&Goroutine> {
        let of = |machine: &Machine| {
            let find = |at: u64| self.goroutines.iter().find(|one| one.at == at && at != 0);
            match machine.throwing {
                0 => find(machine.running).or_else(|| find(machine.caught)),
                _ => find(machine.caught).or_else(|| find(machine.running)),
            }
        };
        let on = self.machine_on(crashed);
        let is_dying = |machine: &&Machine| machine.dying != 0;
        let dying = || self.machines.values().find(is_dying).and_then(of);
        match on.filter(is_dying) {
            Some(machine) => of(machine),
            None => dying().or_else(|| on.and_then(of)),
        }
    }

    /// What is known of a thread of the process.
    pub(super) fn machine_on(&self, tid: Option<u32>) -> Option<&Machine> {
        self.machines
            .values()
            .find(|machine| Some(machine.tid) == tid)
    }
}

/// A thread's structure, and the address of the next one.
fn read_machine(program: &Program<'_>, layout: &Layout, at: u64) -> Option<(Machine, u64)> {
    let process = program.process;
    let word = |name: &str| process.field(at, layout.at(name)?);
    let half = |name: &str| process.u32(at.checked_add(layout.at(name)?)?);
    let machine = Machine {
        tid: u32::try_from(word("m.procid")?).ok()?,
        running: word("m.curg")?,
        caught: word("m.caughtsig")?,
        throwing: half("m.throwing")?,
        dying: half("m.dying")?,
    };
    Some((machine, word("m.alllink")?))
}
