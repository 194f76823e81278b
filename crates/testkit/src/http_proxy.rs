//! A hostile peer in this process: an HTTP/1.1 proxy that counts what it passes on and does to it what
//! a test says, or a server of its own where the test answers everything itself.
//!
//! ```text
//! client ─▶ proxy ─▶ server        Deed::Pass, Cut, Drip …
//! client ─▶ proxy                  Deed::Answer, Hang …
//! ```
//!
//! Signatures stay valid: nothing of a request is changed on the way.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Request {
    /// `GET`.
    pub method: String,
    /// `/bucket/key?query`.
    pub target: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    /// How many came before it.
    pub number: u64,
}

impl Request {
    /// The value of a header.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }

    fn len(&self) -> u64 {
        let text = self.header("content-length").unwrap_or("0");
        text.parse().unwrap_or(0)
    }
}

/// What becomes of a request.
#[derive(Clone, Debug)]
pub enum Deed {
    /// It reaches the server, its answer the client.
    Pass,
    /// An answer of this status, with these headers and this body; the server hears nothing.
    Answer(u16, Vec<(&'static str, String)>, Vec<u8>),
    /// It reaches the server; the client gets this answer instead.
    PassAndAnswer(u16, Vec<u8>),
    /// The connection ends before the request is read.
    Refuse,
    /// The connection ends after so many bytes of the request's body; the server gets no more either.
    CutRequest(u64),
    /// The connection ends after so many bytes of the answer's body.
    CutAnswer(u64),
    /// The answer's body comes in pieces of so many bytes, with a pause after each.
    Drip(usize, Duration),
    /// The proxy itself is the server: it keeps what is put, gives it back, and ignores conditions and
    /// checksums.
    Remember,
}

type Judge = dyn Fn(&Request) -> Deed + Send + Sync;

struct State {
    upstream: Option<u16>,
    judge: Mutex<Arc<Judge>>,
    requests: Mutex<Vec<Request>>,
    number: AtomicU64,
    sent: AtomicU64,
    received: AtomicU64,
    down: AtomicBool,
    memory: Mutex<BTreeMap<String, Vec<u8>>>,
    open: Mutex<Vec<TcpStream>>,
}

/// The proxy; it ends when it is dropped.
pub struct HttpProxy {
    port: u16,
    state: Arc<State>,
}

impl Drop for HttpProxy {
    fn drop(&mut self) {
        self.state.down.store(true, Ordering::SeqCst);
        self.cut_all();
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

impl HttpProxy {
    /// In front of the server at `upstream`, or a server of its own without one.
    ///
    /// # Panics
    /// If no port is free.
    #[must_use]
    pub fn start(
        upstream: Option<u16>,
        judge: impl Fn(&Request) -> Deed + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
        let port = listener.local_addr().expect("its number").port();
        let state = Arc::new(State {
            upstream,
            judge: Mutex::new(Arc::new(judge)),
            requests: Mutex::default(),
            number: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            received: AtomicU64::new(0),
            down: AtomicBool::new(false),
            memory: Mutex::default(),
            open: Mutex::default(),
        });
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if shared.down.load(Ordering::SeqCst) {
                    return;
                }
                let state = Arc::clone(&shared);
                if let Ok(other) = client.try_clone() {
                    lock(&state.open).push(other);
                }
                std::thread::spawn(move || {
                    let _ = serve(&state, &client);
                    let _ = client.shutdown(Shutdown::Both);
                });
            }
        });
        Self { port, state }
    }

    /// In front of the server at `upstream`, doing nothing but count.
    #[must_use]
    pub fn counting(upstream: u16) -> Self {
        Self::start(Some(upstream), |_| Deed::Pass)
    }

    /// `http://127.0.0.1:PORT`.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Judges otherwise from now on.
    pub fn judge(&self, judge: impl Fn(&Request) -> Deed + Send + Sync + 'static) {
        *lock(&self.state.judge) = Arc::new(judge);
    }

    /// Ends all connections where they are.
    pub fn cut_all(&self) {
        for connection in lock(&self.state.open).drain(..) {
            let _ = connection.shutdown(Shutdown::Both);
        }
    }

    /// Bytes of answers' bodies that were sent to clients.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.state.sent.load(Ordering::SeqCst)
    }

