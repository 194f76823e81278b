//! An agent whose bucket is away or that is killed itself.

use std::sync::atomic::AtomicUsize;

use super::*;

#[test]
fn fifty_crashes_during_an_outage_arrive_after_it() {
    let Some(server) = server() else { return };
    let workstation = Workstation::new();
    let bucket = bucket();
    let proxy = HttpProxy::start(Some(server.port()), |_| Deed::Refuse);
    let agent = workstation.agent(&url(&bucket, &proxy.endpoint()));
    let spool = workstation.spool();
    let dumps: Vec<_> = (0..50).map(|_| workstation.seal(&spool, 0)).collect();
    // On a busy machine the agent may take seconds to begin.
    workstation.waits_for_log("the store fails");
    assert!(fs::read_dir(&spool).unwrap().count() >= 50);
    proxy.judge(|_| Deed::Pass);
    workstation.waits_until_spool_is_empty(Duration::from_secs(60));
    workstation.waits_for_log("the store answers again");
    stop(agent);
    let listed = workstation
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
    let workstation = Workstation::new();
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
    let spool = workstation.spool();
    let dumps: Vec<_> = (0..12)
        .map(|n| workstation.seal(&spool, if n % 4 == 0 { 24 } else { 1 }))
        .collect();
    for pause in [300, 700, 500, 900] {
        let agent = workstation.agent(&store);
        std::thread::sleep(Duration::from_millis(pause));
        stop(agent);
    }
    let agent = workstation.agent(&store);
    workstation.waits_until_spool_is_empty(Duration::from_secs(120));
    stop(agent);
    let direct = url(&bucket, &server.endpoint());
    let listing = workstation.s3(&direct, &["ls", "-o", "json"]).out;
    let listing: Value = serde_json::from_str(&listing).unwrap();
    assert_eq!(listing.as_array().unwrap().len(), dumps.len());
    for dump in dumps {
        let id = dump.id.to_string();
        let answer = workstation.s3(&direct, &["fetch", &id, "-d", &id]);
        assert_eq!(answer.code, 0, "{}", answer.err);
        let core = workstation.path(&id).join("core");
        assert_eq!(Some(sha256(&core)), dump.core.unwrap().sha256);
    }
}
