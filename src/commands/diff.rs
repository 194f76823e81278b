//! `cdh diff <a> <b>`: shows the first different frame, registers, modules and their versions,
//! image, environment names and limits. Facts that are unknown for one of the two dumps are not
//! compared.

use anyhow::Result;

use crate::args::{DiffArgs, TextFormat};
use crate::pipeline::{self, BacktraceRequest, Dump, NamedStacks, Surrounding, TaskScope};
use crate::progress::Bar;
use crate::render::{self, DiffSide, DiffView};
use crate::report::ExitStatus;
use crate::settings::Settings;

pub(super) fn run(settings: &Settings, args: &DiffArgs) -> Result<ExitStatus> {
    let (a, b) = (
        Half::open(settings, &args.a)?,
        Half::open(settings, &args.b)?,
    );
    let view = DiffView {
        a: a.side(),
        b: b.side(),
    };
    let text = match args.output.format() {
        TextFormat::Text => render::diff_text(&view, settings.style),
        TextFormat::Json => render::diff_json(&view)?,
    };
    super::print(&text)?;
    let statuses = [super::conclude(&a.dump), super::conclude(&b.dump)];
    let worst = statuses.into_iter().max_by_key(|status| status.code());
    Ok(worst.unwrap_or(ExitStatus::Done))
}

struct Half {
    dump: Dump,
    stacks: NamedStacks,
    around: Surrounding,
}

impl Half {
    fn open(settings: &Settings, reference: &str) -> Result<Self> {
        let dump = pipeline::open_dump(settings, reference)?;
        let request = BacktraceRequest {
            all_threads: false,
            limit: 256,
            tasks: TaskScope::Crashing,
            use_cache: true,
            disassemble: false,
        };
        let bar = Bar::new(settings.interactive);
        let stacks = pipeline::backtrace(settings, &dump, &request, &bar)?;
        let around = dump.surrounding();
        Ok(Self {
            dump,
            stacks,
            around,
        })
    }

    fn side(&self) -> DiffSide<'_> {
        DiffSide {
            label: self.dump.label(),
            manifest: &self.dump.manifest,
            backtrace: &self.stacks.backtrace,
            threads: self.stacks.threads(),
            environment: self.around.environment.clone(),
            limits: self.around.limits.clone(),
        }
    }
}
