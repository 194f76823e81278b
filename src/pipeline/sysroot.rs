//! Lays out the files that a debugger needs, under the paths that the core knows them by.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result};
use cdh_bundle::EntryKind;
use cdh_elfcore::ModuleKind;

use super::{Analysis, Case, Dump, FoundModule, Observer, Origin, case, find_modules};
use crate::report::{ExitStatus, Failure};
use crate::settings::Settings;

/// What a debugger is started with.
#[derive(Debug)]
pub struct DebugView {
    /// The program's own file, where it was found.
    pub executable: Option<PathBuf>,
    /// The core, or the minicore where there is no other.
    pub core: PathBuf,
    /// A directory laid out as the root of the crashed process.
    pub sysroot: PathBuf,
    /// Directories that hold libraries, for those that the loader knew by another path.
    pub library_directories: Vec<PathBuf>,
}

/// Makes the view of `dump`: fetches it where needed, and links every verified file into a sysroot.
///
/// # Errors
/// When there is no core, or the case cannot be written.
pub fn debug_view(
    settings: &Settings,
    dump: &Dump,
    sysroot: Option<&Path>,
    observer: &dyn Observer,
) -> Result<DebugView> {
    let (directory, core) = place(settings, dump, observer)?;
    let analysis = dump.analysis(settings, observer)?;
    let search = dump.module_search(sysroot);
    let modules = find_modules(
        analysis.head.modules(&analysis.memory),
        &analysis.memory,
        &search,
    );
    lay_out(&directory, &core, &analysis, &modules)
        .with_context(|| format!("cannot write to `{}`", directory.display()))
}

/// Where the view is built, and the core that it is about.
fn place(settings: &Settings, dump: &Dump, observer: &dyn Observer) -> Result<(PathBuf, PathBuf)> {
    let case = match &dump.origin {
        Origin::Core(path) => {
            let core = fs::canonicalize(path)?;
            let name = cdh_bundle::Sha256::of(core.as_os_str().as_bytes()).to_string();
            return Ok((
                settings
                    .cache
                    .join("views")
                    .join(name.get(..16).unwrap_or(&name)),
                core,
            ));
        }
        Origin::Case(path) => fs::canonicalize(path)?,
        Origin::Store(_) | Origin::Bundle(_) => case::fetch(settings, dump, None, observer)?.path,
    };
    let minicore = case.join(EntryKind::Minicore.file_name());
    let core = Case::core_path(&case).or_else(|| minicore.is_file().then_some(minicore));
    let core = core.ok_or_else(|| {
        Failure::new(ExitStatus::Nothing, "this dump holds no core").hint(format!(
            "`cdh info {}` tells why it is missing",
            dump.label()
        ))
    })?;
    Ok((case, core))
}

fn lay_out(
    directory: &Path,
    core: &Path,
    analysis: &Analysis,
    modules: &[FoundModule],
) -> std::io::Result<DebugView> {
    let sysroot = directory.join("sysroot");
    let fresh = directory.join(format!("sysroot.part-{}", std::process::id()));
    fs::create_dir_all(&fresh)?;
    let mut executable = None;
    let mut library_directories = Vec::new();
    for found in modules
        .iter()
        .filter(|found| found.module.kind != ModuleKind::Vdso)
    {
        let (Some(inside), Some(file)) = (inner_path(&found.module.path), &found.path) else {
            continue;
        };
        let file = fs::canonicalize(file)?;
        let link = fresh.join(&inside);
        place_link(&file, &link)?;
        if found.module.kind == ModuleKind::Executable {
            executable.get_or_insert_with(|| sysroot.join(&inside));
            continue;
        }
        // The loader may have known it by its soname.
        let parent = inside.parent().unwrap_or(Path::new(""));
        if let Some(name) = found.soname().and_then(|name| Path::new(name).file_name()) {
            place_link(&file, &fresh.join(parent).join(name))?;
        }
        let known = sysroot.join(parent);
        if !library_directories.contains(&known) {
            library_directories.push(known);
        }
    }
    place_empty_files(&fresh, analysis)?;
    merge_usr(&fresh)?;
    // Another run may have built it meanwhile: both are equally good.
    if sysroot.exists() {
        fs::remove_dir_all(&sysroot)?;
    }
    fs::rename(&fresh, &sysroot)?;
    Ok(DebugView {
        executable,
        core: core.to_owned(),
        sysroot,
        library_directories,
    })
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

/// gdb warns of each mapped file that it cannot open. What was not proven to be the right file is an
/// empty one: gdb finds nothing in it, which is true.
fn place_empty_files(root: &Path, analysis: &Analysis) -> std::io::Result<()> {
    for mapping in analysis.head.mappings() {
        let Some(inside) = inner_path(&mapping.path) else {
            continue;
        };
        let path = root.join(inside);
        if path.symlink_metadata().is_ok() {
            continue;
        }
        // A hostile list may name a file where another path needs a directory.
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

/// Systems with a merged /usr call the same directory /lib and /usr/lib.
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
