//! Unwinds and names the stacks of goroutines. Equal stacks are kept once: a hundred thousand goroutines wait in a
//! few places.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use cdh_elfcore::{Avma, Registers, Svma};
use cdh_symbolize::{Backtrace, Frame, Stop, Symbolizer, Unwinder, UnwoundFrame};
use rayon::prelude::*;

use super::goroutine::{Goroutine, Scheduler};
use super::program::Program;
use crate::{Options, TaskStack};

/// Goroutines that are unwound in one piece.
const TASK: usize = 1024;
/// Frames of all stacks together that are kept. Each stack keeps its first ones.
const FRAMES: usize = 1 << 20;
const FRAMES_OF_A_STACK: usize = 64;
/// Frames of the crashing goroutine that are read at the crash.
const TOUCHED: usize = 128;

/// Stacks, and where goroutines were created.
#[derive(Default)]
pub(super) struct Stacks {
    pub(super) stacks: Vec<TaskStack>,
    /// For each goroutine that was asked for, the index of its stack.
    pub(super) of: Vec<Option<usize>>,
    /// Frames of `go` statements by program counter.
    pub(super) created: HashMap<u64, Arc<Frame>>,
}

/// What makes stacks equal.
type Key = (Vec<u64>, Stop);

type Unwound = (Vec<UnwoundFrame>, Stop);

/// Unwinds and names the stacks of `wanted`. Threads that are in `known` were unwound before.
pub(super) fn stacks_of(
    program: &Program<'_>,
    scheduler: &Scheduler,
    wanted: &[&Goroutine],
    known: &Backtrace,
    options: &Options,
) -> Stacks {
    let process = program.process;
    let unwinder = Unwinder::new(process.modules);
    let pieces: Vec<Piece> = wanted
        .par_chunks(TASK)
        .map(|piece| Piece::unwind(&unwinder, program, scheduler, piece, options))
        .collect();
    let mut indices: HashMap<Key, usize> = HashMap::new();
    let mut unique: Vec<Unwound> = Vec::new();
    let mut of = Vec::with_capacity(wanted.len());
    let mut frames = 0_usize;
    for piece in pieces {
        let translated = piece.stacks.into_iter().map(|mut stack| {
            if frames > FRAMES && stack.0.len() > FRAMES_OF_A_STACK {
                stack.0.truncate(FRAMES_OF_A_STACK);
                stack.1 = Stop::Limit;
            }
            frames = frames.saturating_add(stack.0.len());
            *indices.entry(key(&stack)).or_insert_with(|| {
                unique.push(stack);
                unique.len().saturating_sub(1)
            })
        });
        let translated: Vec<usize> = translated.collect();
        let index = |local: &usize| translated.get(*local).copied();
        of.extend(piece.of.iter().map(index));
    }
    let places: BTreeSet<u64> = wanted.iter().map(|one| one.created_at).collect();
    let created = places.into_iter().filter(|at| *at != 0);
    let created = created.map(|at| creation(program, &unwinder, at));
    let created: Vec<UnwoundFrame> = created.collect();
    let symbolizer = Symbolizer::new(process.modules, process.arena, process.surroundings);
    let all = unique.iter().map(|(frames, _)| frames.as_slice());
    let table = symbolizer.look_up(all.chain([created.as_slice()]));
    let name = |(frames, stop): &Unwound| TaskStack {
        frames: symbolizer.frames(frames, &table),
        stop: *stop,
    };
    let stacks = unique.iter().map(name).collect();
    let created = created.iter().filter_map(|frame| {
        let named = symbolizer.frames(std::slice::from_ref(frame), &table);
        Some((frame.pc.0, Arc::new(named.into_iter().last()?)))
    });
    let created = created.collect();
    // The crashing thread's stack was named with all that is known of it.
    let mut stacks = Stacks {
        stacks,
        of,
        created,
    };
    stacks.use_known(scheduler, wanted, known);
    stacks
}

fn key((frames, stop): &Unwound) -> Key {
    (frames.iter().map(|frame| frame.pc.0).collect(), *stop)
}

/// Goroutines that were unwound together.
#[derive(Default)]
struct Piece {
    stacks: Vec<Unwound>,
    /// For each goroutine the index of its stack.
    of: Vec<usize>,
}

