//! Reads of memory, instructions and frames that every rule needs.

use cdh_elfcore::{Avma, Machine, ModuleKind, Registers, Segment, Svma};
use cdh_symbolize::{Frame, Unwinder};

use crate::instruction::{self, Instruction, LONGEST, Operand};
use crate::{Crash, Flow};

/// Longest string that is read from the process.
const LONGEST_TEXT: usize = 512;
/// Lengths of a call instruction on x86_64.
const CALLS: std::ops::RangeInclusive<u64> = 2..=8;
/// `PF_W` of a program header.
pub(crate) const WRITABLE: u32 = 2;
/// `PF_X`.
pub(crate) const EXECUTABLE: u32 = 1;
/// `PF_R`.
pub(crate) const READABLE: u32 = 4;

/// A crash with what is read from it.
pub(crate) struct Scene<'a> {
    pub(crate) crash: &'a Crash<'a>,
}

impl<'a> Scene<'a> {
    /// Reads memory, or what the module's file holds there if the core lacks a read-only page.
    pub(crate) fn read(&self, at: u64, buf: &mut [u8]) -> usize {
        let known = self.crash.memory.read(Avma(at), buf);
        if known == buf.len() {
            return known;
        }
        let rest = buf.get_mut(known..).unwrap_or_default();
        let more = at
            .checked_add(known as u64)
            .and_then(|at| self.read_file(at, rest));
        known.saturating_add(more.unwrap_or(0))
    }

    fn read_file(&self, at: u64, buf: &mut [u8]) -> Option<usize> {
        let contains = |loaded: &&cdh_symbolize::LoadedModule<'_>| loaded.module.contains(Avma(at));
        let loaded = self.crash.modules.iter().find(contains)?;
        let object = loaded.object.as_ref()?;
        let svma = Svma(at.wrapping_sub(loaded.bias()?));
        let holds = |load: &&cdh_elfcore::LoadSegment| {
            svma.checked_sub(load.start)
                .is_some_and(|inside| inside < load.file_size)
        };
        let load = object.load_segments().iter().find(holds)?;
        if load.flags & WRITABLE != 0 {
            return None;
        }
        let bytes = object.bytes_at(svma)?;
        let count = bytes.len().min(buf.len());
        buf.get_mut(..count)?.copy_from_slice(bytes.get(..count)?);
        Some(count)
    }

    pub(crate) fn u64_at(&self, at: u64) -> Option<u64> {
        let mut word = [0; 8];
        (self.read(at, &mut word) == word.len()).then(|| u64::from_le_bytes(word))
    }

    pub(crate) fn u16_at(&self, at: u64) -> Option<u16> {
        let mut word = [0; 2];
        (self.read(at, &mut word) == word.len()).then(|| u16::from_le_bytes(word))
    }

    /// The text at `at` up to its NUL, if all of it is printable.
    pub(crate) fn text_at(&self, at: u64) -> Option<String> {
        let mut bytes = [0; LONGEST_TEXT];
        let known = self.read(at, &mut bytes);
        let known = bytes.get(..known)?;
        let end = known.iter().position(|byte| *byte == 0)?;
        let text = std::str::from_utf8(known.get(..end)?).ok()?;
        let is_text = !text.is_empty()
            && text
                .chars()
                .all(|letter| !letter.is_control() || letter.is_whitespace());
        is_text.then(|| text.to_owned())
    }

    pub(crate) fn pc(&self) -> Option<u64> {
        let Some(registers) = self.crash.registers else {
            // Without a core, the innermost frame still has the address.
            let first = self.crash.frames.first()?;
            return (!first.is_return_address).then_some(first.pc.0);
        };
        Some(registers.pc()?.0)
    }

    /// The part of the stack that belongs to the frame at `index`: from its own stack pointer to its caller's.
    pub(crate) fn stack_of(&self, index: usize) -> Option<std::ops::Range<u64>> {
        let pc = self.crash.frames.get(index)?.pc;
        let (frames, _) = Unwinder::new(self.crash.modules).unwind(
            self.crash.registers?,
            self.crash.memory,
            index.checked_add(2)?,
        );
        let place = frames.iter().position(|frame| frame.pc == pc)?;
        let caller = frames.get(place.checked_add(1)?)?;
        Some(frames.get(place)?.sp?.0..caller.sp?.0)
    }

