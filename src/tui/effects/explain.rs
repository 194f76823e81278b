//! Reads a dump: the minicore first, because it is small, then the rest.

use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Sender;

use anyhow::Result;
use cdh_bundle::EntryKind;
use cdh_inspect::FrameVariables;
use cdh_store::DumpSummary;
use cdh_symbolize::ThreadBacktrace;

use super::{Session, guarded};
use crate::pipeline::{
    self, BacktraceRequest, Dump, NamedStacks, Observer, SourceFinder, SourceSearch, TaskScope,
    WantedVariables,
};
use crate::render::terminal_line;
use crate::settings::Settings;
use crate::tui::model::{Depth, Opened, RequestId, Source, Stacks, Texts};
use crate::tui::msg::{Msg, SourceWanted};
use crate::tui::pages;

/// Maximum frames shown per thread.
const FRAMES: usize = 256;
/// Maximum bytes shown of a log, a JSON text or a list of mappings.
const TEXT: u64 = 4 << 20;
/// Lines of source shown before and after the frame's line.
const AROUND: u32 = 20;

struct Silent;

impl Observer for Silent {
    fn started(&self, _: &str, _: Option<u64>) {}
    fn advanced(&self, _: u64) {}
    fn finished(&self) {}
}

/// Sends the answers about a dump step by step.
pub(super) fn explain(
    session: &Session,
    request: RequestId,
    summary: &DumpSummary,
    depth: Depth,
    messages: &Sender<Msg>,
) {
    if session.over.load(Ordering::SeqCst) {
        return;
    }
    let id = summary.id;
    // At the end of the session, the receiver is gone.
    let send = |msg| drop(messages.send(msg));
    let dump =
        guarded(|| pipeline::open_summary(&session.settings, &session.store()?, summary.clone()));
    match dump {
        Err(error) => send(Msg::Opened(request, id, Err(error))),
        Ok(dump) => {
            send(Msg::Opened(request, id, Ok(Arc::new(opened(&dump)))));
            let quick = guarded(|| Ok(dump.quick_analysis()));
            let quick = quick.ok().flatten();
            let enough = quick.is_some() && depth == Depth::Quick;
            if let Some(analysis) = quick {
                // While the user scrolls, nothing is pulled from a registry.
                let settings = session.settings.offline();
                let wanted = request_of_stacks();
                let named = || pipeline::name_stacks(&settings, &dump, analysis, &wanted, &Silent);
                let stacks = guarded(|| Ok(stacks(&settings, &dump, named())));
                send(Msg::Stacks(request, id, stacks.map(Arc::new)));
            }
            if depth == Depth::Full {
                send(Msg::Texts(request, id, Arc::new(texts(&dump))));
            }
            if !enough && (depth == Depth::Full || has_random_access(&dump)) {
                let stacks = guarded(|| {
                    let wanted = request_of_stacks();
                    let named = pipeline::backtrace(&session.settings, &dump, &wanted, &Silent)?;
                    Ok(stacks(&session.settings, &dump, named))
                });
                send(Msg::Stacks(request, id, stacks.map(Arc::new)));
            }
        }
    }
    send(Msg::Explained(request, id, depth));
}

/// Whether parts of the core can be read. Otherwise the complete core would have to be downloaded.
fn has_random_access(dump: &Dump) -> bool {
    dump.bundle()
        .is_none_or(|bundle| matches!(bundle.core_source(), Ok(Some(_))))
}

fn opened(dump: &Dump) -> Opened {
    let origin = match &dump.origin {
        pipeline::Origin::Store(summary) => format!("store, {}", summary.key),
        pipeline::Origin::Bundle(path)
        | pipeline::Origin::Spool(path)
        | pipeline::Origin::Case(path)
        | pipeline::Origin::Core(path) => path.display().to_string(),
    };
    Opened {
        manifest: dump.manifest.clone(),
        origin,
        salvaged: dump.damage_line(),
    }
}

fn request_of_stacks() -> BacktraceRequest {
    BacktraceRequest {
        all_threads: true,
        limit: FRAMES,
        tasks: TaskScope::Crashing,
        use_cache: true,
        disassemble: true,
    }
}

/// Variables of the thread that crashed, and arguments of the others.
fn variables(settings: &Settings, dump: &Dump, named: &NamedStacks) -> FrameVariables {
    let read = |wanted, crashing: bool| {
        let shown = |thread: &ThreadBacktrace| match thread.crashing == crashing {
            true => (0..thread.frames.len()).collect(),
            false => Vec::new(),
        };
        pipeline::variables(settings, dump, named, wanted, &shown)
    };
    let mut found = read(WantedVariables::All, true);
    found.extend(read(WantedVariables::Arguments, false));
    found
}

