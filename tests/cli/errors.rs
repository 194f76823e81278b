//! All that a user reads when a command fails, in one place: standard error and exit status as snapshots.
//! Failures of buckets are in `s3/failures.rs`.

use std::os::unix::process::CommandExt;

use super::*;

/// Runs each command and puts what it prints below it, as a terminal would show it.
fn page<'w>(workstation: &Workstation, lines: impl IntoIterator<Item = &'w [&'w str]>) -> String {
    let mut page = String::new();
    for words in lines {
        page.push_str(&entry(&words.join(" "), &workstation.run(words)));
    }
    page
}

fn entry(line: &str, answer: &Answer) -> String {
    assert_eq!(answer.out, "", "{line}");
    assert_ne!(answer.code, 0, "{line}");
    assert!(
        !answer.err.contains(['\u{1b}', '\r']),
        "{line}: {:?}",
        answer.err
    );
    format!("$ cdh {line}\n{}[{}]\n\n", answer.err, answer.code)
}

/// A dump as far as listings see it. Ids differ in their last part only.
fn plant(store: &Path, last: &str) {
    let day = store.join("dumps/2026-01-31");
    fs::create_dir_all(&day).unwrap();
    let stem =
        format!("123456Z_-_-_app_SIGSEGV_01234567_complete_3fa85f64-5717-4562-b3fc-{last:0>12}");
    fs::write(day.join(format!("{stem}.zip")), "PK\x03\x04half a zip").unwrap();
    fs::write(day.join(format!("{stem}.manifest.json")), "{}").unwrap();
}

#[test]
fn errors_of_arguments_and_files_say_what_failed_and_the_next_step() {
    let workstation = Workstation::new();
    fs::write(workstation.path("empty"), "").unwrap();
    fs::write(workstation.path("text"), "this is not a core").unwrap();
    fs::write(workstation.path("core.gz"), [0x1f, 0x8b, 8, 0]).unwrap();
    fs::write(workstation.path("cut.zip"), b"PK\x03\x04half a zip").unwrap();
    fs::create_dir(workstation.path("directory")).unwrap();
    fs::create_dir(workstation.path("store")).unwrap();
    let elf = fs::read(crash().core()).unwrap();
    fs::write(workstation.path("head"), &elf[..100]).unwrap();
    let mistakes: [&[&str]; 51] = [
        &["ls"],
        &["ls", "--namespace", "nope"],
        &["groups"],
        &["bt", "nope"],
        &["bt", "latest"],
        &["info", "~3"],
        &["bt", "./nope"],
        &["bt", "empty"],
        &["bt", "text"],
        &["bt", "core.gz"],
        &["bt", "directory"],
        &["debug", "text"],
        &["diff", "nope", "text"],
        &["sysroot", "nope"],
        &["fetch", "nope"],
        &["import", "text"],
        &["import", "empty"],
        &["import", "nope"],
        &["import", "directory"],
        &["import", "cut.zip"],
        &["info", "cut.zip"],
        &["bt", "head"],
        &["rm", "nope"],
        &["gc"],
        &["gc", "--older-than", "soon"],
        &["gc", "--max-total", "2q"],
        &["share", "nope"],
        &["share", "nope", "--expires", "5"],
        &["share", "nope", "--expires", "30d"],
        &["drops"],
        &["drops", "--since", "1d"],
        &["import", "--image", "@sha256:00", "text"],
        &["import", "--image", "shop/api", "text"],
        &["tui"],
        &["ls", "--since", "someday"],
        &["ls", "--since", "2026-02-01", "--until", "2026-01-31"],
        &["groups", "since:2026-02-01", "until:2026-01-31"],
        &["groups", "--signal", "oops"],
        &["info", "@3"],
        &["ls", "--signal", "oops"],
        &["ls", "--limit", "many"],
        &["lss"],
        &["bt"],
        &["bt", "--sysroot", "nowhere", "nope"],
        &["bt", "--image", ":::", "nope"],
        &["bt", "--image", "a@b", "nope"],
        &["debug", "--debug-image", "A B", "nope"],
        &["--store", "", "info", "./nope"],
        &["--store", "s3://", "ls"],
        &["--store", "s3://bucket/prefix?secret=1", "ls"],
        &["--store", "s3://bucket?endpoint=minio:9000", "ls"],
    ];
    insta::assert_snapshot!("arguments", page(&workstation, mistakes));
}

