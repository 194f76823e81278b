//! Files that are stripped, separate, wrong or missing.

use super::*;

fn run(dir: &Path, command: &str) {
    let output = Command::new("sh")
        .current_dir(dir)
        .args(["-ec", command])
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{command}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn stripped_program_says_why_it_has_no_names() {
    let crash = Crash::of(CHAIN, "gcc", &["-O2", "-g"]);
    let dir = crash.dir.path();
    run(dir, "cp program whole; strip program");
    let stripped = trace(&crash.core, &|path| path.to_owned());
    let reasons = |backtrace: &Backtrace| -> Vec<Option<Reason>> {
        backtrace.threads[0]
            .frames
            .iter()
            .map(|frame| frame.function.clone().err())
            .collect()
    };
    assert_eq!(reasons(&stripped)[0], Some(Reason::NotInAnyFunction));
    assert_eq!(stripped.threads[0].stop, Stop::End);

    run(dir, "objcopy --add-gnu-debuglink=whole program");
    let core = CoreFile::open(Box::new(MappedFile::open(&crash.core).unwrap())).unwrap();
    let modules = core.modules();
    let file = MappedFile::open(&crash.program).unwrap();
    let load = |module: &'static cdh_elfcore::Module| match module.kind {
        ModuleKind::Executable => LoadedModule::from_file(module, Box::leak(file.bytes().into())),
        _ => LoadedModule::missing(module),
    };
    let loaded: Vec<_> = Vec::leak(modules).iter().map(load).collect();
    let needs = module_needs(
        core.head().threads(),
        &core,
        &loaded,
        &SectionArena::new(),
        &BacktraceOptions::default(),
    );
    let Some(Need::DebugFile { link, build_id, .. }) = needs.iter().map(|need| &need.what).next()
    else {
        panic!("{needs:?}")
    };
    assert_eq!(link.as_deref(), Some(b"whole".as_slice()));
    assert!(build_id.is_some());
    let whole = std::fs::read(dir.join("whole")).unwrap();
    let whole = cdh_elfcore::ElfObject::parse(&whole).unwrap();
    assert!(needs[0].what.accepts(&whole));
    let by_checksum = |crc| Need::DebugFile {
        link: None,
        crc: Some(crc),
        build_id: None,
    };
    let Need::DebugFile { crc, .. } = &needs[0].what else {
        panic!()
    };
    assert!(by_checksum(crc.unwrap()).accepts(&whole));
    assert!(!by_checksum(1).accepts(&whole));
}

#[test]
fn mini_debug_info_names_static_functions() {
    let source = r#"
volatile int sink;
static __attribute__((noinline)) void hidden(int *p) { sink = 1; *p = 1; sink = 2; }
int main(void) { hidden((int *)sink); return 0; }"#;
    let crash = Crash::of(source, "gcc", &["-O1", "-g"]);
    run(
        crash.dir.path(),
        "objcopy --strip-debug program mini; xz --check=crc32 -k mini; strip program
         objcopy --add-section .gnu_debugdata=mini.xz program",
    );
    let ours = crash.ours();
    assert_eq!(lines(&ours, 0)[..2], ["hidden", "main"]);
    assert_eq!(
        ours.threads[0].frames[0].function.as_ref().unwrap().offset,
        Some(10)
    );
}

#[test]
fn wrong_and_missing_files_are_refused_and_said() {
    let crash = Crash::of(CHAIN, "gcc", &["-O2", "-g"]);
    let other = Crash::of(&CHAIN.replace("= 5", "= 7"), "gcc", &["-O2", "-g"]);
    let program = |path: &Path| path.file_name() == Some("program".as_ref());
    let wrong = trace(&crash.core, &|path| {
        if program(path) {
            other.program.clone()
        } else {
            path.to_owned()
        }
    });
    assert!(matches!(
        wrong.modules[0].status,
        ModuleStatus::Mismatch { .. }
    ));
    let function = &wrong.threads[0].frames[0].function;
    assert_eq!(function.as_ref().unwrap_err(), &Reason::ModuleMismatch);
    let missing = trace(&crash.core, &|path| {
        if program(path) {
            PathBuf::from("/nowhere")
        } else {
            path.to_owned()
        }
    });
    assert_eq!(missing.modules[0].status, ModuleStatus::Missing);
    assert_eq!(
        missing.threads[0].frames[0].function,
        Err(Reason::ModuleMissing)
    );
}

#[test]
fn backtrace_survives_json() {
    let ours = Crash::of(CHAIN, "gcc", &["-O2", "-g"]).ours();
    let json = serde_json::to_string(&ours).unwrap();
    let back: Backtrace = serde_json::from_str(&json).unwrap();
    // Stack pointers are not part of the document.
    let mut frames = ours.threads[0].frames.clone();
    frames.iter_mut().for_each(|frame| frame.sp = None);
    assert_eq!(back.threads[0].frames, frames);
    assert_eq!(back.fingerprint, ours.fingerprint);
    let value: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(
        value["threads"][0]["frames"][0]["function"]["name"],
        "inner"
    );
    assert_eq!(value["threads"][0]["stop"], "end");
}

#[test]
fn code_without_unwind_information_is_crossed_and_marked() {
    let source = r#"
volatile int sink;
void chained(void), bare(void);
__asm__(
    ".text\n.type chained,@function\nchained: push %rbp\nmov %rsp,%rbp\nsub $32,%rsp\ncall bare\nleave\nret\n.size chained,.-chained\n"
    ".type bare,@function\nbare: sub $40,%rsp\ncall fault\nadd $40,%rsp\nret\n.size bare,.-bare\n");
__attribute__((noinline)) void fault(void) { sink = 1; *(volatile int *)8 = 1; sink = 2; }
__attribute__((noinline)) void start(void) { sink = 3; chained(); sink = 4; }
int main(void) { start(); return 0; }"#;
    let ours = Crash::of(source, "gcc", &["-O2", "-g", "-no-pie"]).ours();
    let frames = &ours.threads[0].frames;
    let names: Vec<&str> = frames
        .iter()
        .map(|frame| frame.function.as_ref().unwrap().name.as_str())
        .collect();
    // Without a frame pointer of its own, `bare` hides its caller: the record is that of `chained`.
    assert_eq!(names[..2], ["fault", "bare"]);
    assert!(names.contains(&"main"), "{names:?}");
    assert!(
        frames
            .iter()
            .any(|frame| frame.trust == FrameTrust::FramePointer)
    );
}
