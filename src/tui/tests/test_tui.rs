//! A TUI without terminal and store: tests receive its effects and may answer them.

use std::sync::Arc;

use cdh_bundle::{ImageRef, Manifest, ProcessFacts, RawText, SignalFacts, Workload, WorkloadOwner};
use cdh_elfcore::{Avma, FileOffset, Machine, Mapping, Registers, Segment, Svma, Thread};
use cdh_store::{DumpSummary, ManifestFacts};
use cdh_symbolize::{
    Backtrace, Elapsed, Frame, FrameTrust, Function, Location, ModuleReport, ModuleStatus, Reason,
    Stop, ThreadBacktrace,
};
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::buffer::Buffer;
use ratatui::crossterm::event::{MouseButton, MouseEvent, MouseEventKind};

use super::{dump, now};
use crate::report::{ExitStatus, RenderedError};
use crate::tui::keymap::Key;
use crate::tui::model::{
    Facts, Listing, Model, Opened, Row, Source, Stacks, Start, StoreLocation, Texts, arrange,
};
use crate::tui::msg::{Effect, Fetched, Msg};
use crate::tui::theme::{Glyphs, Theme};
use crate::tui::{update, view};

/// A model and the effects that it requested.
pub(crate) struct TestTui {
    pub(crate) model: Model,
    pub(crate) asked: Vec<Effect>,
    /// Whether effects are answered immediately.
    pub(crate) answers: bool,
    clock: u64,
}

pub(crate) fn place() -> StoreLocation {
    StoreLocation {
        store: "s3://crashes/prod".to_owned(),
        is_default: false,
        stores: vec![
            ("prod".to_owned(), "s3://crashes/prod".to_owned()),
            ("stage".to_owned(), "s3://crashes/stage".to_owned()),
        ],
    }
}

impl TestTui {
    pub(crate) fn new(size: (u16, u16)) -> Self {
        Self::with(size, true, false)
    }

    pub(crate) fn with(size: (u16, u16), colored: bool, ascii: bool) -> Self {
        let model = Model::new(Start {
            now: now(),
            size,
            theme: Theme::new(colored),
            glyphs: Glyphs { ascii },
            place: place(),
            mouse: true,
            refresh_seconds: 0,
        });
        let mut tui = Self {
            model,
            asked: Vec::new(),
            answers: true,
            clock: 0,
        };
        let effects = update::start(&mut tui.model, "");
        tui.asked.extend(effects);
        tui
    }

    /// With this many dumps and an idle selection.
    pub(crate) fn full(size: (u16, u16), dumps: usize) -> Self {
        let mut tui = Self::new(size);
        tui.list((0..dumps).map(dump).collect());
        tui.rest();
        tui
    }

    pub(crate) fn list(&mut self, dumps: Vec<DumpSummary>) {
        let request = self.model.listing;
        self.send(Msg::Page(
            request,
            dumps.into_iter().map(Row::new).collect(),
        ));
        self.send(Msg::Listed(request, Listing::Done));
    }

    pub(crate) fn send(&mut self, msg: Msg) {
        let effects = update::update(&mut self.model, msg);
        for effect in effects {
            self.asked.push(effect.clone());
            if self.answers {
                self.answer(effect);
            }
        }
    }

    /// Presses keys by their names.
    pub(crate) fn press(&mut self, keys: &str) {
        for name in keys.split(' ') {
            let key = Key::parse(name).unwrap_or_else(|| panic!("`{name}` is not a key"));
            self.send(Msg::Key(key.event()));
        }
    }

    /// Types a text.
    pub(crate) fn type_text(&mut self, text: &str) {
        for letter in text.chars() {
            let name = if letter == ' ' {
                "space".to_owned()
            } else {
                letter.to_string()
            };
            self.press(&name);
        }
    }

    pub(crate) fn click(&mut self, x: u16, y: u16) {
        self.send(Msg::Mouse(MouseEvent {
            kind: MouseEventKind::Down(MouseButton::Left),
            column: x,
            row: y,
            modifiers: ratatui::crossterm::event::KeyModifiers::NONE,
        }));
    }

