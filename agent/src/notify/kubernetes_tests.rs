use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver as Answers, channel};

use cdh_testkit::TestCertificate;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::super::tests::{Arrived, PATIENCE, answer, manifest, read_request, server};
use super::*;

#[test]
fn kubernetes_creates_an_event_with_the_service_account() {
    let account = tempfile::tempdir().unwrap();
    fs::write(account.path().join("token"), "the-token\n").unwrap();
    fs::write(account.path().join("ca.crt"), "").unwrap();
    let (url, arrived) = server(vec![201, 409, 403]);
    let address = url.strip_suffix("/hook/s3cr3t").unwrap();
    let events = events_of(address.to_owned(), account.path());
    let manifest = manifest("aaaa");
    let crash = Crash::of(&manifest);
    assert_eq!(events.deliver(&crash), Attempt::Done);
    let (head, event) = arrived.recv_timeout(PATIENCE).unwrap();
    assert!(
        head[0].starts_with("post /api/v1/namespaces/shop/events "),
        "{head:?}"
    );
    assert!(head.contains(&"authorization: bearer the-token".to_owned()));
    assert_eq!(
        (&event["kind"], &event["reason"], &event["type"]),
        (&json!("Event"), &json!("CoreDumped"), &json!("Warning"))
    );
    let object = &event["involvedObject"];
    assert_eq!(
        (&object["name"], &object["uid"], &object["fieldPath"]),
        (
            &json!("api-0"),
            &json!("u-1"),
            &json!("spec.containers{main}")
        )
    );
    assert_eq!(event["firstTimestamp"], "2026-11-25T01:50:37Z");
    assert!(
        event["message"]
            .as_str()
            .unwrap()
            .contains(&format!("cdh bt {}", manifest.id))
    );
    assert_eq!(events.deliver(&crash), Attempt::Done, "it is there already");
    assert!(
        matches!(events.deliver(&crash), Attempt::Refused(why) if why.contains("may not create events"))
    );
    // Names that would leave the path, and crashes outside any pod.
    let mut hostile = crash.clone();
    hostile.pod.as_mut().unwrap().namespace = "../../x".to_owned();
    assert!(matches!(events.deliver(&hostile), Attempt::Refused(_)));
    hostile.pod = None;
    assert_eq!(events.deliver(&hostile), Attempt::Done);
    assert_eq!(arrived.try_iter().count(), 2);
}

fn events_of(address: String, account: &Path) -> KubernetesEvents {
    KubernetesEvents::new(ApiServer::new(address, account))
}

/// The cluster's API server, with this TLS certificate.
fn api_server(files: &TestCertificate) -> (String, Answers<Arrived>) {
    let chain = CertificateDer::pem_file_iter(&files.certificate).unwrap();
    let chain = chain.collect::<Result<Vec<_>, _>>().unwrap();
    let key = PrivateKeyDer::from_pem_file(&files.key).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("https://{}", listener.local_addr().unwrap());
    let (sender, arrived) = channel();
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            let tls = ServerConnection::new(Arc::clone(&config)).unwrap();
            let mut stream = StreamOwned::new(tls, connection.unwrap());
            // A client that does not trust the certificate sends no request.
            let Some((head, body)) = read_request(&mut stream) else {
                continue;
            };
            let body = serde_json::from_slice(&body).unwrap_or_default();
            if sender.send((head, body)).is_err() {
                return;
            }
            let _ = stream.write_all(answer(201).as_bytes());
            stream.conn.send_close_notify();
            let _ = stream.flush();
        }
    });
    (address, arrived)
}

fn account(files: Option<&TestCertificate>) -> tempfile::TempDir {
    let account = tempfile::tempdir().unwrap();
    fs::write(account.path().join("token"), "the-token\n").unwrap();
    let ca = files.map(|files| fs::read(&files.authority).unwrap());
    fs::write(account.path().join("ca.crt"), ca.unwrap_or_default()).unwrap();
    account
}

