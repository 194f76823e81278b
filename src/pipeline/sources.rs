//! Where the files of a core's modules come from.
//!
//! The order, for each file on its own; the first source whose file has the right build-id wins:
//!
//! 1. `--sysroot DIR`
//! 2. this machine: a container of the dump that runs here, beside the core, and at the same path
//! 3. modules that the agent stored beside the dumps
//! 4. the cache, and the image that the process ran from
//! 5. debuginfod servers (`DEBUGINFOD_URLS`)
//! 6. `--debug-image REF`, for debug information
//!
//! A registry is contacted only for modules that are still missing then. The last two sources are asked only
//! for what the stacks need. Whoever fails is passed over, and what it said is
//! handed on as a remark.

use std::path::{Path, PathBuf};

use cdh_elfcore::{BuildId, ModuleKind};
use cdh_symbolize::{
    BacktraceOptions, LoadedModule, Need as FrameNeed, SectionArena, module_needs,
};
use cdh_sysroot::{
    Cache, Debuginfod, ImageReference, Lookup, Need, Part, Progress, PullError, PullOptions,
    Registry, RegistryOptions, Sysroot, Wanted,
};

use super::modules::{Candidate, FileSource, ModuleSearch, in_sysroot, on_host};
use super::{Analysis, Dump, FoundModule, Observer, debugger_files, kept_modules, missing_files};
use crate::report::{ExitStatus, Failure};
use crate::settings::{ImageSettings, Settings};

/// Rounds of unwinding and asking.
const MAX_ROUNDS: usize = 32;
/// Frames by which it is decided what is needed.
const FRAMES: usize = 256;

/// What was found, and what went wrong on the way.
pub struct Gathered {
    /// Every module of the core.
    pub modules: Vec<FoundModule>,
    /// Files for debuggers that are no modules: the path in the image, and where they are.
    pub extras: Vec<(Vec<u8>, PathBuf)>,
    /// The image that was asked, by digest.
    pub image: Option<String>,
    /// Bytes that came over the network.
    pub received: u64,
    /// What sources said that could not help: a `Failure` each, to be shown.
    pub remarks: Vec<anyhow::Error>,
}

/// The image cache of these settings.
#[must_use]
pub fn image_cache(settings: &Settings) -> Cache {
    Cache::in_directory(&settings.cache.join("images")).with_limit(settings.images.cache_limit)
}

/// Finds the files of all modules, and of debug information what the stacks need.
#[must_use]
pub fn gather_files(
    settings: &Settings,
    dump: &Dump,
    analysis: &Analysis,
    search: &ModuleSearch,
    all_threads: bool,
    observer: &dyn Observer,
) -> Gathered {
    let modules = analysis.head.modules(&analysis.memory);
    let mut gathered = Gathered {
        modules: modules
            .into_iter()
            .map(|module| FoundModule::new(module, &analysis.memory))
            .collect(),
        extras: Vec::new(),
        image: None,
        received: 0,
        remarks: Vec::new(),
    };
    if let Some(root) = &search.sysroot {
        for found in &mut gathered.modules {
            let candidate = in_sysroot(&found.module, root);
            found.try_files(vec![candidate], FileSource::Sysroot);
        }
    }
    let images = &settings.images;
    let stored = dump.manifest.image.as_ref().map(|image| &image.reference);
    let reference = images.image.as_ref().or(stored);
    // Under a name of the image, a file of this machine is a stranger.
    let needs_proof = search.sysroot.is_some() || reference.is_some();
    let running = running_root(dump);
    for found in &mut gathered.modules {
        if let Some(root) = running
            .as_deref()
            .filter(|_| found.module.build_id.is_some())
        {
            let candidate = in_sysroot(&found.module, root);
            found.try_files(vec![candidate], FileSource::Host);
        }
        let candidates = on_host(&found.module, search, needs_proof);
        found.try_files(candidates, FileSource::Host);
        found.find_debug_here(search);
    }
    kept_modules::take(settings, dump, &mut gathered, observer);
    let mut asked = Asked::new(settings, analysis, observer);
    // No registry has an image that podman built itself.
    let is_local = images.image.is_none() && missing_files::is_local_image(dump);
    let reference = reference.filter(|_| !is_local);
    if let Some(reference) = reference {
        asked.image(reference, &mut gathered);
    }
    for found in &mut gathered.modules {
        found.find_debug_here(search);
    }
    asked.by_need(analysis, all_threads, &mut gathered);
    gathered.received = asked.registry.as_ref().map_or(0, Registry::received);
    if search.sysroot.is_none() {
        let remark = missing_files::remark(dump, reference.map(String::as_str), &gathered);
        gathered.remarks.extend(remark);
    }
    gathered
}

