//! Additional files for debuggers: thread libraries and pretty-printers of runtimes.
//!
//! They are placed into the sysroot but not loaded: auto-load is off. A user who trusts an image can load one by
//! hand (`source <sysroot>/…-gdb.py`).

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use cdh_elfcore::{Module, ModuleKind};

/// Paths of Go's file in images and distributions.
const GO: [&str; 2] = [
    "/usr/local/go/src/runtime/runtime-gdb.py",
    "/usr/lib/go/src/runtime/runtime-gdb.py",
];
/// Path of Node's file, relative to a binary in `<prefix>/bin`.
const NODE: [&str; 2] = ["share/doc/node/gdbinit", "share/doc/node/lldb_commands.py"];
/// Maximum modules for which files are searched.
const MAX_MODULES: usize = 512;

/// Where such files may be, by the paths of the modules.
pub(super) fn paths<'m>(modules: impl Iterator<Item = &'m Module>) -> Vec<Vec<u8>> {
    let mut found: Vec<Vec<u8>> = Vec::new();
    for module in modules.take(MAX_MODULES) {
        let path = Path::new(OsStr::from_bytes(&module.path));
        let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
            continue;
        };
        if !path.is_absolute() || module.kind == ModuleKind::Vdso {
            continue;
        }
        let name = name.as_bytes();
        let mut add = |path: &Path| found.push(path.as_os_str().as_bytes().to_vec());
        if name.starts_with(b"libc.so")
            || name.starts_with(b"libpthread")
            || name.starts_with(b"libc-2")
        {
            add(&directory.join("libthread_db.so.1"));
        }
        // C++, Python, GLib and others name their printers after the file they are for.
        let is_runtime = [
            &b"libstdc++"[..],
            b"libpython",
            b"python",
            b"libglib",
            b"libgobject",
            b"libjvm",
        ]
        .iter()
        .any(|start| name.starts_with(start));
        if is_runtime || module.kind == ModuleKind::Executable {
            let mut script = module.path.clone();
            script.extend_from_slice(b"-gdb.py");
            found.push([b"/usr/share/gdb/auto-load".as_slice(), &script].concat());
            found.push(script);
        }
        let mut add = |path: &Path| found.push(path.as_os_str().as_bytes().to_vec());
        if name == b"libjvm.so"
            && let Some(lib) = directory.parent()
        {
            add(&lib.join("libsaproc.so"));
        }
        if module.kind == ModuleKind::Executable {
            GO.iter().for_each(|path| add(Path::new(path)));
            if name == b"node"
                && let Some(prefix) = directory.parent()
            {
                NODE.iter().for_each(|path| add(&prefix.join(path)));
            }
        }
    }
    found.sort();
    found.dedup();
    found
}