fn stacks(settings: &Settings, dump: &Dump, named: NamedStacks) -> Stacks {
    let variables = variables(settings, dump, &named);
    let threads = named.threads().to_vec();
    let overflow = named.overflow();
    let completeness = named.completeness().cloned();
    let from_minicore = named.is_from_minicore();
    let NamedStacks {
        backtrace,
        analysis,
        abort_message,
        cause,
        listings,
        runtimes,
        module_times,
        ..
    } = named;
    let head = analysis.as_ref().map(|analysis| &analysis.head);
    Stacks {
        variables,
        backtrace,
        module_times,
        threads,
        overflow,
        abort_message,
        cause,
        listings,
        runtimes,
        completeness,
        from_minicore,
        names: dump.surrounding().names,
        mappings: head.map_or_else(Vec::new, |head| head.mappings().to_vec()),
        segments: head.map_or_else(Vec::new, |head| head.segments().to_vec()),
    }
}

fn texts(dump: &Dump) -> Texts {
    let mut texts = Texts::default();
    let Some(bundle) = dump.bundle() else {
        return texts;
    };
    let workload = dump.manifest.workload.as_ref();
    let logs = workload.map_or(&[][..], |workload| workload.logs.as_slice());
    for entry in bundle.entries() {
        let Some(kind) = &entry.kind else { continue };
        let wanted = matches!(
            kind,
            EntryKind::Log(_)
                | EntryKind::Proc
                | EntryKind::PodInfo
                | EntryKind::RuntimeInfo
                | EntryKind::PsInfo
                | EntryKind::ImageInfo(_)
        );
        let read = || -> Result<Vec<u8>> {
            let mut bytes = Vec::new();
            bundle
                .entry_reader(entry)?
                .take(TEXT)
                .read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        let Some(bytes) = wanted.then(read).and_then(Result::ok) else {
            continue;
        };
        let name = kind.file_name();
        match kind {
            EntryKind::Log(_) => {
                let of = logs.iter().find(|log| log.file == name);
                let title = of.map_or_else(|| name.clone(), |log| format!("{name}: {log}"));
                let text = String::from_utf8_lossy(&bytes).into_owned();
                texts.logs.push((title, text));
            }
            EntryKind::Proc => {
                let json: Option<serde_json::Value> = serde_json::from_slice(&bytes).ok();
                let maps = json.as_ref().and_then(|json| json.get("maps")?.as_str());
                texts.maps = maps.map(str::to_owned);
            }
            _ => {
                if let Ok(json) = serde_json::from_slice(&bytes) {
                    texts.runtime.push((name, json));
                }
            }
        }
    }
    texts
}

/// The frame in which a dump crashed.
pub(super) fn name(
    session: &Session,
    request: RequestId,
    summary: Box<DumpSummary>,
    messages: &Sender<Msg>,
) {
    if session.over.load(Ordering::SeqCst) {
        return;
    }
    let top = guarded(|| {
        let store = session.store()?;
        let dump = pipeline::open_summary(&session.settings, &store, (*summary).clone())?;
        let request = BacktraceRequest {
            all_threads: false,
            limit: 64,
            tasks: TaskScope::Crashing,
            use_cache: true,
            disassemble: false,
        };
        let settings = session.settings.offline();
        let name = |analysis| pipeline::name_stacks(&settings, &dump, analysis, &request, &Silent);
        let stored = || pipeline::name_stored_stacks(&settings, &dump, &request, &Silent);
        let stacks = match dump.quick_analysis().map(name).or_else(stored) {
            Some(stacks) => stacks,
            None if has_random_access(&dump) => name(dump.analysis(&session.settings, &Silent)?),
            None => return Ok(None),
        };
        Ok(pages::top_frame(&stacks.backtrace))
    });
    let top = top.ok().flatten();
    let _ = messages.send(Msg::Named(request, summary, top));
}

/// Lines around a frame, from a file below the current checkout.
pub(super) fn source(wanted: SourceWanted) -> Source {
    let first = wanted.line.saturating_sub(AROUND).max(1);
    let revision = wanted.revision.as_deref();
    let finder = SourceFinder::new(&SourceSearch::default(), revision, wanted.crashed);
    let (lines, warnings) = match finder.find(&wanted.question) {
        Ok(text) => (around(&text.lines, first, wanted.line), text.warnings),
        Err(reason) => (Err(reason), Vec::new()),
    };
    Source {
        file: wanted.question.file,
        line: wanted.line,
        first,
        warnings,
        // The source of a library is usually not available, so no reason is shown.
        lines: lines.map_err(|reason| if wanted.is_own { reason } else { String::new() }),
    }
}

fn around(all: &[String], first: u32, line: u32) -> Result<Vec<String>, String> {
    let skip = usize::try_from(first)
        .unwrap_or(usize::MAX)
        .saturating_sub(1);
    let wanted = all.iter().skip(skip).take(2 * AROUND as usize + 1);
    let lines: Vec<String> = wanted
        .map(|text| terminal_line(&text.replace('\t', "    ")))
        .collect();
    let count = u32::try_from(lines.len()).unwrap_or(u32::MAX);
    if count.saturating_add(first) > line {
        Ok(lines)
    } else {
        Err("it has fewer lines".to_owned())
    }
}
