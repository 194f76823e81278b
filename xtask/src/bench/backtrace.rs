//! `cargo xtask bench backtrace`: the whole process, from its start to the printed backtrace of all threads,
//! against gdb, lldb and elfutils, in one run, in turns.
//!
//! Wall time by the clock around the process, peak memory by `time`. Cold runs drop the page cache first,
//! which only root can; `cdh` has an empty cache of its own there and in `cdh --no-cache`. Who prints no
//! backtrace has no time either: a refused option is quick.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use cdh_testkit::corpus;

use super::big_program;
use crate::options::{self, is_wanted};
use crate::{build, tools};

/// Allocates and touches so many MiB, and crashes.
const HEAP: &str = r"
#include <stdlib.h>
#include <string.h>
__attribute__((noinline)) static void crash(char *heap) { *(volatile char *)8 = heap[0]; }
int main(int c, char **v) {
    size_t size = (size_t)atoi(v[1]) << 20;
    char *heap = malloc(size);
    for (size_t at = 0; at < size; at += 8) { *(size_t *)(heap + at) = at * 0x9e3779b97f4a7c15; }
    crash(heap);
    return c;
}";

struct Options {
    runs: usize,
    cdh: PathBuf,
    keep: Option<PathBuf>,
    /// Size of the large program; without it there is no such row.
    big_mib: Option<usize>,
    only: Vec<String>,
    cold: bool,
}

/// A row of the table.
struct Row {
    name: String,
    directory: PathBuf,
    /// A root directory in which the modules are, instead of the machine's own.
    root: Option<PathBuf>,
}

struct Contender {
    name: &'static str,
    command: fn(&Options, &Row) -> Command,
    needs: &'static str,
}

pub(super) fn run(words: &[String]) -> Result<()> {
    let options = options(words)?;
    tools::require(&["cc", "gdb", "time"])?;
    let scratch = tempfile::tempdir()?;
    let place = options
        .keep
        .clone()
        .unwrap_or_else(|| scratch.path().to_owned());
    let rows = rows(&options, &place)?;
    let contenders = contenders();
    println!("median of {} runs: ms (peak RSS in MiB)", options.runs);
    for row in &rows {
        println!("\n{}", row.name);
        let there: Vec<&Contender> = contenders
            .iter()
            .filter(|contender| contender.needs.is_empty() || tools::is_there(contender.needs))
            .collect();
        let kinds: &[bool] = if options.cold {
            &[false, true]
        } else {
            &[false]
        };
        for &cold in kinds {
            measure_row(&options, row, &there, cold)?;
        }
    }
    Ok(())
}

fn options(words: &[String]) -> Result<Options> {
    const USAGE: &str = "usage: cargo xtask bench backtrace [--runs N] [--cdh PROGRAM] [--keep DIR] [--big-mib N] [--only ROW]… [--warm]";
    let named = ["--runs", "--cdh", "--keep", "--big-mib", "--only"];
    let given = options::Options::parse(words, &named, &["--warm"], USAGE)?;
    Ok(Options {
        runs: given.or("--runs", 7)?,
        cdh: match given.text("--cdh") {
            Some(program) => program.into(),
            None => build::cdh_release()?,
        },
        keep: given.text("--keep").map(PathBuf::from),
        big_mib: given.text("--big-mib").map(str::parse).transpose()?,
        only: given.all("--only"),
        cold: !given.has("--warm"),
    })
}

fn rows(options: &Options, place: &Path) -> Result<Vec<Row>> {
    let wanted = |name: &str| is_wanted(name, &options.only);
    let mut rows = Vec::new();
    let mut row = |name: &str, directory: PathBuf, root: Option<PathBuf>| {
        let name = name.to_owned();
        rows.push(Row {
            name,
            directory,
            root,
        });
    };
    if wanted("small") {
        build_once(place, "libc")?;
        row(
            "small, debug file of libc as installed",
            place.join("libc/0-double-free"),
            None,
        );
    }
    for count in ["64", "1000"] {
        let name = format!("{count} threads");
        if wanted(&name) {
            let directory = place.join("threads").join(count);
            if !directory.join("core").is_file() {
                threads(place, count)?;
            }
            row(&name, directory, None);
        }
    }
    if wanted("heap") {
        let directory = place.join("heap");
        if !directory.join("core").is_file() {
            fs::create_dir_all(&directory)?;
            fs::write(directory.join("heap.c"), HEAP)?;
            build::succeed(
                Command::new("cc")
                    .current_dir(&directory)
                    .args(["-O1", "-g", "-o", "program", "heap.c"]),
            )?;
            take_core(&directory, &[], &["3072"])?;
        }
        row("3 GiB heap", directory, None);
    }
    if wanted("root") {
        let directory = place.join("root");
        if !directory.join("core").is_file() {
            strange_root(&directory)?;
        }
        place_for_eu_stack(&directory)?;
        row(
            "root of a container, no debug files",
            directory.clone(),
            Some(directory.join("root")),
        );
    }
    if wanted("big")
        && let Some(mib) = options.big_mib
    {
        let directory = place.join("big");
        if !directory.join("core").is_file() {
            fs::create_dir_all(&directory)?;
            big_program::build(&directory, mib)?;
            take_core(&directory, &[], &[])?;
        }
        let size = fs::metadata(directory.join("program"))?.len() >> 20;
        row(&format!("big Rust program, {size} MiB"), directory, None);
    }
    Ok(rows)
}

