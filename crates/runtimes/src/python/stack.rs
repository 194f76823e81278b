//! The Python frames of a thread, in the pieces that native calls of the evaluation loop run.
//!
//! Up to 3.10 every frame has a native call of its own. From 3.11 on one native call runs a frame and those that it
//! calls: 3.11 marks the frame that it was entered for, later versions put a frame of their own, on the native stack,
//! below it.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use cdh_symbolize::{Function, Location, Unwinder};

use super::Interpreter;
use super::code::Code;

/// Frames of one thread that are read; of all threads together.
const FRAMES: usize = 1 << 18;
const ALL_FRAMES: usize = 1 << 20;
/// Frames that are counted beyond those that are read: the native stack has no more calls of the loop.
const COUNTED: usize = 2 * Unwinder::CRASHING_FRAMES;
/// Bytes of all code objects together: a hostile process can give each frame a code object of its own.
const CODE_BYTES: usize = 16 << 20;
/// `FRAME_OWNED_BY_CSTACK` of 3.12 and 3.13, `FRAME_OWNED_BY_INTERPRETER` of 3.14: not a function's frame.
const OWNED_BY_LOOP: u8 = 3;
/// Bits of a pointer that mark how it is owned, from 3.14 on.
pub(super) const TAG: u64 = 3;

/// A function that runs.
#[derive(Clone, Debug)]
pub(super) struct PythonFrame {
    /// Address of the frame.
    pub(super) at: u64,
    pub(super) function: Arc<Function>,
    pub(super) location: Arc<Location>,
}

/// The frames of one native call of the evaluation loop.
#[derive(Clone, Debug, Default)]
pub(super) struct Segment {
    /// Innermost first.
    pub(super) frames: Vec<PythonFrame>,
    /// An address in the native frame of the loop, from 3.11 on.
    pub(super) anchor: Option<u64>,
}

/// Code objects and lines that were read before: a deep recursion has the same few.
#[derive(Default)]
pub(super) struct Known {
    codes: HashMap<u64, Option<Arc<Code>>>,
    places: HashMap<(u64, u64, Option<u32>), Arc<Location>>,
    frames: usize,
    bytes: usize,
}

impl Interpreter<'_> {
    /// The frames of the thread whose state is at `thread`, innermost first. A maximum of `limit` are read. Segments
    /// behind that are known, so that they can be assigned to native calls, and have no frames.
    pub(super) fn segments(
        &self,
        thread: u64,
        known: &RefCell<Known>,
        limit: usize,
    ) -> Vec<Segment> {
        let mut segments = Vec::new();
        let mut read = 0_usize;
        let mut segment = Segment::default();
        let mut loop_state = self
            .layout
            .thread
            .cframe
            .filter(|_| self.layout.frame.is_entry.is_some());
        loop_state = loop_state.and_then(|cframe| self.process.field(thread, cframe));
        let Some(mut at) = self.innermost_frame(thread) else {
            return segments;
        };
        let layout = &self.layout.frame;
        // Brent: the marker moves to every frame whose number is a power of two.
        let mut marker = at;
        let walked = limit.saturating_add(COUNTED).min(FRAMES);
        for number in 1..=walked {
            if at == 0 {
                break;
            }
            let owner = layout
                .owner
                .and_then(|owner| self.process.u8(at.checked_add(owner)?));
            let is_entry = match (layout.is_entry, owner) {
                (Some(offset), _) => {
                    let byte = at.checked_add(offset).and_then(|at| self.process.u8(at));
                    byte.is_some_and(|byte| byte != 0)
                }
                (None, Some(owner)) => owner >= OWNED_BY_LOOP,
                (None, None) => true,
            };
            let is_function =
                layout.is_entry.is_some() || owner.is_none_or(|owner| owner < OWNED_BY_LOOP);
            if is_function
                && read < limit
                && let Some(frame) = self.frame(at, &mut known.borrow_mut())
            {
                segment.frames.push(frame);
                read = read.saturating_add(1);
            }
            if is_entry {
                segment.anchor = match is_function {
                    true => loop_state,
                    false => Some(at),
                };
                loop_state = loop_state.and_then(|state| {
                    self.process
                        .field(state, self.layout.thread.cframe_previous?)
                });
                segments.push(std::mem::take(&mut segment));
            }
            let next = self.process.field(at, layout.previous);
            let Some(next) =
                next.filter(|next| *next != marker && known.borrow().frames < ALL_FRAMES)
            else {
                break;
            };
            if number.is_power_of_two() {
                marker = at;
            }
            at = next;
        }
        if !segment.frames.is_empty() {
            segments.push(segment);
        }
        segments
    }

    fn innermost_frame(&self, thread: u64) -> Option<u64> {
        let layout = &self.layout.thread;
        match (layout.frame, layout.cframe) {
            (Some(frame), _) => self.process.field(thread, frame),
            (None, Some(cframe)) => {
                let cframe = self.process.field(thread, cframe)?;
                self.process.field(cframe, layout.cframe_frame?)
            }
            (None, None) => None,
        }
    }

    /// Address of the code object of a frame.
    pub(super) fn code_of(&self, frame: u64) -> Option<u64> {
        Some(self.process.field(frame, self.layout.frame.code)? & !TAG)
    }

    fn frame(&self, at: u64, known: &mut Known) -> Option<PythonFrame> {
        let layout = &self.layout.frame;
        let address = self.code_of(at)?;
        let is_full = known.bytes > CODE_BYTES;
        let code = known.codes.entry(address);
        let code = code.or_insert_with(|| {
            let code = self.read_code(address).filter(|_| !is_full)?;
            known.bytes = known.bytes.saturating_add(code.size());
            Some(Arc::new(code))
        });
        let code = code.clone()?;
        let instruction = match self.layout.code.instructions {
            Some(_) => self.process.field(at, layout.instruction)?,
            None => u64::from(self.process.u32(at.checked_add(layout.instruction)?)?),
        };
        // 3.10 keeps the line of a frame that is traced.
        let line = layout.line.filter(|_| self.layout.minor == 10);
        let line = line.and_then(|line| self.process.u32(at.checked_add(line)?));
        let line = line.filter(|line| *line != 0);
        let place = known.places.entry((address, instruction, line));
        let minor = self.layout.minor;
        let location = place.or_insert_with(|| Arc::new(code.location(minor, instruction, line)));
        known.frames = known.frames.saturating_add(1);
        Some(PythonFrame {
            at,
            function: Arc::clone(&code.function),
            location: Arc::clone(location),
        })
    }
}
