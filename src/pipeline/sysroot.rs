//! Builds a directory with the files that a debugger needs, at the paths that the core names.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result};
use cdh_bundle::EntryKind;
use cdh_elfcore::{Avma, BuildId, CoreHead, ModuleKind};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

use super::cached_cases::{aside, remove_directory};
use super::{
    Analysis, Case, CaseInUse, Dump, FoundModule, Gathered, Observer, Origin, case, gather_files,
};
use crate::render::terminal_line;
use crate::report::{ExitStatus, Failure};
use crate::settings::Settings;

/// Maximum characters of a path in a message.
const SHOWN_NAME: usize = 80;
/// Directory of debug files in the sysroot, as on the files' own systems.
const DEBUG_DIRECTORY: &str = "usr/lib/debug";

/// Inputs for a debugger.
#[derive(Debug)]
pub struct DebugView {
    /// The program's own file, if it was found.
    pub executable: Option<PathBuf>,
    /// The file that the kernel started, if that is the dynamic loader with the program as its
    /// argument.
    pub started: Option<PathBuf>,
    /// Files that the debugger cannot place itself, and their load offsets.
    pub placed: Vec<(PathBuf, u64)>,
    /// The core, or the minicore if there is no core.
    pub core: PathBuf,
    /// A directory laid out like the root of the crashed process.
    pub sysroot: PathBuf,
    /// Directories with libraries that the loader knew by another path.
    pub library_directories: Vec<PathBuf>,
    /// Separate debug files, by build-id.
    pub debug_directory: PathBuf,
    /// Whether the debugger may not use the network either.
    pub offline: bool,
    /// Prevents deletion of the case while this exists, and while a debugger that inherited it runs.
    pub in_use: Option<CaseInUse>,
}

/// Builds the view of `dump`: fetches it if needed, finds the files of its modules in all sources, and
/// links every verified one into a sysroot. Also returns the files found.
///
/// # Errors
/// If there is no core, or the case cannot be written.
pub fn debug_view(
    settings: &Settings,
    dump: &Dump,
    observer: &dyn Observer,
) -> Result<(DebugView, Gathered)> {
    let (directory, core) = place(settings, dump, observer)?;
    let in_use = CaseInUse::hold(&directory);
    let analysis = dump.analysis(settings, observer)?;
    let search = dump.module_search(&settings.images.files);
    let mut gathered = gather_files(settings, dump, &analysis, &search, true, observer);
    let mut problems = Vec::new();
    let mut view = lay_out(&directory, &core, &analysis, &gathered, &mut problems)
        .with_context(|| format!("cannot write to `{}`", directory.display()))?;
    view.offline = settings.images.offline;
    view.in_use = in_use;
    gathered.remarks.extend(link_remark(&problems));
    Ok((view, gathered))
}

/// The directory of the view, and its core.
fn place(settings: &Settings, dump: &Dump, observer: &dyn Observer) -> Result<(PathBuf, PathBuf)> {
    let case = match &dump.origin {
        Origin::Core(path) => {
            let core = fs::canonicalize(dump.plain_core(path))?;
            let name = cdh_bundle::Sha256::of(core.as_os_str().as_bytes()).to_string();
            let views = settings.cache.require("views")?;
            return Ok((views.join(name.get(..16).unwrap_or(&name)), core));
        }
        Origin::Case(path) => {
            let case = fs::canonicalize(path)?;
            case::verify(&case, &dump.manifest, observer)?;
            case
        }
        Origin::Store(_) | Origin::Bundle(_) | Origin::Spool(_) => {
            case::fetch(settings, dump, None, observer)?.path
        }
    };
    let minicore = case.join(EntryKind::Minicore.file_name());
    let core = Case::core_path(&case).or_else(|| minicore.is_file().then_some(minicore));
    let core = core.ok_or_else(|| {
        Failure::new(ExitStatus::Nothing, "this dump has no core").hint(format!(
            "`cdh info {}` shows why it is missing",
            dump.label()
        ))
    })?;
    Ok((case, core))
}

