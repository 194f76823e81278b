//! `cdh bt <dump>`: prints the backtrace, without unpacking the dump and without a debugger.

use std::time::Instant;

use anyhow::Result;
use cdh_symbolize::ThreadBacktrace;

use crate::args::{BtArgs, TaskChoice, TextFormat};
use crate::pipeline::{self, BacktraceRequest, Dump, SourceSearch, TaskScope, WantedVariables};
use crate::progress::Bar;
use crate::render::{self, BacktraceView, Locals};
use crate::report::{self, ExitStatus};
use crate::settings::Settings;

/// Frames of a thread that are printed one by one.
const LIMIT: usize = 256;
/// Frames of a thread that are folded: a stack of 8 MiB holds about as many.
const FOLDED_LIMIT: usize = 300_000;

pub(super) fn run(settings: &Settings, args: &BtArgs) -> Result<ExitStatus> {
    let start = Instant::now();
    let dump = super::open(settings, &args.dump)?;
    let fold = folds(settings, args);
    let request = BacktraceRequest {
        // With `--goroutines`, `--group` merges goroutines.
        all_threads: args.all_threads || (args.group && args.goroutines.is_none()),
        tasks: match args.goroutines {
            None => TaskScope::Crashing,
            Some(TaskChoice::Program) => TaskScope::Program,
            Some(TaskChoice::All) => TaskScope::All,
        },
        limit: args
            .limit
            .unwrap_or(if fold { FOLDED_LIMIT } else { LIMIT }),
        use_cache: !args.no_cache,
        disassemble: args.disassemble,
    };
    let text = backtrace_of(settings, &dump, &request, args, start)?;
    super::print(&text)?;
    match (super::conclude(&dump), render::is_unwound(&dump.manifest)) {
        (ExitStatus::Done, false) => Ok(ExitStatus::Failure),
        (status, _) => Ok(status),
    }
}

/// Output on a terminal is for people. Scripts get the format that they always got, and JSON holds
/// every frame.
fn folds(settings: &Settings, args: &BtArgs) -> bool {
    let wanted = args.fold || (settings.terminal.shows_output && !args.no_fold);
    wanted && args.output.format() == TextFormat::Text
}

fn backtrace_of(
    settings: &Settings,
    dump: &Dump,
    request: &BacktraceRequest,
    args: &BtArgs,
    start: Instant,
) -> Result<String> {
    let bar = Bar::new(settings.interactive);
    let stacks = pipeline::backtrace(settings, dump, request, &bar)?;
    report::remark(&stacks.remarks);
    let search = SourceSearch {
        mappings: args.source_map.clone(),
        directories: args.source_dir.clone(),
    };
    let wanted = args.source || !args.source_dir.is_empty() || !args.source_map.is_empty();
    let sources = (wanted && args.output.format() == TextFormat::Text).then(|| {
        let (sources, remarks) = pipeline::sources(&stacks, &dump.manifest, &search);
        report::remark(&remarks);
        sources
    });
    let fold = folds(settings, args);
    let wanted = match args.locals {
        true if args.raw => WantedVariables::Raw,
        true => WantedVariables::All,
        false => WantedVariables::Arguments,
    };
    let shown = |thread: &ThreadBacktrace| render::shown_frames(&stacks.backtrace, thread, fold);
    let variables = match args.no_args {
        true => Default::default(),
        false => pipeline::variables(settings, dump, &stacks, wanted, &shown),
    };
    let around = dump.surrounding();
    let view = BacktraceView {
        manifest: &dump.manifest,
        backtrace: &stacks.backtrace,
        threads: stacks.threads(),
        overflow: stacks.overflow(),
        abort_message: stacks.abort_message.as_deref(),
        cause: stacks.cause.as_ref(),
        listings: args.disassemble.then_some(stacks.listings.as_slice()),
        runtimes: &stacks.runtimes,
        completeness: stacks.completeness(),
        from_minicore: stacks.is_from_minicore(),
        searched_sysroot: settings.images.files.sysroot.is_some(),
        registers: args.registers,
        group: args.group,
        fold,
        variables: &variables,
        locals: match args.locals {
            true => Locals::All,
            false => Locals::No,
        },
        names: &around.names,
        sources: sources.as_ref(),
        elapsed: args.verbose.then(|| start.elapsed()),
    };
    let text = match args.output.format() {
        TextFormat::Text => Ok(render::backtrace_text(&view, settings.style)),
        TextFormat::Json => render::backtrace_json(&view),
    };
    // The process ends after the next write, so freeing thousands of stacks would only delay it.
    std::mem::forget(stacks);
    text
}
