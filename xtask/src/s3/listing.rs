//! Requests of `cdh ls` on a bucket with very many dumps.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use anyhow::{Result, ensure};
use cdh_bundle::DumpId;
use cdh_testkit::{ADMIN, HttpProxy};

use super::{BOTO, S3Bench};
use crate::python;

/// Puts keys from standard input, several at a time.
const PUT: &str = r#"
import boto3, sys
from botocore.config import Config
from concurrent.futures import ThreadPoolExecutor
endpoint, access, secret, path = sys.argv[1:5]
s3 = boto3.client("s3", endpoint_url=endpoint, aws_access_key_id=access, aws_secret_access_key=secret,
    region_name="us-east-1", config=Config(s3={"addressing_style": "path"}, max_pool_connections=16))
keys = open(path).read().split()
with ThreadPoolExecutor(16) as pool:
    for _ in pool.map(lambda key: s3.put_object(Bucket="crashes", Key="here/" + key, Body=b"x"), keys, chunksize=64):
        pass
"#;

/// Puts an object of one byte under each of these keys, one a line.
pub(super) fn put(place: &S3Bench, keys: &str) -> Result<()> {
    let boto = python::install("boto3", BOTO, &[])?;
    let list = place.path("keys");
    std::fs::write(&list, keys)?;
    let arguments = [
        &place.server.endpoint(),
        ADMIN.access,
        ADMIN.secret,
        &list.display().to_string(),
    ];
    python::run(&boto, PUT, &arguments.map(str::to_owned)).map(drop)
}

pub(super) fn run(dumps: u64) -> Result<()> {
    let place = S3Bench::new()?;
    let days = 100;
    let now = std::time::SystemTime::now();
    let today = now.duration_since(std::time::UNIX_EPOCH)?.as_secs();
    let mut keys = String::new();
    for number in 0..dumps {
        let at = today - 60 - (number % days) * 86_400 - (number / days) % 3600;
        let (date, time) = civil(at);
        let id = DumpId::random();
        let stem = format!("dumps/{date}/{time}Z_shop_api-7d4_api_SIGSEGV_01234567_complete_{id}");
        keys.push_str(&format!("{stem}.zip\n{stem}.manifest.json\n"));
    }
    let begun = Instant::now();
    put(&place, &keys)?;
    println!(
        "{dumps} dumps, {} keys, put in {} s",
        dumps * 2,
        begun.elapsed().as_secs()
    );
    let gets = AtomicU64::new(0);
    let proxy = HttpProxy::counting(place.server.port());
    for words in [
        &["ls", "-o", "id"][..],
        &["ls", "-o", "id", "--since", "1d"],
        &["ls", "-o", "id", "--limit", "20"],
        &["ls", "-o", "id", "--since", "10d", "--until", "8d"],
    ] {
        proxy.reset();
        let begun = Instant::now();
        let found = place.output(&proxy.endpoint(), words)?.lines().count();
        let requests = proxy.requests();
        let lists = requests
            .iter()
            .filter(|r| r.target.contains("list-type=2"))
            .count();
        gets.fetch_add((requests.len() - lists) as u64, Ordering::Relaxed);
        println!(
            "cdh {}: {found} dumps, {} requests, {} of them no listing, {:.2} s, {} bytes",
            words.join(" "),
            requests.len(),
            requests.len() - lists,
            begun.elapsed().as_secs_f64(),
            proxy.sent()
        );
    }
    ensure!(gets.load(Ordering::Relaxed) == 0, "an object was read");
    Ok(())
}

/// Date and time of day (UTC) as keys have them, from seconds since 1970.
pub(super) fn civil(seconds: u64) -> (String, String) {
    let (mut days, second) = (seconds / 86_400, seconds % 86_400);
    let is_leap = |year: u64| {
        year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
    };
    let mut year = 1970;
    while days >= 365 + u64::from(is_leap(year)) {
        days -= 365 + u64::from(is_leap(year));
        year += 1;
    }
    let february = 28 + u64::from(is_leap(year));
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    let time = format!(
        "{:02}{:02}{:02}",
        second / 3600,
        second / 60 % 60,
        second % 60
    );
    (format!("{year}-{month:02}-{:02}", days + 1), time)
}
