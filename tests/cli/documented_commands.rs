//! The commands of README and the installation page, run as a new user would: each `sh` block in its order, in one
//! shell per page, on a workstation and a node of their own.
//!
//! ```text
//! markdown ─▶ blocks ─▶ one bash script ─▶ cdh (this build), git, cargo, sudo, install (stand-ins)
//! ```
//!
//! `cdh` is on the PATH only after a command of the page has put it there. A block that cannot run here is marked in
//! the line that opens it (```` ```sh cluster ````); of such a block names and flags are checked. Blocks that
//! change the node need root; they hold the lock of the kernel's settings.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use cdh_testkit::KernelSettingsLock;

/// Why the commands of a marked block do not run.
const MARKERS: [(&str, &str); 5] = [
    ("build", "builds for minutes; its product is put in place"),
    ("bucket", "needs the reader's bucket"),
    ("cluster", "needs a Kubernetes cluster"),
    (
        "release",
        "needs a published release; its product is put in place",
    ),
    ("systemd", "needs systemd"),
];

/// Replaces programs that take minutes or would change this machine. Installed under each of their names.
const STAND_IN: &str = r#"#!/bin/sh
# $CDH_DOC: `built` is the program under test, `bin` is what stands for /usr/local/bin.
case $(basename "$0") in
sudo)
    while case $1 in -*) true ;; *) false ;; esac; do shift; done
    exec "$@"
    ;;
