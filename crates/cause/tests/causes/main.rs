//! Programs that fail in every way, each with its cause beside it, in several builds: what `explain` says.
//!
//! A program of `tests/programs` begins with comments:
//!
//! ```text
//! // expect: CLASS[|CLASS]; TEXT OF THE SENTENCE; …
//! // flags: of the compiler
//! // env: of the program
//! // builds: O0 O2 Os static (default: all)
//! // machine: x86_64
//! ```
//!
//! `CDH_CAUSES=NAME` runs the programs whose name contains it, `CDH_CAUSES_KEEP=DIR` keeps the cores.

// A failed test may panic; nothing of this ships.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used
)]

#[path = "core.rs"]
mod cores;

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use cdh_cause::{Cause, Class};
use cdh_testkit::{KernelSettingsLock, skip};

/// Builds of C and C++, and those of Rust.
const BUILDS: [(&str, &[&str], &[&str]); 4] = [
    ("O0", &["-O0", "-g"], &["-g", "-Copt-level=0"]),
    ("O2", &["-O2", "-g"], &["-g", "-Copt-level=3"]),
    ("Os", &["-Os"], &["-Copt-level=s"]),
    ("static", &["-O2", "-g", "-static"], &[]),
];

/// A program of the corpus.
struct Program {
    name: String,
    path: PathBuf,
    classes: Vec<String>,
    texts: Vec<String>,
    flags: Vec<String>,
    env: Vec<(String, String)>,
    builds: Vec<String>,
}

impl Program {
    fn read(path: PathBuf) -> Option<Self> {
        let source = std::fs::read_to_string(&path).unwrap();
        let field = |name: &str| {
            let start = format!("// {name}: ");
            source.lines().find_map(|line| line.strip_prefix(&start))
        };
        let words = |name: &str| -> Vec<String> {
            let words = field(name).unwrap_or_default().split_whitespace();
            words.map(str::to_owned).collect()
        };
        let mut expected = field("expect").expect("`// expect:`").split("; ");
        let classes = expected.next().unwrap().split('|').map(str::to_owned);
        let pair = |word: String| {
            let (name, value) = word.split_once('=').unwrap();
            (name.to_owned(), value.to_owned())
        };
        if field("machine").is_some_and(|machine| machine != std::env::consts::ARCH) {
            return None;
        }
        Some(Self {
            name: path.file_name().unwrap().to_string_lossy().into_owned(),
            classes: classes.collect(),
            texts: expected.map(str::to_owned).collect(),
            flags: words("flags"),
            env: words("env").into_iter().map(pair).collect(),
            builds: words("builds"),
            path,
        })
    }

    /// Compiles it; `None` if this machine lacks the compiler or a library.
    fn build(&self, build: &(&str, &[&str], &[&str]), directory: &Path) -> Option<()> {
        if !self.builds.is_empty() && !self.builds.iter().any(|wanted| wanted == build.0) {
            return None;
        }
        let file = directory.join(&self.name);
        let is_kept =
            std::fs::read(&file).is_ok_and(|kept| kept == std::fs::read(&self.path).unwrap());
        if is_kept && cores::in_directory(directory).is_some() {
            return Some(());
        }
        let _ = std::fs::remove_dir_all(directory);
        std::fs::create_dir_all(directory).unwrap();
        std::fs::copy(&self.path, &file).unwrap();
        let extension = self.path.extension().unwrap().to_str().unwrap();
        let (compiler, flags) = match extension {
            "c" => ("gcc", build.1),
            "cc" => ("g++", build.1),
            _ if build.2.is_empty() => return None,
            _ => ("rustc", build.2),
        };
        let mut command = Command::new(compiler);
        command.current_dir(directory).args(flags);
        if extension == "rs" {
            command.args(["-Cpanic=abort", "--edition=2021"]);
        } else {
            command.args(["-w", "-Wl,--build-id"]);
        }
        let built = command
            .args(["-o", "program", &self.name])
            .args(&self.flags)
            .output();
        match built {
            Ok(output) if output.status.success() => Some(()),
            Ok(output) => {
                let text = String::from_utf8_lossy(&output.stderr);
                left_out(format!("{} {}: {text}", self.name, build.0));
                None
            }
            Err(_) => {
                left_out(format!("{} needs {compiler}", self.name));
                None
            }
        }
    }

