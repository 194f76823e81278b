//! Frames of interpreted languages as the handler reads them while the process waits, and the fingerprint that they
//! make.
//!
//! Handler and CLI call the same functions. They pass native frames that were unwound alike and named by the same symbol
//! tables. So a crash has one fingerprint wherever it is computed. What is read is bounded by
//! [`Fingerprint::FRAMES`]; the caller bounds the time, by a memory that ends.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use cdh_symbolize::{
    Backtrace, Explanation, Fingerprint, Frame, Function, LoadedModule, Location, OriginalSignal,
    Stop, ThreadBacktrace, Unwinder, UnwoundFrame, frames_by_tables, with_vdso,
};
use serde::{Deserialize, Serialize};

use crate::replacement::{apply, move_signal, moved};
use crate::{Process, Replacement, Runtime};

/// A native stack.
#[derive(Clone, Copy, Debug)]
pub struct UnwoundStack<'f> {
    /// Thread id in the process's own pid namespace.
    pub tid: u32,
    /// Whether it is the one that crashed.
    pub crashing: bool,
    /// Innermost first.
    pub frames: &'f [UnwoundFrame],
    /// Why there are no more.
    pub stop: Stop,
    /// The fault beneath a signal handler.
    pub original: Option<&'f OriginalSignal>,
}

/// What was read of the stack of a thread.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InterpretedStack {
    /// In the order of the stack.
    pub frames: Vec<StoredFrames>,
    /// How the fingerprint is made, if functions of the language count. Only of the crashing thread.
    pub explanation: Option<Explanation>,
}

/// Frames of an interpreted language in the place of native ones.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredFrames {
    /// Index of the first native frame that is replaced.
    pub start: usize,
    /// Index behind the last one. Equal to `start`: none is replaced.
    pub end: usize,
    /// The language, for people.
    pub language: Cow<'static, str>,
    /// Innermost first.
    pub frames: Vec<StoredFrame>,
}

/// A frame of an interpreted language.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredFrame {
    /// The function.
    pub function: String,
    /// Its source as the interpreter knows it.
    pub file: String,
    /// Line, from 1; 0 if it is not known.
    pub line: u32,
}

