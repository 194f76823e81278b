//! One way to choose a format, the same content in each, and Ctrl-C.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::process::{Child, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use super::*;

/// A busy machine gets this long.
const PATIENCE: Duration = Duration::from_secs(120);

/// Fields of a line of RFC 4180.
fn fields(line: &str) -> Vec<String> {
    let (mut fields, mut field, mut quoted) = (Vec::new(), String::new(), false);
    let mut letters = line.chars().peekable();
    while let Some(letter) = letters.next() {
        match (letter, quoted) {
            ('"', true) if letters.peek() == Some(&'"') => field.extend(letters.next()),
            ('"', _) => quoted = !quoted,
            (',', false) => fields.push(std::mem::take(&mut field)),
            (letter, _) => field.push(letter),
        }
    }
    fields.push(field);
    fields
}

/// Rows of CSV as the objects that JSON has, with every value as text.
fn rows_of_csv(text: &str) -> Vec<Vec<(String, String)>> {
    let mut lines = text.lines();
    let header = fields(lines.next().unwrap());
    let row = |line: &str| {
        let cells = fields(line);
        assert_eq!(cells.len(), header.len(), "{line}");
        let mut row: Vec<_> = header.iter().cloned().zip(cells).collect();
        row.sort();
        row
    };
    lines.map(row).collect()
}

fn rows_of_json(rows: &Value) -> Vec<Vec<(String, String)>> {
    let cell = |value: &Value| match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let row = |row: &Value| {
        let fields = row.as_object().unwrap().iter();
        let mut row: Vec<_> = fields
            .map(|(name, value)| (name.clone(), cell(value)))
            .collect();
        row.sort();
        row
    };
    rows.as_array().unwrap().iter().map(row).collect()
}

/// Three dumps of two crashes: two of `app` with a workload, one of another program.
fn workstation_with_dumps() -> Workstation {
    let workstation = Workstation::new();
    let core = crash().core().display().to_string();
    let hook = cdh_testkit::corpus::fixtures().join("bare/products/hook/core");
    let hook = hook.to_str().unwrap();
    let workload = [
        "--namespace",
        "shop",
        "--pod",
        "api-0",
        "--label",
        "a=b,\"c\"",
    ];
    for (core, workload) in [(core.as_str(), &workload[..]), (&core, &[]), (hook, &[])] {
        let words = ["import", core].into_iter().chain(workload.iter().copied());
        assert_eq!(workstation.run(&words.collect::<Vec<_>>()).code, 0);
    }
    workstation
}

#[test]
fn csv_and_json_lines_have_the_content_of_json() {
    let workstation = workstation_with_dumps();
    for words in [
        &["ls"][..],
        &["ls", "--sort", "size", "--limit", "2"],
        &["ls", "--group"],
        &["groups"],
        &["groups", "exe:app"],
    ] {
        let run = |format| {
            let words: Vec<&str> = words.iter().copied().chain(["-o", format]).collect();
            let answer = workstation.run(&words);
            assert_eq!(answer.code, 0, "{words:?}: {}", answer.err);
            answer.out
        };
        let json: Value = serde_json::from_str(&run("json")).unwrap();
        assert!(!json.as_array().unwrap().is_empty());
        assert_eq!(rows_of_csv(&run("csv")), rows_of_json(&json), "{words:?}");
        let lines = run("jsonl");
        let lines: Vec<Value> = { lines.lines() }
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(Value::from(lines), json, "{words:?}");
        let ids: Vec<String> = run("id").lines().map(str::to_owned).collect();
        let key = if json[0].get("id").is_some() {
            "id"
        } else {
            "latest"
        };
        let expected: Vec<&str> = { json.as_array().unwrap().iter() }
            .map(|row| row[key].as_str().unwrap())
            .collect();
        assert_eq!(ids, expected, "{words:?}");
        assert!(run("table").lines().count() > 1 && run("wide").lines().count() > 1);
    }
}