    pub(crate) fn sp(&self) -> Option<u64> {
        Some(self.crash.registers?.sp()?.0)
    }

    /// The instruction at `at`, with the registers of the crashing thread.
    pub(crate) fn instruction_at(
        &self,
        at: u64,
        registers: Option<&Registers>,
    ) -> Option<Instruction> {
        let mut bytes = [0; LONGEST];
        let known = self.read(at, &mut bytes);
        instruction::decode(self.crash.machine, Avma(at), bytes.get(..known)?, registers)
    }

    /// The instruction that faulted.
    pub(crate) fn faulting(&self) -> Option<Instruction> {
        let is_exact = self
            .crash
            .frames
            .first()
            .is_none_or(|frame| !frame.signal_handler);
        let pc = self.pc().filter(|_| is_exact)?;
        self.instruction_at(pc, self.crash.registers)
    }

    /// The call instructions that can end at `return_address`, with the registers before the call.
    pub(crate) fn calls_before(&self, return_address: u64) -> Vec<Instruction> {
        let Some(registers) = self.crash.registers else {
            return Vec::new();
        };
        let mut before = registers.clone();
        if self.crash.machine == Machine::X86_64 {
            let sp = registers.sp().and_then(|sp| sp.checked_add(8));
            before.set(registers.sp_number(), sp.map(|sp| sp.0));
        }
        let lengths = match self.crash.machine {
            Machine::Aarch64 => 4..=4,
            _ => CALLS,
        };
        let call = |length: u64| {
            let at = return_address.checked_sub(length)?;
            let found = self.instruction_at(at, Some(&before))?;
            let is_call = matches!(found.flow, Flow::Call(_)) && found.length as u64 == length;
            is_call.then_some(found)
        };
        lengths.filter_map(call).collect()
    }

    /// The value of an operand.
    pub(crate) fn value_of(
        &self,
        instruction: &Instruction,
        operand: &Operand,
        size: u64,
    ) -> Option<u64> {
        let mask = match size {
            1 => 0xff,
            2 => 0xffff,
            4 => 0xffff_ffff,
            8 => u64::MAX,
            _ => return None,
        };
        let value = match operand {
            Operand::Constant(value) => Some(*value),
            Operand::Register(register) => register.value,
            Operand::Memory(index) => {
                let mut word = [0; 8];
                let count = usize::try_from(size).ok()?;
                let at = instruction.accesses.get(*index)?.address?;
                let bytes = word.get_mut(..count)?;
                (self.read(at, bytes) == count).then(|| u64::from_le_bytes(word))
            }
            Operand::Other => None,
        };
        value.map(|value| value & mask)
    }

    /// Whether the processor can never use this address: on x86_64 bits 63 to 47 differ. Processors with 57-bit
    /// addresses accept more, so only what these refuse too is certain if `wide`.
    pub(crate) fn is_non_canonical(&self, at: u64) -> bool {
        let high = at.cast_signed() >> 47;
        self.crash.machine == Machine::X86_64 && high != 0 && high != -1
    }

