//! Spool entries: locks, sealing, and files planted by others.

use super::*;

#[test]
fn bundle_writer_refuses_an_unsealed_entry() {
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
fn list_spool_distinguishes_live_and_dead_handlers() {
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
fn entry_of_a_handler_that_died_while_sealing_is_salvaged() {
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
fn sweep_spool_removes_leftovers_and_keeps_entries() {
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
fn spool_links_and_pipes_are_not_followed() {
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
    // Planted after sealing.
    let sealed = spool.seal(b"core");
    fs::remove_file(sealed.join("handler.log")).unwrap();
    symlink(&secret, sealed.join("handler.log")).unwrap();
    assert!(matches!(
        BundleWriter::from_entry(&sealed),
        Err(BundleError::NotRegular { .. })
    ));
}

#[test]
fn entry_source_random_reads_match_the_stream() {
    let spool = Spool::new();
    let sealed = spool.seal(b"a core of some bytes");
    let writer = BundleWriter::from_entry(&sealed).unwrap();
    let expected = write(&writer);
    let source = writer.source();
    let len = cdh_elfcore::ByteSource::len(&source);
    assert_eq!(len, expected.len() as u64);
    for at in 0..=expected.len() {
        for wanted in [0, 1, 7, 100, expected.len() + 9] {
            let mut found = vec![0; wanted];
            let count = cdh_elfcore::ByteSource::read_at(&source, at as u64, &mut found).unwrap();
            let rest = &expected[at..];
            assert_eq!(&found[..count], &rest[..wanted.min(rest.len())], "{at}");
        }
    }
    assert_eq!(
        cdh_elfcore::ByteSource::read_at(&source, u64::MAX, &mut [0]).unwrap(),
        0
    );
    let reader = BundleReader::open(Arc::new(writer.source())).unwrap();
    assert!(reader.verify().unwrap().is_good());
    // A file that was truncated since is an error, not a shorter zip.
    let core = fs::read_dir(&sealed).unwrap().flatten();
    let core = { core }
        .map(|item| item.path())
        .find(|path| {
            path.file_name()
                .unwrap()
                .to_str()
                .unwrap()
                .starts_with("core")
        })
        .unwrap();
    fs::File::options()
        .write(true)
        .open(core)
        .unwrap()
        .set_len(3)
        .unwrap();
    let mut all = vec![0; expected.len()];
    assert!(cdh_elfcore::ByteSource::read_at(&source, 0, &mut all).is_err());
}

#[test]
fn manifest_names_outside_the_entry_are_refused() {
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
fn bundle_writer_refuses_a_damaged_entry() {
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
    // Truncated after the plan was made.
    fs::write(&path, &core[..5]).unwrap();
    assert!(matches!(
        writer.write_to(&mut Vec::new()),
        Err(BundleError::Mismatch { .. })
    ));
}
