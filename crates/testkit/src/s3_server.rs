//! A real S3 server on loopback: SeaweedFS, with credentials, on ports that were free.
//!
//! Its program is `$CDH_TEST_WEED` or `weed` on the path; `cargo xtask test` installs it. It dies with
//! who started it, whatever becomes of that process: a shell waits for the end of its standard input.

use std::io::{self, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long the server may take until it answers.
const PATIENCE: Duration = Duration::from_secs(60);

/// Who may do everything.
pub const ADMIN: S3Keys = S3Keys {
    access: "AKIATESTKEY",
    secret: "testsecretkey123",
};

/// Who may look at the bucket `shelf` and change nothing.
pub const READER: S3Keys = S3Keys {
    access: "AKIATESTREADER",
    secret: "testreadersecret",
};

const IDENTITIES: &str = r#"{"identities":[
{"name":"admin","credentials":[{"accessKey":"AKIATESTKEY","secretKey":"testsecretkey123"}],
 "actions":["Admin","Read","Write","List","Tagging"]},
{"name":"reader","credentials":[{"accessKey":"AKIATESTREADER","secretKey":"testreadersecret"}],
 "actions":["Read:shelf","List:shelf"]}]}"#;

/// Waits for the end of its standard input, which is the end of us. SIGTERM would take 26 seconds.
/// Nobody is left then who would remove its data; a word before the end says that somebody is.
const SCRIPT: &str = r#"
data=$1; shift
"$@" < /dev/null > "$data/log" 2>&1 &
server=$!
if read -r word; then kill -9 $server; else kill -9 $server; rm -rf "$data"; fi
"#;

/// What one logs in with.
#[derive(Clone, Copy, Debug)]
pub struct S3Keys {
    /// Access key id.
    pub access: &'static str,
    /// Secret access key.
    pub secret: &'static str,
}

/// The running server.
pub struct S3Server {
    /// `None` for a server that somebody else has started.
    program: Option<PathBuf>,
    directory: tempfile::TempDir,
    /// Master, volume, filer, S3.
    ports: [u16; 4],
    guardian: Option<Child>,
}

impl Drop for S3Server {
    fn drop(&mut self) {
        self.kill();
    }
}

impl S3Server {
    /// Starts one; `None`, and a loud line, where its program is not installed.
    ///
    /// # Panics
    /// When it is installed and does not start.
    #[must_use]
    pub fn start() -> Option<Self> {
        if let Some(port) = std::env::var("CDH_TEST_S3_PORT")
            .ok()
            .and_then(|port| port.parse().ok())
        {
            return Some(Self::elsewhere(port));
        }
        let Some(program) = program() else {
            eprintln!(
                "SKIPPED: no S3 server here; `cargo xtask test` installs one, or set CDH_TEST_WEED \
                 to the program `weed` of SeaweedFS"
            );
            return None;
        };
        Some(Self::start_program(program))
    }