/// A link that could not be created, and why. Names come from the core: one that the file system refuses must
/// not affect the others.
type LinkProblem = (PathBuf, std::io::Error);

fn link_remark(problems: &[LinkProblem]) -> Option<anyhow::Error> {
    let (path, error) = problems.first()?;
    let mut name = terminal_line(&path.display().to_string());
    if name.chars().count() > SHOWN_NAME {
        name = name.chars().take(SHOWN_NAME).chain(['…']).collect();
    }
    let more = match problems.len() {
        1 => String::new(),
        count => format!(" and {} more", count - 1),
    };
    let what = format!("the debugger does not see `/{name}`{more}: {error}");
    Some(Failure::new(ExitStatus::Nothing, what).into())
}

/// Builds the sysroot under another name and publishes it.
fn lay_out(
    directory: &Path,
    core: &Path,
    analysis: &Analysis,
    gathered: &Gathered,
    problems: &mut Vec<LinkProblem>,
) -> std::io::Result<DebugView> {
    let sysroot = directory.join("sysroot");
    case::private_directory(directory)?;
    // A leftover of a dead process with the same id.
    let fresh = aside(&sysroot);
    let _ = fs::remove_dir_all(&fresh);
    fs::create_dir(&fresh)?;
    let view = link_files(&fresh, &sysroot, analysis, gathered, problems)
        .and_then(|view| publish(&fresh, &sysroot).map(|()| view));
    if view.is_err() {
        let _ = fs::remove_dir_all(&fresh);
    }
    let (executable, library_directories) = view?;
    let (started, placed) = match started_by_loader(&analysis.head, gathered) {
        true => loader_and_program(&sysroot, gathered),
        false => (None, Vec::new()),
    };
    Ok(DebugView {
        executable,
        started,
        placed,
        core: core.to_owned(),
        debug_directory: sysroot.join(DEBUG_DIRECTORY),
        sysroot,
        library_directories,
        offline: false,
        in_use: None,
    })
}

/// Whether the kernel started the dynamic loader instead of the program. Debuggers then misread the auxiliary
/// vector, which describes the loader, as the program's.
fn started_by_loader(head: &CoreHead, gathered: &Gathered) -> bool {
    const AT_PHDR: u64 = 3;
    let started = head.aux(AT_PHDR).map(Avma);
    let mut modules = gathered.modules.iter();
    modules.any(|found| {
        let is_started = started.is_some_and(|at| found.module.contains(at));
        found.module.kind == ModuleKind::Loader && is_started
    })
}

/// The loader's file, from which a debugger finds the libraries, and the program at its mapped address. Without
/// the loader's file, the libraries as well.
fn loader_and_program(
    sysroot: &Path,
    gathered: &Gathered,
) -> (Option<PathBuf>, Vec<(PathBuf, u64)>) {
    let place = |found: &FoundModule| {
        found.path.as_ref()?;
        Some(sysroot.join(inner_path(&found.module.path)?))
    };
    let modules = || gathered.modules.iter();
    let mut loaders = modules().filter(|found| found.module.kind == ModuleKind::Loader);
    let loader = loaders.find_map(place);
    let is_placed = |found: &&FoundModule| match found.module.kind {
        ModuleKind::Executable => true,
        ModuleKind::Library => loader.is_none(),
        ModuleKind::Loader | ModuleKind::Vdso => false,
    };
    let placed = modules().filter(is_placed);
    let placed = placed.filter_map(|found| Some((place(found)?, found.loaded().bias()?)));
    let placed = placed.collect();
    (loader, placed)
}

