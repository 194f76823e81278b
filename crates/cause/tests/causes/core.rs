//! A core with the files of this machine, as the commands open it.

use std::path::{Path, PathBuf};

use cdh_cause::{Cause, Crash};
use cdh_elfcore::{CoreFile, ElfObject, MappedFile, Module, SignalInfo};
use cdh_symbolize::{BacktraceOptions, LoadedModule, SectionArena, abort_message, backtrace};

pub(crate) fn in_directory(directory: &Path) -> Option<PathBuf> {
    let entries = std::fs::read_dir(directory).ok()?.filter_map(Result::ok);
    let mut paths = entries.map(|entry| entry.path());
    paths.find(|path| {
        path.file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with("core"))
    })
}

pub(crate) fn explain(path: &Path) -> Cause {
    let core = CoreFile::open(Box::new(MappedFile::open(path).unwrap())).unwrap();
    let modules = core.modules();
    let files: Vec<Option<MappedFile>> = modules
        .iter()
        .map(|module| MappedFile::open(Path::new(&module.display_path())).ok())
        .collect();
    let load = |(module, file)| match file {
        Some(file) => LoadedModule::from_file(module, MappedFile::bytes(file)),
        None => LoadedModule::missing(module),
    };
    let loaded: Vec<LoadedModule<'_>> = modules
        .iter()
        .zip(files.iter().map(Option::as_ref))
        .map(load)
        .collect();
    let debug: Vec<Option<MappedFile>> = modules.iter().map(debug_file).collect();
    let mut loaded = loaded;
    for (module, file) in loaded.iter_mut().zip(&debug) {
        let object = file
            .as_ref()
            .map(|file| ElfObject::parse(file.bytes()).unwrap());
        module.debug = object.filter(|object| object.build_id() == module.module.build_id);
    }
    let arena = SectionArena::new();
    let head = core.head();
    let options = BacktraceOptions {
        all_threads: false,
        max_frames: 4096,
        ..BacktraceOptions::default()
    };
    let named = backtrace(head.threads(), &core, &loaded, &arena, &options);
    let message = abort_message(&loaded, &core);
    let thread = head.threads().first();
    cdh_cause::explain(&Crash {
        signal: head.signal().unwrap_or_else(|| SignalInfo::from_number(0)),
        pid: head.process().map(|process| process.pid),
        machine: head.machine(),
        registers: thread.map(|thread| &thread.registers),
        memory: &core,
        segments: head.segments(),
        mappings: head.mappings(),
        modules: &loaded,
        handler_frames: 0,
        frames: named
            .threads
            .first()
            .map_or(&[], |thread| thread.frames.as_slice()),
        reports: &named.modules,
        overflow: head.stack_overflow(),
        abort_message: message.as_deref(),
        names: None,
        runtime_failure: None,
    })
}

fn debug_file(module: &Module) -> Option<MappedFile> {
    let id = module.build_id.as_ref()?.to_string();
    let path = format!(
        "/usr/lib/debug/.build-id/{}/{}.debug",
        id.get(..2)?,
        id.get(2..)?
    );
    MappedFile::open(Path::new(&path)).ok()
}