    fn run(&self, directory: &Path) {
        if cores::in_directory(directory).is_some() {
            return;
        }
        // Memory is laid out at random: a wild pointer may point to something.
        for _ in 0..20 {
            let mut command = Command::new("sh");
            command.current_dir(directory);
            command.args([
                "-c",
                "ulimit -c unlimited; exec env --default-signal ./program >out.log 2>&1",
            ]);
            // A static program reads cargo's value at its start, which changes the order of its heap.
            command.env_remove("LD_LIBRARY_PATH");
            command.envs(self.env.clone());
            let status = command.status().unwrap();
            match status.code() {
                // The machine has what the program is to lack.
                Some(77) => return left_out(&self.name),
                _ if status.success() => {}
                _ => return,
            }
        }
        panic!("{} ended normally", self.name);
    }

    /// What is wrong with the answer.
    fn problem(&self, cause: &Cause) -> Option<String> {
        let class = format!("{:?}", cause.class);
        let wanted = self.classes.iter().any(|wanted| snake(&class) == *wanted);
        let missing = self
            .texts
            .iter()
            .find(|text| !cause.sentence.contains(*text));
        match (wanted, missing) {
            (false, _) => Some(format!(
                "class {} instead of {:?}",
                snake(&class),
                self.classes
            )),
            (true, Some(text)) => Some(format!("`{text}` is missing")),
            (true, None) if cause.facts.is_empty() || cause.facts.len() > 5 => {
                Some(format!("{} facts", cause.facts.len()))
            }
            (true, None) => None,
        }
    }
}

/// Names a core that this machine cannot make; the others are explained all the same.
fn left_out(why: impl std::fmt::Display) {
    eprintln!("left out: {why}");
}

fn snake(name: &str) -> String {
    let mut out = String::new();
    for letter in name.chars() {
        if letter.is_uppercase() && !out.is_empty() {
            out.push('_');
        }
        out.extend(letter.to_lowercase());
    }
    out
}

fn programs() -> Vec<Program> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/programs");
    let wanted = std::env::var("CDH_CAUSES").unwrap_or_default();
    let mut paths: Vec<PathBuf> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.to_string_lossy().contains(&wanted))
        .collect();
    paths.sort();
    paths.into_iter().filter_map(Program::read).collect()
}

#[test]
fn causes_of_the_corpus_are_named_and_none_is_wrong() {
    let scratch = tempfile::tempdir().unwrap();
    let kept = std::env::var_os("CDH_CAUSES_KEEP").map(PathBuf::from);
    let place = kept.as_deref().unwrap_or(scratch.path());
    let programs = programs();
    let mut jobs: Vec<(usize, usize)> = Vec::new();
    for program in 0..programs.len() {
        jobs.extend((0..BUILDS.len()).map(|build| (program, build)));
    }
    let directory = |&(program, build): &(usize, usize)| {
        place.join(format!("{}-{}", programs[program].name, BUILDS[build].0))
    };
    let open = Mutex::new(jobs.iter());
    let built = Mutex::new(Vec::new());
    let work = || {
        while let Some(job) = { open.lock().unwrap().next() } {
            if programs[job.0]
                .build(&BUILDS[job.1], &directory(job))
                .is_some()
            {
                built.lock().unwrap().push(*job);
            }
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(work);
        scope.spawn(work);
    });
    let mut built = built.into_inner().unwrap();
    built.sort_unstable();
    if built.is_empty() {
        return skip("no program of the corpus can be compiled here");
    }
    // Cores are written where the process runs, whatever other tests set.
    let lock = KernelSettingsLock::acquire().unwrap();
    if lock.is_some() {
        std::fs::write("/proc/sys/kernel/core_pattern", "core").unwrap();
    }
    for job in &built {
        programs[job.0].run(&directory(job));
    }
    drop(lock);
    let (mut named, mut unnamed, mut wrong) = (0, 0, 0);
    let mut report = String::new();
    for job in &built {
        let program = &programs[job.0];
        let case = format!("{} {}", program.name, BUILDS[job.1].0);
        let Some(core) = cores::in_directory(&directory(job)) else {
            left_out(format!("{case}: the kernel wrote no core"));
            continue;
        };
        let cause = cores::explain(&core);
        match program.problem(&cause) {
            None => named += 1,
            Some(_) if cause.class == Class::Unknown => {
                unnamed += 1;
                writeln!(report, "unnamed {case}: {}", cause.sentence).unwrap();
            }
            Some(problem) => {
                wrong += 1;
                writeln!(report, "wrong {case}: {problem}: {}", cause.sentence).unwrap();
            }
        }
        println!("{case}: {}", cause.sentence);
        for fact in &cause.facts {
            println!("    {}", fact.text);
        }
    }
    println!(
        "{} programs, {} cores: {named} named, {unnamed} unnamed, {wrong} wrong",
        programs.len(),
        built.len()
    );
    print!("{report}");
    assert_eq!(wrong, 0, "{report}");
    assert!(unnamed * 10 <= named, "{report}");
}
