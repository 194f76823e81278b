//! Programs that catch their own crash: the fault comes first, and the fingerprint is that of the same program
//! without a handler.

use std::path::{Path, PathBuf};
use std::process::Command;

use cdh_elfcore::{Avma, CoreFile, MappedFile, SignalInfo};
use cdh_symbolize::{Backtrace, Stop};
use cdh_testkit::Program;

use super::{crash, trace};

/// `handlers.c`, built in a directory of its own.
struct Handlers(tempfile::TempDir);

impl Handlers {
    fn build(flags: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("handlers.c"), Program::Handlers.source()).unwrap();
        let build = Command::new("gcc")
            .current_dir(dir.path())
            .args(flags)
            .args(["-o", "handlers", "handlers.c", "-lpthread"])
            .output()
            .unwrap();
        assert!(
            build.status.success(),
            "{}",
            String::from_utf8_lossy(&build.stderr)
        );
        Self(dir)
    }

    fn core(&self, arguments: &str) -> PathBuf {
        let path = crash(self.0.path(), &format!("./handlers {arguments}"));
        let kept = self.0.path().join("kept");
        std::fs::rename(path, &kept).unwrap();
        kept
    }

    fn crash(&self, arguments: &str) -> Backtrace {
        trace(&self.core(arguments), &Path::to_owned)
    }
}

fn signal_of(core: &Path) -> SignalInfo {
    let core = CoreFile::open(Box::new(MappedFile::open(core).unwrap())).unwrap();
    core.head().signal().unwrap()
}

/// Name of the first frame of the crash.
fn first_name(backtrace: &Backtrace) -> String {
    let frames = backtrace.crash_frames().iter();
    let mut named = frames.filter_map(|frame| frame.function.as_ref().ok());
    named
        .next()
        .map_or_else(String::new, |function| function.name.clone())
}

/// Styles in which the handler is on the stack at the end, and faults that each of them catches.
const STYLES: [&str; 14] = [
    "abort",
    "abort-plain",
    "abort-alternate",
    "abort-plain-alternate",
    "abort-handled",
    "reraise",
    "reraise-plain",
    "reraise-nodefer",
    "crash",
    "crash-plain",
    "crash-alternate",
    "nested",
    "hang",
    "fork",
];
const FAULTS: [&str; 10] = [
    "null", "wild", "const", "divide", "illegal", "trap", "bus", "seccomp", "abort", "raise",
];

fn assert_original(
    handlers: &Handlers,
    style: &str,
    fault: &str,
    plain: &Backtrace,
    cause: SignalInfo,
) {
    let ours = handlers.crash(&format!("{style} {fault}"));
    let what = format!("{style} {fault}");
    let original = ours
        .original_signal
        .as_ref()
        .unwrap_or_else(|| panic!("{what}: {ours:#?}"));
    assert_eq!(original.signal.number, cause.number, "{what}");
    if let Some(address) = original.signal.address
        && fault != "divide"
        && fault != "illegal"
        && fault != "const"
        && fault != "bus"
    {
        assert_eq!(Some(address), cause.address, "{what}");
    }
    let has_info = !style.contains("plain") && style != "reraise-nodefer";
    let code = original.signal.code;
    assert!(
        code == cause.code || (!has_info && code.is_none()),
        "{what}: {original:?}, {cause:?}"
    );
    assert_eq!(first_name(&ours), first_name(plain), "{what}");
    let registers = original.registers.as_ref().unwrap();
    assert_eq!(registers.pc(), Some(ours.crash_frames()[0].pc), "{what}");
    assert!(
        ours.threads[0].frames[original.frame - 1].signal_handler,
        "{what}"
    );
    assert!(plain.fingerprint.is_some());
    assert_eq!(
        ours.fingerprint, plain.fingerprint,
        "{what}: {:?}",
        ours.explanation
    );
    assert_eq!(ours.threads[0].stop, Stop::End, "{what}");
}

#[test]
fn fault_beneath_each_kind_of_handler_is_the_crash() {
    let handlers = Handlers::build(&["-O1", "-g"]);
    for fault in FAULTS {
        let core = handlers.core(&format!("none {fault}"));
        let (plain, cause) = (trace(&core, &Path::to_owned), signal_of(&core));
        assert_eq!(plain.original_signal, None, "{fault}");
        // Each style with two faults, and each fault with some styles.
        for (number, style) in STYLES.into_iter().enumerate() {
            let place = FAULTS.iter().position(|known| *known == fault).unwrap();
            if number % FAULTS.len() == place || (number + 5) % FAULTS.len() == place || place == 0
            {
                assert_original(&handlers, style, fault, &plain, cause);
            }
        }
    }
}