    /// The segment that `at` is in.
    pub(crate) fn segment(&self, at: u64) -> Option<&'a Segment> {
        let mut segments = self.crash.segments.iter();
        segments.find(|segment| segment.contains(Avma(at)))
    }

    /// The stack of the crashing thread.
    pub(crate) fn stack(&self) -> Option<&'a Segment> {
        self.segment(self.sp()?)
    }

    /// Whether frames of the crashing thread have a function that `wanted` accepts.
    pub(crate) fn frame_where(&self, wanted: impl Fn(&str) -> bool) -> Option<usize> {
        let name = |frame: &Frame| {
            frame
                .function
                .as_ref()
                .is_ok_and(|function| wanted(&function.name))
        };
        self.crash.frames.iter().position(name)
    }

    /// As [`Self::frame_where`], among the frames above the program's own.
    pub(crate) fn ending_where(&self, wanted: impl Fn(&str) -> bool) -> Option<usize> {
        let found = self.frame_where(wanted)?;
        let own = self.own_frame().unwrap_or(usize::MAX);
        (found < own).then_some(found)
    }

    /// The innermost frame that is not of a system library or a language's runtime.
    pub(crate) fn own_frame(&self) -> Option<usize> {
        self.own_frame_from(0)
    }

    pub(crate) fn own_frame_from(&self, start: usize) -> Option<usize> {
        let frames = self.crash.frames.iter().enumerate().skip(start);
        let mut own = frames.filter(|(_, frame)| !self.is_library(frame));
        own.next().map(|(index, _)| index)
    }

    /// The number that a backtrace gives to a frame.
    pub(crate) fn number(&self, index: usize) -> usize {
        self.crash.handler_frames.saturating_add(index)
    }

    fn module_name(&self, frame: &Frame) -> Option<&'a str> {
        let report = self.crash.reports.get(frame.module?)?;
        report.path.rsplit('/').next()
    }

    fn is_library(&self, frame: &Frame) -> bool {
        if frame.signal_handler {
            return true;
        }
        if self.is_of_interpreter(frame) {
            return true;
        }
        let file = self.module_name(frame);
        if file.is_some_and(|file| LIBRARIES.iter().any(|known| file.starts_with(known))) {
            return true;
        }
        // Inlined from a header of the system, or from Rust's standard library.
        let source = frame.location.as_ref().map(|place| place.file.as_str());
        let is_of_system = |file: &str| {
            file.starts_with("/usr/include/")
                || file.starts_with("/usr/lib/gcc/")
                || file.starts_with("/rustc/")
                || file.contains("/lib/rustlib/src/")
        };
        if source.is_some_and(is_of_system) {
            return true;
        }
        match &frame.function {
            Ok(function) => is_runtime(&function.name) || self.is_linked_library(frame),
            Err(_) => false,
        }
    }

    /// Whether the frame is of an interpreter, or of the standard library of its language. Code of extension modules
    /// is the program's own.
    fn is_of_interpreter(&self, frame: &Frame) -> bool {
        let is_standard = |path: &str| {
            let inside = path.split_once("/lib/python").map(|(_, inside)| inside);
            let is_package = |inside: &str| {
                ["/site-packages/", "/dist-packages/"]
                    .iter()
                    .any(|part| inside.contains(part))
            };
            inside.is_some_and(|inside| !is_package(inside)) || path.starts_with("<frozen ")
        };
        if frame.interpreted {
            let place = frame.location.as_ref();
            return place.is_some_and(|place| is_standard(&place.file));
        }
        let Some(module) = frame.module else {
            return false;
        };
        // Interpreted frames are at an address of the interpreter.
        let mut interpreted = self.crash.frames.iter().filter(|other| other.interpreted);
        let path = self.crash.reports.get(module).map(|report| &report.path);
        interpreted.clone().next().is_some() && path.is_some_and(|path| is_standard(path))
            || interpreted.any(|other| other.module == Some(module))
    }

    /// Whether the frame is of a static program's C library: that has no debug information, the program's own
    /// functions do.
    fn is_linked_library(&self, frame: &Frame) -> bool {
        let Some(loaded) = frame.module.and_then(|index| self.crash.modules.get(index)) else {
            return false;
        };
        let is_static = loaded.module.kind == ModuleKind::Executable
            && loaded
                .object
                .as_ref()
                .is_some_and(|object| object.interpreter().is_none());
        let has_source = |other: &Frame| other.module == frame.module && other.location.is_some();
        is_static && frame.location.is_none() && self.crash.frames.iter().any(has_source)
    }

    /// `file.c:12` of a frame.
    pub(crate) fn location(&self, index: usize) -> Option<String> {
        let place = self.crash.frames.get(index)?.location.as_ref()?;
        let file = place.file.rsplit('/').next()?;
        Some(format!("{file}:{}", place.line))
    }

    /// The name of a frame's function.
    pub(crate) fn function(&self, index: usize) -> Option<&'a str> {
        let function = self.crash.frames.get(index)?.function.as_ref().ok()?;
        Some(plain(&function.name))
    }

    /// `` `checkout` (shop.c:12) ``, or what else is known of a frame.
    pub(crate) fn named(&self, index: usize) -> Option<String> {
        let frame = self.crash.frames.get(index)?;
        Some(match (self.function(index), self.location(index)) {
            (Some(name), Some(place)) => format!("`{name}` ({place})"),
            (Some(name), None) => format!("`{name}`"),
            (None, _) => match self.module_name(frame) {
                Some(file) => format!("code of `{file}`"),
                None => format!("code at {}", frame.pc),
            },
        })
    }

    /// Who did it: the innermost function, and the program's own that called it.
    pub(crate) fn actor(&self) -> String {
        self.actor_at(0)
    }

    /// As [`Self::actor`], of the frame at `index`.
    pub(crate) fn actor_at(&self, index: usize) -> String {
        let Some(first) = self.named(index) else {
            return "the program".to_owned();
        };
        let is_sure = |index: &usize| {
            self.crash
                .frames
                .get(*index)
                .is_some_and(|frame| frame.trust != cdh_symbolize::FrameTrust::Scan)
        };
        match self.own_frame_from(index).filter(is_sure) {
            Some(own) if own > index && self.function(own).is_some() => {
                let direct = match own.saturating_sub(index) {
                    1 => "called by",
                    _ => "called from",
                };
                match (self.named(own), self.function(index)) {
                    (Some(caller), Some(name)) => format!("`{name}`, {direct} {caller},"),
                    (Some(caller), None) => format!("{first}, {direct} {caller},"),
                    _ => first,
                }
            }
            _ => first,
        }
    }

    /// The program's own function that led to the end, else the innermost one.
    pub(crate) fn culprit(&self) -> Option<String> {
        self.named(self.own_frame()?)
    }

    /// ` in f (file:line)`, empty if the function is unknown.
    pub(crate) fn in_culprit(&self) -> String {
        match self.own_frame().filter(|own| self.function(*own).is_some()) {
            Some(own) => self
                .named(own)
                .map(|name| format!(" in {name}"))
                .unwrap_or_default(),
            None => String::new(),
        }
    }
}

