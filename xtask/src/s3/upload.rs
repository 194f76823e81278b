//! How fast a big bundle reaches the server, and in how much memory, beside `aws s3 cp` of the same file.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use cdh_bundle::BundleWriter;
use cdh_testkit::ADMIN;

use super::{AWSCLI, Noise, Place, seal};
use crate::python;

pub(super) fn run(gib: u64) -> Result<()> {
    let awscli = python::install("awscli", AWSCLI, &[])?;
    let mut place = Place::new()?;
    let spool = place.spool()?;
    let id = seal(place.directory.path(), &mut Noise(7), gib << 30)?;
    let aside = place.path(&id.to_string());
    let bundle = place.path("bundle.zip");
    BundleWriter::from_entry(&aside)?.write_to(&mut fs::File::create(&bundle)?)?;
    let size = fs::metadata(&bundle)?.len();
    let mib = size as f64 / f64::from(1 << 20);
    let aws = |endpoint: &str| -> Result<f64> {
        let mut command = Command::new(awscli.join("bin/aws"));
        command
            .env("PYTHONPATH", &awscli)
            .env("AWS_ACCESS_KEY_ID", ADMIN.access)
            .env("AWS_SECRET_ACCESS_KEY", ADMIN.secret)
            .env("AWS_DEFAULT_REGION", "us-east-1")
            .args(["s3", "cp", "--only-show-errors", "--endpoint-url", endpoint])
            .arg(&bundle)
            .arg("s3://crashes/aws");
        let begun = Instant::now();
        crate::build::succeed(&mut command)?;
        Ok(begun.elapsed().as_secs_f64())
    };
    // In turn, so that whatever else the machine does hits both.
    let first = aws(&place.server.endpoint())?;
    // Each into an empty server: its disk is ours.
    place.new_server()?;
    let endpoint = place.server.endpoint();
    fs::rename(aside, spool.join(id.to_string()))?;
    let begun = Instant::now();
    let mut agent = place.agent(&endpoint)?;
    let status = format!("/proc/{}/status", agent.id());
    let mut peak = 0;
    while !place.is_spool_empty()? {
        ensure!(
            begun.elapsed() < Duration::from_secs(900),
            "it does not arrive"
        );
        peak = fs::read_to_string(&status)
            .ok()
            .and_then(|text| high_water(&text))
            .unwrap_or(peak);
        std::thread::sleep(Duration::from_millis(20));
    }
    let ours = begun.elapsed().as_secs_f64();
    agent.kill()?;
    agent.wait()?;
    let listing = place.output(&endpoint, &["ls", "-o", "wide"])?;
    place.new_server()?;
    let second = aws(&place.server.endpoint())?;
    let rate = |seconds: f64| mib / seconds;
    println!("bundle                {size} bytes");
    println!(
        "aws s3 cp, before     {first:.2} s, {:.0} MiB/s",
        rate(first)
    );
    println!(
        "cdh agent, verified   {ours:.2} s, {:.0} MiB/s, peak memory {} MiB",
        rate(ours),
        peak >> 10
    );
    println!(
        "aws s3 cp, after      {second:.2} s, {:.0} MiB/s",
        rate(second)
    );
    println!("{listing}");
    Ok(())
}

/// `VmHWM` in KiB.
fn high_water(status: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim()
        .strip_suffix(" kB")
        .context("a unit")
        .ok()?
        .parse()
        .ok()
}