/// The root of a process that runs in the container of the dump, or in another one of its pod.
fn running_root(dump: &Dump) -> Option<PathBuf> {
    let workload = dump.manifest.workload.as_ref()?;
    let text = |name: &str| workload.extra.get(name)?.as_str().map(str::to_owned);
    let ids = [workload.container_id.clone(), text("pod_uid"), text("uid")];
    // As systemd writes it in the names of its slices.
    let ids: Vec<String> = ids
        .into_iter()
        .flatten()
        .map(|id| id.rsplit("//").next().unwrap_or_default().to_owned())
        .filter(|id| id.len() >= 12)
        .flat_map(|id| [id.replace('-', "_"), id])
        .collect();
    let entries = std::fs::read_dir("/proc")
        .ok()
        .filter(|_| !ids.is_empty())?;
    let processes = entries.flatten().map(|entry| entry.path());
    processes
        .filter(|process| {
            let cgroup = std::fs::read_to_string(process.join("cgroup")).unwrap_or_default();
            ids.iter().any(|id| cgroup.contains(id))
        })
        .map(|process| process.join("root"))
        .find(|root| root.is_dir())
}

/// A pull's error with status and advice.
#[must_use]
pub fn pull_failure(error: PullError, what: &str) -> anyhow::Error {
    let status = if error.is_mismatch() {
        ExitStatus::Mismatch
    } else if error.is_unreachable() {
        ExitStatus::Unreachable
    } else {
        ExitStatus::Failure
    };
    let hint = error.hint();
    Failure::new(status, what).cause(error).hint(hint).into()
}

/// The sources behind a network, opened when they are needed.
struct Asked<'a> {
    images: &'a ImageSettings,
    cache: Cache,
    machine: cdh_elfcore::Machine,
    registry: Option<Registry>,
    debuginfod: Option<Debuginfod>,
    observer: Told<'a>,
}

/// A pull's progress as the pipeline tells it.
struct Told<'a>(&'a dyn Observer);

impl Progress for Told<'_> {
    fn started(&self, what: &str, total: Option<u64>) {
        self.0.started(what, total);
    }
    fn advanced(&self, bytes: u64) {
        self.0.advanced(bytes);
    }
    fn finished(&self) {
        self.0.finished();
    }
}

impl<'a> Asked<'a> {
    fn new(settings: &'a Settings, analysis: &Analysis, observer: &'a dyn Observer) -> Self {
        let cache = image_cache(settings);
        let images = &settings.images;
        let debuginfod = match images.offline {
            true => None,
            false => Debuginfod::from_environment(&cache, images.ca.clone()),
        };
        Self {
            images,
            cache,
            machine: analysis.head.machine(),
            registry: None,
            debuginfod,
            observer: Told(observer),
        }
    }

    fn open_registry(&mut self) -> Result<(), PullError> {
        if self.registry.is_none() && !self.images.offline {
            let mut options = RegistryOptions::from_environment();
            options.auth_file.clone_from(&self.images.auth_file);
            options.ca.clone_from(&self.images.ca);
            self.registry = Some(Registry::open(&options)?);
        }
        Ok(())
    }

