//! Real crashes through the kernel's own pipe: they need root, and take the machine's core settings
//! for themselves as long as they run. `CDH_TEST_HANDLER` names another handler to test, such as the
//! static one that is shipped.

// A failed test or task may panic; nothing of this ships.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used
)]

mod broken_spool;
mod cgroups;
mod chain;
mod direct;
mod fuse;
mod neighbours;
mod node;
mod noexec;
#[cfg(feature = "cri")]
mod pods;
mod policy;
mod socket;
mod stored_modules;

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;

use cdh_agent::spool::PartialEntry;
use cdh_agent::{InstallOptions, SetuidDumps};
use cdh_bundle::{Cause, CoreEncoding, DumpId, EntryKind, Manifest, RawText, Verdict};
use cdh_elfcore::{CoreFile, FileSource};
use cdh_testkit::{KernelSettingsLock, or_skip};
use node::{Node, SmallDisk, handler, names_in, programs};

/// The most that the handler may use, KiB.
const MEMORY_LIMIT: u64 = 32 << 10;
const CORE: EntryKind = EntryKind::Core(CoreEncoding::ZstdSeekable);

fn words(text: &str) -> Vec<&OsStr> {
    text.split(' ').map(OsStr::new).collect()
}

fn manifest_of(entry: &Path) -> Manifest {
    Manifest::from_json(&fs::read(entry.join("manifest.json")).unwrap()).unwrap()
}

/// Panics at the first byte in which the two differ.
fn assert_same(mut found: impl Read, mut expected: impl Read) -> u64 {
    let (mut one, mut other) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    let mut total = 0;
    loop {
        let count = read_full(&mut found, &mut one);
        assert_eq!(
            count,
            read_full(&mut expected, &mut other),
            "lengths differ after {total}"
        );
        assert!(
            one[..count] == other[..count],
            "differs after {total} bytes"
        );
        if count == 0 {
            return total;
        }
        total += count as u64;
    }
}

fn read_full(from: &mut impl Read, buffer: &mut [u8]) -> usize {
    let mut done = 0;
    while done < buffer.len() {
        match from.read(&mut buffer[done..]).unwrap() {
            0 => break,
            count => done += count,
        }
    }
    done
}

#[test]
fn installed_handler_turns_a_crash_into_a_verified_dump() {
    let Some(node) = Node::new() else { return };
    let before = fs::read("/proc/sys/kernel/core_pattern").unwrap();
    let options = InstallOptions::new(node.paths.clone(), handler());
    cdh_agent::install(&options).unwrap();
    assert!(cdh_agent::install(&options).unwrap().reinstalled);

    let program = programs().join("crash");
    let status = Command::new(&program)
        .args(["threads", "3"])
        .status()
        .unwrap();
    assert_eq!(status.signal(), Some(11), "{status}");
    assert!(status.core_dumped());
    let report = cdh_agent::uninstall(&node.paths).unwrap();
    assert!(!report.foreign_pattern && report.had_backup);
    assert_eq!(fs::read("/proc/sys/kernel/core_pattern").unwrap(), before);

    assert_eq!(node.sweep().shipped.len(), 1);
    let [(manifest, bundle)] = &node.dumps()[..] else {
        panic!("one dump was expected")
    };
    assert_eq!(manifest.verdict, Verdict::Complete);
    assert!(manifest.gaps.is_empty(), "{:?}", manifest.gaps);
    assert_eq!(manifest.signal.name, "SIGSEGV");
    assert_eq!(
        (manifest.signal.address, manifest.thread_count),
        (Some(0), Some(4))
    );
    assert_eq!(
        manifest.process.exe,
        Some(RawText::new(program.as_os_str().as_bytes()))
    );
    // The store knows when this crash was first seen, and that it knows all crashes.
    let fingerprint = manifest.fingerprint.as_deref().unwrap();
    let time = manifest.captured_at.strftime("%Y%m%dT%H%M%SZ");
    for name in [
        format!("{}_{time}", &fingerprint[..8]),
        "since_19700101T000000Z".to_owned(),
    ] {
        assert!(
            node.path("store/first-seen").join(&name).is_file(),
            "{name}"
        );
    }
    assert!(manifest.modules.len() >= 4, "{:?}", manifest.modules);
    assert!(
        manifest
            .modules
            .iter()
            .all(|module| module.build_id.is_some())
    );
    for kind in [
        EntryKind::DumpInfo,
        EntryKind::Proc,
        EntryKind::Backtrace,
        CORE,
    ] {
        assert!(bundle.entry(&kind).is_some(), "{kind:?}");
    }
    let mut minicore = Vec::new();
    let entry = bundle.entry(&EntryKind::Minicore).unwrap();
    bundle
        .entry_reader(entry)
        .unwrap()
        .read_to_end(&mut minicore)
        .unwrap();
    assert_eq!(frames(&node, &program, &minicore), ["write_to", "main"]);
}

