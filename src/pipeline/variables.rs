//! From named stacks to the variables of their frames.

use std::collections::HashMap;

use cdh_elfcore::Avma;
use cdh_inspect::{
    FrameVariables, FunctionVariables, Inspector, Storage, Value, Variable, VariableKind,
};
use cdh_runtimes::VariableReader;
use cdh_symbolize::{Frame, FrameRegisters, LoadedModule, ThreadBacktrace, with_vdso};

use super::surroundings::DiskSurroundings;
use super::{Dump, FoundModule, NamedStacks};
use crate::settings::Settings;

/// Frames of a stack whose registers are kept: those of a recursion that filled its stack are all alike.
const FRAMES: usize = 16 << 10;
/// Frames of all threads together whose arguments are read.
const LINES: usize = 4096;

/// Which variables to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WantedVariables {
    /// Arguments, of those only scalars and text.
    Arguments,
    /// Everything.
    All,
    /// Everything, containers member by member.
    Raw,
}

/// Reads the variables of the lines that `shown` names of each thread. Without a core there are none.
#[must_use]
pub fn variables(
    settings: &Settings,
    dump: &Dump,
    stacks: &NamedStacks,
    wanted: WantedVariables,
    shown: &dyn Fn(&ThreadBacktrace) -> Vec<usize>,
) -> FrameVariables {
    let mut found = FrameVariables::new();
    let Some(analysis) = &stacks.analysis else {
        return found;
    };
    let (modules, arena) = &stacks.read;
    let search = dump.module_search(&settings.images.files);
    let surroundings = DiskSurroundings {
        dump,
        modules,
        search: &search,
        cache: None,
    };
    let loaded: Vec<LoadedModule<'_>> = modules.iter().map(FoundModule::loaded).collect();
    let loaded = with_vdso(&loaded, &analysis.memory, arena);
    let process = cdh_runtimes::Process {
        threads: analysis.head.threads(),
        memory: &analysis.memory,
        modules: &loaded,
        arena,
        surroundings: &surroundings,
    };
    let runtimes = VariableReader::of(&process);
    let inspector = Inspector::new(&analysis.memory, &loaded, arena, &surroundings);
    inspector.read_containers(wanted != WantedVariables::Raw);
    let mut left = LINES;
    for thread in stacks.backtrace.threads.iter().filter(|one| !one.stored) {
        let known = analysis.head.threads().iter();
        let Some(registers) = known.into_iter().find(|known| known.tid == thread.tid) else {
            continue;
        };
        let mut lines = shown(thread);
        lines.truncate(left);
        left -= lines.len();
        let places = places(&thread.frames);
        let deepest = lines.iter().filter_map(|line| places.get(*line)).max();
        let Some(deepest) = deepest else { continue };
        let is_mixed = thread.frames.iter().any(|frame| frame.interpreted);
        let limit = match is_mixed {
            true => FRAMES,
            false => deepest.frame.saturating_add(2).min(FRAMES),
        };
        let frames = inspector.frames(&registers.registers, limit);
        let places = if is_mixed {
            native_places(&thread.frames, &frames)
        } else {
            places
        };
        for line in lines {
            let (Some(place), Some(frame)) = (places.get(line), thread.frames.get(line)) else {
                continue;
            };
            if frame.interpreted {
                let all = runtimes.variables(frame);
                found.extend((!all.is_empty()).then(|| ((thread.tid, line), of_interpreted(all))));
                continue;
            }
            let function = of_line(&inspector, &frames, *place, frame, wanted);
            found.extend(function.map(|function| ((thread.tid, line), function)));
        }
    }
    found
}

/// Which frame of the stack a line belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    frame: usize,
    /// Functions that the frame's address is in further out: 0 for the function itself.
    outer: usize,
}

