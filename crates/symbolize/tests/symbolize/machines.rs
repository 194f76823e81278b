//! Cores of other machines that are kept in the repository: `tests/fixtures/machines`.

use std::path::PathBuf;

use cdh_elfcore::{CoreFile, Machine};
use cdh_symbolize::{Backtrace, BacktraceOptions, FrameTrust, LoadedModule, SectionArena, Stop};

fn products() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/machines/products")
}

/// Machine and backtrace of a core; the program's file is used if `has_file`.
fn trace(name: &str, has_file: bool) -> (Machine, Backtrace) {
    let directory = products().join(name);
    let core = std::fs::read(directory.join("core.zst")).unwrap();
    let core = zstd::decode_all(core.as_slice()).unwrap();
    let core = CoreFile::open(Box::new(core)).unwrap();
    let program = std::fs::read(directory.join("program")).unwrap();
    let modules = core.modules();
    let load = |module| match has_file {
        true => LoadedModule::from_file(module, &program),
        false => LoadedModule::missing(module),
    };
    // qemu lists no files, and a vdso without its contents.
    let is_program = |module: &&cdh_elfcore::Module| module.display_path().ends_with("program");
    let loaded: Vec<LoadedModule<'_>> = modules.iter().filter(is_program).map(load).collect();
    assert_eq!(loaded.len(), 1, "{name}: {modules:?}");
    let (threads, arena) = (core.head().threads(), SectionArena::new());
    let found = cdh_symbolize::backtrace(
        threads,
        &core,
        &loaded,
        &arena,
        &BacktraceOptions::default(),
    );
    (core.head().machine(), found)
}

#[test]
fn kept_cores_of_other_machines_have_all_frames() {
    for (name, machine) in [
        ("aarch64", Machine::Aarch64),
        ("riscv64", Machine::Riscv64),
        ("ppc64le", Machine::Ppc64Le),
        ("s390x", Machine::S390x),
        ("i386", Machine::I386),
        ("arm", Machine::Arm),
        ("arm-exidx", Machine::Arm),
    ] {
        let (found, backtrace) = trace(name, true);
        assert_eq!(found, machine);
        let thread = &backtrace.threads[0];
        let functions = thread.frames.iter().map(|frame| frame.function.as_ref());
        let names: Vec<&str> = functions
            .map(|function| function.map_or("??", |function| function.name.as_str()))
            .collect();
        let expected = [
            "inner", "middle", "middle", "middle", "middle", "start", "_start",
        ];
        assert_eq!(names, expected, "{name}");
        assert_eq!(thread.stop, Stop::End, "{name}");
        let is_sure = |trust| matches!(trust, FrameTrust::Registers | FrameTrust::Cfi);
        // The leaf of arm has neither call frame information nor an entry of its own.
        let sure = thread.frames.iter().filter(|frame| is_sure(frame.trust));
        assert!(sure.count() >= 6, "{name}: {backtrace:?}");
    }
}

#[test]
fn stack_of_ppc64le_is_followed_without_the_programs_file() {
    let (_, backtrace) = trace("ppc64le", false);
    let frames = &backtrace.threads[0].frames;
    assert!(frames.len() >= 6, "{frames:?}");
    assert!(
        frames[2..]
            .iter()
            .all(|frame| frame.trust == FrameTrust::FramePointer)
    );
}

#[test]
fn cut_core_of_every_machine_does_not_panic() {
    for name in ["aarch64", "s390x", "i386", "arm"] {
        let core = std::fs::read(products().join(name).join("core.zst")).unwrap();
        let core = zstd::decode_all(core.as_slice()).unwrap();
        for end in (0..4096.min(core.len())).step_by(61) {
            if let Ok(core) = CoreFile::open(Box::new(core[..end].to_vec())) {
                let _ = core.modules();
            }
        }
    }
}
