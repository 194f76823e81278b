//! Keys, queries and references.

use super::*;

#[test]
fn queries_find_what_they_ask_for() {
    let house = House::new();
    let first =
        house.ship(|manifest| manifest.captured_at = "2026-01-01T00:00:00Z".parse().unwrap());
    let second = house.ship(|manifest| {
        manifest.captured_at = "2026-01-02T00:00:00.5Z".parse().unwrap();
        manifest.verdict = Verdict::Empty {
            cause: cdh_bundle::Cause::NoSpace,
            evidence: None,
        };
        manifest.signal = SignalFacts {
            number: 6,
            name: "SIGABRT".to_owned(),
            ..SignalFacts::default()
        };
        manifest.process.exe = Some(RawText::from("/opt/my worker"));
        manifest.workload = None;
        manifest.node = RawText::from("node-2");
        manifest.image = None;
        manifest.fingerprint = None;
    });
    let text = |text: &str| Some(text.to_owned());
    let all = Query::default;
    let table = [
        (all(), vec![second, first]),
        (
            Query {
                limit: Some(1),
                ..all()
            },
            vec![second],
        ),
        (
            Query {
                limit: Some(1),
                node: text("node-*"),
                ..all()
            },
            vec![second],
        ),
        (
            Query {
                namespace: text("sh*"),
                ..all()
            },
            vec![first],
        ),
        (
            Query {
                pod: text("api-???"),
                ..all()
            },
            vec![first],
        ),
        (
            Query {
                exe: text("my worker"),
                ..all()
            },
            vec![second],
        ),
        (
            Query {
                image: text("quay.io/shop/api"),
                ..all()
            },
            vec![first],
        ),
        (
            Query {
                image: text("*@sha256:00ff"),
                ..all()
            },
            vec![first],
        ),
        (
            Query {
                node: text("node-2"),
                ..all()
            },
            vec![second],
        ),
        (
            Query {
                signal: text("6"),
                ..all()
            },
            vec![second],
        ),
        (
            Query {
                signal: text("segv"),
                ..all()
            },
            vec![first],
        ),
        (
            Query {
                truncated: true,
                ..all()
            },
            vec![second],
        ),
        (
            Query {
                fingerprint: text("0123"),
                ..all()
            },
            vec![first],
        ),
        (
            Query {
                fingerprint: text("0123456789ab"),
                ..all()
            },
            vec![first],
        ),
        (
            Query {
                since: "2026-01-02T00:00:00.2Z".parse().ok(),
                ..all()
            },
            vec![second],
        ),
        (
            Query {
                until: "2026-01-01T12:00:00Z".parse().ok(),
                ..all()
            },
            vec![first],
        ),
        (
            Query {
                namespace: text("nope"),
                ..all()
            },
            vec![],
        ),
    ];
    for (query, expected) in table {
        assert_eq!(house.find(&query), expected, "{query:?}");
    }
}

#[test]
fn one_damaged_manifest_does_not_hide_the_others() {
    let house = House::new();
    let good = house.ship(|_| {});
    let bad = house.ship(|manifest| manifest.captured_at = "2026-02-01T00:00:00Z".parse().unwrap());
    let name = keys(&house.store, "")
        .into_iter()
        .find(|key| key.ends_with(&format!("{bad}.manifest.json")));
    fs::write(house.root.path().join("store").join(name.unwrap()), "{").unwrap();
    let query = Query {
        node: Some("node-1".to_owned()),
        ..Query::default()
    };
    assert_eq!(house.find(&query), [good]);
    assert_eq!(house.find(&Query::default()), [bad, good]);
}

