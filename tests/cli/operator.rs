//! What an operator reads of an agent: its log at the start, `status`, and why dumps stay on the node.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;

use serde_json::Value;

use super::agent::Agent;
use super::{Answer, Workstation};

const NOBODY: u32 = 65_534;
/// Credentials of no server.
const KEYS: [(&str, &str); 3] = [
    ("AWS_ACCESS_KEY_ID", "AKIANOBODY"),
    ("AWS_SECRET_ACCESS_KEY", "secret"),
    ("AWS_EC2_METADATA_DISABLED", "true"),
];

impl Workstation {
    fn status(&self, store: &str) -> Answer {
        let state = self.path("state");
        let words = ["agent", "status", "--state", state.to_str().unwrap()];
        let [key, secret, metadata] = KEYS;
        self.with(&words, &[("CDH_STORE", store), key, secret, metadata])
    }

    fn own_store(&self) -> String {
        self.path("store").display().to_string()
    }
}

/// Whether a line begins with a time as RFC 3339 writes it, in UTC.
fn has_time(line: &str) -> bool {
    line.split(' ')
        .next()
        .is_some_and(|word| word.ends_with('Z') && word.parse::<jiff::Timestamp>().is_ok())
}

#[test]
fn agent_says_at_its_start_what_it_is_and_does() {
    let workstation = Workstation::new();
    let mut agent = Agent::start(
        &workstation,
        workstation.command(&["agent", "run", "--interval", "10m"]),
    );
    agent.wait_for("on SIGTERM: ");
    let log = agent.stop();
    let version = format!("Z cdh {} agent started, pid ", env!("CARGO_PKG_VERSION"));
    let store = format!(
        "Z store: {} (CDH_STORE); ships every 600 s",
        workstation.own_store()
    );
    let spool = format!("Z spool: {}", workstation.path("state/spool").display());
    for text in [
        version.as_str(),
        "Z warning: capture: not installed here (core_pattern is ",
        &store,
        &spool,
        ", quota ",
        "Z policy: default full, no rules; dumps of setuid programs stay on this node",
        "Z on SIGTERM: stops uploads (the next start resumes them); an installed handler keeps capturing",
        "Z stopped: the spool is empty",
    ] {
        assert!(
            log.iter().any(|line| line.contains(text)),
            "{text} in {log:#?}"
        );
    }
    assert!(log.iter().all(|line| has_time(line)), "{log:#?}");

    let words = ["agent", "run", "--log-format", "json"];
    let mut agent = Agent::start(&workstation, workstation.command(&words));
    let started: Value = serde_json::from_str(&agent.wait_for("\"started\"")).unwrap();
    agent.stop();
    assert_eq!(started["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(started["store"], workstation.own_store().as_str());
    assert_eq!(started["policy"]["setuid"], "keep");
    assert_eq!(started["on_sigterm"], "stay_installed");
    assert_eq!(started["shipping"], "events");
    assert!(started["mode"].is_string() && started["release"].is_string());
    assert!(started["spool"].is_string() && started["spool_quota_bytes"].is_u64());
}

#[test]
fn log_has_no_times_where_the_journal_adds_them() {
    use std::os::unix::fs::MetadataExt;
    let workstation = Workstation::new();
    let log = fs::File::create(workstation.path("log")).unwrap();
    let journal = log.metadata().unwrap();
    let stream = format!("{}:{}", journal.dev(), journal.ino());
    let run = |stream: &str| {
        fs::write(workstation.path("log"), "").unwrap();
        let file = fs::File::options()
            .append(true)
            .open(workstation.path("log"));
        let mut command = workstation.command(&["agent", "run", "--state"]);
        command.arg(workstation.path("state")).stderr(file.unwrap());
        let mut child = command.env("JOURNAL_STREAM", stream).spawn().unwrap();
        let read = || fs::read_to_string(workstation.path("log")).unwrap();
        for _ in 0..600 {
            if read().contains("on SIGTERM") {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        child.wait().unwrap();
        read()
    };
    let text = run(&stream);
    assert!(
        text.starts_with("cdh ") && !text.lines().any(has_time),
        "{text}"
    );
    // A stream that is not the journal's, although an ancestor's was.
    let text = run("1:1");
    assert!(!text.is_empty() && text.lines().all(has_time), "{text}");
}

#[test]
fn status_exits_with_the_failure_of_the_store() {
    let workstation = Workstation::new();
    workstation.crash_of("api", "aaaa", 1);
    let answer = workstation.status("s3://dumps/x?endpoint=http://127.0.0.1:1&timeout=1");
    assert_eq!(answer.code, 3, "{}", answer.out);
    for text in ["FAILS", "cannot reach", "hint: check host and port"] {
        assert!(answer.out.contains(text), "{text} in {}", answer.out);
    }
    fs::write(workstation.path("file"), "").unwrap();
    let answer = workstation.status(workstation.path("file").to_str().unwrap());
    assert_eq!(answer.code, 2, "{}", answer.out);
    // A directory that is not there is created with the first dump, and not by a look.
    let answer = workstation.status(&workstation.own_store());
    assert!(
        answer.out.contains("created with the first dump"),
        "{}",
        answer.out
    );
    assert!(!workstation.path("store").exists());
    assert!(answer.code < 2, "{}", answer.out);
    let words = ["agent", "status", "--no-store", "--state"];
    let mut command = workstation.command(&words);
    command.arg(workstation.path("state"));
    let unreachable = "s3://dumps/x?endpoint=http://127.0.0.1:1";
    let output = command.env("CDH_STORE", unreachable).output().unwrap();
    assert!(workstation.answer(output).code < 2);
}

#[test]
fn status_reports_what_the_running_agent_experiences() {
    let workstation = Workstation::new();
    let id = workstation.crash_of("api", "aaaa", 1);
    let gone = "s3://dumps/x?endpoint=http://127.0.0.1:1&timeout=1";
    let mut command = workstation.command(&["agent", "run"]);
    command.env("CDH_STORE", gone).envs(KEYS);
    let mut agent = Agent::start(&workstation, command);
    agent.wait_for("error: the store fails: ");
    // The record follows the log by a moment.
    let mut answer = workstation.status(gone);
    for _ in 0..100 {
        if answer.out.contains("the agent reports this since") {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
        answer = workstation.status(gone);
    }
    agent.stop();
    assert_eq!(answer.code, 3, "{}", answer.out);
    for text in [
        "shipper          running",
        "the agent reports this since",
        "next try at ",
        &id.short(),
        "waits: the store fails; next try at ",
    ] {
        assert!(answer.out.contains(text), "{text} in {}", answer.out);
    }
    let answer = workstation.status(&workstation.own_store());
    assert!(
        answer.out.contains("waits: no agent runs here"),
        "{}",
        answer.out
    );
}

#[test]
fn kept_setuid_dump_is_logged_once_explained_by_status_and_found_by_info() {
    let workstation = Workstation::new();
    let id = workstation.crash_of("su", "aaaa", 2);
    let kept = format!("kept {id} su on this node");
    for round in 0..2 {
        let mut agent = Agent::start(&workstation, workstation.command(&["agent", "run"]));
        // Something that is shipped after the kept one was looked at.
        workstation.crash_of("api", "bbbb", 1);
        agent.wait_for("shipped ");
        let log = agent.stop();
        let told = log.iter().filter(|line| line.contains(&kept)).count();
        assert_eq!(told, usize::from(round == 0), "round {round}: {log:#?}");
        let captured = format!("captured {id}");
        let captured = log.iter().filter(|line| line.contains(&captured)).count();
        assert_eq!(captured, usize::from(round == 0), "round {round}: {log:#?}");
    }
    let state = workstation.path("state");
    let state = state.to_str().unwrap();
    let answer = workstation.run(&["agent", "sweep", "--state", state]);
    assert_eq!(answer.code, 0);
    assert!(!answer.err.contains(&kept), "{}", answer.err);
    assert!(
        answer.err.contains("note: 1 dump of setuid programs kept"),
        "{}",
        answer.err
    );
    let answer = workstation.status(&workstation.own_store());
    for text in [
        "1 sealed (1 of them kept here)".to_owned(),
        format!("  {}  ", id.short()),
        "kept on this node: it is of a setuid program (`policy.setuid = \"keep\"`)".to_owned(),
        format!("cdh info {}", id.short()),
    ] {
        assert!(answer.out.contains(&text), "{text} in {}", answer.out);
    }
    let info = workstation.with(&["info", &id.short()], &[("CDH_STATE", state)]);
    assert_eq!(info.code, 0, "{}", info.err);
    assert!(info.out.contains(&id.to_string()) && info.out.contains("spool of this node"));
    // Without a spool of this node, it is unknown as before.
    let answer = workstation.with(&["info", &id.short()], &[("CDH_STATE", "/nowhere")]);
    assert_eq!(answer.code, 1, "{}", answer.err);
    // The command that status names ships it.
    let prefix = id.short().to_ascii_uppercase();
    let words = ["agent", "sweep", "--state", state, &prefix];
    let answer = workstation.with(&words, &[("CDH_POLICY_SETUID", "ship")]);
    assert_eq!(answer.code, 0, "{}", answer.err);
    assert!(
        answer.err.contains(&format!("shipped {id}")),
        "{}",
        answer.err
    );
    assert_eq!(workstation.run(&["info", &id.short()]).code, 0);
}

#[test]
fn status_without_root_says_what_it_cannot_see() {
    let workstation = Workstation::new();
    workstation.crash_of("su", "aaaa", 2);
    if !rustix::process::geteuid().is_root() {
        cdh_testkit::skip("only root can become another user");
        return;
    }
    fs::set_permissions(workstation.path(""), fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(workstation.path("state"), fs::Permissions::from_mode(0o700)).unwrap();
    let program = workstation.path("cdh");
    fs::copy(env!("CARGO_BIN_EXE_cdh"), &program).unwrap();
    let state = workstation.path("state");
    let run = |words: &[&str], store: Option<&str>| {
        let mut command = std::process::Command::new(&program);
        command.args(words).env_clear().current_dir("/");
        command.env("CDH_STATE", &state).env("HOME", "/nowhere");
        command.envs(store.map(|store| ("CDH_STORE", store)));
        workstation.answer(command.uid(NOBODY).gid(NOBODY).output().unwrap())
    };
    let answer = run(&["agent", "status"], None);
    assert!(answer.code < 2, "{}{}", answer.out, answer.err);
    for text in [
        "not visible      [WORKSTATION]/state: waiting dumps, shipper and backup; run `cdh agent status` as root",
        "store            unknown: only root",
    ] {
        assert!(answer.out.contains(text), "{text} in {}", answer.out);
    }
    for wrong in ["0 sealed", "not running", "problem"] {
        assert!(!answer.out.contains(wrong), "{wrong} in {}", answer.out);
    }
    fs::create_dir(workstation.path("empty")).unwrap();
    fs::set_permissions(workstation.path("empty"), fs::Permissions::from_mode(0o755)).unwrap();
    let empty = workstation.path("empty");
    let answer = run(&["info", "1d164a5d"], empty.to_str());
    assert_eq!(answer.code, 1, "{}", answer.err);
    assert!(
        answer.err.contains(
            "hint: if it was kept on this node, only root can read it: `sudo cdh info 1d164a5d`"
        ),
        "{}",
        answer.err
    );
}

#[test]
fn status_and_doctor_say_which_store_they_test_and_which_the_agent_uses() {
    let workstation = Workstation::new();
    let other = workstation.path("other").display().to_string();
    let state = workstation.path("state").display().to_string();
    let mut agent = Agent::start(&workstation, workstation.command(&["agent", "run"]));
    agent.wait_for("on SIGTERM: ");
    workstation.crash_of("api", "aaaa", 1);
    agent.wait_for("shipped ");
    // The record follows the log by a moment.
    let mut status = workstation.status(&other);
    for _ in 0..100 {
        if status.out.contains("as the running agent reports") {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
        status = workstation.status(&other);
    }
    for text in [
        "store            [WORKSTATION]/store (used by the running agent): works, as the running agent reports",
        "store            [WORKSTATION]/other (from CDH_STORE) (not used by the running agent): created with the first dump",
    ] {
        assert!(status.out.contains(text), "{text} in {}", status.out);
    }
    let same = workstation.status(&workstation.own_store());
    assert!(
        same.out
            .contains("[WORKSTATION]/store (from CDH_STORE): works"),
        "{}",
        same.out
    );
    let doctor = |store: Option<&str>| {
        let mut command = workstation.command(&["agent", "doctor", "--state", &state]);
        match store {
            Some(store) => command.env("CDH_STORE", store),
            None => command.env_remove("CDH_STORE"),
        };
        workstation.answer(command.output().unwrap()).out
    };
    let found = doctor(Some(&other));
    for text in [
        "read and deleted (from CDH_STORE)",
        "warning  store of the agent: the running agent uses another store, which was not tested: [WORKSTATION]/store",
        "fix: test it with `cdh agent doctor --store [WORKSTATION]/store`",
    ] {
        assert!(found.contains(text), "{text} in {found}");
    }
    let found = doctor(None);
    assert!(
        found.contains(
            "[WORKSTATION]/store: a test object was written, read and deleted (used by the running agent)"
        ),
        "{found}"
    );
    agent.stop();
    assert!(!doctor(Some(&workstation.own_store())).contains("store of the agent"));
}

#[test]
fn status_fails_for_a_directory_that_cannot_be_created() {
    let workstation = Workstation::new();
    workstation.crash_of("api", "aaaa", 1);
    fs::write(workstation.path("file"), "").unwrap();
    for store in [
        "/proc/none/store",
        "/sys/store",
        workstation.path("file/store").to_str().unwrap(),
    ] {
        let answer = workstation.status(store);
        assert_eq!(answer.code, 2, "{store}: {}", answer.out);
        assert!(answer.out.contains("FAILS"), "{store}: {}", answer.out);
    }
    let deep = workstation.path("a/b/c");
    let answer = workstation.status(deep.to_str().unwrap());
    assert!(
        answer.code < 2 && answer.out.contains("created with the first dump"),
        "{}",
        answer.out
    );
    let left: Vec<_> = fs::read_dir(workstation.path(""))
        .unwrap()
        .flatten()
        .map(|entry| entry.file_name())
        .collect();
    assert!(
        !workstation.path("a").exists()
            && left
                .iter()
                .all(|name| !name.to_string_lossy().starts_with('.')),
        "{left:?}"
    );
}

#[test]
fn agent_refuses_a_store_that_is_neither_a_name_nor_a_path() {
    let workstation = Workstation::new();
    let config = "# stores\nstore = \"prdo\"\n\n[stores.prod]\nurl = \"/srv/prod\"\n";
    fs::write(workstation.path("agent.toml"), config).unwrap();
    let state = workstation.path("state").display().to_string();
    for words in [
        &["agent", "run", "--state", &state][..],
        &["agent", "sweep", "--state", &state],
        &["agent", "status", "--state", &state],
        &["agent", "check-config"],
    ] {
        let mut command = workstation.command(&["--config", "agent.toml"]);
        let output = command
            .args(words)
            .env_remove("CDH_STORE")
            .output()
            .unwrap();
        let answer = workstation.answer(output);
        assert_eq!(answer.code, 2, "{words:?}: {}", answer.err);
        for text in [
            "error: unknown store `prdo` in agent.toml at line 2, column 1: ",
            "hint: did you mean `prod`?",
            "write it as a path: `./prdo`",
        ] {
            assert!(answer.err.contains(text), "{words:?}: {}", answer.err);
        }
    }
    assert!(!workstation.path("prdo").exists());
    // A directory of the same name does not make a slip right.
    fs::create_dir(workstation.path("prdo")).unwrap();
    let answer = workstation.with(
        &["agent", "status", "--state", &state],
        &[("CDH_STORE", "prdo")],
    );
    assert_eq!(answer.code, 2, "{}", answer.err);
    let answer = workstation.with(
        &["agent", "status", "--state", &state],
        &[("CDH_STORE", "./prdo")],
    );
    assert!(answer.code < 2, "{}{}", answer.out, answer.err);
}

#[test]
fn check_config_names_the_line_of_every_store_that_is_wrong() {
    let workstation = Workstation::new();
    let check = |text: &str| {
        fs::write(workstation.path("agent.toml"), text).unwrap();
        let mut command = workstation.command(&["agent", "check-config", "agent.toml"]);
        workstation.answer(command.env_remove("CDH_STORE").output().unwrap())
    };
    for (text, error, hint) in [
        (
            "store = \"s3://b?regoin=eu\"\n",
            "`agent.toml` at line 1, column 1: invalid store `s3://b?regoin=eu`: unknown option `regoin`",
            "did you mean `region`?",
        ),
        (
            "store = \"/srv/x\"\n[stores.old]\nurl = \"s3://b\"\nendpiont = \"http://x\"\n",
            "`agent.toml` at line 4, column 1: invalid store `endpiont=http://x`: unknown option `endpiont`",
            "did you mean `endpoint`?",
        ),
        (
            "store = \"/srv/x\"\n[stores.old]\nulr = \"s3://b\"\n",
            "`agent.toml` at line 3, column 1: a store needs `url`",
            "did you mean `url` instead of `ulr`?",
        ),
        (
            "stroe = \"/srv/x\"\n",
            "agent.toml:1: there is no table `[stroe]`",
            "did you mean `store`?",
        ),
    ] {
        let answer = check(text);
        assert_eq!(answer.code, 2, "{text}{}", answer.err);
        assert!(
            answer.err.contains(error) && answer.err.contains(hint),
            "{text}{}",
            answer.err
        );
    }
    let good = check("store = \"prod\"\n[stores.prod]\nurl = \"s3://b\"\n");
    assert_eq!((good.code, good.err.as_str()), (0, ""));
}

#[test]
fn unit_reproduces_flags_and_variables() {
    let workstation = Workstation::new();
    let state = workstation.path("state").display().to_string();
    let words = [
        "agent",
        "unit",
        "--state",
        &state,
        "--release",
        "early",
        "--core-limit",
        "2G",
        "--keep-modules",
        "--interval",
        "10m",
        "--metrics",
        "127.0.0.1:9464",
    ];
    let set = [
        ("CDH_POLICY_DEFAULT", "minicore"),
        ("CDH_NOTIFY_WEBHOOKS", "[{url = \"https://hush\"}]"),
    ];
    let answer = workstation.with(&words, &set);
    assert_eq!(answer.code, 0, "{}", answer.err);
    let line = |start: &str| {
        answer
            .out
            .lines()
            .find(|line| line.starts_with(start))
            .unwrap_or_default()
    };
    let command = line("ExecStart=");
    for part in [
        " agent run --manage-node ",
        " --release early",
        " --core-limit 2147483648",
        " --keep-modules",
        " --interval 10m",
        " --metrics 127.0.0.1:9464",
        " --state [WORKSTATION]/state",
        " --store [WORKSTATION]/store",
    ] {
        assert!(command.contains(part), "{part} in {command}");
    }
    assert_eq!(
        line("Environment="),
        "Environment=\"CDH_POLICY_DEFAULT=minicore\""
    );
    assert!(
        !answer.out.contains("hush") && answer.err.contains("CDH_NOTIFY_WEBHOOKS"),
        "{}",
        answer.err
    );
}

#[test]
fn one_dump_has_one_name_in_log_status_listing_and_info() {
    let workstation = Workstation::new();
    // `sh` is a link to dash: the kernel calls the process `sh`.
    let process =
        serde_json::json!({"pid": 7, "name": "sh", "exe": "/usr/bin/dash", "dumpable": 1});
    let mut agent = Agent::start(&workstation, workstation.command(&["agent", "run"]));
    agent.wait_for("on SIGTERM: ");
    let id = workstation.crash_in(&process, "aaaa");
    agent.wait_for("shipped ");
    let log = agent.stop();
    for text in [
        format!("captured {id} dash SIGSEGV"),
        format!("shipped {id} dash SIGSEGV"),
    ] {
        assert!(
            log.iter().any(|line| line.contains(&text)),
            "{text} in {log:#?}"
        );
    }
    assert_eq!(workstation.json(&["ls", "-o", "json"])[0]["exe"], "dash");
    let info = workstation.run(&["info", &id.to_string()]).out;
    assert!(info.contains("dash (pid 7, comm sh)"), "{info}");
}
