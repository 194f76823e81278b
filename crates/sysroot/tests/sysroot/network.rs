//! Failing networks, registries that require tokens, and mirrors.

use std::fs;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use cdh_sysroot::{PullError, Registry, RegistryOptions};
use cdh_testkit::{HttpAnswer, HttpServer, Packing, TestImages, TestLayer, answer_from, digest_of};

use super::{Workstation, base64, bytes_of, elf, module, noise, plain, registry, serve};

fn one_layer(images: &mut TestImages) -> String {
    let layer = TestLayer::new()
        .file("var/data", &noise(3 << 20, 1))
        .file("app/api", &elf(1, 1 << 20))
        .file("etc/config", b"text");
    images.image("amd64", &[layer.pack(Packing::Gzip)])
}

#[test]
fn broken_connections_and_busy_registries_are_tried_again_where_they_left_off() {
    for ranges in [true, false] {
        let mut images = TestImages::default();
        let digest = one_layer(&mut images);
        let copy = images.clone();
        let count = AtomicU32::new(0);
        let server = HttpServer::start(move |request| {
            let number = count.fetch_add(1, Ordering::Relaxed);
            let mut request = request.clone();
            if !ranges {
                request.headers.remove("range");
            }
            let mut answer = answer_from(&copy, &request);
            match number {
                0 => HttpAnswer::status(503),
                1 => HttpAnswer::status(429).with("retry-after", "0"),
                _ if request.path.contains("/blobs/") && number < 7 => {
                    answer.cut = Some((number as usize) << 19);
                    answer
                }
                _ => answer,
            }
        });
        let server = server.unwrap();
        let known = registry();
        let name = format!("{}/app@{digest}", server.address);
        let workstation = Workstation::new();
        let pulled = workstation.pull(
            Some(&known),
            &name,
            &[module("/app/api", 1), plain("/etc/config")],
        );
        let pulled = pulled.unwrap();
        assert!(pulled.problem.is_none(), "{:?}", pulled.problem);
        assert_eq!(bytes_of(&pulled.answers[0]), elf(1, 1 << 20));
        assert_eq!(bytes_of(&pulled.answers[1]), b"text");
    }
}

