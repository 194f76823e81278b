use std::time::Duration;

use cdh_bundle::{BundleReader, BundleWriter, CoreRecord, EntryDir};

use std::io;

use cdh_bundle::{Cause, CoreEncoding, EntryKind, Manifest, Verdict};

use super::super::EntryLock;
use super::super::charged_entry::share_note;
use super::*;
use crate::handler::HandlerArguments;
use crate::handler::record::identity::first_manifest;
use crate::outcome::Outcome;
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
        self.dump_of(None, core, minicore)
    }

    fn dump_of(&self, account: Option<&Account>, core: usize, minicore: usize) -> DumpId {
        let (entry, manifest) = self.partial(core, minicore);
        let id = manifest.id;
        if let Some(account) = account {
            fs::write(entry.path().join(share_note(account)), "").unwrap();
        }
        entry.seal(manifest).unwrap();
        // So that the next one is newer.
        std::thread::sleep(Duration::from_millis(5));
        id
    }

    fn make(&self, quota: u64, need: u64) -> Made {
        self.make_for(None, quota, need)
    }

    fn make_for(&self, account: Option<&Account>, quota: u64, need: u64) -> Made {
        self.make_of(None, account, quota, need)
    }

    /// A dump whose core was deleted, or that never had one.
    fn dump_without_core(&self, account: &Account, minicore: usize) -> DumpId {
        let (entry, mut manifest) = self.partial(0, minicore);
        fs::remove_file(entry.path().join(CORE.file_name())).unwrap();
        fs::write(entry.path().join(share_note(account)), "").unwrap();
        manifest.core = None;
        let id = manifest.id;
        entry.seal(manifest).unwrap();
        id
    }

    /// A dump that is being written, with its room.
    fn begin(&self, account: &Account, quota: u64, need: u64) -> (EntryDir, Made) {
        let (entry, _) = self.partial(0, 0);
        fs::write(entry.path().join(share_note(account)), "").unwrap();
        let made = self.make_of(Some(entry.id()), Some(account), quota, need);
        (entry, made)
    }

    fn make_of(
        &self,
        id: Option<DumpId>,
        account: Option<&Account>,
        quota: u64,
        need: u64,
    ) -> Made {
        let limits = LimitsConfig {
            spool_quota: Size(quota),
            ..LimitsConfig::unlimited()
        };
        let uploads = self.0.path().join("uploads");
        let wanted = Wanted {
            spool: self.0.path(),
            uploads: &uploads,
            id,
            need,
            account,
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
fn quota_deletes_the_oldest_cores_first_and_amends_their_manifests() {
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
    // It can still be shipped in its current state.
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
fn quota_deletes_minicores_and_then_complete_dumps() {
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
fn quota_deletes_only_cores_for_an_uncertain_need() {
    let spool = Spool::new();
    let ids: Vec<_> = (0..3).map(|_| spool.dump(256 << 10, 512 << 10)).collect();
    spool.make(6 * MIB, 100 * MIB);
    for id in ids {
        assert!(spool.has(id, &EntryKind::Minicore));
    }
}

#[test]
fn quota_does_not_touch_entries_in_progress() {
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
fn quota_concurrent_handlers_do_not_share_room() {
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
            account: None,
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
fn quota_bounds_combine_bytes_and_percentages() {
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
fn quota_does_not_follow_planted_links() {
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

fn user(uid: u32) -> Account {
    Account::new(None, None, Some(uid), Some(1))
}

fn setuid(uid: u32) -> Account {
    Account::new(None, None, Some(uid), Some(2))
}

#[test]
fn quota_deletes_from_the_largest_owner_first() {
    /// Five dumps, including their small files.
    const QUOTA: u64 = 5 * MIB + MIB / 2;
    let spool = Spool::new();
    let (victim, attacker) = (user(1000), user(65534));
    let kept = spool.dump_of(Some(&victim), 1 << 20, 4096);
    let mut flood = Vec::new();
    for _ in 0..8 {
        spool.make_for(Some(&attacker), QUOTA, MIB);
        flood.push(spool.dump_of(Some(&attacker), 1 << 20, 4096));
    }
    assert!(spool.has(kept, &CORE));
    let left: Vec<bool> = flood.iter().map(|id| spool.has(*id, &CORE)).collect();
    assert_eq!(left, [false, false, false, false, true, true, true, true]);
    // The victim's next dumps are stored too, at the attacker's cost, up to an equal share.
    for _ in 0..2 {
        let made = spool.make_for(Some(&victim), QUOTA, MIB);
        assert!(made.room >= MIB, "{made:?}");
        spool.dump_of(Some(&victim), 1 << 20, 4096);
    }
    assert!(spool.has(kept, &CORE));
    assert!(spool.has(flood[6], &CORE) && !spool.has(flood[5], &CORE));
    // Above that share, the victim's own dumps are deleted.
    spool.make_for(Some(&victim), QUOTA, MIB);
    assert!(!spool.has(kept, &CORE) && spool.has(flood[6], &CORE));
}

#[test]
fn quota_makes_room_for_the_first_dump_of_an_owner() {
    let spool = Spool::new();
    let accounts: Vec<Account> = (1..=3).map(user).collect();
    let ids: Vec<DumpId> = (0..6)
        .map(|n| spool.dump_of(accounts.get(n % 3), 1 << 20, 4096))
        .collect();
    // It is larger than each of them.
    let made = spool.make_for(Some(&user(9)), 6 * MIB + MIB / 2, 3 * MIB);
    assert!(made.room >= 3 * MIB, "{made:?}");
    let left: Vec<bool> = ids.iter().map(|id| spool.has(*id, &CORE)).collect();
    assert_eq!(left, [false, false, false, true, true, true]);
    // No owner loses its last dump for it.
    let made = spool.make_for(Some(&user(9)), 4 * MIB, 2 * MIB);
    assert!(made.given_up.is_empty(), "{made:?}");
}

#[test]
fn quota_of_setuid_dumps_preserves_the_first_ones() {
    let spool = Spool::new();
    let first = spool.dump_of(Some(&setuid(65534)), 256 << 10, 4096);
    let attacker = user(65534);
    for _ in 0..6 {
        spool.make_for(Some(&attacker), 4 * MIB, MIB);
        spool.dump_of(Some(&attacker), 1 << 20, 4096);
    }
    assert!(spool.has(first, &CORE));
    assert!(used(spool.0.path()).unwrap() <= 4 * MIB + 64 * 1024);
    // A quarter of the quota and not more, however many setuid programs crash.
    for _ in 0..6 {
        let made = spool.make_for(Some(&setuid(65534)), 4 * MIB, 512 << 10);
        if made.room >= 512 << 10 {
            spool.dump_of(Some(&setuid(65534)), 512 << 10, 4096);
        }
    }
    assert!(spool.has(first, &CORE));
    let made = spool.make_for(Some(&setuid(65534)), 4 * MIB, 512 << 10);
    assert!(made.room < 256 << 10, "{made:?}");
    // The first dump of another user gets the room of the larger user's newest one.
    let made = spool.make_for(Some(&setuid(1000)), 4 * MIB, 256 << 10);
    assert!(made.room >= 256 << 10, "{made:?}");
    assert!(spool.has(first, &CORE));
}

#[test]
fn quota_reserves_room_for_other_owners_during_a_flood() {
    const QUOTA: u64 = 64 * MIB;
    for (victim, attacker, quota) in [
        (user(1000), user(65534), QUOTA),
        (setuid(1000), setuid(65534), QUOTA * 4),
    ] {
        let spool = Spool::new();
        let begin = |account, need| spool.begin(account, quota, need).1.room;
        // Alone, with one dump: all of the quota.
        assert!(begin(&attacker, 24 * MIB) >= 60 * MIB);
        for _ in 0..10 {
            begin(&attacker, 24 * MIB);
        }
        let flooded = used(spool.0.path()).unwrap();
        assert!(flooded <= QUOTA * 3 / 4 + MIB, "{flooded}");
        let room = begin(&victim, 8 * MIB);
        assert!(room >= 8 * MIB, "{room}");
        // With other owners present, the attacker's flood ends below half of the quota.
        assert_eq!(begin(&attacker, 24 * MIB), 0);
        let room = begin(&victim, 4 * MIB - 256 * 1024);
        assert!(room < 4 * MIB, "{room}: the victim leaves others room too");
    }
}

#[test]
fn quota_owner_in_progress_is_not_a_first_owner() {
    const QUOTA: u64 = 16 * MIB;
    let spool = Spool::new();
    let (victim, attacker) = (user(1000), user(65534));
    let kept: Vec<DumpId> = (0..5)
        .map(|_| spool.dump_of(Some(&victim), 1 << 20, 4096))
        .collect();
    for _ in 0..4 {
        let (_, made) = spool.begin(&attacker, QUOTA, 6 * MIB);
        assert!(made.given_up.is_empty(), "{made:?}");
    }
    assert!(kept.iter().all(|id| spool.has(*id, &CORE)));
}

/// A flood whose cores were deleted, and a victim within its share.
fn flooded() -> (Spool, Vec<DumpId>, Vec<DumpId>) {
    let spool = Spool::new();
    let victim = (0..3).map(|_| spool.dump_of(Some(&user(1000)), 1 << 20, 4096));
    let victim = victim.collect();
    let attacker = (0..6).map(|_| spool.dump_without_core(&user(65534), 1 << 20));
    let attacker = attacker.collect();
    (spool, victim, attacker)
}

#[test]
fn quota_owner_without_cores_is_not_a_first_owner() {
    let (spool, victim, attacker) = flooded();
    let made = spool.make_for(Some(&user(65534)), 9 * MIB + MIB / 2, 3 * MIB);
    assert!(victim.iter().all(|id| spool.has(*id, &CORE)));
    let is_own = |record: &LedgerRecord| record.id.is_some_and(|id| attacker.contains(&id));
    assert!(made.given_up.iter().all(is_own), "{made:?}");
}

#[test]
fn quota_setuid_dump_does_not_evict_a_smaller_owner() {
    let (spool, victim, _) = flooded();
    spool.make_for(Some(&setuid(65534)), 9 * MIB + MIB / 2, 2 * MIB);
    assert!(victim.iter().all(|id| spool.has(*id, &CORE)));
}

#[test]
fn quota_prefers_minicores_of_the_largest_owner_to_cores_of_others() {
    let (spool, victim, attacker) = flooded();
    for account in [user(7), user(6)] {
        let made = spool.make_for(Some(&account), 9 * MIB + 3 * MIB / 4, 3 * MIB / 2);
        assert!(made.room >= 3 * MIB / 2, "{made:?}");
        assert!(victim.iter().all(|id| spool.has(*id, &CORE)), "{made:?}");
        spool.dump_of(Some(&account), 1280 << 10, 4096);
    }
    let minicore = |id: &DumpId| spool.has(*id, &EntryKind::Minicore);
    let left: Vec<bool> = attacker.iter().map(minicore).collect();
    assert_eq!(left, [false, false, false, true, true, true]);
    // Below the average, it loses no more minicores.
    let made = spool.make_for(Some(&user(8)), 6 * MIB, 2 * MIB);
    assert!(attacker.get(3..).unwrap().iter().any(minicore), "{made:?}");
}

#[test]
fn quota_prefers_minicores_of_the_largest_owner_that_has_one_core_left() {
    let (spool, victim, attacker) = flooded();
    let last = spool.dump_of(Some(&user(65534)), 1 << 20, 1 << 20);
    let made = spool.make_for(Some(&user(1000)), 11 * MIB + MIB / 2, MIB);
    assert!(made.room >= MIB, "{made:?}");
    assert!(victim.iter().all(|id| spool.has(*id, &CORE)), "{made:?}");
    assert!(spool.has(last, &CORE) && spool.has(last, &EntryKind::Minicore));
    assert!(!spool.has(attacker[0], &EntryKind::Minicore));
}

#[test]
fn quota_makes_room_for_two_concurrent_first_crashes() {
    let spool = Spool::new();
    let ids: Vec<DumpId> = (0..6)
        .map(|_| spool.dump_of(Some(&user(1)), 1 << 20, 4096))
        .collect();
    // Each handler has written the head of its core when it asks for room.
    let begin = |account: &Account| {
        let (entry, _) = spool.partial(4096, 4096);
        fs::write(entry.path().join(share_note(account)), "").unwrap();
        entry
    };
    let first = user(9);
    let (one, _two) = (begin(&first), begin(&first));
    let made = spool.make_of(Some(one.id()), Some(&first), 7 * MIB, 3 * MIB);
    assert!(made.room >= 3 * MIB, "{made:?}");
    assert!(ids.iter().any(|id| spool.has(*id, &CORE)));
}

#[test]
fn quota_need_note_exists_until_the_entry_is_sealed() {
    use crate::spool::PartialEntry;
    let spool = Spool::new();
    let id = DumpId::random();
    let entry = PartialEntry::create(spool.0.path(), id).unwrap();
    let manifest = first_manifest(id, &HandlerArguments::default(), None);
    spool.make_of(Some(id), Some(&user(1)), 7 * MIB, 3 * MIB);
    let notes = |entry: &Path| {
        let names = fs::read_dir(entry).unwrap().flatten();
        let names = names.map(|file| file.file_name().into_string().unwrap());
        names.filter(|name| name.starts_with(NEED)).count()
    };
    entry.release_reserve();
    assert_eq!(notes(entry.path()), 1);
    let sealed = entry.seal(manifest).unwrap();
    assert_eq!(notes(&sealed), 0);
}
