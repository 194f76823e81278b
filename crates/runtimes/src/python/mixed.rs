//! Which native frames the Python frames of a thread take the place of.
//!
//! Each native call of the evaluation loop runs one segment of Python frames. What the interpreter does to get from one
//! to the next (vectorcall, slots of types) is left out with it; functions of the interpreter that say something, such
//! as `builtin_sorted` or `time_sleep`, and all frames of other modules remain.

use std::ops::Range;
use std::sync::Arc;

use cdh_elfcore::Avma;
use cdh_symbolize::{Frame, Stop, ThreadBacktrace};

use super::stack::{PythonFrame, Segment};
use crate::{Language, Replacement};

/// The evaluation loop, whatever a compiler appended for its parts.
const LOOP: &str = "_PyEval_EvalFrameDefault";
/// Functions of the interpreter that only lead from one function to the next; `*` matches any end.
const BETWEEN: &[&str] = &[
    "_PyEval_*",
    "PyEval_*",
    "_TAIL_CALL_*",
    "_PyFunction_*",
    "_PyObject_Vectorcall*",
    "_PyObject_FastCall*",
    "_PyObject_MakeTpCall",
    "_PyObject_Call*",
    "PyObject_Call*",
    "PyObject_Vectorcall*",
    "_PyVectorcall_*",
    "PyVectorcall_*",
    "_PyMethodDef_*",
    "_PyMethodDescr_*",
    "_PyCFunction_*",
    "PyCFunction_Call*",
    "_Py_HandlePending",
    "_Py_EnterRecursive*",
    "_Py_LeaveRecursive*",
    "_PyStack_*",
    "_PyArg_*",
    "_PyStackRef*",
    "call_function",
    "do_call_core",
    "trace_call_function",
    "fast_function",
    "function_code_fastcall",
    "method_vectorcall*",
    "cfunction_vectorcall*",
    "cfunction_call*",
    "methoddescr_*",
    "classmethoddescr_*",
    "wrapperdescr_*",
    "wrapper_call",
    "method_call*",
    "object_vacall*",
    "object_isinstance",
    "vectorcall_method",
    "vectorcall_unbound",
    "vectorcall_maybe",
    "lookup_maybe_method",
    "lookup_method",
    "call_unbound*",
    "call_method",
    "call_attribute",
    "_PyType_Call",
    "slot_*",
    "type_call",
    "type_vectorcall",
    "gen_send_ex*",
    "gen_send",
    "gen_iternext",
    "_PyGen_*",
    "_gen_throw",
    "gen_throw",
    "gen_close*",
    "coro_wrapper_*",
    "run_mod*",
    "run_eval_code_obj*",
    "pyrun_*",
    "_PyRun_*",
    "PyRun_*",
    "pymain_*",
    "Py_RunMain",
    "thread_run",
    "t_bootstrap",
    "pythread_wrapper",
    "builtin_exec*",
    "builtin_eval*",
    "builtin___build_class__*",
    "import_find_and_load",
    "import_name",
    "PyImport_ImportModuleLevelObject",
    "context_run",
    "_PyPegen_run*",
];

/// Where the segments go. `interpreter` is the index of the module with the evaluation loop.
pub(super) fn replacements(
    thread: &ThreadBacktrace,
    segments: Vec<Segment>,
    interpreter: usize,
) -> Vec<Replacement> {
    let frames = &thread.frames;
    let loops =
        loops_by_address(frames, &segments).unwrap_or_else(|| loops_by_name(thread, &segments));
    let mut replacements: Vec<Replacement> = Vec::new();
    let mut segments = segments.into_iter();
    let mut next = 0;
    for (number, index) in loops.iter().enumerate() {
        let Some(segment) = segments.next() else {
            break;
        };
        let limit = loops
            .get(number.saturating_add(1))
            .copied()
            .unwrap_or(frames.len());
        let native = around(frames, *index, next..limit, interpreter);
        next = native.end;
        let Some(model) = frames.get(native.start) else {
            continue;
        };
        let frames = segment
            .frames
            .iter()
            .map(|frame| shown(frame, model))
            .collect();
        replacements.push(Replacement { native, frames });
    }
    // Below what could be unwound, Python still knows its frames.
    let is_cut = thread.stop != Stop::End || loops.is_empty();
    if let Some(model) = frames.last().filter(|_| is_cut) {
        let rest = segments.flat_map(|segment| segment.frames);
        let frames: Vec<Frame> = rest.map(|frame| shown(&frame, model)).collect();
        let end = thread.frames.len();
        replacements.push(Replacement {
            native: end..end,
            frames,
        });
    }
    replacements
}