/// The frame of each line. Tail calls have none: their frames are gone.
fn places(lines: &[Frame]) -> Vec<Place> {
    let mut places = vec![Place { frame: 0, outer: 0 }; lines.len()];
    let mut frame = 0;
    let mut inlined: Vec<usize> = Vec::new();
    for (number, line) in lines.iter().enumerate() {
        if line.tail_call {
            if let Some(place) = places.get_mut(number) {
                place.frame = usize::MAX;
            }
            continue;
        }
        inlined.push(number);
        if line.inline {
            continue;
        }
        for (outer, number) in inlined.drain(..).rev().enumerate() {
            if let Some(place) = places.get_mut(number) {
                *place = Place { frame, outer };
            }
        }
        frame += 1;
    }
    places
}

/// As [`places`] of a stack in which frames of an interpreter took the place of native ones: the native frames that
/// remain are found by their address and stack pointer.
fn native_places(lines: &[Frame], frames: &[FrameRegisters]) -> Vec<Place> {
    let key = |pc: Avma, sp: Option<Avma>| (pc.0, sp.map(|sp| sp.0));
    let known = frames.iter().enumerate();
    let known: HashMap<_, usize> = known
        .map(|(index, frame)| (key(frame.frame.pc, frame.frame.sp), index))
        .collect();
    let mut places = places(lines);
    for (place, line) in places.iter_mut().zip(lines) {
        let found = known.get(&key(line.pc, line.sp));
        place.frame = found
            .copied()
            .filter(|_| !line.interpreted)
            .unwrap_or(usize::MAX);
    }
    places
}

/// Variables as a runtime describes them.
fn of_interpreted(variables: Vec<cdh_runtimes::Variable>) -> FunctionVariables {
    let (arguments, locals): (Vec<_>, Vec<_>) =
        variables.into_iter().partition(|one| one.is_argument);
    let of_runtime = |variables: Vec<cdh_runtimes::Variable>| {
        let of_runtime = |variable: cdh_runtimes::Variable| Variable {
            name: variable.name,
            type_name: variable.type_name,
            type_id: None,
            kind: match variable.is_argument {
                true => VariableKind::Argument,
                false => VariableKind::Local,
            },
            storage: Storage::Nowhere,
            value: Value::Described(variable.value),
            value_at_entry: None,
        };
        variables.into_iter().map(of_runtime).collect::<Vec<_>>()
    };
    FunctionVariables {
        name: None,
        arguments: of_runtime(arguments),
        locals: of_runtime(locals),
    }
}

fn of_line(
    inspector: &Inspector<'_>,
    frames: &[FrameRegisters],
    place: Place,
    line: &Frame,
    wanted: WantedVariables,
) -> Option<FunctionVariables> {
    let frame = frames.get(place.frame)?;
    if frame.frame.pc != line.pc || line.function.is_err() {
        return None;
    }
    let mut functions = match wanted {
        WantedVariables::Arguments => inspector.arguments(frames, place.frame),
        WantedVariables::All | WantedVariables::Raw => inspector.variables(frames, place.frame),
    };
    let index = functions.len().checked_sub(place.outer.checked_add(1)?)?;
    Some(functions.swap_remove(index))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use cdh_elfcore::Avma;
    use cdh_symbolize::{FrameTrust, Function};

    use super::*;

    fn line(inline: bool, tail_call: bool) -> Frame {
        Frame {
            pc: Avma(1),
            module: None,
            svma: None,
            trust: FrameTrust::Cfi,
            function: Ok(Arc::new(Function {
                name: String::new(),
                raw: String::new(),
                offset: None,
            })),
            inline,
            location: None,
            tail_call,
            signal_handler: false,
            is_return_address: true,
            interpreted: false,
            language: None,
            sp: None,
        }
    }

    #[test]
    fn lines_belong_to_frames_despite_inlined_and_tail_calls() {
        let lines = [
            line(true, false),
            line(true, false),
            line(false, false),
            line(false, true),
            line(false, false),
        ];
        let found: Vec<_> = places(&lines)
            .into_iter()
            .map(|place| (place.frame, place.outer))
            .collect();
        assert_eq!(found, [(0, 2), (0, 1), (0, 0), (usize::MAX, 0), (1, 0)]);
    }
}
