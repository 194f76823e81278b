//! `cdh bt <dump>`: prints the backtrace, without unpacking the dump and without a debugger.

use anyhow::Result;

use crate::args::{BtArgs, TextFormat};
use crate::pipeline::{self, BacktraceRequest, Dump};
use crate::progress::Bar;
use crate::render::{self, BacktraceView};
use crate::report::{self, ExitStatus};
use crate::settings::Settings;

pub(super) fn run(settings: &Settings, args: &BtArgs) -> Result<ExitStatus> {
    let dump = pipeline::open_dump(settings, &args.dump)?;
    let request = BacktraceRequest {
        all_threads: args.all_threads || args.group,
        limit: args.limit,
        sysroot: args.modules.sysroot.clone(),
    };
    let text = backtrace_of(settings, &dump, &request, args)?;
    super::print(&text)?;
    Ok(ExitStatus::Done)
}

fn backtrace_of(
    settings: &Settings,
    dump: &Dump,
    request: &BacktraceRequest,
    args: &BtArgs,
) -> Result<String> {
    let bar = Bar::new(settings.interactive);
    let stacks = pipeline::backtrace(settings, dump, request, &bar)?;
    report::remark(&stacks.remarks);
    let view = BacktraceView {
        manifest: &dump.manifest,
        backtrace: &stacks.backtrace,
        threads: stacks.analysis.head.threads(),
        completeness: stacks.analysis.completeness.as_ref(),
        from_minicore: stacks.analysis.from_minicore,
        registers: args.registers,
        group: args.group,
    };
    match args.output {
        TextFormat::Text => Ok(render::backtrace_text(&view, settings.style)),
        TextFormat::Json => render::backtrace_json(&view),
    }
}
