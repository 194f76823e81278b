//! What it costs to get from an image to the files that a core needs, against `skopeo copy` of the image.
//!
//! A program crashes; an image of eight layers and more than 500 MB holds it and its libraries, in the
//! topmost layer or in the lowest, or in a single layer behind everything else. A real registry on
//! loopback serves it. Time and peak memory are taken without anything between, bytes once more through a
//! counter between client and registry.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use cdh_testkit::{Blob, DockerRegistry, Packing, Program, RegistryAccess, TestImages, TestLayer};

use crate::options::Options;
use crate::{build, tools};

const LAYERS: u64 = 8;
const REPOSITORY: &str = "bench/app";

#[derive(Clone, Copy, Default)]
struct Measured {
    seconds: f64,
    memory_mib: f64,
    megabytes: f64,
}

pub(super) fn run(words: &[String]) -> Result<()> {
    const USAGE: &str = "usage: cargo xtask bench images [--layer-mib N] [--runs N]";
    let options = Options::parse(words, &["--layer-mib", "--runs"], &[], USAGE)?;
    let (mib, runs) = (options.or("--layer-mib", 68)?, options.or("--runs", 3)?);
    tools::require(&["gdb", "docker-registry", "skopeo"])?;
    let cdh = build::cdh_release()?;
    let bench = tempfile::Builder::new().prefix("cdhi").tempdir()?;
    let core = crash(bench.path())?;
    let place = bench.path().join("registry");
    let registry = DockerRegistry::start(&place, RegistryAccess::Open)?
        .context("docker-registry is not there")?;
    let needed = needed(bench.path())?;
    let mut cases = Vec::new();
    for name in ["top", "bottom", "one layer"] {
        eprintln!("making the image with the program at: {name}");
        let mut images = TestImages::default();
        let layers = match name {
            "one layer" => vec![with_files(filler(mib * LAYERS, 99), &needed)],
            _ => {
                let filled = |number| match (name, number) {
                    ("top", 7) => with_files_first(&needed, mib, number),
                    ("bottom", 0) => with_files(filler(mib, number), &needed),
                    _ => filler(mib, number).pack(Packing::Gzip),
                };
                (0..LAYERS).map(filled).collect::<Vec<Blob>>()
            }
        };
        let size: usize = layers.iter().map(|layer| layer.bytes.len()).sum();
        let digest = images.image("amd64", &layers);
        DockerRegistry::put(&place, REPOSITORY, &images)?;
        cases.push((name, digest, layers.len(), size));
    }
    println!(
        "{:<10} {:<14} {:>10} {:>8} {:>10} {:>10}",
        "program", "", "MB pulled", "s", "peak MiB", "image MB"
    );
    for (name, digest, _, size) in &cases {
        let mut results = [Vec::new(), Vec::new()];
        for run in 0..=runs {
            let counted = run == 0;
            for (index, result) in results.iter_mut().enumerate() {
                let counter = counted
                    .then(|| Counter::start(&registry.address))
                    .transpose()?;
                let address = counter
                    .as_ref()
                    .map_or(&registry.address, |counter| &counter.address);
                let image = format!("{address}/{REPOSITORY}@{digest}");
                let out = bench.path().join("out");
                let mut command = match index {
                    0 => ours(&cdh, &core, &image, &out),
                    _ => skopeo(&image, &out),
                };
                let mut measured = measure(&mut command)?;
                if let Some(counter) = counter {
                    measured.megabytes = counter.bytes.load(Ordering::Relaxed) as f64 / 1e6;
                }
                result.push(measured);
                fs::remove_dir_all(&out)?;
            }
        }
        let rows = results.map(|all| median(&all));
        for (who, row) in ["cdh sysroot", "skopeo copy"].iter().zip(&rows) {
            println!(
                "{name:<10} {who:<14} {:>10.2} {:>8.3} {:>10.1} {:>10.0}",
                row.megabytes,
                row.seconds,
                row.memory_mib,
                *size as f64 / 1e6
            );
        }
        let [we, they] = rows;
        println!(
            "{name:<10} {:<14} {:>9.1}x {:>7.1}x",
            "fewer, less",
            they.megabytes / we.megabytes,
            they.seconds / we.seconds
        );
    }
    Ok(())
}

