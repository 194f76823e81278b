//! Spool entry to zip to reader, IBM's zips, zips that were cut, and zips that lie.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use cdh_bundle::{
    BundleError, BundleReader, BundleWriter, Cause, CoreEncoding, CoreRecord, Digests, DumpId,
    EntryCheck, EntryDir, EntryKind, LegacyInfo, Manifest, Method, ProcessFacts, RawText, SCHEMA,
    SeekableWriter, Sha256, SignalFacts, SpoolState, Verdict, list_spool, sweep_spool,
};
use proptest::prelude::*;

const ZSTD: EntryKind = EntryKind::Core(CoreEncoding::ZstdSeekable);
const STEM: &str = "6a4f4e4d-9c55-4f0b-8f38-8a8f7c5d4e3b-dump-1767225600-api-7d4-api-1-11";

fn manifest(id: DumpId) -> Manifest {
    Manifest {
        schema: SCHEMA,
        id,
        stem: "stem".to_owned(),
        captured_at: "2026-01-31T12:34:56Z".parse().unwrap(),
        finished_at: None,
        node: RawText::from("node"),
        hostname: RawText::from(&b"../evil\n\x1b[2J\xff"[..]),
        process: ProcessFacts {
            pid: 42,
            name: RawText::from("api"),
            ..ProcessFacts::default()
        },
        signal: SignalFacts {
            number: 11,
            name: "SIGSEGV".to_owned(),
            ..SignalFacts::default()
        },
        machine: "x86_64".to_owned(),
        verdict: Verdict::Complete,
        core: None,
        workload: None,
        image: None,
        modules: Vec::new(),
        fingerprint: None,
        thread_count: None,
        entries: Vec::new(),
        gaps: Vec::new(),
        agent_version: "test".to_owned(),
    }
}

/// Noise that no compressor shortens, then zeroes.
fn core_bytes() -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let noise = (0..300_000).map(move |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    });
    noise.chain(std::iter::repeat_n(0, 200_000)).collect()
}

/// An ELF64 header whose one segment promises `len` bytes in all.
fn elf_core(len: u64) -> Vec<u8> {
    let mut core = vec![0; 120];
    core[..6].copy_from_slice(b"\x7fELF\x02\x01");
    core[32..40].copy_from_slice(&64_u64.to_le_bytes());
    core[54..56].copy_from_slice(&56_u16.to_le_bytes());
    core[56..58].copy_from_slice(&1_u16.to_le_bytes());
    core[72..80].copy_from_slice(&120_u64.to_le_bytes());
    core[96..104].copy_from_slice(&(len - 120).to_le_bytes());
    core
}

struct Spool {
    root: tempfile::TempDir,
}

impl Spool {
    fn new() -> Self {
        Self {
            root: tempfile::tempdir().unwrap(),
        }
    }

    fn path(&self) -> &Path {
        self.root.path()
    }

    fn seal(&self, core: &[u8]) -> PathBuf {
        let id = DumpId::random();
        let mut entry = EntryDir::create(self.path(), id).unwrap();
        entry
            .write_file(&EntryKind::DumpInfo, b"{\"uuid\":\"x\"}")
            .unwrap();
        entry
            .write_file(&EntryKind::Minicore, &elf_core(120))
            .unwrap();
        entry.write_file(&EntryKind::HandlerLog, b"").unwrap();
        let file = entry.create_file(&ZSTD).unwrap();
        let mut writer = SeekableWriter::new(file, 1, 64 << 10).unwrap();
        writer.write_all(core).unwrap();
        let (_, digests) = writer.finish().unwrap().0.finish();
        entry.record(&ZSTD, digests);
        let mut manifest = manifest(id);
        manifest.core = Some(CoreRecord {
            entry: ZSTD.bundle_name("stem"),
            encoding: CoreEncoding::ZstdSeekable,
            size: core.len() as u64,
            expected: core.len() as u64,
            sha256: Some(Sha256::of(core)),
        });
        entry.seal(manifest).unwrap()
    }

