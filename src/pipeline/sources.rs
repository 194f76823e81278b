//! Finds the files of a core's modules in several sources.
//!
//! The order, for each file separately; the first source with a file that matches the core wins:
//!
//! 1. `--exe FILE`, `--map FROM=TO`, `--sysroot DIR`
//! 2. this machine: a container of the dump that runs here, beside the core, and at the same path
//! 3. the cache, and the image that the process ran from, whose digests are verified
//! 4. modules that the agent stored beside the dumps
//! 5. debuginfod servers (`DEBUGINFOD_URLS`)
//! 6. `--debug-image REF`, for debug information
//!
//! A registry is contacted only for modules that are still missing after the earlier sources. The last two sources
//! are used only for files that the stacks need. A source that fails is skipped, and its error becomes a remark.

#[cfg_attr(not(feature = "images"), path = "sources/no_images.rs")]
mod images;

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use cdh_elfcore::{BuildId, CoreFile, ElfObject, Machine, MappedFile, Module, ModuleKind};
use cdh_symbolize::{
    BacktraceOptions, LoadedModule, ModuleNeed, Need as FrameNeed, module_needs, needs_of,
};
use cdh_sysroot::{Cache, Debuginfod, FileRole, Progress};

use self::images::Images;
use super::files::open_regular;
use super::modules::{Candidate, FileSource, ModuleSearch, in_sysroot, on_host};
use super::{Analysis, Dump, FoundModule, Observer, kept_modules, missing_files};
use crate::render::{self, terminal_line};
use crate::report::{ExitStatus, Failure};
use crate::settings::{ImageSettings, Settings};

/// Maximum rounds of unwinding and searching.
const MAX_ROUNDS: usize = 32;
/// Number of frames that determine which files are needed.
const FRAMES: usize = 256;

/// The files found, and errors on the way.
pub struct Gathered {
    /// Every module of the core.
    pub modules: Vec<FoundModule>,
    /// Files for debuggers that are not modules: the path in the image, and where they are.
    pub extras: Vec<(Vec<u8>, PathBuf)>,
    /// The image that was searched, by digest.
    pub image: Option<String>,
    /// Bytes received from the network.
    pub received: u64,
    /// Errors of sources that could not help: a `Failure` each, to be shown.
    pub remarks: Vec<anyhow::Error>,
}

