//! Many runs at once on one cache: none fails, and what one of them fetched is not fetched again.

use std::process::{Child, Stdio};

use super::*;

/// A number from the environment, for long runs: `CDH_TEST_PARALLEL=50 CDH_TEST_ROUNDS=20`.
fn number(name: &str, default: usize) -> usize {
    let text = std::env::var(name).ok();
    text.and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn start(mut command: Command) -> Child {
    let command = command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().unwrap()
}

/// Runs `words` many times at once, on an empty cache each round, and returns how many runs there were.
fn all_succeed(workstation: &Workstation, words: &[&str]) -> usize {
    let (processes, rounds) = (
        number("CDH_TEST_PARALLEL", 20),
        number("CDH_TEST_ROUNDS", 2),
    );
    let mut failures = Vec::new();
    for _ in 0..rounds {
        for old in [".cache", "case"] {
            let _ = fs::remove_dir_all(workstation.path(old));
        }
        let runs: Vec<Child> = (0..processes)
            .map(|_| start(workstation.command(words)))
            .collect();
        for run in runs {
            let answer = workstation.answer(run.wait_with_output().unwrap());
            if answer.code != 0 {
                failures.push(answer.err);
            }
        }
    }
    println!(
        "{words:?}: {} of {} runs failed",
        failures.len(),
        processes * rounds
    );
    assert!(
        failures.is_empty(),
        "{words:?}: {} failed, the first: {}",
        failures.len(),
        failures[0]
    );
    processes * rounds
}

fn imported() -> Workstation {
    let workstation = Workstation::new();
    workstation.import(&crash().core());
    workstation
}

#[test]
fn fetch_into_one_case_in_parallel_never_fails() {
    let workstation = imported();
    all_succeed(&workstation, &["fetch", "latest"]);
    all_succeed(&workstation, &["fetch", "latest", "-d", "case"]);
    let case = workstation.path("case");
    assert!(fs::read(case.join("core")).unwrap() == fs::read(crash().core()).unwrap());
    assert!(!case.join("journal").exists());
    // Nothing is left of those that came second.
    let hidden = fs::read_dir(workstation.dir.path())
        .unwrap()
        .filter(|item| {
            let name = item.as_ref().unwrap().file_name();
            name.to_string_lossy().contains("part")
        });
    assert_eq!(hidden.count(), 0);
}

#[test]
fn debug_of_one_dump_in_parallel_never_fails() {
    let workstation = imported();
    let core = crash().core().display().to_string();
    all_succeed(&workstation, &["debug", "latest", "--print"]);
    all_succeed(&workstation, &["debug", &core, "--print"]);
    let views = fs::read_dir(workstation.path(".cache/cdh/views")).unwrap();
    let view = views.map(|item| item.unwrap().path()).next().unwrap();
    let names: Vec<_> = fs::read_dir(view)
        .unwrap()
        .map(|item| item.unwrap().file_name())
        .collect();
    assert_eq!(names, ["sysroot"]);
}

#[test]
fn commands_that_only_read_a_dump_never_fail_in_parallel() {
    let workstation = imported();
    for words in [
        &["bt", "latest"][..],
        &["info", "latest"],
        &["ls"],
        &["groups"],
        &["sysroot", "latest"],
        &["diff", "latest", "latest"],
    ] {
        all_succeed(&workstation, words);
    }
}

#[test]
fn import_in_parallel_stores_every_dump() {
    let workstation = Workstation::new();
    let core = crash().core().display().to_string();
    let count = all_succeed(&workstation, &["import", &core]);
    let ids = workstation.run(&["ls", "-o", "id"]).out;
    assert_eq!(ids.lines().count(), count);
}

#[test]
fn cached_case_that_was_changed_is_fetched_again_and_a_named_one_is_refused() {
    let workstation = imported();
    let path = |answer: Answer| {
        assert_eq!(answer.code, 0, "{}", answer.err);
        PathBuf::from(
            answer
                .out
                .trim()
                .replace("[WORKSTATION]", workstation.dir.path().to_str().unwrap()),
        )
    };
    let original = fs::read(crash().core()).unwrap();
    let case = path(workstation.run(&["fetch", "latest"]));
    let flip = |case: &Path, name: &str| {
        let mut bytes = fs::read(case.join(name)).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(case.join(name), bytes).unwrap();
    };
    for name in ["core", "manifest.json"] {
        flip(&case, name);
        assert_eq!(path(workstation.run(&["fetch", "latest"])), case);
        assert!(fs::read(case.join("core")).unwrap() == original, "{name}");
    }
    flip(&case, "core");
    for words in [["bt"], ["debug"]] {
        let case = case.display().to_string();
        let answer = workstation.run(&[words[0], &case]);
        assert_eq!(answer.code, 4, "{}{}", answer.out, answer.err);
        assert!(answer.err.contains("core` has SHA-256"), "{}", answer.err);
    }
    let named = path(workstation.run(&["fetch", "latest", "-d", "case"]));
    flip(&named, "core");
    let answer = workstation.run(&["fetch", "latest", "-d", "case"]);
    assert_eq!(answer.code, 4, "{}", answer.err);
    assert!(fs::read(named.join("core")).unwrap() != original);
}
