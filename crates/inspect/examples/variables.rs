//! `cargo run -p cdh-inspect --example variables -- [--raw] PROGRAM CORE`: prints the variables of all frames as JSON, a
//! line for each frame. The files of other modules are read from their paths.

// A tool for development.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic)]

use std::path::Path;

use cdh_elfcore::{CoreFile, ElfObject, MappedFile, Module, ModuleKind};
use cdh_inspect::{FunctionVariables, Inspector, Storage, Variable};
use cdh_symbolize::{Bytes, LoadedModule, SectionArena, Surroundings, with_vdso};

struct Beside<'a>(&'a Path);

impl Surroundings for Beside<'_> {
    fn split_unit(&self, _: usize, _: &[u8], name: &[u8]) -> Option<Bytes> {
        let name = String::from_utf8_lossy(name).into_owned();
        let path = self.0.parent()?.join(Path::new(&name).file_name()?);
        Some(Box::new(std::fs::read(path).ok()?))
    }
    fn split_package(&self, _: usize) -> Option<Bytes> {
        Some(Box::new(std::fs::read(self.0.with_extension("dwp")).ok()?))
    }
}

fn main() {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    let raw = arguments.iter().any(|word| word == "--raw");
    arguments.retain(|word| word != "--raw");
    let [program, core] = arguments.as_slice() else {
        panic!("variables [--raw] PROGRAM CORE");
    };
    let core = CoreFile::open(Box::new(MappedFile::open(Path::new(core)).unwrap())).unwrap();
    let modules = core.modules();
    let open = |module: &Module| {
        let path = match module.kind {
            ModuleKind::Executable => program.clone(),
            _ => module.display_path(),
        };
        MappedFile::open(Path::new(&path)).ok()
    };
    let files: Vec<_> = modules.iter().map(open).collect();
    // As Debian's packages of debug information have them.
    let debug = |module: &Module| {
        let id = module.build_id.as_ref()?.to_string();
        let (first, rest) = id.split_at_checked(2)?;
        let path = format!("/usr/lib/debug/.build-id/{first}/{rest}.debug");
        MappedFile::open(Path::new(&path)).ok()
    };
    let debugs: Vec<_> = modules.iter().map(debug).collect();
    let loaded: Vec<LoadedModule<'_>> = modules
        .iter()
        .zip(files.iter().zip(&debugs))
        .map(|(module, (file, debug))| {
            let Some(file) = file else {
                return LoadedModule::missing(module);
            };
            let mut loaded = LoadedModule::from_file(module, file.bytes());
            let debug = debug.as_ref();
            loaded.debug = debug.and_then(|file| ElfObject::parse(file.bytes()).ok());
            loaded
        })
        .collect();
    let arena = SectionArena::new();
    let loaded = with_vdso(&loaded, &core, &arena);
    let beside = Beside(Path::new(program));
    let inspector = Inspector::new(&core, &loaded, &arena, &beside);
    inspector.read_containers(!raw);
    for thread in core.head().threads() {
        let frames = inspector.frames(&thread.registers, 256);
        for number in 0..frames.len() {
            let functions = inspector.variables(&frames, number);
            let pc = frames.get(number).map_or(0, |frame| frame.frame.pc.0);
            for (inlined, function) in functions.iter().enumerate() {
                println!(
                    "{}",
                    line(thread.tid, pc, inlined + 1 < functions.len(), function)
                );
            }
            if functions.is_empty() {
                let nothing = serde_json::json!({"tid": thread.tid, "pc": pc});
                println!("{nothing}");
            }
        }
    }
}

fn line(tid: u32, pc: u64, inline: bool, function: &FunctionVariables) -> serde_json::Value {
    let list = |variables: &[Variable]| -> Vec<serde_json::Value> {
        let one = |variable: &Variable| {
            serde_json::json!({
                "name": variable.name,
                "type": variable.type_name,
                "value": variable.value.to_string(),
                "address": match variable.storage {
                    Storage::Memory(at) => Some(at),
                    _ => None,
                },
            })
        };
        variables.iter().map(one).collect()
    };
    serde_json::json!({
        "tid": tid,
        "pc": pc,
        "inline": inline,
        "function": function.name,
        "arguments": list(&function.arguments),
        "locals": list(&function.locals),
    })
}