/// A process whose modules need files: known from its core, or from the stacks that the handler
/// stored.
pub trait CrashedProcess {
    /// Its modules; none has a file yet.
    fn modules(&self) -> Vec<FoundModule>;
    /// The cores that files are compared with.
    fn evidence(&self) -> &[CoreFile];
    /// What it ran on.
    fn machine(&self) -> Machine;
    /// The files that would name more frames of its stacks.
    fn needs(&self, modules: &[LoadedModule<'_>], all_threads: bool) -> Vec<ModuleNeed>;
}

impl CrashedProcess for Analysis {
    fn modules(&self) -> Vec<FoundModule> {
        let modules = self.head.modules(&self.memory).into_iter();
        modules
            .map(|module| FoundModule::new(module, &self.memory))
            .collect()
    }

    fn evidence(&self) -> &[CoreFile] {
        Self::evidence(self)
    }

    fn machine(&self) -> Machine {
        self.head.machine()
    }

    fn needs(&self, modules: &[LoadedModule<'_>], all_threads: bool) -> Vec<ModuleNeed> {
        let options = BacktraceOptions {
            all_threads,
            max_frames: FRAMES,
            knows_crashed: self.head.knows_crashed_thread(),
            signal: self.head.signal(),
            ..BacktraceOptions::default()
        };
        let arena = super::memory::section_arena();
        let threads = self.head.threads();
        module_needs(threads, &self.memory, modules, &arena, &options)
    }
}

/// The image cache of these settings.
///
/// # Errors
/// If there is no private directory for it.
pub fn image_cache(settings: &Settings) -> Result<Cache, Failure> {
    let directory = settings.cache.require("images")?;
    Ok(Cache::in_directory(&directory).with_limit(settings.images.cache_limit))
}

/// Finds the files of all modules, and debug files as far as the stacks need them.
#[must_use]
pub fn gather_files(
    settings: &Settings,
    dump: &Dump,
    process: &dyn CrashedProcess,
    search: &ModuleSearch,
    all_threads: bool,
    observer: &dyn Observer,
) -> Gathered {
    let mut gathered = Gathered {
        modules: process.modules(),
        extras: Vec::new(),
        image: None,
        received: 0,
        remarks: Vec::new(),
    };
    let images = &settings.images;
    let stored = dump.manifest.image.as_ref().map(|image| &image.reference);
    let reference = images.image.as_ref().or(stored);
    // With an image name from the user, files of this machine need proof.
    let needs_proof = search.sysroot.is_some() || reference.is_some();
    let running = running_root(dump);
    let look_here = |found: &mut FoundModule| {
        found.try_given(search, process.evidence());
        if let Some(root) = running
            .as_deref()
            .filter(|_| found.module.build_id.is_some())
        {
            let candidate = in_sysroot(&found.module, root);
            found.try_files(vec![candidate], FileSource::Host, process.evidence());
        }
        let candidates = on_host(&found.module, search, needs_proof);
        found.try_files(candidates, FileSource::Host, process.evidence());
        found.find_debug_here(search);
    };
    add_given_program(process, search, &mut gathered.modules);
    gathered.modules.iter_mut().for_each(look_here);
    let mut new = modules_by_program(process, &gathered.modules);
    new.iter_mut().for_each(look_here);
    gathered.modules.append(&mut new);
    gathered.modules.sort_by_key(|found| found.module.start());
    gathered
        .remarks
        .extend(unused_program(search, &gathered.modules));
    let stacks = WantedStacks {
        process,
        dump,
        all_threads,
    };
    // Files from other sources are used from the cache.
    let cache = match image_cache(settings) {
        Ok(cache) => cache,
        Err(refusal) => {
            if gathered.modules.iter().any(FoundModule::is_missing) {
                gathered.remarks.push(refusal.into());
            }
            gathered.remarks.extend(patched(&gathered));
            return gathered;
        }
    };
    let mut asked = RemoteSources::new(settings, cache, process, observer);
    // No registry has an image that podman built locally.
    let is_local = images.image.is_none() && missing_files::is_local_image(dump);
    let reference = reference.filter(|_| !is_local);
    let other_remarks = gathered.remarks.len();
    if let Some(reference) = reference {
        asked.images.take(reference, &mut gathered);
    }
    let image_remarks = gathered.remarks.len();
    let cache = asked.images.given.cache.clone();
    kept_modules::take(
        settings,
        &cache,
        dump,
        process.evidence(),
        &mut gathered,
        observer,
    );
    if !gathered.modules.iter().any(FoundModule::is_missing) {
        // The store had the modules that the image lacked.
        gathered.remarks.drain(other_remarks..image_remarks);
    }
    for found in &mut gathered.modules {
        found.find_debug_here(search);
    }
    asked.by_need(&stacks, &mut gathered);
    gathered.received = asked.images.received();
    let reference = reference.map(String::as_str);
    let remark = missing_files::remark(dump, reference, search, &gathered);
    gathered.remarks.extend(remark);
    gathered.remarks.extend(patched(&gathered));
    gathered
}

/// Places the program that the user named if a core names none, such as valgrind's cores without an
/// auxiliary vector.
fn add_given_program(
    process: &dyn CrashedProcess,
    search: &ModuleSearch,
    modules: &mut Vec<FoundModule>,
) {
    let is_program = |found: &FoundModule| found.module.kind == ModuleKind::Executable;
    let (Some(path), Some(core)) = (&search.executable, process.evidence().first()) else {
        return;
    };
    if modules.iter().any(is_program) {
        return;
    }
    let map = open_regular(path).and_then(|file| MappedFile::from_file(&file));
    let module = map.ok().and_then(|map| {
        let object = ElfObject::parse(map.bytes()).ok()?;
        Module::of_program(core.head(), path.as_os_str().as_bytes(), &object)
    });
    modules.extend(module.map(|module| FoundModule::new(module, core)));
}

/// The libraries that the program's file leads to, if the core lists no files and lacks the program's headers.
fn modules_by_program(process: &dyn CrashedProcess, modules: &[FoundModule]) -> Vec<FoundModule> {
    let Some(core) = process.evidence().first() else {
        return Vec::new();
    };
    let mut programs = modules.iter();
    let program = programs.find(|found| found.module.kind == ModuleKind::Executable);
    let object = program.and_then(FoundModule::object);
    let Some((program, object)) = program
        .zip(object)
        .filter(|_| core.head().mappings().is_empty())
    else {
        return Vec::new();
    };
    let known: Vec<Module> = modules.iter().map(|found| found.module.clone()).collect();
    let new = cdh_elfcore::modules_by_program(core.head(), core, &program.module, &object, &known);
    new.into_iter()
        .map(|module| FoundModule::new(module, core))
        .collect()
}

/// A remark that a file which the user named as the program is not used.
fn unused_program(search: &ModuleSearch, modules: &[FoundModule]) -> Option<anyhow::Error> {
    let path = search.executable.as_ref()?;
    let mut programs = modules.iter();
    let program = programs.find(|found| found.module.kind == ModuleKind::Executable);
    if program.is_some_and(|program| program.path.as_ref() == Some(path)) {
        return None;
    }
    let shown = terminal_line(&path.display().to_string());
    let why = match program.map(render::module_problem) {
        Some(Some(problem)) => problem,
        Some(None) => "another file of the program was verified".to_owned(),
        None => "the core does not show where the program is".to_owned(),
    };
    let what = format!("`--exe {shown}` is not used: {why}");
    Some(Failure::new(ExitStatus::Nothing, what).into())
}

/// A remark on code that differs from its file: breakpoints, hooks of tracers.
fn patched(gathered: &Gathered) -> Option<anyhow::Error> {
    let mut patched = gathered
        .modules
        .iter()
        .filter(|found| found.patched_pages > 0);
    let first = patched.next()?;
    let path = terminal_line(&first.module.display_path());
    let more = match patched.count() {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let what = format!(
        "the code of `{path}`{more} was changed in memory: {} pages differ from the file",
        first.patched_pages
    );
    Some(Failure::new(ExitStatus::Nothing, what).into())
}

/// An id in the format of container runtimes. Anything shorter or longer could match another process's
/// cgroup.
fn container_id(text: &str) -> Option<&str> {
    let is_id = text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_id.then_some(text)
}

/// Whether a line of `/proc/<pid>/cgroup` is below the cgroup of this container: `<id>`, `<runtime>-<id>.scope`
/// or `<runtime>-<id>`.
fn is_in_container(line: &str, id: &str) -> bool {
    let path = line.splitn(3, ':').nth(2).unwrap_or_default();
    path.split('/').any(|part| {
        let part = part.strip_suffix(".scope").unwrap_or(part);
        let name = part.rsplit('-').next().unwrap_or_default();
        name == id
    })
}

/// The root of a process that runs in the container of the dump.
fn running_root(dump: &Dump) -> Option<PathBuf> {
    let workload = dump.manifest.workload.as_ref()?;
    let id = workload.container_id.as_deref()?;
    let id = container_id(id.rsplit("//").next().unwrap_or_default())?;
    let entries = std::fs::read_dir("/proc").ok()?;
    let processes = entries.flatten().map(|entry| entry.path());
    processes
        .filter(|process| {
            let cgroup = std::fs::read_to_string(process.join("cgroup")).unwrap_or_default();
            cgroup.lines().any(|line| is_in_container(line, id))
        })
        .map(|process| process.join("root"))
        .find(|root| root.is_dir())
}

/// The sources behind a network, opened when they are needed.
struct RemoteSources<'a> {
    images: Images<'a>,
    debuginfod: Option<Debuginfod>,
}

/// What every source behind a network is given.
struct Given<'a> {
    settings: &'a ImageSettings,
    cache: Cache,
    evidence: &'a [CoreFile],
    machine: Machine,
    observer: PullProgress<'a>,
}

/// Forwards pull progress to the observer of the command.
struct PullProgress<'a>(&'a dyn Observer);

impl Progress for PullProgress<'_> {
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

impl<'a> RemoteSources<'a> {
    fn new(
        settings: &'a Settings,
        cache: Cache,
        process: &'a dyn CrashedProcess,
        observer: &'a dyn Observer,
    ) -> Self {
        let images = &settings.images;
        let debuginfod = match images.offline {
            true => None,
            false => Debuginfod::from_environment(&cache, images.ca.clone()),
        };
        Self {
            images: Images::new(Given {
                settings: images,
                cache,
                evidence: process.evidence(),
                machine: process.machine(),
                observer: PullProgress(observer),
            }),
            debuginfod,
        }
    }