fn build_once(place: &Path, name: &str) -> Result<()> {
    if !place.join(name).is_dir() {
        corpus::build(name, place)?;
    }
    Ok(())
}

fn threads(place: &Path, count: &str) -> Result<()> {
    let directory = place.join("threads").join(count);
    fs::create_dir_all(&directory)?;
    let source = corpus::fixtures().join("threads/threads.c");
    let mut cc = Command::new("cc");
    cc.current_dir(&directory)
        .args(["-O1", "-g", "-pthread", "-Wl,--build-id", "-o", "program"]);
    build::succeed(cc.arg(source.canonicalize()?))?;
    take_core(&directory, &[], &[count])
}

/// Runs `program` in gdb until it stops and writes its core.
fn take_core(directory: &Path, before: &[&str], arguments: &[&str]) -> Result<()> {
    let mut gdb = Command::new("gdb");
    gdb.current_dir(directory)
        .args(["-q", "-nx", "-batch", "-iex", "set debuginfod enabled off"]);
    gdb.args(before).args([
        "-ex",
        "run",
        "-ex",
        "generate-core-file core",
        "--args",
        "./program",
    ]);
    gdb.args(arguments)
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    gdb.status()?;
    ensure!(
        directory.join("core").is_file(),
        "gdb made no core in {}",
        directory.display()
    );
    Ok(())
}

/// A root with a program and a libc without debug files anywhere: its build-id is changed.
fn strange_root(directory: &Path) -> Result<()> {
    let source = corpus::fixtures().join("libc/libc.c").canonicalize()?;
    fs::create_dir_all(directory)?;
    build::succeed(
        Command::new("cc")
            .current_dir(directory)
            .args(["-O1", "-w", "-o", "program"])
            .arg(source),
    )?;
    let ldd = Command::new("ldd")
        .current_dir(directory)
        .arg("program")
        .output()?;
    let text = String::from_utf8(ldd.stdout)?;
    let libraries: Vec<&str> = text
        .split_whitespace()
        .filter(|word| word.starts_with('/'))
        .collect();
    let lib = directory.join("lib");
    fs::create_dir_all(&lib)?;
    for library in &libraries {
        let mut bytes = fs::read(library)?;
        let note = b"\x04\0\0\0\x14\0\0\0\x03\0\0\0GNU\0";
        let at = bytes
            .windows(note.len())
            .position(|part| part == note)
            .context("no build-id")?;
        for byte in bytes.iter_mut().skip(at + note.len()).take(20) {
            *byte ^= 0x5a;
        }
        let name = Path::new(library)
            .file_name()
            .context("a library has a name")?;
        fs::write(lib.join(name), bytes)?;
    }
    let loader = libraries
        .iter()
        .find(|path| path.contains("/ld-"))
        .context("no loader")?;
    let loader = lib.join(
        Path::new(loader)
            .file_name()
            .context("a loader has a name")?,
    );
    let mut cc = Command::new("cc");
    cc.current_dir(directory)
        .args(["-O1", "-w", "-o", "program"]);
    cc.arg(format!(
        "-Wl,--dynamic-linker={},-rpath={}",
        loader.display(),
        lib.display()
    ));
    build::succeed(cc.arg(corpus::fixtures().join("libc/libc.c").canonicalize()?))?;
    fs::set_permissions(&loader, fs::Permissions::from_mode(0o755))?;
    take_core(directory, &[], &["0"])?;
    // The same paths below a root of their own.
    let root = directory.join("root");
    let inside = root.join(directory.strip_prefix("/")?);
    fs::create_dir_all(&inside)?;
    fs::rename(&lib, inside.join("lib"))?;
    fs::copy(directory.join("program"), inside.join("program"))?;
    Ok(())
}

/// Whether this elfutils looks for modules below a root; older ones do not.
fn eu_stack_takes_a_root() -> bool {
    let help = Command::new("eu-stack").arg("--help").output();
    help.is_ok_and(|help| String::from_utf8_lossy(&help.stdout).contains("--sysroot"))
}

/// An `eu-stack` that takes no root finds the libraries where the core says that they were.
fn place_for_eu_stack(directory: &Path) -> Result<()> {
    let lib = directory.join("lib");
    let _ = fs::remove_file(&lib);
    if !eu_stack_takes_a_root() {
        let inside = directory.join("root").join(lib.strip_prefix("/")?);
        std::os::unix::fs::symlink(inside, &lib)?;
    }
    Ok(())
}

fn cdh(options: &Options, row: &Row, words: &[&str]) -> Command {
    let mut command = Command::new(&options.cdh);
    command.args(["bt", "./core", "-a"]).args(words);
    if let Some(root) = &row.root {
        command.arg("--sysroot").arg(root);
    }
    command.env("XDG_CACHE_HOME", row.directory.join("cache"));
    command
}

