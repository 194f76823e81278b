use super::*;
use crate::owner::Owner;
use crate::policy::Seconds;

const POD: &str = "6a9b4a0c-8f1d-4f58-9a3b-2f64ab1d7c1";

fn rates(state: &Path) -> Rates {
    let config = RateConfig {
        window: Seconds(60),
        fingerprint_full: 1,
        fingerprint_dumps: 3,
        workload_full: 2,
        workload_dumps: 0,
    };
    Rates::of(state, &config)
}

fn user(uid: u32) -> Account {
    Account::new(None, None, Some(uid), Some(1))
}

fn pod(number: u32, controller: Option<&str>) -> Account {
    let uid = format!("{POD}{number:x}");
    Account::new(Some(&Owner::Pod { uid }), controller, Some(0), Some(1))
}

fn subject<'a>(account: &'a Account, workload: &'a str, fingerprint: &'a str) -> Subject<'a> {
    Subject {
        account,
        workload,
        fingerprint,
    }
}

const FULL: Action = Action::Full;
const SMALL: Action = Action::Minicore;
const NONE: Action = Action::Ignore;

#[test]
fn rates_allow_a_core_then_minicores_then_only_counts_per_window() {
    let state = tempfile::tempdir().unwrap();
    let rates = rates(state.path());
    let root = user(0);
    let admit = |now| rates.admit(subject(&root, "w1", "f1"), FULL, now).0;
    let found: Vec<Action> = (0..5).map(|_| admit(1000)).collect();
    assert_eq!(found, [FULL, SMALL, SMALL, NONE, NONE]);
    // A crash of the second before, counted late.
    assert_eq!(admit(999), NONE);
    assert_eq!(admit(1059), NONE);
    assert_eq!(admit(1060), FULL);
    // A clock that was set back.
    assert_eq!(admit(500), FULL);
    let why = rates.admit(subject(&root, "w1", "f1"), FULL, 500).1;
    let text = "1 crashes of this fingerprint have their core within 1m".to_owned();
    assert_eq!(why.unwrap(), (DropReason::RateFingerprint, text));
}

#[test]
fn rates_of_one_owner_do_not_affect_others() {
    let state = tempfile::tempdir().unwrap();
    let rates = rates(state.path());
    let (attacker, victim) = (user(65534), user(1000));
    for _ in 0..50 {
        rates.admit(subject(&attacker, "/usr/bin/app", "f1"), FULL, 7);
    }
    let found: Vec<Action> = (0..2)
        .map(|_| {
            rates
                .admit(subject(&victim, "/usr/bin/app", "f1"), FULL, 7)
                .0
        })
        .collect();
    assert_eq!(found, [FULL, SMALL]);
    // Two pods of different controllers with one library and one fingerprint.
    let (api, db) = (
        pod(1, Some("shop/Deployment/api")),
        pod(2, Some("shop/StatefulSet/db")),
    );
    for _ in 0..50 {
        rates.admit(subject(&api, "", "f1"), FULL, 7);
    }
    assert_eq!(rates.admit(subject(&db, "", "f1"), FULL, 7).0, FULL);
}

#[test]
fn rates_group_limits_its_owners_except_their_first_core() {
    let state = tempfile::tempdir().unwrap();
    let config = RateConfig {
        window: Seconds(60),
        workload_full: 2,
        workload_dumps: 3,
        ..RateConfig::unlimited()
    };
    let rates = Rates::of(state.path(), &config);
    let controller = Some("shop/Deployment/api");
    // A controller that replaces its pod after two crashes, repeatedly.
    let crash = |number: u32| rates.admit(subject(&pod(number, controller), "", "f"), FULL, 7);
    let found: Vec<(Action, Action)> = (0..7).map(|n| (crash(n).0, crash(n).0)).collect();
    assert_eq!(found[..4], [(FULL, FULL); 4]);
    // 2 cores for each of 4 pods, then one for the first crash of each pod until the 12 dumps are
    // used up.
    assert_eq!(found[4..], [(FULL, SMALL), (FULL, SMALL), (NONE, NONE)]);
    let (reason, why) = crash(9).1.unwrap();
    assert_eq!(reason, DropReason::RateWorkload);
    assert_eq!(
        why,
        "12 crashes of this controller or user have a dump within 1m"
    );
    assert!(rates.is_spent(&pod(10, controller), "", 7).is_some());
    assert_eq!(rates.is_spent(&pod(10, Some("shop/Job/x")), "", 7), None);
}