    fn bundle(&self, core: &[u8]) -> Vec<u8> {
        write(&BundleWriter::from_entry(&self.seal(core)).unwrap())
    }
}

fn write(writer: &BundleWriter) -> Vec<u8> {
    let mut zip = Vec::new();
    let digests = writer.write_to(&mut zip).unwrap();
    assert_eq!(digests, Digests::of(&zip));
    assert_eq!(writer.len(), zip.len() as u64);
    zip
}

fn open(zip: &[u8]) -> Result<BundleReader, BundleError> {
    BundleReader::open(Arc::new(zip.to_vec()))
}

/// Everything that can be done with a bundle; for inputs that must not panic.
fn exercise(zip: &[u8]) {
    let Ok(bundle) = open(zip) else { return };
    let _ = bundle.summary_manifest().to_json();
    let _ = bundle.verify();
    let _ = bundle.legacy();
    for entry in bundle.entries() {
        if let Ok(reader) = bundle.entry_reader(entry) {
            let _ = reader.take(1 << 20).read_to_end(&mut Vec::new());
        }
        if let Some(kind) = &entry.kind {
            let _ = bundle.entry_source(kind);
        }
    }
    if let Ok(Some(core)) = bundle.core_source() {
        let _ = core.read_at(core.len() / 2, &mut [0; 64]);
    }
    if let Ok(Some(core)) = bundle.core_reader() {
        let _ = core.take(1 << 20).read_to_end(&mut Vec::new());
    }
}

fn read_core(bundle: &BundleReader) -> std::io::Result<Vec<u8>> {
    let mut plain = Vec::new();
    bundle
        .core_reader()
        .unwrap()
        .unwrap()
        .read_to_end(&mut plain)?;
    Ok(plain)
}

#[test]
fn entry_becomes_a_bundle_that_unzip_accepts() {
    let spool = Spool::new();
    let core = core_bytes();
    let zip = spool.bundle(&core);
    let path = spool.path().join("bundle.zip");
    fs::write(&path, &zip).unwrap();
    let tested = Command::new("unzip")
        .arg("-tqq")
        .arg(&path)
        .output()
        .unwrap();
    assert!(tested.status.success(), "{tested:?}");
    let listed = Command::new("unzip")
        .arg("-Z1")
        .arg(&path)
        .output()
        .unwrap();
    let names = String::from_utf8(listed.stdout).unwrap();
    let expected = "stem-dump-info.json\nstem-minicore.elf\nstem.core.zst\nstem-handler.log\nstem-manifest.json\n";
    assert_eq!(names, expected);
    let script = format!(
        "unzip -p '{}' stem.core.zst | zstd -dcq | sha256sum",
        path.display()
    );
    let unpacked = Command::new("sh").args(["-c", &script]).output().unwrap();
    let digest = String::from_utf8(unpacked.stdout).unwrap();
    assert_eq!(
        digest.split_whitespace().next().unwrap(),
        Sha256::of(&core).to_string()
    );
}

#[test]
fn python_agrees_with_the_headers() {
    let spool = Spool::new();
    let path = spool.path().join("bundle.zip");
    fs::write(&path, spool.bundle(b"core")).unwrap();
    let script = "import sys,zipfile\nz=zipfile.ZipFile(sys.argv[1])\nassert z.testzip() is None\n\
                  for i in z.infolist():\n assert i.flag_bits==0x800 and i.compress_type==0 and \
                  i.external_attr>>16==0o100600 and i.date_time==(2026,1,31,12,34,56),i";
    let run = Command::new("python3")
        .args(["-c", script])
        .arg(&path)
        .output()
        .unwrap();
    assert!(run.status.success(), "{run:?}");
}

