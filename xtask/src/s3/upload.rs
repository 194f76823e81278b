//! How fast a big bundle reaches the server, and in how much memory, beside `aws s3 cp` of the same file.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use cdh_bundle::BundleWriter;
use cdh_testkit::ADMIN;

use super::{AWSCLI, Noise, S3Bench, seal};
use crate::bench::median;
use crate::python;

/// What is sent, and by whom.
struct Contest {
    place: S3Bench,
    awscli: PathBuf,
    bundle: PathBuf,
    /// The same dump as the agent has it, outside its spool.
    entry: PathBuf,
}

/// Sends the bundle `runs` times by each, in turn, so that whatever else the machine does hits both.
pub(super) fn run(gib: u64, runs: usize) -> Result<()> {
    ensure!(runs > 0, "there is nothing to compare in no runs");
    let mut contest = Contest::prepare(gib)?;
    let size = fs::metadata(&contest.bundle)?.len();
    let rate = |seconds: f64| size as f64 / f64::from(1 << 20) / seconds;
    println!("bundle of {size} bytes; MiB/s");
    println!("run  aws s3 cp  cdh agent, verified  peak memory of cdh, MiB");
    let (mut theirs, mut ours, mut most) = (Vec::new(), Vec::new(), 0);
    for number in 0..runs {
        let (aws, (cdh, peak));
        if number % 2 == 0 {
            aws = contest.aws()?;
            (cdh, peak) = contest.cdh()?;
        } else {
            (cdh, peak) = contest.cdh()?;
            aws = contest.aws()?;
        }
        println!(
            "{:>3}  {:>9.0}  {:>19.0}  {:>26}",
            number + 1,
            rate(aws),
            rate(cdh),
            peak >> 10
        );
        theirs.push(aws);
        ours.push(cdh);
        most = most.max(peak);
    }
    let (theirs, ours) = (rate(median(&theirs)), rate(median(&ours)));
    println!(
        "median: aws {theirs:.0}, cdh {ours:.0}: {:.2} times; peak memory {} MiB",
        ours / theirs,
        most >> 10
    );
    Ok(())
}

impl Contest {
    fn prepare(gib: u64) -> Result<Self> {
        let awscli = python::install("awscli", AWSCLI, &[])?;
        let place = S3Bench::new()?;
        place.spool()?;
        let id = seal(place.directory.path(), &mut Noise(7), gib << 30)?;
        let (entry, bundle) = (place.path(&id.to_string()), place.path("bundle.zip"));
        BundleWriter::from_entry(&entry)?.write_to(&mut fs::File::create(&bundle)?)?;
        Ok(Self {
            place,
            awscli,
            bundle,
            entry,
        })
    }

    /// An empty server: its disk is ours. What was written before is on the disk.
    fn start(&mut self) -> Result<String> {
        self.place.new_server()?;
        crate::build::succeed(&mut Command::new("sync"))?;
        Ok(self.place.server.endpoint())
    }

    /// Seconds that `aws s3 cp` takes.
    fn aws(&mut self) -> Result<f64> {
        let endpoint = self.start()?;
        let mut command = Command::new(self.awscli.join("bin/aws"));
        command
            .env("PYTHONPATH", &self.awscli)
            .env("AWS_ACCESS_KEY_ID", ADMIN.access)
            .env("AWS_SECRET_ACCESS_KEY", ADMIN.secret)
            .env("AWS_DEFAULT_REGION", "us-east-1")
            .args(["s3", "cp", "--only-show-errors", "--endpoint-url"])
            .arg(endpoint)
            .arg(&self.bundle)
            .arg("s3://crashes/aws");
        let begun = Instant::now();
        crate::build::succeed(&mut command)?;
        Ok(begun.elapsed().as_secs_f64())
    }

    /// Seconds from the agent's start until the dump has left the spool, which it does after what
    /// arrived was compared; and the agent's peak memory in KiB.
    fn cdh(&mut self) -> Result<(f64, u64)> {
        let name = self.entry.file_name().context("no name")?.to_owned();
        let entry = self.place.path("state/spool").join(&name);
        let mut copy = Command::new("cp");
        crate::build::succeed(copy.arg("-a").arg(&self.entry).arg(&entry))?;
        let endpoint = self.start()?;
        let begun = Instant::now();
        let mut agent = self.place.agent(&endpoint)?;
        let status = format!("/proc/{}/status", agent.id());
        let mut peak = 0;
        while !self.place.is_spool_empty()? {
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
        let took = begun.elapsed().as_secs_f64();
        agent.kill()?;
        agent.wait()?;
        let listing = self.place.output(&endpoint, &["ls", "-o", "id"])?;
        ensure!(
            listing.trim() == name.to_string_lossy(),
            "another dump arrived: {listing}"
        );
        Ok((took, peak))
    }
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
