//! Measurements, against peers where there are some, in the same run.

mod backtrace;
mod big_program;
mod capture;
mod daemon;
mod fingerprints;
mod flood;
mod hostile;
mod images;
mod kills;
mod latency;
mod memory;
mod node;
mod peers;
mod storm;
pub(crate) mod trace;
mod tui;
mod uring;

use anyhow::{Result, bail};

use node::Way;
pub(crate) use node::median;

use crate::options::{self, Options};

const USAGE: &str = "usage: cargo xtask bench WHAT [OPTION]…
  capture  blocked time, cost and size against peers   --mib N --runs N --kind heap|random|sparse… --only NAME… --peer NAME=COMMAND…
  backtrace  native backtraces against gdb, lldb, eu-stack   see bench backtrace --help
  fingerprints  one bug, one fingerprint: 50 bugs in 17 builds   --only LANGUAGE… --peer CDH
  upload   fetch   listing   groups   of an S3 store   --gib N --runs N --mib N --dumps N
  images   files of an image against skopeo copy       --layer-mib N --runs N
  tui      redraws on a store of many dumps            --dumps N --runs N
  latency  from the signal to the hold and a minicore  --runs N --way pipe|socket
  kills    killed, frozen, starved during the dump     --mib N --runs N --only NAME… --way pipe|socket
  hostile  a hostile user beside a victim              --minutes N --way pipe|socket
  uring    processes that poll on io_uring             --mib N --runs N --way pipe|socket
  storm    many crashes at once against peers          --count N --mib N --only NAME… --peer NAME=COMMAND…
  storm-500  500 crashes in a minute, small disk       --count N --only NAME… --peer NAME=COMMAND…";

/// What may stand on the command line.
const NAMED: [&str; 8] = [
    "--mib",
    "--runs",
    "--count",
    "--kind",
    "--only",
    "--peer",
    "--way",
    "--minutes",
];

/// Runs the measurement that the words name.
pub(crate) fn run(words: &[String]) -> Result<()> {
    let Some((what, rest)) = words.split_first() else {
        bail!("{USAGE}");
    };
    if what.starts_with('-') {
        options::offer_help(words, USAGE)?;
    }
    match what.as_str() {
        "backtrace" => return backtrace::run(rest),
        "images" => return images::run(rest),
        "tui" => return tui::run(rest),
        "upload" | "fetch" | "listing" | "groups" => return crate::s3::bench(what, rest),
        _ => {}
    }
    let given = Options::parse(rest, &NAMED, &[], USAGE)?;
    let (only, peers) = (given.all("--only"), given.all("--peer"));
    let way = match given.text("--way") {
        None | Some("pipe") => Way::Pipe,
        Some("socket") => Way::Socket,
        Some(_) => bail!("a way is `pipe` or `socket`"),
    };
    match what.as_str() {
        "capture" => capture::run(&capture::Options {
            mib: given.or("--mib", 1024)?,
            runs: given.or("--runs", 3)?,
            kinds: given.all("--kind"),
            only,
            peers,
        }),
        "latency" => latency::run(way, given.or("--runs", 9)?),
        "kills" => kills::run(
            way,
            &kills::Options {
                mib: given.or("--mib", 2048)?,
                rounds: given.or("--runs", 10)?,
                only,
            },
        ),
        "hostile" => hostile::run(way, given.or("--minutes", 10)?),
        "uring" => uring::run(way, given.or("--runs", 20)?, given.or("--mib", 256)?),
        "storm-500" => flood::run(&flood::Options {
            count: given.or("--count", 500)?,
            only,
            peers,
        }),
        "fingerprints" => fingerprints::run(peers.first().map(String::as_str), &only),
        "storm" => storm::run(&storm::Options {
            count: given.or("--count", 200)?,
            mib: given.or("--mib", 16)?,
            only,
            peers,
        }),
        _ => bail!("{USAGE}"),
    }
}
