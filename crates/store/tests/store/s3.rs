//! Dumps into a real S3 server and out of it, and against peers that cut, lie and drip.
//!
//! The server is started once and dies with this process. Each test creates a bucket of its own.

use std::sync::OnceLock;
use std::sync::atomic::AtomicU64;

use cdh_bundle::BundleWriter;
use cdh_store::{FirstSeenWriter, Flow, S3Keys, S3Store, ShipOptions, Shipped};
use cdh_testkit::{ADMIN, Deed, HttpProxy, READER, Request, S3Server, or_skip};

use std::error::Error;

use super::*;

/// More than three parts of 8 MiB.
const BIG: usize = 29 << 20;

fn server() -> Option<&'static S3Server> {
    static SERVER: OnceLock<Result<S3Server, String>> = OnceLock::new();
    or_skip(
        SERVER
            .get_or_init(S3Server::start)
            .as_ref()
            .map_err(Clone::clone),
    )
}

/// A name that no other test has.
fn bucket() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let name = format!("bucket-{}-{number}", std::process::id());
    if let Some(server) = server() {
        server.make_bucket(&name);
    }
    name
}

fn open_as(bucket: &str, options: &[(&str, &str)], keys: (&str, &str)) -> S3Store {
    let options = options
        .iter()
        .map(|(a, b)| ((*a).to_owned(), (*b).to_owned()));
    let keys = S3Keys {
        access: keys.0.to_owned(),
        secret: keys.1.to_owned(),
    };
    S3Store::open_as(bucket, "some/prefix", &options.collect(), Some(keys)).unwrap()
}

fn open(bucket: &str, endpoint: &str) -> S3Store {
    let options = [("endpoint", endpoint), ("timeout", "20")];
    open_as(bucket, &options, (ADMIN.access, ADMIN.secret))
}

/// Bytes that no compression shortens and no shift leaves equal.
fn noise(len: usize) -> Vec<u8> {
    let mut state = 88_172_645_463_325_252_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    let mut bytes: Vec<u8> = (0..len.div_ceil(8)).flat_map(|_| next()).collect();
    bytes.truncate(len);
    bytes
}

/// A spool with one sealed dump of this size.
fn bundle(len: usize) -> (tempfile::TempDir, BundleWriter) {
    let root = tempfile::tempdir().unwrap();
    let manifest = manifest();
    let mut entry = EntryDir::create(root.path(), manifest.id).unwrap();
    entry
        .write_file(&EntryKind::Core(CoreEncoding::None), &noise(len))
        .unwrap();
    let bundle = BundleWriter::from_entry(&entry.seal(manifest).unwrap()).unwrap();
    (root, bundle)
}

/// What an independent look at the store finds under the bundle's key.
fn digests(endpoint: &str, bucket: &str, key: &ObjectKey) -> Digests {
    let store = open(bucket, endpoint);
    let source = store.read(key).unwrap();
    let window = cdh_bundle::Window::whole(source);
    Digests::of_reader(cdh_bundle::SourceReader::new(window)).unwrap()
}

fn expected(bundle: &BundleWriter) -> Digests {
    Digests::of_reader(bundle.reader()).unwrap()
}

fn is_part(request: &Request, number: u32) -> bool {
    let wanted = format!("partNumber={number}");
    let query = request.target.split('?').nth(1).unwrap_or_default();
    request.method == "PUT" && query.split('&').any(|pair| pair == wanted)
}

