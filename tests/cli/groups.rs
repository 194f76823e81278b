//! What an engineer on call asks first: what began today, since which version, who is affected.

use std::process::Command;
use std::time::{Duration, SystemTime};

use super::*;

/// Another bug than that of `crash()`.
const OTHER: &str = r"
__attribute__((noinline)) static void charge_card(int *p) { *p = 7; }
int main(void) { charge_card((int *)0x20); return 0; }
";

const HOUR: u64 = 3600;
const DAY: u64 = 24 * HOUR;

fn other() -> &'static Crash {
    static OTHER_CRASH: OnceLock<Crash> = OnceLock::new();
    OTHER_CRASH.get_or_init(|| {
        let dir = tempfile::tempdir().unwrap();
        let crash = Crash { dir };
        let (source, program) = (crash.dir.path().join("pay.c"), crash.dir.path().join("pay"));
        fs::write(&source, OTHER).unwrap();
        let mut cc = Command::new("cc");
        cc.args(["-g", "-O1", "-Wl,--build-id", "-o"])
            .arg(&program)
            .arg(&source);
        assert!(cc.status().expect("install gcc").success());
        let made = Command::new("gdb")
            .args(["-q", "-batch", "-ex", "run", "-ex"])
            .arg(format!("generate-core-file {}", crash.core().display()))
            .arg(&program)
            .output();
        assert!(made.expect("install gdb").status.success());
        crash
    })
}

impl Workstation {
    /// Imports a core as one of so many seconds ago, from this pod and image.
    fn import_old(&self, core: &Path, seconds: u64, more: &[&str]) -> String {
        let time = format!("{seconds}s");
        let mut words = vec!["import", core.to_str().unwrap(), "--time", &time];
        words.extend(more);
        let answer = self.run(&words);
        assert_eq!(answer.code, 0, "{}", answer.err);
        answer.out.trim().to_owned()
    }

    /// An old bug that goes on, and one that began three hours ago.
    fn with_history() -> Self {
        let workstation = Self::new();
        let (old, new) = (crash().core(), other().core());
        let at = |pod: &'static str| ["--namespace", "shop", "--pod", pod];
        workstation.import_old(&old, 30 * DAY, &at("api-7d4b9c6f5d-x2x9k"));
        workstation.import_old(&old, 2 * HOUR, &at("api-7d4b9c6f5d-b8cfz"));
        workstation.import_old(&new, 3 * HOUR, &at("checkout-0"));
        workstation.import_old(&new, HOUR, &at("checkout-0"));
        workstation
    }
}

fn group<'j>(json: &'j Value, exe: &str) -> &'j Value {
    let mut groups = json.as_array().unwrap().iter();
    groups.rfind(|group| group["exe"] == exe).unwrap()
}

/// Hours since the time in a group's field.
fn hours(group: &Value, field: &str) -> i64 {
    let time: jiff::Timestamp = group[field].as_str().unwrap().parse().unwrap();
    jiff::Timestamp::now().duration_since(time).as_hours()
}

#[test]
fn groups_first_seen_ignores_the_time_filter() {
    let workstation = Workstation::with_history();
    for words in [
        &["groups", "-o", "json"][..],
        &["groups", "--since", "1d", "-o", "json"],
        &["groups", "since:1d", "namespace:shop", "-o", "json"],
        &["ls", "--group", "--since", "1d", "-o", "json"],
    ] {
        let groups = workstation.json(words);
        let (old, new) = (group(&groups, "app"), group(&groups, "pay"));
        assert_eq!(
            (hours(old, "first"), &old["new"]),
            (30 * 24, &false.into()),
            "{words:?}"
        );
        assert_eq!(
            (hours(new, "first"), &new["new"]),
            (3, &true.into()),
            "{words:?}"
        );
        assert_eq!(old["first_from"], "store");
    }
    let text = workstation.run(&["groups", "--since", "1d"]).out;
    let marked: Vec<&str> = text.lines().filter(|line| line.contains(" NEW ")).collect();
    assert!(marked.len() == 1 && marked[0].contains("pay"), "{text}");
    let new = workstation.run(&["groups", "--new-since", "1d"]);
    assert!(
        new.out.lines().count() == 2 && new.out.contains("pay"),
        "{}",
        new.out
    );
    let new = workstation.run(&["ls", "new-since:1d", "-o", "csv"]);
    assert_eq!(new.out.lines().count(), 3, "{}", new.out);
    let none = workstation.run(&["groups", "new-since:2h"]);
    assert_eq!((none.code, none.out.as_str()), (1, ""));
    assert_eq!(
        none.err,
        "no new crashes in directory [WORKSTATION]/store\n"
    );
}

