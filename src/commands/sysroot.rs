//! `cdh sysroot <dump>`: pulls the files that the core needs and prints their directory. For each module it shows
//! the origin of its file, whether the file has symbols, and how to obtain missing files.

use anyhow::Result;

use crate::args::{SysrootArgs, TextFormat};
use crate::pipeline;
use crate::progress::Bar;
use crate::render::{self, SysrootView};
use crate::report::{self, ExitStatus};
use crate::settings::Settings;

pub(super) fn run(settings: &Settings, args: &SysrootArgs) -> Result<ExitStatus> {
    let dump = super::open(settings, &args.dump)?;
    let bar = Bar::new(settings.interactive);
    let (view, gathered) = pipeline::debug_view(settings, &dump, &bar)?;
    let shown = SysrootView {
        directory: &view.sysroot,
        gathered: &gathered,
        offline: settings.images.offline,
    };
    super::print(&match args.output.format() {
        TextFormat::Text => render::sysroot_text(&shown, settings.style),
        TextFormat::Json => render::sysroot_json(&shown)?,
    })?;
    report::remark(&gathered.remarks);
    let worst = gathered.remarks.iter().map(report::status_of);
    let mismatch = gathered.modules.iter().any(|found| {
        use cdh_symbolize::ModuleStatus;
        matches!(
            found.status,
            ModuleStatus::Mismatch { .. } | ModuleStatus::Differs(_)
        )
    });
    let missing = gathered
        .modules
        .iter()
        .any(pipeline::FoundModule::is_missing);
    // Contradictory evidence takes precedence over missing evidence.
    Ok(match worst.max_by_key(|status| status.code()) {
        Some(ExitStatus::Mismatch) => ExitStatus::Mismatch,
        _ if mismatch => ExitStatus::Mismatch,
        Some(status) if missing => status,
        None if missing => ExitStatus::Nothing,
        _ => ExitStatus::Done,
    })
}