/// Index of the native frame that runs each segment, by what the loop keeps on the native stack: compilers split the
/// loop, and a stripped file names only the part that it starts with. `None` unless all are found, in order, as far as
/// the stack goes.
fn loops_by_address(frames: &[Frame], segments: &[Segment]) -> Option<Vec<usize>> {
    let mut starts: Vec<(u64, usize)> = frames
        .iter()
        .enumerate()
        .filter(|(_, frame)| !frame.inline && !frame.tail_call)
        .filter_map(|(index, frame)| Some((frame.sp?.0, index)))
        .collect();
    starts.sort_unstable();
    let highest = starts.last()?.0;
    let mut loops: Vec<usize> = Vec::new();
    for segment in segments {
        let anchor = segment.anchor?;
        // The last frame's end is not known.
        if anchor >= highest {
            break;
        }
        let after = starts.partition_point(|(start, _)| *start <= anchor);
        let (_, index) = starts.get(after.checked_sub(1)?)?;
        if loops.last().is_some_and(|last| last >= index) {
            return None;
        }
        loops.push(*index);
    }
    (!loops.is_empty()).then_some(loops)
}

/// The same by the names of functions.
fn loops_by_name(thread: &ThreadBacktrace, segments: &[Segment]) -> Vec<usize> {
    let frames = &thread.frames;
    let loops = (0..frames.len()).filter(|index| is_loop(frames, *index));
    let loops: Vec<usize> = loops.collect();
    // A stack that ends early lacks its outermost calls. Otherwise a call that has just begun, or is about to end, has
    // no frames yet or any more.
    let spare = match thread.stop {
        Stop::End => loops.len().saturating_sub(segments.len()),
        _ => 0,
    };
    loops.into_iter().skip(spare).collect()
}

/// A Python frame in the place of a native one.
fn shown(frame: &PythonFrame, native: &Frame) -> Frame {
    Frame {
        function: Ok(Arc::clone(&frame.function)),
        location: Some(Arc::clone(&frame.location)),
        inline: false,
        tail_call: false,
        signal_handler: false,
        sp: Some(Avma(frame.at)),
        interpreted: true,
        language: Some(Language::Python.name().into()),
        ..native.clone()
    }
}

/// The native frames around the loop at `index`, within `limits`, that say nothing beside the Python frames.
fn around(
    frames: &[Frame],
    index: usize,
    limits: Range<usize>,
    interpreter: usize,
) -> Range<usize> {
    let says_nothing = |frame: &&Frame| is_between(frame, interpreter);
    let above = frames.get(limits.start..index).unwrap_or_default();
    let above = above.iter().rev().take_while(says_nothing).count();
    let first_below = index.saturating_add(1);
    let below = frames.get(first_below..limits.end).unwrap_or_default();
    let below = below.iter().take_while(says_nothing).count();
    index.saturating_sub(above)..first_below.saturating_add(below)
}

/// Whether a native call of the evaluation loop is at `index`; not one that was inlined into it.
fn is_loop(frames: &[Frame], index: usize) -> bool {
    let Some(frame) = frames
        .get(index)
        .filter(|frame| !frame.inline && !frame.interpreted)
    else {
        return false;
    };
    frame.function.as_ref().is_ok_and(|function| {
        let rest = function.raw.strip_prefix(LOOP);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    })
}

/// Whether a frame is the interpreter's and leads from one function to the next, or has no name.
fn is_between(frame: &Frame, interpreter: usize) -> bool {
    if frame.module != Some(interpreter) || frame.signal_handler || frame.interpreted {
        return false;
    }
    let Ok(function) = &frame.function else {
        return true;
    };
    let name = function.raw.split('.').next().unwrap_or(&function.raw);
    BETWEEN
        .iter()
        .any(|pattern| match pattern.strip_suffix('*') {
            Some(start) => name.starts_with(start),
            None => name == *pattern,
        })
}
