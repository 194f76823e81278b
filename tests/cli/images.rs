//! Dumps whose files are nowhere but in an image, on a debuginfod server, or in a debug image.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use cdh_testkit::{HttpAnswer, HttpServer, Packing, TestImages, TestLayer, answer_from, ranged};

use super::{Workstation, functions};

const PROGRAM: &str = r"
__attribute__((noinline)) static void checkout(volatile int *total) { *total += 3; }
__attribute__((noinline)) static void serve(void) { checkout((volatile int *)0); __asm__(''); }
int main(void) { serve(); return 0; }
";

/// A crash whose program is no longer on this machine.
pub(super) struct Lost {
    dir: tempfile::TempDir,
    /// As it was mapped.
    pub(super) path: String,
    pub(super) program: Vec<u8>,
    stripped: Vec<u8>,
    debug: Vec<u8>,
    /// Another build of it.
    other: Vec<u8>,
}

impl Lost {
    pub(super) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name).display().to_string();
        fs::write(at("app.c"), PROGRAM.replace("''", "\"\"")).unwrap();
        let run = |program: &str, words: &[&str]| {
            let output = Command::new(program).args(words).output().unwrap();
            assert!(
                output.status.success(),
                "{}",
                String::from_utf8_lossy(&output.stderr)
            );
        };
        run(
            "cc",
            &[
                "-g",
                "-O1",
                "-Wl,--build-id",
                "-o",
                &at("app"),
                &at("app.c"),
            ],
        );
        run(
            "cc",
            &[
                "-g",
                "-O0",
                "-Wl,--build-id",
                "-o",
                &at("other"),
                &at("app.c"),
            ],
        );
        run(
            "objcopy",
            &["--only-keep-debug", &at("app"), &at("app.debug")],
        );
        run("objcopy", &["--strip-all", &at("app"), &at("stripped")]);
        let core = format!("generate-core-file {}", at("core"));
        run(
            "gdb",
            &["-q", "-batch", "-ex", "run", "-ex", &core, &at("app")],
        );
        let read = |name: &str| fs::read(at(name)).unwrap();
        let lost = Self {
            path: at("app"),
            program: read("app"),
            stripped: read("stripped"),
            debug: read("app.debug"),
            other: read("other"),
            dir,
        };
        for name in ["app", "other", "stripped", "app.debug"] {
            fs::remove_file(lost.dir.path().join(name)).unwrap();
        }
        lost
    }

    /// A place for a file of the test's own.
    pub(super) fn beside(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(super) fn core(&self) -> String {
        self.dir.path().join("core").display().to_string()
    }

    /// As it was mapped.
    pub(super) fn program(&self) -> &[u8] {
        &self.program
    }

    /// Another build of it.
    pub(super) fn other(&self) -> &[u8] {
        &self.other
    }

    pub(super) fn build_id(&self) -> String {
        cdh_sysroot::build_id_of(&self.program).unwrap().to_string()
    }

    pub(super) fn image(&self, program: &[u8]) -> (TestImages, String) {
        let mut images = TestImages::default();
        let below = TestLayer::new()
            .file("etc/os-release", b"ID=test\n")
            .pack(Packing::Zstd);
        let top = TestLayer::new()
            .file(&self.path, program)
            .pack(Packing::Gzip);
        let digest = images.image(architecture(), &[below, top]);
        (images, digest)
    }
}

pub(super) fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "aarch64" => "arm64",
        _ => "amd64",
    }
}

fn serve(images: TestImages) -> HttpServer {
    HttpServer::start(move |request| answer_from(&images, request)).unwrap()
}