#[test]
fn deleted_dumps_do_not_make_a_crash_look_new() {
    let workstation = Workstation::with_history();
    let oldest = workstation.run(&["ls", "until:20d", "-o", "id"]).out;
    assert_eq!(workstation.run(&["rm", "-y", oldest.trim()]).code, 0);
    let groups = workstation.json(&["groups", "-o", "json"]);
    assert_eq!(hours(group(&groups, "app"), "first"), 30 * 24);
    // A store of an older release has no index: deleting old dumps makes one before.
    let workstation = Workstation::with_history();
    fs::remove_dir_all(workstation.path("store/first-seen")).unwrap();
    // An import is as new as its object: this one was written when it crashed.
    let days = fs::read_dir(workstation.path("store/dumps"))
        .unwrap()
        .flatten();
    let oldest = days.map(|day| day.path()).min().unwrap();
    for object in fs::read_dir(oldest).unwrap().flatten() {
        let file = fs::File::options().write(true).open(object.path()).unwrap();
        let then = SystemTime::now() - Duration::from_secs(29 * DAY);
        file.set_modified(then).unwrap();
    }
    let dry = workstation.run(&["gc", "--older-than", "20d", "--dry-run"]);
    assert_eq!(
        (dry.code, workstation.path("store/first-seen").exists()),
        (0, false)
    );
    let gc = workstation.run(&["gc", "--older-than", "20d", "-y"]);
    assert!(gc.err.contains("1 of 4 dumps"), "{}", gc.err);
    let groups = workstation.json(&["groups", "--since", "1d", "-o", "json"]);
    let old = group(&groups, "app");
    assert_eq!(
        (hours(old, "first"), &old["first_from"]),
        (30 * 24, &"store".into())
    );
}

#[test]
fn store_from_before_the_index_is_looked_back_and_says_how_far() {
    let workstation = Workstation::with_history();
    workstation.import_old(&other().core(), 200 * DAY, &[]);
    fs::remove_dir_all(workstation.path("store/first-seen")).unwrap();
    let all = workstation.json(&["groups", "-o", "json"]);
    assert_eq!(hours(group(&all, "pay"), "first"), 200 * 24);
    let bounded = workstation.run(&["groups", "--since", "1d"]);
    assert!(
        bounded
            .err
            .starts_with("note: first seen was looked up back to 20"),
        "{}",
        bounded.err
    );
    assert!(bounded.out.contains(" >30d "), "{}", bounded.out);
}

#[test]
fn groups_top_frame_is_read_once_and_cached() {
    let workstation = Workstation::with_history();
    let text = workstation.run(&["groups"]).out;
    assert!(text.contains("poke app.c:"), "{text}");
    assert!(text.contains("charge_card pay.c:2"), "{text}");
    // From the cache: the dumps are not read again.
    let cached = fs::read_dir(workstation.path(".cache/cdh/top-frames")).unwrap();
    assert_eq!(
        cached
            .filter(|item| !item
                .as_ref()
                .unwrap()
                .file_name()
                .to_string_lossy()
                .starts_with('.'))
            .count(),
        2
    );
    for item in walk(&workstation.path("store/dumps")) {
        if item.extension().is_some_and(|end| end == "zip") {
            fs::write(item, "damaged").unwrap();
        }
    }
    assert_eq!(workstation.run(&["groups"]).out, text);
    let none = workstation.run(&["groups", "--no-top"]).out;
    assert!(!none.contains("charge_card"), "{none}");
}

