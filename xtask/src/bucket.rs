//! A store as a team has one: hundreds of real crashes of twelve services in five namespaces, over three
//! weeks, with a history that is planted (see `history`).
//!
//! As root the kernel writes the cores, one for each crash; else gdb makes one for each program, which is
//! then imported several times. Namespaces, pods, labels, images and times are made up, and given to
//! `cdh import`; some cores are cut, as they are where disks are full.

mod history;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::guardian::Guardian;
use crate::options::Options;
use crate::{build, crash};
use history::{Cut, PlannedCrash, SERVICES};

const USAGE: &str = "usage: cargo xtask bucket DIR [COUNT] [--cdh PROGRAM] [--flat]";

/// Makes the store: `cargo xtask bucket DIR [COUNT]`.
pub(crate) fn run(words: &[String]) -> Result<()> {
    let is_option = |word: &&String| word.starts_with("--");
    let positional = words.iter().take_while(|word| !is_option(word)).count();
    let (positional, rest) = words.split_at(positional);
    let options = Options::parse(rest, &["--cdh"], &["--flat"], USAGE)?;
    let directory = positional.first().context(USAGE)?;
    let count = positional.get(1).map_or(Ok(330), |word| word.parse())?;
    let cdh = match options.text("--cdh") {
        Some(built) => PathBuf::from(built),
        None => build::cdh()?,
    };
    let place = tempfile::tempdir()?;
    let kept = PathBuf::from(format!("{directory}-services"));
    let plan = match options.has("--flat") {
        true => history::flat(count),
        false => history::planted(count),
    };
    let programs = build_services(place.path(), &kept, &plan)?;
    let of_crash: Vec<&Path> = plan
        .iter()
        .map(|crash| programs[&crash.program()].as_path())
        .collect();
    let cores = take_cores(place.path(), &of_crash)?;
    for (number, (crash, core)) in plan.iter().zip(cores).enumerate() {
        cut(&core, crash.cut)?;
        let mut import = Command::new(&cdh);
        import.args(["--store", directory, "import"]);
        import.args(["--time", &format!("{}s", crash.age)]);
        import.args(crash.import_options()).arg(&core);
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
fn build_services(
    place: &Path,
    kept: &Path,
    plan: &[PlannedCrash],
) -> Result<BTreeMap<String, PathBuf>> {
    fs::create_dir_all(kept)?;
    let kept = fs::canonicalize(kept)?;
    let source = kept.join("service.c");
    fs::copy(build::root().join("xtask/programs/service.c"), &source)?;
    let mut programs = BTreeMap::new();
    for crash in plan {
        let name = crash.program();
        if programs.contains_key(&name) {
            continue;
        }
        let service = SERVICES[crash.service].name;
        let directory = kept.join(&name);
        fs::create_dir_all(&directory)?;
        let program = directory.join(service);
        if service == "panicking" {
            let panicking = crash::build_programs(place)?
                .into_iter()
                .find(|program| program.ends_with("panicking"))
                .context("the demo has no panicking program")?;
            fs::copy(panicking, &program)?;
        } else {
            let mut cc = Command::new("cc");
            cc.args(["-O1", "-g", "-pthread", "-fstack-protector-all"]);
            cc.args(["-Wl,--build-id", "-D_GNU_SOURCE", "-w"]);
            cc.arg(format!("-DRELEASE=\"{name}\""));
            cc.args(crash.is_new_bug.then_some("-DCOUPON"));
            build::succeed(cc.arg("-o").arg(&program).arg(&source))?;
        }
        programs.insert(name, program);
    }
    Ok(programs)
}

/// A core for each crash.
fn take_cores(place: &Path, programs: &[&Path]) -> Result<Vec<PathBuf>> {
    let cores = place.join("cores");
    fs::create_dir(&cores)?;
    let Some(guardian) = Guardian::start(place)? else {
        println!("not root: gdb makes one core for each program");
        let mut made: BTreeMap<&Path, PathBuf> = BTreeMap::new();
        let mut copies = Vec::new();
        for (number, program) in programs.iter().enumerate() {
            if !made.contains_key(program) {
                made.insert(program, crash::plain_core(program)?.0);
            }
            let copy = cores.join(number.to_string());
            fs::copy(&made[program], &copy)?;
            copies.push(copy);
        }
        return Ok(copies);
    };
    fs::write(
        "/proc/sys/kernel/core_pattern",
        format!("{}/new\n", cores.display()),
    )?;
    let mut taken = Vec::new();
    for (number, program) in programs.iter().enumerate() {
        crash::crash(program)?;
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

fn cut(core: &Path, cut: Cut) -> Result<()> {
    let file = File::options().write(true).open(core)?;
    let size = file.metadata()?.len();
    if let Cut::Memory { percent } = cut {
        file.set_len(size * percent / 100)?;
    }
    Ok(())
}