#[test]
fn crash_is_named_from_its_image_and_the_second_time_without_a_network() {
    let (workstation, lost) = (Workstation::new(), Lost::new());
    let (images, digest) = lost.image(&lost.program);
    let server = serve(images);
    let image = format!("{}/shop/app@{digest}", server.address);
    let core = lost.core();
    let words = ["--image", image.as_str()];
    let document = workstation.json(&[&["bt", &core, "-o", "json"], &words[..]].concat());
    assert_eq!(functions(&document, 0)[..3], ["checkout", "serve", "main"]);
    let line = &document["backtrace"]["threads"][0]["frames"][0]["location"]["line"];
    assert_eq!(line, 2);
    let asked = server.requests().len();
    let gdb = [
        &["debug", &core][..],
        &words,
        &["--", "-q", "-batch", "-ex", "bt"],
    ]
    .concat();
    let answer = workstation.run(&gdb);
    assert!(
        answer.out.contains("checkout") && answer.out.contains("app.c:2"),
        "{}{}",
        answer.out,
        answer.err
    );
    let sysroot = workstation.json(&[&["sysroot", &core, "-o", "json"], &words[..]].concat());
    let app = module(&sysroot, "/app");
    assert_eq!(app["source"], "image");
    assert_eq!(app["symbols"], "functions and lines");
    assert_eq!(sysroot["pulled_bytes"], 0);
    assert_eq!(server.requests().len(), asked, "the cache has all of it");
    drop(server);
    let offline =
        workstation.json(&[&["bt", &core, "--offline", "-o", "json"], &words[..]].concat());
    assert_eq!(functions(&offline, 0)[0], "checkout");

    let listing = workstation.run(&["cache", "ls"]);
    assert!(
        listing.out.contains("layers") && listing.out.contains("in all"),
        "{}",
        listing.out
    );
    assert_eq!(workstation.run(&["cache", "clear"]).code, 0);
    assert_eq!(workstation.run(&["cache", "ls"]).code, 1);
    let nothing = workstation.run(&[&["sysroot", &core, "--offline"], &words[..]].concat());
    assert_eq!(nothing.code, 2, "{}", nothing.err);
    assert!(
        nothing.err.contains("`--offline` forbids"),
        "{}",
        nothing.err
    );
    assert!(
        nothing.out.contains("run without `--offline`"),
        "{}",
        nothing.out
    );
    let gone = workstation.run(&[&["sysroot", &core], &words[..]].concat());
    assert_eq!(gone.code, 3, "{}", gone.err);
    assert!(gone.err.contains("cannot be reached"), "{}", gone.err);
}

fn module<'d>(document: &'d serde_json::Value, end: &str) -> &'d serde_json::Value {
    let modules = document["modules"].as_array().unwrap();
    let found = modules
        .iter()
        .find(|module| module["path"].as_str().unwrap().ends_with(end));
    found.unwrap()
}

#[test]
fn image_that_the_dump_names_needs_no_words() {
    let (workstation, lost) = (Workstation::new(), Lost::new());
    let (images, digest) = lost.image(&lost.program);
    let server = serve(images);
    workstation.import(Path::new(&lost.core()));
    assert_eq!(workstation.run(&["fetch", "latest", "-d", "case"]).code, 0);
    let path = workstation.path("case/manifest.json");
    let mut manifest: serde_json::Value =
        serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let reference = format!("{}/shop/app@{digest}", server.address);
    manifest["image"] = serde_json::json!({ "reference": reference });
    fs::write(&path, manifest.to_string()).unwrap();
    workstation.allow_registry(&server.address.to_string());
    let answer = workstation.run(&["bt", "./case"]);
    assert!(
        answer.out.contains("checkout (") && answer.out.contains("app.c:2"),
        "{}{}",
        answer.out,
        answer.err
    );
}

#[test]
fn another_build_in_the_image_is_shown_with_both_build_ids_and_not_used() {
    let (workstation, lost) = (Workstation::new(), Lost::new());
    let (images, digest) = lost.image(&lost.other);
    let server = serve(images);
    let image = format!("{}/shop/app@{digest}", server.address);
    let other = cdh_sysroot::build_id_of(&lost.other).unwrap().to_string();
    let core = lost.core();
    let sysroot = workstation.run(&["sysroot", &core, "--image", &image]);
    assert_eq!(sysroot.code, 4, "{}", sysroot.err);
    let bt = workstation.run(&["bt", &core, "--image", &image]);
    let debug = workstation.run(&["debug", &core, "--image", &image, "--print"]);
    for text in [&sysroot.out, &bt.out, &debug.err] {
        assert!(
            text.contains(&other) && text.contains(&lost.build_id()),
            "{text}"
        );
    }
    assert!(!bt.out.contains("checkout"), "{}", bt.out);
}

