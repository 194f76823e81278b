//! Puts the frames of a runtime in the place of native ones. Native frames outside of the ranges remain, so a stack
//! that goes from the interpreter to an extension and back stays mixed.

use std::ops::Range;

use cdh_symbolize::{Frame, OriginalSignal, ThreadBacktrace};

/// Frames that take the place of native ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replacement {
    /// Indices of the native frames in the thread's stack. An empty range inserts.
    pub native: Range<usize>,
    /// What is shown instead, innermost first. [`Frame::interpreted`] is set; `pc` and `module` are those of the
    /// innermost native frame replaced.
    pub frames: Vec<Frame>,
}

/// Replaces ranges that are in order, within the stack and do not overlap; others are ignored.
pub(crate) fn apply(thread: &mut ThreadBacktrace, replacements: Vec<Replacement>) {
    if replacements.is_empty() {
        return;
    }
    let native = std::mem::take(&mut thread.frames);
    let mut next = 0_usize;
    for replacement in replacements {
        let Range { start, end } = replacement.native;
        if start < next || end < start || end > native.len() {
            continue;
        }
        let before = native.get(next..start).unwrap_or_default();
        thread.frames.extend_from_slice(before);
        thread.frames.extend(replacement.frames);
        next = end;
    }
    let rest = native.get(next..).unwrap_or_default();
    thread.frames.extend_from_slice(rest);
}

/// Gives the frames of an original signal the numbers that they have after the replacement.
pub(crate) fn move_signal(original: &mut OriginalSignal, replacements: &[Replacement]) {
    let nested = original.nested.iter_mut().map(|nested| &mut nested.frame);
    for frame in std::iter::once(&mut original.frame).chain(nested) {
        *frame = moved(*frame, replacements);
    }
}

/// Where the native frame `index` is after the replacement; the first frame in its place if it was replaced.
pub(crate) fn moved(index: usize, replacements: &[Replacement]) -> usize {
    let before = replacements.iter().filter(|one| one.native.start < index);
    before.fold(index, |at, one| {
        let native = one.native.end.min(index).saturating_sub(one.native.start);
        at.saturating_sub(native).saturating_add(one.frames.len())
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use cdh_elfcore::Avma;
    use cdh_symbolize::{FrameTrust, Function, Stop};

    use super::*;

    fn frame(name: &str) -> Frame {
        let function = Function {
            name: name.to_owned(),
            raw: name.to_owned(),
            offset: None,
        };
        Frame {
            pc: Avma(0),
            module: None,
            svma: None,
            trust: FrameTrust::Cfi,
            function: Ok(Arc::new(function)),
            inline: false,
            location: None,
            tail_call: false,
            signal_handler: false,
            is_return_address: false,
            interpreted: false,
            language: None,
            sp: None,
        }
    }

    fn replaced(native: &str, replacements: &[(Range<usize>, &str)]) -> String {
        let frames = |text: &str| text.chars().map(|name| frame(&name.to_string())).collect();
        let mut thread = ThreadBacktrace {
            tid: 1,
            crashing: true,
            frames: frames(native),
            stop: Stop::End,
            stored: false,
        };
        let replacements = replacements.iter().map(|(native, names)| Replacement {
            native: native.clone(),
            frames: frames(names),
        });
        apply(&mut thread, replacements.collect());
        let names = thread.frames.iter();
        names
            .map(|frame| frame.function.as_ref().unwrap().name.clone())
            .collect()
    }

    #[test]
    fn replacement_keeps_native_frames_outside_of_its_range() {
        assert_eq!(replaced("abcdef", &[(1..3, "XYZ"), (4..5, "W")]), "aXYZdWf");
        assert_eq!(replaced("ab", &[(0..0, "X"), (2..2, "Y")]), "XabY");
        assert_eq!(replaced("ab", &[]), "ab");
    }

    #[test]
    fn frame_behind_replacements_is_found_again() {
        let replacement = |native: Range<usize>, names: &str| Replacement {
            native,
            frames: names.chars().map(|name| frame(&name.to_string())).collect(),
        };
        let replacements = [replacement(1..3, "XYZ"), replacement(4..5, "W")];
        let moved = |index| moved(index, &replacements);
        assert_eq!([0, 1, 3, 4, 5].map(moved), [0, 1, 4, 5, 6]);
    }

    #[test]
    fn replacement_outside_of_the_stack_or_out_of_order_is_ignored() {
        let wrong = [(1..9, "X"), (2..3, "Y"), (1..2, "Z")];
        assert_eq!(replaced("abc", &wrong), "abY");
    }
}
