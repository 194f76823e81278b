//! What a fetch moves that is cut five times by a server that dies, and what `cdh bt` moves.

use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use cdh_bundle::Digests;
use cdh_testkit::HttpProxy;

use super::S3Bench;

/// Dies with so many MiB of noise in its heap.
const PROGRAM: &str = r#"
#include <stdlib.h>
__attribute__((noinline)) static void inner(int *p) { *p = 7; }
__attribute__((noinline)) static void middle(int *p) { inner(p); *p = 8; }
int main(int argc, char **argv) {
    unsigned long size = strtoul(argv[1], 0, 10) << 20, x = 88172645463325252ul, *m = malloc(size);
    for (unsigned long i = 0; i < size / 8; i++) { x ^= x << 13; x ^= x >> 7; x ^= x << 17; m[i] = x; }
    middle((int *)0x10);
    return (int)m[argc];
}
"#;

pub(super) fn run(mib: u64) -> Result<()> {
    let mut place = S3Bench::new()?;
    let source = place.path("big.c");
    fs::write(&source, PROGRAM)?;
    let mut cc = Command::new("cc");
    cc.args(["-g", "-O1", "-Wl,--build-id", "-o"])
        .arg(place.path("big"))
        .arg(&source);
    crate::build::succeed(&mut cc)?;
    let core = place.path("big.core");
    let mut gdb = Command::new("gdb");
    gdb.args(["-nx", "-q", "-batch", "-ex", "run", "-ex"])
        .arg(format!("generate-core-file {}", core.display()))
        .arg("--args")
        .arg(place.path("big"))
        .arg(mib.to_string())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    crate::build::succeed(&mut gdb)?;
    let wanted = Digests::of_reader(fs::File::open(&core)?)?;
    let direct = place.server.endpoint();
    place.output(&direct, &["import", "big.core"])?;
    fs::remove_file(&core)?;
    let listing = place.output(&direct, &["ls", "-o", "json"])?;
    let listing: serde_json::Value = serde_json::from_str(&listing)?;
    let size = listing[0]["size"].as_u64().context("a size")?;
    println!("core {} bytes, bundle {size} bytes", wanted.size);

    let proxy = HttpProxy::counting(place.server.port());
    let begun = Instant::now();
    let stacks = place.output(&proxy.endpoint(), &["bt", "latest"])?;
    let took = begun.elapsed();
    ensure!(stacks.contains("middle at"), "{stacks}");
    report("cdh bt", proxy.sent(), size, proxy.requests().len(), took);
    proxy.reset();
    let begun = Instant::now();
    place.output(&proxy.endpoint(), &["info", "latest"])?;
    report(
        "cdh info",
        proxy.sent(),
        size,
        proxy.requests().len(),
        begun.elapsed(),
    );

    proxy.reset();
    let begun = Instant::now();
    let mut runs = 0;
    let mut cuts = 0;
    let mut child: Option<std::process::Child> = None;
    while !place.path("case").exists() {
        ensure!(runs < 30, "it does not end");
        let running = match &mut child {
            Some(child) => child,
            None => {
                runs += 1;
                let words = ["fetch", "latest", "-d", "case"];
                let mut command = place.cdh(&proxy.endpoint(), &words);
                child.insert(command.stdout(Stdio::null()).spawn()?)
            }
        };
        if running.try_wait()?.is_some() {
            child = None;
            continue;
        }
        if cuts < 5 && proxy.sent() > size * (2 * cuts + 1) / 11 {
            cuts += 1;
            place.server.kill();
            proxy.cut_all();
            std::thread::sleep(Duration::from_secs(2));
            place.server.restart();
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    if let Some(mut child) = child {
        ensure!(child.wait()?.success(), "the last run failed");
    }
    let found = Digests::of_reader(fs::File::open(place.path("case/core"))?)?;
    ensure!(found == wanted, "the core is another one");
    let what = format!("cdh fetch, server killed {cuts} times, {runs} runs");
    report(
        &what,
        proxy.sent(),
        size,
        proxy.requests().len(),
        begun.elapsed(),
    );
    println!(
        "the core is the one that was imported: SHA-256 {}",
        found.sha256
    );
    Ok(())
}

fn report(what: &str, moved: u64, size: u64, requests: usize, took: Duration) {
    println!(
        "{what}: {moved} bytes, {:.2} % of the bundle, {requests} requests, {:.2} s",
        moved as f64 * 100.0 / size as f64,
        took.as_secs_f64()
    );
}