#[test]
fn kubernetes_trusts_only_the_clusters_authority() {
    if !TestCertificate::can_be_made() {
        return cdh_testkit::skip("no openssl here");
    }
    let places = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let ours = TestCertificate::make(places[0].path()).unwrap();
    let (address, arrived) = api_server(&ours);
    let account = account(Some(&ours));
    let crash = Crash::of(&manifest("aaaa"));
    let events = events_of(address, account.path());
    assert_eq!(events.deliver(&crash), Attempt::Done);
    let (head, event) = arrived.recv_timeout(PATIENCE).unwrap();
    assert!(
        head.contains(&"authorization: bearer the-token".to_owned()),
        "{head:?}"
    );
    assert_eq!(event["involvedObject"]["name"], "api-0");

    // The token goes to no other server: neither one with another authority, nor another host of
    // ours.
    let not_trusted = Attempt::Later("its certificate is not trusted".to_owned());
    let strange = TestCertificate::make(places[1].path()).unwrap();
    let misnamed = TestCertificate::make_for(places[2].path(), "IP:127.0.0.2").unwrap();
    for (files, trusted) in [(&strange, &ours), (&misnamed, &misnamed)] {
        let (address, arrived) = api_server(files);
        fs::copy(&trusted.authority, account.path().join("ca.crt")).unwrap();
        let events = events_of(address, account.path());
        assert_eq!(events.deliver(&crash), not_trusted);
        assert!(arrived.try_recv().is_err());
    }
    // The authority is renewed between attempts: the next one reads the new certificate.
    let (address, arrived) = api_server(&strange);
    let events = events_of(address, account.path());
    assert_eq!(events.deliver(&crash), not_trusted);
    fs::copy(&strange.authority, account.path().join("ca.crt")).unwrap();
    assert_eq!(events.deliver(&crash), Attempt::Done);
    arrived.recv_timeout(PATIENCE).unwrap();
}

#[test]
fn kubernetes_without_an_authority_trusts_no_server() {
    if !TestCertificate::can_be_made() {
        return cdh_testkit::skip("no openssl here");
    }
    let place = tempfile::tempdir().unwrap();
    let files = TestCertificate::make(place.path()).unwrap();
    let (address, arrived) = api_server(&files);
    let account = account(None);
    let crash = Crash::of(&manifest("aaaa"));
    let attempt = events_of(address.clone(), account.path()).deliver(&crash);
    assert!(matches!(attempt, Attempt::Later(_)), "{attempt:?}");
    fs::remove_file(account.path().join("ca.crt")).unwrap();
    let attempt = events_of(address, account.path()).deliver(&crash);
    assert!(
        matches!(&attempt, Attempt::Later(why) if why.contains("ca.crt")),
        "{attempt:?}"
    );
    assert!(arrived.try_recv().is_err());
}

/// An API server that returns these answers in order.
fn reviewing(answers: Vec<(u16, &'static str)>) -> (String, Answers<Arrived>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let (sender, arrived) = channel();
    std::thread::spawn(move || {
        for (status, text) in answers {
            let mut connection = listener.accept().unwrap().0;
            let (head, body) = read_request(&mut connection).unwrap();
            let _ = sender.send((head, serde_json::from_slice(&body).unwrap()));
            let length = text.len();
            let answer = format!(
                "HTTP/1.1 {status} x\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{text}"
            );
            let _ = connection.write_all(answer.as_bytes());
        }
    });
    (address, arrived)
}

#[test]
fn kubernetes_check_asks_the_api_server_for_permission() {
    let account = account(None);
    let (address, arrived) = reviewing(vec![
        (201, r#"{"status": {"allowed": true}}"#),
        (
            201,
            r#"{"status": {"allowed": false, "reason": "no RBAC policy matched"}}"#,
        ),
        (201, r#"{"status": {}}"#),
        (201, "<html>"),
        (403, "{}"),
    ]);
    let events = events_of(address, account.path());
    assert_eq!(events.check(), Ok(()));
    let (head, review) = arrived.recv_timeout(PATIENCE).unwrap();
    assert!(head[0].starts_with("post /apis/authorization.k8s.io/v1/selfsubjectaccessreviews "));
    assert_eq!(
        review["spec"]["resourceAttributes"],
        json!({"verb": "create", "resource": "events"})
    );
    let words = ["may not create", "does not say", "not JSON", "answered 403"];
    for words in words {
        let why = events.check().unwrap_err();
        assert!(why.contains(words), "{why}");
    }
    // `automountServiceAccountToken: false`
    fs::remove_file(account.path().join("token")).unwrap();
    let why = events.check().unwrap_err();
    assert!(why.contains("token"), "{why}");
    let finding = crate::diagnose::doctor::examine_events(Some(&events));
    assert!(
        finding.what.contains("new crashes are not shown"),
        "{finding:?}"
    );
}
