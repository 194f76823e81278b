//! Fingerprints of a labelled set of crashes: which rule groups them best, and whether a fingerprint depends
//! on where it is computed.
//!
//! Fifty bugs in C, C++, Rust and Go; each is built four or five ways (optimisation, changed source, musl, stripped)
//! and reached from `main` and from a thread. gdb writes the cores, so that no setting of the kernel is
//! changed. Two crashes are alike if they are the same bug: all pairs of crashes of one language are counted.
//! Precision is the share of pairs with equal fingerprints that are the same bug. Recall is the share of pairs of
//! one bug that have equal fingerprints. A crash without a fingerprint is equal to none.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use cdh_elfcore::{CoreFile, MappedFile};
use cdh_symbolize::{
    BacktraceOptions, Fingerprint, LoadedModule, OriginalSignal, SectionArena, Unwinder,
};

/// Frames that variants of the rule may look at.
const FRAMES: usize = Unwinder::CRASHING_FRAMES;
/// Depths that are compared.
const DEPTHS: [usize; 4] = [1, 2, 3, 6];
/// Which variant of a function glibc chooses on this CPU.
const TUNABLES: [&str; 3] = [
    "",
    "glibc.cpu.hwcaps=-AVX512F,-AVX512VL",
    "glibc.cpu.hwcaps=-AVX512F,-AVX512VL,-AVX2,-AVX2_Usable,-ERMS",
];

/// A way to build one program.
struct Build {
    language: &'static str,
    name: &'static str,
    words: &'static [&'static str],
}

/// How many bugs the program of a language has.
const BUGS: [(&str, usize); 4] = [("c", 18), ("c++", 12), ("rust", 10), ("go", 10)];

const BUILDS: [Build; 17] = [
    build("c", "O0", &["gcc", "-O0", "-g", "-pthread"]),
    build("c", "O2, changed", &["gcc", "-O2", "-DV2", "-pthread"]),
    build("c", "Os", &["gcc", "-Os", "-g", "-pthread"]),
    build("c", "musl static", &["musl-gcc", "-O2", "-static"]),
    build("c", "musl, changed", &["musl-gcc", "-O1", "-DV2"]),
    build("c++", "O0", &["g++", "-O0", "-g", "-pthread"]),
    build("c++", "O2, changed", &["g++", "-O2", "-DV2", "-pthread"]),
    build("c++", "O3", &["g++", "-O3", "-g", "-pthread"]),
    build("c++", "O1 static", &["g++", "-O1", "-static", "-pthread"]),
    build("rust", "debug", &["rustc", "-Cpanic=abort", "-g"]),
    build(
        "rust",
        "O2, changed",
        &["rustc", "-Cpanic=abort", "-O", "--cfg=v2"],
    ),
    build(
        "rust",
        "O3, one unit",
        &[
            "rustc",
            "-Cpanic=abort",
            "-Copt-level=3",
            "-Ccodegen-units=1",
        ],
    ),
    build("rust", "Os", &["rustc", "-Cpanic=abort", "-Copt-level=s"]),
    build("go", "default", &["go", "build"]),
    build("go", "changed", &["go", "build", "-v2"]),
    build("go", "no inlining", &["go", "build", "-gcflags=-N -l"]),
    build("go", "stripped", &["go", "build", "-ldflags=-s -w"]),
];

const fn build(
    language: &'static str,
    name: &'static str,
    words: &'static [&'static str],
) -> Build {
    Build {
        language,
        name,
        words,
    }
}

/// One crash of the set, with what each rule makes of it.
struct Crash {
    bug: String,
    language: &'static str,
    rules: BTreeMap<String, Option<String>>,
}