#[test]
fn references_mean_one_dump() {
    let house = House::new();
    let id = |digits: &str| {
        format!("{digits}-9c55-4f0b-8f38-8a8f7c5d4e3b")
            .parse::<DumpId>()
            .unwrap()
    };
    let ids = [id("aaaa0001"), id("aaab0002"), id("b0000003")];
    for (day, id) in ids.into_iter().enumerate() {
        house.ship(|manifest| {
            manifest.id = id;
            manifest.captured_at = format!("2026-01-0{}T00:00:00Z", day + 1).parse().unwrap();
        });
    }
    let catalog = Catalog::new(&house.store);
    let resolve = |reference: &str| catalog.resolve(reference).map(|dump| dump.id);
    let full = ids[0].to_string();
    let table = [
        ("latest", 2),
        ("@0", 2),
        ("@2", 0),
        ("~0", 2),
        ("~1", 1),
        ("~2", 0),
        ("b", 2),
        ("b0", 2),
        ("B0", 2),
        ("aaab", 1),
        ("aaaa0001-9c", 0),
        (full.as_str(), 0),
    ];
    for (reference, expected) in table {
        assert_eq!(resolve(reference).unwrap(), ids[expected], "{reference}");
    }
    for reference in [
        "",
        "c",
        "@3",
        "@",
        "~3",
        "~",
        "~-1",
        "~99999999999999999999",
        "cc",
        "*",
        "zz",
        "../x",
    ] {
        assert!(
            matches!(resolve(reference), Err(ResolveError::NotFound { .. })),
            "{reference}"
        );
    }
    match catalog.resolve("aaa") {
        Err(ResolveError::Ambiguous { candidates, .. }) => {
            let found: Vec<DumpId> = candidates.iter().map(|dump| dump.id).collect();
            assert_eq!(found, [ids[1], ids[0]]);
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn zip_of_ibm_is_a_dump_without_manifest() {
    let house = House::new();
    let name = "3fa85f64-5717-4562-b3fc-2c963f66afa6-dump-1700000000-my-pod-0-server-7-11";
    // Any of our bundles is suitable: the catalog only reads names.
    let mut zip = Vec::new();
    house.bundle(manifest()).write_to(&mut zip).unwrap();
    house
        .store
        .put(
            &key(&format!("{name}.zip")),
            &mut zip.as_slice(),
            zip.len() as u64,
        )
        .unwrap();
    let catalog = Catalog::new(&house.store);
    let dump = catalog.resolve("3fa8").unwrap();
    assert!(dump.legacy);
    assert_eq!(dump.size, Some(zip.len() as u64));
    assert!(catalog.manifest(&dump).is_ok());
    remove_dump(&house.store, &dump).unwrap();
    assert_eq!(house.files(), 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn manifest_key_round_trips_its_facts(
        namespace in proptest::option::of(".{0,300}"),
        pod in proptest::option::of(".{0,300}"),
        exe in proptest::collection::vec(any::<u8>(), 0..300),
        signal in ".{0,40}",
        fingerprint in proptest::option::of(".{0,40}"),
    ) {
        let mut manifest = manifest();
        manifest.workload = Some(Workload { namespace: namespace.clone(), pod, ..Workload::default() });
        manifest.process.exe = Some(RawText::from(exe));
        manifest.signal.name = signal;
        manifest.fingerprint = fingerprint;
        let (zip, json) = ObjectKey::for_manifest(&manifest);
        for key in [&zip, &json] {
            let text = key.as_str();
            prop_assert_eq!(&ObjectKey::parse(text).unwrap(), key);
            prop_assert!(text.is_ascii() && text.split('/').all(|part| part.len() <= 255), "{}", text);
        }
        let dump = DumpSummary::from_key(&zip).unwrap();
        prop_assert_eq!(dump.id, manifest.id);
        prop_assert_eq!(dump.verdict.as_str(), "complete");
        prop_assert!(!dump.legacy);
        prop_assert_eq!(dump.captured_at.as_second(), manifest.captured_at.as_second());
        if let Some(short) = namespace.filter(|text| !text.is_empty() && text.len() <= 13 && text.is_ascii()) {
            let expected = RawText::from(short).to_string();
            prop_assert_eq!(dump.namespace, Some(expected));
        }
        prop_assert_eq!(DumpSummary::from_key(&json), None);
    }

    #[test]
    fn any_key_is_parsed_without_panic(text: String, name in "[ -~]{0,80}") {
        for text in [text, format!("dumps/2026-01-31/{name}.zip"), format!("{name}-dump-{name}.zip")] {
            if let Ok(key) = ObjectKey::parse(&text) {
                let _ = DumpSummary::from_key(&key);
                prop_assert!(!key.as_str().split('/').any(|part| matches!(part, "" | "." | "..")));
                prop_assert!(!key.as_str().starts_with('/'));
                prop_assert!(!key.as_str().chars().any(char::is_control));
            }
        }
    }
}

/// Counts the requests to a store.
struct Counting<'s> {
    store: &'s DirectoryStore,
    lists: AtomicUsize,
    objects: AtomicUsize,
    reads: AtomicUsize,
}

impl<'s> Counting<'s> {
    fn new(store: &'s DirectoryStore) -> Self {
        Self {
            store,
            lists: AtomicUsize::new(0),
            objects: AtomicUsize::new(0),
            reads: AtomicUsize::new(0),
        }
    }

    /// Listings, objects in them, and objects read, since the last time.
    fn take(&self) -> (usize, usize, usize) {
        let take = |count: &AtomicUsize| count.swap(0, Ordering::Relaxed);
        (take(&self.lists), take(&self.objects), take(&self.reads))
    }
}

impl Store for Counting<'_> {
    cdh_testkit::forward_store!(store: describe put stat delete share);

    fn read_pinned(
        &self,
        key: &ObjectKey,
        stat: &ObjectStat,
    ) -> Result<Arc<dyn ByteSource>, StoreError> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        self.store.read_pinned(key, stat)
    }

    fn list(
        &self,
        listing: &Listing<'_>,
        visit: &mut dyn FnMut(Listed) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        self.lists.fetch_add(1, Ordering::Relaxed);
        self.store.list(listing, &mut |listed| {
            if matches!(listed, Listed::Object(_)) {
                self.objects.fetch_add(1, Ordering::Relaxed);
            }
            visit(listed)
        })
    }
}

/// A store with three dumps on each of nine days, and one of IBM's.
fn nine_days() -> (House, PathBuf) {
    let house = House::new();
    for day in 1..10 {
        for hour in 0..3 {
            let time = format!("2026-01-0{day}T0{hour}:00:00Z");
            house.ship(|manifest| manifest.captured_at = time.parse().unwrap());
        }
    }
    let legacy = "3fa85f64-5717-4562-b3fc-2c963f66afa6-dump-1767484800-pod-server-7-11.zip";
    let path = house
        .root
        .path()
        .join("store")
        .join("namespace-of-theirs")
        .join(legacy);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, "").unwrap();
    (house, path)
}

