//! From a dump to named stacks.

use std::path::Path;
use std::time::SystemTime;

use anyhow::Result;
use cdh_symbolize::{Backtrace, BacktraceOptions, SectionArena};

use super::surroundings::DiskSurroundings;
use super::symbol_cache::SymbolCache;
use super::{
    Analysis, Dump, FileSource, FoundModule, Gathered, ModuleSearch, Observer, Origin, gather_files,
};
use crate::settings::Settings;

/// What to compute.
#[derive(Clone, Debug)]
pub struct BacktraceRequest {
    /// Every thread, not only the one that crashed.
    pub all_threads: bool,
    /// At most this many frames per thread.
    pub limit: usize,
    /// A directory laid out as the root of the crashed process.
    pub sysroot: Option<std::path::PathBuf>,
    /// Whether to use what earlier runs found out, and to add to it.
    pub use_cache: bool,
}

/// Stacks, and what they were made from.
pub struct NamedStacks {
    /// The stacks.
    pub backtrace: Backtrace,
    /// The core behind them.
    pub analysis: Analysis,
    /// What sources of files said that could not help.
    pub remarks: Vec<anyhow::Error>,
    /// When the file of each module was written, if it is this machine's.
    pub module_times: Vec<Option<SystemTime>>,
    /// What was read for it: a command that ends soon need not give it back piece by piece.
    _read: (Vec<FoundModule>, SectionArena),
}

impl Dump {
    /// Where to look for the files of this dump's modules.
    #[must_use]
    pub fn module_search(&self, sysroot: Option<&Path>) -> ModuleSearch {
        let beside = match &self.origin {
            Origin::Core(path) => path.parent().map(Path::to_owned),
            _ => None,
        };
        ModuleSearch {
            sysroot: sysroot.map(Path::to_owned),
            beside,
        }
    }
}

/// Unwinds and names the stacks of `dump`.
///
/// # Errors
/// When the dump holds nothing that can be unwound.
pub fn backtrace(
    settings: &Settings,
    dump: &Dump,
    request: &BacktraceRequest,
    observer: &dyn Observer,
) -> Result<NamedStacks> {
    let analysis = dump.analysis(settings, observer)?;
    Ok(name_stacks(settings, dump, analysis, request, observer))
}

/// Unwinds and names the stacks that an analysis of `dump` holds.
#[must_use]
pub fn name_stacks(
    settings: &Settings,
    dump: &Dump,
    analysis: Analysis,
    request: &BacktraceRequest,
    observer: &dyn Observer,
) -> NamedStacks {
    let search = dump.module_search(request.sysroot.as_deref());
    let Gathered {
        modules, remarks, ..
    } = gather_files(
        settings,
        dump,
        &analysis,
        &search,
        request.all_threads,
        observer,
    );
    let loaded: Vec<_> = modules.iter().map(FoundModule::loaded).collect();
    let options = BacktraceOptions {
        all_threads: request.all_threads,
        max_frames: request.limit,
    };
    let arena = super::memory::section_arena();
    let threads = analysis.head.threads();
    let surroundings = DiskSurroundings {
        modules: &modules,
        search: &search,
        cache: settings
            .cache
            .get("symbols")
            .filter(|_| request.use_cache)
            .map(|directory| SymbolCache::in_directory(&directory)),
    };
    let mut backtrace = cdh_symbolize::backtrace_with(
        threads,
        &analysis.memory,
        &loaded,
        &arena,
        &options,
        &surroundings,
    );
    drop(loaded);
    if dump.is_damaged() {
        // Of a stack that may lack frames: it would look like another bug.
        backtrace.fingerprint = None;
        backtrace.explanation = None;
    }
    let module_times = modules.iter().map(time_of).collect();
    NamedStacks {
        backtrace,
        module_times,
        analysis,
        remarks,
        _read: (modules, arena),
    }
}

/// Files of images and stores have the time of their download.
fn time_of(found: &FoundModule) -> Option<SystemTime> {
    let is_local = matches!(found.source, Some(FileSource::Host | FileSource::Sysroot));
    let path = found.path.as_ref().filter(|_| is_local)?;
    std::fs::metadata(path).ok()?.modified().ok()
}
