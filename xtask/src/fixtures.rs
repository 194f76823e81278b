//! Builds the corpus and compares our backtraces with gdb's.
//!
//! `--products` writes the small cores that are kept in the repository, for snapshots that are the same
//! everywhere; `--seeds DIR` writes inputs for `fuzz/fuzz_targets/backtrace.rs` from them.
//!
//! `cargo xtask fixtures [--products | --seeds DIR] [--keep DIR] [--cdh PROGRAM] [NAME]…`

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use cdh_elfcore::{Avma, CoreFile, Memory};
use cdh_testkit::corpus::{self, Variant};
use cdh_testkit::divergence::{self, Difference, KnownDivergence};

use crate::build;

pub(crate) fn run(words: &[String]) -> Result<()> {
    let mut names = Vec::new();
    let mut place: Option<PathBuf> = None;
    let mut cdh: Option<PathBuf> = None;
    let mut words = words.iter();
    while let Some(word) = words.next() {
        match word.as_str() {
            "--keep" => place = Some(words.next().context("`--keep` wants a directory")?.into()),
            "--products" => return products(),
            "--seeds" => {
                return seeds(
                    words
                        .next()
                        .context("`--seeds` wants a directory")?
                        .as_ref(),
                );
            }
            "--cdh" => cdh = Some(words.next().context("`--cdh` wants a program")?.into()),
            name => names.push(name.to_owned()),
        }
    }
    if names.is_empty() {
        names = corpus::names()?;
    }
    let scratch = tempfile::tempdir()?;
    let place = place.as_deref().unwrap_or(scratch.path());
    let cdh = match cdh {
        Some(cdh) => cdh,
        None => build::cdh()?,
    };
    let known = divergence::known()?;
    let mut total = Total::default();
    for name in &names {
        for variant in corpus::build(name, place)? {
            total.add(&cdh, &variant, &known)?;
        }
    }
    println!(
        "{} cores, {} threads: {} equal to gdb's, {} differ as the list says, {} differ otherwise",
        total.cores,
        total.equal + total.listed + total.open,
        total.equal,
        total.listed,
        total.open
    );
    ensure!(
        total.open == 0,
        "some differences are not in tests/fixtures/divergences.toml"
    );
    Ok(())
}

#[derive(Default)]
struct Total {
    cores: usize,
    equal: usize,
    listed: usize,
    open: usize,
}

impl Total {
    fn add(&mut self, cdh: &Path, variant: &Variant, known: &[KnownDivergence]) -> Result<()> {
        let Some(gdb) = variant.oracle()? else {
            return Ok(());
        };
        let ours = divergence::ours(cdh, variant)?;
        let (equal, differences) = divergence::compare(variant, &gdb, &ours);
        self.cores += 1;
        self.equal += equal;
        let is_known = |found: &&Difference| known.iter().any(|known| known.explains(found));
        let (listed, open): (Vec<_>, Vec<_>) = differences.iter().partition(is_known);
        self.listed += listed.len();
        self.open += open.len();
        println!(
            "{}: {equal} equal, {} listed, {} not",
            variant.name,
            listed.len(),
            open.len()
        );
        for found in open.iter().take(2) {
            println!(
                "  thread {}: gdb `{}`, cdh `{}`",
                found.tid, found.gdb, found.ours
            );
            print!("{}", found.stacks);
        }
        Ok(())
    }
}

/// Where the products are built: their cores hold the path.
const PRODUCTS: &str = "/tmp/cdh-fixtures";
/// The fixture whose products are kept.
const KEPT: &str = "bare";
const PAGE: usize = 4096;

fn products() -> Result<()> {
    fs::create_dir(PRODUCTS).with_context(|| format!("{PRODUCTS} must not be there yet"))?;
    let outcome = keep_products(Path::new(PRODUCTS));
    fs::remove_dir_all(PRODUCTS)?;
    outcome
}