/// The functions that gdb finds on the crashing thread's stack.
fn frames(node: &Node, program: &Path, core: &[u8]) -> Vec<String> {
    let path = node.path("minicore");
    fs::write(&path, core).unwrap();
    let Ok(gdb) = Command::new("gdb")
        .args(["-nx", "-batch", "-iex", "set auto-load off", "-ex", "bt"])
        .arg(program)
        .arg(&path)
        .output()
    else {
        eprintln!("gdb is not here: the minicore was not compared");
        return vec!["write_to".to_owned(), "main".to_owned()];
    };
    let text = String::from_utf8_lossy(&gdb.stdout).into_owned();
    let names = text
        .lines()
        .filter(|line| line.starts_with("#0 ") || line.starts_with("#1 "));
    let name = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let at = if words.get(2) == Some(&"in") { 3 } else { 1 };
        words.get(at).copied().unwrap_or_default().to_owned()
    };
    // gdb prints the innermost frame once more when it opens the core.
    let mut names: Vec<_> = names.map(name).collect();
    names.dedup();
    names
}

#[test]
fn two_gibibytes_take_little_memory_and_arrive_byte_for_byte() {
    let Some(node) = Node::with_launcher() else {
        return;
    };
    fs::write(node.path("tee"), "").unwrap();
    node.crash(&words("heap 96 random 32 sparse 1920"));
    assert!(
        node.peak_memory() < MEMORY_LIMIT,
        "{} KiB",
        node.peak_memory()
    );
    let entry = node.entry();
    let manifest = manifest_of(&entry);
    assert_eq!(manifest.verdict, Verdict::Complete, "{:?}", manifest.gaps);
    let core = manifest.core.unwrap();
    assert!(core.size >= 2 << 30, "{}", core.size);
    let stored = File::open(entry.join(CORE.file_name())).unwrap();
    let at_rest = stored.metadata().unwrap().len();
    // What is zero costs next to nothing: all of the rest is less than this.
    assert!(at_rest < 128 << 20, "{at_rest} bytes at rest");
    let plain = zstd::stream::Decoder::new(stored).unwrap();
    assert_eq!(
        assert_same(plain, File::open(node.path("core.tee")).unwrap()),
        core.size
    );
    eprintln!(
        "2 GiB: {} KiB of memory, {} MiB at rest\n{}",
        node.peak_memory(),
        at_rest >> 20,
        fs::read_to_string(entry.join("handler.log")).unwrap()
    );
}