#[test]
fn bundle_is_read_back_without_unpacking() {
    let spool = Spool::new();
    let core = core_bytes();
    let bundle = open(&spool.bundle(&core)).unwrap();
    assert_eq!(bundle.salvaged(), None);
    let manifest = bundle.manifest().unwrap();
    assert_eq!(manifest.hostname.as_bytes(), b"../evil\n\x1b[2J\xff");
    assert_eq!(manifest.entries.len(), 4);
    assert!(bundle.verify().unwrap().is_good());
    assert_eq!(read_core(&bundle).unwrap(), core);
    let source = bundle.core_source().unwrap().unwrap();
    assert_eq!(source.len(), core.len() as u64);
    let mut page = vec![0; 4096];
    assert_eq!(source.read_at(123_456, &mut page).unwrap(), 4096);
    assert_eq!(page, core[123_456..123_456 + 4096]);
    let minicore = bundle.entry_source(&EntryKind::Minicore).unwrap();
    assert_eq!(minicore.len(), 120);
    let missing = bundle.entry_source(&EntryKind::Backtrace);
    assert!(matches!(missing, Err(BundleError::NoEntry { .. })));
}

#[test]
fn same_entry_gives_the_same_bytes() {
    let spool = Spool::new();
    let sealed = spool.seal(&core_bytes());
    let writer = BundleWriter::from_entry(&sealed).unwrap();
    let first = write(&writer);
    let mut second: Vec<u8> = Vec::new();
    // In odd steps, from a second plan.
    let mut reader = BundleWriter::from_entry(&sealed).unwrap().reader();
    let mut buf = [0; 777];
    while let count @ 1.. = reader.read(&mut buf).unwrap() {
        second.extend(&buf[..count]);
    }
    assert_eq!(first, second);
    let manifest = EntryKind::Manifest.file_name();
    assert_eq!(
        writer.manifest_json(),
        fs::read(sealed.join(manifest)).unwrap()
    );
}

#[test]
fn entry_without_manifest_is_invisible() {
    let spool = Spool::new();
    let id = DumpId::random();
    let entry = EntryDir::create(spool.path(), id).unwrap();
    let refused = BundleWriter::from_entry(entry.path());
    assert!(matches!(refused, Err(BundleError::NotSealed { .. })));
    let bare = spool.path().join(DumpId::random().to_string());
    fs::create_dir(&bare).unwrap();
    assert!(matches!(
        BundleWriter::from_entry(&bare),
        Err(BundleError::NotSealed { .. })
    ));
}

#[test]
fn live_handler_is_told_from_a_dead_one() {
    let spool = Spool::new();
    let id = DumpId::random();
    let mut entry = EntryDir::create(spool.path(), id).unwrap();
    entry.write_file(&EntryKind::Proc, b"{}").unwrap();
    let state = || list_spool(spool.path()).unwrap()[0].state;
    assert_eq!(state(), SpoolState::Live);
    assert!(matches!(
        EntryDir::adopt(spool.path(), id),
        Err(BundleError::Busy { .. })
    ));
    assert!(EntryDir::create(spool.path(), id).is_err());
    assert_eq!(list_spool(spool.path()).unwrap().len(), 1);
    drop(entry);
    assert_eq!(state(), SpoolState::Abandoned);
    let adopted = EntryDir::adopt(spool.path(), id).unwrap();
    assert_eq!(adopted.kinds().unwrap(), [EntryKind::Proc]);
    assert_eq!(state(), SpoolState::Live);
    let sealed = adopted.seal(manifest(id)).unwrap();
    assert_eq!(state(), SpoolState::Sealed);
    assert!(
        open(&write(&BundleWriter::from_entry(&sealed).unwrap()))
            .unwrap()
            .verify()
            .unwrap()
            .is_good()
    );
    list_spool(spool.path())
        .unwrap()
        .remove(0)
        .remove()
        .unwrap();
    assert_eq!(fs::read_dir(spool.path()).unwrap().count(), 0);
}

#[test]
fn handler_that_died_while_sealing_is_salvaged() {
    let spool = Spool::new();
    let id = DumpId::random();
    let entry = EntryDir::create(spool.path(), id).unwrap();
    fs::write(entry.path().join("manifest.json"), "half a manif").unwrap();
    fs::write(entry.path().join("manifest.json.new"), "draft").unwrap();
    drop(entry);
    let sealed = EntryDir::adopt(spool.path(), id)
        .unwrap()
        .seal(manifest(id))
        .unwrap();
    assert_eq!(BundleWriter::from_entry(&sealed).unwrap().manifest().id, id);
}

