//! IBM's zips, and truncated zips.

use super::*;

#[test]
fn salvage_recovers_a_truncated_bundle() {
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

#[test]
fn summary_manifest_is_built_for_ibms_zip() {
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
fn short_core_in_a_complete_ibm_zip_is_truncated() {
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

/// A zip whose composer was killed while it wrote the core: size and CRC of that entry are still 0.
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
fn salvage_recovers_the_zip_of_a_killed_composer() {
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
fn salvage_finds_entries_after_an_unfinished_header() {
    let core = elf_core(120);
    for deflate in [false, true] {
        let whole = ibm_zip(&core, deflate);
        // The sizes of the core were never written, but the entries after it were.
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
