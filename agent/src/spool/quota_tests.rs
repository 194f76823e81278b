use std::time::Duration;

use cdh_bundle::{BundleReader, BundleWriter, CoreRecord, EntryDir};

use super::*;
use crate::handler::HandlerArguments;
use crate::handler::identity::first_manifest;
use crate::policy::Size;

const CORE: EntryKind = EntryKind::Core(CoreEncoding::None);

struct Spool(tempfile::TempDir);

impl Spool {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn partial(&self, core: usize, minicore: usize) -> (EntryDir, Manifest) {
        let id = DumpId::random();
        let mut entry = EntryDir::create(self.0.path(), id).unwrap();
        let mut manifest = first_manifest(id, &HandlerArguments::default(), None);
        manifest.verdict = Verdict::Complete;
        manifest.core = Some(CoreRecord {
            entry: CORE.bundle_name(&manifest.stem),
            encoding: CoreEncoding::None,
            size: core as u64,
            expected: core as u64,
            sha256: None,
        });
        entry.write_file(&CORE, &vec![7; core]).unwrap();
        entry
            .write_file(&EntryKind::Minicore, &vec![7; minicore])
            .unwrap();
        entry.write_file(&EntryKind::Backtrace, b"{}").unwrap();
        (entry, manifest)
    }

    fn dump(&self, core: usize, minicore: usize) -> DumpId {
        let (entry, manifest) = self.partial(core, minicore);
        let id = manifest.id;
        entry.seal(manifest).unwrap();
        // So that the next one is younger.
        std::thread::sleep(Duration::from_millis(5));
        id
    }

    fn make(&self, quota: u64, need: u64) -> Made {
        let limits = LimitsConfig {
            spool_quota: Size(quota),
            ..LimitsConfig::unlimited()
        };
        let uploads = self.0.path().join("uploads");
        let wanted = Wanted {
            spool: self.0.path(),
            uploads: &uploads,
            id: None,
            need,
        };
        make_room(&wanted, &limits, 0).unwrap()
    }

    fn has(&self, id: DumpId, kind: &EntryKind) -> bool {
        self.0
            .path()
            .join(id.to_string())
            .join(kind.file_name())
            .exists()
    }

    fn manifest(&self, id: DumpId) -> Manifest {
        let entry = BundleWriter::from_entry(&self.0.path().join(id.to_string())).unwrap();
        entry.manifest().clone()
    }
}

const MIB: u64 = 1 << 20;

#[test]
fn the_oldest_cores_go_first_and_their_manifests_say_so() {
    let spool = Spool::new();
    let ids: Vec<_> = (0..4).map(|_| spool.dump(1 << 20, 4096)).collect();
    assert!(spool.make(8 * MIB, MIB).given_up.is_empty());
    let made = spool.make(4 * MIB, MIB);
    let given: Vec<_> = made
        .given_up
        .iter()
        .filter_map(|record| record.id)
        .collect();
    assert_eq!(given, ids[..2]);
    assert!(made.room >= MIB && used(spool.0.path()).unwrap() + made.room <= 4 * MIB);
    for (number, id) in ids.iter().enumerate() {
        assert_eq!(spool.has(*id, &CORE), number >= 2);
        assert!(spool.has(*id, &EntryKind::Minicore));
    }
    let manifest = spool.manifest(ids[0]);
    let Verdict::Empty {
        cause: Cause::Quota,
        evidence,
    } = &manifest.verdict
    else {
        panic!("{:?}", manifest.verdict)
    };
    assert!(
        evidence
            .as_ref()
            .unwrap()
            .contains("complete, 1048576 bytes")
    );
    assert!(manifest.core.is_none() && manifest.gaps.iter().any(|gap| gap.what == "core"));
    // It can still be shipped as it is.
    let entry = spool.0.path().join(ids[0].to_string());
    let bundle = spool.0.path().join("bundle.zip");
    let mut file = fs::File::create(&bundle).unwrap();
    io::copy(
        &mut BundleWriter::from_entry(&entry).unwrap().reader(),
        &mut file,
    )
    .unwrap();
    let source = cdh_elfcore::FileSource::new(fs::File::open(&bundle).unwrap()).unwrap();
    let reader = BundleReader::open(std::sync::Arc::new(source)).unwrap();
    assert!(reader.verify().unwrap().is_good());
}

