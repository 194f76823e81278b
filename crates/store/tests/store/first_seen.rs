//! The index of first times: what writers store, what readers derive from it, and what it costs.

use std::collections::HashMap;

use cdh_store::{FirstSeenIndex, FirstSeenWriter, Reach, SurveyOptions};
use jiff::{SignedDuration, Timestamp};

use super::*;

const OLD: &str = "aaaaaaaa00000000";
const NEW: &str = "bbbbbbbb00000000";

fn hours_ago(hours: i64) -> Timestamp {
    Timestamp::now() - SignedDuration::from_hours(hours)
}

impl House {
    fn crash(&self, fingerprint: &str, at: Timestamp) -> DumpId {
        self.ship(|manifest| {
            manifest.fingerprint = Some(fingerprint.to_owned());
            manifest.captured_at = at;
        })
    }

    /// When a crash was first seen, by a query that only sees the last day.
    fn first(&self, fingerprint: &str, enough: Option<Timestamp>) -> (Option<Timestamp>, Reach) {
        let query = Query {
            since: Some(hours_ago(24)),
            ..Query::default()
        };
        let now = Timestamp::now();
        let options = SurveyOptions { enough, now };
        let survey = Catalog::new(&self.store).survey(&query, options).unwrap();
        let seen = survey.first_seen;
        (seen.first(fingerprint.get(..8).unwrap()), seen.reach())
    }

    fn forget_index(&self) {
        fs::remove_dir_all(self.root.path().join("store/first-seen")).unwrap();
    }

    fn plant(&self, name: &str) {
        let key = key(&format!("first-seen/{name}"));
        self.store.put(&key, &mut b"x".as_slice(), 1).unwrap();
    }
}

fn second(time: Timestamp) -> Option<Timestamp> {
    Timestamp::from_second(time.as_second()).ok()
}

#[test]
fn first_seen_ignores_the_time_filter_and_outlives_the_dump() {
    let house = House::new();
    let (first, last) = (hours_ago(24 * 200), hours_ago(2));
    let oldest = house.crash(OLD, first);
    house.crash(OLD, last);
    house.crash(NEW, last);
    let index: Vec<_> = keys(&house.store, "first-seen/");
    let time = |time: Timestamp| time.strftime("%Y%m%dT%H%M%SZ").to_string();
    assert_eq!(
        index,
        [
            format!("first-seen/aaaaaaaa_{}", time(first)),
            format!("first-seen/bbbbbbbb_{}", time(last)),
            "first-seen/since_19700101T000000Z".to_owned(),
        ]
    );
    assert_eq!(house.first(OLD, None), (second(first), Reach::Whole));
    assert_eq!(house.first(NEW, None), (second(last), Reach::Whole));
    let dump = Catalog::new(&house.store).resolve(&oldest.to_string());
    remove_dump(&house.store, &dump.unwrap()).unwrap();
    assert_eq!(house.first(OLD, None), (second(first), Reach::Whole));
    // It also counts without a filter.
    let now = Timestamp::now();
    let options = SurveyOptions { enough: None, now };
    let survey = Catalog::new(&house.store).survey(&Query::default(), options);
    assert_eq!(survey.unwrap().first_seen.first("aaaaaaaa"), second(first));
}

#[test]
fn first_seen_takes_the_minimum_of_writers_out_of_order() {
    let house = House::new();
    let (early, late) = (hours_ago(30), hours_ago(3));
    house.crash(OLD, late);
    house.crash(OLD, early);
    house.crash(OLD, hours_ago(4));
    // One object for each time that was the oldest at its arrival.
    assert_eq!(keys(&house.store, "first-seen/aaaaaaaa").len(), 2);
    assert_eq!(house.first(OLD, None).0, second(early));
}

