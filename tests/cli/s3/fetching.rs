//! Fetches that are cut, killed and interrupted, and what was left of them.

use std::os::unix::process::ExitStatusExt;
use std::sync::atomic::AtomicUsize;

use super::*;

#[test]
fn several_dumps_are_fetched_at_once() {
    let Some(server) = server() else { return };
    let workstation = Workstation::new();
    let store = url(&bucket(), &server.endpoint());
    let spool = workstation.spool();
    let dumps: Vec<_> = (1..=4).map(|size| workstation.seal(&spool, size)).collect();
    let agent = workstation.agent(&store);
    workstation.waits_until_spool_is_empty(Duration::from_secs(30));
    stop(agent);
    let ids: Vec<_> = dumps.iter().map(|dump| dump.id.to_string()).collect();
    let words: Vec<_> = ["fetch", "-d", "cases"]
        .into_iter()
        .chain(ids.iter().map(String::as_str))
        .collect();
    let answer = workstation.s3(&store, &words);
    assert_eq!(answer.code, 0, "{}", answer.err);
    let printed: Vec<_> = answer
        .out
        .lines()
        .map(|line| line.rsplit('/').next().unwrap())
        .collect();
    assert_eq!(printed, ids);
    for dump in dumps {
        let case = workstation.path("cases").join(dump.id.to_string());
        assert_eq!(Some(sha256(&case.join("core"))), dump.core.unwrap().sha256);
    }
}

#[test]
fn fetch_that_is_cut_killed_and_interrupted_goes_on_where_it_was() {
    let Some(server) = server() else { return };
    let workstation = Workstation::new();
    let bucket = bucket();
    let direct = url(&bucket, &server.endpoint());
    let dump = workstation.seal(&workstation.spool(), 48);
    let agent = workstation.agent(&direct);
    workstation.waits_until_spool_is_empty(Duration::from_secs(30));
    stop(agent);
    let proxy = HttpProxy::counting(server.port());
    let store = url(&bucket, &proxy.endpoint());
    let size = workstation.s3(&direct, &["ls", "-o", "json"]).out;
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
        let mut child = workstation
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
        assert!(!workstation.path("case").exists());
    }
    proxy.judge(|_| Deed::Pass);
    let answer = workstation.s3(&store, &words);
    assert_eq!(answer.code, 0, "{}", answer.err);
    assert_eq!(
        Some(sha256(&workstation.path("case/core"))),
        dump.core.unwrap().sha256
    );
    let moved = proxy.sent();
    println!("moved {moved} of {size} bytes");
    // Six openings read the zip's directory and the listing each time, too.
    assert!(moved < size * 125 / 100, "{moved} of {size}");
    let hidden = fs::read_dir(workstation.path(""))
        .unwrap()
        .map(|item| item.unwrap().file_name());
    assert!(
        hidden
            .into_iter()
            .all(|name| !name.display().to_string().contains(".part"))
    );
    let metadata = fs::metadata(workstation.path("case/core")).unwrap();
    let blocks = std::os::unix::fs::MetadataExt::blocks(&metadata);
    assert!(blocks * 512 < metadata.len() * 8 / 10, "not sparse");
}

#[test]
fn fetch_outlives_an_outage_of_the_server_and_names_one_that_lasts() {
    let Some(server) = server() else { return };
    let workstation = Workstation::new();
    let bucket = bucket();
    let store = url(&bucket, &server.endpoint());
    let dump = workstation.seal(&workstation.spool(), 8);
    let agent = workstation.agent(&store);
    workstation.waits_until_spool_is_empty(Duration::from_secs(30));
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
    let answer = workstation.s3(&store, &["fetch", "latest", "-d", "case"]);
    assert_eq!(answer.code, 0, "{}", answer.err);
    assert_eq!(
        Some(sha256(&workstation.path("case/core"))),
        dump.core.unwrap().sha256
    );
}

#[test]
fn damage_in_the_bucket_and_in_what_was_left_is_noticed() {
    let Some(server) = server() else { return };
    let workstation = Workstation::new();
    let bucket = bucket();
    let store = url(&bucket, &server.endpoint());
    let dump = workstation.seal(&workstation.spool(), 6);
    let agent = workstation.agent(&store);
    workstation.waits_until_spool_is_empty(Duration::from_secs(30));
    stop(agent);
    let proxy = HttpProxy::counting(server.port());
    let behind = url(&bucket, &proxy.endpoint());
    // Slow enough that it can be killed in the middle.
    proxy.judge(|_| Deed::Drip(64 << 10, Duration::from_millis(20)));
    let words = ["fetch", "latest", "-d", "case"];
    let mut child = workstation
        .s3_command(&behind, ADMIN, &words)
        .spawn()
        .unwrap();
    let part = workstation.path(".case.part");
    let lines = || fs::read_to_string(part.join("journal")).map_or(0, |text| text.lines().count());
    while lines() < 3 {
        assert!(child.try_wait().unwrap().is_none(), "it ended early");
        std::thread::sleep(Duration::from_millis(5));
    }
    stop(child);
    // Another process writes into it: its checksum shows it.
    let mut core = fs::read(part.join("core")).unwrap();
    core[100] ^= 1;
    fs::write(part.join("core"), core).unwrap();
    proxy.judge(|_| Deed::Pass);
    let answer = workstation.s3(&behind, &words);
    assert_eq!(answer.code, 0, "{}", answer.err);
    assert_eq!(
        Some(sha256(&workstation.path("case/core"))),
        dump.core.unwrap().sha256
    );
    // A core that is larger than one wants is refused before it is fetched.
    let small = workstation.s3(
        &store,
        &["fetch", "latest", "-d", "other", "--max-size", "1M"],
    );
    assert_eq!(small.code, 2);
    assert!(
        small.err.contains("--max-size") && !workstation.path("other").exists(),
        "{}",
        small.err
    );
}