#[test]
fn then_minicores_and_then_whole_dumps() {
    let spool = Spool::new();
    let ids: Vec<_> = (0..3).map(|_| spool.dump(256 << 10, 512 << 10)).collect();
    let made = spool.make(MIB + MIB / 4, 0);
    assert_eq!(made.given_up.len(), 4, "{:?}", made.given_up);
    assert!(ids.iter().all(|id| !spool.has(*id, &CORE)));
    assert!(!spool.has(ids[0], &EntryKind::Minicore) && spool.has(ids[1], &EntryKind::Minicore));
    let made = spool.make(8192, 0);
    let removed = made
        .given_up
        .iter()
        .filter(|record| record.outcome == Outcome::Removed);
    assert!(removed.count() >= 2);
    assert!(used(spool.0.path()).unwrap() <= 8192);
}

#[test]
fn what_may_never_be_written_costs_cores_and_no_stacks() {
    let spool = Spool::new();
    let ids: Vec<_> = (0..3).map(|_| spool.dump(256 << 10, 512 << 10)).collect();
    spool.make(6 * MIB, 100 * MIB);
    for id in ids {
        assert!(spool.has(id, &EntryKind::Minicore));
    }
}

#[test]
fn what_is_being_sent_or_written_is_left_alone() {
    let spool = Spool::new();
    let sent = spool.dump(1 << 20, 4096);
    let begun = spool.dump(1 << 20, 4096);
    let (partial, _manifest) = spool.partial(1 << 20, 4096);
    let _lock = EntryLock::take(&spool.0.path().join(sent.to_string())).unwrap();
    fs::create_dir(spool.0.path().join("uploads")).unwrap();
    fs::write(spool.0.path().join(format!("uploads/{begun}.journal")), "").unwrap();
    let made = spool.make(MIB, 0);
    assert!(made.given_up.is_empty() && made.room == 0, "{made:?}");
    assert!(spool.has(sent, &CORE) && spool.has(begun, &CORE));
    assert!(partial.path().join(CORE.file_name()).exists());
}

#[test]
fn two_who_need_room_do_not_count_on_the_same() {
    let spool = Spool::new();
    let limits = LimitsConfig {
        spool_quota: Size(10 * MIB),
        ..LimitsConfig::unlimited()
    };
    let uploads = spool.0.path().join("uploads");
    let need = |entry: &EntryDir| {
        let wanted = Wanted {
            spool: spool.0.path(),
            uploads: &uploads,
            id: Some(entry.id()),
            need: 6 * MIB,
        };
        make_room(&wanted, &limits, 0).unwrap().room
    };
    let (first, _) = spool.partial(0, 0);
    let (second, _) = spool.partial(0, 0);
    assert!(need(&first) > 9 * MIB);
    assert!(need(&second) <= 4 * MIB);
    forget_need(first.path());
    assert!(used(spool.0.path()).unwrap() < 6 * MIB);
}

#[test]
fn bounds_are_bytes_and_percents() {
    let limits = |quota: u64, percent: u8, floor: Option<u64>, floor_percent: u8| LimitsConfig {
        spool_quota: Size(quota),
        spool_quota_percent: percent,
        disk_floor: floor.map(Size),
        disk_floor_percent: floor_percent,
        ..LimitsConfig::unlimited()
    };
    let of = |limits: &LimitsConfig| Bounds::of(Path::new("/"), limits, 0).unwrap().quota;
    assert_eq!(of(&limits(0, 0, None, 0)), u64::MAX);
    assert_eq!(of(&limits(5, 50, None, 0)), 5);
    assert!(of(&limits(u64::MAX, 50, None, 0)) < u64::MAX / 2);
    assert_eq!(floor_of(&limits(0, 0, None, 0), 256, 2000), 100);
    assert_eq!(floor_of(&limits(0, 0, Some(300), 0), 256, 2000), 300);
    assert_eq!(floor_of(&limits(0, 0, Some(300), 50), 256, 2000), 1000);
}

#[test]
fn planted_links_in_the_spool_lead_nowhere() {
    let spool = Spool::new();
    let victim = tempfile::tempdir().unwrap();
    fs::write(victim.path().join("core"), vec![1; 1 << 20]).unwrap();
    let link = spool.0.path().join(DumpId::random().to_string());
    std::os::unix::fs::symlink(victim.path(), &link).unwrap();
    let id = spool.dump(4096, 4096);
    let entry = spool.0.path().join(id.to_string());
    let core = entry.join(CORE.file_name());
    fs::remove_file(&core).unwrap();
    std::os::unix::fs::symlink(victim.path().join("core"), &core).unwrap();
    spool.make(1, 0);
    assert_eq!(
        fs::metadata(victim.path().join("core")).unwrap().len(),
        1 << 20
    );
    assert!(link.symlink_metadata().is_ok());
}
