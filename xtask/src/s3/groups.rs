//! Time and requests of `cdh groups` on a bucket with very many dumps: with and without a filter by time,
//! with the index of first times and without it, as a store of an older release.

use std::time::Instant;

use anyhow::{Result, ensure};
use cdh_bundle::DumpId;
use cdh_testkit::HttpProxy;

use super::listing::{civil, put};
use super::{Noise, S3Bench};

/// Days that the dumps are spread over.
const DAYS: u64 = 100;
/// Crashes that go on all the time.
const OLD: u64 = 300;
/// The crash that began today.
const NEW: &str = "feedbeef";

pub(super) fn run(dumps: u64) -> Result<()> {
    let place = S3Bench::new()?;
    let now = std::time::SystemTime::now();
    let now = now.duration_since(std::time::UNIX_EPOCH)?.as_secs();
    let mut keys = String::new();
    let mut new = 0;
    let mut noise = Noise(0x2545_F491_4F6C_DD1D);
    for number in 0..dumps {
        let (day, within) = (number % DAYS, number / DAYS);
        let (date, time) = civil(now - 60 - day * 86_400 - within % 3600);
        let is_new = day == 0 && within % 50 == 0;
        new += u64::from(is_new);
        let old = format!("{:08x}", 0x1000_0000 + noise.below(OLD));
        let fingerprint = if is_new { NEW } else { &old };
        let id = DumpId::random();
        let pod = "api-7d4b9c6f5d-x2x9k";
        let stem =
            format!("dumps/{date}/{time}Z_shop_{pod}_api_SIGSEGV_{fingerprint}_complete_{id}");
        keys.push_str(&format!("{stem}.zip\n{stem}.manifest.json\n"));
    }
    let begun = Instant::now();
    put(&place, &keys)?;
    let took = begun.elapsed().as_secs();
    println!(
        "{dumps} dumps of {} crashes, one of them new; put in {took} s",
        OLD + 1
    );
    measure(&place, "a store of an older release", new)?;
    let (date, time) = civil(now - 60 - DAYS * 86_400);
    let date = date.replace('-', "");
    let mut index = "first-seen/since_19700101T000000Z\n".to_owned();
    for number in 0..OLD {
        let fingerprint = 0x1000_0000 + number;
        index.push_str(&format!("first-seen/{fingerprint:08x}_{date}T{time}Z\n"));
    }
    let (date, time) = civil(now - 3660);
    let date = date.replace('-', "");
    index.push_str(&format!("first-seen/{NEW}_{date}T{time}Z\n"));
    put(&place, &index)?;
    measure(&place, "a store with its index", new)
}

fn measure(place: &S3Bench, what: &str, new: u64) -> Result<()> {
    let proxy = HttpProxy::counting(place.server.port());
    println!("{what}:");
    for words in [
        &["groups", "-o", "json", "--new-since", "1d"][..],
        &["groups", "-o", "json", "--new-since", "1d", "--no-top"],
        &["groups", "-o", "json", "--since", "1d", "--no-top"],
        &["groups", "-o", "json", "--no-top"],
        &["groups", "-o", "json"],
    ] {
        // The caches of the run before would answer.
        let _ = std::fs::remove_dir_all(place.path("cache"));
        proxy.reset();
        let begun = Instant::now();
        let text = place.output(&proxy.endpoint(), words)?;
        let took = begun.elapsed().as_secs_f64();
        let requests = proxy.requests();
        let is_list = |target: &str| target.contains("list-type=2");
        let lists = requests.iter().filter(|r| is_list(&r.target)).count();
        let groups: serde_json::Value = serde_json::from_str(&text)?;
        let groups = groups.as_array().map(Vec::as_slice).unwrap_or_default();
        println!(
            "  cdh {}: {} groups, {took:.2} s, {lists} listings, {} other requests, {} bytes",
            words.join(" "),
            groups.len(),
            requests.len() - lists,
            proxy.sent()
        );
        if words.contains(&"--new-since") {
            ensure!(groups.len() == 1, "{} crashes are new", groups.len());
            let group = &groups[0];
            ensure!(
                group["fingerprint"] == NEW && group["count"] == new,
                "{group}"
            );
        }
    }
    Ok(())
}
