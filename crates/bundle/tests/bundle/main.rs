//! From spool entry to zip to reader; IBM's zips; truncated and inconsistent zips.

// A failed test or task may panic; nothing of this ships.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used
)]

mod hostile;
mod salvage;
mod spool;

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use cdh_bundle::{
    BundleError, BundleReader, BundleWriter, Cause, CoreEncoding, CoreRecord, Digests, DumpId,
    EntryCheck, EntryDir, EntryKind, LegacyInfo, Manifest, Method, ProcessFacts, RawText,
    SeekableWriter, Sha256, SignalFacts, SpoolState, Verdict, list_spool, sweep_spool,
};
use proptest::prelude::*;

const ZSTD: EntryKind = EntryKind::Core(CoreEncoding::ZstdSeekable);
const STEM: &str = "6a4f4e4d-9c55-4f0b-8f38-8a8f7c5d4e3b-dump-1767225600-api-7d4-api-1-11";

fn manifest(id: DumpId) -> Manifest {
    let captured_at = "2026-01-31T12:34:56Z".parse().unwrap();
    Manifest {
        stem: "stem".to_owned(),
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
        original_signal: None,
        machine: "x86_64".to_owned(),
        agent_version: "test".to_owned(),
        ..Manifest::new(id, captured_at, Verdict::Complete)
    }
}

/// Incompressible noise, then zeroes.
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

/// An ELF64 header with one segment that promises `len` bytes in total.
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
fn bundle_writer_output_is_accepted_by_unzip() {
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
fn bundle_headers_agree_with_pythons_zipfile() {
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
fn bundle_reader_reads_a_bundle_in_place() {
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
fn bundle_writer_is_deterministic() {
    let spool = Spool::new();
    let sealed = spool.seal(&core_bytes());
    let writer = BundleWriter::from_entry(&sealed).unwrap();
    let first = write(&writer);
    let mut second: Vec<u8> = Vec::new();
    // Read in odd steps, from a second plan.
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
fn bundle_with_a_deflated_core_suits_ibms_readers() {
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

/// A zip written by Python, with a name, content and method (deflate or not) for each entry.
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

/// A sparse file larger than 4 GiB; its content is hashed only where necessary.
#[test]
#[ignore = "reads 5 GiB of zeroes several times"]
fn bundle_larger_than_4_gib_uses_zip64() {
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