#[test]
fn tokens_are_fetched_with_what_proves_who_we_are_and_used_again() {
    let mut images = TestImages::default();
    let digest = one_layer(&mut images);
    // Anonymous, by password, by identity token.
    let basic = format!("Basic {}", base64("user:pw"));
    for (auth, expected) in [
        (None, "GET anonymous"),
        (
            Some(format!(r#"{{"auth":"{}"}}"#, base64("user:pw"))),
            "GET basic",
        ),
        (
            Some(r#"{"identitytoken":"idt"}"#.to_owned()),
            "POST identity",
        ),
    ] {
        let copy = images.clone();
        let address: Arc<Mutex<String>> = Arc::default();
        let (own, basic) = (Arc::clone(&address), basic.clone());
        let server = HttpServer::start(move |request| {
            if request.path.starts_with("/token") {
                let seen = match request.headers.get("authorization") {
                    Some(value) if *value == basic => "GET basic",
                    None if request.body.contains("refresh_token=idt") => "POST identity",
                    None => "GET anonymous",
                    _ => "wrong",
                };
                assert!(
                    request
                        .path
                        .contains("scope=repository%3Ateam%2Fapp%3Apull")
                        || request.method == "POST"
                );
                return match seen == expected {
                    true => HttpAnswer::ok(br#"{"token":"t0k"}"#),
                    false => HttpAnswer::status(401),
                };
            }
            if request
                .headers
                .get("authorization")
                .is_none_or(|value| value != "Bearer t0k")
            {
                let realm = own.lock().unwrap().clone();
                let challenge = format!(
                    "Bearer realm=\"http://{realm}/token\",service=\"s\",scope=\"repository:team/app:pull\""
                );
                return HttpAnswer::status(401).with("WWW-Authenticate", &challenge);
            }
            answer_from(&copy, request)
        });
        let server = server.unwrap();
        address.lock().unwrap().clone_from(&server.address);
        let workstation = Workstation::new();
        let mut options = RegistryOptions::default();
        if let Some(auth) = auth {
            let file = workstation.path("auth.json");
            fs::write(
                &file,
                format!(r#"{{"auths":{{"{}":{auth}}}}}"#, server.address),
            )
            .unwrap();
            options.auth_file = Some(file);
        }
        let known = Registry::open(&options).unwrap();
        let name = format!("{}/team/app@{digest}", server.address);
        let pulled = workstation
            .pull(Some(&known), &name, &[module("/app/api", 1)])
            .unwrap();
        assert_eq!(bytes_of(&pulled.answers[0]), elf(1, 1 << 20), "{expected}");
        let tokens = server
            .requests()
            .iter()
            .filter(|request| request.path.starts_with("/token"))
            .count();
        assert_eq!(tokens, 1, "{expected}");
    }
}

#[test]
fn password_does_not_follow_a_redirect_to_another_server() {
    let mut images = TestImages::default();
    let digest = one_layer(&mut images);
    let bucket = serve(&images);
    let (copy, place) = (images.clone(), bucket.address.clone());
    let expected = format!("Basic {}", base64("user:pw"));
    let front = HttpServer::start(move |request| {
        if request.headers.get("authorization") != Some(&expected) {
            return HttpAnswer::status(401).with("www-authenticate", "Basic realm=\"x\"");
        }
        match request.path.contains("/blobs/") {
            true => HttpAnswer::status(307).with(
                "location",
                &format!("http://{place}{}?sig=1", request.path).replace("?sig=1", ""),
            ),
            false => answer_from(&copy, request),
        }
    });
    let front = front.unwrap();
    let workstation = Workstation::new();
    let auth = workstation.path("auth.json");
    let entry = base64("user:pw");
    fs::write(
        &auth,
        format!(
            r#"{{"auths":{{"{}":{{"auth":"{entry}"}}}}}}"#,
            front.address
        ),
    )
    .unwrap();
    let options = RegistryOptions {
        auth_file: Some(auth),
        ..RegistryOptions::default()
    };
    let known = Registry::open(&options).unwrap();
    let name = format!("{}/app@{digest}", front.address);
    let pulled = workstation
        .pull(Some(&known), &name, &[module("/app/api", 1)])
        .unwrap();
    assert_eq!(bytes_of(&pulled.answers[0]), elf(1, 1 << 20));
    let leaked = bucket
        .requests()
        .iter()
        .any(|request| request.headers.contains_key("authorization"));
    assert!(!leaked && !bucket.requests().is_empty());
}

#[test]
fn mirror_is_asked_first_and_the_registry_when_it_does_not_have_it() {
    let mut images = TestImages::default();
    let digest = one_layer(&mut images);
    let (full, empty) = (serve(&images), serve(&TestImages::default()));
    let workstation = Workstation::new();
    let conf = workstation.path("registries.conf");
    for (mirror, location) in [(&full, &empty), (&empty, &full)] {
        let text = format!(
            "[[registry]]\nprefix = \"quay.test/team\"\nlocation = \"{}/real\"\ninsecure = true\n\
             [[registry.mirror]]\nlocation = \"{}/copy\"\ninsecure = true\n",
            location.address, mirror.address
        );
        fs::write(&conf, text).unwrap();
        let options = RegistryOptions {
            registries_conf: vec![conf.clone()],
            ..RegistryOptions::default()
        };
        let known = Registry::open(&options).unwrap();
        let name = format!("quay.test/team/app@{digest}");
        let workstation = Workstation::new();
        let pulled = workstation
            .pull(Some(&known), &name, &[module("/app/api", 1)])
            .unwrap();
        assert_eq!(bytes_of(&pulled.answers[0]), elf(1, 1 << 20));
    }
    let asked: Vec<String> = full
        .requests()
        .into_iter()
        .map(|request| request.path)
        .collect();
    assert!(asked.iter().any(|path| path.starts_with("/v2/copy/app/")));
    assert!(asked.iter().any(|path| path.starts_with("/v2/real/app/")));
}

#[test]
fn unreachable_registry_and_missing_image_have_different_errors() {
    let digest = digest_of(b"x");
    let gone = serve(&TestImages::default());
    let error = Workstation::new().pull(
        Some(&registry()),
        &format!("{}/app@{digest}", gone.address),
        &[],
    );
    assert!(
        matches!(error, Err(PullError::NotFound { .. })),
        "{:?}",
        error.err()
    );
    let address = gone.address.clone();
    drop(gone);
    let error = Workstation::new().pull(Some(&registry()), &format!("{address}/app@{digest}"), &[]);
    let error = error.err().unwrap();
    assert!(
        matches!(error, PullError::Unreachable { .. }) && error.is_unreachable(),
        "{error}"
    );
}

#[test]
fn registry_that_explains_itself_is_quoted_and_one_that_rambles_is_not() {
    let envelope =
        br#"{"errors":[{"code":"TOOMANYREQUESTS","message":"pull rate limit reached"}]}"#;
    for (status, body, expected) in [
        (
            429,
            envelope.to_vec(),
            "TOOMANYREQUESTS: pull rate limit reached",
        ),
        (
            403,
            envelope.to_vec(),
            "access is forbidden: TOOMANYREQUESTS",
        ),
        (500, vec![b' '; 32 << 20], "answers 500 for manifest"),
    ] {
        let server = HttpServer::start(move |_| HttpAnswer {
            body: body.clone(),
            ..HttpAnswer::status(status).with("retry-after", "0")
        });
        let server = server.unwrap();
        let name = format!("{}/app@{}", server.address, digest_of(b"x"));
        let error = Workstation::new().pull(Some(&registry()), &name, &[]);
        let error = error.err().unwrap().to_string();
        assert!(error.contains(expected), "{error}");
        assert!(error.len() < 400, "{error}");
    }
}
