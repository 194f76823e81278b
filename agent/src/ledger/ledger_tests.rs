use std::fs;

use cdh_bundle::{DumpId, RawText};
use rustix::fs::Mode;

use super::*;
use crate::outcome::Action;

fn record(outcome: Outcome, reason: Option<DropReason>) -> LedgerRecord {
    LedgerRecord {
        seq: 0,
        at: Timestamp::now(),
        outcome,
        reason,
        detail: None,
        id: None,
        action: Action::Full,
        name: RawText::from(&b"evil\n\xff\""[..]),
        exe: None,
        pid: 1,
        uid: None,
        signal: "SIGSEGV".to_owned(),
        fingerprint: None,
        workload: None,
        pod_uid: None,
        container_id: None,
        verdict: None,
        cause: Some(cdh_bundle::Cause::NoSpace),
        core_bytes: 100,
        stored_bytes: 10,
        seconds: 0.02,
        blocked_seconds: 0.0,
    }
}

#[test]
fn ledger_numbers_and_totals_records() {
    let state = tempfile::tempdir().unwrap();
    let ledger = Ledger::of(state.path());
    assert_eq!((ledger.totals().seq, ledger.since(0).len()), (0, 0));
    ledger.append(&record(Outcome::Kept, None)).unwrap();
    ledger
        .append(&record(Outcome::Dropped, Some(DropReason::Policy)))
        .unwrap();
    let third = ledger
        .append(&record(Outcome::Degraded, Some(DropReason::Quota)))
        .unwrap();
    assert_eq!(third, 3);
    let totals = ledger.totals();
    assert_eq!(
        (totals.seq, totals.crashes(), totals.of(Outcome::Dropped)),
        (3, 2, 1)
    );
    assert_eq!(totals.by_outcome["dropped/policy"], 1);
    assert_eq!(
        (
            totals.by_cause["no_space"],
            totals.core_bytes,
            totals.given_up_bytes
        ),
        (2, 200, 10)
    );
    let found = ledger.since(1);
    assert_eq!(
        found.iter().map(|record| record.seq).collect::<Vec<_>>(),
        [2, 3]
    );
    assert_eq!(found[0].name, record(Outcome::Kept, None).name);
}

#[test]
fn ledger_concurrent_appends_lose_nothing() {
    let state = tempfile::tempdir().unwrap();
    let ledger = Ledger::of(state.path());
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..25 {
                    ledger.append(&record(Outcome::Kept, None)).unwrap();
                }
            });
        }
    });
    assert_eq!(ledger.totals().crashes(), 200);
    let numbers: Vec<u64> = ledger.since(0).iter().map(|record| record.seq).collect();
    assert_eq!(numbers, (1..=200).collect::<Vec<_>>());
}

#[test]
fn ledger_torn_line_damages_only_itself() {
    let state = tempfile::tempdir().unwrap();
    let ledger = Ledger::of(state.path());
    ledger.append(&record(Outcome::Kept, None)).unwrap();
    let path = state.path().join("ledger/records.jsonl");
    let mut text = fs::read(&path).unwrap();
    text.extend_from_slice(b"{\"seq\":2,\"at\":\"20");
    fs::write(&path, text).unwrap();
    fs::write(state.path().join("ledger/totals.json"), "{").unwrap();
    assert_eq!(ledger.append(&record(Outcome::Kept, None)).unwrap(), 2);
    let numbers: Vec<u64> = ledger.since(0).iter().map(|record| record.seq).collect();
    assert_eq!(numbers, [1, 2]);
}

#[test]
fn ledger_limits_its_files_and_keeps_totals() {
    let state = tempfile::tempdir().unwrap();
    let ledger = Ledger::of(state.path());
    let open = ledger.open(Access::Write).unwrap();
    let mut totals = open.begin();
    for _ in 0..100 {
        open.append(&mut totals, &record(Outcome::Kept, None), 2000)
            .unwrap();
    }
    open.write_totals(&totals).unwrap();
    drop(open);
    for name in [RECORDS, OLDER] {
        assert!(
            fs::metadata(state.path().join("ledger").join(name))
                .unwrap()
                .len()
                <= 2000
        );
    }
    assert_eq!(ledger.totals().crashes(), 100);
    let left = ledger.since(0);
    assert!(left.len() < 20 && left.last().unwrap().seq == 100);
    assert_eq!(ledger.since(99).len(), 1);
}

#[test]
fn ledger_absorbs_the_fallback_ledger() {
    let root = tempfile::tempdir().unwrap();
    let (main, fallback) = (
        Ledger::of(&root.path().join("a")),
        Ledger::of(&root.path().join("b")),
    );
    assert_eq!(main.absorb(&fallback).unwrap(), 0);
    main.append(&record(Outcome::Kept, None)).unwrap();
    fallback
        .append(&record(Outcome::Dropped, Some(DropReason::Spool)))
        .unwrap();
    assert_eq!(main.absorb(&fallback).unwrap(), 1);
    assert_eq!(main.absorb(&fallback).unwrap(), 0);
    assert_eq!((main.totals().crashes(), main.since(0)[1].seq), (2, 2));
}