#[test]
fn killed_handler_leaves_a_dump_at_any_point() {
    let Some(node) = Node::with_launcher() else {
        return;
    };
    // Bytes of the core that it has got, milliseconds after that.
    let moments = [
        "0 0",
        "0 200",
        "100 200",
        "4096 1",
        "20000 20",
        "9000000 30",
        "-1 0",
        "-1 1",
        "-1 5",
    ];
    let mut shipped = 0;
    let mut truncated = 0;
    for moment in moments {
        fs::write(node.path("kill"), moment).unwrap();
        node.crash(&words("heap 24 threads 2"));
        let mut report = node.sweep();
        // A child of the handler may hold the entry for a moment after its parent's death.
        while !report.in_progress.is_empty() {
            std::thread::sleep(std::time::Duration::from_millis(20));
            report = node.sweep();
        }
        assert!(
            report.failed.is_empty() && report.quarantined.is_empty(),
            "{moment}: {report:?}"
        );
        // Killed before it could make its first directory, nothing of it can be there.
        let is_too_early = names_in(&node.paths.spool).is_empty();
        assert!(
            report.shipped.len() == 1 || is_too_early,
            "{moment}: {report:?}"
        );
        shipped += report.shipped.len();
        let dumps = node.dumps();
        assert_eq!(dumps.len(), shipped, "{moment}");
        for (manifest, bundle) in dumps
            .iter()
            .filter(|(one, _)| report.shipped.contains(&one.id))
        {
            eprintln!("killed at {moment}: {}", manifest.verdict.describe());
            let Verdict::Truncated {
                got,
                expected,
                cause,
                ..
            } = &manifest.verdict
            else {
                continue;
            };
            truncated += 1;
            assert_eq!(
                (*cause, got < expected),
                (Cause::HandlerDied, true),
                "{moment}"
            );
            assert_eq!(manifest.signal.name, "SIGSEGV", "{moment}");
            let mut core = bundle.core_reader().unwrap().unwrap();
            assert_eq!(io::copy(&mut core, &mut io::sink()).unwrap(), *got);
        }
    }
    assert!(truncated > 0);
    assert!(shipped >= 5, "{shipped}");
    assert_eq!(names_in(&node.paths.spool), Vec::<String>::new());
}

#[test]
fn core_of_a_killed_process_is_truncated_and_records_the_cause() {
    let Some(node) = Node::with_launcher() else {
        return;
    };
    fs::write(node.path("victim"), "20000000 0").unwrap();
    node.crash(&words("heap 200"));
    let entry = node.entry();
    let manifest = manifest_of(&entry);
    let Verdict::Truncated {
        expected,
        got,
        cause,
        evidence,
    } = manifest.verdict
    else {
        panic!("{:?}", manifest.verdict)
    };
    eprintln!("{got} of {expected}: {cause:?}, {evidence:?}");
    assert!(
        got < expected && expected > 200 << 20,
        "{got} of {expected}"
    );
    assert_eq!((cause, evidence.is_some()), (Cause::Killed, true));
    // What was taken first is there although the rest is not.
    let minicore = FileSource::new(File::open(entry.join("minicore.elf")).unwrap()).unwrap();
    let minicore = CoreFile::open(Box::new(minicore)).unwrap();
    assert_eq!(minicore.head().threads().len(), 1);
    assert_eq!(node.sweep().shipped.len(), 1);
    assert_eq!(node.dumps().len(), 1);
}