#[test]
fn another_build_in_the_store_is_shown_with_both_build_ids_and_not_used() {
    let (workstation, lost) = (Workstation::new(), Lost::new());
    let kept = workstation.path("store/modules");
    fs::create_dir_all(&kept).unwrap();
    fs::write(kept.join(lost.build_id()), &lost.other).unwrap();
    let other = cdh_sysroot::build_id_of(&lost.other).unwrap().to_string();
    let core = lost.core();
    let (sysroot, bt) = (
        workstation.run(&["sysroot", &core]),
        workstation.run(&["bt", &core]),
    );
    assert_eq!(sysroot.code, 4, "{}{}", sysroot.out, sysroot.err);
    for text in [&sysroot.out, &bt.out] {
        assert!(
            text.contains(&other) && text.contains(&lost.build_id()),
            "{text}"
        );
    }
    fs::write(kept.join(lost.build_id()), &lost.program).unwrap();
    let right = workstation.run(&["bt", &core]);
    assert!(right.out.contains("checkout ("), "{}", right.out);
}

#[test]
fn debug_information_comes_from_a_debug_image_and_from_debuginfod() {
    let lost = Lost::new();
    let (mut images, digest) = lost.image(&lost.stripped);
    let debug = TestLayer::new()
        .file("anywhere/at/all.debug", &lost.debug)
        .pack(Packing::Gzip);
    let debug = images.image(architecture(), &[debug]);
    let server = serve(images);
    let image = format!("{}/shop/app@{digest}", server.address);
    let debug_image = format!("{}/shop/app@{debug}", server.address);
    let core = lost.core();
    let bare = Workstation::new().run(&["bt", &core, "--image", &image]);
    assert!(!bare.out.contains("app.c:2"), "{}", bare.out);
    let workstation = Workstation::new();
    let words = [
        "bt",
        &core,
        "--image",
        &image,
        "--debug-image",
        &debug_image,
    ];
    let answer = workstation.run(&words);
    assert!(
        answer.out.contains("checkout (") && answer.out.contains("app.c:2"),
        "{}{}",
        answer.out,
        answer.err
    );

    let (id, bytes, program) = (lost.build_id(), lost.debug.clone(), lost.program.clone());
    let debuginfod = HttpServer::start(move |request| {
        match request
            .path
            .strip_prefix("/buildid/")
            .and_then(|rest| rest.split_once('/'))
        {
            Some((asked, "debuginfo")) if asked == id => ranged(&bytes, request),
            Some((asked, "executable")) if asked == id => ranged(&program, request),
            _ => HttpAnswer::status(404),
        }
    });
    let debuginfod = debuginfod.unwrap();
    let urls = format!("http://{}", debuginfod.address);
    // The second workstation has no image at all.
    for words in [
        &["bt", core.as_str(), "--image", &image][..],
        &["bt", &core],
    ] {
        let workstation = Workstation::new();
        let answer = workstation.answer(
            workstation
                .command(words)
                .env("DEBUGINFOD_URLS", &urls)
                .output()
                .unwrap(),
        );
        assert!(
            answer.out.contains("app.c:2"),
            "{}{}",
            answer.out,
            answer.err
        );
        let asked = debuginfod.requests().len();
        let mut again = workstation.command(&[words, &["--offline"]].concat());
        let answer = workstation.answer(again.env("DEBUGINFOD_URLS", &urls).output().unwrap());
        assert!(
            answer.out.contains("app.c:2"),
            "{}{}",
            answer.out,
            answer.err
        );
        assert_eq!(debuginfod.requests().len(), asked);
        let mut gdb = workstation.command(
            &[
                &["debug"],
                &words[1..],
                &["--offline", "--", "-q", "-batch", "-ex", "bt"],
            ]
            .concat(),
        );
        let answer = workstation.answer(gdb.output().unwrap());
        assert!(
            answer.out.contains("app.c:2"),
            "{}{}",
            answer.out,
            answer.err
        );
    }
}

