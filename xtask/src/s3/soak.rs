//! Many uploads, and everything that goes wrong on the way: cuts, 500s, errors in answers of success,
//! answers that are lost, the agent killed, the server killed. Afterwards an independent client counts
//! and compares.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use cdh_bundle::{BundleWriter, Digests};
use cdh_testkit::{ADMIN, Deed, HttpProxy};

use super::{BOTO, Noise, S3Bench, seal};
use crate::options::Options;
use crate::python;

/// One request in so many goes wrong.
const FAULTS: u64 = 12;
/// Dumps that are sealed at a time.
const BATCH: u64 = 50;

/// Downloads every object and prints `<sha256> <key>`; counts what is not finished.
const LOOK: &str = r#"
import boto3, hashlib, sys
from botocore.config import Config
endpoint, access, secret = sys.argv[1:4]
s3 = boto3.client("s3", endpoint_url=endpoint, aws_access_key_id=access, aws_secret_access_key=secret,
    region_name="us-east-1", config=Config(s3={"addressing_style": "path"}))
pages = s3.get_paginator("list_objects_v2").paginate(Bucket="crashes")
for page in pages:
    for item in page.get("Contents", []):
        body = s3.get_object(Bucket="crashes", Key=item["Key"])["Body"]
        digest = hashlib.sha256()
        for chunk in body.iter_chunks(1 << 20):
            digest.update(chunk)
        print(digest.hexdigest(), item["Key"])
print("unfinished", len(s3.list_multipart_uploads(Bucket="crashes").get("Uploads", [])))
"#;

pub(crate) fn soak(words: &[String]) -> Result<()> {
    const USAGE: &str = "usage: cargo xtask soak-s3 [--dumps N] [--seed N]";
    let options = Options::parse(words, &["--dumps", "--seed"], &[], USAGE)?;
    let dumps: u64 = options.or("--dumps", 1000)?;
    let seed: u64 = options.or("--seed", 0)?;
    let seed = if seed == 0 {
        u64::from(std::process::id()) * 7919
    } else {
        seed
    };
    println!("{dumps} dumps, seed {seed}");
    let boto = python::install("boto3", BOTO, &[])?;
    let mut place = S3Bench::new()?;
    let spool = place.spool()?;
    let mut noise = Noise(seed);
    let faults = Mutex::new((Noise(seed ^ 0x5555), BTreeMap::<&str, u64>::new()));
    let faults: &'static _ = Box::leak(Box::new(faults));
    let proxy = HttpProxy::start(Some(place.server.port()), move |_| {
        let mut guard = faults
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let (noise, counts) = &mut *guard;
        if noise.below(FAULTS) != 0 {
            return Deed::Pass;
        }
        let error = b"<Error><Code>InternalError</Code><Message>x</Message></Error>".to_vec();
        let (name, deed) = match noise.below(7) {
            0 => ("500", Deed::Answer(500, vec![], error)),
            1 => ("503 without a body", Deed::Answer(503, vec![], Vec::new())),
            2 => ("200 with an error in it", Deed::Answer(200, vec![], error)),
            3 => ("request cut", Deed::CutRequest(noise.below(4 << 20))),
            4 => ("answer cut", Deed::CutAnswer(noise.below(500))),
            5 => ("done, and 500 answered", Deed::PassAndAnswer(500, error)),
            _ => ("refused", Deed::Refuse),
        };
        *counts.entry(name).or_default() += 1;
        deed
    });
    let endpoint = proxy.endpoint();
    let mut wanted = BTreeMap::new();
    let (mut kills, mut restarts) = (0_u64, 0_u64);
    let begun = Instant::now();
    let mut agent = place.agent(&endpoint)?;
    let mut sealed = 0;
    while sealed < dumps || !place.is_spool_empty()? {
        if sealed < dumps && std::fs::read_dir(&spool)?.count() < 20 {
            for _ in 0..BATCH.min(dumps - sealed) {
                // Most are small; one in ten goes in parts.
                let size = match noise.below(10) {
                    0 => (9 << 20) + noise.below(24 << 20),
                    _ => noise.below(256 << 10),
                };
                // Beside the spool: the agent must not be faster than the digest.
                let id = seal(place.directory.path(), &mut noise, size)?;
                let aside = place.path(&id.to_string());
                let bundle = Digests::of_reader(BundleWriter::from_entry(&aside)?.reader())?;
                wanted.insert(id.to_string(), bundle.sha256.to_string());
                std::fs::rename(aside, spool.join(id.to_string()))?;
                sealed += 1;
            }
        }
        std::thread::sleep(Duration::from_millis(300 + noise.below(3000)));
        agent.kill()?;
        agent.wait()?;
        kills += 1;
        if noise.below(25) == 0 {
            place.server.restart();
            restarts += 1;
        }
        agent = place.agent(&endpoint)?;
        if begun.elapsed() > Duration::from_secs(3600) {
            break;
        }
    }
    agent.kill()?;
    agent.wait()?;
    let took = begun.elapsed().as_secs();
    let counts = faults
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
        .1
        .clone();
    println!("uploaded in {took} s; agent killed {kills} times, server {restarts} times");
    println!("faults: {counts:?} in {} requests", proxy.requests().len());
    let arguments = [&place.server.endpoint(), ADMIN.access, ADMIN.secret];
    let seen = python::run(&boto, LOOK, &arguments.map(str::to_owned))?;
    let verdict = judge(&wanted, &seen);
    println!("{verdict}");
    ensure!(
        verdict.ends_with("all is well"),
        "the store does not hold what it should"
    );
    Ok(())
}

fn judge(wanted: &BTreeMap<String, String>, seen: &str) -> String {
    let mut bundles: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let mut manifests: BTreeMap<&str, u64> = BTreeMap::new();
    let (mut strange, mut unfinished) = (0, "0");
    for line in seen.lines() {
        let Some((digest, key)) = line.split_once(' ') else {
            continue;
        };
        let id = |end: &str| {
            let stem = key.strip_suffix(end)?;
            stem.get(stem.len().checked_sub(36)?..)
        };
        if digest == "unfinished" {
            unfinished = key;
        } else if let Some(id) = id(".zip") {
            bundles.entry(id).or_default().push(digest);
        } else if let Some(id) = id(".manifest.json") {
            *manifests.entry(id).or_default() += 1;
        } else {
            strange += 1;
        }
    }
    let (mut lost, mut corrupt, mut duplicate) = (0, 0, 0);
    for (id, digest) in wanted {
        let found = bundles
            .get(id.as_str())
            .map(Vec::as_slice)
            .unwrap_or_default();
        lost += u64::from(found.is_empty() || !manifests.contains_key(id.as_str()));
        corrupt += u64::from(found.iter().any(|found| found != digest));
        duplicate += u64::from(found.len() > 1 || manifests.get(id.as_str()) > Some(&1));
    }
    strange += bundles
        .keys()
        .filter(|id| !wanted.contains_key(**id))
        .count();
    let mut text = format!(
        "{} dumps in the store of {}: {lost} lost, {corrupt} corrupt, {duplicate} duplicate, \
         {strange} strange, {unfinished} unfinished uploads",
        bundles.len(),
        wanted.len()
    );
    if lost + corrupt + duplicate == 0 && strange == 0 {
        let _ = write!(text, "; all is well");
    }
    text
}