impl Piece {
    fn unwind(
        unwinder: &Unwinder<'_>,
        program: &Program<'_>,
        scheduler: &Scheduler,
        goroutines: &[&Goroutine],
        options: &Options,
    ) -> Self {
        let memory = program.process.memory;
        let contexts: Vec<Registers> = goroutines.iter().map(|one| context(program, one)).collect();
        let (frames, ends) = unwinder.unwind_saved(&contexts, memory, options.max_frames);
        let mut piece = Self::default();
        let mut known: HashMap<Key, usize> = HashMap::new();
        let mut start = 0_usize;
        for (goroutine, (end, stop)) in goroutines.iter().zip(ends) {
            let own = frames.get(start..end).unwrap_or_default();
            start = end;
            let stack = on_thread(unwinder, program, scheduler, goroutine, options)
                .unwrap_or_else(|| (own.to_vec(), stop));
            let index = *known.entry(key(&stack)).or_insert_with(|| {
                piece.stacks.push(stack);
                piece.stacks.len().saturating_sub(1)
            });
            piece.of.push(index);
        }
        piece
    }
}

/// Reads the stack of a goroutine, as far as [`stacks_of`] does.
pub(super) fn touch(program: &Program<'_>, goroutine: &Goroutine) {
    let unwinder = Unwinder::new(program.process.modules);
    let memory = program.process.memory;
    let _ = unwinder.unwind_saved(&[context(program, goroutine)], memory, TOUCHED);
}

/// Where a goroutine goes on.
fn context(program: &Program<'_>, goroutine: &Goroutine) -> Registers {
    let in_call = goroutine.is_in_syscall() && goroutine.syscall.0 != 0;
    let (sp, pc, fp) = match in_call {
        true => goroutine.syscall,
        false => goroutine.saved,
    };
    let mut registers = Registers::new(program.object.machine());
    if goroutine.is_moving() {
        return registers;
    }
    registers.set(registers.pc_number(), Some(pc));
    registers.set(registers.sp_number(), Some(sp));
    registers.set(registers.fp_number(), Some(fp).filter(|fp| *fp != 0));
    registers
}

/// The stack of the thread that a goroutine runs on, where it reaches the goroutine's own stack: what was saved is
/// from before it ran.
fn on_thread(
    unwinder: &Unwinder<'_>,
    program: &Program<'_>,
    scheduler: &Scheduler,
    goroutine: &Goroutine,
    options: &Options,
) -> Option<Unwound> {
    if !goroutine.is_on_thread() {
        return None;
    }
    let process = program.process;
    let machine = scheduler.machine_of(goroutine)?;
    if machine.running != goroutine.at {
        return None;
    }
    let mut threads = process.threads.iter();
    let thread = threads.find(|thread| thread.tid == machine.tid)?;
    let limit = options.max_frames;
    let (frames, stop) = unwinder.unwind(&thread.registers, process.memory, limit);
    let own = |frame: &UnwoundFrame| frame.sp.is_some_and(|sp| goroutine.owns(sp.0));
    (!goroutine.is_in_syscall() || frames.iter().any(own)).then_some((frames, stop))
}

/// The frame of a `go` statement: the call is before `at`, unless a function begins there.
fn creation(program: &Program<'_>, unwinder: &Unwinder<'_>, at: u64) -> UnwoundFrame {
    let svma = Svma(at.wrapping_sub(program.bias));
    let function = program.table.function(svma);
    let begins = function.is_none_or(|(entry, _)| entry == svma);
    UnwoundFrame {
        pc: Avma(at),
        sp: None,
        trust: cdh_symbolize::FrameTrust::Registers,
        module: unwinder.module_at(Avma(at)),
        svma: Some(svma),
        is_return_address: !begins,
        signal_frame: false,
    }
}

impl Stacks {
    /// Takes over the stacks of threads that the backtrace has: they were unwound with what was stored at the crash.
    fn use_known(&mut self, scheduler: &Scheduler, wanted: &[&Goroutine], known: &Backtrace) {
        for (goroutine, stack) in wanted.iter().zip(&mut self.of) {
            let machine = scheduler.machine_of(goroutine);
            let machine = machine.filter(|one| one.running == goroutine.at);
            let thread = machine
                .filter(|_| goroutine.is_on_thread())
                .and_then(|one| {
                    let mut threads = known.threads.iter();
                    threads.find(|thread| thread.tid == one.tid && thread.stored)
                });
            if let Some(thread) = thread {
                self.stacks.push(TaskStack {
                    frames: thread.frames.clone(),
                    stop: thread.stop,
                });
                *stack = Some(self.stacks.len().saturating_sub(1));
            }
        }
    }
}