fn walk(directory: &Path) -> Vec<PathBuf> {
    let items = fs::read_dir(directory)
        .unwrap()
        .map(|item| item.unwrap().path());
    items
        .flat_map(|path| {
            if path.is_dir() {
                walk(&path)
            } else {
                vec![path]
            }
        })
        .collect()
}

#[test]
fn one_crash_lists_its_images_and_workloads_with_times() {
    let workstation = Workstation::new();
    let core = other().core();
    let image = |digit: &str| format!("registry.example/shop/pay@sha256:{}", digit.repeat(64));
    for (seconds, digit) in [(3 * DAY, "a"), (2 * HOUR + 60, "b"), (HOUR, "b")] {
        let pod = format!(
            "pay-7d4b9c6f5d-x2x9{}",
            if digit == "a" { 'k' } else { 'z' }
        );
        let image = image(digit);
        let more = ["-n", "shop", "--pod", &pod, "--image", &image];
        workstation.import_old(&core, seconds, &more);
    }
    let groups = workstation.json(&["groups", "-o", "json"]);
    let (images, pods) = (&groups[0]["images"], &groups[0]["affected"]);
    assert_eq!(images.as_array().unwrap().len(), 2);
    assert_eq!(
        (hours(&images[0], "first"), &images[0]["count"]),
        (72, &1.into())
    );
    assert_eq!(
        (
            hours(&images[1], "first"),
            hours(&images[1], "last"),
            &images[1]["count"]
        ),
        (2, 1, &2.into())
    );
    assert_eq!(
        (&pods[0]["name"], &pods[0]["count"]),
        (&"shop/pay-*".into(), &3.into())
    );
    let text = workstation.run(&["groups"]).out;
    assert!(
        text.contains("pay@aaaaaa (since 3d, 1×) pay@bbbbbb (since 2h, 2×)"),
        "{text}"
    );
    let fingerprint = groups[0]["fingerprint"].as_str().unwrap();
    for words in [
        &["groups", fingerprint][..],
        &["groups", &format!("fingerprint:{fingerprint}")],
        &["groups", &format!("fp:{}", &fingerprint[..5])],
    ] {
        let page = workstation.run(words).out;
        for part in [
            "first seen",
            "IMAGE ",
            "WORKLOAD ",
            "shop/pay-*",
            "charge_card pay.c:2",
            &image("a"),
        ] {
            assert!(page.contains(part), "{words:?} {part}: {page}");
        }
    }
    // What is shown can be typed.
    assert_eq!(
        workstation
            .run(&["ls", "image:pay@bbbbbb", "-o", "id"])
            .out
            .lines()
            .count(),
        2
    );
}

#[test]
fn ls_and_groups_take_filter_terms_as_arguments() {
    let workstation = Workstation::with_history();
    let count = |words: &[&str]| workstation.run(words).out.lines().count();
    for (expected, words) in [
        (
            4,
            &[
                "ls",
                "-o",
                "id",
                "namespace:shop",
                "signal:SEGV",
                "since:60d",
            ][..],
        ),
        (2, &["ls", "-o", "id", "exe:app"]),
        (2, &["ls", "-o", "id", "pay"]),
        (1, &["ls", "-o", "id", "pay", "--limit", "1"]),
        (1, &["ls", "-o", "id", "since:1d", "--exe", "app"]),
        (0, &["ls", "-o", "id", "ns:payments"]),
        (2, &["groups", "exe:app"]),
    ] {
        assert_eq!(count(words), expected, "{words:?}");
    }
    let mut page = String::new();
    for words in [
        &["ls", "foo:bar"][..],
        &["ls", "exe:app", "--exe", "app"],
        &["groups", "exe:a", "exe:b"],
        &["groups", "signal:oops"],
        &["ls", "since:someday"],
        &["ls", "namespace:"],
        &["groups", "exe:nothing"],
    ] {
        let answer = workstation.run(words);
        assert_eq!(answer.out, "", "{words:?}");
        page.push_str(&format!(
            "$ cdh {}\n{}[{}]\n\n",
            words.join(" "),
            answer.err,
            answer.code
        ));
    }
    insta::assert_snapshot!("terms", page);
}

