//! Puts, lists, reads and removes objects.

use super::*;

#[test]
fn dumps_of_all_sizes_are_shipped_listed_read_and_removed() {
    let Some(server) = server() else { return };
    let bucket = bucket();
    let store = open(&bucket, &server.endpoint());
    for len in [0, 10_000, BIG] {
        let (_root, bundle) = bundle(len);
        let shipped = ship(&store, &bundle).unwrap();
        assert_eq!(shipped.digests, expected(&bundle));
        // Again is as once.
        assert_eq!(ship(&store, &bundle).unwrap(), shipped);
        assert_eq!(
            digests(&server.endpoint(), &bucket, &shipped.key),
            shipped.digests
        );
    }
    let catalog = Catalog::new(&store);
    let dumps = catalog.find(&Query::default()).unwrap();
    assert_eq!(dumps.len(), 3);
    for dump in &dumps {
        let opened = BundleReader::open(store.read(&dump.key).unwrap()).unwrap();
        assert!(opened.verify().unwrap().is_good());
        assert_eq!(catalog.manifest(dump).unwrap().id, dump.id);
        let address = store.share(&dump.key, Duration::from_secs(60)).unwrap();
        assert!(address.contains("X-Amz-Signature="), "{address}");
        remove_dump(&store, dump).unwrap();
        remove_dump(&store, dump).unwrap();
    }
    assert!(keys(&store, "dumps/").is_empty());
}

#[test]
fn put_never_replaces_an_object() {
    let Some(server) = server() else { return };
    let key = key("dumps/2026-01-31/a.zip");
    let first = noise(BIG);
    let mut second = first.clone();
    second[BIG - 1] ^= 1;
    let bucket = bucket();
    // The second writer does not see the object, as in a race.
    let proxy = HttpProxy::counting(server.port());
    let store = open(&bucket, &proxy.endpoint());
    for len in [BIG, 1000] {
        store.put(&key, &mut &first[..len], len as u64).unwrap();
        store.put(&key, &mut &first[..len], len as u64).unwrap();
        let other = &second[BIG - len..];
        let heads = Arc::new(AtomicUsize::new(0));
        // A small object takes one existence check; a big one takes two before it is completed.
        let lies = if len == BIG { 2 } else { 1 };
        proxy.judge(move |request| match request.method.as_str() {
            "HEAD" if heads.fetch_add(1, Ordering::Relaxed) < lies => {
                Deed::Answer(404, vec![], vec![])
            }
            _ => Deed::Pass,
        });
        let error = store.put(&key, &mut &*other, len as u64).unwrap_err();
        assert!(matches!(error, StoreError::Conflict { .. }), "{error}");
        proxy.judge(|_| Deed::Pass);
        let found = digests(&server.endpoint(), &bucket, &key);
        assert_eq!(found, Digests::of(&first[..len]));
        store.delete(&key).unwrap();
    }
}

#[test]
fn slow_and_cut_answers_are_read_to_their_end() {
    let Some(server) = server() else { return };
    let bucket = bucket();
    let data = noise(6 << 20);
    let key = key("dumps/2026-01-31/a.zip");
    let direct = open(&bucket, &server.endpoint());
    direct
        .put(&key, &mut data.as_slice(), data.len() as u64)
        .unwrap();
    let proxy = HttpProxy::counting(server.port());
    let store = open(&bucket, &proxy.endpoint());
    let read = |store: &S3Store| {
        let window = cdh_bundle::Window::whole(store.read(&key).unwrap());
        Digests::of_reader(cdh_bundle::SourceReader::new(window)).unwrap()
    };
    proxy.judge(|request| match request.method.as_str() {
        "GET" => Deed::CutAnswer(900_000),
        _ => Deed::Pass,
    });
    assert_eq!(read(&store), Digests::of(&data));
    assert!(proxy.sent() < 7 << 20, "{}", proxy.sent());
    proxy.judge(|_| Deed::Drip(200_000, Duration::from_millis(5)));
    assert_eq!(read(&store), Digests::of(&data));
    // A replaced object is not mixed with its predecessor.
    proxy.judge(|_| Deed::Pass);
    let opened = store.read(&key).unwrap();
    direct.delete(&key).unwrap();
    direct
        .put(&key, &mut &data[1..], data.len() as u64 - 1)
        .unwrap();
    let error = opened.read_at(5 << 20, &mut [0; 10]).unwrap_err();
    assert!(error.to_string().contains("replaced"), "{error}");
}