fn contenders() -> Vec<Contender> {
    vec![
        Contender {
            name: "cdh, second time",
            command: |options, row| cdh(options, row, &[]),
            needs: "",
        },
        Contender {
            name: "cdh, first time",
            command: |options, row| cdh(options, row, &["--no-cache"]),
            needs: "",
        },
        Contender {
            name: "gdb",
            command: |_, row| {
                let mut command = Command::new("gdb");
                command.args(["-batch", "-nx", "-iex", "set debuginfod enabled off"]);
                if let Some(root) = &row.root {
                    command
                        .arg("-iex")
                        .arg(format!("set sysroot {}", root.display()));
                }
                command.args(["-ex", "thread apply all bt", "program", "core"]);
                command
            },
            needs: "gdb",
        },
        Contender {
            name: "eu-stack -i -s -m",
            command: |_, row| {
                let mut command = Command::new("eu-stack");
                command.args(["-i", "-s", "-m", "--core=core", "--executable=program"]);
                if let Some(root) = row.root.as_ref().filter(|_| eu_stack_takes_a_root()) {
                    command.arg(format!("--sysroot={}", root.display()));
                }
                command
            },
            needs: "eu-stack",
        },
        Contender {
            name: "lldb",
            command: |_, row| {
                let mut command = Command::new("lldb");
                command.arg("-b");
                if let Some(root) = &row.root {
                    command.arg("-O").arg(format!(
                        "platform select --sysroot {} remote-linux",
                        root.display()
                    ));
                }
                command.args(["-o", "bt all", "-c", "core", "program"]);
                command
            },
            needs: "lldb",
        },
    ]
}

fn measure_row(options: &Options, row: &Row, contenders: &[&Contender], cold: bool) -> Result<()> {
    if cold && fs::write("/proc/sys/vm/drop_caches", "1").is_err() {
        println!("  cold: only root can drop the page cache");
        return Ok(());
    }
    let runs = if cold {
        options.runs.min(3)
    } else {
        options.runs
    };
    let mut able = Vec::new();
    for &contender in contenders {
        match said_instead((contender.command)(options, row), row)? {
            None => able.push(contender),
            Some(said) => println!("  {:<20} prints no backtrace: {said}", contender.name),
        }
    }
    let contenders = able;
    let mut times: Vec<Vec<Duration>> = vec![Vec::new(); contenders.len()];
    // One run ahead fills the page cache, and the cache of `cdh`.
    for round in 0..=runs {
        for (contender, times) in contenders.iter().zip(&mut times) {
            let mut command = (contender.command)(options, row);
            if cold {
                fs::write("/proc/sys/vm/drop_caches", "1")?;
            }
            let start = Instant::now();
            quiet(&mut command, row).status()?;
            if round > 0 {
                times.push(start.elapsed());
            }
        }
    }
    let mut base = None;
    for (contender, times) in contenders.iter().zip(&mut times) {
        times.sort_unstable();
        let median = times.get(times.len() / 2).copied().unwrap_or_default();
        if contender.name == "gdb" {
            base = Some(median);
        }
    }
    for (contender, times) in contenders.iter().zip(&times) {
        let median = times.get(times.len() / 2).copied().unwrap_or_default();
        let peak = peak(&(contender.command)(options, row), row)?;
        let faster = base.map(|base| {
            format!(
                "{:6.1}x gdb",
                base.as_secs_f64() / median.as_secs_f64().max(1e-9)
            )
        });
        println!(
            "  {:<5}{:<20}{:>9.1} ({peak:>6.1})  {}",
            if cold { "cold" } else { "warm" },
            contender.name,
            median.as_secs_f64() * 1e3,
            faster.unwrap_or_default()
        );
    }
    Ok(())
}

/// What is said by one who does not name the frame of `main`, which every stack here has.
fn said_instead(mut command: Command, row: &Row) -> Result<Option<String>> {
    let output = quiet(&mut command, row)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    if text
        .lines()
        .any(|line| line.contains('#') && line.contains("main"))
    {
        return Ok(None);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said = said.lines().next().unwrap_or("nothing");
    Ok(Some(format!("{said} ({})", output.status)))
}

fn quiet<'c>(command: &'c mut Command, row: &Row) -> &'c mut Command {
    command
        .current_dir(&row.directory)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
}

/// Peak memory in MiB.
fn peak(command: &Command, row: &Row) -> Result<f64> {
    let mut timed = Command::new("time");
    timed
        .args(["-q", "-o", "peak", "-f", "%M"])
        .arg(command.get_program())
        .args(command.get_args());
    for (name, value) in command.get_envs() {
        if let Some(value) = value {
            timed.env(name, value);
        }
    }
    quiet(&mut timed, row).status()?;
    let text = fs::read_to_string(row.directory.join("peak"))?;
    Ok(text.trim().parse::<f64>().unwrap_or(0.0) / 1024.0)
}
