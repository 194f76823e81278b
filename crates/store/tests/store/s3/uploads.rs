//! Uploads with faults: what is sent again, what is aborted, and that no wrong object counts as
//! stored.

use std::error::Error;

use super::*;

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

/// Ships a big dump through a proxy with this fault, retrying like the shipper; returns the number
/// of attempts.
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
                // A failed upload never looks like a dump.
                let direct = open(&bucket, &server.endpoint());
                let found = Catalog::new(&direct).find(&Query::default());
                assert!(found.map_or(0, |found| found.len()) == 0, "{error}");
                failed.push(format!("{error}: {:?}", error.source()));
            }
        }
    }
    panic!("not shipped after four tries: {failed:#?}");
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
    // So often that the client gives up and the next attempt must resume.
    let cut = first(3, |r| is_part(r, 4), Deed::CutRequest(1 << 20));
    let Some((tries, received)) = ship_past(cut) else {
        return;
    };
    assert_eq!(tries, 2);
    assert!(received < most(), "{received}");
}

/// Maximum bytes of an upload with one failure: for a server that cannot list its parts, everything is
/// sent again.
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
    // The first time, neither bundle nor manifest is stored.
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

/// A body that must stop.
struct Stopping;

impl Read for Stopping {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(io::Error::other(StoreError::Stopped))
    }
}

#[test]
fn stale_uploads_of_ours_are_aborted_and_foreign_ones_are_not() {
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
    // Another server may report that all uploads began years ago.
    if server.is_ours() {
        let old = Duration::from_secs(3600);
        assert_eq!(store.abort_stale_uploads(old).unwrap(), 0);
    }
    assert_eq!(store.abort_stale_uploads(Duration::ZERO).unwrap(), 1);
    assert_eq!(store.abort_stale_uploads(Duration::ZERO).unwrap(), 0);
    // The journal of a vanished upload is harmless.
    ship_resumable(&store, &bundle, &root.path().join("journal"), &|_| Flow::Go).unwrap();
}
