//! Completions, in the shells themselves: the scripts of `cdh completions` are loaded, and TAB is pressed.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use super::tui::Tty;
use super::{Workstation, crash};

/// A workstation with two dumps and a config file, and no store behind them any more.
struct Scene {
    workstation: Workstation,
    ids: Vec<String>,
}

fn scene() -> Scene {
    let workstation = Workstation::new();
    let core = crash().core().display().to_string();
    let mut ids = Vec::new();
    for (namespace, pod) in [("payments", "worker-7d4-x2"), ("shop", "api-0")] {
        let words = ["import", &core, "-n", namespace, "--pod", pod];
        let answer = workstation.run(&words);
        assert_eq!(answer.code, 0, "{}", answer.err);
        ids.push(answer.out.trim().to_owned());
    }
    assert_eq!(workstation.run(&["ls"]).code, 0);
    // Whatever is offered now is from the cache.
    fs::remove_dir_all(workstation.path("store")).unwrap();
    let config = workstation.path(".config/cdh");
    fs::create_dir_all(&config).unwrap();
    let text = "[stores.production]\nurl = \"s3://crashes/prod\"\n[stores.staging]\nurl = \"/srv/staging\"\n";
    fs::write(config.join("config.toml"), text).unwrap();
    Scene { workstation, ids }
}

/// What the words before the last one can be continued with.
fn offered(workstation: &Workstation, words: &[&str]) -> Vec<String> {
    let words: Vec<&str> = ["complete", "zsh", "--"]
        .iter()
        .chain(words)
        .copied()
        .collect();
    let answer = workstation.run(&words);
    assert_eq!((answer.code, answer.err.as_str()), (0, ""));
    answer.out.lines().skip(1).map(str::to_owned).collect()
}

fn values(workstation: &Workstation, words: &[&str]) -> Vec<String> {
    let lines = offered(workstation, words).into_iter();
    lines
        .map(|line| line.split('\t').next().unwrap().to_owned())
        .collect()
}

#[test]
fn complete_offers_dumps_names_terms_and_stores_without_the_store() {
    let Scene { workstation, ids } = scene();
    let dumps = offered(&workstation, &["info", ""]);
    let has = |text: &str| dumps.iter().any(|line| line.starts_with(text));
    assert!(
        has("latest\t") && ids.iter().all(|id| has(&id[..8])),
        "{dumps:?}"
    );
    let described = dumps
        .iter()
        .find(|line| line.starts_with(&ids[1][..8]))
        .unwrap();
    for part in ["app", "SIGSEGV", "shop/api-0"] {
        assert!(described.contains(part), "{described}");
    }
    assert_eq!(
        values(&workstation, &["rm", &ids[0][..10]]),
        [ids[0].as_str()]
    );
    assert_eq!(
        values(&workstation, &["ls", "-n", ""]),
        ["payments", "shop"]
    );
    assert_eq!(values(&workstation, &["ls", "--namespace", "s"]), ["shop"]);
    assert_eq!(
        values(&workstation, &["groups", "--pod=w"]),
        ["--pod=worker-7d4-x2"]
    );
    assert_eq!(values(&workstation, &["ls", "--signal", "SE"]), ["SEGV"]);
    assert_eq!(
        values(&workstation, &["ls", "namespace:"]),
        ["namespace:payments", "namespace:shop"]
    );
    assert_eq!(values(&workstation, &["ls", "na"]), ["namespace:"]);
    assert_eq!(values(&workstation, &["--store", "prod"]), ["production"]);
    assert_eq!(values(&workstation, &["ls", "-F", "pa"]), ["path"]);
    // Another store has other dumps: none, here.
    assert_eq!(
        values(&workstation, &["--store", "staging", "info", ""]),
        ["latest"]
    );
    for hidden in ["man", "complete"] {
        assert!(!values(&workstation, &[""]).contains(&hidden.to_owned()));
    }
    // A broken config file leaves what is declared.
    fs::write(workstation.path(".config/cdh/config.toml"), "store = [").unwrap();
    assert_eq!(
        values(&workstation, &["ls", "--sort", "si"]),
        ["size", "signal"]
    );
}

#[test]
fn complete_never_offers_a_name_that_a_shell_would_run() {
    let workstation = Workstation::new();
    let core = crash().core().display().to_string();
    for pod in ["$(touch pwned)", "a;b", "`id`", "two words", "plain-0"] {
        assert_eq!(
            workstation.run(&["import", &core, "--pod", pod]).code,
            0,
            "{pod}"
        );
    }
    assert_eq!(values(&workstation, &["ls", "--pod", ""]), ["plain-0"]);
}

#[test]
fn removed_dumps_are_no_longer_offered() {
    let workstation = Workstation::new();
    let id = workstation.import(&crash().core());
    assert!(values(&workstation, &["info", ""]).contains(&id[..8].to_owned()));
    assert_eq!(workstation.run(&["rm", &id, "--yes"]).code, 0);
    assert_eq!(values(&workstation, &["info", ""]), ["latest"]);
}

/// Whether a program is installed; the test is skipped without.
fn has_shell(shell: &str) -> bool {
    let found = Command::new(shell).arg("--version").output().is_ok();
    if !found {
        cdh_testkit::skip(format!("{shell} is not installed"));
    }
    found
}