/// Links every verified file at the path that the core names. A name that a file chose for itself never
/// replaces the path of a mapped file: paths of modules come first, then those of other mappings, then
/// unused sonames. Returns the executable and the directories of libraries below `sysroot`, the final name
/// of `fresh`.
fn link_files(
    fresh: &Path,
    sysroot: &Path,
    analysis: &Analysis,
    gathered: &Gathered,
    problems: &mut Vec<LinkProblem>,
) -> std::io::Result<(Option<PathBuf>, Vec<PathBuf>)> {
    let mut executable = None;
    let mut library_directories = Vec::new();
    let mut sonames = Vec::new();
    for found in gathered
        .modules
        .iter()
        .filter(|found| found.module.kind != ModuleKind::Vdso)
    {
        let (Some(inside), Some(file)) = (inner_path(&found.module.path), &found.path) else {
            continue;
        };
        let placed = fs::canonicalize(file).and_then(|file| {
            place_link(&file, &fresh.join(&inside))?;
            Ok(file)
        });
        let file = match placed {
            Ok(file) => file,
            Err(error) => {
                problems.push((inside, error));
                continue;
            }
        };
        if found.module.kind == ModuleKind::Executable {
            executable.get_or_insert_with(|| sysroot.join(&inside));
            continue;
        }
        let parent = inside.parent().unwrap_or(Path::new(""));
        if let Some(name) = found.soname().and_then(|name| Path::new(name).file_name()) {
            sonames.push((file, parent.join(name)));
        }
        let known = sysroot.join(parent);
        if is_one_word(parent) && !library_directories.contains(&known) {
            library_directories.push(known);
        }
    }
    place_debug_files(fresh, gathered, problems);
    place_empty_files(fresh, analysis)?;
    // The loader may know a library by its soname.
    for (file, inside) in sonames {
        if let Err(error) = place_link(&file, &fresh.join(&inside)) {
            problems.push((inside, error));
        }
    }
    merge_usr(fresh)?;
    Ok((executable, library_directories))
}

/// Renames `fresh` to `sysroot`. If `sysroot` exists, the two are exchanged atomically: other runs may be
/// publishing theirs, and debuggers may be reading the old one.
fn publish(fresh: &Path, sysroot: &Path) -> std::io::Result<()> {
    /// An attempt fails only if another run published in between.
    const ATTEMPTS: usize = 1_000;
    let mut outcome = Ok(());
    for _ in 0..ATTEMPTS {
        match fs::rename(fresh, sysroot) {
            Err(error) if is_taken(&error) => outcome = Err(error),
            other => return other,
        }
        match renameat_with(CWD, fresh, CWD, sysroot, RenameFlags::EXCHANGE) {
            Ok(()) => {
                let _ = fs::remove_dir_all(fresh);
                return Ok(());
            }
            Err(Errno::NOENT) => {}
            // Not every file system can exchange.
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
                match remove_directory(sysroot) {
                    Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                        return Err(error);
                    }
                    _ => {}
                }
            }
            Err(error) => return Err(error.into()),
        }
    }
    outcome
}

/// Whether `rename(2)` failed because the new name is a directory with files: both errors are
/// allowed.
fn is_taken(error: &std::io::Error) -> bool {
    use std::io::ErrorKind;
    matches!(
        error.kind(),
        ErrorKind::DirectoryNotEmpty | ErrorKind::AlreadyExists
    )
}

/// Whether debuggers accept the name of a directory of libraries: gdb separates them by `:`, LLDB splits
/// commands into words. Libraries in other directories are still found by their full paths.
fn is_one_word(directory: &Path) -> bool {
    let bytes = directory.as_os_str().as_bytes();
    let separates = |byte: &u8| {
        byte.is_ascii_whitespace() || byte.is_ascii_control() || b":\"'`\\".contains(byte)
    };
    !bytes.iter().any(separates)
}

/// The path inside a root: no `..`, no root, nothing that leaves it.
fn inner_path(path: &[u8]) -> Option<PathBuf> {
    let path = Path::new(OsStr::from_bytes(path));
    let parts: Option<PathBuf> = path
        .components()
        .filter(|part| !matches!(part, Component::RootDir | Component::CurDir))
        .map(|part| match part {
            Component::Normal(name) => Some(name),
            _ => None,
        })
        .collect();
    parts.filter(|parts| !parts.as_os_str().is_empty())
}