#[test]
fn rates_limit_each_workload() {
    let state = tempfile::tempdir().unwrap();
    let rates = rates(state.path());
    let root = user(0);
    let admit = |fingerprint: &str| rates.admit(subject(&root, "w", fingerprint), FULL, 0);
    assert_eq!((admit("a").0, admit("b").0), (FULL, FULL));
    let (action, why) = admit("c");
    assert_eq!((action, why.unwrap().0), (SMALL, DropReason::RateWorkload));
    rates.give_back(subject(&root, "w", "b"), 0);
    assert_eq!(admit("b").0, FULL);
    // A dump without a core does not use the budget for cores.
    let small = rates.admit(subject(&root, "v", "d"), Action::Metadata, 0);
    assert_eq!(small, (Action::Metadata, None));
    assert_eq!(rates.admit(subject(&root, "v", "d"), FULL, 0).0, FULL);
}

#[test]
fn rates_admit_the_exact_number_of_concurrent_crashes() {
    let state = tempfile::tempdir().unwrap();
    let rates = rates(state.path());
    let root = user(0);
    let admit = || rates.admit(subject(&root, "w", "x"), FULL, 7).0;
    let found = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..16).map(|_| scope.spawn(admit)).collect();
        let found = threads.into_iter().map(|thread| thread.join().unwrap());
        found.collect::<Vec<_>>()
    });
    let count = |wanted| found.iter().filter(|action| **action == wanted).count();
    assert_eq!((count(FULL), count(SMALL), count(NONE)), (1, 2, 13));
}

#[test]
fn rates_flood_of_fingerprints_evicts_only_its_own_counters() {
    let state = tempfile::tempdir().unwrap();
    let rates = rates(state.path());
    let (attacker, victim) = (user(65534), user(1000));
    rates.admit(subject(&victim, "app", "old"), FULL, 1);
    let file = state.path().join("rates/counts.json");
    let mut counts: Counts = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    for number in 0..KEYS + 50 {
        let window = Window {
            start: 2,
            ..Window::default()
        };
        counts.insert(format!("f|user:65534|user:65534|{number}"), window);
    }
    std::fs::write(&file, serde_json::to_vec(&counts).unwrap()).unwrap();
    rates.admit(subject(&attacker, "evil", "new"), FULL, 3);
    let left: Counts = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    assert!(left.len() <= KEYS);
    for key in [
        "f|user:65534|user:65534|new",
        "g|user:65534",
        "f|user:1000|user:1000|old",
        "w|user:1000|user:1000|app",
        "g|user:1000",
    ] {
        assert!(left.contains_key(key), "{key}");
    }
}

#[test]
fn rates_file_stays_within_its_limit_with_hostile_names() {
    let state = tempfile::tempdir().unwrap();
    let long = "\u{1}\"\\|é".repeat(400);
    let rates = rates(state.path());
    let mut counts = Counts::new();
    for number in 0..KEYS / 3 + 20 {
        let group = format!("ns{number}/{long}");
        let account = pod(1, Some(&group));
        for (key, _) in rates.limits(subject(&account, &long, &long)) {
            counts.insert(key, Window::default());
        }
    }
    shrink(&mut counts);
    assert_eq!(counts.len(), KEYS);
    assert!((serde_json::to_vec(&counts).unwrap().len() as u64) < LIMIT);
}

#[test]
fn rates_admit_everything_with_invalid_counts() {
    let state = tempfile::tempdir().unwrap();
    let rates = rates(state.path());
    let root = user(0);
    std::fs::create_dir_all(state.path().join("rates")).unwrap();
    std::fs::write(state.path().join("rates/counts.json"), "{").unwrap();
    assert_eq!(rates.admit(subject(&root, "w", "new"), FULL, 1).0, FULL);
    assert_eq!(rates.is_spent(&root, "w", 1), None);
}