/// A core that gdb makes of a program: independent of the machine's core_pattern.
fn crash(directory: &Path) -> Result<PathBuf> {
    let program = Program::Crash.build(directory)?;
    let core = directory.join("core");
    let output = Command::new("gdb")
        .args(["-q", "-batch", "-ex", "run", "-ex"])
        .arg(format!("generate-core-file {}", core.display()))
        .arg(&program)
        .output()?;
    if !core.is_file() {
        bail!(
            "gdb made no core: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    // Where only the image has it.
    Ok(core)
}

/// The program and its libraries, by their paths in the core. The program itself is moved away.
fn needed(directory: &Path) -> Result<Vec<(String, Vec<u8>)>> {
    let program = directory.join("crash");
    let listed = Command::new("ldd").arg(&program).output()?;
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    let mut files = vec![(program.display().to_string(), fs::read(&program)?)];
    for word in listed
        .split_whitespace()
        .filter(|word| word.starts_with('/'))
    {
        let real = fs::canonicalize(word)?;
        files.push((real.display().to_string(), fs::read(&real)?));
    }
    fs::remove_file(program)?;
    Ok(files)
}

/// Three quarters of what does not compress, one of what does.
fn filler(mib: u64, seed: u64) -> TestLayer {
    let mut state = 0x9e37_79b9_7f4a_7c15 ^ (seed << 40);
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let words: Vec<u64> = (0..256).map(|_| next()).collect();
    let mut layer = TestLayer::new();
    for number in 0..mib / 4 {
        let mut content = Vec::with_capacity(8 << 20);
        while content.len() < 3 << 20 {
            content.extend(next().to_le_bytes());
        }
        while content.len() < 7 << 20 {
            let word = usize::try_from(next() % 256).unwrap_or(0);
            content.extend(words[word].to_le_bytes());
        }
        layer = layer.file(&format!("srv/data/{seed}/{number}"), &content);
    }
    layer
}

fn with_files(mut layer: TestLayer, files: &[(String, Vec<u8>)]) -> Blob {
    for (path, content) in files {
        layer = layer.file(path, content);
    }
    layer.pack(Packing::Gzip)
}

/// As `COPY app` and then data: what a build adds last is in its own small layer or before bulk.
fn with_files_first(files: &[(String, Vec<u8>)], mib: u64, seed: u64) -> Blob {
    let mut layer = TestLayer::new();
    for (path, content) in files {
        layer = layer.file(path, content);
    }
    layer.join(filler(mib, seed)).pack(Packing::Gzip)
}

fn ours(cdh: &Path, core: &Path, image: &str, out: &Path) -> Command {
    let mut command = Command::new(cdh);
    command
        .arg("sysroot")
        .arg(core)
        .args(["--image", image, "-o", "json"]);
    command
        .env("XDG_CACHE_HOME", out)
        .env("HOME", out)
        .env_remove("DEBUGINFOD_URLS");
    command
}

fn skopeo(image: &str, out: &Path) -> Command {
    let mut command = Command::new("skopeo");
    command.args([
        "copy",
        "--quiet",
        "--src-tls-verify=false",
        "--insecure-policy",
    ]);
    command
        .arg(format!("docker://{image}"))
        .arg(format!("dir:{}", out.display()));
    command
}

fn measure(command: &mut Command) -> Result<Measured> {
    let shown = format!("{command:?}");
    let begun = Instant::now();
    let mut child = command
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    let status_file = format!("/proc/{}/status", child.id());
    let mut peak: f64 = 0.0;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        let text = fs::read_to_string(&status_file).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
        peak = peak.max(kib.unwrap_or(0.0) / 1024.0);
        std::thread::sleep(Duration::from_millis(1));
    };
    let seconds = begun.elapsed().as_secs_f64();
    if !status.success() {
        let mut said = String::new();
        if let Some(mut stderr) = child.stderr.take() {
            stderr.read_to_string(&mut said)?;
        }
        bail!("{shown} failed: {status}: {said}");
    }
    Ok(Measured {
        seconds,
        memory_mib: peak,
        megabytes: 0.0,
    })
}

/// Bytes of the first run, which was counted; time and memory of the others.
fn median(all: &[Measured]) -> Measured {
    let (Some(counted), rest) = (all.first(), all.get(1..).unwrap_or_default()) else {
        return Measured::default();
    };
    let middle = |value: fn(&Measured) -> f64| {
        let mut values: Vec<f64> = rest.iter().map(value).collect();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied().unwrap_or_default()
    };
    Measured {
        seconds: middle(|one| one.seconds),
        memory_mib: rest.iter().map(|one| one.memory_mib).fold(0.0, f64::max),
        megabytes: counted.megabytes,
    }
}

/// A proxy between a client and the registry that counts the bytes of answers.
struct Counter {
    address: String,
    bytes: Arc<AtomicU64>,
}

impl Counter {
    /// Its threads end with this program.
    fn start(registry: &str) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?.to_string();
        let bytes = Arc::new(AtomicU64::new(0));
        let (registry, counter) = (registry.to_owned(), Arc::clone(&bytes));
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect(&registry) else {
                    continue;
                };
                let (Ok(up), Ok(back)) = (client.try_clone(), server.try_clone()) else {
                    continue;
                };
                std::thread::spawn(move || copy(up, server, None));
                let counter = Arc::clone(&counter);
                std::thread::spawn(move || copy(back, client, Some(&counter)));
            }
        });
        Ok(Self { address, bytes })
    }
}

/// To the end of either side, whose disconnect is not an error here.
fn copy(mut from: TcpStream, mut to: TcpStream, counter: Option<&AtomicU64>) {
    let mut block = vec![0; 64 << 10];
    let mut once = || -> io::Result<bool> {
        let count = from.read(&mut block)?;
        if let Some(counter) = counter {
            counter.fetch_add(count as u64, Ordering::Relaxed);
        }
        to.write_all(block.get(..count).unwrap_or_default())?;
        Ok(count > 0)
    };
    while once().unwrap_or(false) {}
    let _ = to.shutdown(Shutdown::Both);
    let _ = from.shutdown(Shutdown::Both);
}
