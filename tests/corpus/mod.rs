//! Every core of the corpus: our frames against gdb's, and what the commands print.

use std::sync::Mutex;

use cdh_testkit::{corpus, divergence};

use super::*;

/// Builds all fixtures, two at a time, and compares each thread of each core with gdb.
#[test]
fn frames_of_the_corpus_are_gdbs_or_stand_in_the_list() {
    let place = tempfile::tempdir().unwrap();
    let cdh = PathBuf::from(env!("CARGO_BIN_EXE_cdh"));
    let known = divergence::known().unwrap();
    let names = Mutex::new(corpus::names().unwrap());
    let open = Mutex::new(Vec::new());
    let compared = Mutex::new((0, 0));
    let work = || {
        while let Some(name) = { names.lock().unwrap().pop() } {
            for variant in corpus::build(&name, place.path()).unwrap() {
                let Some(gdb) = variant.oracle().unwrap() else {
                    continue;
                };
                let ours = divergence::ours(&cdh, &variant).unwrap();
                let (equal, found) = divergence::compare(&variant, &gdb, &ours);
                let mut total = compared.lock().unwrap();
                *total = (total.0 + equal, total.1 + found.len());
                let new = found
                    .into_iter()
                    .filter(|found| !known.iter().any(|known| known.explains(found)));
                open.lock().unwrap().extend(new);
            }
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(work);
        scope.spawn(work);
    });
    let (equal, differ) = compared.into_inner().unwrap();
    println!("{equal} threads are equal to gdb's, {differ} are not");
    let open = open.into_inner().unwrap();
    let shown: Vec<String> = open
        .iter()
        .map(|found| {
            format!(
                "{} thread {}: gdb `{}`, cdh `{}`\n{}",
                found.case, found.tid, found.gdb, found.ours, found.stacks
            )
        })
        .collect();
    assert!(
        shown.is_empty(),
        "not in tests/fixtures/divergences.toml:\n{}",
        shown.join("\n")
    );
    assert!(equal > 100, "{equal}");
}

/// What changes from run to run.
pub(super) fn filtered(text: &str) -> String {
    let mut out = String::new();
    for line in text.lines() {
        let line = match line.split_once(" threads in ") {
            Some((before, _)) => format!("{before} threads in [TIME]"),
            None => line.to_owned(),
        };
        let trimmed = line.trim_start();
        let is_time =
            trimmed.starts_with("\"unwind_micros\"") || trimmed.starts_with("\"symbolize_micros\"");
        let is_id = trimmed.starts_with("\"dump\": ");
        if !is_time && !is_id {
            out.push_str(&line);
            out.push('\n');
        }
    }
    out
}

#[test]
fn commands_print_the_kept_cores_as_before() {
    let products = corpus::fixtures()
        .canonicalize()
        .unwrap()
        .join("bare/products");
    let commands: [(&str, &[&str]); 4] = [
        ("text", &["bt", "./core", "-a", "--no-cache"]),
        (
            "fold",
            &["bt", "./core", "-a", "--group", "--fold", "--no-cache"],
        ),
        (
            "source",
            &[
                "bt",
                "./core",
                "--registers",
                "--source-map",
                "/build=../..",
                "--no-cache",
            ],
        ),
        ("json", &["bt", "./core", "-o", "json", "--no-cache"]),
    ];
    let mut names: Vec<PathBuf> = fs::read_dir(&products)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_dir())
        .collect();
    names.sort();
    assert!(names.len() >= 8, "{names:?}");
    let workstation = Workstation::new();
    for directory in names {
        let name = directory.file_name().unwrap().to_str().unwrap().to_owned();
        for (kind, words) in commands {
            let answer = workstation.answer(
                workstation
                    .command(words)
                    .current_dir(&directory)
                    .output()
                    .unwrap(),
            );
            assert_eq!(answer.code, 0, "{}", answer.err);
            insta::assert_snapshot!(format!("bare-{name}-{kind}"), filtered(&answer.out));
        }
    }
}

#[test]
fn kept_cores_are_those_of_the_checksums() {
    let products = corpus::fixtures()
        .canonicalize()
        .unwrap()
        .join("bare/products");
    let check = Command::new("sha256sum")
        .current_dir(products)
        .args(["--check", "--strict", "--quiet", "SHA256SUMS"])
        .status();
    assert!(check.expect("install coreutils").success());
}

#[test]
fn remembered_answers_are_those_of_the_first_time() {
    let workstation = Workstation::new();
    let core = crash().core();
    let words = ["bt", core.to_str().unwrap(), "-a"];
    let first = filtered(&workstation.run(&words).out);
    let cache = workstation.path(".cache/cdh/symbols");
    assert!(fs::read_dir(&cache).unwrap().count() > 1);
    assert_eq!(filtered(&workstation.run(&words).out), first);
    for entry in fs::read_dir(&cache).unwrap() {
        let path = entry.unwrap().path();
        let mut bytes = fs::read(&path).unwrap();
        if let Some(middle) = bytes.len().checked_div(2).filter(|at| *at > 0) {
            bytes[middle] ^= 1;
            fs::write(&path, bytes).unwrap();
        }
    }
    assert_eq!(filtered(&workstation.run(&words).out), first);
}

#[test]
fn groups_and_diff_distinguish_equal_crashes_from_others() {
    let workstation = Workstation::new();
    let core = crash().core();
    workstation.import(&core);
    workstation.import(&core);
    let other = corpus::fixtures()
        .canonicalize()
        .unwrap()
        .join("bare/products/hook/core");
    workstation.import(&other);
    let groups = workstation.json(&["groups", "-o", "json"]);
    assert_eq!(groups[0]["count"], 2);
    assert_eq!(groups[0]["exe"], "app");
    assert_eq!(groups[1]["count"], 1);
    assert_ne!(groups[0]["fingerprint"], groups[1]["fingerprint"]);
    let text = workstation.run(&["groups", "--images"]).out;
    assert!(
        text.starts_with("COUNT") && text.lines().count() == 3,
        "{text}"
    );
    let same = workstation.json(&[
        "diff",
        core.to_str().unwrap(),
        core.to_str().unwrap(),
        "-o",
        "json",
    ]);
    assert_eq!(same["same_fingerprint"], true);
    assert_eq!(same["first_divergent_frame"], Value::Null);
    assert_eq!(same["registers"].as_array().unwrap().len(), 0);
    let differ = workstation.json(&[
        "diff",
        core.to_str().unwrap(),
        other.to_str().unwrap(),
        "-o",
        "json",
    ]);
    assert_eq!(differ["same_fingerprint"], false);
    assert_eq!(differ["first_divergent_frame"]["name"], "#0");
    let text = workstation
        .run(&["diff", core.to_str().unwrap(), other.to_str().unwrap()])
        .out;
    assert!(
        text.contains("different crashes") && text.contains("rip"),
        "{text}"
    );
}