#[test]
fn debuginfod_that_lies_or_fails_is_reported_and_skipped() {
    let lost = Lost::new();
    let wrong = lost.other.clone();
    let liar = HttpServer::start(move |_| HttpAnswer::ok(&wrong)).unwrap();
    let broken = HttpServer::start(|_| HttpAnswer::status(500)).unwrap();
    let endless =
        HttpServer::start(|request| HttpAnswer::status(302).with("location", &request.path))
            .unwrap();
    for (server, words) in [
        (&liar, "build-id"),
        (&broken, "500"),
        (&endless, "without an end"),
    ] {
        let workstation = Workstation::new();
        let mut command = workstation.command(&["bt", &lost.core()]);
        let output = command
            .env("DEBUGINFOD_URLS", format!("http://{}", server.address))
            .output();
        let answer = workstation.answer(output.unwrap());
        assert_eq!(answer.code, 0);
        assert!(
            answer.err.contains("warning: debuginfod") && answer.err.contains(words),
            "{}",
            answer.err
        );
        assert!(!answer.out.contains("checkout"), "{}", answer.out);
    }
}

/// A registry that lets only `user` with `s3cret` in.
fn locked(images: TestImages) -> HttpServer {
    let server = HttpServer::start(move |request| match request.headers.get("authorization") {
        // user:s3cret
        Some(value) if value == "Basic dXNlcjpzM2NyZXQ=" => answer_from(&images, request),
        _ => HttpAnswer::status(401).with("www-authenticate", "Basic realm=\"test\""),
    });
    server.unwrap()
}

#[test]
fn passwords_come_from_helpers_files_and_secrets_and_never_into_messages() {
    let lost = Lost::new();
    let (images, digest) = lost.image(&lost.program);
    let server = locked(images);
    let image = format!("{}/shop/app@{digest}", server.address);
    let core = lost.core();
    let refused = Workstation::new().run(&["sysroot", &core, "--image", &image]);
    assert_eq!(refused.code, 2);
    assert!(
        refused.err.contains("wants credentials") && refused.err.contains("hint: log in"),
        "{}",
        refused.err
    );

    let workstation = Workstation::new();
    let bin = workstation.path("bin");
    fs::create_dir_all(&bin).unwrap();
    let helper = bin.join("docker-credential-test");
    let script = "#!/bin/sh\nread server\necho \"{\\\"ServerURL\\\":\\\"$server\\\",\\\"Username\\\":\\\"user\\\",\\\"Secret\\\":\\\"s3cret\\\"}\"\n";
    fs::write(&helper, script).unwrap();
    fs::set_permissions(&helper, fs::Permissions::from_mode(0o755)).unwrap();
    fs::create_dir_all(workstation.path(".docker")).unwrap();
    fs::write(
        workstation.path(".docker/config.json"),
        r#"{"credsStore":"test"}"#,
    )
    .unwrap();
    let mut command = workstation.command(&["sysroot", &core, "--image", &image]);
    let mut paths: Vec<PathBuf> = vec![bin];
    paths.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap()));
    command.env("PATH", std::env::join_paths(paths).unwrap());
    let answer = workstation.answer(command.output().unwrap());
    assert!(
        answer.out.contains("functions and lines"),
        "{}{}",
        answer.out,
        answer.err
    );

    // What `kubectl get secret -o yaml` prints.
    let config = format!(
        r#"{{"auths":{{"{}":{{"auth":"dXNlcjpzM2NyZXQ="}}}}}}"#,
        server.address
    );
    let workstation = Workstation::new();
    fs::write(workstation.path("plain"), &config).unwrap();
    let encoded = Command::new("base64")
        .arg("-w0")
        .arg(workstation.path("plain"))
        .output()
        .unwrap();
    let encoded = String::from_utf8(encoded.stdout).unwrap();
    let yaml = format!("apiVersion: v1\nkind: Secret\ndata:\n  .dockerconfigjson: {encoded}\n");
    fs::write(workstation.path("secret.yaml"), yaml).unwrap();
    let answer = workstation.run(&[
        "sysroot",
        &core,
        "--image",
        &image,
        "--auth-file",
        "secret.yaml",
    ]);
    assert!(
        answer.out.contains("functions and lines"),
        "{}{}",
        answer.out,
        answer.err
    );

    let wrong = config.replace("dXNlcjpzM2NyZXQ=", "dXNlcjp3cm9uZw==");
    let workstation = Workstation::new();
    fs::write(workstation.path("auth.json"), wrong).unwrap();
    let answer = workstation.run(&[
        "sysroot",
        &core,
        "--image",
        &image,
        "--auth-file",
        "auth.json",
    ]);
    assert!(
        answer.err.contains("refuses our credentials"),
        "{}",
        answer.err
    );
    assert!(
        !answer.err.contains("wrong") && !answer.err.contains("dXNlc"),
        "{}",
        answer.err
    );
}