#[test]
fn stack_overflow_beneath_a_handler_is_the_crash() {
    let handlers = Handlers::build(&["-O0", "-g"]);
    let plain = handlers.crash("none overflow");
    for style in [
        "abort-alternate",
        "abort-plain-alternate",
        "crash-alternate",
    ] {
        let core = handlers.core(&format!("{style} overflow"));
        let ours = trace(&core, &Path::to_owned);
        assert_eq!(ours.fingerprint, plain.fingerprint, "{style}");
        let original = ours.original_signal.unwrap();
        let core = CoreFile::open(Box::new(MappedFile::open(&core).unwrap())).unwrap();
        let registers = original.registers.unwrap();
        let overflow = core
            .head()
            .stack_overflow_at(1, &original.signal, &registers);
        assert!(overflow.is_some(), "{style}: {:?}", original.signal);
    }
}

#[test]
fn fault_of_a_handler_is_recorded_beside_the_first() {
    let handlers = Handlers::build(&["-O1", "-g"]);
    let ours = handlers.crash("nested divide");
    let original = ours.original_signal.as_ref().unwrap();
    assert_eq!(original.signal.number, 8);
    assert_eq!(original.nested.len(), 1);
    let nested = original.nested[0];
    assert_eq!(
        (nested.signal.number, nested.signal.address.unwrap().0),
        (11, 0x10)
    );
    let frame = &ours.threads[0].frames[nested.frame];
    assert_eq!(frame.function.as_ref().unwrap().name, "crash_in_handler");
    // Its fault while SIGSEGV is blocked ends the process.
    let ours = handlers.crash("crash null");
    assert!(ours.original_signal.unwrap().nested.is_empty());
    // Nothing is nested in a handler that a timer ends, or that calls `abort` with a handler of its own.
    assert!(
        handlers
            .crash("hang null")
            .original_signal
            .unwrap()
            .nested
            .is_empty()
    );
    let nested = handlers
        .crash("abort-handled null")
        .original_signal
        .unwrap()
        .nested;
    assert_eq!(nested[0].signal.number, 6);
}

#[test]
fn handler_of_another_signal_is_the_crash_itself() {
    let handlers = Handlers::build(&["-O1", "-g"]);
    for (style, first) in [
        ("usr1-crash", "crash_in_handler"),
        ("usr1-crash-nodefer", "crash_in_handler"),
        ("usr1-abort", "end_by_abort"),
        ("usr1-abort-nodefer", "end_by_abort"),
    ] {
        let ours = handlers.crash(&format!("{style} -"));
        assert_eq!(ours.original_signal, None, "{style}");
        assert_eq!(ours.explanation.unwrap().counted[0], first, "{style}");
    }
}

#[test]
fn handler_that_returns_leaves_the_fault_as_it_is() {
    let handlers = Handlers::build(&["-O1", "-g"]);
    let plain = handlers.crash("none null");
    for style in ["return", "raise-return"] {
        let ours = handlers.crash(&format!("{style} null"));
        assert_eq!(ours.fingerprint, plain.fingerprint, "{style}");
        match ours.original_signal {
            None => assert_eq!(style, "return"),
            // The fault did not repeat itself: the signal was sent, and is still known.
            Some(original) => {
                assert_eq!(style, "raise-return");
                assert_eq!(original.signal, SignalInfo::new(11, 1, (8, 0), Avma(8)));
                assert_eq!(original.frame, 0);
            }
        }
    }
}

#[test]
fn handler_in_a_thread_is_found_there() {
    let handlers = Handlers::build(&["-O1", "-g"]);
    let plain = handlers.crash("none null thread");
    let ours = handlers.crash("abort null thread");
    assert_eq!(first_name(&ours), "fault_null");
    assert_eq!(ours.fingerprint, plain.fingerprint);
    // The kernel gives the signal to the main thread, which waits for the other.
    let ours = handlers.crash("kill-process null thread");
    assert_eq!(first_name(&ours), "fault_null", "{ours:#?}");
    assert_eq!(ours.fingerprint, plain.fingerprint);
    assert!(ours.threads[0].crashing && !ours.threads[1].crashing);
    assert_eq!(ours.original_signal.unwrap().signal.number, 11);
}

/// The handlers are in code without call frame information, as in libraries that were built without.
#[test]
fn handler_without_unwind_tables_leads_to_the_fault() {
    let plain = Handlers::build(&["-O1", "-g"]).crash("none null");
    let no_tables = [
        "-fno-asynchronous-unwind-tables",
        "-fno-unwind-tables",
        "-fno-exceptions",
    ];
    for frame_pointer in ["-fomit-frame-pointer", "-fno-omit-frame-pointer"] {
        for level in ["-O0", "-O1", "-O2"] {
            let flags = [&no_tables[..], &[frame_pointer, level]].concat();
            let handlers = Handlers::build(&flags);
            for style in ["abort", "abort-plain-alternate", "crash", "reraise"] {
                let ours = handlers.crash(&format!("{style} null"));
                let what = format!("{flags:?} {style}");
                let original = ours
                    .original_signal
                    .as_ref()
                    .unwrap_or_else(|| panic!("{what}: {ours:#?}"));
                assert_eq!(original.signal.number, 11, "{what}");
                assert_eq!(first_name(&ours), "fault_null", "{what}");
                assert_eq!(
                    ours.fingerprint, plain.fingerprint,
                    "{what}: {:?}",
                    ours.explanation
                );
            }
        }
    }
}
