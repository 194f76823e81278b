//! Inconsistent zips, and files that are not zips.

use super::*;

/// Calls every method of a bundle; for inputs that must not cause a panic.
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

#[test]
fn verify_finds_damage() {
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
fn bundle_with_hostile_names_never_creates_paths() {
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
fn open_describes_files_that_are_not_bundles() {
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
    assert!(matches!(open(&other), Err(BundleError::ForeignZip)));
}

#[test]
fn bundle_with_a_newer_schema_is_refused_by_number() {
    let zip = python_zip(&[(b"s-manifest.json", b"{\"schema\":7}", false)]);
    assert!(matches!(open(&zip), Err(BundleError::Schema { found: 7 })));
    let broken = python_zip(&[(b"s.core", b"x", false), (b"s-manifest.json", b"{", false)]);
    let bundle = open(&broken).unwrap();
    assert!(bundle.salvaged().unwrap().contains("manifest"));
}

#[test]
fn zip_bomb_is_not_inflated_into_memory() {
    let zeroes = vec![0; 70 << 20];
    let zip = python_zip(&[(b"s-proc.json", &zeroes, true), (b"s.core", b"x", false)]);
    assert!(zip.len() < 200_000);
    let bundle = open(&zip).unwrap();
    let refused = bundle.entry_source(&EntryKind::Proc);
    assert!(matches!(refused, Err(BundleError::TooLarge { .. })));
    // A zip that lies about the size of an entry gets no more than it states.
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
    fn bundle_reader_does_not_panic_on_any_bytes(mut bytes: Vec<u8>) {
        exercise(&bytes);
        bytes.splice(0..0, *b"PK\x03\x04");
        bytes.extend(b"PK\x05\x06\0\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff\0\0\0\0\0\0");
        exercise(&bytes);
    }
}

#[test]
fn bundle_reader_does_not_panic_on_damaged_zips() {
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