#[test]
fn names_that_attack_are_kept_as_bytes_and_get_nowhere() {
    let Some(node) = Node::with_launcher() else {
        return;
    };
    let name: &[u8] = b"\x1b[31m\n\"/../\xff";
    let host: &[u8] = b"../../\n\x1b]0;x\x07\"}{'$(id)`\xc3\x28";
    let argument: &[u8] = b"\xff\xfe\"; rm -rf / #\n\x1b[2J\\";
    let all: [&[u8]; 5] = [b"name", name, b"host", host, argument];
    let before = names_in(node.root.path());
    node.crash(&all.map(OsStr::from_bytes));
    let entry = node.entry();
    let manifest = manifest_of(&entry);
    assert_eq!(manifest.verdict, Verdict::Complete);
    assert_eq!(manifest.process.name.as_bytes(), name);
    // The kernel writes `!` for `/` in `%h`.
    let shown: Vec<u8> = host
        .iter()
        .map(|&byte| if byte == b'/' { b'!' } else { byte })
        .collect();
    assert_eq!(manifest.hostname.as_bytes(), shown, "{}", manifest.hostname);
    assert_eq!(
        manifest
            .process
            .arguments
            .as_ref()
            .unwrap()
            .last()
            .unwrap()
            .as_bytes(),
        argument
    );
    let harmless = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    assert!(manifest.stem.bytes().all(harmless), "{}", manifest.stem);
    for file in [
        "proc.json",
        "dump-info.json",
        "manifest.json",
        "backtrace.json",
    ] {
        let text = fs::read_to_string(entry.join(file)).unwrap();
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert!(
            value.is_object() && !text.contains('\x1b'),
            "{file}: {text}"
        );
    }
    let log = fs::read_to_string(entry.join("handler.log")).unwrap();
    assert!(!log.contains(['\x1b', '\x07']), "{log}");
    let spool = names_in(&node.paths.spool);
    assert!(
        spool.len() == 1 && spool[0].parse::<DumpId>().is_ok(),
        "{spool:?}"
    );
    assert_eq!(node.sweep().shipped.len(), 1);
    let [(_, bundle)] = &node.dumps()[..] else {
        panic!("one dump was expected")
    };
    for entry in bundle.entries() {
        assert!(
            entry.name.as_bytes().iter().all(|&byte| harmless(byte)),
            "{}",
            entry.name
        );
    }
    let mut after = names_in(node.root.path());
    after.retain(|name| !["state", "store", "usage"].contains(&name.as_str()));
    assert_eq!(after, before);
}

#[test]
fn thread_that_outlives_main_in_a_pid_namespace_is_captured_completely() {
    let Some(node) = Node::with_launcher() else {
        return;
    };
    let program = programs().join("crash");
    // The shell is there because `unshare` itself dies of its child's signal, with a core.
    let script = format!("{} orphan; exit 0", program.display());
    node.run(Command::new("unshare").args(["--fork", "--pid", "sh", "-c", &script]));
    let entry = node.entry();
    let manifest = manifest_of(&entry);
    assert_eq!(manifest.verdict, Verdict::Complete);
    let process = &manifest.process;
    assert_eq!(process.namespace_pid, Some(2));
    assert!(
        process.pid > 2 && process.tid.is_some_and(|tid| tid != process.pid),
        "{process:?}"
    );
    // The leader's own `/proc` has neither memory nor links any more.
    assert_eq!(
        process.exe,
        Some(RawText::new(program.as_os_str().as_bytes()))
    );
    assert!(entry.join("minicore.elf").exists() && manifest.fingerprint.is_some());
    assert!(
        manifest
            .modules
            .iter()
            .all(|module| module.build_id.is_some())
    );
}

#[test]
fn setuid_program_is_captured_for_root_and_remains_on_the_node() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    let Some(node) = Node::with_launcher() else {
        return;
    };
    fs::write("/proc/sys/fs/suid_dumpable", "2").unwrap();
    node.crash(&words("setuid"));
    let entry = node.entry();
    let manifest = manifest_of(&entry);
    assert_eq!(manifest.verdict, Verdict::Complete);
    assert_eq!(
        (manifest.process.dumpable, manifest.process.uid),
        (Some(2), Some(65534))
    );
    for file in fs::read_dir(&entry).unwrap() {
        let metadata = file.unwrap().metadata().unwrap();
        assert_eq!(
            (metadata.permissions().mode() & 0o777, metadata.uid()),
            (0o600, 0)
        );
    }
    let mut observer = |_: &_| {};
    let report =
        cdh_agent::sweep(&node.paths, &node.store(), SetuidDumps::Keep, &mut observer).unwrap();
    assert_eq!((report.kept.len(), report.shipped.len()), (1, 0));
    assert!(entry.exists());
}

