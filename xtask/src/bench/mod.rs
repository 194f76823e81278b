//! Measurements, against peers where there are some, in the same run.

mod backtrace;
mod capture;
mod flood;
mod images;
mod kills;
mod latency;
mod node;
mod peers;
mod storm;
mod trace;
mod uring;

use anyhow::{Context, Result, bail};

use node::Way;

const USAGE: &str = "usage: cargo xtask bench WHAT [OPTION]…
  capture  blocked time, cost and size against peers   --mib N --runs N --kind heap|random|sparse… --only NAME… --peer NAME=COMMAND…
  backtrace  native backtraces against gdb, lldb, eu-stack   see --help
  upload   fetch   listing   of an S3 store            --gib N --mib N --dumps N
  images   files of an image against skopeo copy       --layer-mib N --runs N
  latency  from the signal to the hold and a minicore  --runs N --way pipe|socket
  kills    killed, frozen, starved during the dump     --mib N --runs N --only NAME… --way pipe|socket
  uring    processes that poll on io_uring             --mib N --runs N --way pipe|socket
  storm    many crashes at once against peers          --count N --mib N --only NAME… --peer NAME=COMMAND…
  storm-500  500 crashes in a minute, small disk       --count N --only NAME… --peer NAME=COMMAND…";

/// What may stand on the command line.
struct Options {
    mib: Option<u64>,
    runs: Option<usize>,
    count: Option<usize>,
    way: Way,
    kinds: Vec<String>,
    only: Vec<String>,
    peers: Vec<String>,
}

fn options(words: &[String]) -> Result<Options> {
    let mut options = Options {
        mib: None,
        runs: None,
        count: None,
        way: Way::Pipe,
        kinds: Vec::new(),
        only: Vec::new(),
        peers: Vec::new(),
    };
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let value = words
            .next()
            .with_context(|| format!("{word} needs a value"))?;
        match word.as_str() {
            "--mib" => options.mib = Some(value.parse()?),
            "--runs" => options.runs = Some(value.parse()?),
            "--count" => options.count = Some(value.parse()?),
            "--kind" => options.kinds.push(value.clone()),
            "--only" => options.only.push(value.clone()),
            "--peer" => options.peers.push(value.clone()),
            "--way" => {
                options.way = match value.as_str() {
                    "pipe" => Way::Pipe,
                    "socket" => Way::Socket,
                    _ => bail!("a way is `pipe` or `socket`"),
                }
            }
            _ => bail!("{word} is not known\n{USAGE}"),
        }
    }
    Ok(options)
}

/// Runs the measurement that the words name.
pub(crate) fn run(words: &[String]) -> Result<()> {
    let Some((what, rest)) = words.split_first() else {
        bail!("{USAGE}");
    };
    match what.as_str() {
        "backtrace" => return backtrace::run(rest),
        "images" => return images::run(rest),
        "upload" | "fetch" | "listing" => return crate::s3::bench(what, rest),
        _ => {}
    }
    let given = options(rest)?;
    match what.as_str() {
        "capture" => capture::run(&capture::Options {
            mib: given.mib.unwrap_or(1024),
            runs: given.runs.unwrap_or(3),
            kinds: given.kinds,
            only: given.only,
            peers: given.peers,
        }),
        "latency" => latency::run(given.way, given.runs.unwrap_or(9)),
        "kills" => kills::run(
            given.way,
            &kills::Options {
                mib: given.mib.unwrap_or(2048),
                rounds: given.runs.unwrap_or(10),
                only: given.only,
            },
        ),
        "uring" => uring::run(
            given.way,
            given.runs.unwrap_or(20),
            given.mib.unwrap_or(256),
        ),
        "storm-500" => flood::run(&flood::Options {
            count: given.count.unwrap_or(500),
            only: given.only,
            peers: given.peers,
        }),
        "storm" => storm::run(&storm::Options {
            count: given.count.unwrap_or(200),
            mib: given.mib.unwrap_or(16),
            only: given.only,
            peers: given.peers,
        }),
        _ => bail!("{USAGE}"),
    }
}
