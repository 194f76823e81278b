//! `cdh info <dump>`: shows everything known about a dump. It reads the manifest, the head of the
//! core and the stack of the crashed thread.

use anyhow::Result;

use crate::args::{InfoArgs, TextFormat};
use crate::pipeline::{self, BacktraceRequest, Dump, NamedStacks, Origin, TaskScope};
use crate::progress::Bar;
use crate::render::{self, InfoView};
use crate::report::ExitStatus;
use crate::settings::Settings;

pub(super) fn run(settings: &Settings, args: &InfoArgs) -> Result<ExitStatus> {
    let dump = super::open(settings, &args.dump)?;
    dump.compare_manifests(settings);
    let bar = Bar::new(settings.interactive);
    // `info` must also work for a dump whose core cannot be read.
    let analysis = dump.analysis_in_place(settings, &bar).ok();
    let request = BacktraceRequest {
        all_threads: false,
        limit: 64,
        tasks: TaskScope::Crashing,
        use_cache: true,
        disassemble: false,
    };
    // Nothing is pulled from a registry.
    let here = settings.offline();
    let stacks = match analysis {
        Some(analysis) => Some(pipeline::name_stacks(
            &here, &dump, analysis, &request, &bar,
        )),
        None => pipeline::name_stored_stacks(&here, &dump, &request, &bar),
    };
    let damage = dump.damage_line();
    let view = InfoView {
        manifest: &dump.manifest,
        origin: origin(&dump),
        overflow: stacks.as_ref().and_then(NamedStacks::overflow),
        abort_message: stacks
            .as_ref()
            .and_then(|stacks| stacks.abort_message.as_deref()),
        cause: stacks.as_ref().and_then(|stacks| stacks.cause.as_ref()),
        completeness: stacks.as_ref().and_then(NamedStacks::completeness),
        salvaged: damage.as_deref(),
        explanation: stacks
            .as_ref()
            .and_then(|stacks| stacks.backtrace.explanation.as_ref()),
        all: args.all,
    };
    let text = match args.output.format() {
        TextFormat::Text => render::info_text(&view, settings.style),
        TextFormat::Json => render::info_json(&view)?,
    };
    super::print(&text)?;
    Ok(super::conclude(&dump))
}

fn origin(dump: &Dump) -> String {
    match &dump.origin {
        Origin::Store(summary) => format!("store, {}", summary.key),
        Origin::Spool(path) => format!("spool of this node, {}", path.display()),
        Origin::Bundle(path) => format!("bundle {}", path.display()),
        Origin::Case(path) => format!("case {}", path.display()),
        Origin::Core(path) => format!("core {}", path.display()),
    }
}
