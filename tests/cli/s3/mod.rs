//! The commands on a store in a bucket: a real S3 server, and what lies between it and a desk.

use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use cdh_bundle::{
    CoreEncoding, CoreRecord, Digests, DumpId, EntryDir, EntryKind, Manifest, SEEKABLE_FRAME,
    SeekableWriter,
};
use cdh_testkit::{ADMIN, Deed, HttpProxy, READER, S3Keys, S3Server};

use super::*;

pub(super) fn server() -> Option<&'static S3Server> {
    static SERVER: OnceLock<Option<S3Server>> = OnceLock::new();
    SERVER.get_or_init(S3Server::start).as_ref()
}

pub(super) fn bucket() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("desk-{}-{number}", std::process::id())
}

fn url(bucket: &str, endpoint: &str) -> String {
    format!("s3://{bucket}/crashes?endpoint={endpoint}&timeout=20")
}

impl Desk {
    fn s3_command(&self, store: &str, keys: S3Keys, words: &[&str]) -> Command {
        let mut command = self.command(words);
        command
            .env("CDH_STORE", store)
            .env("AWS_ACCESS_KEY_ID", keys.access)
            .env("AWS_SECRET_ACCESS_KEY", keys.secret)
            .env("AWS_EC2_METADATA_DISABLED", "true");
        command
    }

    pub(super) fn s3(&self, store: &str, words: &[&str]) -> Answer {
        self.answer(self.s3_command(store, ADMIN, words).output().unwrap())
    }

    /// Seals a dump with a core of so many megabytes that no compression shortens; a spool of the agent.
    fn seal(&self, spool: &Path, megabytes: usize) -> Manifest {
        let mut state = 88_172_645_463_325_252_u64;
        let mut core = Vec::with_capacity(megabytes << 20);
        while core.len() < megabytes << 20 {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            // Holes too: every fourth block of 64 KiB is empty.
            let word = if core.len() >> 16 & 3 == 3 { 0 } else { state };
            core.extend(word.to_le_bytes());
        }
        let id = DumpId::random();
        let mut entry = EntryDir::create(spool, id).unwrap();
        let kind = EntryKind::Core(CoreEncoding::ZstdSeekable);
        let file = entry.create_file(&kind).unwrap();
        let mut writer = SeekableWriter::new(file, 1, SEEKABLE_FRAME).unwrap();
        std::io::copy(&mut core.as_slice(), &mut writer).unwrap();
        let (_, stored) = writer.finish().unwrap().0.finish();
        entry.record(&kind, stored);
        let found = Digests::of(&core);
        let manifest = serde_json::json!({
            "schema": 1, "id": id, "stem": "dump", "captured_at": "2026-01-31T12:34:56Z",
            "process": {"pid": 7, "name": "app"}, "signal": {"number": 11, "name": "SIGSEGV"},
            "verdict": cdh_bundle::Verdict::Complete,
            "core": CoreRecord {
                entry: kind.bundle_name("dump"),
                encoding: CoreEncoding::ZstdSeekable,
                size: found.size,
                expected: found.size,
                sha256: Some(found.sha256),
            },
        });
        let manifest: Manifest = serde_json::from_value(manifest).unwrap();
        entry.seal(manifest.clone()).unwrap();
        manifest
    }

    /// An agent that ships what is in its spool.
    fn agent(&self, store: &str) -> std::process::Child {
        let state = self.path("state").display().to_string();
        let words = ["agent", "run", "--state", &state, "--libexec", &state];
        let mut command = self.s3_command(store, ADMIN, &words);
        let log = fs::File::options()
            .create(true)
            .append(true)
            .open(self.path("log"));
        command.stderr(log.unwrap()).spawn().unwrap()
    }

    fn spool(&self) -> PathBuf {
        let spool = self.path("state/spool");
        if !spool.exists() {
            fs::create_dir_all(&spool).unwrap();
            for place in ["state", "state/spool"] {
                let private = fs::Permissions::from_mode(0o700);
                fs::set_permissions(self.path(place), private).unwrap();
            }
        }
        spool
    }