#[test]
fn errors_of_stores_name_the_store_that_was_meant() {
    let workstation = Workstation::new();
    let config =
        "[stores.prod]\nurl = \"s3://crashes/prod\"\n[stores.dev]\nurl = \"/nowhere/dev\"\n";
    fs::write(workstation.path("config.toml"), config).unwrap();
    fs::write(workstation.path("text"), "this is not a core").unwrap();
    plant(&workstation.path("data/team/live"), "1");
    fs::create_dir_all(workstation.path("data/old")).unwrap();
    let config = ["--config", "config.toml", "--store"];
    let with = |store: &'static str, words: &[&'static str]| {
        let mut line = config.to_vec();
        line.push(store);
        line.extend(words);
        line
    };
    let core = crash().core().display().to_string();
    let mut lines = vec![
        with("prdo", &["ls"]),
        with("staging", &["ls"]),
        with("dev", &["ls"]),
        with("text", &["ls"]),
        with("./prdo", &["ls"]),
        with("data/team/liev", &["ls"]),
        with("data/old", &["ls"]),
        with("data/old", &["bt", "latest"]),
        with("data/old", &["groups"]),
        with("data/team/live", &["ls", "--exe", "nope"]),
        with("gopher://x", &["ls"]),
        vec!["--store", "prdo", "ls"],
    ];
    for reading in ["info", "bt", "debug", "fetch", "rm", "share", "sysroot"] {
        lines.push(with("prdo", &[reading, "latest"]));
    }
    for reading in ["groups", "drops", "gc --max-total 0"] {
        lines.push(with("prdo", &reading.split(' ').collect::<Vec<_>>()));
    }
    let text = page(&workstation, lines.iter().map(Vec::as_slice));
    insta::assert_snapshot!("stores", text);
    let import = [
        "--config",
        "config.toml",
        "--store",
        "prdo",
        "import",
        &core,
    ];
    let refused = workstation.run(&import);
    assert_eq!(refused.code, 2, "{}", refused.err);
    assert!(
        refused.err.contains("did you mean `prod`?"),
        "{}",
        refused.err
    );
    assert!(!workstation.path("prdo").exists());
    let import = ["--config", "config.toml", "--store", "new", "import", &core];
    assert_eq!(workstation.run(&import).code, 0);
    assert!(workstation.path("new/dumps").is_dir());
}

#[test]
fn errors_of_the_config_file_name_line_and_column() {
    let workstation = Workstation::new();
    let files = [
        "store = \"prod\n",
        "# mine\nstroe = \"prod\"\n",
        "colour = true\n",
        "store = 5\n",
        "[images]\noffline = \"yes\"\n",
        "[images]\n  ofline = true\n",
        "[stores]\nprod = \"s3://crashes\"\n",
        "[stores.prod]\nurrl = \"s3://crashes\"\n",
        "store = \"prod\"\n[stores.prod]\nurl = \"s3://crashes\"\nregoin = \"eu-west-1\"\n",
        "store = \"prod\"\n\n[stores.prod]\nurl = \"gopher://crashes\"\n",
        "store = { url = \"s3://crashes\", timeout = 0 }\n",
        "# mine\nstore = \"s3://crashes?regoin=eu\"\n",
        "store = \"s3:/crashes/prod\"\n",
        "debugger = 5\n",
    ];
    let mut page = String::new();
    for file in files {
        fs::write(workstation.path("config.toml"), file).unwrap();
        let words = ["--config", "config.toml", "ls"];
        let output = workstation.command(&words).env_remove("CDH_STORE").output();
        let answer = workstation.answer(output.unwrap());
        page.push_str(&format!("{file}{}", entry(&words.join(" "), &answer)));
    }
    page.push_str(&entry(
        "--config nope ls",
        &workstation.run(&["--config", "nope", "ls"]),
    ));
    insta::assert_snapshot!("config", page);
}

#[test]
fn errors_of_stored_dumps_have_the_status_of_their_kind() {
    let workstation = Workstation::new();
    let store = workstation.path("store");
    for number in 1..=12 {
        plant(&store, &number.to_string());
    }
    let lines: [&[&str]; 8] = [
        &["bt", "3fa8"],
        &["bt", "3fa85f64-5717-4562-b3fc-00000000000"],
        &["bt", "3fa85f64-5717-4562-b3fc-000000000001"],
        &["info", "~12"],
        &["rm", "latest"],
        &["gc", "--max-total", "0"],
        &["share", "latest"],
        &["fetch", "latest", "~1"],
    ];
    insta::assert_snapshot!("dumps", page(&workstation, lines));
}

#[test]
fn damaged_core_in_a_bundle_exits_with_4() {
    let workstation = Workstation::new();
    workstation.import(&crash().core());
    let key = workstation.json(&["ls", "-o", "json"])[0]["key"].clone();
    let path = workstation.path("store").join(key.as_str().unwrap());
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0xff;
    fs::write(workstation.path("damaged.zip"), &bytes).unwrap();
    let answer = workstation.run(&["fetch", "./damaged.zip", "-d", "case"]);
    assert_eq!(answer.code, 4, "{}", answer.err);
    assert!(answer.err.contains("hint: "), "{}", answer.err);
}

/// As a user who is not root, who may read everything.
#[test]
fn store_without_permission_says_so() {
    const NOBODY: u32 = 65534;
    let workstation = Workstation::new();
    let mode = |path: &Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    fs::create_dir(workstation.path("store")).unwrap();
    fs::write(workstation.path("core"), "x").unwrap();
    mode(workstation.dir.path(), 0o755);
    mode(&workstation.path("store"), 0o700);
    mode(&workstation.path("core"), 0o600);
    let mut page = String::new();
    for words in [["ls"].as_slice(), &["bt", "./core"], &["import", "./core"]] {
        let mut command = workstation.command(words);
        if rustix::process::geteuid().is_root() {
            command.uid(NOBODY).gid(NOBODY);
        } else {
            mode(&workstation.path("store"), 0);
            mode(&workstation.path("core"), 0);
        }
        // The checkout may be out of reach for that user.
        let Ok(output) = command.output() else {
            cdh_testkit::skip("another user cannot run the program");
            return;
        };
        page.push_str(&entry(&words.join(" "), &workstation.answer(output)));
    }
    mode(&workstation.path("store"), 0o700);
    insta::assert_snapshot!("permissions", page);
}

