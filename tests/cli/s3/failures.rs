//! What a user reads when a bucket refuses or is not there.

use std::net::{TcpListener, TcpStream};
use std::process::Child;

use cdh_testkit::TestCertificate;

use super::*;

/// A server with TLS, by `openssl`: it closes connections without TLS and does not say why.
struct TlsServer {
    _directory: tempfile::TempDir,
    child: Child,
    port: u16,
    authority: PathBuf,
}

impl TlsServer {
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let made = TestCertificate::make(directory.path()).expect("install openssl");
        let port = {
            let free = TcpListener::bind(("127.0.0.1", 0)).unwrap();
            free.local_addr().unwrap().port()
        };
        let mut command = Command::new("openssl");
        command.args(["s_server", "-quiet", "-www", "-accept"]);
        command.arg(format!("127.0.0.1:{port}"));
        command
            .arg("-cert")
            .arg(&made.certificate)
            .arg("-key")
            .arg(&made.key);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let child = command.spawn().unwrap();
        let begun = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(
                begun.elapsed() < Duration::from_secs(20),
                "openssl does not listen"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        Self {
            _directory: directory,
            child,
            port,
            authority: made.authority,
        }
    }
}

impl Drop for TlsServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Each mistake in an endpoint has an error and a hint of its own, whatever answers there.
#[test]
fn mistakes_in_an_endpoint_are_named() {
    let Some(server) = server() else { return };
    let workstation = Workstation::new();
    server.make_bucket("shelf");
    let plain = server.endpoint().replace("http://", "");
    let tls = TlsServer::start();
    let html = |status| {
        let body = b"<!DOCTYPE html><html><title>Console</title></html>".to_vec();
        HttpProxy::start(None, move |_| Deed::Answer(status, vec![], body.clone()))
    };
    let text = |status, body: &'static [u8]| {
        HttpProxy::start(None, move |_| Deed::Answer(status, vec![], body.to_vec()))
    };
    let console = html(200);
    let missing = html(404);
    let login = html(403);
    let api = text(404, b"{\"detail\": \"Not Found\"}");
    let go = text(400, b"Client sent an HTTP request to an HTTPS server.\n");
    let nginx = text(
        400,
        b"<html>\r\n<head><title>400 The plain HTTP request was sent to HTTPS port</title></head>",
    );
    let gateway = html(502);
    let expired = text(
        400,
        b"<Error><Code>ExpiredToken</Code><Message>The provided token has expired.</Message></Error>",
    );
    let malformed = text(
        400,
        b"<Error><Code>AuthorizationHeaderMalformed</Code><Message>the region 'us-east-1' is wrong; expecting 'eu-west-1'</Message></Error>",
    );
    let free = {
        let free = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        free.local_addr().unwrap().port()
    };
    let port = tls.port;
    let cases = [
        ("https, server without TLS", format!("https://{plain}"), 2),
        (
            "http, server with TLS that closes",
            format!("http://127.0.0.1:{port}"),
            2,
        ),
        ("http, server with TLS that says so (Go)", go.endpoint(), 2),
        (
            "http, server with TLS that says so (nginx)",
            nginx.endpoint(),
            2,
        ),
        (
            "certificate of an unknown authority",
            format!("https://127.0.0.1:{port}"),
            2,
        ),
        (
            "certificate of another host",
            format!("https://localhost:{port}"),
            2,
        ),
        ("nothing listens", format!("http://127.0.0.1:{free}"), 3),
        (
            "no such host",
            "http://no-such-host.invalid:9000".to_owned(),
            3,
        ),
        ("web console", console.endpoint(), 2),
        ("web server without the page", missing.endpoint(), 2),
        ("web server with a login", login.endpoint(), 2),
        ("another API", api.endpoint(), 2),
        ("gateway without a server", gateway.endpoint(), 3),
        ("endpoint with a path", format!("http://{plain}/shelf"), 2),
        ("expired token", expired.endpoint(), 2),
        ("wrong region without a header", malformed.endpoint(), 2),
        ("no port", "http://127.0.0.1:99999".to_owned(), 2),
        ("no host", "http://".to_owned(), 2),
    ];
    let mut page = String::new();
    for (name, endpoint, code) in cases {
        let store = format!("s3://shelf?endpoint={endpoint}&timeout=20");
        let mut command = workstation.s3_command(&store, ADMIN, &["ls"]);
        if name.contains("another host") {
            command.env("AWS_CA_BUNDLE", &tls.authority);
        }
        let answer = workstation.answer(command.output().unwrap());
        assert_eq!(
            (answer.code, answer.out.as_str()),
            (code, ""),
            "{name}: {}",
            answer.err
        );
        assert_eq!(
            answer.err.matches("\nhint: ").count(),
            1,
            "{name}: {}",
            answer.err
        );
        page.push_str(&format!("# {name}\n{}[{}]\n\n", answer.err, answer.code));
    }
    insta::with_settings!({filters => vec![
        (r"(127\.0\.0\.1|localhost):\d+", "$1:[PORT]"),
    ]}, {
        insta::assert_snapshot!("s3_endpoints", page);
    });
}