git)
    [ "$1" = clone ] || exec /usr/bin/git "$@"
    for last; do :; done
    name=$(basename "$last" .git)
    mkdir "$name" && exec ln -s "$CDH_DOC/checkout"/* "$name/"
    ;;
install)
    for word; do
        shift
        case $word in
        /usr/local/*) word=$CDH_DOC/local/${word#/usr/local/} ;;
        /etc/*) word=$CDH_DOC/etc/${word#/etc/} ;;
        esac
        set -- "$@" "$word"
    done
    exec /usr/bin/install "$@"
    ;;
cargo)
    case "$1 $2" in
    "xtask handler") echo "$CDH_TEST_HANDLER" ;;
    "xtask "*) grep -q "\"$2\"," "$CDH_DOC/checkout/xtask/src/main.rs" || { echo "no task $2" >&2; exit 2; } ;;
    build*) mkdir -p target/release && ln -sf "$CDH_DOC/built/cdh" target/release/cdh ;;
    *) echo "cargo $*: not known to this test" >&2; exit 2 ;;
    esac
    ;;
cdh)
    # An agent runs until it is stopped.
    case " $* " in
    *" --help "* | *" -h "*) ;;
    *" agent run "*) exec timeout --preserve-status -s TERM "${CDH_DOC_SECONDS:-5}" "$CDH_DOC_CDH" "$@" ;;
    esac
    exec "$CDH_DOC_CDH" "$@"
    ;;
esac
"#;

/// Runs one command of a page; ends with the first that fails. What is to crash may.
const RUNNER: &str = r#"
trap 'jobs=$(jobs -p); [ -z "$jobs" ] || kill $jobs' EXIT
run() {
    printf '$ %s\n' "$2"
    case $2 in *'&') export CDH_DOC_SECONDS=60 ;; *) export CDH_DOC_SECONDS=5 ;; esac
    eval "$2"
    status=$?
    case $status,$2 in 0,*) ;; 13[0-9],*SEGV* | 13[0-9],*ABRT*) ;; *)
        echo "$1: exit status $status" >&2
        exit 1
        ;;
    esac
}
"#;

#[derive(Debug, PartialEq)]
struct Block {
    /// Number of its first command's line.
    line: usize,
    marker: Option<String>,
    commands: Vec<(usize, String)>,
}

impl Block {
    fn needs_root(&self) -> bool {
        let changes = |text: &str| {
            let node = [
                "agent install",
                "agent run",
                "agent uninstall",
                "agent sweep",
            ];
            text.contains("sudo ") || node.iter().any(|words| text.contains(words))
        };
        self.commands.iter().any(|(_, text)| changes(text))
    }
}

/// The `sh` blocks of a page. An error names the line of a marker that means nothing.
fn blocks(page: &str) -> Result<Vec<Block>, String> {
    let mut blocks = Vec::new();
    let mut open: Option<Option<Block>> = None;
    for (number, line) in (1..).zip(page.lines()) {
        let Some(info) = line.trim_start().strip_prefix("```") else {
            if let Some(Some(block)) = &mut open {
                add_command(block, number, line);
            }
            continue;
        };
        if let Some(block) = open.take() {
            blocks.extend(block);
            continue;
        }
        let mut words = info.split_whitespace();
        open = Some(None);
        if words.next() == Some("sh") {
            let marker = words.next().map(str::to_owned);
            let known = |marker: &String| MARKERS.iter().any(|(name, _)| name == marker);
            if marker.as_ref().is_some_and(|marker| !known(marker)) || words.next().is_some() {
                let names = MARKERS.map(|(name, _)| name).join(", ");
                return Err(format!(
                    "line {number}: `{info}` is not marked with one of {names}"
                ));
            }
            open = Some(Some(Block {
                line: number + 1,
                marker,
                commands: Vec::new(),
            }));
        }
    }
    Ok(blocks)
}

/// Adds a line; one that continues the line before it belongs to that command.
fn add_command(block: &mut Block, number: usize, line: &str) {
    if let Some((_, command)) = block.commands.last_mut()
        && let Some(start) = command.strip_suffix('\\')
    {
        *command = format!("{start}{}", line.trim_start());
    } else if !line.trim().is_empty() && !line.trim_start().starts_with('#') {
        block.commands.push((number, line.to_owned()));
    }
}

/// A copy of the machine for a page: PATH, home, state and store.
struct Workstation {
    directory: tempfile::TempDir,
}

impl Workstation {
    fn new() -> Self {
        let directory = tempfile::Builder::new().prefix("cdh").tempdir().unwrap();
        let workstation = Self { directory };
        let names = [
            "built",
            "shims",
            "local/bin",
            "etc",
            "checkout",
            "home",
            "store",
        ];
        for name in names {
            fs::create_dir_all(workstation.path(name)).unwrap();
        }
        for name in ["sudo", "git", "install", "cargo"] {
            workstation.stand_in(&workstation.path("shims").join(name));
        }
        workstation.stand_in(&workstation.path("built/cdh"));
        for item in fs::read_dir(env!("CARGO_MANIFEST_DIR")).unwrap().flatten() {
            if item.file_name() != "target" {
                let link = workstation.path("checkout").join(item.file_name());
                symlink(item.path(), link).unwrap();
            }
        }
        workstation
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn stand_in(&self, path: &Path) {
        fs::write(path, STAND_IN).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// Runs a script; standard output and the end of standard error.
    fn run(&self, script: &str) -> Result<String, String> {
        let file = self.path("script");
        fs::write(&file, script).unwrap();
        let path = std::env::var("PATH").unwrap();
        let place = self.directory.path().display();
        let output = Command::new("bash")
            .arg(&file)
            .current_dir(self.path("checkout"))
            .env("PATH", format!("{place}/shims:{place}/local/bin:{path}"))
            .env("HOME", self.path("home"))
            .env("CDH_DOC", self.directory.path())
            .env("CDH_DOC_CDH", env!("CARGO_BIN_EXE_cdh"))
            .env("CDH_STORE", self.path("store"))
            .env("CDH_STATE", self.path("state"))
            .env("CDH_LIBEXEC", self.path("libexec"))
            .env_remove("XDG_CACHE_HOME")
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        match output.status.success() {
            true => Ok(out),
            false => Err(format!("{out}{err}")),
        }
    }
}

/// Runs the blocks of a page; what ran and what did not, and why.
fn walk(name: &str, page: &str, can_change_node: bool) -> Result<String, String> {
    let (workstation, mut script) = (Workstation::new(), RUNNER.to_owned());
    let mut is_cut = false;
    for block in blocks(page).map_err(|error| format!("{name}: {error}"))? {
        let at = format!("{name}:{}", block.line);
        let reason = MARKERS
            .iter()
            .find(|(known, _)| block.marker.as_deref() == Some(known))
            .map(|(_, reason)| *reason);
        if let Some(reason) = reason {
            for (line, command) in &block.commands {
                check_spelling(command).map_err(|error| format!("{name}:{line}: {error}"))?;
            }
            if matches!(block.marker.as_deref(), Some("build" | "release")) {
                script.push_str("ln -sf \"$CDH_DOC/built/cdh\" \"$CDH_DOC/local/bin/cdh\"\n");
            }
            let text = quoted(&format!("{at}: not run: {reason}"));
            writeln!(script, "echo {text}").unwrap();
            continue;
        }
        is_cut |= block.needs_root() && !can_change_node;
        if is_cut {
            writeln!(
                script,
                "echo 'SKIPPED: {at}: this and what follows needs root'"
            )
            .unwrap();
            continue;
        }
        for (line, command) in &block.commands {
            let at = format!("{name}:{line}");
            writeln!(script, "run {} {}", quoted(&at), quoted(command)).unwrap();
        }
    }
    workstation.run(&script)
}

/// As one word of a shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// Checks names of commands, tasks and flags in a command that does not run.
fn check_spelling(command: &str) -> Result<(), String> {
    let code = command.split(" #").next().unwrap_or_default();
    for part in code.split(['|', ';', '(', ')', '&']) {
        let words: Vec<&str> = part
            .split_whitespace()
            .filter(|word| *word != "sudo")
            .collect();
        match words.as_slice() {
            ["cdh", rest @ ..] => check_cdh(rest)?,
            ["cargo", "xtask", task, rest @ ..] => check_task(task, rest)?,
            _ => {}
        }
    }
    Ok(())
}

/// All of `cargo xtask`, where the names of tasks and options are.
pub(super) fn xtask_source() -> String {
    let mut text = String::new();
    let mut directories = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("xtask/src")];
    while let Some(directory) = directories.pop() {
        for item in fs::read_dir(directory).unwrap() {
            let path = item.unwrap().path();
            match path.is_dir() {
                true => directories.push(path),
                false => text.push_str(&fs::read_to_string(path).unwrap()),
            }
        }
    }
    text
}

pub(super) fn check_task(task: &str, rest: &[&str]) -> Result<(), String> {
    let source = xtask_source();
    let named = |name: &str| source.contains(&format!("\"{name}\""));
    let flags = rest.iter().filter(|word| word.starts_with("--"));
    let unknown = flags.into_iter().find(|flag| !named(flag));
    match (named(task), unknown) {
        (true, None) => Ok(()),
        (false, _) => Err(format!("`cargo xtask {task}` is not a task")),
        (_, Some(flag)) => Err(format!("`cargo xtask {task}` has no `{flag}`")),
    }
}

pub(super) fn check_cdh(words: &[&str]) -> Result<(), String> {
    let is_verb = |word: &str| {
        word.bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte == b'-')
    };
    let mut verbs: Vec<&str> = Vec::new();
    let mut help = cdh_help(&verbs).unwrap_or_default();
    for word in words {
        if let Some(flag) = word.strip_prefix("--") {
            let flag = flag.split('=').next().unwrap_or_default();
            if !flag.is_empty() && !help.contains(&format!("--{flag}")) {
                return Err(format!("`cdh {}` has no `--{flag}`", verbs.join(" ")));
            }
        } else if is_verb(word) && verbs.len() < 2 {
            let longer = [&verbs[..], &[*word]].concat();
            match (cdh_help(&longer), verbs.is_empty()) {
                (Some(text), _) => (verbs, help) = (longer, text),
                (None, true) => return Err(format!("`cdh {word}` is not a command")),
                // A value, or a dump.
                (None, false) => {}
            }
        }
    }
    Ok(())
}

/// Usage of a command, if there is such a command.
pub(super) fn cdh_help(verbs: &[&str]) -> Option<String> {
    let mut cdh = Command::new(env!("CARGO_BIN_EXE_cdh"));
    let output = cdh.args(verbs).arg("--help").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    output.status.success().then_some(text)
}

fn check_page(name: &str) {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    let page = fs::read_to_string(page).unwrap();
    let lock = match std::env::var_os("CDH_TEST_HANDLER") {
        Some(_) => KernelSettingsLock::for_handlers(),
        None => Err("CDH_TEST_HANDLER is not set".to_owned()),
    };
    if let Err(why) = &lock {
        eprintln!("SKIPPED: {name}: commands that change the node: {why}");
    }
    match walk(name, &page, lock.is_ok()) {
        Ok(text) => eprintln!("{text}"),
        Err(text) => panic!("{text}"),
    }
}

#[test]
fn readme_commands_work_as_written() {
    check_page("README.md");
}

#[test]
fn install_page_commands_work_as_written() {
    check_page("docs/install.md");
}

#[test]
fn documented_blocks_are_found_with_markers_and_continued_lines() {
    let page = "text\n```\n$ cdh ls\n```\n```sh\ncdh ls \\\n  --all\n# why\ncdh gc\n```\n\
                ```toml\nx = 1\n```\n```sh cluster\nhelm list\n```\n";
    let block = |line, marker: Option<&str>, commands: &[(usize, &str)]| Block {
        line,
        marker: marker.map(str::to_owned),
        commands: commands
            .iter()
            .map(|(line, text)| (*line, (*text).to_owned()))
            .collect(),
    };
    assert_eq!(
        blocks(page).unwrap(),
        [
            block(6, None, &[(6, "cdh ls --all"), (9, "cdh gc")]),
            block(15, Some("cluster"), &[(15, "helm list")]),
        ]
    );
    let error = blocks("```sh soon\ntrue\n```\n").unwrap_err();
    assert!(
        error.contains("line 1: `sh soon` is not marked with one of build"),
        "{error}"
    );
}

#[test]
fn documented_command_that_fails_is_named_with_its_line() {
    let built = "```sh build\ncargo build --release\n```\n";
    let cases = [
        ("```sh\ntrue\nfalse\n```\n", "page:3: exit status 1"),
        ("```sh\ncdh ls\n```\n", "page:2: exit status 127"),
        ("```sh\ncargo xtask dmeo\n```\n", "no task dmeo"),
        (
            "```sh build\ncargo xtask dmeo\n```\n",
            "page:2: `cargo xtask dmeo` is not a task",
        ),
        (
            "```sh bucket\ncdh lss\n```\n",
            "page:2: `cdh lss` is not a command",
        ),
        (
            "```sh bucket\ncdh --store s3://b ls --al\n```\n",
            "`cdh ls` has no `--al`",
        ),
    ];
    for (page, words) in cases {
        let error = walk("page", page, false).unwrap_err();
        assert!(error.contains(words), "{page}: {error}");
    }
    let page = format!(
        "{built}```sh\nexport X=1\ncdh ls; [ $X = 1 ]\n```\n```sh\nsudo cdh agent run\n```\n"
    );
    let text = walk("page", &page, false).unwrap();
    assert!(
        text.contains("page:2: not run: builds for minutes"),
        "{text}"
    );
    assert!(
        text.contains("SKIPPED: page:9: this and what follows needs root"),
        "{text}"
    );
}