#[test]
fn range_can_be_stopped_while_nothing_comes() {
    let Some(server) = server() else { return };
    let bucket = bucket();
    let key = key("dumps/2026-01-31/a.zip");
    let direct = open(&bucket, &server.endpoint());
    let data = noise(1 << 20);
    direct.put(&key, &mut data.as_slice(), 1 << 20).unwrap();
    let stat = direct.stat(&key).unwrap().unwrap();
    let drip = Deed::Drip(1000, Duration::from_secs(5));
    let proxy = HttpProxy::start(Some(server.port()), move |_| drip.clone());
    let store = open(&bucket, &proxy.endpoint());
    let begun = std::time::Instant::now();
    let mut came = 0;
    let stopped = store.read_range(&key, &stat, 0..1 << 20, &mut |chunk| {
        came += chunk.len();
        match begun.elapsed() > Duration::from_millis(500) {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    });
    assert!(matches!(stopped, Err(StoreError::Stopped)));
    assert!(came < 100_000 && begun.elapsed() < Duration::from_secs(3));
}

#[test]
fn encryption_tags_and_class_are_asked_for() {
    let Some(server) = server() else { return };
    let proxy = HttpProxy::counting(server.port());
    let options = [
        ("endpoint", proxy.endpoint()),
        ("sse", "s3".to_owned()),
        ("tags", "team:core,stage:a b".to_owned()),
        ("storage-class", "STANDARD".to_owned()),
    ];
    let options: Vec<_> = options.iter().map(|(a, b)| (*a, b.as_str())).collect();
    let store = open_as(&bucket(), &options, (ADMIN.access, ADMIN.secret));
    for len in [1000, BIG] {
        ship(&store, &bundle(len).1).unwrap();
    }
    let made = proxy.requests().into_iter().filter(|request| {
        let is_put = request.method == "PUT" && !request.target.contains("partNumber");
        is_put || request.target.ends_with("?uploads")
    });
    let made: Vec<_> = made.collect();
    // Bundles, manifests, and of the index a marker and an entry.
    assert_eq!(made.len(), 6, "{made:#?}");
    for request in made {
        assert_eq!(
            request.header("x-amz-server-side-encryption"),
            Some("AES256")
        );
        assert_eq!(
            request.header("x-amz-tagging"),
            Some("team=core&stage=a%20b")
        );
        assert_eq!(request.header("x-amz-storage-class"), Some("STANDARD"));
    }
}

#[test]
fn listing_asks_for_pages_of_keys_and_for_no_object() {
    let Some(server) = server() else { return };
    let bucket = bucket();
    let direct = open(&bucket, &server.endpoint());
    // 1,200 dumps in 12 days: 2,400 keys.
    let at = |number: usize| {
        let (day, minute, second) = (number / 100 + 1, number / 60 % 60, number % 60);
        format!(
            "dumps/2026-01-{day:02}/12{minute:02}{second:02}Z_shop_api_app_SIGSEGV_01234567_complete_{}",
            DumpId::random()
        )
    };
    let numbers: Vec<usize> = (0..1200).collect();
    let (at, direct) = (&at, &direct);
    std::thread::scope(|scope| {
        for some in numbers.chunks(150) {
            scope.spawn(move || {
                for number in some {
                    let stem = at(*number);
                    for end in ["zip", "manifest.json"] {
                        let key = key(&format!("{stem}.{end}"));
                        direct.put(&key, &mut b"x".as_slice(), 1).unwrap();
                    }
                }
            });
        }
    });
    let proxy = HttpProxy::counting(server.port());
    let store = open(&bucket, &proxy.endpoint());
    let count = |query: &Query| {
        proxy.reset();
        let found = Catalog::new(&store).find(query).unwrap().len();
        let requests = proxy.requests();
        assert!(requests.iter().all(|r| r.target.contains("list-type=2")));
        (found, requests.len())
    };
    assert_eq!(count(&Query::default()), (1200, 3));
    let day = Query {
        since: Some("2026-01-12T00:00:00Z".parse().unwrap()),
        ..Query::default()
    };
    // One for the objects beside `dumps/`, one for the day.
    assert_eq!(count(&day), (100, 2));
    let inner = Query {
        since: Some("2026-01-03T00:00:00Z".parse().unwrap()),
        until: Some("2026-01-04T23:00:00Z".parse().unwrap()),
        ..Query::default()
    };
    assert_eq!(count(&inner), (200, 2));
    let newest = Query {
        limit: Some(5),
        ..Query::default()
    };
    assert_eq!(count(&newest), (5, 3));
}

#[test]
fn refresh_of_a_large_bucket_is_one_request() {
    let Some(server) = server() else { return };
    let proxy = HttpProxy::counting(server.port());
    let store = open(&bucket(), &proxy.endpoint());
    let put = |number: usize, day: &str| {
        let id = format!("{number:08x}-0000-4000-8000-000000000000");
        let stem = format!("dumps/{day}/120000Z_shop_api-0_api_SIGSEGV_0011aabb_complete_{id}");
        for suffix in [".manifest.json", ".zip"] {
            let key = key(&format!("{stem}{suffix}"));
            store.put(&key, &mut b"x".as_slice(), 1).unwrap();
        }
    };
    // More than one page of keys before the time that is asked for.
    std::thread::scope(|scope| {
        for thread in 0..8 {
            scope.spawn(move || (0..75).for_each(|n| put(thread * 75 + n, "2026-01-30")));
        }
    });
    (600..603).for_each(|number| put(number, "2026-01-31"));
    let catalog = Catalog::new(&store);
    proxy.reset();
    let since = "2026-01-31T00:00:00Z".parse().unwrap();
    assert_eq!(catalog.since(since).unwrap().len(), 3);
    assert_eq!(proxy.requests().len(), 1);
    proxy.reset();
    assert_eq!(catalog.find(&Query::default()).unwrap().len(), 603);
    assert!(proxy.requests().len() > 1, "what it costs to list it all");
}