#[test]
fn store_from_before_the_index_is_looked_back_and_says_how_far() {
    let house = House::new();
    let (ancient, old, last) = (hours_ago(24 * 120), hours_ago(24 * 20), hours_ago(2));
    house.crash(OLD, ancient);
    house.crash(OLD, old);
    house.forget_index();
    house.crash(OLD, last);
    house.crash(NEW, last);
    let markers = keys(&house.store, "first-seen/since");
    assert!(!markers[0].contains("1970"), "{markers:?}");
    // The store has dumps that are older than the search goes: times may be too late, and are
    // marked so.
    let (first, reach) = house.first(OLD, None);
    assert_eq!(first, second(old));
    assert!(matches!(reach, Reach::Since(since) if since > ancient && since < old));
    // That is enough to know that a crash is not new, but not for others.
    let day = Some(hours_ago(24));
    assert_eq!(house.first(OLD, day).0, second(old));
    assert!(matches!(house.first(NEW, day).1, Reach::Since(_)));
    // A caller that has listed all dumps completes the index.
    let catalog = Catalog::new(&house.store);
    let all = catalog.find(&Query::default()).unwrap();
    assert_eq!(
        catalog.complete_first_seen(&all, Timestamp::now()).unwrap(),
        1
    );
    assert_eq!(
        catalog.complete_first_seen(&all, Timestamp::now()).unwrap(),
        0
    );
    assert_eq!(house.first(OLD, None), (second(ancient), Reach::Whole));
}

#[test]
fn look_back_ends_with_the_oldest_day_of_the_store() {
    let house = House::new();
    let old = hours_ago(24 * 20);
    house.crash(OLD, old);
    house.forget_index();
    house.crash(OLD, hours_ago(2));
    assert_eq!(house.first(OLD, None), (second(old), Reach::Whole));
}

#[test]
fn hostile_objects_of_the_index_do_no_harm() {
    let house = House::new();
    let last = hours_ago(2);
    house.crash(NEW, last);
    for name in [
        "bbbbbbbb_!",
        "bbbbbbbb_99990101T000000Z",
        "bbbbbbbb_20269999T999999Z",
        "since_99990101T000000Z",
        "since_",
        "aaaaaaaa_19700101T000000Z/below",
        "3fa85f64-5717-4562-b3fc-2c963f66afa6-dump-1700000000-my-pod-0-server-7-11.zip",
        "2026-01-31/123456Z_a_b_c_SIGSEGV_bbbbbbbb_complete_3fa85f64-5717-4562-b3fc-2c963f66afa6.zip",
    ] {
        house.plant(name);
    }
    for number in 0..2000 {
        house.plant(&format!("bbbbbbbb_{number:05}"));
        house.plant(&format!("bbbbbbbb_2999010{}T{number:06}Z", number % 9 + 1));
    }
    assert_eq!(house.first(NEW, None), (second(last), Reach::Whole));
    assert_eq!(house.find(&Query::default()).len(), 1);
    assert_eq!(
        house
            .find(&Query {
                limit: Some(9),
                ..Query::default()
            })
            .len(),
        1
    );
    let mut paged = 0;
    let mut count = |page: Vec<DumpSummary>| {
        paged += page.len();
        ControlFlow::Continue(())
    };
    Catalog::new(&house.store).pages(&mut count).unwrap();
    assert_eq!(paged, 1);
    // A writer with an empty cache ignores them or adds one object.
    house.crash(NEW, hours_ago(1));
    assert_eq!(house.first(NEW, None), (second(last), Reach::Whole));
}

#[test]
fn dumps_without_a_usable_fingerprint_are_not_indexed() {
    let house = House::new();
    house.ship(|manifest| manifest.fingerprint = None);
    for odd in ["", "0123", "ABCDEF0123456789", "since_00", "../../../x"] {
        house.ship(|manifest| manifest.fingerprint = Some(odd.to_owned()));
    }
    // With a clock that is ahead, a crash would look new for ever.
    house.crash(NEW, Timestamp::now() + SignedDuration::from_hours(5));
    let index = keys(&house.store, "first-seen/");
    assert_eq!(index, ["first-seen/since_19700101T000000Z"]);
}

/// Refuses writes below `first-seen/` while the test requests it.
struct Refusing<'s> {
    inner: &'s DirectoryStore,
    refuses: std::sync::atomic::AtomicBool,
    lists: Mutex<HashMap<String, usize>>,
}