    fn sysroot(&mut self, reference: &str) -> Result<Sysroot<'_>, PullError> {
        let reference = ImageReference::parse(reference)?;
        self.open_registry()?;
        let options = PullOptions {
            cache: &self.cache,
            registry: self.registry.as_ref(),
            progress: &self.observer,
        };
        Sysroot::open(options, &reference, self.machine)
    }

    /// Takes modules, their debug files and debuggers' own files from the image.
    fn image(&mut self, reference: &str, gathered: &mut Gathered) {
        if !gathered.modules.iter().any(FoundModule::is_missing) {
            return;
        }
        let what = format!("cannot use image `{reference}`");
        let sysroot = match self.sysroot(reference) {
            Ok(sysroot) => sysroot,
            Err(error) => {
                gathered.image = Some(reference.to_owned());
                gathered.remarks.push(pull_failure(error, &what));
                return;
            }
        };
        gathered.image = Some(sysroot.reference().to_string());
        let missing: Vec<usize> = (0..gathered.modules.len())
            .filter(|number| {
                gathered
                    .modules
                    .get(*number)
                    .is_some_and(FoundModule::is_missing)
            })
            .collect();
        let module = |number: &usize| gathered.modules.get(*number).map(|found| &found.module);
        let mut wanted: Vec<Wanted> = missing
            .iter()
            .filter_map(module)
            .map(|module| Wanted {
                paths: vec![module.path.clone()],
                build_id: module.build_id.clone(),
                part: Part::File,
                need: Need::Required,
                debug: Some(match module.kind {
                    ModuleKind::Executable => Need::Required,
                    _ => Need::Passing,
                }),
            })
            .collect();
        // Debug files of modules that are here already are taken where a layer is read anyway.
        let lacking: Vec<Wanted> = gathered
            .modules
            .iter()
            .filter(|found| found.lacks_debug_info() && found.module.build_id.is_some())
            .map(|found| Wanted {
                paths: vec![found.module.path.clone()],
                build_id: found.module.build_id.clone(),
                part: Part::File,
                need: Need::Passing,
                debug: Some(Need::Passing),
            })
            .collect();
        let passing = lacking.len();
        wanted.extend(lacking);
        let extras = debugger_files::paths(gathered.modules.iter().map(|found| &found.module));
        wanted.extend(extras.iter().map(|path| Wanted {
            paths: vec![path.clone()],
            build_id: None,
            part: Part::File,
            need: Need::Passing,
            debug: None,
        }));
        let pulled = sysroot.pull(&wanted);
        let mut answers = pulled.answers.into_iter();
        for (number, answer) in missing.iter().zip(answers.by_ref()) {
            let Some(found) = gathered.modules.get_mut(*number) else {
                continue;
            };
            match answer {
                Lookup::Found(file) => {
                    // Without a build-id in the core, the image's digest is the proof.
                    let candidate = Candidate {
                        path: file.file,
                        inside: None,
                        needs_proof: false,
                    };
                    found.try_files(vec![candidate], FileSource::Image);
                }
                Lookup::Mismatch {
                    expected,
                    found: other,
                } => found.mismatch(expected, other),
                Lookup::Absent(_) => {}
            }
        }
        for (path, answer) in extras.into_iter().zip(answers.skip(passing)) {
            if let Lookup::Found(file) = answer {
                gathered.extras.push((path, file.file));
            }
        }
        for found in &mut gathered.modules {
            let id = found
                .module
                .build_id
                .clone()
                .filter(|_| found.lacks_debug_info());
            if let Some(file) = id.and_then(|id| sysroot.file(Part::Debug, &id)) {
                found.try_debug(&file, FileSource::Image);
            }
            if let Some(id) = found.missing_alternate()
                && let Some(file) = sysroot.file(Part::Debug, &id)
            {
                found.try_alternate(&file, &id);
            }
        }
        gathered
            .remarks
            .extend(pulled.problem.map(|problem| pull_failure(problem, &what)));
    }

    /// Asks debuginfod and the debug image for what the stacks need, until nothing new comes.
    fn by_need(&mut self, analysis: &Analysis, all_threads: bool, gathered: &mut Gathered) {
        let mut tried: Vec<(usize, Part)> = Vec::new();
        let mut debug_image = self.images.debug_image.clone();
        let servers = self.debuginfod.is_some() || self.images.offline;
        if !servers && debug_image.is_none() {
            return;
        }
        for _ in 0..MAX_ROUNDS {
            let needs: Vec<(usize, Part, BuildId)> = needs(analysis, all_threads, gathered)
                .into_iter()
                .filter(|(number, part, _)| !tried.contains(&(*number, *part)))
                .collect();
            let mut progress = false;
            for (number, part, id) in &needs {
                tried.push((*number, *part));
                let file = self.ask_servers(*part, id, gathered);
                progress |= file.is_some_and(|file| {
                    use_file(gathered, *number, *part, id, &file, FileSource::Debuginfod)
                });
            }
            if let Some(reference) = debug_image.take() {
                progress |= self.ask_debug_image(&reference, analysis, all_threads, gathered);
            }
            if !progress {
                return;
            }
        }
    }

    fn ask_servers(
        &mut self,
        part: Part,
        id: &BuildId,
        gathered: &mut Gathered,
    ) -> Option<PathBuf> {
        if let Some(file) = Debuginfod::cached(&self.cache, part, id) {
            return Some(file);
        }
        match self.debuginfod.as_ref()?.get(part, id, &self.observer) {
            Ok(file) => file,
            Err(error) => {
                // One that does not answer now will not answer for the next module either.
                self.debuginfod = None;
                let failure = Failure::new(ExitStatus::Unreachable, "debuginfod cannot be used")
                    .cause(error)
                    .hint("check DEBUGINFOD_URLS and the network, or unset it");
                gathered.remarks.push(failure.into());
                None
            }
        }
    }

    fn ask_debug_image(
        &mut self,
        reference: &str,
        analysis: &Analysis,
        all_threads: bool,
        gathered: &mut Gathered,
    ) -> bool {
        let needs = needs(analysis, all_threads, gathered);
        if needs.is_empty() {
            return false;
        }
        let what = format!("cannot use debug image `{reference}`");
        let sysroot = match self.sysroot(reference) {
            Ok(sysroot) => sysroot,
            Err(error) => {
                gathered.remarks.push(pull_failure(error, &what));
                return false;
            }
        };
        let wanted: Vec<Wanted> = needs
            .iter()
            .map(|(_, part, id)| Wanted {
                paths: Vec::new(),
                build_id: Some(id.clone()),
                part: *part,
                need: Need::Required,
                debug: Some(Need::Required),
            })
            .collect();
        let pulled = sysroot.pull(&wanted);
        let mut progress = false;
        for ((number, part, id), answer) in needs.iter().zip(pulled.answers) {
            if let Lookup::Found(file) = answer {
                let source = FileSource::DebugImage;
                progress |= use_file(gathered, *number, *part, id, &file.file, source);
            }
        }
        gathered
            .remarks
            .extend(pulled.problem.map(|problem| pull_failure(problem, &what)));
        progress
    }
}

