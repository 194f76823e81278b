//! Pictures of every view of the TUI: `cargo xtask pictures STORE [DIR]`.
//!
//! Drives `cdh tui` in tmux as a user does, with keys alone, on a store such as `cargo xtask bucket`
//! makes, or one in a bucket, at two sizes of the terminal. A picture is the text on the screen with its
//! colours, as an SVG.

mod svg;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::build;

/// Columns and rows.
const SIZES: [(u16, u16); 2] = [(80, 24), (160, 45)];
/// A screen is done when it has not changed for so long.
const STILL: Duration = Duration::from_millis(600);
const PATIENCE: Duration = Duration::from_secs(60);

/// Keys as tmux names them, text that must then be on the screen, and the picture's name (none: no
/// picture).
///
/// From the list and back to it, in an order in which nothing has to be undone but by `Escape`.
const STEPS: [(&[&str], &str, &str); 42] = [
    (&[], "TOP FRAME", "dumps"),
    (&["?"], "quit", "help"),
    (&["?"], "TOP FRAME", ""),
    (&["g"], "COUNT", "groups"),
    (&["g"], "TOP FRAME", ""),
    (&["n"], "NEW", "new"),
    (&["v"], "WORKLOAD", "group"),
    (&["Escape"], "NEW", ""),
    (&["Escape"], "TOP FRAME", ""),
    (&["/"], "", ""),
    (
        &["-l", "namespace:payments signal:SEGV"],
        "payments",
        "filter",
    ),
    (&["Enter"], "payments", ""),
    (&["Escape"], "TOP FRAME", ""),
    (&[":"], "", ""),
    (&["-l", "s"], ":s", "command"),
    (&["Escape"], "TOP FRAME", ""),
    (&["Enter"], "#0", "backtrace"),
    (&["2"], "", "info"),
    (&["3"], "", "workload"),
    (&["4"], "", "logs"),
    (&["5"], "", "modules"),
    (&["6"], "", "memory"),
    (&["7"], "", "registers"),
    (&["8"], "schema", "manifest"),
    (&["1"], "#0", ""),
    (&["d"], "(gdb)", ""),
    (&["-l", "bt 4"], "bt 4", ""),
    (&["Enter"], "#0", "gdb"),
    (&["-l", "quit"], "quit", ""),
    (&["Enter"], "#0", ""),
    (&["Escape"], "TOP FRAME", ""),
    (&["f"], "", ""),
    (&["t"], "", "transfers"),
    (&["Escape"], "TOP FRAME", ""),
    (&["Space"], "", ""),
    (&["Down", "Space"], "", ""),
    (&["D"], "", "diff"),
    (&["Escape"], "TOP FRAME", ""),
    (&["x"], "", "delete"),
    (&["n"], "TOP FRAME", ""),
    (&["s"], "", "stores"),
    (&["Escape"], "TOP FRAME", ""),
];

/// Takes all pictures.
pub(crate) fn run(words: &[String]) -> Result<()> {
    let usage = "usage: cargo xtask pictures STORE [DIR]";
    let store = words.first().context(usage)?;
    ensure!(words.len() <= 2 && !store.starts_with('-'), usage);
    let pictures = match words.get(1) {
        Some(given) => PathBuf::from(given),
        None => build::root().join("docs/tui"),
    };
    let store = match store.contains("://") {
        true => store.clone(),
        false => fs::canonicalize(store)
            .with_context(|| {
                format!("no store at {store}: `cargo xtask bucket {store}` makes one")
            })?
            .display()
            .to_string(),
    };
    let in_pictures = || format!("pictures in {}", pictures.display());
    fs::create_dir_all(&pictures).with_context(in_pictures)?;
    let cdh = build::cdh()?;
    for (columns, rows) in SIZES {
        let pane = Pane::open(&cdh, &store, columns, rows)?;
        for (keys, wanted, name) in STEPS {
            pane.press(keys)?;
            let screen = pane.settled(wanted)?;
            if !name.is_empty() {
                let file = pictures.join(format!("{name}-{columns}x{rows}.svg"));
                fs::write(&file, svg::draw(screen.screen())).with_context(in_pictures)?;
                println!("{}", file.display());
            }
        }
        pane.press(&["q"])?;
    }
    Ok(())
}

/// `cdh` in a tmux of its own, with a home and a working directory that are empty.
struct Pane {
    socket: String,
    columns: u16,
    rows: u16,
    home: tempfile::TempDir,
}

impl Pane {
    fn open(cdh: &Path, store: &str, columns: u16, rows: u16) -> Result<Self> {
        let home = tempfile::tempdir()?;
        fs::create_dir_all(home.path().join("config/cdh"))?;
        fs::write(
            home.path().join("config/cdh/config.toml"),
            format!(
                "store = \"crashes\"\n[stores.crashes]\nurl = {}\n[stores.archive]\nurl = {}\n",
                serde_json::json!(store),
                serde_json::json!(home.path().join("archive")),
            ),
        )?;
        fs::create_dir(home.path().join("archive"))?;
        let pane = Self {
            socket: format!("cdh-pictures-{}-{columns}", std::process::id()),
            columns,
            rows,
            home,
        };
        let home = pane.home.path().display().to_string();
        let (columns, rows) = (columns.to_string(), rows.to_string());
        let mut start = pane.tmux(&["-f", "/dev/null", "new-session", "-d", "-s", "cdh"]);
        start.args(["-x", &columns, "-y", &rows, "-c", &home]);
        for place in ["HOME=", "XDG_CONFIG_HOME=config", "XDG_CACHE_HOME=cache"] {
            let (name, below) = place.split_once('=').context("a name")?;
            start.args(["-e", &format!("{name}={home}/{below}")]);
        }
        // Without a status line, all rows are ours.
        start.args([&format!("{} tui", cdh.display()), ";"]);
        start.args(["set-option", "-g", "status", "off"]);
        build::succeed(&mut start)?;
        Ok(pane)
    }

    fn tmux(&self, words: &[&str]) -> Command {
        let mut command = Command::new("tmux");
        command.args(["-L", &self.socket]).args(words);
        // Only the keys of one session may be in the pictures.
        command.env_remove("TMUX").env("LANG", "C.UTF-8");
        command
    }

    fn press(&self, keys: &[&str]) -> Result<()> {
        match keys.is_empty() {
            true => Ok(()),
            false => build::succeed(self.tmux(&["send-keys", "-t", "cdh"]).args(keys)),
        }
    }

    fn capture(&self) -> Result<Vec<u8>> {
        let output = self
            .tmux(&["capture-pane", "-e", "-p", "-N", "-t", "cdh"])
            .output()
            .context("tmux")?;
        ensure!(
            output.status.success(),
            "cdh has ended: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(output.stdout)
    }

    /// The screen once it stays as it is and has this text.
    fn settled(&self, wanted: &str) -> Result<vt100::Parser> {
        let begun = Instant::now();
        let (mut last, mut since) = (Vec::new(), Instant::now());
        loop {
            let now = self.capture()?;
            if now != last {
                (last, since) = (now, Instant::now());
            }
            let text = String::from_utf8_lossy(&last);
            if since.elapsed() > STILL && text.contains(wanted) {
                let mut screen = vt100::Parser::new(self.rows, self.columns, 0);
                screen.process(text.trim_end_matches('\n').replace('\n', "\r\n").as_bytes());
                return Ok(screen);
            }
            ensure!(
                begun.elapsed() < PATIENCE,
                "no `{wanted}`, or no rest, on\n{text}"
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Pane {
    fn drop(&mut self) {
        let _ = self.tmux(&["kill-server"]).output();
    }
}