/// Files of the system's libraries.
const LIBRARIES: [&str; 19] = [
    "libc.so",
    "libc-2",
    "libm.so",
    "libm-2",
    "libpthread",
    "libstdc++",
    "libgcc_s",
    "libc++",
    "ld-linux",
    "ld-2",
    "ld-musl",
    "libasan",
    "libubsan",
    "libtsan",
    "liblsan",
    "libmsan",
    "libclang_rt",
    "libffi.so",
    "[vdso]",
];

/// Whether a function belongs to the C library or to the runtime of C++ or Rust, wherever it is linked.
fn is_runtime(name: &str) -> bool {
    const STARTS: [&str; 13] = [
        "runtime.",
        "__",
        "_Unwind",
        "std::",
        "core::",
        "alloc::",
        "<std::",
        "<core::",
        "<alloc::",
        "_dl_",
        "_int_",
        "operator new",
        "operator delete",
    ];
    const NAMES: [&str; 22] = [
        "rust_begin_unwind",
        "rust_panic",
        "raise",
        "abort",
        "_start",
        "gsignal",
        "pthread_kill",
        "malloc",
        "free",
        "cfree",
        "calloc",
        "realloc",
        "malloc_printerr",
        "malloc_consolidate",
        "sysmalloc",
        "unlink_chunk",
        "tcache_put",
        "memcpy",
        "memmove",
        "memset",
        "strlen",
        "strcpy",
    ];
    // `<dyn Fn() as core::ops::FnOnce<()>>::call_once`.
    let is_impl =
        name.starts_with('<') && (name.contains(" as core::") || name.contains(" as std::"));
    is_impl
        || STARTS.iter().any(|start| name.starts_with(start))
        || NAMES.contains(&name)
        || name.starts_with("unlink_chunk.")
}

/// `strlen` of `__strlen_avx2`.
fn plain(name: &str) -> &str {
    let Some(inner) = name.strip_prefix("__") else {
        return name;
    };
    match ["_avx", "_sse", "_evex", "_erms"]
        .iter()
        .filter_map(|part| inner.find(part))
        .min()
    {
        Some(end) => inner
            .get(..end)
            .filter(|name| !name.is_empty())
            .unwrap_or(name),
        None => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variants_of_string_functions_have_their_plain_name() {
        assert_eq!(plain("__strlen_avx2"), "strlen");
        assert_eq!(plain("__memmove_avx_unaligned_erms"), "memmove");
        assert_eq!(plain("__assert_fail"), "__assert_fail");
        assert_eq!(plain("main"), "main");
    }
}
