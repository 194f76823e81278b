//! Decides which frames of a stack are shown as one line: a signal handler that ran because of the crash, how the
//! process ended, the start of the runtime, and the middle of a recursion.
//!
//! Each frame is in exactly one group, and groups are in the order of the stack. The time is linear in
//! the number of frames, because a stack overflow has hundreds of thousands.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use cdh_symbolize::{Backtrace, Frame, ModuleReport, Role, ThreadBacktrace};

/// Maximum frames of one repetition, including inlined calls.
const LONGEST_CYCLE: usize = 48;
/// Minimum frames that are worth a summary line.
const FEWEST_HIDDEN: usize = 3;

/// Frames that are shown in the same way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum FrameGroup {
    /// Shown one by one.
    Frames(Range<usize>),
    /// A signal handler that ran because of the crash: above the crash.
    Handler(Range<usize>),
    /// `abort` or the code of a panic: above the user's frames.
    Ended(Range<usize>),
    /// Below `main` or below the first function of a thread.
    Start(Range<usize>),
    /// Repetitions of the frames above.
    Repeated {
        /// The hidden frames.
        frames: Range<usize>,
        /// Frames of one repetition.
        cycle: usize,
    },
}

/// The complete stack, unfolded.
pub(super) fn unfolded(thread: &ThreadBacktrace) -> Vec<FrameGroup> {
    vec![FrameGroup::Frames(0..thread.frames.len())]
}

/// The stack with its ends and its recursions folded.
pub(super) fn folded(backtrace: &Backtrace, thread: &ThreadBacktrace) -> Vec<FrameGroup> {
    let frames = &thread.frames;
    let kinds = kinds(frames, &backtrace.modules);
    let crash = match &backtrace.original_signal {
        Some(original) if thread.crashing => original.frame.min(frames.len()),
        _ => 0,
    };
    let start = crash + start_of_runtime(kinds.get(crash..).unwrap_or_default());
    let ended = if thread.crashing {
        end_of_machinery(kinds.get(crash..start).unwrap_or_default())
    } else {
        0
    };
    // A single frame is not folded: it takes no more lines than its summary.
    let ended = crash + if ended > 1 { ended } else { 0 };
    let start = if frames.len() - start > 1 {
        start
    } else {
        frames.len()
    };
    let mut pieces = Vec::new();
    if crash > 0 {
        pieces.push(FrameGroup::Handler(0..crash));
    }
    if ended > crash {
        pieces.push(FrameGroup::Ended(crash..ended));
    }
    fold_cycles(&identities(frames), ended..start, &mut pieces);
    if start < frames.len() {
        pieces.push(FrameGroup::Start(start..frames.len()));
    }
    pieces
}

/// The role of a frame.
#[derive(Clone, Copy)]
struct Kind {
    is_own: bool,
    role: Role,
    /// `main` as the Rust compiler makes it, or a C program's.
    is_main: bool,
    /// Functions through which Rust's runtime calls the program.
    is_rust_start: bool,
}

type FunctionKey = (*const u8, *const u8, Option<usize>);

/// Frames of one function share this, so that each function is classified once.
fn kinds(frames: &[Frame], modules: &[ModuleReport]) -> Vec<Kind> {
    let mut known: HashMap<FunctionKey, Kind> = HashMap::new();
    let kind = |frame: &Frame| {
        let name = frame.function.as_ref().map(|function| &*function.name);
        let name = name.unwrap_or_default();
        Kind {
            is_own: frame.is_own(modules),
            role: frame.role(modules),
            is_main: name == "main" && frame.location.is_none(),
            is_rust_start: name.contains("__rust_begin_short_backtrace")
                || name.starts_with("std::rt::lang_start"),
        }
    };
    frames
        .iter()
        .map(|frame| match &frame.function {
            Ok(function) if !frame.signal_handler => {
                let place = frame.location.as_ref();
                let place = place.map_or(std::ptr::null(), |place| Arc::as_ptr(place).cast());
                let key = (Arc::as_ptr(function).cast(), place, frame.module);
                *known.entry(key).or_insert_with(|| kind(frame))
            }
            _ => kind(frame),
        })
        .collect()
}

/// Where the runtime's own frames at the bottom of the stack begin.
fn start_of_runtime(kinds: &[Kind]) -> usize {
    let is_rust = kinds.iter().any(|kind| kind.is_rust_start);
    let of_runtime = |kind: &&Kind| !kind.is_own || (is_rust && kind.is_main);
    let below = kinds.iter().rev().take_while(of_runtime).count();
    let first = kinds.len() - below;
    let is_marker = |kind: &Kind| kind.role == Role::Start || kind.is_rust_start;
    let tail = kinds.get(first..).unwrap_or_default();
    match tail.iter().position(is_marker) {
        None => kinds.len(),
        // The runtime calls the program through library functions, which are folded too.
        Some(_) if first > 0 => first,
        // No frame is the program's own: a waiting thread, or a crash in a library's thread.
        Some(_) => {
            let markers = tail.iter().rev().take_while(|kind| is_marker(kind)).count();
            kinds.len() - markers
        }
    }
}

/// Number of frames at the top that only show how the process ended.
fn end_of_machinery(kinds: &[Kind]) -> usize {
    let above = kinds.iter().take_while(|kind| !kind.is_own);
    let machinery = above
        .enumerate()
        .filter(|(_, kind)| kind.role == Role::Machinery);
    machinery.last().map_or(0, |(index, _)| index + 1)
}

