//! `cdh why <dump>`: explains in one sentence why the process crashed, with the evidence.

use anyhow::Result;

use crate::args::{TextFormat, WhyArgs};
use crate::pipeline::{self, BacktraceRequest, TaskScope};
use crate::progress::Bar;
use crate::render::{self, WhyView};
use crate::report::{self, ExitStatus};
use crate::settings::Settings;

/// Maximum frames of the crashed thread that are symbolized: the rules look at the innermost ones.
const FRAMES: usize = 256;

pub(super) fn run(settings: &Settings, args: &WhyArgs) -> Result<ExitStatus> {
    let dump = super::open(settings, &args.dump)?;
    let request = BacktraceRequest {
        all_threads: false,
        limit: FRAMES,
        tasks: TaskScope::Crashing,
        use_cache: !args.no_cache,
        disassemble: false,
    };
    let bar = Bar::new(settings.interactive);
    let stacks = pipeline::backtrace(settings, &dump, &request, &bar)?;
    report::remark(&stacks.remarks);
    let view = WhyView {
        manifest: &dump.manifest,
        cause: stacks.cause.as_ref(),
    };
    let text = match args.output.format() {
        TextFormat::Text => render::why_text(&view, settings.style),
        TextFormat::Json => render::why_json(&view)?,
    };
    super::print(&text)?;
    Ok(super::conclude(&dump))
}