    fn waits_until_spool_is_empty(&self, patience: Duration) {
        let begun = Instant::now();
        let is_dump = |item: std::io::Result<fs::DirEntry>| {
            let name = item.unwrap().file_name();
            name.to_str().is_some_and(|name| name.len() == 36)
        };
        while fs::read_dir(self.spool()).unwrap().any(is_dump) {
            let log = || fs::read_to_string(self.path("log")).unwrap_or_default();
            assert!(begun.elapsed() < patience, "{}", log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

fn stop(mut agent: std::process::Child) {
    agent.kill().unwrap();
    agent.wait().unwrap();
}

fn sha256(path: &Path) -> cdh_bundle::Sha256 {
    Digests::of_reader(fs::File::open(path).unwrap())
        .unwrap()
        .sha256
}

#[test]
fn dump_in_a_bucket_is_listed_explained_fetched_shared_and_removed() {
    let Some(server) = server() else { return };
    let desk = Desk::new();
    let proxy = HttpProxy::counting(server.port());
    let store = url(&bucket(), &proxy.endpoint());
    let core = crash().core().display().to_string();
    let imported = desk.s3(&store, &["import", &core]);
    assert_eq!(imported.code, 0, "{}", imported.err);
    let id = imported.out.trim();
    assert_eq!(desk.s3(&store, &["ls", "-o", "id"]).out.trim(), id);
    let bt = desk.s3(&store, &["bt", "latest", "-a", "-o", "json"]);
    let document: Value = serde_json::from_str(&bt.out).unwrap();
    assert_eq!(functions(&document, 0)[..3], ["poke", "middle", "main"]);
    assert!(desk.s3(&store, &["info", &id[..8]]).out.contains("SIGSEGV"));
    let fetched = desk.s3(&store, &["fetch", id, "-d", "case"]);
    assert_eq!(fetched.code, 0, "{}", fetched.err);
    assert_eq!(sha256(&desk.path("case/core")), sha256(&crash().core()));
    // Once more costs nothing but the question what there is.
    proxy.reset();
    assert_eq!(desk.s3(&store, &["fetch", id, "-d", "case"]).code, 0);
    assert!(proxy.sent() < 300_000, "{}", proxy.sent());
    let shared = desk.s3(&store, &["share", id, "--expires", "1h"]);
    let address = shared.out.trim().strip_prefix(&proxy.endpoint()).unwrap();
    let answer = cdh_testkit::http_get(&proxy.endpoint(), address).unwrap();
    let (status, bundle) = answer;
    assert_eq!((status, bundle.starts_with(b"PK")), (200, true));
    let (status, _) = cdh_testkit::http_get(
        &proxy.endpoint(),
        &address.replace("Signature=", "Signature=0"),
    )
    .unwrap();
    assert_eq!(status, 403);
    let dry = desk.s3(&store, &["gc", "--max-total", "0", "--dry-run"]);
    assert_eq!((dry.code, dry.out.lines().count()), (0, 1));
    assert_eq!(desk.s3(&store, &["rm", id, "--yes"]).code, 0);
    assert_eq!(desk.s3(&store, &["ls"]).code, 1);
}

#[test]
fn several_dumps_are_fetched_at_once() {
    let Some(server) = server() else { return };
    let desk = Desk::new();
    let store = url(&bucket(), &server.endpoint());
    let spool = desk.spool();
    let dumps: Vec<_> = (1..=4).map(|size| desk.seal(&spool, size)).collect();
    let agent = desk.agent(&store);
    desk.waits_until_spool_is_empty(Duration::from_secs(30));
    stop(agent);
    let ids: Vec<_> = dumps.iter().map(|dump| dump.id.to_string()).collect();
    let words: Vec<_> = ["fetch", "-d", "cases"]
        .into_iter()
        .chain(ids.iter().map(String::as_str))
        .collect();
    let answer = desk.s3(&store, &words);
    assert_eq!(answer.code, 0, "{}", answer.err);
    let printed: Vec<_> = answer
        .out
        .lines()
        .map(|line| line.rsplit('/').next().unwrap())
        .collect();
    assert_eq!(printed, ids);
    for dump in dumps {
        let case = desk.path("cases").join(dump.id.to_string());
        assert_eq!(Some(sha256(&case.join("core"))), dump.core.unwrap().sha256);
    }
}

#[test]
fn fetch_that_is_cut_killed_and_interrupted_goes_on_where_it_was() {
    let Some(server) = server() else { return };
    let desk = Desk::new();
    let bucket = bucket();
    let direct = url(&bucket, &server.endpoint());
    let dump = desk.seal(&desk.spool(), 48);
    let agent = desk.agent(&direct);
    desk.waits_until_spool_is_empty(Duration::from_secs(30));
    stop(agent);
    let proxy = HttpProxy::counting(server.port());
    let store = url(&bucket, &proxy.endpoint());
    let size = desk.s3(&direct, &["ls", "-o", "json"]).out;
    let size = serde_json::from_str::<Value>(&size).unwrap()[0]["size"]
        .as_u64()
        .unwrap();
    let words = ["fetch", "latest", "-d", "case"];
    // About a sixth of a second's worth at a time, so that there is something to cut.
    let slow = Deed::Drip(64 << 10, Duration::from_millis(8));
    proxy.judge(move |_| slow.clone());
    for (round, signal) in ["KILL", "INT", "KILL", "TERM", "INT"]
        .into_iter()
        .enumerate()
    {
        let before = proxy.sent();
        let mut child = desk
            .s3_command(&store, ADMIN, &words)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        while proxy.sent() < before + size / 8 {
            assert!(child.try_wait().unwrap().is_none(), "it ended early");
            std::thread::sleep(Duration::from_millis(5));
        }
        // The wire fails too, and what is on its way is lost.
        proxy.cut_all();
        std::thread::sleep(Duration::from_millis(100));
        let pid = child.id().to_string();
        let sent = Command::new("kill")
            .args([&format!("-{signal}"), &pid])
            .status();
        assert!(sent.unwrap().success());
        let output = child.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        match signal {
            "KILL" => assert_eq!(output.status.signal(), Some(9)),
            _ => {
                assert_eq!(output.status.code(), Some(130), "{round}: {text}");
                assert!(text.contains("goes on where it stopped"), "{text}");
            }
        }
        assert!(!desk.path("case").exists());
    }
    proxy.judge(|_| Deed::Pass);
    let answer = desk.s3(&store, &words);
    assert_eq!(answer.code, 0, "{}", answer.err);
    assert_eq!(
        Some(sha256(&desk.path("case/core"))),
        dump.core.unwrap().sha256
    );
    let moved = proxy.sent();
    println!("moved {moved} of {size} bytes");
    // Six openings read the zip's directory and the listing each time, too.
    assert!(moved < size * 125 / 100, "{moved} of {size}");
    let hidden = fs::read_dir(desk.path(""))
        .unwrap()
        .map(|item| item.unwrap().file_name());
    assert!(
        hidden
            .into_iter()
            .all(|name| !name.display().to_string().contains(".part"))
    );
    let metadata = fs::metadata(desk.path("case/core")).unwrap();
    let blocks = std::os::unix::fs::MetadataExt::blocks(&metadata);
    assert!(blocks * 512 < metadata.len() * 8 / 10, "not sparse");
}

#[test]
fn fetch_outlives_an_outage_of_the_server_and_names_one_that_lasts() {
    let Some(server) = server() else { return };
    let desk = Desk::new();
    let bucket = bucket();
    let store = url(&bucket, &server.endpoint());
    let dump = desk.seal(&desk.spool(), 8);
    let agent = desk.agent(&store);
    desk.waits_until_spool_is_empty(Duration::from_secs(30));
    stop(agent);
    let proxy = HttpProxy::counting(server.port());
    let store = url(&bucket, &proxy.endpoint());
    let down = AtomicUsize::new(0);
    proxy.judge(move |request| {
        let is_core = request.method == "GET" && request.header("range").is_some();
        match is_core && (4..14).contains(&down.fetch_add(1, Ordering::Relaxed)) {
            true => Deed::Refuse,
            false => Deed::Pass,
        }
    });
    let answer = desk.s3(&store, &["fetch", "latest", "-d", "case"]);
    assert_eq!(answer.code, 0, "{}", answer.err);
    assert_eq!(
        Some(sha256(&desk.path("case/core"))),
        dump.core.unwrap().sha256
    );
}

#[test]
fn damage_in_the_bucket_and_in_what_was_left_is_noticed() {
    let Some(server) = server() else { return };
    let desk = Desk::new();
    let bucket = bucket();
    let store = url(&bucket, &server.endpoint());
    let dump = desk.seal(&desk.spool(), 6);
    let agent = desk.agent(&store);
    desk.waits_until_spool_is_empty(Duration::from_secs(30));
    stop(agent);
    let proxy = HttpProxy::counting(server.port());
    let behind = url(&bucket, &proxy.endpoint());
    // Slow enough that it can be killed in the middle.
    proxy.judge(|_| Deed::Drip(64 << 10, Duration::from_millis(20)));
    let words = ["fetch", "latest", "-d", "case"];
    let mut child = desk.s3_command(&behind, ADMIN, &words).spawn().unwrap();
    let part = desk.path(".case.part");
    let lines = || fs::read_to_string(part.join("journal")).map_or(0, |text| text.lines().count());
    while lines() < 3 {
        assert!(child.try_wait().unwrap().is_none(), "it ended early");
        std::thread::sleep(Duration::from_millis(5));
    }
    stop(child);
    // Somebody scribbles into it: its checksum tells.
    let mut core = fs::read(part.join("core")).unwrap();
    core[100] ^= 1;
    fs::write(part.join("core"), core).unwrap();
    proxy.judge(|_| Deed::Pass);
    let answer = desk.s3(&behind, &words);
    assert_eq!(answer.code, 0, "{}", answer.err);
    assert_eq!(
        Some(sha256(&desk.path("case/core"))),
        dump.core.unwrap().sha256
    );
    // A core that is larger than one wants is refused before it is fetched.
    let small = desk.s3(
        &store,
        &["fetch", "latest", "-d", "other", "--max-size", "1M"],
    );
    assert_eq!(small.code, 2);
    assert!(
        small.err.contains("--max-size") && !desk.path("other").exists(),
        "{}",
        small.err
    );
}

#[test]
fn backtrace_of_a_remote_dump_moves_next_to_nothing() {
    let Some(server) = server() else { return };
    let desk = Desk::new();
    let source = desk.path("big.c");
    fs::write(&source, BIG_PROGRAM).unwrap();
    let mut cc = Command::new("cc");
    cc.args(["-g", "-O1", "-Wl,--build-id", "-o"])
        .arg(desk.path("big"))
        .arg(&source);
    assert!(cc.status().unwrap().success());
    let gdb = format!("generate-core-file {}", desk.path("big.core").display());
    let made = Command::new("gdb")
        .args(["-q", "-batch", "-ex", "run", "-ex", &gdb])
        .arg(desk.path("big"))
        .output();
    assert!(made.unwrap().status.success());
    let proxy = HttpProxy::counting(server.port());
    let store = url(&bucket(), &proxy.endpoint());
    let imported = desk.s3(&store, &["import", "big.core"]);
    assert_eq!(imported.code, 0, "{}", imported.err);
    let size = proxy.received();
    proxy.reset();
    let bt = desk.s3(&store, &["bt", "latest"]);
    assert!(bt.out.contains("crash_here at "), "{} {}", bt.out, bt.err);
    // One frame of the core is a megabyte; nothing here depends on how many there are.
    assert!(
        size > 60 << 20 && proxy.sent() < 6 << 20,
        "{} of {size}",
        proxy.sent()
    );
}

/// Dies with 64 MiB of noise in its heap.
const BIG_PROGRAM: &str = r"
#include <stdlib.h>
__attribute__((noinline)) static void crash_here(int *p) { *p = 7; }
int main(void) {
    unsigned long size = 64ul << 20, x = 88172645463325252ul, *m = malloc(size);
    for (unsigned long i = 0; i < size / 8; i++) { x ^= x << 13; x ^= x >> 7; x ^= x << 17; m[i] = x; }
    crash_here((int *)0x10);
    return (int)m[5];
}
";

#[test]
fn fifty_crashes_during_an_outage_arrive_after_it() {
    let Some(server) = server() else { return };
    let desk = Desk::new();
    let bucket = bucket();
    let proxy = HttpProxy::start(Some(server.port()), |_| Deed::Refuse);
    let agent = desk.agent(&url(&bucket, &proxy.endpoint()));
    let spool = desk.spool();
    let dumps: Vec<_> = (0..50).map(|_| desk.seal(&spool, 0)).collect();
    std::thread::sleep(Duration::from_secs(2));
    assert!(fs::read_dir(&spool).unwrap().count() >= 50);
    proxy.judge(|_| Deed::Pass);
    desk.waits_until_spool_is_empty(Duration::from_secs(60));
    let read_log = || fs::read_to_string(desk.path("log")).unwrap();
    let begun = Instant::now();
    while !read_log().contains("the store answers again")
        && begun.elapsed() < Duration::from_secs(5)
    {
        std::thread::sleep(Duration::from_millis(20));
    }
    stop(agent);
    let log = read_log();
    assert!(
        log.contains("the store fails") && log.contains("the store answers again"),
        "{log}"
    );
    let listed = desk
        .s3(&url(&bucket, &server.endpoint()), &["ls", "-o", "id"])
        .out;
    let mut listed: Vec<_> = listed.lines().map(str::to_owned).collect();
    let mut wanted: Vec<_> = dumps.iter().map(|dump| dump.id.to_string()).collect();
    listed.sort();
    wanted.sort();
    assert_eq!(listed, wanted);
}

#[test]
fn agent_that_is_killed_again_and_again_ships_everything_once() {
    let Some(server) = server() else { return };
    let desk = Desk::new();
    let bucket = bucket();
    let number = AtomicUsize::new(0);
    // One in nine requests fails, each in its own way.
    let proxy = HttpProxy::start(Some(server.port()), move |_| {
        let number = number.fetch_add(1, Ordering::Relaxed);
        match (number % 9, number / 9 % 4) {
            (4, 0) => Deed::Answer(500, vec![], Vec::new()),
            (4, 1) => Deed::CutRequest(1000),
            (4, 2) => Deed::CutAnswer(10),
            (4, _) => Deed::Refuse,
            _ => Deed::Pass,
        }
    });
    let store = url(&bucket, &proxy.endpoint());
    let spool = desk.spool();
    let dumps: Vec<_> = (0..12)
        .map(|n| desk.seal(&spool, if n % 4 == 0 { 24 } else { 1 }))
        .collect();
    for pause in [300, 700, 500, 900] {
        let agent = desk.agent(&store);
        std::thread::sleep(Duration::from_millis(pause));
        stop(agent);
    }
    let agent = desk.agent(&store);
    desk.waits_until_spool_is_empty(Duration::from_secs(120));
    stop(agent);
    let direct = url(&bucket, &server.endpoint());
    let listing = desk.s3(&direct, &["ls", "-o", "json"]).out;
    let listing: Value = serde_json::from_str(&listing).unwrap();
    assert_eq!(listing.as_array().unwrap().len(), dumps.len());
    for dump in dumps {
        let id = dump.id.to_string();
        let answer = desk.s3(&direct, &["fetch", &id, "-d", &id]);
        assert_eq!(answer.code, 0, "{}", answer.err);
        let core = desk.path(&id).join("core");
        assert_eq!(Some(sha256(&core)), dump.core.unwrap().sha256);
    }
}

#[test]
fn failures_of_a_bucket_say_what_to_do() {
    let Some(server) = server() else { return };
    let desk = Desk::new();
    let endpoint = server.endpoint();
    let admin = url("shelf", &endpoint);
    let core = crash().core().display().to_string();
    assert_eq!(desk.s3(&admin, &["import", &core]).code, 0);
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
        let mut command = desk.s3_command(&store, keys, words);
        if keys.access.is_empty() {
            command
                .env_remove("AWS_ACCESS_KEY_ID")
                .env_remove("AWS_SECRET_ACCESS_KEY");
        }
        let answer = desk.answer(command.output().unwrap());
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
fn stores_have_names_and_options_in_the_config_file() {
    let Some(server) = server() else { return };
    let desk = Desk::new();
    let text = format!(
        "store = \"prod\"\n[stores.prod]\nurl = \"s3://{}/crashes\"\nendpoint = \"{}\"\n\
         path-style = true\ntimeout = 20\n[stores.here]\nurl = \"here\"\n",
        bucket(),
        server.endpoint()
    );
    fs::write(desk.path("config.toml"), &text).unwrap();
    let run = |words: &[&str]| {
        let mut command = desk.s3_command("", ADMIN, words);
        command
            .env_remove("CDH_STORE")
            .env("CDH_CONFIG", desk.path("config.toml"));
        desk.answer(command.output().unwrap())
    };
    let core = crash().core().display().to_string();
    let imported = run(&["import", &core]);
    assert_eq!(imported.code, 0, "{}", imported.err);
    assert_eq!(run(&["ls", "-o", "id"]).out, imported.out);
    assert_eq!(
        run(&["--store", "prod", "ls", "-o", "id"]).out,
        imported.out
    );
    assert!(run(&["--store", "here", "ls"]).err.contains("here"));
    fs::write(
        desk.path("config.toml"),
        text.replace("path-style", "path_style"),
    )
    .unwrap();
    let wrong = run(&["ls"]);
    assert_eq!(wrong.code, 2);
    assert!(wrong.err.contains("path_style"), "{}", wrong.err);
}
