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
    let place = Place::new()?;
    let spool = place.spool()?;
    let id = seal(place.directory.path(), &mut Noise(7), gib << 30)?;
    let aside = place.path(&id.to_string());
    let bundle = place.path("bundle.zip");
    BundleWriter::from_entry(&aside)?.write_to(&mut fs::File::create(&bundle)?)?;
    let size = fs::metadata(&bundle)?.len();
    let mib = size as f64 / f64::from(1 << 20);
    let endpoint = place.server.endpoint();
    let aws = |key: &str| -> Result<f64> {
        let mut command = Command::new(awscli.join("bin/aws"));
        command
            .env("PYTHONPATH", &awscli)
            .env("AWS_ACCESS_KEY_ID", ADMIN.access)
            .env("AWS_SECRET_ACCESS_KEY", ADMIN.secret)
            .env("AWS_DEFAULT_REGION", "us-east-1")
            .args(["s3", "cp", "--only-show-errors", "--endpoint-url", &endpoint])
            .arg(&bundle)
            .arg(format!("s3://crashes/aws/{key}"));
        let begun = Instant::now();
        crate::build::succeed(&mut command)?;
        Ok(begun.elapsed().as_secs_f64())
    };
    // In turn, so that whatever else the machine does hits both.
    let first = aws("first")?;
    fs::rename(aside, spool.join(id.to_string()))?;
    let begun = Instant::now();
    let mut agent = place.agent(&endpoint)?;
    let status = format!("/proc/{}/status", agent.id());
    let mut peak = 0;
    while !place.is_spool_empty()? {
        ensure!(begun.elapsed() < Duration::from_secs(900), "it does not arrive");
        peak = fs::read_to_string(&status).ok().and_then(|text| high_water(&text)).unwrap_or(peak);
        std::thread::sleep(Duration::from_millis(20));
    }
    let ours = begun.elapsed().as_secs_f64();
    agent.kill()?;
    agent.wait()?;
    let second = aws("second")?;
    let rate = |seconds: f64| mib / seconds;
    println!("bundle                {size} bytes");
    println!("aws s3 cp, before     {first:.2} s, {:.0} MiB/s", rate(first));
    println!("cdh agent, verified   {ours:.2} s, {:.0} MiB/s, peak memory {} MiB", rate(ours), peak >> 10);
    println!("aws s3 cp, after      {second:.2} s, {:.0} MiB/s", rate(second));
    println!("{}", place.output(&endpoint, &["ls", "-o", "wide"])?);
    Ok(())
}

/// `VmHWM` in KiB.
fn high_water(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix(" kB").context("a unit").ok()?.parse().ok()
}
