//! All tests of the workspace, with a summary of every test binary in the last line.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use cdh_testkit::SKIPPED_FILE;

use crate::progress::{self, Steps, Streams, spoken};
use crate::{build, charts, python, tools};

/// The tests ran, and not all of them passed; everything about it was printed.
#[derive(Debug)]
pub(crate) struct TestsFailed(pub(crate) ExitCode);

impl fmt::Display for TestsFailed {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("tests failed")
    }
}

impl std::error::Error for TestsFailed {}

/// Programs without which most tests cannot run.
const REQUIRED: [&str; 6] = ["cc", "g++", "gdb", "kill", "unzip", "zstd"];
/// Programs that some tests need.
const OPTIONAL: [&str; 9] = [
    "bzip2",
    "dwz",
    "musl-gcc",
    "xz",
    "docker-registry",
    "htpasswd",
    "openssl",
    "rpmbuild",
    "ssh-keygen",
];
/// Packages for tests with pods.
const RUNTIME: [&str; 2] = ["containerd", "runc"];
/// Packages for tests of completions.
const SHELLS: [&str; 4] = ["bash", "zsh", "fish", "lz4"];

/// Runs them, or those that `arguments` of `cargo test` choose. As root, missing packages are installed. Other users
/// read what to install, or give `--install`, which asks sudo.
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    let begun = Instant::now();
    let (installs, arguments) = take_install(arguments);
    let arguments = arguments.as_slice();
    let mut steps = Steps::new(5);
    if installs {
        tools::install_with_sudo();
    }
    if installs || tools::is_root() {
        steps.begin("installing what the tests need, with apt-get and pip");
    } else {
        steps.begin("looking for what the tests need");
        name_missing()?;
    }
    tools::require(&REQUIRED)?;
    tools::wish(&OPTIONAL);
    // Pods are tested where there is a container runtime.
    if let Err(error) = tools::offer(&RUNTIME) {
        println!("SKIPPED: pods are not tested: {error:#}");
    }
    if let Err(error) = tools::offer(&SHELLS) {
        println!(
            "SKIPPED: completions are tested only in the shells that are installed: {error:#}"
        );
    }
    let (weed, prometheus) = (python::weed(), python::prometheus());
    steps.begin("checking the Helm chart");
    let mut tally = Tally::default();
    if let Err(error) = charts::check(charts::Snapshots::Compare) {
        eprintln!("error: {error:#}");
        tally.failed += 1;
    }
    steps.begin("building the static handler (2 minutes on 2 cores the first time)");
    let handler = build::handler()?;
    steps.begin("building the tests (8 minutes on 2 cores the first time)");
    let test = |words: &[&str]| {
        let mut test = build::cargo();
        test.arg("test").args(words);
        if !names_a_package(arguments) {
            test.arg("--workspace");
        }
        test.args(arguments);
        test
    };
    progress::cargo(&mut test(&["--no-run"]), "building the tests")?;
    steps.begin("running the tests (6 minutes on 2 cores)");
    // One binary that fails keeps none of the others from running.
    let mut test = test(&["--no-fail-fast"]);
    if let Some(weed) = weed {
        test.env("CDH_TEST_WEED", weed);
    }
    if let Some(packages) = prometheus {
        test.env("CDH_TEST_PROMETHEUS", packages);
    }
    test.env("CDH_TEST_HANDLER", handler);
    let skipped = tempfile::NamedTempFile::new()?;
    test.env(SKIPPED_FILE, skipped.path());
    let status = progress::watch(&mut test, "running the tests", Streams::Merged, |line| {
        tally.see(line);
    })?;
    tally.end_binary();
    for why in fs::read_to_string(skipped.path())?.lines() {
        tally.skip(why);
    }
    for line in tally.failures.sections.iter().flatten() {
        println!("{line}");
    }
    for binary in &tally.broken {
        println!("ended without a result: {binary}");
    }
    println!("{}", tally.summary(begun.elapsed()));
    match status.code() {
        Some(0) if tally.failed == 0 => Ok(()),
        code => {
            let code = code.and_then(|code| u8::try_from(code).ok());
            let code = code.filter(|code| *code != 0).unwrap_or(1);
            Err(TestsFailed(ExitCode::from(code)).into())
        }
    }
}

