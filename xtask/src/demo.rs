//! The whole path, shown: real programs crash, their cores are captured, listed, explained, and gdb
//! is asked whether it agrees.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::guardian::{Guardian, read_settings};
use crate::{build, crash};

pub(crate) fn run() -> Result<()> {
    println!("building cdh and the static handler …");
    let demo = Demo {
        cdh: build::cdh()?,
        place: tempfile::tempdir()?,
    };
    let programs = crash::build_programs(demo.place.path())?;
    let before = read_settings()?;
    match Guardian::start(demo.place.path())? {
        Some(guardian) => {
            println!("\n== root: through the kernel's pipe and the handler");
            let outcome = demo.capture(&programs);
            drop(guardian);
            outcome?;
        }
        None => {
            println!("\n== not root: cores are imported instead of captured");
            demo.import(&programs)?;
        }
    }
    ensure!(
        read_settings()? == before,
        "the kernel's settings are not what they were: {before:?}"
    );
    println!(
        "kernel settings are what they were: core_pattern = {}",
        before[1]
    );
    demo.show()
}

struct Demo {
    cdh: PathBuf,
    place: tempfile::TempDir,
}

impl Demo {
    fn path(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    fn cdh(&self, words: &[&str]) -> Command {
        let mut command = Command::new(&self.cdh);
        command
            .env("CDH_STORE", self.path("store"))
            .env("XDG_CACHE_HOME", self.path("cache"));
        command
            .env("CDH_STATE", self.path("state"))
            .env("CDH_LIBEXEC", self.path("libexec"));
        command.args(words);
        command
    }

    /// Runs a command as a reader would see it.
    fn show_command(&self, words: &[&str]) -> Result<String> {
        println!("\n$ cdh {}", words.join(" "));
        let output = self.cdh(words).output()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        print!("{text}");
        if output.status.success() {
            return Ok(text);
        }
        bail!("it failed: {}", String::from_utf8_lossy(&output.stderr))
    }

    fn capture(&self, programs: &[PathBuf]) -> Result<()> {
        let handler = build::handler()?;
        let handler = handler
            .to_str()
            .context("the target directory's name is not UTF-8")?;
        self.show_command(&["agent", "install", "--handler", handler])?;
        for program in programs {
            println!("crashing {}", name_of(program));
            crash::crash(program)?;
        }
        let sealed = self.wait_until_sealed();
        let swept = sealed
            .and_then(|()| self.show_command(&["agent", "status"]))
            .and_then(|_| self.show_command(&["agent", "sweep"]));
        self.show_command(&["agent", "uninstall"])?;
        swept.map(|_| ())
    }

    /// The process is gone before its dump is on disk.
    fn wait_until_sealed(&self) -> Result<()> {
        for _ in 0..600 {
            let entries = std::fs::read_dir(self.path("state").join("spool"))?;
            let names = entries.flatten().map(|entry| entry.file_name());
            let unfinished =
                |name: &std::ffi::OsString| name.to_string_lossy().contains(".partial");
            if !names.into_iter().any(|name| unfinished(&name)) {
                return Ok(());
            }
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        bail!("the handlers have not finished within a minute")
    }

    fn import(&self, programs: &[PathBuf]) -> Result<()> {
        for program in programs {
            let (core, way) = crash::plain_core(program)?;
            println!("{}: {way}", name_of(program));
            let core = core
                .to_str()
                .context("the temporary directory's name is not UTF-8")?;
            self.show_command(&["import", core])?;
        }
        Ok(())
    }

    fn show(&self) -> Result<()> {
        self.show_command(&["ls"])?;
        let listing = self.cdh(&["ls", "-o", "json"]).output()?.stdout;
        let dumps: Vec<Value> = serde_json::from_slice(&listing)?;
        ensure!(
            dumps.len() >= 3,
            "the store holds {} dumps instead of 3",
            dumps.len()
        );
        self.show_command(&["info", "latest"])?;
        for dump in dumps.iter().rev() {
            let id = dump["id"].as_str().context("a dump without an id")?;
            let short = &id[..8];
            self.show_command(&["bt", short])?;
            self.compare_with_gdb(short)?;
        }
        println!(
            "\ndone: {} crashes captured, and gdb agrees on every stack",
            dumps.len()
        );
        Ok(())
    }

    fn compare_with_gdb(&self, id: &str) -> Result<()> {
        let gdb = self.show_command(&["debug", id, "--", "-batch", "-ex", "bt"])?;
        // gdb shows frame 0 by itself once before `bt` does.
        let lines: Vec<&str> = gdb.lines().collect();
        let start = lines
            .iter()
            .rposition(|line| line.starts_with("#0 "))
            .unwrap_or(0);
        let theirs: Vec<Shown> = lines
            .iter()
            .skip(start)
            .filter_map(|line| gdb_frame(line))
            .collect();
        let output = self.cdh(&["bt", id, "-o", "json"]).output()?.stdout;
        let document: Value = serde_json::from_slice(&output)?;
        let frames = document["backtrace"]["threads"][0]["frames"].as_array();
        let frames = frames.context("`cdh bt -o json` shows no frames")?;
        let ours: Vec<Shown> = frames.iter().map(our_frame).collect();
        ensure!(!theirs.is_empty(), "gdb shows no frames");
        // gdb may stop at main.
        for (number, theirs) in theirs.iter().enumerate() {
            let ours = ours.get(number);
            let same = ours.is_some_and(|ours| {
                // Some functions have two names, one in DWARF and one for the linker; the line decides.
                ours.name == theirs.name || (ours.place.is_some() && ours.place == theirs.place)
            });
            ensure!(
                same,
                "frame {number}: gdb says {theirs:?}, cdh says {ours:?}"
            );
        }
        println!("-- gdb agrees on all {} frames", theirs.len());
        Ok(())
    }
}

fn name_of(program: &Path) -> String {
    program
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

/// A frame as a debugger shows it, in a form that can be compared.
#[derive(Debug, PartialEq)]
struct Shown {
    /// Last part of the function's name.
    name: String,
    /// File name without directories, and line.
    place: Option<String>,
}

fn our_frame(frame: &Value) -> Shown {
    let place = frame["location"]["file"].as_str().map(|file| {
        let name = file.rsplit('/').next().unwrap_or(file);
        format!("{name}:{}", frame["location"]["line"])
    });
    Shown {
        name: last_part(frame["function"]["name"].as_str().unwrap_or("??")),
        place,
    }
}

/// `#1  0x… in checkout (orders=…) at shop.c:22` and `#0  total (…)`.
fn gdb_frame(line: &str) -> Option<Shown> {
    let rest = line
        .strip_prefix('#')?
        .trim_start_matches(|c: char| c.is_ascii_digit())
        .trim_start();
    let rest = match rest.split_once(" in ") {
        Some((address, rest)) if address.starts_with("0x") && !address.contains(' ') => rest,
        _ => rest,
    };
    let place = rest
        .rsplit_once(") at ")
        .map(|(_, place)| place.rsplit('/').next().unwrap_or(place).to_owned());
    Some(Shown {
        name: last_part(rest.split_once(" (")?.0),
        place,
    })
}

/// The last part of a qualified name, without generic arguments: compilers and demanglers spell the
/// rest differently.
fn last_part(name: &str) -> String {
    let mut depth = 0_usize;
    let mut flat = String::new();
    for c in name.chars() {
        match c {
            '<' => depth += 1,
            '>' => depth = depth.saturating_sub(1),
            c if depth == 0 => flat.push(c),
            _ => {}
        }
    }
    let flat = flat.split('(').next().unwrap_or_default();
    flat.split("::")
        .filter(|part| !part.is_empty())
        .last()
        .unwrap_or(flat)
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gdbs_frames_are_read() {
        let table = [
            ("#0  price_of (order=0x7ff) at a.c:10", "price_of"),
            (
                "#12 0x00007f in __libc_start_call_main (main=main@entry=0x5) at ../x.h:58",
                "__libc_start_call_main",
            ),
            (
                "#3  0x0000 in core::panicking::panic_fmt (fmt=...) at x.rs:1",
                "panic_fmt",
            ),
            (
                "#4  panicking::average::{closure#0} (index=1) at x.rs:5",
                "{closure#0}",
            ),
            (
                "#5  core::iter::adapters::map::{impl#2}::fold<u32> () at x.rs:5",
                "fold",
            ),
        ];
        for (line, name) in table {
            assert_eq!(
                gdb_frame(line).map(|frame| frame.name).as_deref(),
                Some(name),
                "{line}"
            );
        }
        assert_eq!(gdb_frame("Program terminated with signal SIGSEGV"), None);
    }
}