#[test]
fn ledger_does_not_follow_planted_links() {
    let root = tempfile::tempdir().unwrap();
    let state = root.path().join("state");
    let ledger = Ledger::of(&state);
    ledger.append(&record(Outcome::Kept, None)).unwrap();
    let victim = root.path().join("victim");
    fs::write(&victim, "precious").unwrap();
    let records = state.join("ledger/records.jsonl");
    for plant in [
        &|| std::os::unix::fs::symlink(&victim, &records) as io::Result<()>,
        &|| fs::hard_link(&victim, &records),
        &|| {
            Ok(rustix::fs::mknodat(
                rustix::fs::CWD,
                &records,
                rustix::fs::FileType::Fifo,
                Mode::RWXU,
                0,
            )?)
        },
    ] as [&dyn Fn() -> io::Result<()>; 3]
    {
        fs::remove_file(&records).unwrap();
        plant().unwrap();
        assert!(ledger.append(&record(Outcome::Kept, None)).is_err());
    }
    assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
}

/// Makes the file of started captures old enough to be evaluated.
fn settle(ledger: &Ledger, now: &dyn Fn(&DumpId) -> bool) -> usize {
    assert_eq!(ledger.end_lost(now).unwrap(), 0);
    let earlier = ledger.directory.join("begun.1.jsonl");
    let file = fs::File::options().append(true).open(earlier).unwrap();
    let old = std::time::SystemTime::now() - std::time::Duration::from_secs(60);
    file.set_modified(old).unwrap();
    ledger.end_lost(now).unwrap()
}

#[test]
fn ledger_ends_lost_captures_with_their_first_record() {
    let state = tempfile::tempdir().unwrap();
    let ledger = Ledger::of(state.path());
    assert_eq!(ledger.end_lost(|_| false).unwrap(), 0);
    let begun = |pid| LedgerRecord {
        id: Some(DumpId::random()),
        pid,
        ..record(Outcome::Dropped, Some(DropReason::Handler))
    };
    let [kept, ignored, lost, alive] = [1, 2, 3, 4].map(begun);
    for one in [&kept, &ignored, &lost, &alive] {
        ledger.begin(one).unwrap();
    }
    // A line truncated by a full disk damages only itself.
    let file = ledger.directory.join("begun.jsonl");
    let mut text = fs::read(&file).unwrap();
    text.extend_from_slice(b"\n{\"seq\":0,\"at");
    fs::write(&file, text).unwrap();
    let also_alive = begun(5);
    ledger.begin(&also_alive).unwrap();
    let end = |begun: &LedgerRecord, id, outcome| {
        let end = LedgerRecord {
            id,
            pid: begun.pid,
            ..record(outcome, None)
        };
        ledger.append(&end).unwrap();
    };
    end(&kept, kept.id, Outcome::Kept);
    end(&ignored, None, Outcome::Dropped);
    let has_entry = |id: &DumpId| [alive.id, also_alive.id].contains(&Some(*id));
    assert_eq!(settle(&ledger, &has_entry), 1);
    let records = ledger.since(2);
    assert_eq!(records.len(), 1);
    assert_eq!((records[0].pid, records[0].id), (3, None));
    assert_eq!(ledger.totals().by_outcome["dropped/handler"], 1);
    // Running captures are checked again later.
    let earlier = ledger.directory.join("begun.1.jsonl");
    assert!(earlier.exists());
    end(&alive, alive.id, Outcome::Kept);
    let old = std::time::SystemTime::now() - std::time::Duration::from_secs(60);
    let file = fs::File::options().append(true).open(&earlier).unwrap();
    file.set_modified(old).unwrap();
    assert_eq!(ledger.end_lost(|_| false).unwrap(), 1);
    assert!(!earlier.exists());
    assert_eq!(ledger.end_lost(|_| false).unwrap(), 0);
}

#[test]
fn ledger_limits_the_file_of_started_captures() {
    let state = tempfile::tempdir().unwrap();
    let ledger = Ledger::of(state.path());
    let one = record(Outcome::Dropped, Some(DropReason::Handler));
    for _ in 0..4000 {
        ledger.begin(&one).unwrap();
    }
    let names = ["begun.jsonl", "begun.1.jsonl"];
    let sizes = names.map(|name| fs::metadata(ledger.directory.join(name)).unwrap().len());
    assert!(
        sizes.iter().all(|size| *size <= (512 << 10) + 1024),
        "{sizes:?}"
    );
}
