//! Interpreters that are written into a memory of zeros, with the layout of each version. `cargo xtask
//! faulthandler` shows that the layouts are those of real interpreters.

use std::sync::Arc;

use cdh_elfcore::Memory;
use cdh_symbolize::{Alone, FrameTrust, Function, Reason, SectionArena, Stop};

use super::*;

const SIZE: usize = 1 << 20;
/// Where the memory begins.
const BASE: u64 = 0x1000;

struct Image {
    bytes: Vec<u8>,
    next: u64,
    layout: Layout,
}

impl Memory for Image {
    fn read(&self, at: Avma, buffer: &mut [u8]) -> usize {
        let start = usize::try_from(at.0.wrapping_sub(BASE)).unwrap_or(usize::MAX);
        let known = self.bytes.get(start..).unwrap_or_default();
        let count = known.len().min(buffer.len());
        buffer[..count].copy_from_slice(&known[..count]);
        count
    }
}

impl Image {
    fn new(layout: Layout) -> Self {
        Self {
            bytes: vec![0; SIZE],
            next: BASE + 0x40_000,
            layout,
        }
    }

    fn room(&mut self, size: u64) -> u64 {
        let at = self.next;
        self.next += size.next_multiple_of(16);
        at
    }

    fn put(&mut self, at: u64, bytes: &[u8]) {
        let start = (at - BASE) as usize;
        self.bytes[start..start + bytes.len()].copy_from_slice(bytes);
    }

    fn word(&mut self, at: u64, value: u64) {
        self.put(at, &value.to_le_bytes());
    }

    fn kind(&mut self, name: &str, flags: u64) -> u64 {
        let kind = self.room(0x200);
        let text = self.room(64);
        self.put(text, name.as_bytes());
        self.word(kind + self.layout.object.type_name, text);
        self.word(kind + self.layout.object.type_flags, flags);
        kind
    }

    fn object(&mut self, name: &str, flags: u64) -> u64 {
        let kind = self.kind(name, flags);
        let object = self.room(0x400);
        self.word(object + self.layout.object.kind, kind);
        object
    }

    fn text(&mut self, text: &str) -> u64 {
        let object = self.object("str", 1 << 28);
        let layout = self.layout.string.clone();
        let wide = !text.is_ascii();
        let units: Vec<u8> = match wide {
            false => text.bytes().collect(),
            true => text
                .chars()
                .flat_map(|c| (c as u16).to_le_bytes())
                .collect(),
        };
        let width = if wide { 2_u32 } else { 1 };
        let state = width << layout.kind_bit
            | 1 << layout.compact_bit
            | u32::from(!wide) << layout.ascii_bit;
        self.word(object + layout.length, text.chars().count() as u64);
        self.put(object + layout.state, &state.to_le_bytes());
        let start = if wide { layout.compact } else { layout.ascii };
        self.put(object + start, &units);
        object
    }

    fn bytes(&mut self, bytes: &[u8]) -> u64 {
        let object = self.object("bytes", 1 << 27);
        self.word(object + self.layout.object.size, bytes.len() as u64);
        self.put(object + self.layout.object.bytes, bytes);
        object
    }

    fn tuple(&mut self, items: &[u64]) -> u64 {
        let object = self.object("tuple", 1 << 26);
        self.word(object + self.layout.object.size, items.len() as u64);
        let start = object + self.layout.object.tuple_items;
        for (item, at) in items.iter().zip((start..).step_by(8)) {
            self.word(at, *item);
        }
        object
    }

    fn integer(&mut self, value: u32) -> u64 {
        let object = self.object("int", 1 << 24);
        match self.layout.object.int_tag {
            Some(tag) => self.word(object + tag, 1 << 3),
            None => self.word(object + self.layout.object.size, 1),
        }
        self.put(object + self.layout.object.int_digits, &value.to_le_bytes());
        object
    }

