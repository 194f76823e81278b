//! The whole path, shown: real programs crash, their cores are captured, listed, explained, and gdb
//! is asked whether it agrees.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::guardian::Guardian;
use crate::progress::{self, Steps};
use crate::{build, crash, tools};

pub(crate) fn run() -> Result<()> {
    let kept = build::target().join("demo");
    let is_first = !kept.join("cdh").is_file();
    announce(&kept, is_first);
    let mut steps = Steps::new(5);
    steps.begin(match is_first {
        true => "building cdh and its handler (about 3 minutes on 2 cores)",
        false => "building cdh and its handler (seconds, if nothing changed)",
    });
    // Of an earlier demo only programs that are built anew anyway are there.
    for old in ["store", "programs"] {
        let old = kept.join(old);
        if old.exists() {
            fs::remove_dir_all(&old).with_context(|| format!("cannot remove {}", old.display()))?;
        }
    }
    fs::create_dir_all(kept.join("programs"))?;
    build::demo(&kept)?;
    let demo = Demo {
        kept,
        node: tempfile::tempdir()?,
    };
    steps.begin("the first crash, and its backtrace");
    let guardian = progress::during(
        "waiting for another test or demo that uses the kernel's core settings",
        || Guardian::start(demo.node.path()),
    )?;
    let outcome = demo.crash_all(guardian.as_ref(), &mut steps);
    let restored = guardian.map(Guardian::restore);
    outcome?;
    if let Some(restored) = restored {
        println!(
            "the kernel's settings are restored: core_pattern = {}",
            restored?[1]
        );
    }
    steps.begin("listing and explaining");
    demo.show_command(&["ls"])?;
    demo.show_command(&["info", "latest"])?;
    steps.begin("comparing every backtrace with gdb's");
    tools::require(&["gdb"])?;
    let dumps = demo.dumps()?;
    for id in dumps.iter().rev() {
        demo.show_command(&["bt", id])?;
        demo.compare_with_gdb(id)?;
    }
    let count = dumps.len();
    println!("\ndone: {count} crashes captured, and gdb agrees on every stack");
    println!("\n{}", next_commands(&demo.kept)?);
    Ok(())
}

/// Shown where the first crash left nothing in the spool.
const HANDLER_NOT_STARTED: &str = "\
note: the kernel did not start the handler. In a container or a chroot, it looks for the handler in the root of the host.
      The demo goes on with cores that it imports. To see them captured, run it on the host or in a VM.";

/// What the demo will do and install.
fn announce(kept: &Path, is_first: bool) {
    eprintln!("The demo crashes three programs, captures their cores, and explains them.");
    eprintln!(
        "It writes to {}, and restores what it changes in the kernel.",
        kept.display()
    );
    if is_first {
        eprintln!("The first time it takes about 3 minutes on 2 cores, later about 10 seconds.");
    }
    let missing = tools::missing(&["gdb"]);
    if !missing.is_empty() {
        let (names, packages) = (missing.join(", "), tools::packages_of(&missing).join(" "));
        match tools::is_root() {
            true => eprintln!(
                "{names} is missing: `apt-get install {packages}` runs when it is needed."
            ),
            false => {
                eprintln!("{names} is missing and will be needed: `sudo apt install {packages}`.")
            }
        }
    }
}

/// Commands to go on with, as they can be pasted.
fn next_commands(kept: &Path) -> Result<String> {
    let kept = kept.canonicalize()?;
    let quoted = |path: &Path| -> Result<String> {
        let path = path
            .to_str()
            .context("the target directory's name is not UTF-8")?;
        Ok(format!("'{}'", path.replace('\'', r"'\''")))
    };
    let (store, directory) = (quoted(&kept.join("store"))?, quoted(&kept)?);
    Ok(format!(
        "The dumps are kept. Try next:\n\n\
         export CDH_STORE={store} PATH={directory}:$PATH\n\
         cdh groups\n\
         cdh bt latest --all-threads --source\n\
         cdh debug latest -- -batch -ex 'info threads'\n\n\
         `cdh` alone browses them on a terminal."
    ))
}

struct Demo {
    /// The programs and the store, which are kept.
    kept: PathBuf,
    /// State and handler of the node, which are not.
    node: tempfile::TempDir,
}

impl Demo {
    fn cdh(&self, words: &[&str]) -> Command {
        let (node, mut command) = (self.node.path(), Command::new(self.kept.join("cdh")));
        command
            .env("CDH_STORE", self.kept.join("store"))
            .env("XDG_CACHE_HOME", node.join("cache"))
            .env("CDH_STATE", node.join("state"))
            .env("CDH_LIBEXEC", node.join("libexec"));
        command.args(words);
        command
    }