/// Builds and crashes all programs, and prints a table. `cdh` is another version to compare with.
pub(super) fn run(cdh: Option<&str>, only: &[String]) -> Result<()> {
    let scratch = tempfile::tempdir()?;
    let mut crashes = Vec::new();
    let mut differing = Vec::new();
    for build in &BUILDS {
        if !only.is_empty() && !only.iter().any(|name| name == build.language) {
            continue;
        }
        let program = compile(build, scratch.path())?;
        let bugs = BUGS
            .iter()
            .find(|(language, _)| *language == build.language);
        for bug in 0..bugs.map_or(0, |(_, count)| *count) {
            for entry in ["main", "thread"] {
                let what = format!("{} bug {bug} ({}, {entry})", build.language, build.name);
                let core = crash(&program, build, bug, entry, "", scratch.path());
                let core = core.with_context(|| what.clone())?;
                let mut rules = rules(&core)?;
                if let Some(cdh) = cdh {
                    rules.insert("other version".to_owned(), printed(cdh, &core)?);
                }
                differing.extend(places(&core)?.map(|places| format!("{what}: {places}")));
                crashes.push(Crash {
                    bug: format!("{} {bug}", build.language),
                    language: build.language,
                    rules,
                });
                fs::remove_file(core)?;
            }
        }
        eprintln!(
            "{} {}: {} crashes so far",
            build.language,
            build.name,
            crashes.len()
        );
    }
    table(&crashes);
    println!(
        "{} crashes: the fingerprint with and without separate debug files differs in {}",
        crashes.len(),
        differing.len()
    );
    for line in differing {
        println!("  {line}");
    }
    if only.is_empty() || only.iter().any(|name| name == "c") {
        tunables(scratch.path())?;
    }
    Ok(())
}

fn compile(build: &Build, scratch: &Path) -> Result<PathBuf> {
    let name = format!("{}-{}", build.language, build.name).replace([' ', ','], "");
    let directory = scratch.join(&name);
    fs::create_dir(&directory)?;
    let program = directory.join("bugs");
    let (compiler, words) = build
        .words
        .split_first()
        .context("a build has a compiler")?;
    let mut command = Command::new(compiler);
    command.current_dir(&directory);
    let changed = "-v2";
    let words = words.iter().filter(|word| **word != changed);
    match build.language {
        "go" => {
            fs::write(directory.join("bugs.go"), include_str!("bugs.go"))?;
            let note = match build.words.contains(&changed) {
                true => include_str!("note_v2.go"),
                false => include_str!("note_v1.go"),
            };
            fs::write(directory.join("note.go"), note)?;
            command
                .args(words)
                .args(["-o", "bugs", "bugs.go", "note.go"]);
            command.env("GO111MODULE", "off").env("GOFLAGS", "");
        }
        language => {
            let (file, source) = match language {
                "c" => ("bugs.c", include_str!("bugs.c")),
                "c++" => ("bugs.cc", include_str!("bugs.cc")),
                _ => ("bugs.rs", include_str!("bugs.rs")),
            };
            fs::write(directory.join(file), source)?;
            command.args(words).args(["-o", "bugs", file]);
            if language == "rust" {
                command.args(["--edition=2021", "-Awarnings", "--check-cfg=cfg(v2)"]);
            }
        }
    }
    let status = command.stdin(Stdio::null()).status();
    let status = status.with_context(|| format!("cannot start `{compiler}`"))?;
    ensure!(status.success(), "`{compiler}` failed on {name}");
    Ok(program)
}

/// The core of a program at its fatal signal.
fn crash(
    program: &Path,
    build: &Build,
    bug: usize,
    entry: &str,
    tunables: &str,
    scratch: &Path,
) -> Result<PathBuf> {
    let core = scratch.join("core");
    let mut gdb = Command::new("gdb");
    gdb.args(["-nx", "-batch", "-iex", "set debuginfod enabled off"]);
    gdb.args(["-ex", "set disable-randomization off"]);
    gdb.args(["-ex", "handle SIGURG SIGPIPE nostop noprint pass"]);
    // Whose handler ends the process by another signal.
    if build.language == "go" || (build.language == "c" && bug >= 16) {
        gdb.args(["-ex", "handle SIGSEGV SIGFPE SIGBUS nostop noprint pass"]);
    }
    // Rust's handler of stack overflows does the same.
    if build.language == "rust" && bug == 8 {
        gdb.args(["-ex", "handle SIGSEGV nostop noprint pass"]);
    }
    gdb.args(["-ex", "run", "-ex"]);
    gdb.arg(format!("gcore {}", core.display()));
    gdb.args(["-ex", "kill", "--args"]).arg(program);
    gdb.args([&bug.to_string(), entry]);
    if !tunables.is_empty() {
        gdb.env("GLIBC_TUNABLES", tunables);
    }
    let out = gdb
        .stdin(Stdio::null())
        .output()
        .context("cannot start gdb")?;
    ensure!(
        core.is_file(),
        "no core: {}",
        String::from_utf8_lossy(&out.stdout)
    );
    Ok(core)
}