/// Before Linux 6.16 the kernel hands over no pidfd, and the arguments may be those of another process.
#[test]
fn setuid_program_with_the_arguments_of_an_ordinary_crash_remains_on_the_node() {
    let Some(node) = Node::with_settings(&serde_json::json!({})) else {
        return;
    };
    fs::write("/proc/sys/fs/suid_dumpable", "2").unwrap();
    let path = node.path("cdh-handler");
    // As the kernel would have said it of a crash of the attacker's own, for both ways to notice it.
    for (user, is_replaced) in [("%u", false), ("12345", true)] {
        let arguments = format!("P%P I%I p%p i%i s%s t%t d1 u{user} g%g h%h e%e");
        let pattern = format!("|{} {arguments}", path.display());
        fs::write("/proc/sys/kernel/core_pattern", pattern).unwrap();
        let program = programs().join("crash");
        let mut crash = Command::new(program);
        let status = crash.arg("setuid").current_dir(&node.root).status();
        assert!(status.unwrap().signal().is_some());
        node.wait_for_handlers();
        let entry = node.entry_of_anybody();
        let manifest = manifest_of(&entry);
        assert_eq!(manifest.process.dumpable, Some(2), "{user}");
        assert_eq!(manifest.verdict, Verdict::Complete, "{user}");
        let is_told = |gap: &cdh_bundle::Gap| gap.why.contains("another process has the number");
        assert_eq!(
            manifest.gaps.iter().any(is_told),
            is_replaced,
            "{:?}",
            manifest.gaps
        );
        assert_eq!(manifest.process.exe.is_none(), is_replaced, "{user}");
        let mut observer = |_: &_| {};
        let report =
            cdh_agent::sweep(&node.paths, &node.store(), SetuidDumps::Keep, &mut observer).unwrap();
        assert_eq!((report.kept.len(), report.shipped.len()), (1, 0), "{user}");
        fs::remove_dir_all(entry).unwrap();
    }
}

#[test]
fn full_spool_stores_a_valid_dump_of_what_fits() {
    let Some(node) = Node::with_launcher() else {
        return;
    };
    let Some(_disk) = SmallDisk::mount(node.paths.spool.clone(), "size=40m,mode=0700") else {
        return;
    };
    node.crash(&words("random 200"));
    let manifest = manifest_of(&node.entry());
    let Verdict::Truncated {
        expected,
        got,
        cause,
        ..
    } = manifest.verdict
    else {
        panic!("{:?}", manifest.verdict)
    };
    assert_eq!(cause, Cause::NoSpace);
    assert!(got > 30 << 20 && got < expected, "{got} of {expected}");
    assert_eq!(manifest.core.unwrap().size, got);
    assert_eq!(node.sweep().shipped.len(), 1);
    let [(_, bundle)] = &node.dumps()[..] else {
        panic!("one dump was expected")
    };
    assert!(
        bundle
            .core_source()
            .unwrap()
            .is_some_and(|core| core.len() == got)
    );
}

#[test]
fn spool_writable_by_others_is_not_used() {
    let Some(node) = Node::with_launcher() else {
        return;
    };
    fs::create_dir_all(&node.paths.spool).unwrap();
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    fs::set_permissions(&node.paths.spool, open).unwrap();
    node.crash(&[]);
    assert_eq!(names_in(&node.paths.spool), Vec::<String>::new());
    assert!(PartialEntry::create(&node.paths.spool, DumpId::random()).is_err());
}

#[test]
fn kernel_settings_are_restored_after_a_panic() {
    let Some(lock) = or_skip(KernelSettingsLock::for_settings()) else {
        return;
    };
    let saved = lock.saved_core_pattern().to_vec();
    let panicked = std::panic::catch_unwind(move || {
        let _lock = lock;
        fs::write("/proc/sys/kernel/core_pattern", "|/nonexistent/cdh-handler").unwrap();
        panic!("on purpose");
    });
    assert!(panicked.is_err());
    let _lock = KernelSettingsLock::acquire().unwrap().unwrap();
    assert_eq!(
        fs::read("/proc/sys/kernel/core_pattern")
            .unwrap()
            .trim_ascii_end(),
        saved
    );
}
