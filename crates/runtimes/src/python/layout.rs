//! Where the fields of CPython's structures are, by version.
//!
//! Offsets are in `layouts/python/<version>.toml`, written by `layouts/python/offsets.c` from the headers of that
//! version. From 3.13 on, the process states most of them itself (`_Py_DebugOffsets`, at the start of `_PyRuntime`);
//! what it states takes precedence.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::Process;

/// Versions with a layout, newest first.
const LAYOUTS: [&str; 7] = [
    include_str!("../../layouts/python/3.14.toml"),
    include_str!("../../layouts/python/3.13.toml"),
    include_str!("../../layouts/python/3.12.toml"),
    include_str!("../../layouts/python/3.11.toml"),
    include_str!("../../layouts/python/3.10.toml"),
    include_str!("../../layouts/python/3.9.toml"),
    include_str!("../../layouts/python/3.8.toml"),
];

/// What `_Py_DebugOffsets` begins with.
pub(super) const COOKIE: &[u8; 8] = b"xdebugpy";
/// No structure of the interpreter is larger: 3.12's interpreter state has some 500 KiB.
const LARGEST: u64 = 4 << 20;

/// Offsets in bytes. Fields that some versions do not have are optional.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Layout {
    /// Minor version: 8 for 3.8.
    pub minor: u32,
    pub runtime: Runtime,
    pub gil: Gil,
    pub interpreter: Interpreter,
    pub thread: Thread,
    pub frame: Frame,
    pub code: Code,
    pub object: Object,
    pub string: Text,
    pub dict: Dict,
    pub task: Task,
    /// Field, such as `frame.previous`, to where the process states its offset.
    #[serde(default)]
    pub debug_offsets: BTreeMap<String, u64>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Runtime {
    pub interpreters_head: u64,
    pub finalizing: u64,
    /// Up to 3.11.
    pub gil: Option<u64>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Gil {
    pub holder: u64,
    pub locked: u64,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Interpreter {
    pub next: u64,
    pub id: u64,
    pub threads_head: u64,
    /// A pointer, from 3.12 on.
    pub gil: Option<u64>,
    pub modules: u64,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Thread {
    pub next: u64,
    pub interp: u64,
    /// `pthread_self()`.
    pub thread_id: u64,
    /// From 3.11 on.
    pub native_thread_id: Option<u64>,
    /// The innermost frame; up to 3.10, and from 3.13 on.
    pub frame: Option<u64>,
    /// 3.11 and 3.12: a structure on the native stack that points to the innermost frame.
    pub cframe: Option<u64>,
    pub cframe_frame: Option<u64>,
    pub cframe_previous: Option<u64>,
    /// Up to 3.11, where an exception's value may still be its arguments.
    pub raised_type: Option<u64>,
    pub raised: u64,
    pub exc_info: u64,
    pub exc_value: u64,
    pub exc_previous: u64,
    /// From 3.14 on.
    pub asyncio_task: Option<u64>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Frame {
    pub previous: u64,
    pub code: u64,
    /// Up to 3.10 an index, then a pointer.
    pub instruction: u64,
    pub globals: u64,
    pub locals: u64,
    /// Up to 3.10. Only 3.10 reads it without a trace function.
    pub line: Option<u64>,
    /// From 3.11 on.
    pub owner: Option<u64>,
    /// 3.11: whether the native evaluation loop was entered for it.
    pub is_entry: Option<u64>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Code {
    pub filename: u64,
    pub name: u64,
    pub first_line: u64,
    pub flags: u64,
    pub argcount: u64,
    pub kwonlyargcount: u64,
    pub linetable: u64,
    /// From 3.11 on.
    pub qualname: Option<u64>,
    pub instructions: Option<u64>,
    pub localsplusnames: Option<u64>,
    pub localspluskinds: Option<u64>,
    /// Up to 3.10.
    pub varnames: Option<u64>,
    pub cellvars: Option<u64>,
    pub freevars: Option<u64>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Object {
    #[serde(rename = "type")]
    pub kind: u64,
    pub size: u64,
    pub type_name: u64,
    pub type_flags: u64,
    pub bytes: u64,
    pub float: u64,
    /// From 3.12 on.
    pub int_tag: Option<u64>,
    pub int_digits: u64,
    pub tuple_items: u64,
    pub set_used: u64,
    pub cell: u64,
    pub exception_args: u64,
    pub module_dict: u64,
    pub generator_qualname: u64,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Text {
    pub length: u64,
    pub state: u64,
    /// Where the characters of an ASCII string begin.
    pub ascii: u64,
    /// Where those of another compact string begin.
    pub compact: u64,
    /// Pointer to the characters of a string that is not compact.
    pub data: u64,
    pub kind_bit: u32,
    pub compact_bit: u32,
    pub ascii_bit: u32,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Dict {
    pub used: u64,
    pub keys: u64,
    pub values: u64,
    /// The number of slots, up to 3.10.
    pub size: Option<u64>,
    pub log2_index_bytes: Option<u64>,
    pub kind: Option<u64>,
    pub entries: u64,
    pub indices: u64,
}

/// `TaskObj` of `_asynciomodule.c`, which is in no header: from the debug information of `_asyncio`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Task {
    pub coroutine: u64,
    pub name: u64,
}

impl Layout {
    /// Layouts of all known versions, newest first.
    pub(super) fn all() -> impl Iterator<Item = Self> {
        LAYOUTS.iter().filter_map(|text| toml::from_str(text).ok())
    }

    /// The layout of version 3.`minor`.
    pub(super) fn of_version(minor: u32) -> Option<Self> {
        let start = format!("minor = {minor}\n");
        let text = LAYOUTS.iter().find(|text| text.contains(&start))?;
        toml::from_str(text).ok()
    }

    /// Takes over the offsets that the process states at `runtime`. `None` if it states others than can be.
    pub(super) fn with_debug_offsets(
        mut self,
        process: &Process<'_>,
        runtime: u64,
    ) -> Option<Self> {
        let stated = std::mem::take(&mut self.debug_offsets);
        for (name, place) in &stated {
            let value = process.u64(runtime.checked_add(*place)?)?;
            if value > LARGEST {
                return None;
            }
            match self.field(name)? {
                Field::Always(field) => *field = value,
                Field::Sometimes(field) => *field = Some(value),
            }
        }
        Some(self)
    }

    /// The fields that `_Py_DebugOffsets` has.
    fn field(&mut self, name: &str) -> Option<Field<'_>> {
        use Field::{Always, Sometimes};
        Some(match name {
            "runtime.interpreters_head" => Always(&mut self.runtime.interpreters_head),
            "runtime.finalizing" => Always(&mut self.runtime.finalizing),
            "interpreter.next" => Always(&mut self.interpreter.next),
            "interpreter.id" => Always(&mut self.interpreter.id),
            "interpreter.threads_head" => Always(&mut self.interpreter.threads_head),
            "interpreter.modules" => Always(&mut self.interpreter.modules),
            "interpreter.gil" => Sometimes(&mut self.interpreter.gil),
            "thread.next" => Always(&mut self.thread.next),
            "thread.interp" => Always(&mut self.thread.interp),
            "thread.frame" => Sometimes(&mut self.thread.frame),
            "thread.thread_id" => Always(&mut self.thread.thread_id),
            "thread.native_thread_id" => Sometimes(&mut self.thread.native_thread_id),
            "frame.previous" => Always(&mut self.frame.previous),
            "frame.code" => Always(&mut self.frame.code),
            "frame.instruction" => Always(&mut self.frame.instruction),
            "frame.locals" => Always(&mut self.frame.locals),
            "frame.owner" => Sometimes(&mut self.frame.owner),
            "code.filename" => Always(&mut self.code.filename),
            "code.name" => Always(&mut self.code.name),
            "code.qualname" => Sometimes(&mut self.code.qualname),
            "code.linetable" => Always(&mut self.code.linetable),
            "code.first_line" => Always(&mut self.code.first_line),
            "code.argcount" => Always(&mut self.code.argcount),
            "code.localsplusnames" => Sometimes(&mut self.code.localsplusnames),
            "code.localspluskinds" => Sometimes(&mut self.code.localspluskinds),
            "code.instructions" => Sometimes(&mut self.code.instructions),
            _ => return None,
        })
    }
}

enum Field<'l> {
    Always(&'l mut u64),
    Sometimes(&'l mut Option<u64>),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_layout_parses_and_knows_the_fields_that_a_process_states() {
        let minors: Vec<u32> = Layout::all().map(|layout| layout.minor).collect();
        assert_eq!(minors, [14, 13, 12, 11, 10, 9, 8]);
        for mut layout in Layout::all() {
            let stated = std::mem::take(&mut layout.debug_offsets);
            assert_eq!(stated.is_empty(), layout.minor < 13);
            for name in stated.keys() {
                assert!(layout.field(name).is_some(), "{name}");
            }
            let is_known =
                Layout::of_version(layout.minor).is_some_and(|known| known.minor == layout.minor);
            assert!(is_known);
        }
        assert!(Layout::of_version(1).is_none());
    }
}