/// The crashing thread's fingerprint by each rule.
fn rules(core: &Path) -> Result<BTreeMap<String, Option<String>>> {
    with_stack(core, Files::All, |stack| {
        let mut rules = BTreeMap::new();
        let made = Fingerprint::from_stack(stack.frames, stack.stop, stack.original, stack.modules);
        rules.insert(
            "as built".to_owned(),
            made.map(|made| made.fingerprint.to_string()),
        );
        let frames = OriginalSignal::frames(stack.original, stack.frames);
        let own = Fingerprint::own_functions(frames, stack.modules).unwrap_or_default();
        let mut once: Vec<String> = Vec::new();
        for name in own {
            if !once.contains(&name) {
                once.push(name);
            }
        }
        for depth in DEPTHS {
            let names = once
                .get(..depth.min(once.len()))
                .unwrap_or_default()
                .to_vec();
            let print = |names: &[String]| (!names.is_empty()).then(|| names.join(" < "));
            rules.insert(format!("{depth} names, in order"), print(&names));
        }
        rules
    })
}

/// What another version prints.
fn printed(cdh: &str, core: &Path) -> Result<Option<String>> {
    let out = Command::new(cdh)
        .args(["bt", "--offline", "--no-cache", "-o", "json"])
        .arg(core)
        .stderr(Stdio::null())
        .output()
        .with_context(|| format!("cannot start `{cdh}`"))?;
    let json: serde_json::Value = serde_json::from_slice(&out.stdout)?;
    let found = &json["backtrace"]["fingerprint"];
    Ok(found.as_str().map(str::to_owned))
}

/// Which fingerprints there are where files differ from machine to machine, if that is more than one.
fn places(core: &Path) -> Result<Option<String>> {
    let print = |files| {
        with_stack(core, files, |stack| {
            let options = BacktraceOptions {
                all_threads: false,
                max_frames: 8,
                ..BacktraceOptions::default()
            };
            let arena = SectionArena::default();
            let threads = stack.core.head().threads();
            let made =
                cdh_symbolize::backtrace(threads, stack.core, stack.modules, &arena, &options);
            made.fingerprint.map(|print| print.to_string())
        })
    };
    let handler = with_stack(core, Files::All, |stack| {
        let made = Fingerprint::from_stack(stack.frames, stack.stop, stack.original, stack.modules);
        made.map(|made| made.fingerprint.to_string())
    })?;
    let found = BTreeSet::from([handler, print(Files::All)?, print(Files::WithDebug)?]);
    let without = print(Files::None)?;
    let is_one = found.len() == 1 && without.is_none();
    Ok((!is_one).then(|| format!("{found:?}, without files {without:?}")))
}

/// Which files a machine has.
#[derive(Clone, Copy, PartialEq)]
enum Files {
    None,
    All,
    /// Also the separate debug files of libraries.
    WithDebug,
}

struct Stack<'a> {
    core: &'a CoreFile,
    frames: &'a [cdh_symbolize::UnwoundFrame],
    stop: cdh_symbolize::Stop,
    original: Option<&'a OriginalSignal>,
    modules: &'a [LoadedModule<'a>],
}

