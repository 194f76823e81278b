//! Keys, permissions and buckets: each failure has its own error.

use super::*;

#[test]
fn wrong_keys_and_missing_permissions_have_different_errors() {
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
        // The answer to a HEAD has no body that could give the reason.
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
        // Listing is permitted, which shows the same.
        store.check().unwrap();
    }
}

#[test]
fn check_distinguishes_wrong_keys_missing_permissions_and_a_dead_server() {
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
