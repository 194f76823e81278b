//! A server in a process of its own, for tests: ready when it is returned, and ended with the process that started
//! it. A server that ends instead of getting ready is noticed at once, and its log is in the error.
//!
//! A shell runs between: it waits for the end of its standard input, which is the end of us, and kills the
//! server. SIGKILL, because SeaweedFS needs 26 seconds for SIGTERM.

use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long a server may take until it is ready.
const PATIENCE: Duration = Duration::from_secs(60);
/// How many lines of a log an error shows: a Go program prints its stacks after the reason.
const LOG_LINES: usize = 150;
/// How often a server is started on other ports when another process was faster to take them.
const ATTEMPTS: usize = 3;

/// `$1` is the directory of the server's data. It is removed if this process dies: nothing else would remove it.
const SCRIPT: &str = r#"
data=$1 log=$2; shift 2
"$@" < /dev/null > "$log" 2>&1 &
server=$!
echo $server
exec > /dev/null 2>&1
read -r word
end=$?
kill -9 $server
# Its ports are free when it is gone.
wait $server
[ $end = 0 ] || rm -rf "$data"
"#;

/// The running server; it is killed when this is dropped.
#[derive(Debug)]
pub struct ServerProcess {
    guardian: Child,
    pid: u32,
    log: PathBuf,
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        if let Some(mut word) = self.guardian.stdin.take() {
            let _ = word.write_all(b"keep\n");
        }
        let _ = self.guardian.wait();
    }
}

impl ServerProcess {
    /// Starts `command`, whose data and log are in `directory`, and waits until `is_ready`.
    ///
    /// # Errors
    /// When it cannot be started, ends, or is not ready after a minute. The end of its log is in the error.
    pub fn start(
        command: &Command,
        directory: &Path,
        mut is_ready: impl FnMut() -> bool,
    ) -> io::Result<Self> {
        let log = directory.join("log");
        let mut guardian = Command::new("sh");
        guardian.args(["-c", SCRIPT, "guardian"]);
        guardian.arg(directory).arg(&log);
        guardian.arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => guardian.env(name, value),
                None => guardian.env_remove(name),
            };
        }
        if let Some(directory) = command.get_current_dir() {
            guardian.current_dir(directory);
        }
        guardian.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut guardian = guardian.spawn()?;
        let mut pid = String::new();
        if let Some(out) = guardian.stdout.take() {
            BufReader::new(out).read_line(&mut pid)?;
        }
        let server = Self {
            guardian,
            pid: pid.trim().parse().map_err(io::Error::other)?,
            log,
        };
        let begun = Instant::now();
        loop {
            // Asked first: the port of a dead server may be another one's by now.
            if !server.is_running() {
                return Err(server.failure(command, "ended before it was ready"));
            }
            if is_ready() {
                return Ok(server);
            }
            if begun.elapsed() > PATIENCE {
                return Err(server.failure(command, "is not ready after a minute"));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// The shell does not wait for it: when it has ended, it stays as a zombie.
    fn is_running(&self) -> bool {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid)).unwrap_or_default();
        let state = stat.rsplit_once(')').map(|(_, rest)| rest.trim_start());
        state.is_some_and(|state| !state.starts_with(['Z', 'X']))
    }

    fn failure(&self, command: &Command, what: &str) -> io::Error {
        let program = command.get_program().display();
        let log = fs::read(&self.log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().collect();
        let end = lines.get(lines.len().saturating_sub(LOG_LINES)..);
        let end = end.unwrap_or_default().join("\n  ");
        let path = self.log.display();
        io::Error::other(format!("{program} {what}; end of its log {path}:\n  {end}"))
    }
}

/// Starts a server on `N` ports that are free: if another process takes one of them first, on others.
///
/// # Errors
/// As the last `start`.
pub fn on_free_ports<const N: usize, S>(
    mut start: impl FnMut([u16; N]) -> io::Result<S>,
) -> io::Result<S> {
    let mut attempt = 1;
    loop {
        match start(free_ports()?) {
            Err(error) if attempt < ATTEMPTS && is_taken(&error) => attempt += 1,
            outcome => return outcome,
        }
    }
}

fn is_taken(error: &io::Error) -> bool {
    let text = error.to_string().to_lowercase();
    text.contains("address already in use")
}

/// Ports chosen by the kernel. Each port 10,000 above is free, too: SeaweedFS uses it for gRPC.
fn free_ports<const N: usize>() -> io::Result<[u16; N]> {
    let mut held = Vec::new();
    let mut ports = Vec::new();
    while ports.len() < N {
        let any = TcpListener::bind(("127.0.0.1", 0))?;
        // From the system's range, which begins at 32,768, to one that has room above.
        let port = any.local_addr()?.port() / 2 + 4_000;
        let pair = TcpListener::bind(("127.0.0.1", port))
            .and_then(|low| Ok((low, TcpListener::bind(("127.0.0.1", port + 10_000))?)));
        if let Ok(pair) = pair {
            held.push(pair);
            ports.push(port);
        }
    }
    ports.try_into().map_err(|_| io::ErrorKind::Other.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn server_that_dies_is_an_error_at_once_with_its_log() {
        let directory = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "echo no room for $WHAT >&2; exit 3"]);
        command.env("WHAT", "data");
        let begun = Instant::now();
        let error = ServerProcess::start(&command, directory.path(), || false).unwrap_err();
        assert!(begun.elapsed() < PATIENCE / 4, "{:?}", begun.elapsed());
        let text = error.to_string();
        assert!(text.contains("sh ended before it was ready"), "{text}");
        assert!(text.ends_with("no room for data"), "{text}");
    }

    #[test]
    fn server_is_killed_when_it_is_dropped() {
        let directory = tempfile::tempdir().unwrap();
        let mut command = Command::new("sleep");
        command.arg("600");
        let server = ServerProcess::start(&command, directory.path(), || true).unwrap();
        assert!(server.is_running());
        let stat = format!("/proc/{}/stat", server.pid);
        drop(server);
        let gone = (0..100).any(|_| {
            std::thread::sleep(Duration::from_millis(20));
            !fs::read_to_string(&stat).is_ok_and(|stat| !stat.contains(") Z"))
        });
        assert!(gone && directory.path().exists());
    }

    #[test]
    fn ports_taken_by_another_process_are_replaced() {
        let mut seen = Vec::new();
        let outcome = on_free_ports(|[port]: [u16; 1]| {
            seen.push(port);
            match seen.len() {
                1 => Err(io::Error::other("listen tcp: bind: Address already in use")),
                _ => Ok(port),
            }
        });
        assert_eq!(outcome.unwrap(), seen[1]);
        let other = on_free_ports(|[_]: [u16; 1]| Err::<(), _>(io::Error::other("no memory")));
        assert_eq!(other.unwrap_err().to_string(), "no memory");
    }
}