fn is_completion(request: &Request) -> bool {
    request.method == "POST" && request.target.contains("uploadId=")
}

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
fn what_stands_under_a_key_is_never_replaced() {
    let Some(server) = server() else { return };
    let key = key("dumps/2026-01-31/a.zip");
    let first = noise(BIG);
    let mut second = first.clone();
    second[BIG - 1] ^= 1;
    let bucket = bucket();
    // The second writer is told that nothing is there, as in a race.
    let proxy = HttpProxy::counting(server.port());
    let store = open(&bucket, &proxy.endpoint());
    for len in [BIG, 1000] {
        store.put(&key, &mut &first[..len], len as u64).unwrap();
        store.put(&key, &mut &first[..len], len as u64).unwrap();
        let other = &second[BIG - len..];
        let heads = Arc::new(AtomicUsize::new(0));
        // A small object is asked for once, a big one twice before it is completed.
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
fn server_that_ignores_conditions_and_has_no_checksums_is_read_back() {
    let proxy = HttpProxy::start(None, |_| Deed::Remember);
    let store = open("memory", &proxy.endpoint());
    let (_root, bundle) = bundle(100_000);
    let shipped = ship(&store, &bundle).unwrap();
    assert!(proxy.sent() >= bundle.len(), "{}", proxy.sent());
    let other = vec![7; bundle.len() as usize];
    let error = store.put(&shipped.key, &mut other.as_slice(), bundle.len());
    assert!(matches!(error, Err(StoreError::Conflict { .. })));
    assert_eq!(ship(&store, &bundle).unwrap(), shipped);
}

fn ship_resumable(
    store: &S3Store,
    bundle: &BundleWriter,
    journal: &Path,
    flow: &dyn Fn(usize) -> Flow,
) -> Result<Shipped, ShipError> {
    let options = ShipOptions {
        journal,
        flow,
        first_seen: &FirstSeenWriter::default(),
    };
    cdh_store::ship_resumable(store, bundle, &options)
}

/// Ships a big dump past a proxy that does this, and again with patience as the shipper would;
/// tells how many tries it took.
fn ship_past(judge: impl Fn(&Request) -> Deed + Send + Sync + 'static) -> Option<(usize, u64)> {
    let server = server()?;
    let bucket = bucket();
    let proxy = HttpProxy::start(Some(server.port()), judge);
    let store = open(&bucket, &proxy.endpoint());
    let (root, bundle) = bundle(BIG);
    let journal = root.path().join("journal");
    let mut failed = Vec::new();
    for attempt in 1..=4 {
        match ship_resumable(&store, &bundle, &journal, &|_| Flow::Go) {
            Ok(shipped) => {
                let found = digests(&server.endpoint(), &bucket, &shipped.key);
                assert_eq!(found, expected(&bundle));
                assert!(!journal.exists());
                let direct = open(&bucket, &server.endpoint());
                assert_eq!(
                    Catalog::new(&direct).find(&Query::default()).unwrap().len(),
                    1
                );
                assert_eq!(direct.abort_stale_uploads(Duration::ZERO).unwrap(), 0);
                return Some((attempt, proxy.received()));
            }
            Err(error) => {
                // What failed is never seen as a dump.
                let direct = open(&bucket, &server.endpoint());
                let found = Catalog::new(&direct).find(&Query::default());
                assert!(found.map_or(0, |found| found.len()) == 0, "{error}");
                failed.push(format!("{error}: {:?}", error.source()));
            }
        }
    }
    panic!("not shipped after four tries: {failed:#?}");
}

/// The first `times` times that a request is one of `these`.
fn first(
    times: usize,
    these: impl Fn(&Request) -> bool + Send + Sync + 'static,
    deed: Deed,
) -> impl Fn(&Request) -> Deed + Send + Sync + 'static {
    let seen = AtomicUsize::new(0);
    move |request| {
        let hit = these(request) && seen.fetch_add(1, Ordering::Relaxed) < times;
        if hit { deed.clone() } else { Deed::Pass }
    }
}

fn error_body(code: &str) -> Vec<u8> {
    format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>no</Message></Error>").into()
}

#[test]
fn connection_cut_in_the_third_part_costs_little() {
    let cut = first(1, |r| is_part(r, 3), Deed::CutRequest(3 << 20));
    let Some((tries, received)) = ship_past(cut) else {
        return;
    };
    assert_eq!(tries, 1);
    assert!(received < (BIG as u64) * 13 / 10, "{received}");
}

#[test]
fn parts_that_arrived_are_not_sent_again_by_the_next_try() {
    // So often that the client gives up and the next try has to go on.
    let cut = first(3, |r| is_part(r, 4), Deed::CutRequest(1 << 20));
    let Some((tries, received)) = ship_past(cut) else {
        return;
    };
    assert_eq!(tries, 2);
    assert!(received < most(), "{received}");
}

/// Bytes that an upload with one failure may cost: of a server that cannot say what it has, all again.
fn most() -> u64 {
    let ours = server().is_some_and(S3Server::is_ours);
    BIG as u64 * if ours { 13 } else { 23 } / 10
}

#[test]
fn parts_that_the_server_lists_in_words_of_its_own_are_sent_again() {
    let is_list =
        |request: &Request| request.method == "GET" && request.target.contains("uploadId=");
    let cut = first(3, |r| is_part(r, 4), Deed::CutRequest(1 << 20));
    let judge = move |request: &Request| match is_list(request) {
        true => Deed::Answer(200, vec![], b"<ListPartsResponse/>".to_vec()),
        false => cut(request),
    };
    let Some((tries, _)) = ship_past(judge) else {
        return;
    };
    assert_eq!(tries, 2);
}

#[test]
fn every_request_may_fail_once_with_a_500() {
    let seen = Mutex::new(std::collections::BTreeSet::new());
    let judge = move |request: &Request| {
        let what = (request.method.clone(), request.target.clone());
        if seen.lock().unwrap().insert(what) {
            Deed::Answer(500, vec![], error_body("InternalError"))
        } else {
            Deed::Pass
        }
    };
    let Some((tries, _)) = ship_past(judge) else {
        return;
    };
    assert_eq!(tries, 1);
}

#[test]
fn success_with_an_error_in_it_is_a_failure() {
    let deed = Deed::Answer(200, vec![], error_body("InternalError"));
    let Some((_, received)) = ship_past(first(3, is_completion, deed)) else {
        return;
    };
    assert!(received < most(), "{received}");
}

#[test]
fn completion_whose_answer_is_lost_is_found_done() {
    let deed = Deed::PassAndAnswer(500, error_body("InternalError"));
    let Some((tries, _)) = ship_past(first(1, is_completion, deed)) else {
        return;
    };
    assert_eq!(tries, 1);
}

#[test]
fn upload_that_the_server_forgot_begins_anew() {
    let deed = Deed::Answer(404, vec![], error_body("NoSuchUpload"));
    let Some((tries, _)) = ship_past(first(1, |r| is_part(r, 2), deed)) else {
        return;
    };
    assert_eq!(tries, 2);
}

#[test]
fn success_without_an_object_is_a_failure() {
    // Neither bundle nor manifest is kept the first time.
    let small = |request: &Request| {
        let other = ["partNumber", "first-seen/"];
        request.method == "PUT" && !other.iter().any(|word| request.target.contains(word))
    };
    let deed = Deed::Answer(200, vec![("etag", "\"x\"".to_owned())], vec![]);
    let Some((tries, _)) = ship_past(first(1, small, deed)) else {
        return;
    };
    assert_eq!(tries, 2);
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
    // An object that was replaced is not mixed with the one before.
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

/// A body that is no longer wanted.
struct Stopping;

impl Read for Stopping {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(io::Error::other(StoreError::Stopped))
    }
}

#[test]
fn uploads_that_nobody_finished_are_given_up_and_those_of_others_are_not() {
    let Some(server) = server() else { return };
    let bucket = bucket();
    let store = open(&bucket, &server.endpoint());
    let (root, bundle) = bundle(BIG);
    let stop_at = AtomicUsize::new(0);
    let stop = |_| match stop_at.fetch_add(1, Ordering::Relaxed) > 7 {
        true => Flow::Stop,
        false => Flow::Go,
    };
    let stopped = ship_resumable(&store, &bundle, &root.path().join("journal"), &stop);
    assert!(matches!(
        stopped,
        Err(ShipError::Store(StoreError::Stopped))
    ));
    // Of another program, below the same prefix.
    let foreign = key("dumps/other.zip");
    let mut body = io::repeat(0).take(9 << 20).chain(Stopping);
    let journal = root.path().join("other");
    let begun = store.put_resumable(&foreign, &mut body, 20 << 20, &journal);
    assert!(matches!(begun, Err(StoreError::Stopped)));
    // Another make of server may say of all that they began years ago.
    if server.is_ours() {
        let old = Duration::from_secs(3600);
        assert_eq!(store.abort_stale_uploads(old).unwrap(), 0);
    }
    assert_eq!(store.abort_stale_uploads(Duration::ZERO).unwrap(), 1);
    assert_eq!(store.abort_stale_uploads(Duration::ZERO).unwrap(), 0);
    // The journal of an upload that is gone does no harm.
    ship_resumable(&store, &bundle, &root.path().join("journal"), &|_| Flow::Go).unwrap();
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
    // One for what stands beside `dumps/`, one for the day.
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
fn wrong_keys_and_missing_rights_are_told_apart() {
    let Some(server) = server().filter(|server| server.is_ours()) else {
        return;
    };
    let endpoint = server.endpoint();
    let options = [("endpoint", endpoint.as_str())];
    server.make_bucket("shelf");
    let admin = open_as("shelf", &options, (ADMIN.access, ADMIN.secret));
    let key = key("a");
    admin.put(&key, &mut b"x".as_slice(), 1).unwrap();
    let list =
        |store: &S3Store| store.list(&Listing::default(), &mut |_| ControlFlow::Continue(()));
    for keys in [("AKIANOBODY", "x"), (ADMIN.access, "wrong")] {
        let store = open_as("shelf", &options, keys);
        let error = list(&store).unwrap_err();
        assert!(matches!(error, StoreError::Credentials { .. }), "{error}");
        // The answer to a HEAD has no body that could tell why.
        let error = store.stat(&key).unwrap_err();
        assert!(matches!(error, StoreError::Denied { .. }), "{error}");
    }
    let reader = open_as("shelf", &options, (READER.access, READER.secret));
    list(&reader).unwrap();
    assert!(reader.stat(&key).unwrap().is_some());
    let new = ObjectKey::parse("b").unwrap();
    let error = reader.put(&new, &mut b"x".as_slice(), 1).unwrap_err();
    assert!(matches!(error, StoreError::Denied { .. }), "{error}");
    let missing = open_as("no-such-bucket", &options, (ADMIN.access, ADMIN.secret));
    let error = list(&missing).unwrap_err();
    assert!(matches!(error, StoreError::NoBucket { .. }), "{error}");
}

#[test]
fn put_into_a_missing_bucket_fails_and_creates_none() {
    let Some(server) = server() else { return };
    let name = format!("missing-{}", std::process::id());
    let store = open(&name, &server.endpoint());
    for _ in 0..2 {
        let error = store.put(&key("a"), &mut b"x".as_slice(), 1).unwrap_err();
        assert!(matches!(error, StoreError::NoBucket { .. }), "{error}");
        assert!(
            error.to_string().contains(&format!("s3://{name}")),
            "{error}"
        );
        assert!(error.hint().is_some_and(|hint| hint.contains("aws s3 mb")));
    }
    let error = store.check().unwrap_err();
    assert!(matches!(error, StoreError::NoBucket { .. }), "{error}");
    assert!(!server.is_ours() || !server.has_bucket(&name));
    // Created meanwhile, it is used.
    server.make_bucket(&name);
    store.put(&key("a"), &mut b"x".as_slice(), 1).unwrap();
    store.check().unwrap();
}

#[test]
fn put_asks_for_the_bucket_once_a_process() {
    let Some(server) = server() else { return };
    let bucket = bucket();
    let proxy = HttpProxy::counting(server.port());
    let store = open(&bucket, &proxy.endpoint());
    for name in ["a", "b", "c"] {
        store.put(&key(name), &mut b"x".as_slice(), 1).unwrap();
    }
    let asked = proxy.requests();
    let asked = asked.iter().filter(|request| is_bucket(request, &bucket));
    assert_eq!(asked.count(), 1);
}

/// `HEAD /bucket`, with or without a slash behind it.
fn is_bucket(request: &Request, bucket: &str) -> bool {
    let path = request.target.split('?').next().unwrap_or_default();
    request.method == "HEAD" && path.trim_matches('/') == bucket
}

#[test]
fn put_goes_on_where_the_question_for_the_bucket_is_refused() {
    let Some(server) = server() else { return };
    let bucket = bucket();
    for status in [400, 403, 405, 501] {
        let name = bucket.clone();
        let proxy = HttpProxy::start(Some(server.port()), move |request| {
            match is_bucket(request, &name) {
                true => Deed::Answer(status, vec![], Vec::new()),
                false => Deed::Pass,
            }
        });
        let store = open(&bucket, &proxy.endpoint());
        let object = key(&format!("after-{status}"));
        store.put(&object, &mut b"x".as_slice(), 1).unwrap();
        // It may be listed, which says as much.
        store.check().unwrap();
    }
}

#[test]
fn check_tells_wrong_keys_from_missing_rights_and_a_dead_server() {
    let Some(server) = server().filter(|server| server.is_ours()) else {
        return;
    };
    let endpoint = server.endpoint();
    let options = [("endpoint", endpoint.as_str()), ("timeout", "5")];
    let bucket = bucket();
    let check = |keys| open_as(&bucket, &options, keys).check();
    check((ADMIN.access, ADMIN.secret)).unwrap();
    for keys in [("AKIANOBODY", "x"), (ADMIN.access, "wrong")] {
        let error = check(keys).unwrap_err();
        assert!(matches!(error, StoreError::Credentials { .. }), "{error}");
    }
    let error = check((READER.access, READER.secret)).unwrap_err();
    assert!(matches!(error, StoreError::Denied { .. }), "{error}");
    let error = open(&bucket, "http://127.0.0.1:1").check().unwrap_err();
    assert!(matches!(error, StoreError::Unreachable { .. }), "{error}");
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