#[test]
fn group_sort_and_limit_work_with_every_format() {
    let workstation = workstation_with_dumps();
    for format in ["table", "wide", "json", "jsonl", "csv", "id"] {
        let count = |words: &[&str]| {
            let words: Vec<&str> = words.iter().copied().chain(["-o", format]).collect();
            let answer = workstation.run(&words);
            assert_eq!(answer.code, 0, "{words:?}: {}", answer.err);
            match format {
                "json" => {
                    let rows: Value = serde_json::from_str(&answer.out).unwrap();
                    rows.as_array().unwrap().len()
                }
                "jsonl" | "id" => answer.out.lines().count(),
                _ => answer.out.lines().count() - 1,
            }
        };
        assert_eq!(count(&["ls"]), 3, "{format}");
        assert_eq!(count(&["ls", "--limit", "2"]), 2, "{format}");
        for sort in ["time", "size", "exe", "signal", "pod", "count"] {
            let by = ["--sort", sort];
            assert_eq!(count(&["ls", "--group", by[0], by[1]]), 2, "{format}");
            assert_eq!(
                count(&["ls", "--group", by[0], by[1], "--limit", "1"]),
                1,
                "{format}"
            );
            assert_eq!(count(&["groups", "--no-top", by[0], by[1]]), 2, "{format}");
        }
    }
    let first =
        |sort| workstation.json(&["ls", "--group", "--sort", sort, "-o", "json"])[0].clone();
    assert_eq!(first("count")["count"], 2);
    assert_eq!(first("exe")["exe"], "app");
    let sizes = workstation.json(&["groups", "--sort", "size", "-o", "json", "--no-top"]);
    assert!(
        sizes[0]["bytes"].as_u64() >= sizes[1]["bytes"].as_u64(),
        "{sizes}"
    );
    let refused = workstation.run(&["ls", "--sort", "count"]);
    assert_eq!(refused.code, 2);
    assert!(
        refused.err.contains("hint: add `--group`"),
        "{}",
        refused.err
    );
    // Threads with equal stacks, of a backtrace.
    let core = crash().core().display().to_string();
    let document = workstation.json(&["bt", &core, "--group", "-o", "json", "--limit", "3"]);
    let groups = document["thread_groups"].as_array().unwrap();
    let threads = document["backtrace"]["threads"].as_array().unwrap();
    let members: usize = groups
        .iter()
        .map(|group| group.as_array().unwrap().len())
        .sum();
    assert!(
        members == threads.len() && groups.len() < threads.len(),
        "{groups:?}"
    );
    assert_eq!(groups[0][0], threads[0]["tid"]);
}

#[test]
fn every_command_with_json_takes_both_spellings() {
    let workstation = workstation_with_dumps();
    for words in [
        &["ls"][..],
        &["groups", "--no-top"],
        &["info", "latest"],
        &["fetch", "latest"],
        &["rm", "latest", "--dry-run"],
        &["gc", "--max-total", "0", "--dry-run"],
        &["cache", "ls"],
        &["agent", "check-config"],
    ] {
        let with = |more: &[&str]| {
            let words: Vec<&str> = words.iter().chain(more).copied().collect();
            workstation.run(&words).out
        };
        assert_eq!(with(&["-o", "json"]), with(&["--json"]), "{words:?}");
        assert_eq!(with(&["--output=json"]), with(&["--json"]), "{words:?}");
    }
    for words in [&["bt", "--help"], &["ls", "--help"]] {
        assert!(!workstation.run(words).out.contains("--json"));
    }
}

/// A server that accepts and never answers; reports a connection.
fn silent_server() -> (u16, mpsc::Receiver<()>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let (sender, connected) = mpsc::channel();
    std::thread::spawn(move || {
        let mut open = Vec::new();
        for connection in listener.incoming() {
            let mut connection = connection.unwrap();
            let mut first = [0];
            // The request is on its way.
            if connection.read(&mut first).is_ok_and(|count| count > 0) {
                let _ = sender.send(());
            }
            open.push(connection);
        }
    });
    (port, connected)
}