fn place_link(file: &Path, link: &Path) -> std::io::Result<()> {
    if let Some(parent) = link.parent() {
        fs::create_dir_all(parent)?;
    }
    match std::os::unix::fs::symlink(file, link) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

/// `.build-id/ab/cdef.debug` below the debug directory, and the path of each mapped file that is
/// not a module.
fn place_debug_files(root: &Path, gathered: &Gathered, problems: &mut Vec<LinkProblem>) {
    let by_id = |id: &BuildId| {
        let hex = id.to_string();
        let (first, rest) = hex.split_at_checked(2)?;
        let directory = Path::new(DEBUG_DIRECTORY).join(".build-id").join(first);
        Some(directory.join(format!("{rest}.debug")))
    };
    let mut links: Vec<(&Path, PathBuf)> = Vec::new();
    for found in &gathered.modules {
        let debug = found
            .debug_path
            .as_deref()
            .zip(found.module.build_id.as_ref());
        let alternate = found.alternate_path.as_ref();
        let alternate = alternate.map(|(file, id)| (file.as_path(), id));
        let both = debug.into_iter().chain(alternate);
        links.extend(both.filter_map(|(file, id)| Some((file, by_id(id)?))));
    }
    for (path, file) in &gathered.extras {
        links.extend(inner_path(path).map(|inside| (file.as_path(), inside)));
    }
    for (file, inside) in links {
        let placed = fs::canonicalize(file).and_then(|file| place_link(&file, &root.join(&inside)));
        if let Err(error) = placed {
            problems.push((inside, error));
        }
    }
}

/// gdb warns of each mapped file that it cannot open. An unverified file is therefore replaced by an
/// empty one.
fn place_empty_files(root: &Path, analysis: &Analysis) -> std::io::Result<()> {
    for mapping in analysis.head.mappings() {
        let Some(inside) = inner_path(&mapping.path) else {
            continue;
        };
        let path = root.join(inside);
        if path.symlink_metadata().is_ok() {
            continue;
        }
        // A hostile list may name a file at a path where another entry needs a directory.
        let made = path
            .parent()
            .is_some_and(|parent| fs::create_dir_all(parent).is_ok());
        if made {
            let _ = fs::OpenOptions::new()
                .write(true)
                .create_new(true)
                .open(&path);
        }
    }
    Ok(())
}

/// On systems with a merged /usr, /lib and /usr/lib are the same directory.
fn merge_usr(root: &Path) -> std::io::Result<()> {
    for name in ["lib", "lib64", "bin", "sbin"] {
        let (short, long) = (root.join(name), root.join("usr").join(name));
        if long.is_dir() && short.symlink_metadata().is_err() {
            std::os::unix::fs::symlink(Path::new("usr").join(name), short)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_that_debuggers_would_split_are_not_searched() {
        for one in ["usr/lib", "opt/größe", ""] {
            assert!(is_one_word(Path::new(one)), "{one}");
        }
        for several in [
            "d:/tmp/planted",
            "a b",
            "a\tb",
            "x\"y",
            "x'y",
            "x\\y",
            "a\nb",
        ] {
            assert!(!is_one_word(Path::new(several)), "{several}");
        }
    }

    #[test]
    fn sysroots_published_in_parallel_are_always_complete() {
        let dir = tempfile::tempdir().unwrap();
        let sysroot = dir.path().join("sysroot");
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        let fresh = aside(&sysroot);
                        fs::create_dir(&fresh).unwrap();
                        fs::write(fresh.join("app"), "whole").unwrap();
                        publish(&fresh, &sysroot).unwrap();
                        assert_eq!(fs::read(sysroot.join("app")).unwrap(), b"whole");
                    }
                });
            }
        });
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn hostile_paths_do_not_leave_the_sysroot() {
        assert_eq!(
            inner_path(b"/usr/lib/x.so"),
            Some(PathBuf::from("usr/lib/x.so"))
        );
        assert_eq!(inner_path(b"/../../etc/passwd"), None);
        assert_eq!(inner_path(b"/"), None);
        assert_eq!(inner_path(b""), None);
    }
}
