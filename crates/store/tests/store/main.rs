//! Stores and retrieves dumps in a directory store, with failing bodies, lying files and hostile names.

// A failed test or task may panic; nothing of this ships.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used
)]

mod catalog;
mod directory;
mod first_seen;
mod s3;

use std::fs;
use std::io::{self, Read};
use std::ops::ControlFlow;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cdh_bundle::{
    BundleReader, BundleWriter, CoreEncoding, Digests, DumpId, EntryDir, EntryKind, ImageRef,
    Manifest, ProcessFacts, RawText, SCHEMA, SignalFacts, Verdict, Workload,
};
use cdh_elfcore::ByteSource;
use cdh_store::{
    Catalog, DirectoryStore, DumpSummary, Listed, Listing, ObjectKey, ObjectStat, Query, Receipt,
    ResolveError, ShipError, Store, StoreError, remove_dump, ship,
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
        original_signal: None,
        machine: "x86_64".to_owned(),
        verdict: Verdict::Complete,
        killed: None,
        core: None,
        workload: Some(Workload {
            namespace: Some("shop".to_owned()),
            pod: Some("api-7d4".to_owned()),
            ..Workload::default()
        }),
        image: Some(ImageRef::by_digest("quay.io/shop/api@sha256:00ff")),
        modules: Vec::new(),
        fingerprint: Some("0123456789abcdef".to_owned()),
        thread_count: None,
        entries: Vec::new(),
        gaps: Vec::new(),
        agent_version: "test".to_owned(),
        imported: None,
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

    /// Without the index of first times, which outlives dumps.
    fn files(&self) -> usize {
        let store = self.root.path().join("store");
        let index = store.join("first-seen");
        let indexed = if index.is_dir() {
            count_files(&index)
        } else {
            0
        };
        count_files(&store) - indexed
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
    listed(store, &Listing::all(under))
}

fn listed(store: &dyn Store, listing: &Listing<'_>) -> Vec<String> {
    let mut keys = Vec::new();
    let mut visit = |listed: Listed| {
        keys.push(match listed {
            Listed::Object(object) => object.key.to_string(),
            Listed::Prefix(prefix) => prefix,
        });
        ControlFlow::Continue(())
    };
    store.list(listing, &mut visit).unwrap();
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

/// Acknowledges an object but stores something else, or nothing.
struct Liar<'s> {
    inner: &'s DirectoryStore,
    puts: AtomicUsize,
    lie_at: usize,
}

impl Store for Liar<'_> {
    cdh_testkit::forward_store!(inner: stat read_pinned list share delete);

    fn describe(&self) -> String {
        "liar".to_owned()
    }

    fn put(&self, key: &ObjectKey, body: &mut dyn Read, len: u64) -> Result<Receipt, StoreError> {
        if self.puts.fetch_add(1, Ordering::Relaxed) != self.lie_at {
            return self.inner.put(key, body, len);
        }
        let mut bytes = Vec::new();
        body.read_to_end(&mut bytes).unwrap();
        let digests = Digests::of(&bytes);
        bytes[3] ^= 1;
        self.inner.put(key, &mut bytes.as_slice(), len)?;
        Ok(Receipt::new(digests))
    }
}

#[test]
fn store_that_keeps_other_bytes_is_caught() {
    // The bundle, the index's marker and entry, the manifest.
    for (lie_at, left) in [(0, 0), (3, 1)] {
        let house = House::new();
        let liar = Liar {
            inner: &house.store,
            puts: AtomicUsize::new(0),
            lie_at,
        };
        let bundle = house.bundle(manifest());
        let error = ship(&liar, &bundle).unwrap_err();
        assert!(matches!(error, ShipError::Verify { .. }), "{error}");
        // A damaged zip is never committed by a manifest, and does not block the next attempt.
        assert_eq!(house.find(&Query::default()).len(), 0);
        assert_eq!(house.files(), left);
        ship(&liar, &bundle).unwrap();
        assert_eq!(house.find(&Query::default()).len(), 1);
    }
}