/// A bucket on a server of this machine.
fn bucket_at(port: u16) -> String {
    format!("s3://bucket?endpoint=http://127.0.0.1:{port}&region=eu&path-style=true")
}

fn interrupt(child: &Child) {
    let pid = rustix::process::Pid::from_child(child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
}

#[test]
fn interrupt_ends_every_command_that_waits_for_a_store_with_130() {
    let workstation = Workstation::new();
    let core = crash().core().display().to_string();
    for words in [
        &["ls"][..],
        &["groups"],
        &["info", "latest"],
        &["bt", "latest"],
        &["fetch", "latest"],
        &["diff", "latest", "@1"],
        &["debug", "latest"],
        &["sysroot", "latest"],
        &["drops"],
        &["import", &core],
        &["rm", "latest", "--yes"],
        &["gc", "--max-total", "0", "--yes"],
        &["share", "latest"],
        &["agent", "doctor"],
        &["agent", "status"],
    ] {
        let (port, connected) = silent_server();
        let url = bucket_at(port);
        let plain = workstation.command(words);
        // The tests may have been started in the background, with SIGINT ignored.
        let mut command = Command::new("env");
        command
            .arg("--default-signal=INT")
            .arg(plain.get_program())
            .args(plain.get_args())
            .current_dir(workstation.dir.path())
            .env_clear()
            .envs(
                plain
                    .get_envs()
                    .filter_map(|(name, value)| Some((name, value?))),
            )
            .env("CDH_STORE", url)
            .env("AWS_ACCESS_KEY_ID", "AK")
            .env("AWS_SECRET_ACCESS_KEY", "hush")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        if connected.recv_timeout(PATIENCE).is_err() {
            let _ = child.kill();
            let output = child.wait_with_output().unwrap();
            panic!(
                "{words:?} did not connect: {}",
                String::from_utf8_lossy(&output.stderr)
            );
        }
        interrupt(&child);
        let output = child.wait_with_output().unwrap();
        let err = String::from_utf8_lossy(&output.stderr);
        assert_eq!(
            output.status.code(),
            Some(130),
            "{words:?}: {:?} {err}",
            output.status
        );
    }
}

#[test]
fn every_command_ends_with_3_if_the_store_cannot_be_reached() {
    let workstation = Workstation::new();
    let core = crash().core().display().to_string();
    let state = workstation.path("state").display().to_string();
    // A port that was free a moment ago.
    let port = { TcpListener::bind(("127.0.0.1", 0)).unwrap() }
        .local_addr()
        .unwrap()
        .port();
    let url = bucket_at(port);
    let commands = [
        &["ls"][..],
        &["ls", "--group", "-o", "csv"],
        &["groups", "-o", "json"],
        &["info", "latest"],
        &["bt", "latest"],
        &["fetch", "latest"],
        &["diff", "latest", "@1"],
        &["debug", "latest"],
        &["sysroot", "latest"],
        &["drops"],
        &["import", &core],
        &["rm", "latest", "--yes"],
        &["gc", "--max-total", "0", "--yes"],
        &["share", "latest"],
        &["agent", "status", "--state", &state],
    ];
    let check = &|words: &[&str]| {
        let variables = [
            ("CDH_STORE", url.as_str()),
            ("AWS_ACCESS_KEY_ID", "AK"),
            ("AWS_SECRET_ACCESS_KEY", "hush"),
        ];
        let answer = workstation.with(words, &variables);
        assert_eq!(answer.code, 3, "{words:?}: {}", answer.err);
        let what = answer.err + &answer.out;
        assert!(what.contains("connection refused"), "{words:?}: {what}");
    };
    // Each retries for a while.
    std::thread::scope(|scope| {
        for words in commands {
            scope.spawn(move || check(words));
        }
    });
}

#[test]
fn interrupt_is_ignored_by_a_command_that_was_started_so() {
    let workstation = Workstation::new();
    let (port, connected) = silent_server();
    let url = bucket_at(port);
    let mut command = Command::new("sh");
    command.args([
        "-c",
        "trap '' INT; exec \"$0\" ls",
        env!("CARGO_BIN_EXE_cdh"),
    ]);
    command
        .env_clear()
        .env("HOME", workstation.dir.path())
        .env("CDH_STORE", url);
    command
        .env("AWS_ACCESS_KEY_ID", "AK")
        .env("AWS_SECRET_ACCESS_KEY", "hush");
    let mut child = command
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    connected.recv_timeout(PATIENCE).unwrap();
    interrupt(&child);
    // The signal was delivered before this one.
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    use std::os::unix::process::ExitStatusExt;
    assert_eq!(child.wait().unwrap().signal(), Some(15));
}

/// Runs `cdh` on a terminal of its own, and types `keys` when it has printed `after`. Returns status and output.
fn typed(
    workstation: &Workstation,
    words: &str,
    after: &str,
    keys: &[u8],
) -> (Option<i32>, String) {
    let cdh = env!("CARGO_BIN_EXE_cdh");
    // The tests may have been started in the background, with SIGINT ignored.
    let mut command = Command::new("env");
    command
        .args(["--default-signal=INT", "script", "-qec"])
        .args([&format!("{cdh} {words}"), "/dev/null"])
        .current_dir(workstation.dir.path())
        .env("HOME", workstation.dir.path())
        .env("CDH_STORE", workstation.path("store"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut keyboard = child.stdin.take().unwrap();
    let mut screen = BufReader::new(child.stdout.take().unwrap());
    let mut shown = String::new();
    while !shown.contains(after) {
        let bytes = screen.fill_buf().unwrap();
        assert!(!bytes.is_empty(), "{words}: {shown}");
        shown.push_str(&String::from_utf8_lossy(bytes));
        let count = bytes.len();
        screen.consume(count);
    }
    keyboard.write_all(keys).unwrap();
    keyboard.flush().unwrap();
    let mut rest = Vec::new();
    screen.read_to_end(&mut rest).unwrap();
    shown.push_str(&String::from_utf8_lossy(&rest));
    (child.wait().unwrap().code(), shown)
}

#[test]
fn interrupt_at_a_question_ends_with_130_and_deletes_nothing() {
    let workstation = workstation_with_dumps();
    let count = || workstation.run(&["ls", "-o", "id"]).out.lines().count();
    for words in ["rm latest", "gc --max-total 0"] {
        let (code, shown) = typed(&workstation, words, "[y/N]", b"\x03");
        assert_eq!((code, count()), (Some(130), 3), "{words}: {shown}");
        let (hidden, visible) = (shown.rfind("\x1b[?25l"), shown.rfind("\x1b[?25h"));
        assert!(hidden <= visible, "the cursor stays hidden: {shown:?}");
    }
    assert_eq!(
        typed(&workstation, "rm latest", "[y/N]", b"n\n").0,
        Some(130)
    );
    assert_eq!(
        (typed(&workstation, "rm latest", "[y/N]", b"y\n").0, count()),
        (Some(0), 2)
    );
}

#[test]
fn version_names_the_target_and_the_short_form_only_the_number() {
    let workstation = Workstation::new();
    let number = format!("cdh {}", env!("CARGO_PKG_VERSION"));
    let long = workstation.run(&["--version"]);
    // Releases name the commit in the same place.
    let target = format!(" {}-unknown-linux-gnu)\n", std::env::consts::ARCH);
    assert!(
        long.out.starts_with(&format!("{number} (")) && long.out.ends_with(&target),
        "{}",
        long.out
    );
    assert_eq!(workstation.run(&["-V"]).out, format!("{number}\n"));
}