    pub(crate) fn wheel(&mut self, down: bool) {
        let kind = if down {
            MouseEventKind::ScrollDown
        } else {
            MouseEventKind::ScrollUp
        };
        self.send(Msg::Mouse(MouseEvent {
            kind,
            column: 5,
            row: 5,
            modifiers: ratatui::crossterm::event::KeyModifiers::NONE,
        }));
    }

    /// Advances the clock.
    pub(crate) fn pass(&mut self, milliseconds: u64) {
        self.clock += milliseconds;
        let clock = self.clock;
        self.send(Msg::Tick { now: now(), clock });
    }

    /// Waits until the selection is idle.
    pub(crate) fn rest(&mut self) {
        self.pass(200);
        self.pass(200);
    }

    /// The last requested effect.
    pub(crate) fn last(&self) -> Option<&Effect> {
        self.asked.last()
    }

    pub(crate) fn buffer(&self) -> Buffer {
        let (width, height) = self.model.size;
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal
            .draw(|frame| view::view(&self.model, frame))
            .unwrap();
        terminal.backend().buffer().clone()
    }

    /// The screen as lines.
    pub(crate) fn screen(&self) -> String {
        let buffer = self.buffer();
        let width = usize::from(buffer.area.width);
        let mut text = String::new();
        for row in buffer.content.chunks(width) {
            let mut line = String::new();
            let mut skip = 0;
            for cell in row {
                if skip > 0 {
                    skip -= 1;
                    continue;
                }
                line.push_str(cell.symbol());
                skip = unicode_width::UnicodeWidthStr::width(cell.symbol()).saturating_sub(1);
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }

    /// Answers an effect with test data.
    fn answer(&mut self, effect: Effect) {
        match effect {
            Effect::Explain(request, dump, depth) => {
                let id = dump.id;
                self.send(Msg::Opened(request, id, Ok(Arc::new(opened(&dump)))));
                self.send(Msg::Stacks(request, id, Ok(Arc::new(stacks(&dump)))));
                self.send(Msg::Texts(request, id, Arc::new(texts())));
                self.send(Msg::Explained(request, id, depth));
            }
            Effect::Name(request, dump) => {
                let top = crate::tui::pages::top_frame(&stacks(&dump).backtrace);
                self.send(Msg::Named(request, dump, top));
            }
            Effect::Facts(request, dumps) => {
                let facts = dumps
                    .iter()
                    .map(|dump| (dump.id, Some(facts(dump))))
                    .collect();
                self.send(Msg::Facts(request, facts));
            }
            Effect::Source(request, wanted) => {
                let lines = (1..=20).map(|n| format!("    line {n};")).collect();
                let source = Source {
                    file: wanted.question.file,
                    line: wanted.line,
                    first: 1,
                    warnings: Vec::new(),
                    lines: Ok(lines),
                };
                self.send(Msg::Source(request, Box::new(source)));
            }
            Effect::Transfer(id, dump, crate::tui::model::Purpose::Fetch) => {
                self.send(Msg::Began(id, "fetching".to_owned(), Some(1_000_000)));
                self.send(Msg::Advanced(id, 1_000_000));
                let path = format!("/cache/cases/{}", dump.id);
                self.send(Msg::Ended(id, Ok(Fetched::Here(path))));
            }
            Effect::Transfer(id, _, crate::tui::model::Purpose::Debug) => {
                let view = crate::pipeline::DebugView {
                    executable: None,
                    started: None,
                    placed: Vec::new(),
                    core: "/cache/core".into(),
                    sysroot: "/cache/sysroot".into(),
                    library_directories: Vec::new(),
                    debug_directory: "/cache/debug".into(),
                    offline: false,
                    in_use: None,
                };
                let invocation = crate::debugger::Invocation::new("gdb", &view, &[]);
                self.send(Msg::Ended(id, Ok(Fetched::Ready(Box::new(invocation)))));
            }
            Effect::Arrange(request, job) => {
                let arranged = Box::new(arrange(&job));
                self.send(Msg::Arranged(request, Ok(arranged)));
            }
            Effect::Group(request, grouping) => {
                let (filter, groups) = (grouping.filter.clone(), grouping.groups());
                self.send(Msg::Grouped(request, filter, Ok(groups)));
            }
            Effect::Delete(dump) => self.send(Msg::Deleted(dump, Ok(()))),
            Effect::Switch(name) => {
                let place = StoreLocation {
                    store: format!("s3://{name}"),
                    ..place()
                };
                self.send(Msg::Switched(Ok(place)));
            }
            Effect::Debug(..) => self.send(Msg::Returned(Ok(None))),
            Effect::Pager(_) | Effect::Suspend(_) | Effect::TakeTerminal => {
                self.send(Msg::Returned(Ok(None)))
            }
            Effect::List(_)
            | Effect::Refresh(..)
            | Effect::Cancel(_)
            | Effect::Copy(_)
            | Effect::Mouse(_)
            | Effect::Discard(..) => {}
        }
    }
}

/// An error with these texts.
pub(crate) fn failure(line: &str, hint: &str, status: ExitStatus) -> RenderedError {
    RenderedError {
        lines: vec!["cannot list the store".to_owned(), line.to_owned()],
        hints: vec![hint.to_owned()],
        status,
    }
}

fn facts(dump: &DumpSummary) -> Facts {
    let image = format!(
        "registry.example/{}@sha256:{:064x}",
        dump.exe,
        dump.size.unwrap_or(0) % 3
    );
    // One in three images has a known tag.
    let release = (dump.size.unwrap_or(0) % 3 == 1).then(|| format!("{}:1.4.2", dump.exe));
    Facts {
        compared: ManifestFacts {
            image: Some(ImageRef {
                name: release,
                ..ImageRef::by_digest(image)
            }),
            nodes: vec![format!("node-{}", dump.size.unwrap_or(0) % 4)],
            exe: dump.exe.to_string(),
            exe_path: Some(format!("/usr/bin/{}", dump.exe)),
            pid: 4000 + dump.size.unwrap_or(0),
            unit: Some(format!("{}.service", dump.exe)),
            command_line: Some(format!("/usr/bin/{} --serve", dump.exe)),
            ..ManifestFacts::default()
        },
        owner: None,
    }
}

pub(crate) fn opened(dump: &DumpSummary) -> Opened {
    let manifest = Manifest {
        schema: 1,
        id: dump.id,
        stem: "stem".to_owned(),
        captured_at: dump.captured_at,
        finished_at: None,
        node: RawText::from("node-1"),
        hostname: RawText::default(),
        process: ProcessFacts {
            pid: 4711,
            name: dump.exe.clone(),
            exe: Some(RawText::from(format!("/usr/bin/{}", dump.exe).as_str())),
            ..ProcessFacts::default()
        },
        signal: SignalFacts {
            number: 11,
            name: dump.signal.clone(),
            description: format!("{}: address not mapped, at 0x10", dump.signal),
            ..SignalFacts::default()
        },
        original_signal: None,
        machine: "x86_64".to_owned(),
        verdict: cdh_bundle::Verdict::Complete,
        killed: None,
        core: None,
        workload: Some(Workload {
            namespace: dump.namespace.clone(),
            pod: dump.pod.clone(),
            container: Some("main".to_owned()),
            owner: Some(WorkloadOwner {
                kind: "Deployment".to_owned(),
                name: format!("{}-{}", dump.namespace.as_deref().unwrap_or("x"), dump.exe),
            }),
            extra: [(
                "labels".to_owned(),
                serde_json::json!({"app": "shop", "tier": "web"}),
            )]
            .into(),
            ..Workload::default()
        }),
        image: facts(dump).compared.image,
        modules: Vec::new(),
        fingerprint: dump.fingerprint.clone(),
        thread_count: Some(3),
        entries: Vec::new(),
        gaps: Vec::new(),
        agent_version: "0.1.0".to_owned(),
        imported: None,
    };
    Opened {
        manifest,
        origin: format!("store, {}", dump.key),
        salvaged: None,
    }
}

fn frame(pc: u64, name: Result<&str, Reason>, line: Option<u32>) -> Frame {
    Frame {
        pc: Avma(pc),
        module: Some(usize::from(pc > 0x7f00_0000_0000)),
        svma: Some(Svma(pc & 0xffff)),
        trust: FrameTrust::Cfi,
        function: name.map(|name| {
            Arc::new(Function {
                name: name.to_owned(),
                raw: name.to_owned(),
                offset: Some(0x21),
            })
        }),
        inline: false,
        location: line.map(|line| {
            Arc::new(Location {
                file: "/src/app/orders.c".to_owned(),
                line,
                column: Some(5),
                md5: None,
            })
        }),
        tail_call: false,
        signal_handler: false,
        is_return_address: true,
        interpreted: false,
        language: None,
        sp: None,
    }
}

pub(crate) fn stacks(dump: &DumpSummary) -> Stacks {
    let crash = format!("crash_{}", dump.fingerprint.as_deref().unwrap_or("x"));
    let mut inlined = frame(0x5550_1010, Ok("price_of"), Some(7));
    inlined.inline = true;
    let thread = |tid: u32, crashing: bool, frames: Vec<Frame>| ThreadBacktrace {
        tid,
        crashing,
        frames,
        stop: Stop::End,
        stored: false,
    };
    let idle = || {
        vec![
            frame(0x7f11_0000_2000, Ok("epoll_wait"), None),
            frame(0x7f11_0000_3000, Err(Reason::NoSymbols), None),
        ]
    };
    let threads = vec![
        thread(
            4711,
            true,
            vec![
                inlined,
                frame(0x5550_1010, Ok(&crash), Some(12)),
                frame(0x5550_1100, Ok("main"), Some(18)),
                frame(0x7f11_0000_1000, Ok("__libc_start_main"), None),
            ],
        ),
        thread(4712, false, idle()),
        thread(4713, false, idle()),
    ];
    let registers = |n: u64| {
        let mut registers = Registers::new(Machine::X86_64);
        for number in 0..17 {
            registers.set(number, Some(0x1000 * u64::from(number) + n));
        }
        registers
    };
    let module = |path: &str, status: ModuleStatus| ModuleReport {
        path: path.to_owned(),
        build_id: cdh_elfcore::BuildId::parse("9f3c41d09f3c41d09f3c41d09f3c41d09f3c41d0"),
        has_debug_info: status == ModuleStatus::Verified,
        has_symbols: true,
        status,
    };
    Stacks {
        variables: cdh_inspect::FrameVariables::new(),
        module_times: Vec::new(),
        backtrace: Backtrace {
            threads,
            modules: vec![
                module("/usr/bin/app", ModuleStatus::Verified),
                module("/usr/lib/libc.so.6", ModuleStatus::Missing),
            ],
            fingerprint: None,
            explanation: None,
            original_signal: None,
            elapsed: Elapsed {
                unwind_micros: 1,
                symbolize_micros: 1,
            },
        },
        threads: (4711..4714)
            .map(|tid| Thread {
                tid,
                signal: 0,
                blocked: 0,
                registers: registers(u64::from(tid)),
            })
            .collect(),
        completeness: None,
        overflow: None,
        abort_message: None,
        cause: None,
        listings: Vec::new(),
        runtimes: Vec::new(),
        from_minicore: false,
        names: std::collections::BTreeMap::new(),
        mappings: vec![Mapping {
            start: Avma(0x5550_0000),
            end: Avma(0x5550_9000),
            offset: FileOffset(0),
            path: b"/usr/bin/app".to_vec(),
        }],
        segments: vec![Segment {
            start: Avma(0x5550_0000),
            memory_size: 0x9000,
            offset: FileOffset(0x1000),
            file_size: 0x9000,
            flags: 5,
        }],
    }
}

fn texts() -> Texts {
    Texts {
        logs: vec![(
            "0.log".to_owned(),
            "starting\nlistening on 8080\nERROR order without price\n".to_owned(),
        )],
        runtime: vec![(
            "pod-info.json".to_owned(),
            serde_json::json!({"metadata": {"uid": "1-2-3"}}),
        )],
        maps: None,
    }
}