#[test]
fn leftovers_are_swept_and_entries_are_not() {
    let spool = Spool::new();
    let sealed = spool.seal(b"core");
    let removed = spool.path().join(format!(".removed-{}", DumpId::random()));
    fs::create_dir(&removed).unwrap();
    fs::write(removed.join("core"), "x").unwrap();
    fs::create_dir(spool.path().join(".new-not-an-id")).unwrap();
    sweep_spool(spool.path()).unwrap();
    assert!(!removed.exists());
    assert!(sealed.exists());
    assert!(spool.path().join(".new-not-an-id").exists());
}

#[test]
fn links_and_pipes_in_the_spool_are_not_followed() {
    let spool = Spool::new();
    let id = DumpId::random();
    let secret = spool.path().join("secret");
    fs::write(&secret, "shadow").unwrap();
    let mut entry = EntryDir::create(spool.path(), id).unwrap();
    symlink(&secret, entry.path().join("proc.json")).unwrap();
    symlink(&secret, entry.path().join("0.log")).unwrap();
    let fifo = entry.path().join("1.log");
    assert!(
        Command::new("mkfifo")
            .arg(&fifo)
            .status()
            .unwrap()
            .success()
    );
    assert!(entry.write_file(&EntryKind::Proc, b"{}").is_err());
    assert_eq!(fs::read(&secret).unwrap(), b"shadow");
    let sealed = entry.seal(manifest(id)).unwrap();
    let writer = BundleWriter::from_entry(&sealed).unwrap();
    assert_eq!(writer.manifest().gaps.len(), 3);
    assert!(writer.manifest().entries.is_empty());
    // Put there after sealing.
    let sealed = spool.seal(b"core");
    fs::remove_file(sealed.join("handler.log")).unwrap();
    symlink(&secret, sealed.join("handler.log")).unwrap();
    assert!(matches!(
        BundleWriter::from_entry(&sealed),
        Err(BundleError::NotRegular { .. })
    ));
}

#[test]
fn manifest_cannot_name_files_outside_the_entry() {
    let spool = Spool::new();
    for (stem, name) in [
        ("stem", "../../etc/shadow"),
        ("stem", "stem-manifest.json"),
        ("stem", "other-proc.json"),
        ("../x", "../x-proc.json"),
        ("a\nb", "a\nb-proc.json"),
    ] {
        let sealed = spool.seal(b"core");
        let mut forged = manifest(DumpId::random());
        forged.stem = stem.to_owned();
        forged.entries = BundleWriter::from_entry(&sealed)
            .unwrap()
            .manifest()
            .entries
            .clone();
        forged.entries.truncate(1);
        forged.entries[0].name = name.to_owned();
        fs::write(sealed.join("manifest.json"), forged.to_json().unwrap()).unwrap();
        let refused = BundleWriter::from_entry(&sealed);
        assert!(matches!(refused, Err(BundleError::Name { .. })), "{name}");
    }
    let entry = EntryDir::create(spool.path(), DumpId::random()).unwrap();
    let other = manifest(DumpId::random());
    assert!(matches!(entry.seal(other), Err(BundleError::Name { .. })));
}

#[test]
fn entry_that_rotted_in_the_spool_is_not_shipped() {
    let spool = Spool::new();
    let sealed = spool.seal(&core_bytes());
    let path = sealed.join("core.zst");
    let mut core = fs::read(&path).unwrap();
    core[1000] ^= 1;
    fs::write(&path, &core).unwrap();
    let writer = BundleWriter::from_entry(&sealed).unwrap();
    let error = writer.write_to(&mut Vec::new()).unwrap_err();
    assert!(matches!(error, BundleError::Mismatch { .. }), "{error}");
    fs::write(&path, &core[1..]).unwrap();
    assert!(matches!(
        BundleWriter::from_entry(&sealed),
        Err(BundleError::Mismatch { .. })
    ));
    // Cut after it was planned.
    fs::write(&path, &core[..5]).unwrap();
    assert!(matches!(
        writer.write_to(&mut Vec::new()),
        Err(BundleError::Mismatch { .. })
    ));
}