    /// Runs a command as a reader would see it.
    fn show_command(&self, words: &[&str]) -> Result<String> {
        println!("\n$ cdh {}", words.join(" "));
        let what = format!("running cdh {}", words.first().unwrap_or(&""));
        let output = progress::during(&what, || self.cdh(words).output())?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        print!("{text}");
        if output.status.success() {
            return Ok(text);
        }
        bail!("it failed: {}", String::from_utf8_lossy(&output.stderr))
    }

    /// Crashes the programs: the first one up to its backtrace, then the others.
    fn crash_all(&self, guardian: Option<&Guardian>, steps: &mut Steps) -> Result<()> {
        let programs = self.kept.join("programs");
        let first = crash::build_first_program(&programs)?;
        let is_captured = guardian.is_some() && self.install_and_crash(&first)?;
        if !is_captured {
            self.import(&first)?;
        }
        self.show_command(&["bt", "latest"])?;
        steps.begin("two more crashes");
        for program in crash::build_other_programs(&programs)? {
            match is_captured {
                true => {
                    self.crash_and_wait(&program)?;
                }
                false => self.import(&program)?,
            }
        }
        if is_captured {
            self.show_command(&["agent", "status"])?;
            self.show_command(&["agent", "sweep"])?;
            self.show_command(&["agent", "uninstall"])?;
        }
        let count = self.dumps()?.len();
        ensure!(count == 3, "the store holds {count} dumps instead of 3");
        Ok(())
    }

    /// Makes the kernel send cores to the handler, and crashes a program. `false` where the handler was not
    /// started: then the node is as it was before.
    fn install_and_crash(&self, program: &Path) -> Result<bool> {
        println!("root: through the kernel's pipe and the handler");
        let handler = self.kept.join("cdh-handler");
        let handler = handler
            .to_str()
            .context("the target directory's name is not UTF-8")?;
        self.show_command(&["agent", "install", "--handler", handler])?;
        if self.crash_and_wait(program)? == 0 {
            self.show_command(&["agent", "uninstall"])?;
            println!("{HANDLER_NOT_STARTED}");
            return Ok(false);
        }
        self.show_command(&["agent", "sweep"])?;
        Ok(true)
    }

    /// Crashes a program and waits until its dump is complete; how many there are in the spool then. The
    /// process is gone before that.
    fn crash_and_wait(&self, program: &Path) -> Result<usize> {
        println!("\ncrashing {}", name_of(program));
        crash::crash(program)?;
        progress::during("waiting for the handler", || {
            for _ in 0..600 {
                let entries = fs::read_dir(self.node.path().join("state/spool"))?;
                let names = entries.flatten().map(|entry| entry.file_name());
                let names: Vec<_> = names
                    .map(|name| name.to_string_lossy().into_owned())
                    .collect();
                if !names.iter().any(|name| name.contains(".partial")) {
                    let sealed = names.iter().filter(|name| name.len() == 36);
                    return Ok(sealed.count());
                }
                std::thread::sleep(Duration::from_millis(100));
            }
            bail!("the handler has not finished within a minute")
        })
    }

    fn import(&self, program: &Path) -> Result<()> {
        let (core, way) = crash::plain_core(program)?;
        println!("{}: {way}", name_of(program));
        let core = core
            .to_str()
            .context("the target directory's name is not UTF-8")?;
        self.show_command(&["import", core])?;
        Ok(())
    }

    /// Ids of the dumps in the store, newest first.
    fn dumps(&self) -> Result<Vec<String>> {
        let listing = self.cdh(&["ls", "-o", "json"]).output()?.stdout;
        let dumps: Vec<Value> = serde_json::from_slice(&listing)?;
        let id = |dump: &Value| {
            let id = dump["id"].as_str().and_then(|id| id.get(..8));
            id.map(str::to_owned).context("a dump without an id")
        };
        dumps.iter().map(id).collect()
    }

    fn compare_with_gdb(&self, id: &str) -> Result<()> {
        let gdb = self.show_command(&["debug", id, "--", "-batch", "-ex", "bt"])?;
        let output = self.cdh(&["bt", id, "-o", "json"]).output()?.stdout;
        let frames = compare_frames(&gdb, &serde_json::from_slice(&output)?)?;
        println!("-- gdb agrees on all {frames} frames");
        Ok(())
    }
}

/// Compares what gdb's `bt` printed with the document of `cdh bt -o json`; returns the number of gdb's frames.
pub(crate) fn compare_frames(gdb: &str, document: &Value) -> Result<usize> {
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
    Ok(theirs.len())
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