    /// A function with the arguments `count` and `text`.
    fn code(&mut self, name: &str, file: &str) -> u64 {
        let code = self.object("code", 0);
        let layout = self.layout.code.clone();
        let (name, file) = (self.text(name), self.text(file));
        let names = ["count", "text"].map(|name| self.text(name));
        let names = self.tuple(&names);
        self.word(code + layout.name, name);
        self.word(code + layout.filename, file);
        self.put(code + layout.first_line, &10_u32.to_le_bytes());
        self.put(code + layout.argcount, &2_u32.to_le_bytes());
        // Two instructions; the second one is three lines down.
        let table: &[u8] = match self.layout.minor {
            ..=9 => &[2, 3],
            10 => &[2, 0, 2, 3],
            _ => &[0x80 | 10 << 3, 0, 0x80 | 13 << 3, 6],
        };
        let table = self.bytes(table);
        self.word(code + layout.linetable, table);
        let slots = (layout.localsplusnames, layout.localspluskinds);
        if let (Some(qualname), (Some(slots), Some(kinds))) = (layout.qualname, slots) {
            self.word(code + qualname, name);
            self.word(code + slots, names);
            let plain = self.bytes(&[0x20, 0x20]);
            self.word(code + kinds, plain);
        }
        if let Some(varnames) = layout.varnames {
            self.word(code + varnames, names);
        }
        code
    }

    /// A frame at the second instruction of `code`.
    fn frame(&mut self, code: u64, previous: u64, owner: u8) -> u64 {
        let frame = self.room(0x200);
        let layout = self.layout.frame.clone();
        self.word(frame + layout.previous, previous);
        self.word(frame + layout.code, code);
        match self.layout.code.instructions {
            Some(start) => self.word(frame + layout.instruction, code + start + 2),
            None => {
                let index: u32 = if self.layout.minor == 10 { 1 } else { 2 };
                self.put(frame + layout.instruction, &index.to_le_bytes());
            }
        }
        if let Some(offset) = layout.owner {
            self.put(frame + offset, &[owner]);
        }
        frame
    }

    /// An interpreter with one thread, whose innermost frame is `frame`.
    fn runtime(&mut self, frame: u64) -> (u64, u64) {
        let (runtime, interpreter, thread) = (BASE, self.room(0x8_000), self.room(0x1000));
        let layout = self.layout.clone();
        self.word(runtime + layout.runtime.interpreters_head, interpreter);
        self.word(interpreter + layout.interpreter.threads_head, thread);
        self.word(thread + layout.thread.interp, interpreter);
        match (layout.thread.frame, layout.thread.cframe) {
            (Some(offset), _) => self.word(thread + offset, frame),
            (None, cframe) => {
                let on_stack = self.room(64);
                self.word(thread + cframe.unwrap(), on_stack);
                self.word(on_stack + layout.thread.cframe_frame.unwrap(), frame);
            }
        }
        (runtime, thread)
    }
}

