//! The directory store: bodies that fail, links, pipes, listings.

use super::*;

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
    // All writers of one content succeed, all writers of the other get a conflict.
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
fn listing_filters_by_prefix_and_stops_on_request() {
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
    house.store.list(&Listing::default(), &mut visit).unwrap();
    assert_eq!(seen, 1);
}

#[test]
fn listing_of_a_level_and_after_a_key() {
    let house = House::new();
    for name in ["d/1/x", "d/1/y", "d/2/x", "d/a", "d-e/z", "d.f"] {
        house.store.put(&key(name), &mut &b""[..], 0).unwrap();
    }
    let all = ["d-e/z", "d.f", "d/1/x", "d/1/y", "d/2/x", "d/a"];
    assert_eq!(keys(&house.store, ""), all);
    let level = |listing| listed(&house.store, &listing);
    assert_eq!(level(Listing::level("")), ["d-e/", "d.f", "d/"]);
    assert_eq!(level(Listing::level("d/")), ["d/1/", "d/2/", "d/a"]);
    assert_eq!(level(Listing::level("d/1/")), ["d/1/x", "d/1/y"]);
    for (number, name) in all.iter().enumerate() {
        assert_eq!(level(Listing::all("").after(name)), all[number + 1..]);
    }
    assert_eq!(level(Listing::all("d/").after("d/1/x0")), all[3..]);
    assert_eq!(level(Listing::level("d/").after("d/1~")), ["d/2/", "d/a"]);
}

#[test]
fn reader_is_pinned_to_the_version_in_its_stat() {
    let house = House::new();
    let key = key("a/b");
    house.store.put(&key, &mut &b"one"[..], 3).unwrap();
    let stat = house.store.stat(&key).unwrap().unwrap();
    let source = house.store.read_pinned(&key, &stat).unwrap();
    house.store.delete(&key).unwrap();
    house.store.put(&key, &mut &b"two"[..], 3).unwrap();
    let mut bytes = [0; 3];
    source.read_at(0, &mut bytes).unwrap();
    assert_eq!(&bytes, b"one");
    let other = house.store.read_pinned(&key, &stat).map(drop);
    assert!(matches!(other, Err(StoreError::Changed { .. })));
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
fn directory_that_was_deleted_or_replaced_is_reported_and_not_listed_as_empty() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let store = DirectoryStore::create(&path).unwrap();
    let listing = Listing::default();
    let mut nothing = |_: Listed| ControlFlow::Continue(());
    store.list(&listing, &mut nothing).unwrap();
    fs::remove_dir(&path).unwrap();
    let error = store.list(&listing, &mut nothing).unwrap_err();
    assert!(matches!(error, StoreError::Removed { .. }), "{error}");
    fs::create_dir(&path).unwrap();
    let error = store.list(&listing, &mut nothing).unwrap_err();
    assert!(matches!(error, StoreError::Removed { .. }), "{error}");
    DirectoryStore::open(&path)
        .unwrap()
        .list(&listing, &mut nothing)
        .unwrap();
}