#[test]
fn ls_and_groups_take_the_same_terms_as_flags_and_as_arguments() {
    let workstation = Workstation::with_history();
    for (flag, value, term) in [
        ("--signal", "SEGV", "signal:SEGV"),
        ("--namespace", "shop", "namespace:shop"),
        ("--pod", "checkout-0", "pod:checkout-0"),
        ("--exe", "pay", "exe:pay"),
        ("--node", "*", "node:*"),
        ("--since", "1d", "since:1d"),
        ("--until", "1d", "until:1d"),
        ("--new-since", "1d", "new-since:1d"),
    ] {
        let listed = |words: &[&str]| {
            let mut words = words.to_vec();
            words.extend(["-o", "json"]);
            let found = workstation.json(&words);
            assert_ne!(found.as_array().unwrap().len(), 0, "{words:?}");
            found
        };
        assert_eq!(
            listed(&["ls", flag, value]),
            listed(&["ls", term]),
            "{term}"
        );
        assert_eq!(
            listed(&["groups", flag, value]),
            listed(&["groups", term]),
            "{term}"
        );
    }
    assert_eq!(workstation.run(&["groups", "--truncated"]).code, 1);
    let fingerprint = workstation.json(&["ls", "exe:pay", "-o", "json"])[0]["fingerprint"].clone();
    let fingerprint = fingerprint.as_str().unwrap();
    for words in [
        ["groups", "--fingerprint", fingerprint],
        ["ls", "--fingerprint", fingerprint],
    ] {
        assert_eq!(workstation.run(&words).code, 0, "{words:?}");
    }
}

#[test]
fn groups_json_says_what_the_filter_hides() {
    let workstation = Workstation::with_history();
    let groups = workstation.json(&["groups", "--since", "1d", "exe:app", "-o", "json"]);
    let old = group(&groups, "app");
    assert_eq!(old["filter"], "since:1d exe:app");
    assert_eq!(
        (&old["count"], &old["older_dumps_hidden"]),
        (&1.into(), &true.into())
    );
    assert_eq!(
        (hours(old, "first"), hours(old, "oldest_selected")),
        (30 * 24, 2)
    );
    let groups = workstation.json(&["groups", "-o", "json"]);
    let old = group(&groups, "app");
    assert_eq!(
        (&old["filter"], &old["older_dumps_hidden"]),
        (&Value::Null, &false.into())
    );
    assert_eq!(old["affected"][0]["pods"], 2);
    let text = workstation.run(&["groups"]).out;
    assert!(text.contains("shop/api-* (2 pods)"), "{text}");
}

#[test]
fn containers_outside_kubernetes_are_listed_and_found_by_name() {
    let workstation = Workstation::new();
    workstation.import_old(&crash().core(), HOUR, &["--container", "web"]);
    workstation.import_old(
        &crash().core(),
        HOUR,
        &[
            "--namespace",
            "shop",
            "--pod",
            "api-0",
            "--container",
            "api",
        ],
    );
    let listing = workstation.run(&["ls", "pod:web"]).out;
    let row = listing.lines().nth(1).unwrap_or_default();
    assert_eq!(row.split_whitespace().nth(3), Some("web"), "{listing}");
    assert_eq!(listing.lines().count(), 2, "{listing}");
    let groups = workstation.run(&["groups"]).out;
    assert!(
        groups.contains("shop/api-0 web") || groups.contains("web shop/api-0"),
        "{groups}"
    );
}

#[test]
fn newest_dumps_are_counted_with_an_at_sign_too() {
    let workstation = Workstation::with_history();
    for (at, tilde) in [("@0", "latest"), ("@1", "~1"), ("@3", "~3")] {
        let id = |reference: &str| {
            workstation.json(&["info", reference, "--json"])["manifest"]["id"].clone()
        };
        assert_eq!(id(at), id(tilde), "{at}");
    }
}