#[test]
fn catalog_lists_only_matching_days_and_keys_without_a_day() {
    let (house, _) = nine_days();
    let store = Counting::new(&house.store);
    let time = |text: &str| Some(text.parse().unwrap());
    let find = |query: Query| Catalog::new(&store).find(&query).unwrap().len();
    assert_eq!(find(Query::default()), 28);
    // Marker and entry of the index of first times are among them.
    assert_eq!(store.take(), (1, 57, 0));
    let since = Query {
        since: time("2026-01-09T01:00:00Z"),
        ..Query::default()
    };
    assert_eq!(find(since), 2);
    // The root, the folder that is not ours, the days; four keys from that time on and IBM's.
    assert_eq!(store.take(), (3, 5, 0));
    // IBM's is of 4 January.
    let between = Query {
        since: time("2026-01-03T00:00:00Z"),
        until: time("2026-01-04T23:00:00Z"),
        ..Query::default()
    };
    assert_eq!(find(between), 7);
    let (_, objects, _) = store.take();
    assert!(objects <= 2 * 6 + 2, "{objects}");
}

#[test]
fn catalog_finds_the_newest_without_listing_the_others() {
    let (house, _) = nine_days();
    let store = Counting::new(&house.store);
    let catalog = Catalog::new(&store);
    let day = |dump: DumpSummary| dump.captured_at.to_string()[..13].to_owned();
    assert_eq!(day(catalog.resolve("latest").unwrap()), "2026-01-09T02");
    assert_eq!(store.take(), (4, 7, 0));
    assert_eq!(day(catalog.resolve("~4").unwrap()), "2026-01-08T01");
    assert_eq!(store.take(), (5, 13, 0));
    // IBM's dump is among the others of its day.
    let all: Vec<_> = (0..28)
        .map(|n| catalog.resolve(&format!("~{n}")).unwrap().key)
        .collect();
    let found = catalog.find(&Query::default()).unwrap();
    assert_eq!(
        all,
        found.into_iter().map(|dump| dump.key).collect::<Vec<_>>()
    );
    assert!(catalog.resolve("~28").is_err());
}

