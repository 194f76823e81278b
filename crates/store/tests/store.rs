//! Dumps into a directory store and out of it, with bodies that fail, files that lie and names that attack.

use std::fs;
use std::io::{self, Read};
use std::ops::ControlFlow;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use cdh_bundle::{
    BundleReader, BundleWriter, CoreEncoding, Digests, DumpId, EntryDir, EntryKind, ImageRef,
    Manifest, ProcessFacts, RawText, SCHEMA, SignalFacts, Verdict, Workload,
};
use cdh_elfcore::ByteSource;
use cdh_store::{
    Catalog, DirectoryStore, DumpSummary, ListedObject, ObjectKey, ObjectStat, Query, ResolveError,
    ShipError, Store, StoreError, remove_dump, ship,
};
use proptest::prelude::*;

fn manifest() -> Manifest {
    Manifest {
        schema: SCHEMA,
        id: DumpId::random(),
        stem: "stem".to_owned(),
        captured_at: "2026-01-31T12:34:56.789Z".parse().unwrap(),
        finished_at: None,
        node: RawText::from("node-1"),
        hostname: RawText::from("api-7d4"),
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
        machine: "x86_64".to_owned(),
        verdict: Verdict::Complete,
        core: None,
        workload: Some(Workload {
            namespace: Some("shop".to_owned()),
            pod: Some("api-7d4".to_owned()),
            ..Workload::default()
        }),
        image: Some(ImageRef {
            reference: "quay.io/shop/api@sha256:00ff".to_owned(),
        }),
        modules: Vec::new(),
        fingerprint: Some("0123456789abcdef".to_owned()),
        thread_count: None,
        entries: Vec::new(),
        gaps: Vec::new(),
        agent_version: "test".to_owned(),
    }
}

struct House {
    root: tempfile::TempDir,
    store: DirectoryStore,
}

impl House {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let store = DirectoryStore::create(root.path().join("store")).unwrap();
        fs::create_dir(root.path().join("spool")).unwrap();
        Self { root, store }
    }

    fn seal(&self, manifest: Manifest) -> PathBuf {
        let spool = self.root.path().join("spool");
        let mut entry = EntryDir::create(&spool, manifest.id).unwrap();
        entry
            .write_file(&EntryKind::Core(CoreEncoding::None), &[7; 10_000])
            .unwrap();
        entry.seal(manifest).unwrap()
    }

    fn bundle(&self, manifest: Manifest) -> BundleWriter {
        BundleWriter::from_entry(&self.seal(manifest)).unwrap()
    }

    fn ship(&self, change: impl FnOnce(&mut Manifest)) -> DumpId {
        let mut manifest = manifest();
        change(&mut manifest);
        let id = manifest.id;
        ship(&self.store, &self.bundle(manifest)).unwrap();
        id
    }

    fn find(&self, query: &Query) -> Vec<DumpId> {
        let found = Catalog::new(&self.store).find(query).unwrap();
        found.into_iter().map(|dump| dump.id).collect()
    }

    fn files(&self) -> usize {
        count_files(&self.root.path().join("store"))
    }
}

/// Hidden ones too.
fn count_files(directory: &Path) -> usize {
    let count = |item: io::Result<fs::DirEntry>| {
        let path = item.unwrap().path();
        if path.is_dir() { count_files(&path) } else { 1 }
    };
    fs::read_dir(directory).unwrap().map(count).sum()
}

fn key(text: &str) -> ObjectKey {
    ObjectKey::parse(text).unwrap()
}

fn keys(store: &dyn Store, under: &str) -> Vec<String> {
    let mut keys = Vec::new();
    let mut visit = |object: ListedObject| {
        keys.push(object.key.to_string());
        ControlFlow::Continue(())
    };
    store.list(under, &mut visit).unwrap();
    keys
}

