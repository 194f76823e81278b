//! Registries: a real one, and one of our own that misbehaves on request.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use crate::server_process::on_free_ports;
use crate::{ServerProcess, TestCertificate, TestImages};

/// A request as the server sees it; header names in lower case.
#[derive(Clone, Debug)]
pub struct HttpRequest {
    /// `GET`.
    pub method: String,
    /// With its query.
    pub path: String,
    /// What came with it.
    pub headers: BTreeMap<String, String>,
    /// Where a form was sent.
    pub body: String,
}

/// What the server says.
#[derive(Clone, Debug, Default)]
pub struct HttpAnswer {
    /// Status.
    pub status: u16,
    /// Headers but the length.
    pub headers: Vec<(String, String)>,
    /// Body.
    pub body: Vec<u8>,
    /// Bytes after which the connection breaks, although more were promised.
    pub cut: Option<usize>,
}

impl HttpAnswer {
    /// A status and nothing else.
    #[must_use]
    pub fn status(status: u16) -> Self {
        Self {
            status,
            ..Self::default()
        }
    }

    /// 200 with a body.
    #[must_use]
    pub fn ok(body: &[u8]) -> Self {
        Self {
            status: 200,
            body: body.to_vec(),
            ..Self::default()
        }
    }

    /// With one more header.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }
}

type Handler = dyn Fn(&HttpRequest) -> HttpAnswer + Send + Sync;

/// An HTTP server on loopback that answers as a function says.
pub struct HttpServer {
    /// `127.0.0.1:port`.
    pub address: String,
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    requests: Arc<Mutex<Vec<HttpRequest>>>,
    thread: Option<JoinHandle<()>>,
}

impl HttpServer {
    /// Starts it; it ends when it is dropped.
    ///
    /// # Errors
    /// When there is no free port.
    pub fn start(
        handler: impl Fn(&HttpRequest) -> HttpAnswer + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?.to_string();
        let stop = Arc::new(AtomicBool::new(false));
        let sent = Arc::new(AtomicU64::new(0));
        let requests = Arc::new(Mutex::new(Vec::new()));
        let handler: Arc<Handler> = Arc::new(handler);
        let (flag, counter, seen) = (Arc::clone(&stop), Arc::clone(&sent), Arc::clone(&requests));
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if flag.load(Ordering::Relaxed) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                let (handler, counter, seen) = (
                    Arc::clone(&handler),
                    Arc::clone(&counter),
                    Arc::clone(&seen),
                );
                // A client that disconnects is not an error.
                std::thread::spawn(move || drop(serve(stream, &*handler, &counter, &seen)));
            }
        });
        Ok(Self {
            address,
            stop,
            sent,
            requests,
            thread: Some(thread),
        })
    }

    /// Bytes of bodies that were sent.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// What was asked so far.
    #[must_use]
    pub fn requests(&self) -> Vec<HttpRequest> {
        self.requests
            .lock()
            .map(|seen| seen.clone())
            .unwrap_or_default()
    }
}

impl Drop for HttpServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // Wakes it up.
        let _ = TcpStream::connect(&self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn serve(
    stream: TcpStream,
    handler: &Handler,
    sent: &AtomicU64,
    seen: &Mutex<Vec<HttpRequest>>,
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut stream = stream;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let mut words = line.split_whitespace();
        let mut request = HttpRequest {
            method: words.next().unwrap_or_default().to_owned(),
            path: words.next().unwrap_or_default().to_owned(),
            headers: BTreeMap::new(),
            body: String::new(),
        };
        loop {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            let Some((name, value)) = line.trim_end().split_once(':') else {
                break;
            };
            request
                .headers
                .insert(name.to_ascii_lowercase(), value.trim().to_owned());
        }
        let length = request
            .headers
            .get("content-length")
            .and_then(|text| text.parse().ok());
        let mut body = vec![0; length.unwrap_or(0)];
        reader.read_exact(&mut body)?;
        request.body = String::from_utf8_lossy(&body).into_owned();
        if let Ok(mut seen) = seen.lock() {
            seen.push(request.clone());
        }
        let answer = handler(&request);
        let mut head = format!(
            "HTTP/1.1 {} X\r\ncontent-length: {}\r\n",
            answer.status,
            answer.body.len()
        );
        for (name, value) in &answer.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        stream.write_all(format!("{head}\r\n").as_bytes())?;
        let end = answer
            .cut
            .unwrap_or(answer.body.len())
            .min(answer.body.len());
        for part in answer.body[..end].chunks(64 << 10) {
            stream.write_all(part)?;
            sent.fetch_add(part.len() as u64, Ordering::Relaxed);
        }
        if answer.cut.is_some() {
            return stream.shutdown(std::net::Shutdown::Both);
        }
    }
}

