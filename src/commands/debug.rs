//! `cdh debug <dump>`: builds the case and replaces itself by a debugger.

use anyhow::Result;
use cdh_inspect::FrameVariables;

use crate::args::DebugArgs;
use crate::debugger::{self, Invocation};
use crate::pipeline::{self, BacktraceRequest, TaskScope};
use crate::progress::Bar;
use crate::render::{self, BacktraceView, Locals};
use crate::report::{self, ExitStatus, Failure};
use crate::settings::Settings;

pub(super) fn run(settings: &Settings, args: DebugArgs) -> Result<ExitStatus> {
    let choice = settings.debugger(args.debugger.as_deref());
    let dump = super::open(settings, &args.dump)?;
    let choice = debugger::for_machine(choice, &dump.manifest.machine);
    let bar = Bar::new(settings.interactive);
    if !args.print
        && let Err(missing) = debugger::require(&choice)
    {
        print_backtrace(settings, &dump, &bar)?;
        return Err(missing.hint(WITHOUT_DEBUGGER).into());
    }
    let (view, gathered) = pipeline::debug_view(settings, &dump, &bar)?;
    report::remark(&gathered.remarks);
    report::remark(&mismatches(&gathered));
    report::remark(&debugger::doubt(&choice, &dump.manifest.machine));
    let status = super::conclude(&dump);
    let invocation = Invocation::new(&choice.program, &view, &args.debugger_args);
    if args.print {
        super::print(&format!("{}\n", invocation.shell_line()))?;
        return Ok(status);
    }
    let error = invocation.exec();
    let message = format!("cannot start debugger `{}`", choice.program);
    Err(Failure::new(ExitStatus::Failure, message)
        .cause(error)
        .hint(WITHOUT_DEBUGGER)
        .into())
}

const WITHOUT_DEBUGGER: &str = "`cdh bt <DUMP>` and `cdh info <DUMP>` need no debugger";

/// Without a debugger, the native backtrace is still available.
fn print_backtrace(settings: &Settings, dump: &pipeline::Dump, bar: &Bar) -> Result<()> {
    let request = BacktraceRequest {
        all_threads: true,
        limit: 256,
        tasks: TaskScope::Crashing,
        use_cache: true,
        disassemble: false,
    };
    let stacks = pipeline::backtrace(settings, dump, &request, bar)?;
    let view = BacktraceView {
        manifest: &dump.manifest,
        backtrace: &stacks.backtrace,
        threads: stacks.threads(),
        overflow: stacks.overflow(),
        abort_message: stacks.abort_message.as_deref(),
        cause: stacks.cause.as_ref(),
        listings: None,
        runtimes: &stacks.runtimes,
        completeness: stacks.completeness(),
        from_minicore: stacks.is_from_minicore(),
        searched_sysroot: settings.images.files.sysroot.is_some(),
        registers: false,
        group: true,
        fold: true,
        names: &dump.surrounding().names,
        variables: &FrameVariables::new(),
        locals: Locals::No,
        sources: None,
        elapsed: None,
    };
    super::print(&render::backtrace_text(&view, settings.style))
}

/// gdb would silently ignore these.
fn mismatches(gathered: &pipeline::Gathered) -> Vec<anyhow::Error> {
    let remark = |found: &pipeline::FoundModule| {
        let problem = render::module_problem(found)?;
        Some(anyhow::anyhow!(
            "{}: {problem}",
            found.module.display_path()
        ))
    };
    gathered.modules.iter().filter_map(remark).collect()
}