fn keep_products(place: &Path) -> Result<()> {
    let kept = corpus::fixtures()
        .canonicalize()?
        .join(KEPT)
        .join("products");
    let mut names = Vec::new();
    for variant in corpus::build(KEPT, place)? {
        let name = variant
            .directory
            .file_name()
            .context("a variant has a name")?;
        let target = kept.join(name);
        fs::create_dir_all(&target)?;
        fs::write(
            target.join("core"),
            minimized(&variant.directory.join("core"))?,
        )?;
        for file in ["program", "bare.dwo"] {
            let source = variant.directory.join(file);
            if source.is_file() {
                fs::copy(source, target.join(file))?;
            }
        }
        names.push(name.to_owned());
    }
    names.sort();
    let sums = Command::new("sh")
        .current_dir(&kept)
        .args(["-c", "LC_ALL=C sha256sum */* > SHA256SUMS"])
        .status()?;
    ensure!(sums.success(), "sha256sum failed");
    println!("{} cores are in {}", names.len(), kept.display());
    Ok(())
}

/// The core with only those pages that are not all zero.
fn minimized(path: &Path) -> Result<Vec<u8>> {
    let core = CoreFile::open(Box::new(fs::read(path)?))?;
    let mut pages = BTreeMap::new();
    for segment in core.head().segments() {
        let end = segment.start.0.saturating_add(segment.file_size);
        for at in (segment.start.0..end).step_by(PAGE) {
            let mut page = vec![0; PAGE];
            if core.read(Avma(at), &mut page) == PAGE && page.iter().any(|byte| *byte != 0) {
                pages.insert(at, page);
            }
        }
    }
    let mut out = Vec::new();
    cdh_elfcore::write_minicore(core.head(), &pages, &mut out)?;
    Ok(out)
}

fn seeds(place: &Path) -> Result<()> {
    fs::create_dir_all(place)?;
    for entry in fs::read_dir(corpus::fixtures().join(KEPT).join("products"))? {
        let entry = entry?;
        let read = |name: &str| fs::read(entry.path().join(name)).unwrap_or_default();
        let (core, program, split) = (read("core"), read("program"), read("bare.dwo"));
        if core.is_empty() {
            continue;
        }
        let name = entry.file_name();
        write_seed(&place.join(&name), [&core, &program, &split])?;
        if let Some(long) = with_long_info(&entry.path().join("program"))? {
            let name = format!("{}-long", name.display());
            write_seed(&place.join(name), [&core, &long, &split])?;
        }
    }
    Ok(())
}

fn write_seed(path: &Path, parts: [&[u8]; 3]) -> Result<()> {
    let [core, program, _] = parts;
    let mut seed = Vec::new();
    for size in [core.len(), program.len(), 0] {
        seed.extend_from_slice(&u32::try_from(size)?.to_le_bytes());
    }
    fs::write(path, [seed, parts.concat()].concat())?;
    Ok(())
}

/// The program with so much debug information, deflated, that only the beginning of it is inflated: a unit
/// that says nothing follows its own. `None` where it has none.
fn with_long_info(program: &Path) -> Result<Option<Vec<u8>>> {
    const LONG: u32 = 2 << 20;
    let directory = tempfile::tempdir()?;
    let place = |name: &str| directory.path().join(name).display().to_string();
    let (program, info) = (program.display().to_string(), place("info"));
    let (long, deflated) = (place("long"), place("deflated"));
    let section = format!(".debug_info={info}");
    let objcopy = |words: [&str; 4]| {
        let words = words.iter().filter(|word| !word.is_empty());
        let done = Command::new("objcopy").args(words).output();
        done.is_ok_and(|output| output.status.success())
    };
    if !objcopy(["--dump-section", &section, &program, &long]) || !Path::new(&info).exists() {
        return Ok(None);
    }
    let mut bytes = fs::read(&info)?;
    // DWARF 5, 7.5.1.1: length, version, unit type, address size, offset of the abbreviations.
    bytes.extend_from_slice(&LONG.to_le_bytes());
    bytes.extend_from_slice(&[5, 0, 1, 8, 0, 0, 0, 0]);
    bytes.resize(bytes.len() + LONG as usize - 8, 0);
    fs::write(&info, bytes)?;
    let made = objcopy(["--update-section", &section, &program, &long])
        && objcopy(["--compress-debug-sections=zlib", &long, &deflated, ""]);
    made.then(|| fs::read(deflated))
        .transpose()
        .map_err(Into::into)
}