#[test]
fn deflated_core_is_what_ibms_readers_expect() {
    let spool = Spool::new();
    let id = DumpId::random();
    let core = core_bytes();
    let kind = EntryKind::Core(CoreEncoding::Deflate);
    let mut entry = EntryDir::create(spool.path(), id).unwrap();
    let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(&core).unwrap();
    entry.write_file(&kind, &encoder.finish().unwrap()).unwrap();
    let mut manifest = manifest(id);
    manifest.core = Some(CoreRecord {
        entry: kind.bundle_name("stem"),
        encoding: CoreEncoding::Deflate,
        size: core.len() as u64,
        expected: core.len() as u64,
        sha256: Some(Sha256::of(&core)),
    });
    let zip = write(&BundleWriter::from_entry(&entry.seal(manifest).unwrap()).unwrap());
    let path = spool.path().join("deflated.zip");
    fs::write(&path, &zip).unwrap();
    assert!(
        Command::new("unzip")
            .arg("-tqq")
            .arg(&path)
            .status()
            .unwrap()
            .success()
    );
    let bundle = open(&zip).unwrap();
    assert!(bundle.verify().unwrap().is_good());
    assert_eq!(bundle.entries()[0].kind, Some(kind));
    assert_eq!(read_core(&bundle).unwrap(), core);
    assert!(bundle.core_source().unwrap().is_none());
}

#[test]
fn damage_is_found_by_verify() {
    let spool = Spool::new();
    let zip = spool.bundle(&core_bytes());
    for at in [55, 5_000, 100_000] {
        let mut hurt = zip.clone();
        hurt[at] ^= 0xff;
        let good = open(&hurt).and_then(|bundle| bundle.verify());
        assert!(!good.is_ok_and(|found| found.is_good()), "{at}");
    }
}

#[test]
fn cut_bundle_gives_what_is_there() {
    let spool = Spool::new();
    let core = core_bytes();
    let zip = spool.bundle(&core);
    let mut cores = 0;
    for cut in (1..zip.len())
        .step_by(1009)
        .chain(zip.len() - 300..zip.len())
    {
        match open(&zip[..cut]) {
            Ok(bundle) => {
                assert!(bundle.salvaged().is_some(), "{cut}");
                assert!(
                    !bundle.verify().unwrap().is_good() || bundle.manifest().is_some(),
                    "{cut}"
                );
                if let Ok(Some(source)) = bundle.core_source() {
                    let mut found = vec![0; source.len() as usize];
                    assert_eq!(source.read_at(0, &mut found).unwrap(), found.len());
                    assert_eq!(found, core[..found.len()]);
                    cores += 1;
                }
                if let Ok(Some(mut reader)) = bundle.core_reader() {
                    let mut found = Vec::new();
                    reader.read_to_end(&mut found).unwrap();
                    assert_eq!(found, core[..found.len()]);
                }
                let _ = bundle.summary_manifest();
            }
            Err(BundleError::Cut { len }) => assert_eq!(len, cut as u64),
            Err(BundleError::NotABundle { .. }) => assert!(cut < 4),
            Err(error) => panic!("{cut}: {error}"),
        }
    }
    assert!(cores > 100);
}