/// Numbers that are equal for frames that differ only in their line.
fn identities(frames: &[Frame]) -> Vec<usize> {
    #[derive(PartialEq, Eq, Hash)]
    enum Identity<'f> {
        Function(&'f str, &'f str, Option<usize>, bool, bool),
        Address(u64),
    }
    let mut known: HashMap<Identity<'_>, usize> = HashMap::new();
    let mut numbers = Vec::with_capacity(frames.len());
    for frame in frames {
        let identity = match &frame.function {
            Ok(function) => Identity::Function(
                function.name.as_str(),
                frame
                    .location
                    .as_ref()
                    .map_or("", |place| place.file.as_str()),
                frame.module,
                frame.inline,
                frame.signal_handler,
            ),
            Err(_) => Identity::Address(frame.pc.0),
        };
        let next = known.len();
        numbers.push(*known.entry(identity).or_insert(next));
    }
    numbers
}

fn fold_cycles(identities: &[usize], range: Range<usize>, pieces: &mut Vec<FrameGroup>) {
    let end = range.end;
    let mut shown = range.start;
    let mut at = range.start;
    while at < end {
        let rest = identities.get(at..end).unwrap_or_default();
        let Some((cycle, repetitions)) = cycle_of(rest) else {
            at += 1;
            continue;
        };
        let hidden = at + cycle..at + cycle * (repetitions - 1);
        pieces.push(FrameGroup::Frames(shown..hidden.start));
        (shown, at) = (hidden.end, hidden.end + cycle);
        pieces.push(FrameGroup::Repeated {
            frames: hidden,
            cycle,
        });
    }
    if shown < end {
        pieces.push(FrameGroup::Frames(shown..end));
    }
}

/// The shortest cycle at the start of `stack`, and the number of its repetitions.
fn cycle_of(stack: &[usize]) -> Option<(usize, usize)> {
    (1..=LONGEST_CYCLE.min(stack.len() / 2)).find_map(|cycle| {
        let (_, later) = stack.split_at_checked(cycle)?;
        let equal = stack.iter().zip(later);
        let equal = equal.take_while(|(frame, later)| frame == later).count();
        let repetitions = equal / cycle + 1;
        let hidden = cycle * repetitions.saturating_sub(2);
        (hidden >= FEWEST_HIDDEN).then_some((cycle, repetitions))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cycles(stack: &str) -> Vec<FrameGroup> {
        let identities: Vec<usize> = stack.bytes().map(usize::from).collect();
        let mut pieces = Vec::new();
        fold_cycles(&identities, 0..identities.len(), &mut pieces);
        pieces
    }

    fn shown(stack: &str) -> String {
        let piece = |piece: &FrameGroup| match piece {
            FrameGroup::Frames(range) => stack[range.clone()].to_owned(),
            FrameGroup::Repeated { frames, cycle } => format!("({}*{cycle})", frames.len() / cycle),
            other => format!("{other:?}"),
        };
        cycles(stack).iter().map(piece).collect()
    }

    #[test]
    fn recursion_keeps_its_first_and_last_repetition() {
        let table = [
            ("", ""),
            ("xyz", "xyz"),
            ("aaaa", "aaaa"),
            ("aaaaa", "a(3*1)a"),
            ("xaaaaaaz", "xa(4*1)az"),
            ("ababab", "ababab"),
            ("xababababz", "xab(2*2)abz"),
            ("ababababa", "ab(2*2)aba"),
            ("xabcabcabcz", "xabc(1*3)abcz"),
            ("aaabaaabaaab", "aaab(1*4)aaab"),
            ("aaaaaxbbbbbb", "a(3*1)axb(4*1)b"),
            ("aaaaabababab", "a(3*1)abababab"),
        ];
        for (stack, expected) in table {
            assert_eq!(shown(stack), expected, "{stack}");
        }
    }

    #[test]
    fn pieces_cover_each_frame_once() {
        let mut state = 7_u32;
        for _ in 0..300 {
            let mut stack = String::new();
            while stack.len() < 60 {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let letter = ["a", "b", "ab", "aab", "abc"][(state >> 16) as usize % 5];
                stack.push_str(&letter.repeat((state >> 24) as usize % 9 + 1));
            }
            let mut next = 0;
            for piece in cycles(&stack) {
                let (FrameGroup::Frames(range) | FrameGroup::Repeated { frames: range, .. }) =
                    piece
                else {
                    panic!("{piece:?}");
                };
                assert_eq!(range.start, next, "{stack}");
                next = range.end;
            }
            assert_eq!(next, stack.len());
        }
    }

    #[test]
    fn deep_stacks_are_folded_in_linear_time() {
        let start = std::time::Instant::now();
        // The worst case: almost a cycle, repeatedly.
        let block = format!("{}{}", "ab".repeat(2), "a");
        let hostile: String = (0..100_000_u32)
            .map(|n| {
                if n % 97 == 96 {
                    "x"
                } else {
                    &block[..1 + n as usize % 3]
                }
            })
            .collect();
        cycles(&hostile);
        assert_eq!(shown(&"ab".repeat(100_000)), "ab(99998*2)ab");
        assert!(start.elapsed().as_secs() < 10, "{:?}", start.elapsed());
    }
}