/// As `aws --profile`: <https://github.com/aws/aws-cli/issues/113>.
#[test]
fn explicit_profile_takes_precedence_over_keys_in_the_environment() {
    let Some(server) = server().filter(|server| server.is_ours()) else {
        return;
    };
    let workstation = Workstation::new();
    let bucket = bucket();
    let store = |profile: &str| format!("{}{profile}", url(&bucket, &server.endpoint()));
    fs::create_dir(workstation.path(".aws")).unwrap();
    let (access, secret) = (ADMIN.access, ADMIN.secret);
    let keys =
        |secret: &str| format!("aws_access_key_id = {access}\naws_secret_access_key = {secret}\n");
    fs::write(
        workstation.path(".aws/credentials"),
        format!("[good]\n{}[bad]\n{}", keys(secret), keys("wrong")),
    )
    .unwrap();
    fs::write(
        workstation.path(".aws/config"),
        "[profile alias]\nsource_profile = good\n",
    )
    .unwrap();
    let wrong = S3Keys {
        secret: "wrong",
        ..ADMIN
    };
    let run = |profile: &str, variable: &str, keys: S3Keys| {
        let mut command = workstation.s3_command(&store(profile), keys, &["ls"]);
        if !variable.is_empty() {
            command.env("AWS_PROFILE", variable);
        }
        workstation.answer(command.output().unwrap())
    };
    // An empty store is status 1, credentials that are refused status 2.
    for (profile, variable, keys, code) in [
        ("&profile=good", "", wrong, 1),
        ("&profile=bad", "", ADMIN, 2),
        ("&profile=good", "bad", wrong, 1),
        ("&profile=good", "nope", ADMIN, 1),
        ("", "bad", ADMIN, 1),
        ("", "good", wrong, 2),
        ("", "", ADMIN, 1),
    ] {
        let answer = run(profile, variable, keys);
        assert_eq!(answer.code, code, "{profile} {variable}: {}", answer.err);
    }
    let named = run("&profile=nope", "", ADMIN);
    let variable = run("", "nope", ADMIN);
    assert_eq!(
        (named.code, variable.code),
        (2, 2),
        "{}{}",
        named.err,
        variable.err
    );
    assert_eq!(named.err, variable.err);
    insta::assert_snapshot!("s3_profile", named.err);
}

#[test]
fn wrong_prefix_names_the_one_that_has_dumps() {
    let Some(server) = server().filter(|server| server.is_ours()) else {
        return;
    };
    let workstation = Workstation::new();
    let bucket = bucket();
    let proxy = HttpProxy::counting(server.port());
    let store = |prefix: &str| {
        format!(
            "s3://{bucket}/{prefix}?endpoint={}&timeout=20",
            proxy.endpoint()
        )
    };
    let core = crash().core().display().to_string();
    for prefix in ["prod", "team/dev"] {
        assert_eq!(workstation.s3(&store(prefix), &["import", &core]).code, 0);
    }
    for (prefix, found) in [
        ("prdo", "prod"),
        ("prod/eu", "prod"),
        ("team/dve", "team/dev"),
        ("team/dev/x/y/z", "team/dev"),
    ] {
        for words in [["ls"].as_slice(), &["bt", "latest"], &["groups"]] {
            proxy.reset();
            let answer = workstation.s3(&store(prefix), words);
            assert_eq!(answer.code, 1, "{}", answer.err);
            let hint = format!(
                "hint: dumps exist elsewhere: `--store '{}'`\n",
                store(found)
            );
            assert!(answer.err.contains(&hint), "{}", answer.err);
            let requests = proxy.requests().len();
            assert!(requests <= 30, "{requests}");
        }
    }
    // Without the right to list the bucket, the error is about that and nothing else.
    let denied = workstation
        .s3_command(&store("prdo"), READER, &["ls"])
        .output()
        .unwrap();
    let denied = workstation.answer(denied);
    assert_eq!(denied.code, 2, "{}", denied.err);
    assert!(!denied.err.contains("dumps exist"), "{}", denied.err);
}

