//! `cdh fetch <dump>…`: unpacks dumps into case directories and prints where they are.
//!
//! Several dumps are fetched in parallel. After Ctrl-C, a lost connection or a kill, the same command
//! resumes.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Result;

use crate::args::{FetchArgs, TextFormat};
use crate::pipeline::{self, Case, Dump, FetchOptions};
use crate::progress::{Bars, Interrupt};
use crate::render::{self, FetchedDump, terminal_line};
use crate::report::{ExitStatus, remark, report, status_of};
use crate::settings::Settings;

/// Maximum dumps fetched at once, each with several requests.
const AT_ONCE: usize = 3;

pub(super) fn run(settings: &Settings, args: &FetchArgs) -> Result<ExitStatus> {
    // Resolve all references before the first download: `latest` could change meanwhile.
    let dumps = pipeline::open_dumps(settings, &args.dumps)?;
    let bars = Bars::new(settings.interactive, Some(Interrupt::catch()?));
    let mut cases = Vec::new();
    let mut errors = Vec::new();
    for outcome in fetch_all(settings, args, &dumps, &bars) {
        match outcome {
            Ok(case) => cases.push(case),
            Err(error) => errors.push(error),
        }
    }
    if args.files.is_given() {
        errors.extend(link_files(settings, &cases, &bars));
    }
    match args.output.format() {
        TextFormat::Text => {
            let line = |case: &Case| terminal_line(&case.path.display().to_string()) + "\n";
            super::print(&cases.iter().map(line).collect::<String>())?;
        }
        TextFormat::Json => {
            let rows: Vec<_> = cases.iter().map(row).collect();
            super::print(&render::sorted_json(&rows)?)?;
        }
    }
    // An interruption ends all downloads, and is reported once.
    if let Some(at) = errors
        .iter()
        .position(|error| status_of(error) == ExitStatus::Interrupted)
    {
        return Err(errors.swap_remove(at));
    }
    let Some(last) = errors.pop() else {
        let statuses = dumps.iter().map(super::conclude);
        let worst = statuses.max_by_key(|status| status.code());
        return Ok(worst.unwrap_or(ExitStatus::Done));
    };
    for error in errors {
        report(&error);
    }
    Err(last)
}

/// Links the files that the user points to into the cases, after verifying them, so that later commands and
/// debuggers find them. A case without a core needs none. Returns the failures.
fn link_files(settings: &Settings, cases: &[Case], bars: &Bars) -> Vec<anyhow::Error> {
    let here = settings.offline();
    let link = |case: &Case| -> Result<()> {
        let dump = pipeline::open_case(&case.path)?;
        let (_, gathered) = pipeline::debug_view(&here, &dump, &bars.bar())?;
        remark(&gathered.remarks);
        Ok(())
    };
    let failed = cases.iter().filter_map(|case| link(case).err());
    failed
        .filter(|error| status_of(error) != ExitStatus::Nothing)
        .collect()
}

/// Results are in the order of the dumps.
fn fetch_all(
    settings: &Settings,
    args: &FetchArgs,
    dumps: &[Dump],
    bars: &Bars,
) -> Vec<Result<Case>> {
    let next = AtomicUsize::new(0);
    let done: Mutex<Vec<(usize, Result<Case>)>> = Mutex::default();
    let work = || {
        while let Some((index, dump)) = {
            let index = next.fetch_add(1, Ordering::Relaxed);
            dumps.get(index).map(|dump| (index, dump))
        } {
            let directory = match &args.directory {
                Some(directory) if dumps.len() > 1 => {
                    Some(directory.join(dump.manifest.id.to_string()))
                }
                other => other.clone(),
            };
            let options = FetchOptions {
                directory,
                max_core: args.max_size,
            };
            let case = pipeline::fetch_with(settings, dump, &options, &bars.bar());
            if let Ok(mut done) = done.lock() {
                done.push((index, case));
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..dumps.len().min(AT_ONCE) {
            scope.spawn(work);
        }
        work();
    });
    let mut done = done.into_inner().unwrap_or_default();
    done.sort_by_key(|(index, _)| *index);
    done.into_iter().map(|(_, case)| case).collect()
}

fn row(case: &Case) -> FetchedDump<'_> {
    let core = Case::core_path(&case.path);
    FetchedDump {
        id: case.manifest.id,
        directory: case.path.display().to_string(),
        core: core.map(|path| path.display().to_string()),
        verdict: &case.manifest.verdict,
    }
}
