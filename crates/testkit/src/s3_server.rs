//! A real S3 server on loopback: SeaweedFS, with credentials, on ports that were free.
//!
//! Its program is `$CDH_TEST_WEED` or `weed` on the path; `cargo xtask test` installs it.

use std::io;
use std::net::{IpAddr, Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::ServerProcess;
use crate::server_process::on_free_ports;

/// How long a new bucket may take to appear.
const BUCKET_PATIENCE: Duration = Duration::from_secs(60);

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
    /// `None` for a server that another process has started.
    program: Option<PathBuf>,
    directory: tempfile::TempDir,
    host: IpAddr,
    ports: Ports,
    process: Option<ServerProcess>,
}

#[derive(Clone, Copy)]
struct Ports {
    master: u16,
    volume: u16,
    filer: u16,
    s3: u16,
}

impl S3Server {
    /// Starts one.
    ///
    /// # Errors
    /// Why there is none, for [`skip`](crate::skip): its program is not installed.
    ///
    /// # Panics
    /// When it is installed and does not start.
    pub fn start() -> Result<Self, String> {
        if let Some(port) = std::env::var("CDH_TEST_S3_PORT")
            .ok()
            .and_then(|port| port.parse().ok())
        {
            return Ok(Self::elsewhere(port));
        }
        let program = program().ok_or(
            "no S3 server here; `cargo xtask test` installs one, or set CDH_TEST_WEED to the program `weed` of \
             SeaweedFS",
        )?;
        Ok(Self::start_program(program))
    }

    /// Starts this program.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start_program(program: PathBuf) -> Self {
        Self::start_program_at(program, Ipv4Addr::LOCALHOST.into())
    }

    /// Starts this program on an address of this machine, for clients in other network namespaces.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start_program_at(program: PathBuf, host: IpAddr) -> Self {
        let server = on_free_ports(|[master, volume, filer, s3]: [u16; 4]| {
            let mut server = Self {
                program: Some(program.clone()),
                directory: tempfile::tempdir()?,
                host,
                ports: Ports {
                    master,
                    volume,
                    filer,
                    s3,
                },
                process: None,
            };
            server.try_restart()?;
            Ok(server)
        });
        server.unwrap_or_else(|error| panic!("the S3 server does not start: {error}"))
    }

    /// A server that runs already and does not check keys.
    fn elsewhere(port: u16) -> Self {
        Self {
            program: None,
            directory: tempfile::tempdir().expect("a directory"),
            host: Ipv4Addr::LOCALHOST.into(),
            ports: Ports {
                master: 0,
                volume: 0,
                filer: 0,
                s3: port,
            },
            process: None,
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
        let filer = self.url(self.ports.filer);
        let made = crate::http_proxy::http_post(&filer, &format!("/buckets/{name}/"));
        let (status, body) = made.expect("the filer answers");
        assert!(
            (200..300).contains(&status) || status == 409,
            "no bucket: {status} {}",
            String::from_utf8_lossy(&body)
        );
        // The S3 gateway hears of it from the filer a moment later.
        let deadline = Instant::now() + BUCKET_PATIENCE;
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
        crate::http_get(&self.url(self.ports.filer), &format!("/buckets/{name}/"))
            .is_ok_and(|(status, _)| status == 200)
    }

    /// Starts it again on the same ports, with what it held, and waits until it answers.
    ///
    /// # Panics
    /// When it does not start.
    pub fn restart(&mut self) {
        let outcome = self.try_restart();
        outcome.unwrap_or_else(|error| panic!("the S3 server does not start: {error}"));
    }

    fn try_restart(&mut self) -> io::Result<()> {
        self.kill();
        let Some(program) = &self.program else {
            return Ok(());
        };
        let data = self.directory.path();
        std::fs::write(data.join("s3.json"), IDENTITIES)?;
        let mut command = Command::new(program);
        command.arg("server");
        command.arg(format!("-dir={}", data.display()));
        let host = self.host;
        command.args([format!("-ip={host}"), format!("-ip.bind={host}")]);
        command.args(["-filer", "-s3"]);
        // Services that no test uses have ports that are not free on every machine.
        command.args([
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
            "-master.telemetry=false",
        ]);
        command.args(["-master.volumeSizeLimitMB=1024", "-volume.max=200"]);
        command.arg(format!("-s3.config={}", data.join("s3.json").display()));
        for (name, port) in [
            ("master.port", self.ports.master),
            ("volume.port", self.ports.volume),
            ("filer.port", self.ports.filer),
            ("s3.port", self.ports.s3),
        ] {
            command.arg(format!("-{name}={port}"));
        }
        // What it encrypts objects with that ask for SSE-S3.
        command.env("WEED_S3_SSE_KEY", "cdh-tests");
        let process = ServerProcess::start(&command, data, || self.answers())?;
        self.process = Some(process);
        Ok(())
    }

    /// Ends it as a power cut would.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// An object that does not exist is refused by all servers behind the S3 port.
    fn answers(&self) -> bool {
        let Ports {
            volume, filer, s3, ..
        } = self.ports;
        let get = |port: u16| {
            crate::http_get(&self.url(port), "/cdh-test/none")
                .ok()
                .map(|(status, _)| status)
        };
        get(filer) == Some(404)
            && get(s3).is_some()
            && TcpStream::connect((self.host, volume)).is_ok()
    }

    /// The port that speaks S3.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.ports.s3
    }

    /// `http://127.0.0.1:PORT`, or the address that it was started on.
    #[must_use]
    pub fn endpoint(&self) -> String {
        self.url(self.port())
    }

    fn url(&self, port: u16) -> String {
        format!("http://{}:{port}", self.host)
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

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn s3_server_keeps_its_bucket_over_a_restart() {
        let Some(mut server) = crate::or_skip(S3Server::start()) else {
            return;
        };
        server.make_bucket("shelf");
        server.restart();
        assert!(server.has_bucket("shelf") && !server.has_bucket("other"));
    }

    #[test]
    fn s3_server_on_a_taken_port_fails_at_once_with_its_log() {
        let Some(mut server) = crate::or_skip(S3Server::start()) else {
            return;
        };
        if !server.is_ours() {
            return;
        }
        server.kill();
        let _taken = TcpListener::bind(("127.0.0.1", server.ports.s3)).unwrap();
        let begun = Instant::now();
        let error = server.try_restart().unwrap_err().to_string();
        assert!(begun.elapsed() < Duration::from_secs(45), "{error}");
        assert!(error.contains("ended before it was ready"), "{error}");
        assert!(error.contains("address already in use"), "{error}");
    }
}