/// Runs `check` on an interpreter with the memory of `image`.
fn with<T>(image: &Image, runtime: u64, check: impl FnOnce(Interpreter<'_>) -> T) -> T {
    let arena = SectionArena::new();
    let process = Process {
        threads: &[],
        memory: image,
        modules: &[],
        arena: &arena,
        surroundings: &Alone,
    };
    check(Interpreter {
        process: &process,
        module: 0,
        runtime,
        version: None,
        layout: image.layout.clone(),
    })
}

/// Two functions, the inner one with values; from 3.12 on with the frame that the loop puts below them.
fn two_functions(layout: Layout) -> (Image, u64, u64) {
    let mut image = Image::new(layout);
    let inner = image.code("inner", "/srv/app.py");
    let outer = image.code("outer", "/srv/bü.py");
    let is_marked = image.layout.frame.owner.is_some() && image.layout.frame.is_entry.is_none();
    let entry = if is_marked { image.frame(0, 0, 3) } else { 0 };
    let below = image.frame(outer, entry, 0);
    let top = image.frame(inner, below, 0);
    if let Some(is_entry) = image.layout.frame.is_entry {
        image.put(below + is_entry, &[1]);
    }
    let (count, text) = (image.integer(42), image.text(&"long".repeat(30)));
    let locals = top + image.layout.frame.locals;
    image.word(locals, count);
    image.word(locals + 8, text);
    let (runtime, thread) = image.runtime(top);
    (image, runtime, thread)
}

#[test]
fn frames_of_every_version_have_name_file_line_and_values() {
    for layout in Layout::all() {
        let minor = layout.minor;
        let (image, runtime, thread) = two_functions(layout);
        with(&image, runtime, |interpreter| {
            assert!(interpreter.is_plausible(), "3.{minor}");
            let segments = interpreter.segments(thread, &RefCell::default(), usize::MAX);
            // Up to 3.10 each function has a native call of its own.
            let expected = if minor <= 10 { 2 } else { 1 };
            assert_eq!(segments.len(), expected, "3.{minor}");
            // Frames beyond a limit are not read; the native calls that run them are known.
            let limited = interpreter.segments(thread, &RefCell::default(), 1);
            let read = limited.iter().map(|segment| segment.frames.len());
            assert_eq!((limited.len(), read.sum()), (expected, 1_usize));
            let frames = segments.into_iter().flat_map(|segment| segment.frames);
            let frames: Vec<_> = frames.collect();
            let line = |frame: &stack::PythonFrame| {
                let place = &frame.location;
                format!("{} {}:{}", frame.function.raw, place.file, place.line)
            };
            let lines: Vec<_> = frames.iter().map(line).collect();
            let expected = ["inner /srv/app.py:13", "outer /srv/bü.py:13"];
            assert_eq!(lines, expected, "3.{minor}");
            let variables = interpreter.variables(frames[0].at).unwrap();
            assert!(variables.iter().all(|variable| variable.is_argument));
            let value = |one: &Variable| format!("{}={}", one.name, one.value);
            let values: Vec<_> = variables.iter().map(value).collect();
            assert_eq!(values[0], "count=42", "3.{minor}");
            assert_eq!(values[1], format!("text='{}…'", "long".repeat(15)));
        });
    }
}

#[test]
fn exception_in_flight_has_type_and_message() {
    for layout in Layout::all() {
        let minor = layout.minor;
        let (mut image, runtime, thread) = two_functions(layout);
        let message = image.text("disk is full");
        let arguments = image.tuple(&[message]);
        let error = image.object("RuntimeError", 1 << 30);
        image.word(error + image.layout.object.exception_args, arguments);
        image.word(thread + image.layout.thread.raised, error);
        with(&image, runtime, |interpreter| {
            let raised = interpreter.raised(thread);
            let expected = Some("RuntimeError: disk is full");
            assert_eq!(raised.as_deref(), expected, "3.{minor}");
        });
        // Up to 3.11 it may be a type and the text, not yet an exception.
        if let Some(raised_type) = image.layout.thread.raised_type {
            let kind = image.kind("LookupError", 1 << 30);
            image.word(thread + raised_type, kind);
            image.word(thread + image.layout.thread.raised, message);
            with(&image, runtime, |interpreter| {
                let raised = interpreter.raised(thread);
                assert_eq!(raised.as_deref(), Some("LookupError: disk is full"));
            });
        }
    }
}

#[test]
fn frames_that_lead_back_end() {
    for layout in Layout::all() {
        let mut image = Image::new(layout);
        let code = image.code("f", "f.py");
        let first = image.frame(code, 0, 0);
        let second = image.frame(code, first, 0);
        image.word(first + image.layout.frame.previous, second);
        let (runtime, thread) = image.runtime(second);
        let next = image.layout.thread.next;
        image.word(thread + next, thread);
        with(&image, runtime, |interpreter| {
            let segments = interpreter.segments(thread, &RefCell::default(), usize::MAX);
            let frames: usize = segments.iter().map(|segment| segment.frames.len()).sum();
            assert!((2..10).contains(&frames), "{frames}");
            assert_eq!(interpreter.threads().len(), 1);
        });
    }
}

#[test]
fn damaged_memory_is_read_without_panic() {
    let mut state = 5_u32;
    let mut next = move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state >> 8
    };
    for layout in Layout::all() {
        let (good, runtime, thread) = two_functions(layout);
        for _ in 0..60 {
            let mut image = Image {
                bytes: good.bytes.clone(),
                next: good.next,
                layout: good.layout.clone(),
            };
            for _ in 0..next() % 40 {
                let used = (good.next - BASE) as u32 / 8;
                let value = match next() % 4 {
                    0 => u64::MAX,
                    1 => u64::from(next()),
                    _ => BASE + u64::from(next() % used) * 8,
                };
                image.word(BASE + u64::from(next() % used) * 8, value);
            }
            with(&image, runtime, |interpreter| {
                interpreter.is_plausible();
                interpreter.threads();
                interpreter.raised(thread);
                interpreter.handled(thread);
                let segments = interpreter.segments(thread, &RefCell::default(), usize::MAX);
                interpreter.task_of(thread, &segments);
                let frames = segments.iter().flat_map(|segment| &segment.frames);
                for frame in frames.take(50) {
                    interpreter.variables(frame.at);
                    let file = &frame.location.file;
                    interpreter.counted_name(frame.at, file, &frame.function.name);
                }
            });
        }
    }
}