/// A zip as Python writes it, `content` for each name, and `-` for its method.
fn python_zip(entries: &[(&[u8], &[u8], bool)]) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let mut script = "import zipfile,sys\nz=zipfile.ZipFile(sys.argv[1],'w')\n".to_owned();
    for (at, (name, content, deflate)) in entries.iter().enumerate() {
        fs::write(dir.path().join(at.to_string()), content).unwrap();
        let name: String = name.iter().map(|byte| format!("\\x{byte:02x}")).collect();
        script += &format!(
            "z.writestr(zipfile.ZipInfo(b'{name}'.decode('cp437')),open(sys.argv[2]+'/{at}','rb').read(),{})\n",
            if *deflate { 8 } else { 0 },
        );
    }
    script += "z.close()";
    let path = dir.path().join("x.zip");
    let run = Command::new("python3")
        .args(["-c", &script])
        .arg(&path)
        .arg(dir.path())
        .output()
        .unwrap();
    assert!(run.status.success(), "{run:?}");
    fs::read(path).unwrap()
}

fn ibm_zip(core: &[u8], deflate: bool) -> Vec<u8> {
    let info = "{\"uuid\":\"6a4f4e4d-9c55-4f0b-8f38-8a8f7c5d4e3b\", \"dump_file\":\"x\", \
                \"timestamp\": \"1767225600\",\n \"hostname\": \"api-7d4\", \"exe\": \"a\"pi\", \
                \"real_pid\": \"1\", \"signal\": \"11\", \"node_hostname\": \"node\", \"path\": \"!usr!bin!api\" }";
    let pod = br#"{"id":"p","metadata":{"name":"api-7d4","namespace":"shop"}}"#;
    let ps = br#"{"containers":[{"id":"c1","imageRef":"r@sha256:00","metadata":{"name":"main"}}]}"#;
    let name = |suffix: &str| format!("{STEM}{suffix}").into_bytes();
    python_zip(&[
        (&name("-dump-info.json"), info.as_bytes(), deflate),
        (&name(".core"), core, deflate),
        (&name("-pod-info.json"), pod, deflate),
        (&name("-ps-info.json"), ps, deflate),
        (&name("-0.log"), b"last words", deflate),
    ])
}

#[test]
fn zip_of_ibm_gets_a_manifest() {
    let mut core = elf_core(9000);
    core.resize(9000, 7);
    for deflate in [false, true] {
        let bundle = open(&ibm_zip(&core, deflate)).unwrap();
        assert!(bundle.manifest().is_none());
        let legacy: &LegacyInfo = bundle.legacy().unwrap();
        assert_eq!(legacy.exe.as_deref(), Some("a\"pi"));
        let manifest = bundle.summary_manifest();
        assert_eq!(manifest.id.to_string(), &STEM[..36]);
        assert_eq!(manifest.verdict, Verdict::Complete);
        assert_eq!(manifest.signal.name, "SIGSEGV");
        assert_eq!(manifest.process.exe, Some(RawText::from("/usr/bin/api")));
        let workload = manifest.workload.unwrap();
        assert_eq!(workload.namespace.as_deref(), Some("shop"));
        assert_eq!(workload.container.as_deref(), Some("main"));
        assert_eq!(manifest.image.unwrap().reference, "r@sha256:00");
        assert_eq!(read_core(&bundle).unwrap(), core);
        assert_eq!(bundle.core_source().unwrap().is_some(), !deflate);
        assert!(bundle.verify().unwrap().is_good());
        assert_eq!(bundle.entries()[1].method == Method::Deflated, deflate);
    }
}

#[test]
fn short_core_in_ibms_whole_zip_is_truncated() {
    let mut core = elf_core(9000);
    core.resize(4000, 7);
    let verdict = open(&ibm_zip(&core, true))
        .unwrap()
        .summary_manifest()
        .verdict;
    let expected = Verdict::Truncated {
        expected: 9000,
        got: 4000,
        cause: Cause::Unknown,
        evidence: None,
    };
    assert_eq!(verdict, expected);
    let empty = open(&ibm_zip(b"", false))
        .unwrap()
        .summary_manifest()
        .verdict;
    assert!(matches!(empty, Verdict::Empty { .. }), "{empty:?}");
}