/// The script as a user installs it, and `cdh` in PATH.
fn shell(workstation: &Workstation, shell: &str) -> Command {
    let file = workstation.path(&format!("script.{shell}"));
    fs::write(&file, workstation.run(&["completions", shell]).out).unwrap();
    let binary = PathBuf::from(env!("CARGO_BIN_EXE_cdh"));
    let path = std::env::var("PATH").unwrap();
    let mut command = Command::new(shell);
    command.current_dir(workstation.dir.path()).env_clear();
    command
        .env(
            "PATH",
            format!("{}:{path}", binary.parent().unwrap().display()),
        )
        .env("HOME", workstation.dir.path())
        .env("CDH_STORE", workstation.path("store"))
        .env("TERM", "xterm");
    command
}

fn output(mut command: Command) -> String {
    let output = command.output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    String::from_utf8_lossy(&text).into_owned()
}

#[test]
fn bash_completes_dumps_terms_and_options() {
    let Scene { workstation, ids } = scene();
    if !has_shell("bash") {
        return;
    }
    // The function is called as readline does; bash splits words at colons.
    let script = r#"
        source script.bash
        try() {
            COMP_LINE=$1 COMP_POINT=${#1} COMP_TYPE=$2 COMPREPLY=()
            compopt() { options+="$* "; }
            options=
            _cdh cdh "" ""
            printf '%s|' "$1" "${COMPREPLY[@]}" "$options"; echo
        }
        complete -p cdh
        try 'cdh info ' 9
        try 'cdh info ' 63
        try 'cdh ls namespace:' 9
        try 'cdh ls na' 9
        try 'cdh --store p' 9
        try 'cdh ls --trun' 9
        try 'cdh fetch x -d ' 9
    "#;
    let mut command = shell(&workstation, "bash");
    command.args(["--norc", "-c", script]);
    let text = output(command);
    let line = |start: &str, number: usize| {
        let mut lines = text
            .lines()
            .filter(|line| line.starts_with(&format!("{start}|")));
        lines
            .nth(number)
            .unwrap_or_else(|| panic!("{start}: {text}"))
            .to_owned()
    };
    assert!(text.contains("complete -F _cdh cdh"), "{text}");
    let plain = line("cdh info ", 0);
    assert!(
        plain.contains(&format!("|{}|", &ids[0][..8])) && !plain.contains('('),
        "{plain}"
    );
    let described = line("cdh info ", 1);
    assert!(
        described.contains(&format!("|{}  (app SIGSEGV", &ids[0][..8])),
        "{described}"
    );
    assert!(line("cdh ls namespace:", 0).starts_with("cdh ls namespace:|payments|shop|"));
    let term = line("cdh ls na", 0);
    assert!(
        term.contains("|namespace:|") && term.contains("nospace"),
        "{term}"
    );
    assert!(line("cdh --store p", 0).contains("|production|"));
    assert!(line("cdh ls --trun", 0).contains("|--truncated|"));
    assert!(line("cdh fetch x -d ", 0).contains("dirnames"));
}

#[test]
fn bash_inserts_what_was_completed_at_a_tab() {
    let Scene { workstation, .. } = scene();
    if !has_shell("bash") {
        return;
    }
    // readline itself, on a terminal: TAB, then the line is run.
    let script = "source script.bash; PS1='$ '; echo() { builtin echo \"ran: $*\"; }";
    fs::write(workstation.path(".inputrc"), "set bell-style none\n").unwrap();
    fs::write(workstation.path("rc"), script).unwrap();
    let mut inner = shell(&workstation, "bash");
    inner.args(["--rcfile", "rc", "-i"]);
    let mut terminal = Tty::with(&inner);
    terminal.wait_for("$ ");
    terminal.keys("cdh ls namespace:pay\t --sort si\t\x01echo \r");
    terminal.wait_for("ran: cdh ls namespace:payments");
}

#[test]
fn zsh_completes_dumps_terms_and_options() {
    let Scene { workstation, ids } = scene();
    if !has_shell("zsh") {
        return;
    }
    fs::write(
        workstation.path(".zshrc"),
        "autoload -Uz compinit; compinit -u -D; source ~/script.zsh; PS1='$ '; LISTMAX=999\n\
         zstyle ':completion:*' list-prompt ''; echo() { print \"ran: $*\" }\n",
    )
    .unwrap();
    let mut inner = shell(&workstation, "zsh");
    inner.arg("-i");
    let mut terminal = Tty::with(&inner);
    terminal.wait_for("$ ");
    terminal.keys("cdh info \t");
    terminal.wait_for(&format!("{}  -- app SIGSEGV", &ids[1][..8]));
    terminal.keys("\x15");
    terminal.keys("cdh ls namespace:pay\t --trun\t\x01echo \r");
    terminal.wait_for("ran: cdh ls namespace:payments --truncated");
}

#[test]
fn fish_completes_dumps_terms_and_options() {
    let Scene { workstation, ids } = scene();
    if !has_shell("fish") {
        return;
    }
    let script = "source script.fish; for line in 'cdh info ' 'cdh ls namespace:' 'cdh ls --trun' 'cdh --store st' \
                  'cdh '; complete -C \"$line\" | sed \"s/^/$line|/\"; end";
    let mut command = shell(&workstation, "fish");
    command.args(["--no-config", "-c", script]);
    let text = output(command);
    for expected in [
        format!("cdh info |{}\tapp SIGSEGV", &ids[0][..8]),
        "cdh info |latest\t".to_owned(),
        "cdh ls namespace:|namespace:shop".to_owned(),
        "cdh ls --trun|--truncated\t".to_owned(),
        "cdh --store st|staging\t/srv/staging".to_owned(),
        "cdh |groups\t".to_owned(),
    ] {
        assert!(text.contains(&expected), "{expected}: {text}");
    }
    assert!(
        !text.contains("|man\t") && !text.contains("|complete\t"),
        "{text}"
    );
}