    /// Requests files that the stacks need from debuginfod and the debug image, until there are no
    /// new ones.
    fn by_need(&mut self, stacks: &WantedStacks<'_>, gathered: &mut Gathered) {
        let mut tried: Vec<(usize, FileRole)> = Vec::new();
        let mut debug_image = self.images.given.settings.debug_image.clone();
        let servers = self.debuginfod.is_some() || self.images.given.settings.offline;
        if !servers && debug_image.is_none() {
            return;
        }
        for _ in 0..MAX_ROUNDS {
            let needs: Vec<(usize, FileRole, BuildId)> = stacks
                .needs(gathered)
                .into_iter()
                .filter(|(number, part, _)| !tried.contains(&(*number, *part)))
                .collect();
            let mut progress = false;
            for (number, part, id) in &needs {
                tried.push((*number, *part));
                let file = self.ask_servers(*part, id, gathered);
                progress |= file.is_some_and(|file| {
                    let source = FileSource::Debuginfod;
                    use_file(
                        gathered,
                        (*number, *part, id),
                        &file,
                        source,
                        self.images.given.evidence,
                    )
                });
            }
            if let Some(reference) = debug_image.take() {
                progress |= self
                    .images
                    .take_debug(&reference, &stacks.needs(gathered), gathered);
            }
            if !progress {
                return;
            }
        }
    }

