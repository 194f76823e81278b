//! Unusual answers of servers, gateways and proxies: each error names the culprit.

use std::io::Write;

use cdh_store::EndpointProblem;

use super::*;

/// The error of listing a bucket if the server always answers this.
fn refused(status: u16, headers: Vec<(&'static str, String)>, body: &'static str) -> StoreError {
    let answer = move |_: &Request| Deed::Answer(status, headers.clone(), body.into());
    let server = HttpProxy::start(None, answer);
    let options = [("endpoint", &*server.endpoint()), ("timeout", "20")];
    let store = open_as("memory", &options, (ADMIN.access, ADMIN.secret));
    let error = store.list(&Listing::default(), &mut |_| ControlFlow::Continue(()));
    error.expect_err(body)
}

#[test]
fn listing_that_cannot_be_parsed_is_not_an_unreachable_store() {
    let table = [
        ("", "an empty answer"),
        ("<?xml version=\"1.0\"?><Ok/>", "XML that does not answer"),
        (
            "<ListBucketResult><Contents><Key>a",
            "not a complete listing",
        ),
        (
            "<?xml version=\"1.0\"?><!DOCTYPE html><html/>",
            "an HTML page",
        ),
        ("{\"ok\": true}", "JSON"),
        ("pong", "text"),
    ];
    for (body, said) in table {
        let error = refused(200, vec![], body);
        let is_not_s3 = matches!(
            &error,
            StoreError::Endpoint {
                problem: EndpointProblem::NotS3 { .. },
                ..
            }
        );
        assert!(is_not_s3 && error.to_string().contains(said), "{error}");
    }
}

#[test]
fn listing_with_404_names_bucket_and_endpoint() {
    for body in [
        "",
        "<Error><Code>NoSuchKey</Code></Error>",
        "<Error><Code>NotFound</Code></Error>",
        "<Error><Message>gone</Message></Error>",
    ] {
        let error = refused(404, vec![], body);
        assert!(matches!(error, StoreError::NoBucket { .. }), "{error}");
        let text = error.to_string();
        assert!(
            text.contains("s3://memory/") && text.contains(" at http://127.0.0.1:"),
            "{text}"
        );
    }
}

#[test]
fn redirect_names_the_region_or_the_other_server() {
    let body = "<Error><Code>PermanentRedirect</Code><Endpoint>b.s3-eu-west-1.amazonaws.com</Endpoint></Error>";
    let malformed =
        "<Error><Code>AuthorizationHeaderMalformed</Code><Region>eu-west-1</Region></Error>";
    let header = vec![("x-amz-bucket-region", "eu-west-1".to_owned())];
    let location = vec![(
        "Location",
        "https://b.s3.eu-west-1.amazonaws.com/?x".to_owned(),
    )];
    for (status, headers, body) in [
        (301, vec![], body),
        (301, header, ""),
        (307, location, ""),
        (400, vec![], malformed),
    ] {
        let error = refused(status, headers, body);
        let is_region = matches!(
            &error,
            StoreError::Region { region: Some(region), .. } if region == "eu-west-1"
        );
        assert!(is_region, "{status}: {error}");
    }
    for status in [301, 302, 307, 308] {
        let to = "https://login.example.com/sso?from=x".to_owned();
        let error = refused(status, vec![("Location", to)], "");
        assert!(
            error
                .to_string()
                .ends_with("the server redirects to https://login.example.com"),
            "{error}"
        );
        let hint = error.hint().unwrap();
        assert!(
            hint.contains("endpoint=https://login.example.com"),
            "{hint}"
        );
    }
}

#[test]
fn refusal_by_a_server_with_another_time_blames_the_clock() {
    let late = || vec![("Date", "Sat, 28 Nov 2020 00:00:00 GMT".to_owned())];
    let denied = "<Error><Code>AccessDenied</Code><Message>no</Message></Error>";
    let expired = "<Error><Code>SignatureDoesNotMatch</Code><Message>Signature expired: 1 is now earlier than 2</Message></Error>";
    let skewed = "<Error><Code>RequestTimeTooSkewed</Code></Error>";
    for (headers, body) in [
        (late(), ""),
        (late(), denied),
        (vec![], expired),
        (vec![], skewed),
    ] {
        let error = refused(403, headers, body);
        assert!(matches!(error, StoreError::ClockSkew { .. }), "{error}");
    }
    let error = refused(403, late(), "");
    assert!(
        error.to_string().contains("shows 2020-11-28T00:00:00Z"),
        "{error}"
    );
    let error = refused(403, vec![], denied);
    assert!(matches!(error, StoreError::Denied { .. }), "{error}");
}

#[test]
fn refusal_without_a_code_keeps_its_message() {
    for body in [
        "<?xml version=\"1.0\"?><Error><Message>quota of the tenant</Message></Error>",
        "<ErrorResponse><Error><Code>Sorry</Code><Message>quota of the tenant</Message></Error></ErrorResponse>",
    ] {
        let error = refused(403, vec![], body);
        assert!(error.to_string().contains("quota of the tenant"), "{error}");
    }
    let error = refused(407, vec![], "");
    assert!(
        error.to_string().contains("proxy requires a login"),
        "{error}"
    );
}

#[test]
fn answer_that_is_not_http_is_not_an_unreachable_store() {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = std::thread::spawn(move || {
        // Requests, and a look for TLS, until the client gives up.
        while let Ok((mut client, _)) = listener.accept() {
            let mut start = [0; 4];
            let _ = client.read(&mut start);
            if &start == b"STOP" {
                break;
            }
            let _ = client.write_all(b"SSH-2.0-OpenSSH_9.2\r\n");
        }
    });
    let options = [
        ("endpoint", &*format!("http://127.0.0.1:{port}")),
        ("timeout", "20"),
    ];
    let store = open_as("memory", &options, (ADMIN.access, ADMIN.secret));
    let error = store
        .list(&Listing::default(), &mut |_| ControlFlow::Continue(()))
        .unwrap_err();
    assert!(error.to_string().contains("not HTTP"), "{error}");
    std::net::TcpStream::connect(("127.0.0.1", port))
        .and_then(|mut stream| stream.write_all(b"STOP"))
        .unwrap();
    server.join().unwrap();
}

#[test]
fn endpoint_with_a_path_is_asked_below_it() {
    for path in ["/storage/v1/s3", "/storage/v1/s3/", "/storage/v1/s3//"] {
        let empty = b"<ListBucketResult><Name>memory</Name></ListBucketResult>";
        let proxy = HttpProxy::start(None, |_| Deed::Answer(200, vec![], empty.to_vec()));
        let endpoint = format!("{}{path}", proxy.endpoint());
        let store = open("memory", &endpoint);
        let listing = Listing::default();
        store
            .list(&listing, &mut |_| ControlFlow::Continue(()))
            .unwrap();
        store.check().unwrap();
        let targets: Vec<_> = proxy
            .requests()
            .into_iter()
            .map(|request| request.target)
            .collect();
        assert!(
            !targets.is_empty()
                && targets
                    .iter()
                    .all(|target| target.starts_with("/storage/v1/s3/memory")),
            "{path}: {targets:?}"
        );
        assert!(
            store.describe().ends_with("/storage/v1/s3"),
            "{}",
            store.describe()
        );
    }
}
