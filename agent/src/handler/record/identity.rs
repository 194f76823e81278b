//! The first manifest of a dump: what is known before a byte of the core was read.
//!
//! It is written to the entry at once, reads as if the handler had died on the spot, and is filled
//! in by the steps that follow.

use cdh_bundle::{
    Cause, CoreEncoding, CoreRecord, DEFAULT_STEM, DumpId, EntryKind, Manifest, ModuleRecord,
    ProcessFacts, RawText, SignalFacts, Verdict, render_stem,
};
use cdh_elfcore::{CoreHead, ModuleKind, SignalInfo};
use jiff::Timestamp;

use crate::handler::os::proc_status::started_at;
use crate::handler::process::death::Death;
use crate::handler::process::handles::ProcessHandles;
use crate::handler::startup::arguments::HandlerArguments;

/// When the process crashed: the kernel's second (`%t`), with the nanoseconds of our own start, which put dumps
/// of one second in order. A start in a later second counts as the end of the kernel's.
fn captured_at(kernel: Option<i64>, now: Timestamp) -> Timestamp {
    let second = kernel.and_then(|second| Timestamp::from_second(second).ok());
    match second {
        Some(second) if now.as_second() > second.as_second() => {
            let rest = jiff::SignedDuration::from_nanos(999_999_999);
            second.checked_add(rest).unwrap_or(second)
        }
        Some(second) if now < second => second,
        _ => now,
    }
}

/// What is known so far, as a manifest.
#[must_use]
pub(crate) fn first_manifest(
    id: DumpId,
    arguments: &HandlerArguments,
    process: Option<&ProcessHandles>,
) -> Manifest {
    let captured_at = captured_at(arguments.time, Timestamp::now());
    let node = RawText::new(rustix::system::uname().nodename().to_bytes().to_vec());
    // `%e` is the name of the thread; dumps are looked for by the name of the process.
    let name = process
        .and_then(ProcessHandles::leader_name)
        .unwrap_or_else(|| arguments.name.clone());
    let signal = SignalInfo::from_number(arguments.signal.unwrap_or(0));
    let pid = arguments
        .pid
        .or(arguments.namespace_pid)
        .map_or(0, u64::from);
    // Until more is known.
    let verdict = Verdict::Empty {
        cause: Cause::HandlerDied,
        evidence: None,
    };
    let mut manifest = Manifest {
        node,
        hostname: arguments.hostname.clone(),
        process: ProcessFacts {
            pid,
            namespace_pid: arguments.namespace_pid.map(u64::from),
            tid: arguments.tid.map(u64::from),
            name,
            exe: process.and_then(|process| process.read_link("exe").ok()),
            arguments: None,
            uid: arguments.uid,
            gid: arguments.gid,
            started_at: process
                .and_then(ProcessHandles::start_ticks)
                .and_then(started_at),
            dumpable: arguments.dumpable,
        },
        signal: SignalFacts::from(&signal),
        original_signal: None,
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        ..Manifest::new(id, captured_at, verdict)
    };
    rename(&mut manifest);
    manifest
}

/// Adds what a whole head of a core says.
pub(crate) fn add_head(manifest: &mut Manifest, head: &CoreHead) {
    add_facts_of_notes(manifest, head);
    manifest.thread_count = Some(head.threads().len() as u64);
    let encoding = CoreEncoding::ZstdSeekable;
    manifest.core = Some(core_record(
        &manifest.stem,
        encoding,
        0,
        head.expected_len(),
    ));
}

/// Adds machine, signal and process: also of a head whose notes are cut, so that not all threads are
/// there.
pub(crate) fn add_facts_of_notes(manifest: &mut Manifest, head: &CoreHead) {
    manifest.machine = head.machine().to_string();
    if let Some(signal) = head.signal() {
        manifest.signal = SignalFacts::from(&signal);
    }
    if let Some(process) = head.process() {
        if manifest.process.name.is_empty() {
            manifest.process.name = RawText::new(process.name.clone());
        }
        manifest.process.uid.get_or_insert(process.uid);
        manifest.process.gid.get_or_insert(process.gid);
    }
    rename(manifest);
}