/// What is left when IBM's composer is killed in its core: sizes and CRC of that entry still 0.
fn killed_composer(zip: &[u8], keep: usize) -> Vec<u8> {
    let name = format!("{STEM}.core");
    let at = zip
        .windows(name.len())
        .position(|window| window == name.as_bytes())
        .unwrap();
    let mut cut = zip[..at + name.len() + keep].to_vec();
    cut[at - 30 + 14..at - 30 + 26].fill(0);
    cut
}

#[test]
fn zip_of_a_killed_composer_gives_what_is_there() {
    let mut core = core_bytes();
    core.truncate(300_000);
    let head = elf_core(core.len() as u64);
    core[..120].copy_from_slice(&head);
    for deflate in [false, true] {
        let zip = killed_composer(&ibm_zip(&core, deflate), 150_000);
        let bundle = open(&zip).unwrap();
        let note = bundle.salvaged().unwrap();
        assert!(
            note.contains("2 entries") && note.contains("is cut"),
            "{note}"
        );
        assert_eq!(bundle.legacy().unwrap().signal.as_deref(), Some("11"));
        let found = read_core(&bundle).unwrap();
        assert!(
            found.len() > 100_000 && found.len() < core.len(),
            "{}",
            found.len()
        );
        assert_eq!(found, core[..found.len()]);
        match bundle.summary_manifest().verdict {
            Verdict::Truncated {
                expected: 300_000,
                got,
                cause: Cause::HandlerDied,
                ..
            } => {
                assert_eq!(got, found.len() as u64);
            }
            verdict => panic!("{verdict:?}"),
        }
        let problems = bundle.verify().unwrap();
        assert!(
            problems
                .problems()
                .any(|(_, check)| matches!(check, EntryCheck::Mismatch { .. }))
        );
    }
}

#[test]
fn entries_behind_an_unfinished_header_are_found() {
    let core = elf_core(120);
    for deflate in [false, true] {
        let whole = ibm_zip(&core, deflate);
        // The sizes of the core were never written, but what follows was.
        let directory = whole
            .windows(4)
            .position(|window| window == b"PK\x01\x02")
            .unwrap();
        let name = format!("{STEM}.core");
        let at = whole
            .windows(name.len())
            .position(|window| window == name.as_bytes())
            .unwrap();
        let mut zip = whole[..directory].to_vec();
        zip[at - 30 + 14..at - 30 + 26].fill(0);
        let bundle = open(&zip).unwrap();
        assert_eq!(bundle.entries().len(), 5, "{:?}", bundle.salvaged());
        assert_eq!(read_core(&bundle).unwrap(), core);
    }
}

#[test]
fn hostile_names_are_shown_safely_and_never_become_paths() {
    let names: [&[u8]; 5] = [
        b"../../../../tmp/cdh-zip-slip",
        b"/etc/cdh-absolute",
        b"a\nb\x1b[31m",
        b"\xff\xfe\x80",
        b"stem-../../x.log",
    ];
    let mut entries: Vec<(&[u8], &[u8], bool)> =
        names.iter().map(|name| (*name, &b"x"[..], false)).collect();
    entries.push((b"stem.core", b"core", false));
    let zip = python_zip(&entries);
    let bundle = open(&zip).unwrap();
    for entry in &bundle.entries()[..5] {
        assert_eq!(entry.kind, None);
        assert!(
            !entry.name.to_string().chars().any(char::is_control),
            "{}",
            entry.name
        );
    }
    assert_eq!(read_core(&bundle).unwrap(), b"core");
    exercise(&zip);
    assert!(!Path::new("/tmp/cdh-zip-slip").exists());
}

#[test]
fn other_files_are_named_for_what_they_are() {
    assert!(matches!(open(b""), Err(BundleError::Empty)));
    assert!(matches!(
        open(b"\x7fELF"),
        Err(BundleError::NotABundle { .. })
    ));
    assert!(matches!(
        open(b"PK\x03\x04"),
        Err(BundleError::Cut { len: 4 })
    ));
    let other = python_zip(&[(b"readme.txt", b"hello", false)]);
    assert!(matches!(open(&other), Err(BundleError::NotABundle { .. })));
}