#[test]
fn shipped_dump_is_listed_opened_and_removed() {
    let house = House::new();
    let manifest = manifest();
    let bundle = house.bundle(manifest.clone());
    let shipped = ship(&house.store, &bundle).unwrap();
    assert_eq!(
        shipped.key.to_string(),
        format!(
            "dumps/2026-01-31/123456Z_shop_api-7d4_api_SIGSEGV_01234567_complete_{}.zip",
            manifest.id
        )
    );
    let catalog = Catalog::new(&house.store);
    let found = catalog.find(&Query::default()).unwrap();
    let [dump] = found.as_slice() else {
        panic!("{found:?}")
    };
    assert_eq!(dump.id, manifest.id);
    assert_eq!(dump.captured_at, "2026-01-31T12:34:56Z".parse().unwrap());
    assert_eq!(dump.size, Some(bundle.len()));
    assert_eq!(&catalog.manifest(dump).unwrap(), bundle.manifest());
    let opened = BundleReader::open(house.store.read(&dump.key).unwrap()).unwrap();
    assert!(opened.verify().unwrap().is_good());
    // Again is as once.
    assert_eq!(ship(&house.store, &bundle).unwrap(), shipped);
    assert_eq!(house.files(), 2);
    remove_dump(&house.store, dump).unwrap();
    remove_dump(&house.store, dump).unwrap();
    assert_eq!(house.files(), 0);
}

#[test]
fn bundle_without_manifest_is_no_dump() {
    let house = House::new();
    house.ship(|_| {});
    let manifest_key = keys(&house.store, "dumps/")
        .into_iter()
        .find(|key| key.ends_with(".json"));
    house.store.delete(&key(&manifest_key.unwrap())).unwrap();
    assert!(house.find(&Query::default()).is_empty());
    assert_eq!(house.files(), 1);
}

#[test]
fn damaged_spool_entry_is_blamed_and_leaves_nothing() {
    let house = House::new();
    let sealed = house.seal(manifest());
    let bundle = BundleWriter::from_entry(&sealed).unwrap();
    fs::write(sealed.join("core"), [8; 10_000]).unwrap();
    let error = ship(&house.store, &bundle).unwrap_err();
    assert!(matches!(error, ShipError::Bundle(_)), "{error}");
    assert_eq!(house.files(), 0);
}

/// Says that all is well and keeps something else, or nothing.
struct Liar<'s> {
    inner: &'s DirectoryStore,
    puts: AtomicUsize,
    lie_at: usize,
}

impl Store for Liar<'_> {
    fn describe(&self) -> String {
        "liar".to_owned()
    }
    fn put(&self, key: &ObjectKey, body: &mut dyn Read, len: u64) -> Result<Digests, StoreError> {
        if self.puts.fetch_add(1, Ordering::Relaxed) != self.lie_at {
            return self.inner.put(key, body, len);
        }
        let mut bytes = Vec::new();
        body.read_to_end(&mut bytes).unwrap();
        let digests = Digests::of(&bytes);
        bytes[3] ^= 1;
        self.inner.put(key, &mut bytes.as_slice(), len)?;
        Ok(digests)
    }
    fn stat(&self, key: &ObjectKey) -> Result<Option<ObjectStat>, StoreError> {
        self.inner.stat(key)
    }
    fn read(&self, key: &ObjectKey) -> Result<Arc<dyn ByteSource>, StoreError> {
        self.inner.read(key)
    }
    fn list(
        &self,
        under: &str,
        visit: &mut dyn FnMut(ListedObject) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        self.inner.list(under, visit)
    }
    fn delete(&self, key: &ObjectKey) -> Result<(), StoreError> {
        self.inner.delete(key)
    }
}

#[test]
fn store_that_keeps_other_bytes_is_caught() {
    for lie_at in [0, 1] {
        let house = House::new();
        let liar = Liar {
            inner: &house.store,
            puts: AtomicUsize::new(0),
            lie_at,
        };
        let error = ship(&liar, &house.bundle(manifest())).unwrap_err();
        assert!(matches!(error, ShipError::Verify { .. }), "{error}");
        // A zip that is wrong is never followed by the manifest that would make it a dump.
        assert_eq!(house.find(&Query::default()).len(), lie_at);
    }
}

struct Failing {
    good: usize,
}

impl Read for Failing {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let count = self.good.min(buf.len());
        if count == 0 {
            return Err(io::Error::other("the disk is gone"));
        }
        buf[..count].fill(1);
        self.good -= count;
        Ok(count)
    }
}

