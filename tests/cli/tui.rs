//! The TUI as a user has it: in a pseudo-terminal, on a real store, with a real gdb.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcgetattr, tcsetwinsize};

use super::{Workstation, crash};

/// A slow machine under load needs some of it.
const PATIENCE: Duration = Duration::from_secs(60);

/// A terminal with a program in it.
pub(super) struct Tty {
    master: File,
    slave: File,
    child: Child,
    screen: Arc<Mutex<vt100::Parser>>,
    /// Everything that was written to the terminal.
    written: Arc<Mutex<Vec<u8>>>,
    before: String,
}

impl Tty {
    fn start(workstation: &Workstation, words: &[&str]) -> Self {
        Self::with(&workstation.command(words))
    }

    /// With any program, in the environment that it is given.
    pub(super) fn with(inner: &std::process::Command) -> Self {
        let master =
            openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let slave = File::from(rustix::fs::open(name, flags, Mode::empty()).unwrap());
        let size = Winsize {
            ws_row: 24,
            ws_col: 80,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        tcsetwinsize(&slave, size).unwrap();
        let before = settings(&slave);
        // `setsid --ctty` makes the terminal the session's own, as a login does.
        let mut command = std::process::Command::new("setsid");
        command
            .args(["--ctty", "--wait"])
            .arg(inner.get_program())
            .args(inner.get_args());
        command.env_clear();
        command.current_dir(inner.get_current_dir().unwrap());
        for (name, value) in inner.get_envs() {
            command.env(name, value.unwrap_or_default());
        }
        command.env("TERM", "xterm-256color").env("LANG", "C.UTF-8");
        command
            .stdin(Stdio::from(slave.try_clone().unwrap()))
            .stdout(Stdio::from(slave.try_clone().unwrap()))
            .stderr(Stdio::from(slave.try_clone().unwrap()));
        let child = command.spawn().expect("install util-linux");
        let tty = Self {
            master: File::from(master),
            slave,
            child,
            screen: Arc::new(Mutex::new(vt100::Parser::new(24, 80, 0))),
            written: Arc::default(),
            before,
        };
        let (mut reader, screen) = (tty.master.try_clone().unwrap(), Arc::clone(&tty.screen));
        let written = Arc::clone(&tty.written);
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = reader.read(&mut bytes) {
                screen.lock().unwrap().process(&bytes[..count]);
                written.lock().unwrap().extend_from_slice(&bytes[..count]);
            }
        });
        tty
    }

    pub(super) fn keys(&mut self, keys: &str) {
        self.master.write_all(keys.as_bytes()).unwrap();
    }

    fn text(&self) -> String {
        self.screen.lock().unwrap().screen().contents()
    }

    pub(super) fn wait_for(&self, what: &str) {
        self.wait_until(what, |text| text.contains(what));
    }

    fn wait_until(&self, what: &str, holds: impl Fn(&str) -> bool) {
        let start = Instant::now();
        while !holds(&self.text()) {
            assert!(
                start.elapsed() < PATIENCE,
                "no `{what}` on\n{}",
                self.text()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits for what is written after so many bytes.
    fn wait_for_new(&self, before: usize, what: &str) {
        self.wait_until(what, |_| {
            let written = self.written.lock().unwrap();
            String::from_utf8_lossy(&written[before..]).contains(what)
        });
    }

    /// The process of cdh, and the one that it has given the terminal to.
    fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed()).unwrap()
    }

    fn debugger(&self) -> Pid {
        let pid = self.child.id();
        let start = Instant::now();
        loop {
            let children = std::fs::read_dir(format!("/proc/{pid}/task"))
                .unwrap()
                .flatten();
            let children = children
                .filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok());
            let all: String = children.collect();
            let gdb = all.split_whitespace().find(|child| {
                std::fs::read_to_string(format!("/proc/{child}/comm"))
                    .is_ok_and(|name| name.trim() == "gdb")
            });
            if let Some(gdb) = gdb {
                return Pid::from_raw(gdb.parse().unwrap()).unwrap();
            }
            assert!(start.elapsed() < PATIENCE, "gdb is not there");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn end(&mut self) -> ExitStatus {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            if start.elapsed() > PATIENCE {
                let _ = self.child.kill();
                panic!("it does not end:\n{}", self.text());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The terminal is as it was before.
    fn assert_given_back(&self) {
        assert_eq!(settings(&self.slave), self.before);
        // What was written last may still be on its way.
        let start = Instant::now();
        loop {
            let parser = self.screen.lock().unwrap();
            let screen = parser.screen();
            let given_back = !screen.alternate_screen()
                && !screen.hide_cursor()
                && !screen.bracketed_paste()
                && screen.mouse_protocol_mode() == vt100::MouseProtocolMode::None;
            if given_back {
                return;
            }
            drop(parser);
            assert!(start.elapsed() < PATIENCE, "the terminal was not restored");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Tty {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What `stty -a` shows.
fn settings(tty: &File) -> String {
    format!("{:?}", tcgetattr(tty).unwrap())
}

fn workstation() -> Workstation {
    let workstation = Workstation::new();
    workstation.import(&crash().core());
    workstation
}

#[test]
fn gdb_gets_the_terminal_three_times_and_the_list_is_back_after_each() {
    let workstation = workstation();
    let mut tty = Tty::start(&workstation, &[]);
    tty.wait_for("1 dump");
    tty.wait_for("poke app.c:5");
    let list = tty.text();
    for _ in 0..3 {
        // The screen that gdb gets still shows its earlier sessions.
        let before = tty.written.lock().unwrap().len();
        tty.keys("d");
        tty.wait_for_new(before, "(gdb)");
        assert!(!tty.screen.lock().unwrap().screen().alternate_screen());
        tty.keys("print 6*7\n");
        tty.wait_for_new(before, "= 42");
        // `ctrl-c` is gdb's, not ours.
        tty.keys("\x03");
        tty.wait_for_new(before, "Quit");
        tty.keys("quit\n");
        tty.wait_for("1 dump");
        tty.wait_until("the list as it was", |text| {
            without_ages(text) == without_ages(&list)
        });
    }
    // The backtrace of the dump, and back.
    tty.keys("\r");
    tty.wait_for("#0 ");
    tty.wait_for("thread ");
    tty.keys("\x1b");
    tty.wait_for("TOP FRAME");
    tty.keys("q");
    assert_eq!(tty.end().code(), Some(0));
    tty.assert_given_back();
}

/// Ages go on, and a mark turns while something is read: only letters stay, without those of units.
fn without_ages(text: &str) -> String {
    let stays = |c: char| c.is_ascii_alphabetic() && !"smh".contains(c);
    text.chars().filter(|c| stays(*c)).collect()
}

#[test]
fn terminal_is_restored_when_gdb_is_killed() {
    let workstation = workstation();
    let mut tty = Tty::start(&workstation, &["tui"]);
    tty.wait_for("1 dump");
    tty.keys("d");
    tty.wait_for("(gdb)");
    kill_process(tty.debugger(), Signal::KILL).unwrap();
    tty.wait_for("gdb was ended by signal 9");
    tty.keys("q");
    assert_eq!(tty.end().code(), Some(0));
    tty.assert_given_back();
}

#[test]
fn terminal_is_restored_after_a_panic() {
    let workstation = workstation();
    let mut tty = Tty::start(&workstation, &["tui"]);
    tty.wait_for("1 dump");
    tty.keys(":panic\r");
    assert_eq!(tty.end().code(), Some(101));
    tty.wait_for("a panic on purpose");
    tty.assert_given_back();
}

#[test]
fn terminal_is_restored_after_sigterm_and_gdb_ends() {
    let workstation = workstation();
    for with_gdb in [false, true] {
        let mut tty = Tty::start(&workstation, &["tui", "--ascii"]);
        tty.wait_for("1 dump");
        assert!(tty.text().is_ascii());
        let gdb = with_gdb.then(|| {
            tty.keys("d");
            tty.wait_for("(gdb)");
            tty.debugger()
        });
        kill_process(tty.pid(), Signal::TERM).unwrap();
        assert_eq!(tty.end().signal(), Some(15));
        tty.assert_given_back();
        if let Some(gdb) = gdb {
            assert!(rustix::process::test_kill_process(gdb).is_err());
        }
    }
}

#[test]
fn hostile_store_sends_nothing_to_the_terminal() {
    let workstation = workstation();
    let evil = "a\x1b]0;owned\x07\u{9b}31m\u{202e}b";
    let core = crash().core().display().to_string();
    let image = format!("registry.example/app@sha256:{}", "1f".repeat(32));
    let label = format!("org.opencontainers.image.version={evil}");
    let words = [
        "import",
        "--namespace",
        evil,
        "--pod",
        evil,
        "--image",
        &image,
        "--image-label",
        &label,
        "--node",
        evil,
        &core,
    ];
    assert_eq!(workstation.run(&words).code, 0);
    let mut tty = Tty::start(&workstation, &["tui"]);
    tty.wait_for("2 dumps");
    tty.keys("/a\\x1b\r");
    for tab in ["\r", "2", "3", "8"] {
        tty.keys(tab);
        std::thread::sleep(Duration::from_millis(300));
    }
    tty.wait_for("\"schema\"");
    tty.keys("q");
    assert_eq!(tty.end().code(), Some(0));
    let written = String::from_utf8_lossy(&tty.written.lock().unwrap()).into_owned();
    for bad in ["\x1b]0;", "owned\x07", "\u{9b}", "\u{202e}"] {
        assert!(!written.contains(bad), "{bad:?} was written");
    }
}

#[test]
fn cdh_without_a_terminal_prints_help() {
    let workstation = Workstation::new();
    let answer = workstation.run(&[]);
    assert_eq!((answer.code, answer.out.as_str()), (2, ""));
    assert!(answer.err.contains("Usage: cdh"), "{}", answer.err);
    let answer = workstation.run(&["tui"]);
    assert_eq!(answer.code, 2);
    assert!(
        answer.err.contains("not a terminal") && answer.err.contains("cdh ls"),
        "{}",
        answer.err
    );
}

/// A store with a history: a bug that was first seen ten days ago in 1.3.0 and goes on in 1.4.0, and one that
/// began today in 1.4.2 and crashes two pods.
fn history() -> Workstation {
    const OTHER: &str = "int charge(int *cents) { return *cents + 1; }\n\
                         int main(int c, char **v) { return charge(c > 9 ? &c : (int *)8); }\n";
    let workstation = Workstation::new();
    let (source, program) = (workstation.path("billing.c"), workstation.path("billing"));
    std::fs::write(&source, OTHER).unwrap();
    let mut cc = std::process::Command::new("cc");
    cc.args(["-g", "-O0", "-Wl,--build-id", "-o"]);
    let built = cc.arg(&program).arg(&source).status();
    assert!(built.expect("install gcc").success());
    let core = workstation.path("billing.core");
    let mut gdb = std::process::Command::new("gdb");
    gdb.args(["-q", "-batch", "-ex", "run", "-ex"]);
    gdb.arg(format!("generate-core-file {}", core.display()));
    assert!(gdb.arg(&program).output().is_ok() && core.is_file());
    let import = |core: &std::path::Path, pod: &str, image: &str, minutes: u64| {
        let time = format!("{minutes}m");
        let image = format!("registry.example/{image}");
        let place = ["--namespace", "payments", "--pod", pod, "--image", &image];
        let mut words = vec!["import", "--time", &time];
        words.extend(place);
        words.push(core.to_str().unwrap());
        let answer = workstation.run(&words);
        assert_eq!(answer.code, 0, "{}", answer.err);
    };
    let app = crash().core();
    import(&app, "shop-api-0", "shop/api:1.3.0", 14_400);
    import(&app, "shop-api-0", "shop/api:1.4.0", 7_200);
    import(&app, "shop-api-0", "shop/api:1.4.0", 300);
    import(&core, "billing-0", "shop/billing:1.4.2", 200);
    import(&core, "billing-1", "shop/billing:1.4.2", 40);
    workstation
}

/// The line of the screen that holds all of these.
fn has_line(text: &str, parts: &[&str]) -> bool {
    text.lines()
        .any(|line| parts.iter().all(|part| line.contains(part)))
}

#[test]
fn tui_answers_what_is_new_since_which_version_and_who_is_affected() {
    let workstation = history();
    let mut tty = Tty::start(&workstation, &["tui"]);
    tty.wait_for("5 dumps");
    // What started crashing today? Its image and its workloads are below the list.
    tty.keys("n");
    tty.wait_until("the new crash first", |text| {
        let first = text.lines().nth(2).unwrap_or_default();
        ["billing", "NEW", "charge billing"]
            .iter()
            .all(|part| first.contains(part))
    });
    let is_old = |text: &str| has_line(text, &["app", "10d", "poke"]);
    tty.wait_until("the old crash is not new", |text| {
        is_old(text) && text.matches("NEW").count() == 2
    });
    tty.wait_until("image and workloads", |text| {
        has_line(text, &["billing:1.4.2", "3h", "m ", " 2 "]) && text.contains("payments/billing")
    });
    // Since which version does the other one crash?
    tty.keys("j");
    tty.wait_until("both images of the old crash", |text| {
        has_line(text, &["api:1.3.0", "10d"]) && has_line(text, &["api:1.4.0", "5d", "5h"])
    });
    tty.keys("v");
    tty.wait_until("the page of the group", |text| {
        has_line(text, &["app SIGSEGV"]) && has_line(text, &["api:1.3.0", "10d"])
    });
    // What is shown is a filter.
    tty.keys("i");
    tty.wait_for("image:api:1.3.0");
    tty.keys("\t");
    tty.wait_for("image:api:1.4.0");
    tty.keys("\r");
    tty.wait_for("2 of 5 dumps");
    tty.keys("q");
    assert_eq!(tty.end().code(), Some(0));
}

#[test]
fn tui_refreshes_the_list_without_a_key() {
    let workstation = workstation();
    let mut tty = Tty::start(&workstation, &["tui", "--refresh", "1"]);
    tty.wait_for("1 dump");
    workstation.import(&crash().core());
    tty.wait_for("2 dumps");
    tty.wait_for("1 new");
    tty.keys("q");
    assert_eq!(tty.end().code(), Some(0));
}

#[test]
fn config_file_sets_the_refresh_of_the_tui() {
    let workstation = workstation();
    std::fs::write(
        workstation.path("config.toml"),
        "[tui]\nrefresh_seconds = 0\n",
    )
    .unwrap();
    let config = workstation.path("config.toml").display().to_string();
    let mut tty = Tty::start(&workstation, &["tui", "--config", &config]);
    tty.wait_for("1 dump");
    workstation.import(&crash().core());
    std::thread::sleep(Duration::from_secs(9));
    assert!(!tty.text().contains("2 dumps"), "{}", tty.text());
    tty.keys("r");
    tty.wait_for("2 dumps");
    tty.keys("q");
    assert_eq!(tty.end().code(), Some(0));
    std::fs::write(workstation.path("config.toml"), "[tui]\nrefresh = 0\n").unwrap();
    let answer = workstation.run(&["ls", "--config", &config]);
    assert_eq!(answer.code, 2);
    assert!(answer.err.contains("refresh_seconds"), "{}", answer.err);
}

/// The letter of `/proc/<pid>/stat` for the state of a process.
fn state(pid: Pid) -> char {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).unwrap();
    let (_, rest) = stat.rsplit_once(") ").unwrap();
    rest.chars().next().unwrap()
}

fn wait_for_state(pid: Pid, wanted: char) {
    let start = Instant::now();
    while state(pid) != wanted {
        assert!(start.elapsed() < PATIENCE, "state {}", state(pid));
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn tui_restores_the_terminal_before_a_stop_and_takes_it_again_afterwards() {
    let workstation = workstation();
    let mut tty = Tty::start(&workstation, &["tui"]);
    tty.wait_for("1 dump");
    for _ in 0..2 {
        kill_process(tty.pid(), Signal::TSTP).unwrap();
        wait_for_state(tty.pid(), 'T');
        tty.assert_given_back();
        let before = tty.written.lock().unwrap().len();
        kill_process(tty.pid(), Signal::CONT).unwrap();
        tty.wait_for_new(before, "1 dump");
        assert!(tty.screen.lock().unwrap().screen().alternate_screen());
        assert_ne!(settings(&tty.slave), tty.before);
    }
    // What no program can catch: the shell changes the terminal meanwhile.
    let raw = settings(&tty.slave);
    kill_process(tty.pid(), Signal::STOP).unwrap();
    wait_for_state(tty.pid(), 'T');
    let mut cooked = tcgetattr(&tty.slave).unwrap();
    cooked.local_modes |= rustix::termios::LocalModes::ECHO | rustix::termios::LocalModes::ICANON;
    rustix::termios::tcsetattr(&tty.slave, rustix::termios::OptionalActions::Now, &cooked).unwrap();
    let before = tty.written.lock().unwrap().len();
    kill_process(tty.pid(), Signal::CONT).unwrap();
    tty.wait_for_new(before, "1 dump");
    assert_eq!(settings(&tty.slave), raw);
    tty.keys("q");
    assert_eq!(tty.end().code(), Some(0));
    tty.assert_given_back();
}

#[test]
fn terminal_is_restored_after_each_signal_that_ends_a_program() {
    let workstation = workstation();
    for signal in [
        Signal::USR1,
        Signal::USR2,
        Signal::ALARM,
        Signal::VTALARM,
        Signal::XCPU,
    ] {
        let mut tty = Tty::start(&workstation, &["tui"]);
        tty.wait_for("1 dump");
        kill_process(tty.pid(), signal).unwrap();
        assert_eq!(tty.end().signal(), Some(signal.as_raw()));
        tty.assert_given_back();
    }
}

#[test]
fn tui_reports_a_store_that_is_deleted_while_it_is_open() {
    let workstation = workstation();
    let mut tty = Tty::start(&workstation, &["tui", "--refresh", "1"]);
    tty.wait_for("1 dump");
    std::fs::rename(workstation.path("store"), workstation.path("gone")).unwrap();
    tty.wait_for("the store cannot be listed");
    // The list is as it was, and the store may come back.
    tty.wait_for("poke");
    std::fs::rename(workstation.path("gone"), workstation.path("store")).unwrap();
    tty.wait_until("the banner is gone", |text| {
        !text.contains("cannot be listed")
    });
    std::fs::rename(workstation.path("store"), workstation.path("gone")).unwrap();
    tty.keys("r");
    tty.wait_for("deleted");
    tty.keys("q");
    assert_eq!(tty.end().code(), Some(0));
}

#[test]
fn ls_fits_the_width_of_the_terminal() {
    let workstation = workstation();
    let core = crash().core().display().to_string();
    let pod = "checkout-7d4b9c6f5d-".repeat(6);
    let answer = workstation.run(&["import", "--namespace", "payments", "--pod", &pod, &core]);
    assert_eq!(answer.code, 0, "{}", answer.err);
    let mut tty = Tty::start(&workstation, &["ls"]);
    assert_eq!(tty.end().code(), Some(0));
    tty.wait_for("payments");
    // Two dumps and a header: nothing was wrapped.
    tty.wait_until("three lines", |text| {
        text.trim().lines().count() == 3 && text.contains('\u{2026}')
    });
}