#[test]
fn bundle_of_a_later_schema_is_refused_by_number() {
    let zip = python_zip(&[(b"s-manifest.json", b"{\"schema\":7}", false)]);
    assert!(matches!(open(&zip), Err(BundleError::Schema { found: 7 })));
    let broken = python_zip(&[(b"s.core", b"x", false), (b"s-manifest.json", b"{", false)]);
    let bundle = open(&broken).unwrap();
    assert!(bundle.salvaged().unwrap().contains("manifest"));
}

#[test]
fn bomb_is_not_inflated_into_memory() {
    let zeroes = vec![0; 70 << 20];
    let zip = python_zip(&[(b"s-proc.json", &zeroes, true), (b"s.core", b"x", false)]);
    assert!(zip.len() < 200_000);
    let bundle = open(&zip).unwrap();
    let refused = bundle.entry_source(&EntryKind::Proc);
    assert!(matches!(refused, Err(BundleError::TooLarge { .. })));
    // One that lies about its size gets no more than it states.
    let mut lie = zip.clone();
    let real = (70_u32 << 20).to_le_bytes();
    while let Some(at) = lie.windows(4).position(|window| window == real) {
        lie[at..at + 4].copy_from_slice(&10_u32.to_le_bytes());
    }
    let bundle = open(&lie).unwrap();
    let refused = bundle.entry_source(&EntryKind::Proc);
    assert!(matches!(refused, Err(BundleError::Mismatch { .. })));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn any_bytes_are_opened_without_panic(mut bytes: Vec<u8>) {
        exercise(&bytes);
        bytes.splice(0..0, *b"PK\x03\x04");
        bytes.extend(b"PK\x05\x06\0\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff\0\0\0\0\0\0");
        exercise(&bytes);
    }
}

#[test]
fn damaged_zips_are_errors_not_panics() {
    let spool = Spool::new();
    let ours = spool.bundle(&core_bytes()[290_000..310_000]);
    let ibm = ibm_zip(&elf_core(120), true);
    let mut state = 7_u32;
    for zip in [&ours, &ibm] {
        for _ in 0..800 {
            let mut hurt = zip.clone();
            for _ in 0..3 {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                // Mostly in the headers and the directory.
                let back = (state >> 8) as usize % 1500;
                let at = if state & 1 == 0 {
                    back % hurt.len()
                } else {
                    hurt.len() - 1 - back % hurt.len()
                };
                hurt[at] = [0, 0xff, 0x7f, (state >> 24) as u8][(state >> 4) as usize % 4];
            }
            exercise(&hurt);
        }
    }
}

/// A file of more than 4 GiB that takes no room, with a content that is hashed only where it must be.
#[test]
#[ignore = "reads 5 GiB of zeroes several times"]
fn bundle_beyond_four_gibibytes_is_zip64() {
    let spool = Spool::new();
    let id = DumpId::random();
    let kind = EntryKind::Core(CoreEncoding::None);
    let entry = EntryDir::create(spool.path(), id).unwrap();
    entry
        .create_file(&kind)
        .unwrap()
        .file()
        .set_len(5 << 30)
        .unwrap();
    let sealed = entry.seal(manifest(id)).unwrap();
    let path = spool.path().join("big.zip");
    let writer = BundleWriter::from_entry(&sealed).unwrap();
    writer
        .write_to(&mut fs::File::create(&path).unwrap())
        .unwrap();
    assert_eq!(fs::metadata(&path).unwrap().len(), writer.len());
    assert!(
        Command::new("unzip")
            .arg("-tqq")
            .arg(&path)
            .status()
            .unwrap()
            .success()
    );
    let source = cdh_elfcore::FileSource::new(fs::File::open(&path).unwrap()).unwrap();
    let bundle = BundleReader::open(Arc::new(source)).unwrap();
    assert_eq!(bundle.entries()[0].size, 5 << 30);
    assert_eq!(bundle.entries()[1].kind, Some(EntryKind::Manifest));
}