#[test]
fn failures_of_a_bucket_say_what_to_do() {
    let Some(server) = server() else { return };
    let workstation = Workstation::new();
    let endpoint = server.endpoint();
    server.make_bucket("shelf");
    let admin = url("shelf", &endpoint);
    let core = crash().core().display().to_string();
    assert_eq!(workstation.s3(&admin, &["import", &core]).code, 0);
    let wrong = S3Keys {
        secret: "wrong",
        ..ADMIN
    };
    let nobody = S3Keys {
        access: "AKIANOBODY",
        ..ADMIN
    };
    let none = S3Keys {
        access: "",
        secret: "",
    };
    let gone = "s3://shelf?endpoint=http://127.0.0.1:1&timeout=1".to_owned();
    let error = |code: &str, message: &str| {
        let text = format!("<Error><Code>{code}</Code><Message>{message}</Message></Error>");
        text.into_bytes()
    };
    let moved = error(
        "PermanentRedirect",
        "The bucket you are attempting to access must be addressed using the specified endpoint.",
    );
    let redirect = HttpProxy::start(None, move |_| {
        let region = vec![("x-amz-bucket-region", "eu-west-1".to_owned())];
        Deed::Answer(301, region, moved.clone())
    });
    let skewed = error(
        "RequestTimeTooSkewed",
        "The difference between the request time and the current time is too large.",
    );
    let late = HttpProxy::start(None, move |_| Deed::Answer(403, vec![], skewed.clone()));
    let slow = error("SlowDown", "Please reduce your request rate.");
    let busy = HttpProxy::start(None, move |_| Deed::Answer(503, vec![], slow.clone()));
    let nonsense = HttpProxy::start(None, |_| Deed::Answer(200, vec![], b"<html>hello".to_vec()));
    let cases: [(&str, S3Keys, String, &[&str]); 12] = [
        ("wrong secret", wrong, admin.clone(), &["ls"]),
        ("unknown key", nobody, admin.clone(), &["ls"]),
        ("no credentials", none, admin.clone(), &["ls"]),
        (
            "no permission to list",
            READER,
            url("closed", &endpoint),
            &["ls"],
        ),
        (
            "no permission to write",
            READER,
            admin.clone(),
            &["import", &core],
        ),
        (
            "no permission to delete",
            READER,
            admin.clone(),
            &["rm", "latest", "--yes"],
        ),
        (
            "no such bucket",
            ADMIN,
            url("nothing-here", &endpoint),
            &["ls"],
        ),
        ("no server", ADMIN, gone, &["ls"]),
        (
            "wrong region",
            ADMIN,
            url("shelf", &redirect.endpoint()),
            &["ls"],
        ),
        (
            "wrong clock",
            ADMIN,
            url("shelf", &late.endpoint()),
            &["ls"],
        ),
        ("busy", ADMIN, url("shelf", &busy.endpoint()), &["ls"]),
        (
            "no S3 server",
            ADMIN,
            url("shelf", &nonsense.endpoint()),
            &["ls"],
        ),
    ];
    let mut page = String::new();
    for (name, keys, store, words) in cases {
        let mut command = workstation.s3_command(&store, keys, words);
        if keys.access.is_empty() {
            command
                .env_remove("AWS_ACCESS_KEY_ID")
                .env_remove("AWS_SECRET_ACCESS_KEY");
        }
        let answer = workstation.answer(command.output().unwrap());
        assert_eq!(answer.out, "", "{name}");
        page.push_str(&format!("# {name}\n{}[{}]\n\n", answer.err, answer.code));
    }
    insta::with_settings!({filters => vec![
        (r"127\.0\.0\.1:\d\d+", "[SERVER]"),
        (r"dumps/\S+", "[KEY]"),
    ]}, {
        insta::assert_snapshot!("s3_failures", page);
    });
}

#[test]
fn no_command_creates_a_bucket_that_does_not_exist() {
    let Some(server) = server().filter(|server| server.is_ours()) else {
        return;
    };
    let workstation = Workstation::new();
    let name = format!("missing-{}", std::process::id());
    let store = url(&name, &server.endpoint());
    let missing = format!("bucket does not exist: s3://{name}/crashes");
    let core = crash().core().display().to_string();
    workstation.seal(&workstation.spool(), 1);
    let state = workstation.path("state").display().to_string();
    let sweep = ["agent", "sweep", "--state", &state];
    let doctor = ["agent", "doctor", "--state", &state, "--libexec", &state];
    let status = ["agent", "status", "--state", &state];
    for words in [&["import", core.as_str()][..], &sweep, &doctor, &status] {
        let answer = workstation.s3(&store, words);
        let said = answer.out + &answer.err;
        assert_eq!(answer.code, 2, "{words:?}: {said}");
        assert!(said.contains(&missing), "{words:?}: {said}");
        assert!(said.contains("aws s3 mb"), "{words:?}: {said}");
    }
    let agent = workstation.agent(&store);
    workstation.waits_for_log(&format!("the store fails: {missing}"));
    assert!(!server.has_bucket(&name));
    // The agent continues as soon as the bucket exists.
    server.make_bucket(&name);
    workstation.waits_until_spool_is_empty(Duration::from_secs(60));
    stop(agent);
    let answer = workstation.s3(&store, &status);
    assert!(
        answer.code < 2 && answer.out.contains(": works"),
        "{}",
        answer.out
    );
}