#[test]
fn body_that_fails_anywhere_leaves_no_object() {
    let house = House::new();
    for good in [0, 1, 4096, 999_999] {
        let put = house
            .store
            .put(&key("a/b"), &mut Failing { good }, 1_000_000);
        assert!(matches!(put, Err(StoreError::Io { .. })), "{put:?}");
        assert_eq!(house.store.stat(&key("a/b")).unwrap(), None);
        assert_eq!(house.files(), 0);
    }
    // One that never ends is not waited for.
    let put = house.store.put(&key("a/b"), &mut io::repeat(1), 1000);
    assert!(
        matches!(
            put,
            Err(StoreError::Length {
                expected: 1000,
                found: 1001,
                ..
            })
        ),
        "{put:?}"
    );
    assert_eq!(house.files(), 0);
}

#[test]
fn many_writers_of_one_key_agree_on_one_content() {
    let house = House::new();
    let outcomes: Vec<bool> = std::thread::scope(|scope| {
        let write = |byte: u8| {
            let store = &house.store;
            scope.spawn(move || store.put(&key("a/b"), &mut &[byte; 100][..], 100).is_ok())
        };
        let writers: Vec<_> = (0..8).map(|number| write(number % 2)).collect();
        writers
            .into_iter()
            .map(|writer| writer.join().unwrap())
            .collect()
    });
    // All of one content succeed, all of the other conflict.
    assert_eq!(outcomes.iter().filter(|good| **good).count(), 4);
    assert_eq!(house.files(), 1);
}

#[test]
fn links_do_not_lead_out_of_the_store() {
    let house = House::new();
    let outside = house.root.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("secret.zip"), "secret").unwrap();
    let root = house.root.path().join("store");
    symlink(&outside, root.join("dumps")).unwrap();
    symlink(outside.join("secret.zip"), root.join("x.zip")).unwrap();
    symlink(&root, root.join("loop")).unwrap();
    assert!(house.store.read(&key("dumps/secret.zip")).is_err());
    assert!(house.store.read(&key("x.zip")).is_err());
    assert!(
        house
            .store
            .put(&key("dumps/new"), &mut &b"x"[..], 1)
            .is_err()
    );
    assert!(house.store.delete(&key("dumps/secret.zip")).is_err());
    assert_eq!(count_files(&outside), 1);
    assert!(keys(&house.store, "").is_empty());
}

#[test]
fn pipes_and_directories_are_no_objects() {
    let house = House::new();
    let root = house.root.path().join("store");
    let fifo = root.join("pipe.zip");
    assert!(
        std::process::Command::new("mkfifo")
            .arg(&fifo)
            .status()
            .unwrap()
            .success()
    );
    fs::create_dir(root.join("folder.zip")).unwrap();
    for name in ["pipe.zip", "folder.zip"] {
        assert_eq!(house.store.stat(&key(name)).unwrap(), None);
        let read = house.store.read(&key(name)).map(drop);
        assert!(matches!(read, Err(StoreError::NotFound { .. })), "{name}");
    }
    assert!(keys(&house.store, "").is_empty());
}

#[test]
fn listing_takes_a_prefix_and_stops_when_told() {
    let house = House::new();
    for name in ["a/1", "a/2", "ab/3", "b"] {
        house.store.put(&key(name), &mut &b""[..], 0).unwrap();
    }
    assert_eq!(keys(&house.store, ""), ["a/1", "a/2", "ab/3", "b"]);
    assert_eq!(keys(&house.store, "a/"), ["a/1", "a/2"]);
    assert_eq!(keys(&house.store, "a"), ["a/1", "a/2", "ab/3"]);
    assert_eq!(keys(&house.store, "a/2"), ["a/2"]);
    let mut seen = 0;
    let mut visit = |_| {
        seen += 1;
        ControlFlow::Break(())
    };
    house.store.list("", &mut visit).unwrap();
    assert_eq!(seen, 1);
}

#[test]
fn store_is_for_its_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let house = House::new();
    house.ship(|_| {});
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let root = house.root.path().join("store");
    assert_eq!(mode(&root), 0o700);
    assert_eq!(mode(&root.join("dumps/2026-01-31")), 0o700);
    assert_eq!(mode(&root.join(&keys(&house.store, "")[0])), 0o600);
}

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
        ("~0", 2),
        ("~1", 1),
        ("~2", 0),
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
        "b",
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
    // Any of our bundles will do: the catalog looks at the name.
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
    fn every_manifest_has_a_key_that_tells_it_again(
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