    /// Bytes of requests' bodies that were received from clients.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.state.received.load(Ordering::SeqCst)
    }

    /// Requests so far.
    #[must_use]
    pub fn requests(&self) -> Vec<Request> {
        lock(&self.state.requests).clone()
    }

    /// Forgets what was counted.
    pub fn reset(&self) {
        lock(&self.state.requests).clear();
        self.state.sent.store(0, Ordering::SeqCst);
        self.state.received.store(0, Ordering::SeqCst);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a server at `http://host:port` answers to a plain GET: status and body.
///
/// # Errors
/// When it does not answer.
pub fn http_get(endpoint: &str, target: &str) -> io::Result<(u16, Vec<u8>)> {
    ask("GET", endpoint, target)
}

pub(crate) fn http_put(endpoint: &str, target: &str) -> io::Result<(u16, Vec<u8>)> {
    ask("PUT", endpoint, target)
}

pub(crate) fn http_post(endpoint: &str, target: &str) -> io::Result<(u16, Vec<u8>)> {
    ask("POST", endpoint, target)
}

fn ask(method: &str, endpoint: &str, target: &str) -> io::Result<(u16, Vec<u8>)> {
    let host = endpoint.trim_start_matches("http://");
    let mut server = TcpStream::connect(host)?;
    server.set_read_timeout(Some(Duration::from_secs(10)))?;
    let head = format!("{method} {target} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\n");
    write!(server, "{head}Connection: close\r\n\r\n")?;
    let mut from_server = BufReader::new(server);
    let (line, _) = read_head(&mut from_server)?.ok_or(io::ErrorKind::UnexpectedEof)?;
    let status = line.split(' ').nth(1).and_then(|text| text.parse().ok());
    let mut body = Vec::new();
    from_server.read_to_end(&mut body)?;
    Ok((status.ok_or(io::ErrorKind::InvalidData)?, body))
}

type Head = (String, Vec<(String, String)>);

/// First line and headers; `None` at the end of the connection.
fn read_head(from: &mut impl BufRead) -> io::Result<Option<Head>> {
    let mut line = || {
        let mut text = String::new();
        from.read_line(&mut text)?;
        Ok::<_, io::Error>(text.trim_end().to_owned())
    };
    let first = line()?;
    if first.is_empty() {
        return Ok(None);
    }
    let mut headers = Vec::new();
    loop {
        let text = line()?;
        let Some((name, value)) = text.split_once(':') else {
            return Ok(Some((first, headers)));
        };
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
}

fn serve(state: &State, client: &TcpStream) -> io::Result<()> {
    client.set_nodelay(true)?;
    let mut from_client = BufReader::with_capacity(256 << 10, client);
    while let Some((first, headers)) = read_head(&mut from_client)? {
        let mut words = first.split(' ').map(str::to_owned);
        let request = Request {
            method: words.next().unwrap_or_default(),
            target: words.next().unwrap_or_default(),
            headers,
            number: state.number.fetch_add(1, Ordering::SeqCst),
        };
        lock(&state.requests).push(request.clone());
        let judge = Arc::clone(&lock(&state.judge));
        if !one(state, &request, judge(&request), &mut from_client, client)? {
            return Ok(());
        }
    }
    Ok(())
}

/// Deals with one request; returns whether the connection goes on.
fn one(
    state: &State,
    request: &Request,
    deed: Deed,
    from_client: &mut impl BufRead,
    mut client: &TcpStream,
) -> io::Result<bool> {
    let continues = request.header("expect").is_some();
    if matches!(deed, Deed::Refuse) {
        return Ok(false);
    }
    if continues {
        client.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
    }
    if let Deed::Answer(status, headers, body) = &deed {
        let mut body_in = from_client.take(request.len());
        let read = io::copy(&mut body_in, &mut io::sink())?;
        state.received.fetch_add(read, Ordering::SeqCst);
        answer(state, request, *status, headers, body, client)?;
        return Ok(true);
    }
    if let Deed::Remember = deed {
        let mut body = Vec::new();
        from_client.take(request.len()).read_to_end(&mut body)?;
        state
            .received
            .fetch_add(body.len() as u64, Ordering::SeqCst);
        remember(state, request, body, client)?;
        return Ok(true);
    }
    let port = state.upstream.ok_or(io::ErrorKind::NotConnected)?;
    let mut server = TcpStream::connect(("127.0.0.1", port))?;
    server.set_nodelay(true)?;
    let mut head = format!("{} {} HTTP/1.1\r\n", request.method, request.target);
    for (name, value) in &request.headers {
        if name != "expect" && name != "connection" {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
    }
    head.push_str("connection: close\r\n\r\n");
    server.write_all(head.as_bytes())?;
    let most = match deed {
        Deed::CutRequest(most) => most,
        _ => u64::MAX,
    };
    let passed = copy(
        from_client,
        &mut server,
        request.len().min(most),
        &state.received,
    )?;
    if passed < request.len() {
        return Ok(false);
    }
    let mut from_server = BufReader::with_capacity(256 << 10, server);
    let Some((line, headers)) = read_head(&mut from_server)? else {
        return Ok(false);
    };
    if let Deed::PassAndAnswer(status, body) = &deed {
        answer(state, request, *status, &[], body, client)?;
        return Ok(true);
    }
    let get = |name: &str| {
        headers
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, v)| v.as_str())
    };
    let bodiless = request.method == "HEAD" || line.contains(" 204") || line.contains(" 304");
    let length: Option<u64> = match get("content-length").and_then(|text| text.parse().ok()) {
        _ if bodiless => Some(0),
        length => length,
    };
    let mut head = format!("{line}\r\n");
    for (name, value) in headers.iter().filter(|(name, _)| name != "connection") {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    // Chunked bodies are passed on as they are, and end with the connection.
    let keeps = length.is_some() && request.header("connection") != Some("close");
    head.push_str(if keeps {
        "\r\n"
    } else {
        "connection: close\r\n\r\n"
    });
    client.write_all(head.as_bytes())?;
    let length = length.unwrap_or(u64::MAX);
    match deed {
        Deed::CutAnswer(most) => {
            copy(&mut from_server, &mut client, length.min(most), &state.sent)?;
            return Ok(length <= most);
        }
        Deed::Drip(size, pause) => {
            let mut left = length;
            while left > 0 {
                let piece = left.min(size as u64);
                let count = copy(&mut from_server, &mut client, piece, &state.sent)?;
                left -= count;
                if count < piece {
                    break;
                }
                std::thread::sleep(pause);
            }
        }
        _ => {
            copy(&mut from_server, &mut client, length, &state.sent)?;
        }
    }
    Ok(keeps)
}

/// Copies `len` bytes at most and counts them as they pass.
fn copy(
    from: &mut impl BufRead,
    to: &mut impl Write,
    len: u64,
    counter: &AtomicU64,
) -> io::Result<u64> {
    let mut done = 0;
    while done < len {
        let available = from.fill_buf()?;
        let left = usize::try_from(len - done).unwrap_or(usize::MAX);
        let part = &available[..available.len().min(left)];
        if part.is_empty() {
            break;
        }
        to.write_all(part)?;
        let count = part.len();
        from.consume(count);
        done += count as u64;
        counter.fetch_add(count as u64, Ordering::SeqCst);
    }
    Ok(done)
}

fn answer(
    state: &State,
    request: &Request,
    status: u16,
    headers: &[(&'static str, String)],
    body: &[u8],
    mut client: &TcpStream,
) -> io::Result<()> {
    let mut head = format!("HTTP/1.1 {status} It\r\ncontent-length: {}\r\n", body.len());
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    client.write_all(format!("{head}\r\n").as_bytes())?;
    if request.method != "HEAD" {
        client.write_all(body)?;
        state.sent.fetch_add(body.len() as u64, Ordering::SeqCst);
    }
    Ok(())
}

/// The smallest server that there can be.
fn remember(state: &State, request: &Request, body: Vec<u8>, client: &TcpStream) -> io::Result<()> {
    let path = request.target.split('?').next().unwrap_or_default();
    let mut memory = lock(&state.memory);
    let etag = vec![("etag", format!("\"{}\"", path.len()))];
    match request.method.as_str() {
        "PUT" => {
            memory.insert(path.to_owned(), body);
            answer(state, request, 200, &etag, b"", client)
        }
        "DELETE" => {
            memory.remove(path);
            answer(state, request, 204, &[], b"", client)
        }
        // Whatever bucket is asked for is there.
        "HEAD" if !path.trim_matches('/').contains('/') => {
            answer(state, request, 200, &[], b"", client)
        }
        _ => match memory.get(path) {
            Some(found) => answer(state, request, 200, &etag, found, client),
            None => answer(state, request, 404, &[], b"", client),
        },
    }
}