/// Renders the stem again once more is known: through the socket, the signal comes after the first manifest. The
/// files of an entry get their names from the stem when the entry is sealed.
fn rename(manifest: &mut Manifest) {
    manifest.stem = render_stem(DEFAULT_STEM, manifest);
    if let Some(core) = &mut manifest.core {
        core.entry = EntryKind::Core(core.encoding).bundle_name(&manifest.stem);
    }
}

/// Adds the signal of a process without a head, through the socket: there is no other source there.
pub(crate) fn name_signal(manifest: &mut Manifest, death: &Death) {
    /// In the status of `wait(2)`: a core was dumped.
    const DUMPED: i32 = 0x80;
    let code = death.exit_code.filter(|code| code & DUMPED != 0);
    if let (0, Some(code)) = (manifest.signal.number, code) {
        manifest.signal = SignalFacts::from(&SignalInfo::from_number(code & 0x7f));
        rename(manifest);
    }
}

/// The record of the core in the manifest, without a checksum.
#[must_use]
pub(crate) fn core_record(
    stem: &str,
    encoding: CoreEncoding,
    size: u64,
    expected: u64,
) -> CoreRecord {
    CoreRecord {
        entry: EntryKind::Core(encoding).bundle_name(stem),
        encoding,
        size,
        expected,
        sha256: None,
    }
}