/// Takes `--install` out of the arguments; those after `--` are for the tests.
fn take_install(arguments: &[String]) -> (bool, Vec<String>) {
    let ours = arguments.iter().take_while(|word| *word != "--").count();
    let (ours, theirs) = arguments.split_at(ours);
    let (mut rest, is_given) = (ours.to_vec(), ours.iter().any(|word| word == "--install"));
    rest.retain(|word| word != "--install");
    rest.extend_from_slice(theirs);
    (is_given, rest)
}

/// Prints one line that installs everything that is missing.
///
/// # Errors
/// When a required program is missing.
fn name_missing() -> Result<()> {
    let required = tools::missing(&REQUIRED);
    let mut packages = tools::packages_of(&required);
    packages.extend(tools::packages_of(&tools::missing(&OPTIONAL)));
    packages.extend(tools::not_installed(&[&RUNTIME[..], &SHELLS].concat()));
    if !packages.is_empty() {
        println!(
            "missing packages: run `sudo apt install {}`, or `cargo xtask test --install`",
            packages.join(" ")
        );
    }
    match required.is_empty() {
        true => Ok(()),
        false => bail!("the tests cannot run without {}", required.join(", ")),
    }
}

/// Whether the arguments for cargo choose packages.
fn names_a_package(arguments: &[String]) -> bool {
    let for_cargo = arguments.iter().take_while(|word| *word != "--");
    let chooses = |word: &String| word.starts_with("-p") || word.starts_with("--package");
    for_cargo.into_iter().any(chooses)
}

/// What the test binaries said so far.
#[derive(Debug, Default)]
struct Tally {
    passed: u64,
    failed: u64,
    skipped: u64,
    /// Why tests skipped themselves, and how many.
    reasons: BTreeMap<String, u64>,
    /// The binary that runs and has not said its result yet.
    running: Option<String>,
    /// Binaries that ended without one; each counts as a failure.
    broken: Vec<String>,
    /// What failed tests printed, to be repeated at the end.
    failures: Failures,
}

/// The sections in which the harness shows what failed tests printed.
#[derive(Debug, Default)]
struct Failures {
    /// Lines of each failed test: its name, then the start of its panic.
    sections: Vec<Vec<String>>,
    /// Whether lines now belong to the last section.
    is_open: bool,
}

impl Failures {
    /// Lines and characters of one failure that are repeated.
    const LINES: usize = 16;
    const WIDTH: usize = 400;

    fn see(&mut self, line: &str) {
        let name = line.strip_prefix("---- ");
        if let Some(name) = name.and_then(|rest| rest.strip_suffix(" stdout ----")) {
            self.sections.push(vec![format!("failed: {name}")]);
            self.is_open = true;
        } else if line == "failures:"
            || line == "stack backtrace:"
            || line.starts_with("test result: ")
        {
            self.is_open = false;
        } else if let Some(section) = self.sections.last_mut().filter(|_| self.is_open) {
            let is_panic = line.starts_with("thread '") && line.contains(" panicked at ");
            let is_more = section.len() > 1 && section.len() <= Self::LINES;
            if (is_panic || is_more) && !line.is_empty() && !line.starts_with("note: run with") {
                let shown: String = line.chars().take(Self::WIDTH).collect();
                section.push(format!("    {shown}"));
            }
        }
    }
}

impl Tally {
    /// Reads a line of `cargo test`.
    fn see(&mut self, line: &str) {
        self.failures.see(line);
        if let Some(binary) = line.strip_prefix("     Running ") {
            self.end_binary();
            self.running = Some(binary.to_owned());
        } else if line.trim_start().starts_with("Doc-tests ") {
            // Doctests have a result for each kind, and none where there are none.
            self.end_binary();
        } else if let Some((_, result)) = line.split_once("test result: ") {
            self.running = None;
            let count = |what: &str| -> u64 {
                let mut parts = result.split([';', '.']).map(str::trim);
                let number = parts.find_map(|part| part.strip_suffix(what)?.trim().parse().ok());
                number.unwrap_or(0)
            };
            self.passed += count("passed");
            self.failed += count("failed");
            self.skipped += count("ignored");
        }
    }

    /// Counts the binary that was running as broken if it said no result.
    fn end_binary(&mut self) {
        if let Some(binary) = self.running.take() {
            self.failed += 1;
            self.broken.push(binary);
        }
    }

    /// Counts a test that skipped itself; the harness has reported it as passed.
    fn skip(&mut self, why: &str) {
        self.passed = self.passed.saturating_sub(1);
        self.skipped += 1;
        *self.reasons.entry(why.to_owned()).or_default() += 1;
    }