impl Refusing<'_> {
    fn judge(&self, key: &str) -> Result<(), StoreError> {
        match key.starts_with("first-seen/") && self.refuses.load(Ordering::Relaxed) {
            true => Err(StoreError::Refused {
                place: "here".to_owned(),
                said: "no".to_owned(),
            }),
            false => Ok(()),
        }
    }
}

impl Store for Refusing<'_> {
    cdh_testkit::forward_store!(inner: stat read_pinned share delete);

    fn describe(&self) -> String {
        "refusing".to_owned()
    }

    fn put(&self, key: &ObjectKey, body: &mut dyn Read, len: u64) -> Result<Receipt, StoreError> {
        self.judge(key.as_str())?;
        self.inner.put(key, body, len)
    }

    fn list(
        &self,
        listing: &Listing<'_>,
        visit: &mut dyn FnMut(Listed) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        let mut lists = self.lists.lock().unwrap();
        *lists.entry(listing.under.to_owned()).or_default() += 1;
        drop(lists);
        self.inner.list(listing, visit)
    }
}

#[test]
fn index_that_cannot_be_written_fails_no_shipment_and_is_written_later() {
    let house = House::new();
    let store = Refusing {
        inner: &house.store,
        refuses: true.into(),
        lists: Mutex::default(),
    };
    let writer = FirstSeenWriter::default();
    let send = |fingerprint: &str, at: Timestamp| {
        let mut manifest = manifest();
        manifest.fingerprint = Some(fingerprint.to_owned());
        manifest.captured_at = at;
        let bundle = house.bundle(manifest);
        let options = cdh_store::ShipOptions {
            journal: &house.root.path().join("journal"),
            flow: &|_| cdh_store::Flow::Go,
            first_seen: &writer,
        };
        cdh_store::ship_resumable(&store, &bundle, &options).unwrap();
    };
    let first = hours_ago(40);
    send(OLD, first);
    assert_eq!(house.find(&Query::default()).len(), 1);
    assert!(keys(&house.store, "first-seen/").is_empty());
    store.refuses.store(false, Ordering::Relaxed);
    send(NEW, hours_ago(1));
    send(OLD, hours_ago(1));
    let index = FirstSeenIndex::read(&house.store, Timestamp::now()).unwrap();
    assert_eq!(index.first("aaaaaaaa"), second(first));
    // The store had a dump that the index lacked, so it is not marked as complete.
    assert!(!index.is_whole() && index.since().is_some());
    // Each fingerprint is looked up once.
    for _ in 0..5 {
        send(OLD, hours_ago(1));
    }
    let lists = store.lists.lock().unwrap();
    assert_eq!(lists.get("first-seen/aaaaaaaa_"), Some(&1), "{lists:?}");
    assert_eq!(keys(&house.store, "first-seen/aaaaaaaa").len(), 1);
}

#[test]
fn dumps_of_one_second_are_ordered_by_nanoseconds() {
    let house = House::new();
    let at = |text: &str| house.ship(|manifest| manifest.captured_at = text.parse().unwrap());
    let third = at("2026-01-31T12:34:56.7Z");
    let first = at("2026-01-31T12:34:56.000000001Z");
    let last = at("2026-01-31T12:34:56.900000001Z");
    let second = at("2026-01-31T12:34:56.000000002Z");
    let before = at("2026-01-31T12:34:55Z");
    let catalog = Catalog::new(&house.store);
    let order = ["latest", "~1", "~2", "~3", "~4"].map(|text| catalog.resolve(text).unwrap().id);
    assert_eq!(order, [last, third, second, first, before]);
    let mut dumps = catalog.find(&Query::default()).unwrap();
    assert!(!catalog.sort_equal_seconds(&mut dumps, 3));
    assert!(catalog.sort_equal_seconds(&mut dumps, 4));
    let ids: Vec<_> = dumps.iter().map(|dump| dump.id).collect();
    assert_eq!(ids, order);
}