fn with_stack<T>(core: &Path, files: Files, work: impl FnOnce(&Stack<'_>) -> T) -> Result<T> {
    let core = CoreFile::open(Box::new(MappedFile::open(core)?))?;
    let modules = core.modules();
    let open = |path: PathBuf| {
        MappedFile::open(&path)
            .ok()
            .filter(|_| files != Files::None)
    };
    let opened: Vec<_> = modules
        .iter()
        .map(|module| {
            let id = module.build_id.as_ref().map(ToString::to_string);
            let debug = id
                .filter(|id| files == Files::WithDebug && id.len() > 2)
                .and_then(|id| {
                    let (first, rest) = id.split_at(2);
                    open(PathBuf::from(format!(
                        "/usr/lib/debug/.build-id/{first}/{rest}.debug"
                    )))
                });
            (open(PathBuf::from(module.display_path())), debug)
        })
        .collect();
    let loaded: Vec<LoadedModule<'_>> = modules
        .iter()
        .zip(&opened)
        .map(|(module, (file, debug))| {
            let mut loaded = match file {
                Some(file) => LoadedModule::from_file(module, file.bytes()),
                None => LoadedModule::missing(module),
            };
            let debug = debug.as_ref();
            loaded.debug = debug.and_then(|file| cdh_elfcore::ElfObject::parse(file.bytes()).ok());
            loaded
        })
        .collect();
    let thread = core
        .head()
        .threads()
        .first()
        .context("the core has no thread")?;
    let unwinder = Unwinder::new(&loaded);
    let (frames, stop) = unwinder.unwind(&thread.registers, &core, FRAMES);
    let original = unwinder.original_signal(thread, core.head().signal(), &frames, &core);
    Ok(work(&Stack {
        core: &core,
        frames: &frames,
        stop,
        original: original.as_ref(),
        modules: &loaded,
    }))
}

fn table(crashes: &[Crash]) {
    println!("rule | language | crashes | no fingerprint | precision | recall | F1");
    println!("---|---|---|---|---|---|---");
    let names: BTreeSet<&String> = crashes
        .iter()
        .flat_map(|crash| crash.rules.keys())
        .collect();
    let mut languages: Vec<Option<&str>> = vec![None];
    languages.extend(BUGS.iter().map(|(language, _)| Some(*language)));
    for name in names {
        for language in &languages {
            let chosen: Vec<&Crash> = crashes
                .iter()
                .filter(|crash| language.is_none_or(|language| crash.language == language))
                .collect();
            if chosen.is_empty() {
                continue;
            }
            let print = |crash: &Crash| crash.rules.get(name).cloned().flatten();
            let (mut equal, mut same, mut both) = (0_u32, 0_u32, 0_u32);
            for (number, a) in chosen.iter().enumerate() {
                for b in chosen.iter().skip(number + 1) {
                    let is_equal = print(a).is_some() && print(a) == print(b);
                    let is_same = a.bug == b.bug;
                    equal += u32::from(is_equal);
                    same += u32::from(is_same);
                    both += u32::from(is_equal && is_same);
                }
            }
            let share = |part: u32, of: u32| f64::from(part) / f64::from(of.max(1));
            let (precision, recall) = (share(both, equal), share(both, same));
            let f1 = 2.0 * precision * recall / (precision + recall).max(f64::MIN_POSITIVE);
            let none = chosen.iter().filter(|crash| print(crash).is_none()).count();
            println!(
                "{name} | {} | {} | {none} | {precision:.3} | {recall:.3} | {f1:.3}",
                language.unwrap_or("all"),
                chosen.len()
            );
        }
    }
}

/// Crashes in `memcpy`, `strlen` and `free` with other variants of them.
fn tunables(scratch: &Path) -> Result<()> {
    let program = scratch.join("c-O0/bugs");
    let mut equal = 0_usize;
    let bugs = [2, 6, 7, 8];
    for bug in bugs {
        let mut found = BTreeSet::new();
        for tunables in TUNABLES {
            let build = &BUILDS[0];
            let core = crash(&program, build, bug, "main", tunables, scratch)?;
            found.insert(rules(&core)?.remove("as built").flatten());
            fs::remove_file(core)?;
        }
        equal += usize::from(found.len() == 1 && !found.contains(&None));
    }
    println!(
        "{equal} of {} bugs in libc's functions have one fingerprint under {} settings of GLIBC_TUNABLES",
        bugs.len(),
        TUNABLES.len()
    );
    Ok(())
}