#[test]
fn missing_debugger_is_named_with_its_package_and_the_backtrace_is_printed() {
    let workstation = Workstation::new();
    workstation.import(&crash().core());
    fs::write(workstation.path("config.toml"), "debugger = \"lldb-77\"\n").unwrap();
    let run = |words: &[&str], variable: &str| {
        let mut command = workstation.command(words);
        // Nothing is installed there.
        command.env("PATH", workstation.path("bin"));
        if !variable.is_empty() {
            command.env("CDH_DEBUGGER", variable);
        }
        workstation.answer(command.output().unwrap())
    };
    let table = [
        (["debug", "latest"].as_slice(), "", "`gdb`:", " gdb"),
        (
            &["debug", "latest", "--debugger", "lldb"],
            "",
            "`lldb` (from --debugger):",
            " lldb",
        ),
        (
            &["debug", "latest", "--debugger", "lldb"],
            "gdb",
            "`lldb` (from --debugger):",
            " lldb",
        ),
        (
            &["debug", "latest"],
            "lldb",
            "`lldb` (from CDH_DEBUGGER):",
            " lldb",
        ),
        (
            &["--config", "config.toml", "debug", "latest"],
            "",
            "`lldb-77` (from config.toml):",
            " lldb",
        ),
        (
            &["debug", "latest", "--debugger", "gbd"],
            "",
            "`gbd` (from --debugger):",
            "check the name",
        ),
        (
            &["debug", "latest", "--debugger", "/opt/gdb"],
            "",
            "`/opt/gdb` (from --debugger):",
            "check the path",
        ),
    ];
    for (words, variable, named, hint) in table {
        let answer = run(words, variable);
        assert_eq!(answer.code, 2, "{}", answer.err);
        let error = format!("error: cannot start debugger {named} program not found\n");
        assert!(answer.err.contains(&error), "{}", answer.err);
        let hints: Vec<&str> = answer
            .err
            .lines()
            .filter(|line| line.starts_with("hint: "))
            .collect();
        assert!(hints[0].contains(hint), "{}", answer.err);
        assert!(
            hints.last().unwrap().contains("`cdh bt <DUMP>`"),
            "{}",
            answer.err
        );
        assert!(answer.out.contains("#0 "), "{}", answer.out);
    }
    // Nothing has to be installed to see the command line.
    let printed = run(&["debug", "latest", "--print"], "lldb");
    assert!(
        printed.out.starts_with("lldb "),
        "{}{}",
        printed.out,
        printed.err
    );
}

#[test]
fn deletions_without_a_terminal_neither_ask_nor_hang_nor_draw() {
    let workstation = Workstation::new();
    let id = workstation.import(&crash().core());
    for words in [["rm", "latest"].as_slice(), &["gc", "--max-total", "0"]] {
        let answer = workstation.run(words);
        assert_eq!(answer.code, 2, "{}", answer.err);
        assert!(answer.err.contains("pass `--yes`"), "{}", answer.err);
        assert!(!answer.err.contains(['\u{1b}', '\r']), "{:?}", answer.err);
    }
    for words in [
        ["fetch", "latest", "-d", "case"].as_slice(),
        &["bt", "latest"],
        &["rm", &id, "--yes"],
    ] {
        let answer = workstation.run(words);
        assert_eq!(answer.code, 0, "{}", answer.err);
        let all = format!("{}{}", answer.out, answer.err);
        assert!(!all.contains(['\u{1b}', '\r']), "{all:?}");
    }
}

#[test]
fn unknown_variables_are_reported_once_by_every_command() {
    let workstation = Workstation::new();
    let set = [
        ("CDH_SHIPING_MODE", "off"),
        ("CDH_STROE", "/x"),
        ("CDH_OFFLINE", "1"),
    ];
    let expected = "warning: unknown variable `CDH_SHIPING_MODE` (did you mean `CDH_SHIPPING_MODE`?), unknown \
                    variable `CDH_STROE` (did you mean `CDH_STORE`?)\n";
    for words in [
        ["ls"].as_slice(),
        &["info", "./nope"],
        &["agent", "status", "--no-store"],
        &["agent", "check-config"],
    ] {
        let answer = workstation.with(words, &set);
        assert_eq!(
            answer.err.matches(expected).count(),
            1,
            "{words:?}: {}",
            answer.err
        );
        assert_eq!(
            answer.err.matches("CDH_STROE").count(),
            1,
            "{words:?}: {}",
            answer.err
        );
    }
    let script = workstation.with(&["completions", "bash"], &set);
    assert_eq!(script.err, "");
}
