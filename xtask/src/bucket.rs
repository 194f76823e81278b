//! A store as a team has one: hundreds of crashes of twelve services in five namespaces, over three
//! weeks, every one of them real.
//!
//! As root the kernel writes the cores, one for each crash; else gdb makes one for each service, which is
//! then imported several times. Namespaces, pods, images and times are made up, which `cdh import` is
//! told; some cores are cut, as they are where disks are full.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};

use crate::guardian::Guardian;
use crate::{build, crash};

/// Service, namespace, and how often it crashes, relative to the others.
const SERVICES: [(&str, &str, u64); 12] = [
    ("checkout", "shop", 9),
    ("ledger", "payments", 7),
    ("indexer", "search", 5),
    ("worker", "payments", 12),
    ("cron", "platform", 3),
    ("gateway", "shop", 6),
    ("cache", "search", 4),
    ("mailer", "platform", 2),
    ("thumbnails", "media", 4),
    ("router", "platform", 3),
    ("session", "shop", 2),
    ("panicking", "media", 3),
];
/// Seconds of the time that the crashes are spread over.
const SPAN: u64 = 21 * 86400;
/// One core in so many is cut.
const CUT: u64 = 17;

/// Makes the store: `cargo xtask bucket DIR [COUNT]`.
pub(crate) fn run(words: &[String]) -> Result<()> {
    let directory = words
        .first()
        .context("usage: cargo xtask bucket DIR [COUNT]")?;
    let count = words.get(1).map_or(Ok(320), |word| word.parse())?;
    let cdh = build::cdh()?;
    let place = tempfile::tempdir()?;
    let programs = build_services(place.path(), Path::new(&format!("{directory}-services")))?;
    let mut numbers = Numbers(0x2545_F491_4F6C_DD1D);
    let crashes: Vec<usize> = (0..count).map(|_| numbers.weighted()).collect();
    let cores = take_cores(place.path(), &programs, &crashes)?;
    for (number, (service, core)) in crashes.into_iter().zip(cores).enumerate() {
        let (name, namespace, _) = SERVICES[service];
        let old = numbers.age();
        if numbers.below(CUT) == 0 {
            let file = File::options().write(true).open(&core)?;
            let size = file.metadata()?.len();
            file.set_len(size * (40 + numbers.below(50)) / 100)?;
        }
        // Last: cutting it made it new.
        age(&core, old)?;
        let version = numbers.below(3);
        let pod = format!(
            "{name}-{:08x}9-{}",
            0x7d4b_9c6f_u64 + version,
            numbers.letters()
        );
        let mut of_version = Numbers(0x9E37_79B9_7F4A_7C15 + 64 * version + service as u64);
        // Seeds that are alike begin alike.
        let numbers_of_version = (0..12).map(|_| of_version.next()).skip(8);
        let digest: String = numbers_of_version
            .map(|number| format!("{number:016x}"))
            .collect();
        let image = format!("registry.example/{namespace}/{name}@sha256:{digest}");
        let node = format!("node-{}", 1 + numbers.below(6));
        let mut import = Command::new(&cdh);
        import.args([
            "--store",
            directory,
            "import",
            "--namespace",
            namespace,
            "--pod",
            &pod,
        ]);
        import
            .args(["--container", name, "--image", &image, "--node", &node])
            .arg(&core);
        let output = import
            .env("XDG_CACHE_HOME", place.path().join("cache"))
            .output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{}: {said}", core.display());
        fs::remove_file(&core).or_else(|error| match error.kind() {
            std::io::ErrorKind::NotFound => Ok(()),
            _ => Err(error),
        })?;
        if (number + 1) % 40 == 0 {
            println!("{} of {count}", number + 1);
        }
    }
    println!("done: `cdh --store {directory}` shows them");
    Ok(())
}

/// The services and their source stay beside the store: the cores name these files.
fn build_services(place: &Path, kept: &Path) -> Result<Vec<PathBuf>> {
    fs::create_dir_all(kept)?;
    let kept = fs::canonicalize(kept)?;
    let source = kept.join("service.c");
    fs::copy(build::root().join("xtask/programs/service.c"), &source)?;
    let panicking = crash::build_programs(place)?
        .into_iter()
        .find(|program| program.ends_with("panicking"))
        .context("the demo has no panicking program")?;
    fs::copy(panicking, kept.join("panicking"))?;
    for (name, ..) in SERVICES.iter().filter(|(name, ..)| *name != "panicking") {
        let mut cc = Command::new("cc");
        cc.args([
            "-O1",
            "-g",
            "-pthread",
            "-fstack-protector-all",
            "-Wl,--build-id",
            "-D_GNU_SOURCE",
            "-w",
            "-o",
        ]);
        build::succeed(cc.arg(kept.join(name)).arg(&source))?;
    }
    Ok(SERVICES.iter().map(|(name, ..)| kept.join(name)).collect())
}

/// A core for each crash.
fn take_cores(place: &Path, programs: &[PathBuf], crashes: &[usize]) -> Result<Vec<PathBuf>> {
    let cores = place.join("cores");
    fs::create_dir(&cores)?;
    let Some(guardian) = Guardian::start(place)? else {
        println!("not root: gdb makes one core for each service");
        let made: Vec<PathBuf> = programs
            .iter()
            .map(|program| Ok(crash::plain_core(program)?.0))
            .collect::<Result<_>>()?;
        let copy = |(number, service): (usize, &usize)| {
            let copy = cores.join(number.to_string());
            fs::copy(&made[*service], &copy)?;
            Ok(copy)
        };
        return crashes.iter().enumerate().map(copy).collect();
    };
    fs::write(
        "/proc/sys/kernel/core_pattern",
        format!("{}/new\n", cores.display()),
    )?;
    let mut taken = Vec::new();
    for (number, service) in crashes.iter().enumerate() {
        crash::crash(&programs[*service])?;
        let core = cores.join(number.to_string());
        // `core_uses_pid` appends a number.
        let is_new = |path: &PathBuf| {
            path.file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with("new"))
        };
        let mut files = fs::read_dir(&cores)?.flatten().map(|entry| entry.path());
        let new = files.find(is_new).context("the kernel wrote no core")?;
        fs::rename(new, &core)?;
        taken.push(core);
    }
    drop(guardian);
    Ok(taken)
}

/// Makes a core so many seconds old: that is when it was captured.
fn age(core: &Path, seconds: u64) -> Result<()> {
    let file = File::options().write(true).open(core)?;
    file.set_modified(SystemTime::now() - Duration::from_secs(seconds))?;
    Ok(())
}

/// Numbers that are the same each time.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    fn weighted(&mut self) -> usize {
        let all: u64 = SERVICES.iter().map(|(.., weight)| weight).sum();
        let mut rest = self.below(all);
        for (number, (.., weight)) in SERVICES.iter().enumerate() {
            match rest.checked_sub(*weight) {
                Some(less) => rest = less,
                None => return number,
            }
        }
        0
    }

    /// More of the last days, and outbreaks.
    fn age(&mut self) -> u64 {
        let place = self.below(1000) as f64 / 1000.0;
        let age = (place * place * SPAN as f64) as u64;
        match self.below(3) {
            0 => age / 86400 * 86400 + self.below(5400) + 120,
            _ => age + self.below(3600) + 60,
        }
    }

    /// As Kubernetes ends the names of pods.
    fn letters(&mut self) -> String {
        const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
        (0..5)
            .map(|_| char::from(LETTERS[self.below(LETTERS.len() as u64) as usize]))
            .collect()
    }
}
