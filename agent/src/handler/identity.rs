//! The first manifest of a dump: what is known before a byte of the core was read.
//!
//! It is written to the entry at once, reads as if the handler had died on the spot, and is filled
//! in by the steps that follow.

use std::path::Path;

use cdh_bundle::{
    Cause, CoreEncoding, CoreRecord, DumpId, EntryKind, Manifest, ProcessFacts, RawText,
    SignalFacts, Verdict,
};
use cdh_elfcore::{CoreHead, SignalInfo};
use jiff::Timestamp;

use super::arguments::HandlerArguments;
use super::process::ProcessHandles;

/// Longest part of a stem made from a name, bytes.
const STEM_PART: usize = 48;

/// What was told and seen so far, as a manifest.
#[must_use]
pub fn first_manifest(
    id: DumpId,
    arguments: &HandlerArguments,
    process: Option<&ProcessHandles>,
) -> Manifest {
    let now = Timestamp::now();
    let captured_at =
        arguments.time.and_then(|seconds| Timestamp::from_second(seconds).ok()).unwrap_or(now);
    let node = RawText::new(rustix::system::uname().nodename().to_bytes().to_vec());
    // `%e` is the name of the thread; dumps are looked for by the name of the process.
    let name = process
        .and_then(ProcessHandles::leader_name)
        .unwrap_or_else(|| arguments.name.clone());
    let signal = SignalInfo::from_number(arguments.signal.unwrap_or(0));
    let pid = arguments.pid.or(arguments.namespace_pid).map_or(0, u64::from);
    Manifest {
        schema: 1,
        id,
        stem: stem(id, captured_at, &arguments.hostname, &name, pid, signal.number),
        captured_at,
        finished_at: None,
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
            started_at: process.and_then(ProcessHandles::start_ticks).and_then(started_at),
            dumpable: arguments.dumpable,
        },
        signal: signal_facts(&signal, None),
        machine: String::new(),
        verdict: Verdict::Empty { cause: Cause::HandlerDied, evidence: None },
        core: None,
        workload: None,
        image: None,
        modules: Vec::new(),
        fingerprint: None,
        thread_count: None,
        entries: Vec::new(),
        gaps: Vec::new(),
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
    }
}

/// Adds what the head of the core tells.
pub fn add_head(manifest: &mut Manifest, head: &CoreHead) {
    manifest.machine = head.machine().to_string();
    manifest.thread_count = Some(head.threads().len() as u64);
    if let Some(signal) = head.signal() {
        manifest.signal = signal_facts(&signal, Some(signal.code));
    }
    if let Some(process) = head.process() {
        if manifest.process.name.is_empty() {
            manifest.process.name = RawText::new(process.name.clone());
        }
        manifest.process.uid.get_or_insert(process.uid);
        manifest.process.gid.get_or_insert(process.gid);
    }
    manifest.core = Some(core_record(&manifest.stem, 0, head.expected_len()));
}

/// The record of the core in the manifest, without a checksum.
#[must_use]
pub fn core_record(stem: &str, size: u64, expected: u64) -> CoreRecord {
    let encoding = CoreEncoding::ZstdSeekable;
    CoreRecord {
        entry: EntryKind::Core(encoding).bundle_name(stem),
        encoding,
        size,
        expected,
        sha256: None,
    }
}

fn signal_facts(signal: &SignalInfo, code: Option<i32>) -> SignalFacts {
    SignalFacts {
        number: signal.number,
        name: signal.name(),
        code,
        address: signal.address.map(|address| address.0),
        description: signal.describe(),
    }
}

/// `{uuid}-dump-{timestamp}-{hostname}-{exe_name}-{pid}-{signal}`, as IBM's default template. Of
/// the names only harmless bytes are taken; what they really are stands in the manifest.
fn stem(
    id: DumpId,
    captured_at: Timestamp,
    hostname: &RawText,
    name: &RawText,
    pid: u64,
    signal: i32,
) -> String {
    let part = |text: &RawText| -> String {
        let harmless = |&byte: &u8| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'_' | b'-' => char::from(byte),
            _ => '_',
        };
        text.as_bytes().iter().take(STEM_PART).map(harmless).collect()
    };
    let (hostname, name) = (part(hostname), part(name));
    format!("{id}-dump-{}-{hostname}-{name}-{pid}-{signal}", captured_at.as_second())
}

/// When a process began that began `ticks` after the boot.
fn started_at(ticks: u64) -> Option<Timestamp> {
    let stat = std::fs::read_to_string(Path::new("/proc/stat")).ok()?;
    let boot = stat.lines().find_map(|line| line.strip_prefix("btime "))?;
    let boot: i64 = boot.trim().parse().ok()?;
    let per_second = rustix::param::clock_ticks_per_second();
    let seconds = i64::try_from(ticks.checked_div(per_second)?).ok()?;
    Timestamp::from_second(boot.checked_add(seconds)?).ok()
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

    #[test]
    fn this_process_began_before_now() {
        let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
        let ticks = stat.rsplit(')').next().unwrap().split_whitespace().nth(19).unwrap();
        let began = started_at(ticks.parse().unwrap()).unwrap();
        let age = Timestamp::now().as_second() - began.as_second();
        assert!((-1..86_400).contains(&age), "{age}");
    }
}