/// A well-behaved registry's answer; ranges are understood.
#[must_use]
pub fn answer_from(images: &TestImages, request: &HttpRequest) -> HttpAnswer {
    let name = request.path.rsplit('/').next().unwrap_or_default();
    if request.path.contains("/manifests/") {
        return match images.manifests.get(name) {
            Some((media, bytes)) => HttpAnswer::ok(bytes).with("content-type", media),
            None => HttpAnswer::status(404),
        };
    }
    let Some(blob) = images.blobs.get(name) else {
        return HttpAnswer::status(404);
    };
    ranged(blob, request)
}

/// The part of `blob` that was asked for.
#[must_use]
pub fn ranged(blob: &[u8], request: &HttpRequest) -> HttpAnswer {
    let range = request
        .headers
        .get("range")
        .and_then(|range| range.strip_prefix("bytes="));
    let Some((first, last)) = range.and_then(|range| range.split_once('-')) else {
        return HttpAnswer::ok(blob);
    };
    let first: usize = first.parse().unwrap_or(0);
    let end = last
        .parse()
        .map_or(blob.len(), |last: usize| (last + 1).min(blob.len()));
    let Some(part) = blob.get(first..end) else {
        return HttpAnswer::status(416);
    };
    let place = format!("bytes {first}-{}/{}", end - 1, blob.len());
    HttpAnswer {
        status: 206,
        ..HttpAnswer::ok(part)
    }
    .with("content-range", &place)
}

/// Debian's `docker-registry` on loopback.
pub struct DockerRegistry {
    /// `127.0.0.1:port`.
    pub address: String,
    _process: ServerProcess,
}

/// How the real registry is set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RegistryAccess {
    /// Everybody over http.
    Open,
    /// `user` with `s3cret` over http.
    Password,
    /// `user` with `s3cret` over https, with `ca.pem` in the directory.
    TlsPassword,
}

impl DockerRegistry {
    /// Starts one that keeps everything in `directory`; `None` where it is not installed.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn start(directory: &Path, access: RegistryAccess) -> io::Result<Option<Self>> {
        let there = |program: &str| Command::new(program).arg("--version").output().is_ok();
        let needed: &[&str] = match access {
            RegistryAccess::Open => &["docker-registry"],
            RegistryAccess::Password => &["docker-registry", "htpasswd"],
            RegistryAccess::TlsPassword => &["docker-registry", "htpasswd", "openssl"],
        };
        if !needed.iter().all(|program| there(program)) {
            return Ok(None);
        }
        on_free_ports(|[port]| Self::start_on(port, directory, access)).map(Some)
    }

    fn start_on(port: u16, directory: &Path, access: RegistryAccess) -> io::Result<Self> {
        let address = format!("127.0.0.1:{port}");
        fs::create_dir_all(directory)?;
        let data = directory.join("data");
        let mut config = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage:\n  filesystem: {{rootdirectory: {}}}\nhttp:\n  addr: {address}\n",
            data.display()
        );
        if access == RegistryAccess::TlsPassword {
            let files = TestCertificate::make(directory)?;
            config.push_str(&format!(
                "  tls: {{certificate: {}, key: {}}}\n",
                files.certificate.display(),
                files.key.display()
            ));
        }
        if access != RegistryAccess::Open {
            let output = Command::new("htpasswd")
                .args(["-Bbn", "user", "s3cret"])
                .output()?;
            let file = directory.join("htpasswd");
            fs::write(&file, output.stdout)?;
            config.push_str(&format!(
                "auth:\n  htpasswd: {{realm: test, path: {}}}\n",
                file.display()
            ));
        }
        let path = directory.join("config.yml");
        fs::write(&path, config)?;
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(&path);
        let process =
            ServerProcess::start(&command, directory, || TcpStream::connect(&address).is_ok())?;
        Ok(Self {
            address,
            _process: process,
        })
    }

    /// Puts images into `repository` of a registry that is open, or writes them where one keeps its data.
    ///
    /// ```text
    /// docker/registry/v2/blobs/sha256/<ab>/<digest>/data
    /// docker/registry/v2/repositories/<name>/_layers/sha256/<digest>/link
    /// docker/registry/v2/repositories/<name>/_manifests/revisions/sha256/<digest>/link
    /// ```
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn put(directory: &Path, repository: &str, images: &TestImages) -> io::Result<()> {
        let root = directory.join("data/docker/registry/v2");
        let blob = |digest: &str, bytes: &[u8]| {
            let hex = digest.trim_start_matches("sha256:");
            let place = root.join("blobs/sha256").join(&hex[..2]).join(hex);
            fs::create_dir_all(&place)?;
            fs::write(place.join("data"), bytes)
        };
        let link = |kind: &str, digest: &str| {
            let hex = digest.trim_start_matches("sha256:");
            let place = root
                .join("repositories")
                .join(repository)
                .join(kind)
                .join("sha256")
                .join(hex);
            fs::create_dir_all(&place)?;
            fs::write(place.join("link"), digest)
        };
        for (digest, bytes) in &images.blobs {
            blob(digest, bytes)?;
            link("_layers", digest)?;
        }
        for (digest, (_, bytes)) in &images.manifests {
            blob(digest, bytes)?;
            link("_manifests/revisions", digest)?;
        }
        Ok(())
    }
}