    /// Starts this program.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start_program(program: PathBuf) -> Self {
        let mut server = Self {
            program: Some(program),
            directory: tempfile::tempdir().expect("a directory for the S3 server"),
            ports: free_ports().expect("free ports"),
            guardian: None,
        };
        server.restart();
        server
    }

    /// Somebody else's, which runs already and does not check keys.
    fn elsewhere(port: u16) -> Self {
        Self {
            program: None,
            directory: tempfile::tempdir().expect("a directory"),
            ports: [0, 0, 0, port],
            guardian: None,
        }
    }

    /// Whether it checks keys and rights, and would create a bucket with its first object.
    #[must_use]
    pub fn is_ours(&self) -> bool {
        self.program.is_some()
    }

    /// Creates a bucket, for cdh never does; one that exists already stays.
    ///
    /// # Panics
    /// When it cannot be created.
    pub fn make_bucket(&self, name: &str) {
        if !self.is_ours() {
            crate::http_proxy::http_put(&self.endpoint(), &format!("/{name}")).expect("a bucket");
            return;
        }
        // Without a signature: a bucket is a directory of the filer.
        let filer = format!("http://127.0.0.1:{}", self.ports[2]);
        let made = crate::http_proxy::http_post(&filer, &format!("/buckets/{name}/"));
        let (status, body) = made.expect("the filer answers");
        assert!(
            (200..300).contains(&status) || status == 409,
            "no bucket: {status} {}",
            String::from_utf8_lossy(&body)
        );
        // The S3 gateway hears of it from the filer a moment later.
        let deadline = Instant::now() + PATIENCE;
        while !self.has_bucket(name) {
            assert!(
                Instant::now() < deadline,
                "the bucket {name} does not appear"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Whether the server has a bucket of this name.
    #[must_use]
    pub fn has_bucket(&self, name: &str) -> bool {
        let [_, _, filer, _] = self.ports;
        let endpoint = format!("http://127.0.0.1:{filer}");
        crate::http_get(&endpoint, &format!("/buckets/{name}/"))
            .is_ok_and(|(status, _)| status == 200)
    }

    /// Starts it again on the same ports, with what it held, and waits until it answers.
    ///
    /// # Panics
    /// When it does not start.
    pub fn restart(&mut self) {
        self.kill();
        let Some(program) = &self.program else { return };
        let data = self.directory.path();
        std::fs::write(data.join("s3.json"), IDENTITIES).expect("the server's identities");
        let [master, volume, filer, s3] = self.ports;
        let mut command = Command::new("sh");
        command.args(["-c", SCRIPT, "guardian"]);
        command.arg(data).arg(program).arg("server");
        command.arg(format!("-dir={}", data.display()));
        command.args(["-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-filer", "-s3"]);
        // Services that nobody asked for have ports that are not free on every machine.
        command.args([
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
            "-master.telemetry=false",
        ]);
        command.args(["-master.volumeSizeLimitMB=1024", "-volume.max=200"]);
        command.arg(format!("-s3.config={}", data.join("s3.json").display()));
        for (name, port) in [
            ("master.port", master),
            ("volume.port", volume),
            ("filer.port", filer),
            ("s3.port", s3),
        ] {
            command.arg(format!("-{name}={port}"));
        }
        // What it encrypts objects with that ask for SSE-S3.
        command.env("WEED_S3_SSE_KEY", "cdh-tests");
        let child = command.stdin(Stdio::piped()).spawn();
        self.guardian = Some(child.expect("sh runs"));
        let begun = Instant::now();
        while !self.answers() {
            let is_dead = self.log().contains("goroutine ");
            assert!(
                begun.elapsed() < PATIENCE && !is_dead,
                "the S3 server does not start: {}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Ends it as a power cut would.
    pub fn kill(&mut self) {
        if let Some(mut guardian) = self.guardian.take() {
            if let Some(mut word) = guardian.stdin.take() {
                let _ = word.write_all(b"keep\n");
            }
            let _ = guardian.wait();
        }
    }

    /// An object that does not exist is refused by all that stands behind the S3 port.
    fn answers(&self) -> bool {
        let [_, volume, filer, s3] = self.ports;
        let get = |port: u16| {
            let endpoint = format!("http://127.0.0.1:{port}");
            crate::http_get(&endpoint, "/cdh-test/none")
                .ok()
                .map(|(status, _)| status)
        };
        get(filer) == Some(404)
            && get(s3).is_some()
            && TcpStream::connect(("127.0.0.1", volume)).is_ok()
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }

    /// The port that speaks S3.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.ports[3]
    }

    /// `http://127.0.0.1:PORT`.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port())
    }
}

/// Where the server's program is.
fn program() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("CDH_TEST_WEED") {
        return Some(PathBuf::from(path)).filter(|path| path.is_file());
    }
    let paths = std::env::var_os("PATH")?;
    let mut found = std::env::split_paths(&paths).map(|path: PathBuf| path.join("weed"));
    found.find(|path: &PathBuf| Path::is_file(path))
}

/// Ports of which also those 10,000 above are free: the server uses them for itself.
fn free_ports() -> io::Result<[u16; 4]> {
    let mut held = Vec::new();
    let mut ports = Vec::new();
    while ports.len() < 4 {
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