#[test]
fn catalog_reads_an_unchanged_manifest_once() {
    let (house, _) = nine_days();
    let store = Counting::new(&house.store);
    let directory = tempfile::tempdir().unwrap();
    let cache = cdh_store::ManifestCache::in_directory(directory.path());
    let catalog = Catalog::new(&store).with_cache(cache);
    let query = Query {
        node: Some("node-1".to_owned()),
        since: Some("2026-01-05T00:00:00Z".parse().unwrap()),
        ..Query::default()
    };
    let first = catalog.find(&query).unwrap();
    assert_eq!((first.len(), store.take().2), (15, 15));
    assert_eq!(catalog.find(&query).unwrap(), first);
    assert_eq!(store.take().2, 0);
}

#[test]
fn pages_hold_what_a_search_finds_with_the_newest_day_first() {
    let (house, _) = nine_days();
    let catalog = Catalog::new(&house.store);
    let mut pages = Vec::new();
    let mut visit = |page: Vec<DumpSummary>| {
        pages.push(page);
        std::ops::ControlFlow::Continue(())
    };
    catalog.pages(&mut visit).unwrap();
    let newest = |page: &Vec<DumpSummary>| page[0].captured_at.to_string()[..10].to_owned();
    assert_eq!(newest(&pages[0]), "2026-01-09");
    assert_eq!(newest(&pages[1]), "2026-01-08");
    let mut all: Vec<_> = pages.concat();
    all.sort_by(|a, b| (b.captured_at, &b.key).cmp(&(a.captured_at, &a.key)));
    assert_eq!(all, catalog.find(&Query::default()).unwrap());

    let mut count = 0;
    let mut stop = |_: Vec<DumpSummary>| {
        count += 1;
        std::ops::ControlFlow::Break(())
    };
    catalog.pages(&mut stop).unwrap();
    assert_eq!(count, 1);
}

#[test]
fn catalog_compares_complete_names_that_a_key_shortened() {
    let house = House::new();
    let namespace = |end: char| format!("{}{end}{}", "n".repeat(50), "z".repeat(12));
    let pod = |end: &str| format!("{}-{end}", "checkout-".repeat(12));
    let ship = |end: char, replica: &str| {
        house.ship(|manifest| {
            let workload = manifest.workload.get_or_insert_default();
            workload.namespace = Some(namespace(end));
            workload.pod = Some(pod(replica));
            manifest.process.exe = Some(RawText::from(
                format!("/x/{}{end}{}", "e".repeat(60), "y".repeat(20)).as_str(),
            ));
            manifest.fingerprint = Some(format!("0123456789abcde{end}"));
        })
    };
    // The keys of both hold the same of namespace and program; the ends of the pods differ.
    let (a, b) = (ship('a', "7d4b9-x2"), ship('b', "7d4b9-y3"));
    let catalog = Catalog::new(&house.store);
    let find = |query: Query| -> Vec<DumpId> {
        let mut found: Vec<_> = catalog
            .find(&query)
            .unwrap()
            .iter()
            .map(|dump| dump.id)
            .collect();
        found.sort();
        found
    };
    let text = |text: String| Some(text);
    for limit in [None, Some(1)] {
        let query = || Query {
            limit,
            ..Query::default()
        };
        for (end, replica, id) in [('a', "7d4b9-x2", a), ('b', "7d4b9-y3", b)] {
            let queries = [
                Query {
                    namespace: text(namespace(end)),
                    ..query()
                },
                Query {
                    pod: text(pod(replica)),
                    ..query()
                },
                Query {
                    pod: text(format!("*{replica}")),
                    ..query()
                },
                Query {
                    namespace: text(format!("nnn*{end}zz*")),
                    ..query()
                },
                Query {
                    exe: text(format!("e*{end}*")),
                    ..query()
                },
                Query {
                    fingerprint: text(format!("0123456789abcde{end}")),
                    ..query()
                },
            ];
            for query in queries {
                assert_eq!(find(query.clone()), [id], "{query:?}");
            }
        }
        assert!(
            find(Query {
                namespace: text(namespace('c')),
                ..query()
            })
            .is_empty()
        );
    }
    let keys: Vec<String> = catalog
        .find(&Query::default())
        .unwrap()
        .iter()
        .map(|dump| dump.key.to_string())
        .collect();
    assert!(
        keys.iter()
            .all(|key| key.contains("!~") && key.rsplit('/').next().unwrap().len() < 242),
        "{keys:?}"
    );
    assert!(
        keys[0].contains("-7d4b9-") && keys[1].contains("-7d4b9-"),
        "{keys:?}"
    );
}
