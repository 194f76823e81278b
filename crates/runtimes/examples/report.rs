//! Prints what runtimes know of a core as JSON, with the stack of every task: for development, without a dump and
//! without a store. `cargo run -p cdh-runtimes --example report -- CORE PROGRAM [LIBRARY…]`

use std::time::Instant;

use cdh_elfcore::{CoreFile, MappedFile};
use cdh_runtimes::{Options, Process, examine};
use cdh_symbolize::{Alone, BacktraceOptions, LoadedModule, SectionArena, backtrace};

fn main() {
    let mut arguments = std::env::args().skip(1);
    let core = arguments.next().expect("a core");
    let files: Vec<(String, Vec<u8>)> = arguments
        .map(|path| (path.clone(), std::fs::read(&path).expect("a file")))
        .collect();
    let core = MappedFile::open(core.as_ref()).expect("a core");
    let core = CoreFile::open(Box::new(core)).expect("a core");
    let modules = core.modules();
    let loaded: Vec<LoadedModule<'_>> = modules
        .iter()
        .map(|module| {
            let base = module.display_path();
            let name = base.rsplit('/').next().unwrap_or_default();
            let same = |path: &str| path.rsplit('/').next() == Some(name);
            match files.iter().find(|(path, _)| same(path)) {
                Some((_, data)) => LoadedModule::from_file(module, data),
                None => LoadedModule::missing(module),
            }
        })
        .collect();
    let arena = SectionArena::new();
    let threads = core.head().threads();
    let start = Instant::now();
    let options = BacktraceOptions::default();
    let mut stacks = backtrace(threads, &core, &loaded, &arena, &options);
    let unwound = start.elapsed();
    let process = Process {
        threads,
        memory: &core,
        modules: &loaded,
        arena: &arena,
        surroundings: &Alone,
    };
    let options = Options {
        task_stacks: true,
        system_tasks: true,
        max_frames: 256,
    };
    let start = Instant::now();
    let reports = examine(&process, &mut stacks, &options);
    let elapsed = start.elapsed();
    let document = serde_json::json!({ "runtimes": reports, "backtrace": stacks });
    println!("{document}");
    eprintln!("threads {unwound:?}, runtimes {elapsed:?}");
}