    /// The duration, the reasons of skipped tests, and a last line that programs read.
    fn summary(&self, took: Duration) -> String {
        let (passed, failed, skipped) = (self.passed, self.failed, self.skipped);
        let reasons = self.reasons.iter();
        let reasons: String = reasons
            .map(|(why, count)| format!("{count} skipped: {why}\n"))
            .collect();
        format!(
            "\ntests ended after {}\n{reasons}{passed} passed, {failed} failed, {skipped} skipped",
            spoken(took)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(output: &str) -> Tally {
        let mut tally = Tally::default();
        output.lines().for_each(|line| tally.see(line));
        tally.end_binary();
        tally
    }

    #[test]
    fn summary_adds_up_all_test_binaries_and_doctests() {
        let tally = tally(
            "     Running unittests src/main.rs (target/debug/deps/cdh-1)\n\
             test one ... ok\n\
             test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 3 filtered out; finished in 0.12s\n\
             \x20    Running tests/cli.rs (target/debug/deps/cli-2)\n\
             test result: FAILED. 7 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 9.00s\n\
             error: 1 target failed:\n    `-p cdh --test cli`\n\
             \x20  Doc-tests cdh_store\n\
             test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s\n\
             test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s\n",
        );
        assert_eq!(
            tally.summary(Duration::from_secs(247)),
            "\ntests ended after 4 min 7 s\n22 passed, 2 failed, 1 skipped"
        );
    }

    #[test]
    fn summary_counts_tests_that_skipped_themselves_by_reason() {
        let mut tally = tally(
            "     Running tests/a.rs (deps/a)\n\
             test result: ok. 9 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out\n",
        );
        for why in ["no openssl here", "another root", "no openssl here"] {
            tally.skip(why);
        }
        assert_eq!(
            tally.summary(Duration::from_secs(247)),
            "\ntests ended after 4 min 7 s\n1 skipped: another root\n2 skipped: no openssl here\n\
             6 passed, 0 failed, 4 skipped"
        );
    }

    #[test]
    fn panics_of_failed_tests_are_repeated_without_the_rest() {
        let tally = tally(
            "     Running tests/a.rs (deps/a)\n\
             test one ... FAILED\n\nfailures:\n\n---- one stdout ----\na line before\n\n\
             thread 'one' (7) panicked at a.rs:3:5:\nassertion failed: a\n  left: 1\n\
             note: run with `RUST_BACKTRACE=1` environment variable to display a backtrace\n\n\n\
             failures:\n    one\n\n\
             test result: FAILED. 9 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out\n",
        );
        assert_eq!(
            tally.failures.sections,
            [[
                "failed: one",
                "    thread 'one' (7) panicked at a.rs:3:5:",
                "    assertion failed: a",
                "      left: 1",
            ]]
        );
    }

    #[test]
    fn install_flag_is_taken_from_the_arguments_before_the_dashes() {
        let take = |words: &[&str]| {
            let words: Vec<String> = words.iter().map(ToString::to_string).collect();
            let (is_given, rest) = take_install(&words);
            (is_given, rest.join(" "))
        };
        assert_eq!(take(&["--install", "groups"]), (true, "groups".to_owned()));
        assert_eq!(
            take(&["x", "--", "--install"]),
            (false, "x -- --install".to_owned())
        );
    }

    #[test]
    fn suite_tests_the_whole_workspace_unless_a_package_is_named() {
        let named = |words: &[&str]| {
            let words: Vec<String> = words.iter().map(ToString::to_string).collect();
            names_a_package(&words)
        };
        assert!(named(&["-p", "cdh-store"]) && named(&["--package=cdh", "x"]) && named(&["-pcdh"]));
        assert!(!named(&["groups"]) && !named(&["x", "--", "-p"]));
    }

    #[test]
    fn summary_counts_a_binary_that_dies_as_a_failure_and_names_it() {
        let tally = tally(
            "     Running tests/a.rs (deps/a)\ntest one ... ok\nerror: test failed (signal: 6)\n\
             \x20    Running tests/b.rs (deps/b)\n\
             test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out\n\
             \x20    Running tests/c.rs (deps/c)\n",
        );
        assert_eq!(tally.broken, ["tests/a.rs (deps/a)", "tests/c.rs (deps/c)"]);
        assert_eq!((tally.passed, tally.failed), (1, 2));
    }
}