/// What would name more frames: the module, the part, and the build-id of the file.
fn needs(
    analysis: &Analysis,
    all_threads: bool,
    gathered: &Gathered,
) -> Vec<(usize, Part, BuildId)> {
    let loaded: Vec<LoadedModule<'_>> = gathered.modules.iter().map(FoundModule::loaded).collect();
    let options = BacktraceOptions {
        all_threads,
        max_frames: FRAMES,
    };
    let arena = SectionArena::default();
    let threads = analysis.head.threads();
    let needs = module_needs(threads, &analysis.memory, &loaded, &arena, &options);
    let file = |need: cdh_symbolize::ModuleNeed| match need.what {
        FrameNeed::Object { build_id } => Some((need.module, Part::File, build_id?)),
        FrameNeed::DebugFile { build_id, .. } => Some((need.module, Part::Debug, build_id?)),
        FrameNeed::AltFile { build_id, .. } => Some((need.module, Part::Debug, build_id)),
    };
    needs.into_iter().filter_map(file).collect()
}

fn use_file(
    gathered: &mut Gathered,
    number: usize,
    part: Part,
    id: &BuildId,
    file: &Path,
    source: FileSource,
) -> bool {
    let Some(found) = gathered.modules.get_mut(number) else {
        return false;
    };
    match part {
        Part::File => {
            found.try_files(vec![Candidate::proven(file.to_owned())], source);
            !found.is_missing()
        }
        Part::Debug if found.missing_alternate().as_ref() == Some(id) => {
            found.try_alternate(file, id)
        }
        Part::Debug => found.try_debug(file, source),
    }
}