/// Whether a process may interpret a language, as far as the names and symbols of its modules show. Quick.
#[must_use]
pub fn may_interpret(modules: &[LoadedModule<'_>]) -> bool {
    modules.iter().any(crate::python::may_hold_interpreter)
}

/// Puts frames that were stored into a thread that has only native ones.
pub fn put_stored(
    thread: &mut ThreadBacktrace,
    original: Option<&mut OriginalSignal>,
    stored: &[StoredFrames],
) {
    let lines = Lines::of(&thread.frames);
    let replacement = |stored: &StoredFrames| {
        let native = lines.range(stored.start..stored.end)?;
        // Of frames that are inserted at the end it is the last one.
        let model = thread.frames.get(native.start).or(thread.frames.last())?;
        let shown = |frame: &StoredFrame| Frame {
            function: Ok(Arc::new(Function {
                name: frame.function.clone(),
                raw: frame.function.clone(),
                offset: None,
            })),
            location: Some(Arc::new(Location {
                file: frame.file.clone(),
                line: frame.line,
                column: None,
                md5: None,
            })),
            inline: false,
            tail_call: false,
            signal_handler: false,
            sp: None,
            interpreted: true,
            language: Some(stored.language.clone()),
            ..model.clone()
        };
        let frames = stored.frames.iter().map(shown).collect();
        Some(Replacement { native, frames })
    };
    let replacements: Vec<Replacement> = stored.iter().filter_map(replacement).collect();
    if let Some(original) = original {
        move_signal(original, &replacements);
    }
    apply(thread, replacements);
}

/// How the fingerprint of a backtrace that has only native frames is made, if functions of the language count.
pub(crate) fn crashing_explanation(
    process: &Process<'_>,
    runtime: &dyn Runtime,
    backtrace: &Backtrace,
) -> Option<Explanation> {
    runtime.interpreter()?;
    let crashing = backtrace.threads.first().filter(|thread| thread.crashing)?;
    let mut original = backtrace.original_signal.clone();
    if let Some(original) = &mut original {
        let lines = crashing.frames.get(..original.frame)?;
        original.frame = lines.iter().filter_map(Frame::as_unwound).count();
    }
    let thread = process
        .threads
        .iter()
        .find(|thread| thread.tid == crashing.tid);
    // What the user asked for may be less than what counts.
    let (frames, stop) = match (crashing.stop, thread) {
        (Stop::Limit, Some(thread)) if !crashing.stored => {
            let modules = with_vdso(process.modules, process.memory, process.arena);
            let limit = Unwinder::CRASHING_FRAMES;
            Unwinder::new(&modules).unwind(&thread.registers, process.memory, limit)
        }
        _ => {
            let frames = crashing.frames.iter().filter_map(Frame::as_unwound);
            (frames.collect(), crashing.stop)
        }
    };
    let stack = UnwoundStack {
        tid: crashing.tid,
        crashing: true,
        frames: &frames,
        stop,
        original: original.as_ref(),
    };
    Replaced::read(process, runtime, &stack)?.explanation(process, runtime, &stack)
}

/// A native stack, named the same everywhere, and what takes the place of its frames.
pub(crate) struct Replaced {
    thread: ThreadBacktrace,
    pub(crate) replacements: Vec<Replacement>,
}

impl Replaced {
    pub(crate) fn read(
        process: &Process<'_>,
        runtime: &dyn Runtime,
        stack: &UnwoundStack<'_>,
    ) -> Option<Self> {
        let thread = ThreadBacktrace {
            tid: stack.tid,
            crashing: stack.crashing,
            frames: frames_by_tables(stack.frames, process.modules, runtime.interpreter()?),
            stop: stack.stop,
            stored: false,
        };
        let mut replacements = runtime.frames(&thread, Fingerprint::FRAMES);
        // Not read: the native frames remain.
        replacements.retain(|one| !one.frames.is_empty());
        Some(Self {
            thread,
            replacements,
        })
    }

    pub(crate) fn explanation(
        &self,
        process: &Process<'_>,
        runtime: &dyn Runtime,
        stack: &UnwoundStack<'_>,
    ) -> Option<Explanation> {
        if self.replacements.is_empty() {
            return None;
        }
        let start = stack.original.map_or(0, |original| original.frame);
        let start = moved(start, &self.replacements);
        let mut mixed = self.thread.clone();
        apply(&mut mixed, self.replacements.clone());
        let frames = mixed.frames.get(start..)?;
        Fingerprint::from_interpreted(frames, process.modules, |frame| runtime.counted_name(frame))
    }
}

impl StoredFrames {
    /// Bytes of its text.
    pub(crate) fn size(&self) -> usize {
        let size = |frame: &StoredFrame| frame.function.len().saturating_add(frame.file.len());
        self.frames.iter().map(size).sum()
    }
}

pub(crate) fn stored_of(replacement: &Replacement) -> Option<StoredFrames> {
    let stored = |frame: &Frame| {
        let place = frame.location.as_ref()?;
        Some(StoredFrame {
            function: frame.function.as_ref().ok()?.name.clone(),
            file: place.file.clone(),
            line: place.line,
        })
    };
    Some(StoredFrames {
        start: replacement.native.start,
        end: replacement.native.end,
        language: replacement.frames.first()?.language.clone()?,
        frames: replacement.frames.iter().filter_map(stored).collect(),
    })
}

/// Which lines of a stack are for which native frame.
struct Lines {
    /// Index behind the line of each native frame.
    ends: Vec<usize>,
}

impl Lines {
    fn of(frames: &[Frame]) -> Self {
        let lines = (1..).zip(frames);
        let ends = lines.filter(|(_, frame)| frame.as_unwound().is_some());
        Self {
            ends: ends.map(|(end, _)| end).collect(),
        }
    }

    /// The lines of native frames, as far as there are. Calls that were inlined into a frame are before it, and go with
    /// it.
    fn range(&self, native: Range<usize>) -> Option<Range<usize>> {
        let end_of = |count: usize| match count.checked_sub(1) {
            Some(last) => self.ends.get(last).copied(),
            None => Some(0),
        };
        let end = end_of(native.end).or(self.ends.last().copied());
        Some(end_of(native.start)?..end?)
    }
}

#[cfg(test)]
mod tests {
    use cdh_elfcore::Avma;
    use cdh_symbolize::{FrameTrust, NestedSignal};

    use super::*;

    /// A frame for each letter; a small one is an inlined call.
    fn thread(names: &str) -> ThreadBacktrace {
        let frame = |name: char| Frame {
            pc: Avma(0),
            module: None,
            svma: None,
            trust: FrameTrust::Cfi,
            function: Ok(Arc::new(Function {
                name: name.to_string(),
                raw: name.to_string(),
                offset: None,
            })),
            inline: name.is_lowercase(),
            location: None,
            tail_call: false,
            signal_handler: false,
            is_return_address: false,
            interpreted: false,
            language: None,
            sp: None,
        };
        ThreadBacktrace {
            tid: 1,
            crashing: true,
            frames: names.chars().map(frame).collect(),
            stop: Stop::End,
            stored: false,
        }
    }

    fn stored(native: Range<usize>, names: &str) -> StoredFrames {
        let frame = |name: char| StoredFrame {
            function: name.to_string(),
            file: "/srv/app.py".to_owned(),
            line: 7,
        };
        StoredFrames {
            start: native.start,
            end: native.end,
            language: "Python".into(),
            frames: names.chars().map(frame).collect(),
        }
    }

    fn names(thread: &ThreadBacktrace) -> String {
        let frames = thread.frames.iter();
        frames
            .map(|frame| frame.function.as_ref().unwrap().name.clone())
            .collect()
    }

    #[test]
    fn stored_frames_replace_native_ones_with_their_inlined_calls() {
        // Native frames are A, B, C, D.
        let mut found = thread("AxBCyzD");
        put_stored(&mut found, None, &[stored(1..3, "12"), stored(4..4, "3")]);
        assert_eq!(names(&found), "A12yzD3");
        assert!(found.frames[1].interpreted && !found.frames[0].interpreted);
        let shown: Vec<UnwoundFrame> = found.frames.iter().filter_map(Frame::as_unwound).collect();
        assert_eq!(shown.len(), 2);
        // Fewer native frames are shown: the stored ones replace those.
        let mut cut = thread("AB");
        put_stored(&mut cut, None, &[stored(1..3, "12")]);
        assert_eq!(names(&cut), "A12");
    }

    #[test]
    fn stored_frames_that_make_no_sense_are_ignored() {
        for (wrong, native) in [(9..10, "AB"), (usize::MAX..usize::MAX, "AB"), (0..1, "")] {
            let mut found = thread(native);
            put_stored(&mut found, None, &[stored(wrong, "1")]);
            assert_eq!(names(&found), native);
        }
        let mut found = thread("AB");
        let backwards = StoredFrames {
            start: 2,
            end: 1,
            ..stored(0..0, "1")
        };
        put_stored(&mut found, None, &[backwards]);
        assert_eq!(names(&found), "AB");
    }

    #[test]
    fn original_signal_moves_with_the_frames_that_are_put_in() {
        let signal = cdh_elfcore::SignalInfo {
            number: 11,
            code: None,
            address: None,
            sender: None,
        };
        let mut original = OriginalSignal {
            signal,
            frame: 3,
            registers: None,
            nested: vec![NestedSignal { signal, frame: 1 }],
        };
        let mut found = thread("ABCD");
        put_stored(&mut found, Some(&mut original), &[stored(1..2, "123")]);
        assert_eq!(names(&found), "A123CD");
        assert_eq!((original.frame, original.nested[0].frame), (5, 1));
    }
}
