//! Builds a manifest for a bundle that has none: one of IBM's zips, or a truncated one.

use std::io::Read;

use cdh_elfcore::{CoreHead, SignalInfo};
use jiff::Timestamp;

use super::{BundleEntry, BundleReader, consistency};
use crate::legacy::{self, LegacyName};
use crate::{
    Cause, CoreEncoding, CoreRecord, DumpId, EntryKind, Gap, Manifest, ProcFile, ProcessFacts,
    RawText, Sha256, SignalFacts, Verdict,
};

/// Maximum size of IBM's JSON files, in bytes.
const LARGEST_INFO: u64 = 16 << 20;

/// Maximum bytes read from the start of a core: 65 535 program headers and the file header.
const LONGEST_HEAD: u64 = 4 << 20;
/// Maximum bytes read of a core's notes: a thread has some kilobytes, and the crashing thread comes
/// first.
const LONGEST_NOTES: u64 = 1 << 20;
/// `p_type` of notes (`elf.h`).
const PT_NOTE: u32 = 4;

pub(super) fn of(bundle: &BundleReader) -> Manifest {
    let info = bundle.legacy.clone().unwrap_or_default();
    let name = LegacyName::parse(&bundle.stem);
    let stem_id = || DumpId::from_digest(&Sha256::of(bundle.stem.as_bytes()));
    let id = info
        .id()
        .or(name.as_ref().map(|name| name.id))
        .unwrap_or_else(stem_id);
    let raw = |text: &Option<String>| text.as_deref().map(RawText::from);
    let named = |get: fn(&LegacyName) -> &str| name.as_ref().map(|name| RawText::from(get(name)));
    let number = info
        .signal
        .as_deref()
        .and_then(|signal| signal.parse().ok());
    let number = number
        .or(name.as_ref().map(|name| name.signal))
        .unwrap_or_default();
    let json = |kind| bundle.small_entry(&kind, LARGEST_INFO).unwrap_or_default();
    let mut workload = legacy::workload(&json(EntryKind::PodInfo)).unwrap_or_default();
    workload.namespace = workload.namespace.or(info.namespace.clone());
    workload.pod = workload.pod.or(info.podname.clone());
    workload.node = info.node_hostname.clone();
    let mut image = legacy::container(&json(EntryKind::PsInfo), &mut workload);
    if let Some(image) = &mut image {
        legacy::add_tags(&json(EntryKind::ImageInfo(0)), image);
    }
    let start = bundle.core_reader().ok().flatten().map(CoreStart::read);
    let (core, verdict) = core_and_verdict(bundle, start.as_ref());
    // IBM's agent records only the number; code and address are in the core.
    let in_core = start.and_then(CoreStart::signal);
    let signal = match in_core.filter(|found| number == 0 || found.number == number) {
        Some(found) => found,
        None => SignalInfo::from_number(number),
    };
    let mut gaps = vec![Gap {
        what: "manifest".to_owned(),
        why: "written by another agent, or cut".to_owned(),
    }];
    gaps.extend(bundle.salvaged.clone().map(|why| Gap {
        what: "bundle".to_owned(),
        why,
    }));
    let pid = info.real_pid.as_deref().and_then(|pid| pid.parse().ok());
    let captured_at = info
        .captured_at()
        .or(name.as_ref().map(|name| name.captured_at))
        .unwrap_or(Timestamp::UNIX_EPOCH);
    Manifest {
        stem: match crate::is_safe_stem(&bundle.stem) {
            true => bundle.stem.clone(),
            false => id.to_string(),
        },
        node: raw(&info.node_hostname).unwrap_or_default(),
        hostname: raw(&info.hostname)
            .or(named(|name| &name.hostname))
            .unwrap_or_default(),
        process: ProcessFacts {
            // IBM's "real_pid" is `%p`: the pid in the container. No other pid is known.
            pid: pid
                .or(name.as_ref().map(|name| name.pid))
                .unwrap_or_default(),
            name: raw(&info.exe)
                .or(named(|name| &name.exe))
                .unwrap_or_default(),
            exe: raw(&info.exe_path()),
            arguments: arguments(bundle),
            ..ProcessFacts::default()
        },
        signal: SignalFacts::from(&signal),
        original_signal: None,
        core,
        image,
        workload: (workload != crate::Workload::default()).then_some(workload),
        gaps,
        ..Manifest::new(id, captured_at, verdict)
    }
}

/// The command line, as IBM's agent copied it from `/proc`.
fn arguments(bundle: &BundleReader) -> Option<Vec<RawText>> {
    let kind = EntryKind::ProcFile(ProcFile::named("cmdline")?);
    let bytes = bundle.small_entry(&kind, LARGEST_INFO).ok()?;
    let words = bytes.strip_suffix(b"\0").unwrap_or(&bytes);
    Some(words.split(|byte| *byte == 0).map(RawText::from).collect())
}