    fn ask_servers(
        &mut self,
        part: FileRole,
        id: &BuildId,
        gathered: &mut Gathered,
    ) -> Option<PathBuf> {
        if let Some(file) = Debuginfod::cached(&self.images.given.cache, part, id) {
            return Some(file);
        }
        match self
            .debuginfod
            .as_ref()?
            .get(part, id, &self.images.given.observer)
        {
            Ok(file) => file,
            Err(error) => {
                // A server that does not answer will not answer for the next module either.
                self.debuginfod = None;
                let failure = Failure::new(ExitStatus::Unreachable, "debuginfod cannot be used")
                    .cause(error)
                    .hint("check DEBUGINFOD_URLS and the network, or unset it");
                gathered.remarks.push(failure.into());
                None
            }
        }
    }
}

/// The stacks whose files are searched.
struct WantedStacks<'a> {
    process: &'a dyn CrashedProcess,
    dump: &'a Dump,
    all_threads: bool,
}

impl WantedStacks<'_> {
    /// What would name more frames: the module, the part, and the file's build-id.
    fn needs(&self, gathered: &Gathered) -> Vec<(usize, FileRole, BuildId)> {
        let modules = &gathered.modules;
        let loaded: Vec<LoadedModule<'_>> = modules.iter().map(FoundModule::loaded).collect();
        let mut needs = self.process.needs(&loaded, self.all_threads);
        // A stack that ends at a missing file continues in the stored stacks.
        if needs
            .iter()
            .any(|need| matches!(need.what, FrameNeed::Object { .. }))
            && let Some(stored) = self.dump.stored_stacks()
        {
            let stacks = stored.stacks_in(modules);
            let wanted = stacks
                .iter()
                .filter(|stack| self.all_threads || stack.crashing);
            let more = needs_of(&loaded, wanted.flat_map(|stack| &stack.frames));
            for need in more {
                if !needs.contains(&need) {
                    needs.push(need);
                }
            }
        }
        let file = |need: ModuleNeed| match need.what {
            FrameNeed::Object { build_id } => Some((need.module, FileRole::File, build_id?)),
            FrameNeed::DebugFile { build_id, .. } => {
                Some((need.module, FileRole::Debug, build_id?))
            }
            FrameNeed::AltFile { build_id, .. } => Some((need.module, FileRole::Debug, build_id)),
        };
        needs.into_iter().filter_map(file).collect()
    }
}

fn use_file(
    gathered: &mut Gathered,
    (number, part, id): (usize, FileRole, &BuildId),
    file: &Path,
    source: FileSource,
    evidence: &[CoreFile],
) -> bool {
    let Some(found) = gathered.modules.get_mut(number) else {
        return false;
    };
    match part {
        FileRole::File => {
            found.try_files(vec![Candidate::proven(file.to_owned())], source, evidence);
            !found.is_missing()
        }
        FileRole::Debug if found.missing_alternate().as_ref() == Some(id) => {
            found.try_alternate(file, id)
        }
        FileRole::Debug => found.try_debug(file, source),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn container_id_of_a_manifest_selects_no_other_process() {
        let id = "ab".repeat(32);
        assert_eq!(container_id(&id), Some(id.as_str()));
        for other in [
            "",
            "session-1.scope",
            "user@1000.service",
            &"a".repeat(63),
            "../../x",
        ] {
            assert_eq!(container_id(other), None, "{other}");
        }
        for (line, is_in) in [
            (
                format!("0::/kubepods.slice/kubepods-pod1.slice/cri-containerd-{id}.scope"),
                true,
            ),
            (format!("12:pids:/docker/{id}"), true),
            (
                format!("0::/machine.slice/libpod-{id}.scope/container"),
                true,
            ),
            (format!("0::/user.slice/x{id}"), false),
            (format!("0::/user.slice/{id}x"), false),
            (
                "0::/user.slice/user-0.slice/session-1.scope".to_owned(),
                false,
            ),
        ] {
            assert_eq!(is_in_container(&line, &id), is_in, "{line}");
        }
    }
}