fn function(name: &str) -> Arc<Function> {
    Arc::new(Function {
        name: name.to_owned(),
        raw: name.to_owned(),
        offset: None,
    })
}

fn native(name: &str, sp: u64) -> Frame {
    Frame {
        pc: Avma(1),
        sp: Some(Avma(sp)),
        module: Some(usize::from(name == "extension")),
        svma: None,
        trust: FrameTrust::Cfi,
        function: match name {
            "" => Err(Reason::NotInAnyFunction),
            name => Ok(function(name)),
        },
        inline: false,
        location: None,
        tail_call: false,
        signal_handler: false,
        is_return_address: true,
        interpreted: false,
        language: None,
    }
}

/// The stack with Python functions in place of the native ones; segments are separated by `|`, `@` is an anchor. The
/// stack pointers of the frames are 0x100, 0x200, …
fn mixed(names: &[&str], segments: &str, stop: Stop) -> String {
    let frames = names.iter().zip(1..);
    let frames = frames.map(|(name, index)| native(name, index * 0x100));
    let mut thread = ThreadBacktrace {
        tid: 1,
        crashing: true,
        frames: frames.collect(),
        stop,
        stored: false,
    };
    let place = Arc::new(cdh_symbolize::Location {
        file: "f.py".to_owned(),
        line: 1,
        column: None,
        md5: None,
    });
    let python = |name: char| stack::PythonFrame {
        at: 0,
        function: function(&name.to_string()),
        location: Arc::clone(&place),
    };
    let segment = |text: &str| {
        let anchor = text.split_once('@');
        let (text, anchor) = anchor.map_or((text, None), |(text, at)| (text, at.parse().ok()));
        Segment {
            frames: text.chars().map(python).collect(),
            anchor,
        }
    };
    let segments = segments.split('|').map(segment).collect();
    let replacements = mixed::replacements(&thread, segments, 0);
    crate::replacement::apply(&mut thread, replacements);
    let name = |frame: &Frame| match &frame.function {
        Ok(function) => function.name.clone(),
        Err(_) => "?".to_owned(),
    };
    let names: Vec<_> = thread.frames.iter().map(name).collect();
    names.join(" ")
}

#[test]
fn python_frames_take_the_place_of_the_loop_and_its_helpers() {
    let stack = [
        "memset",
        "cfunction_vectorcall_O",
        "_PyEval_EvalFrameDefault",
        "_PyEval_Vector",
        "extension",
        "",
        "_PyEval_EvalFrameDefault.cold",
        "PyEval_EvalCode",
        "builtin_sorted",
        "_PyEval_EvalFrameDefault",
        "main",
    ];
    let shown = mixed(&stack, "ab|c|de", Stop::End);
    assert_eq!(shown, "memset a b extension c builtin_sorted d e main");
    // A call that has no frames yet.
    let shown = mixed(&stack, "a|b", Stop::End);
    let rest = "_PyEval_EvalFrameDefault _PyEval_Vector extension a builtin_sorted b main";
    assert_eq!(shown, format!("memset cfunction_vectorcall_O {rest}"));
    // A native stack that is cut.
    let cut = mixed(&stack[..4], "a|bc|d", Stop::Limit);
    assert_eq!(cut, "memset a b c d");
}

#[test]
fn loop_without_a_name_is_found_by_its_data_on_the_stack() {
    let stack = ["memset", "", "", "extension", "", "main", "_start"];
    // Addresses in the third and the fifth native frame.
    let shown = mixed(&stack, "ab@784|c@1300", Stop::End);
    assert_eq!(shown, "memset a b extension c main _start");
}