fn core_and_verdict(
    bundle: &BundleReader,
    start: Option<&CoreStart>,
) -> (Option<CoreRecord>, Verdict) {
    let cut = |entry: &BundleEntry| entry.cut;
    // IBM's agent writes the zip while it captures: a truncated zip means that the agent died. Ours
    // are written from a sealed entry and truncated later by a copy or a store, which says nothing
    // about the capture.
    let cause = match bundle.entries.iter().any(cut) || bundle.salvaged.is_some() {
        true if !consistency::is_ours(bundle) => Cause::HandlerDied,
        _ => Cause::Unknown,
    };
    let evidence = bundle.salvaged.clone();
    let Some(entry) = bundle.core_entry() else {
        return (None, Verdict::Empty { cause, evidence });
    };
    let encoding = match &entry.kind {
        Some(EntryKind::Core(encoding)) => *encoding,
        _ => CoreEncoding::None,
    };
    let source = bundle.core_source().ok().flatten();
    let got = match (&source, encoding) {
        (Some(source), _) => source.len(),
        // Without a seek table, the plain size is unknown unless the stream is decompressed.
        (None, CoreEncoding::ZstdSeekable) => 0,
        (None, _) => entry.size,
    };
    let expected = start.and_then(|start| start.expected);
    let record = CoreRecord {
        entry: entry.name.to_string(),
        encoding,
        size: got,
        expected: expected.unwrap_or(got),
        sha256: None,
    };
    let verdict = match expected {
        _ if got == 0 && source.is_some() => Verdict::Empty { cause, evidence },
        Some(expected) if expected > got => Verdict::Truncated {
            expected,
            got,
            cause,
            evidence,
        },
        _ if entry.cut => Verdict::Truncated {
            expected: entry.size.max(got),
            got,
            cause,
            evidence,
        },
        _ => Verdict::Complete,
    };
    (Some(record), verdict)
}

/// The first bytes of a core, read sequentially, because a deflated core allows nothing else.
struct CoreStart {
    bytes: Vec<u8>,
    /// Size of the complete core, `max(p_offset + p_filesz)`; `None` if its headers do not say.
    expected: Option<u64>,
}

impl CoreStart {
    fn read(mut core: Box<dyn Read + Send>) -> Self {
        let mut bytes = Vec::new();
        let headers = read_headers(&mut core, &mut bytes);
        let ends = headers
            .as_deref()
            .map(|headers| headers.iter().map(ProgramHeader::end));
        let expected = ends
            .and_then(|ends| ends.collect::<Option<Vec<u64>>>())
            .and_then(|ends| ends.into_iter().max());
        let notes = headers
            .iter()
            .flatten()
            .find(|header| header.kind == PT_NOTE)
            .and_then(ProgramHeader::end);
        if let Some(end) = notes {
            // The signal is in the notes of the first thread.
            let wanted = end.saturating_sub(bytes.len() as u64).min(LONGEST_NOTES);
            // Bytes read before an error are valid.
            let _ = core.take(wanted).read_to_end(&mut bytes);
        }
        Self { bytes, expected }
    }

    /// The signal of `NT_SIGINFO`, with code and address.
    fn signal(self) -> Option<SignalInfo> {
        CoreHead::from_source(&self.bytes).ok()?.signal()
    }
}

/// The used fields of an `Elf64_Phdr`.
struct ProgramHeader {
    kind: u32,
    offset: u64,
    size: u64,
}

impl ProgramHeader {
    fn end(&self) -> Option<u64> {
        self.offset.checked_add(self.size)
    }
}

/// Appends header and program headers of an ELF64 little-endian core to `head`.
fn read_headers(core: &mut dyn Read, head: &mut Vec<u8>) -> Option<Vec<ProgramHeader>> {
    core.take(64).read_to_end(head).ok()?;
    if head.get(..6)? != b"\x7fELF\x02\x01" {
        return None;
    }
    let (headers_at, size, count) = (u64_at(head, 32)?, short_at(head, 54)?, short_at(head, 56)?);
    // PN_XNUM: the count is in a section header, which the kernel writes at the end of the core.
    if size != 56 || count == 0xffff || headers_at < 64 {
        return None;
    }
    let end = headers_at.checked_add(size.checked_mul(count)?)?;
    if end > LONGEST_HEAD {
        return None;
    }
    core.take(end.checked_sub(64)?).read_to_end(head).ok()?;
    let headers = head.get(usize::try_from(headers_at).ok()?..)?;
    let parsed = headers.chunks_exact(56).map(|header| {
        Some(ProgramHeader {
            kind: u32::try_from(u64_at(header, 0)? & 0xffff_ffff).ok()?,
            offset: u64_at(header, 8)?,
            size: u64_at(header, 32)?,
        })
    });
    parsed.collect()
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    let raw = bytes.get(at..)?.first_chunk()?;
    Some(u64::from_le_bytes(*raw))
}

fn short_at(bytes: &[u8], at: usize) -> Option<u64> {
    let raw = bytes.get(at..)?.first_chunk()?;
    Some(u64::from(u16::from_le_bytes(*raw)))
}