/// The program that the dynamic loader was started with (`ld.so prog`), if `exe` is the loader's path.
pub(crate) fn program_of_loader(
    modules: &[ModuleRecord],
    exe: Option<&RawText>,
) -> Option<RawText> {
    let first = |kind| modules.iter().find(|module| module.kind == kind);
    let loader = first(ModuleKind::Loader)?;
    let program = first(ModuleKind::Executable)?;
    (exe == Some(&loader.path)).then(|| program.path.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_names_leave_nothing_harmful_in_the_stem() {
        let arguments = HandlerArguments {
            hostname: RawText::from("../../etc\n"),
            name: RawText::new(b"\x1b[31m\"; rm -rf /\xff".to_vec()),
            time: Some(1_700_000_000),
            pid: Some(7),
            signal: Some(11),
            ..HandlerArguments::default()
        };
        let id = DumpId::random();
        let manifest = first_manifest(id, &arguments, None);
        assert_eq!(
            manifest.stem,
            format!("{id}-dump-1700000000-.._.._etc_-__31m___rm_-rf___-7-11")
        );
        assert_eq!(manifest.process.name, arguments.name);
        assert_eq!(manifest.signal.name, "SIGSEGV");
    }

    /// An x86_64 core whose only segment is a note: `NT_PRSTATUS` of a thread that got SIGSEGV, which ends
    /// at byte 476, then `NT_SIGINFO`.
    fn core_of_two_notes() -> Vec<u8> {
        let mut bytes = vec![0_u8; 120];
        bytes[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
        bytes[16..20].copy_from_slice(&[4, 0, 62, 0]); // ET_CORE, EM_X86_64
        bytes[32] = 64; // e_phoff
        bytes[52..58].copy_from_slice(&[64, 0, 56, 0, 1, 0]); // e_ehsize, e_phentsize, e_phnum
        bytes[64] = 4; // PT_NOTE
        bytes[72] = 120; // p_offset
        let note = |kind: u32, contents: &[u8]| {
            let mut note = Vec::new();
            for word in [5, contents.len() as u32, kind] {
                note.extend(word.to_le_bytes());
            }
            note.extend(b"CORE\0\0\0\0");
            note.extend(contents);
            note
        };
        let mut status = vec![0; 336];
        status[12] = 11; // pr_cursig
        let mut notes = note(1, &status);
        notes.extend(note(0x5349_4749, &[11; 128]));
        bytes[96..104].copy_from_slice(&(notes.len() as u64).to_le_bytes());
        bytes.extend(notes);
        bytes
    }

    #[test]
    fn signal_is_read_from_notes_that_were_cut() {
        let core = core_of_two_notes();
        for (len, number) in [
            (120, 0),
            (475, 0),
            (476, 11),
            (496, 11),
            (core.len() - 1, 11),
        ] {
            let begun = core[..len].to_vec();
            assert!(CoreHead::from_reader(&mut &begun[..]).is_err());
            let mut manifest =
                Manifest::new(DumpId::random(), Timestamp::UNIX_EPOCH, Verdict::Complete);
            let cut = CoreHead::from_source(&begun).unwrap();
            add_facts_of_notes(&mut manifest, &cut);
            assert_eq!(manifest.signal.number, number, "{len} bytes");
            let end = format!("-{number}");
            assert!(manifest.stem.ends_with(&end), "{}", manifest.stem);
            assert_eq!(manifest.machine, "x86_64");
            assert_eq!(manifest.thread_count, None);
        }
    }

    #[test]
    fn signal_that_is_known_late_is_in_stem_and_core_entry() {
        // As through the socket: the kernel's arguments are missing.
        let mut manifest = first_manifest(DumpId::random(), &HandlerArguments::default(), None);
        assert!(manifest.stem.ends_with("-0"), "{}", manifest.stem);
        let encoding = CoreEncoding::ZstdSeekable;
        manifest.core = Some(core_record(&manifest.stem, encoding, 0, 0));
        let death = Death {
            exit_code: Some(0x80 | 6),
            ..Death::default()
        };
        name_signal(&mut manifest, &death);
        assert_eq!(manifest.signal.name, "SIGABRT");
        assert!(manifest.stem.ends_with("-6"), "{}", manifest.stem);
        let core = manifest.core.unwrap();
        assert_eq!(core.entry, format!("{}.core.zst", manifest.stem));
        let (key, _) = cdh_store::ObjectKey::for_manifest(&Manifest {
            core: None,
            ..manifest
        });
        assert!(key.as_str().contains("_SIGABRT_"), "{key}");
    }

    #[test]
    fn capture_time_keeps_the_kernels_second_and_orders_crashes_within_it() {
        let time = |text: &str| text.parse::<Timestamp>().unwrap();
        let second = time("2026-01-31T12:00:05Z");
        for (now, expected) in [
            ("2026-01-31T12:00:05.25Z", "2026-01-31T12:00:05.25Z"),
            ("2026-01-31T12:00:06.001Z", "2026-01-31T12:00:05.999999999Z"),
            ("2026-01-31T12:00:04.9Z", "2026-01-31T12:00:05Z"),
        ] {
            let found = captured_at(Some(second.as_second()), time(now));
            assert_eq!(found, time(expected), "{now}");
        }
        let now = time("2026-01-31T12:00:05.25Z");
        assert_eq!(captured_at(None, now), now);
        assert_eq!(captured_at(Some(i64::MAX), now), now);
    }

    #[test]
    fn program_of_the_loader_is_named_only_where_the_loader_was_started() {
        let module = |path: &str, kind| ModuleRecord {
            path: RawText::from(path),
            build_id: None,
            sha256: None,
            start: 0,
            end: 0,
            kind,
        };
        let modules = [
            module("/lib/libc.so.6", ModuleKind::Library),
            module("/app/prog", ModuleKind::Executable),
            module("/lib/ld.so", ModuleKind::Loader),
        ];
        let named = |exe: &str| program_of_loader(&modules, Some(&RawText::from(exe)));
        assert_eq!(named("/lib/ld.so"), Some(RawText::from("/app/prog")));
        assert_eq!(named("/app/prog"), None);
        let unloaded = &modules[..2];
        assert_eq!(
            program_of_loader(unloaded, Some(&RawText::from("/app/prog"))),
            None
        );
        assert_eq!(program_of_loader(&[], None), None);
    }
}