#[test]
fn registry_behind_a_proxy_is_reached_through_it() {
    let lost = Lost::new();
    let (images, digest) = lost.image(&lost.program);
    let server = serve(images);
    let workstation = Workstation::new();
    let conf = "[[registry]]\nlocation = \"registry.test\"\ninsecure = true\n";
    fs::create_dir_all(workstation.path(".config/containers")).unwrap();
    fs::write(workstation.path(".config/containers/registries.conf"), conf).unwrap();
    let image = format!("registry.test/shop/app@{digest}");
    let proxy = Tunnel::start(&server.address);
    let mut command = workstation.command(&["sysroot", &lost.core(), "--image", &image]);
    let address = format!("http://{}", proxy.address);
    command
        .env("http_proxy", &address)
        .env("https_proxy", &address);
    let answer = workstation.answer(command.output().unwrap());
    assert!(
        answer.out.contains("functions and lines"),
        "{}{}",
        answer.out,
        answer.err
    );
}

/// A proxy that takes every CONNECT to the same place, but none to port 443.
struct Tunnel {
    address: String,
}

impl Tunnel {
    fn start(target: &str) -> Self {
        use std::io::{BufRead, BufReader, Write};
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let target = target.to_owned();
        // Ends with the test.
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let target = target.clone();
                std::thread::spawn(move || {
                    let mut reader = BufReader::new(client.try_clone().unwrap());
                    let mut request = String::new();
                    while reader.read_line(&mut request).unwrap() > 2 {}
                    let mut client = client;
                    if !request.starts_with("CONNECT registry.test:80 ") {
                        let _ = client.write_all(b"HTTP/1.1 403 No\r\ncontent-length: 0\r\n\r\n");
                        return;
                    }
                    let _ = client.write_all(b"HTTP/1.1 200 Yes\r\n\r\n");
                    let server = std::net::TcpStream::connect(target).unwrap();
                    let (mut up, mut down) =
                        (server.try_clone().unwrap(), client.try_clone().unwrap());
                    std::thread::spawn(move || std::io::copy(&mut reader, &mut up));
                    let mut server = server;
                    let _ = std::io::copy(&mut server, &mut down);
                });
            }
        });
        Self { address }
    }
}

#[test]
fn modules_that_the_agent_kept_are_read_from_the_store_and_checked() {
    let lost = Lost::new();
    for (bytes, named) in [(&lost.program, true), (&lost.other, false)] {
        let workstation = Workstation::new();
        workstation.import(Path::new(&lost.core()));
        let modules = workstation.path("store/modules");
        fs::create_dir_all(&modules).unwrap();
        fs::write(modules.join(lost.build_id()), bytes).unwrap();
        let answer = workstation.run(&["bt", "latest"]);
        assert_eq!(
            answer.out.contains("app.c:2"),
            named,
            "{}{}",
            answer.out,
            answer.err
        );
        let sysroot = workstation.json_of_any_status(&["sysroot", "latest", "-o", "json"]);
        let app = module(&sysroot, "/app");
        assert_eq!(app["source"] == "store", named, "{app}");
        // Once fetched, the store's own copy is not needed.
        fs::remove_dir_all(&modules).unwrap();
        assert_eq!(
            workstation.run(&["bt", "latest"]).out.contains("app.c:2"),
            named
        );
    }
}
