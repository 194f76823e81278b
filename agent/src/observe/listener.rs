//! A small HTTP server for three paths: `/metrics`, `/healthz`, `/readyz`.
//!
//! Hardened against hostile clients. A request is a head of maximum 8 KiB that must arrive within
//! seconds. The number of concurrent connections is limited, further ones are refused at accept,
//! and no connection is kept alive. The server looks only at the path and serves no files.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::Watcher;

/// Maximum size of a request head, in bytes.
const HEAD_LIMIT: usize = 8 << 10;
/// Time from the connection to the end of the answer.
const TIME_LIMIT: Duration = Duration::from_secs(5);
/// Maximum concurrent connections. Prometheus makes one.
const CONNECTIONS: usize = 16;
/// Pause before the next accept after an error, for example when descriptors run out.
const PAUSE: Duration = Duration::from_millis(100);

/// Why the listener cannot start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ListenError {
    /// The address is in use, or does not belong to this machine.
    #[error("cannot listen on {address}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// Cause.
        #[source]
        source: io::Error,
    },
}

/// Serves requests until it is dropped.
pub struct Listener {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Listener {
    /// Starts to listen on this address.
    ///
    /// # Errors
    /// Fails if the address cannot be bound.
    pub fn begin(address: SocketAddr, watcher: Arc<Watcher>) -> Result<Self, ListenError> {
        let failed = |source| ListenError::Bind { address, source };
        let listener = bind(address).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let accept = move || accept(&listener, &watcher, &stopped);
        let thread = std::thread::Builder::new().name("cdh-metrics".to_owned());
        let thread = thread.spawn(accept).map_err(failed)?;
        Ok(Self {
            address,
            stop,
            thread: Some(thread),
        })
    }

    /// The bound address. If port 0 was requested, it has the actual port.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let mut own = self.address;
        if own.ip().is_unspecified() {
            own.set_ip(match own {
                SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
                SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
            });
        }
        // Wakes the thread up. If that fails, the thread runs until the process ends, which is
        // soon.
        if TcpStream::connect_timeout(&own, Duration::from_secs(1)).is_ok()
            && let Some(thread) = self.thread.take()
        {
            let _ = thread.join();
        }
    }
}

/// `[::]` accepts IPv4 too; on a node without IPv6, `0.0.0.0` is used instead.
fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let all = SocketAddr::from((std::net::Ipv6Addr::UNSPECIFIED, address.port()));
    match TcpListener::bind(address) {
        Err(error) if address == all && lacks_ipv6(&error) => {
            TcpListener::bind((std::net::Ipv4Addr::UNSPECIFIED, address.port()))
        }
        bound => bound,
    }
}

/// The kernel has no IPv6, or it is disabled on all interfaces.
fn lacks_ipv6(error: &io::Error) -> bool {
    let code = error
        .raw_os_error()
        .map(rustix::io::Errno::from_raw_os_error);
    matches!(
        code,
        Some(rustix::io::Errno::AFNOSUPPORT | rustix::io::Errno::ADDRNOTAVAIL)
    )
}

fn accept(listener: &TcpListener, watcher: &Arc<Watcher>, stop: &AtomicBool) {
    let busy = Arc::new(AtomicUsize::new(0));
    loop {
        let accepted = listener.accept();
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let Ok((connection, _)) = accepted else {
            std::thread::sleep(PAUSE);
            continue;
        };
        if busy.fetch_add(1, Ordering::AcqRel) >= CONNECTIONS {
            busy.fetch_sub(1, Ordering::AcqRel);
            continue;
        }
        let slot = ConnectionSlot(Arc::clone(&busy));
        let watcher = Arc::clone(watcher);
        let thread = std::thread::Builder::new().name("cdh-metrics-1".to_owned());
        // If no thread can be created, the connection and its slot are dropped.
        let _ = thread.spawn(move || {
            let _slot = slot;
            // An error here means that the client disconnected; there is nothing to do.
            let _ = serve(connection, &watcher);
        });
    }
}

/// Releases the connection slot, however the thread ends.
struct ConnectionSlot(Arc<AtomicUsize>);

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

fn serve(mut connection: TcpStream, watcher: &Watcher) -> io::Result<()> {
    let deadline = Instant::now() + TIME_LIMIT;
    let head = read_head(&mut connection, deadline)?;
    let answer = answer(&head, watcher);
    let mut rest = answer.as_slice();
    while !rest.is_empty() {
        connection.set_write_timeout(Some(left(deadline)?))?;
        let count = connection.write(rest)?;
        rest = rest.get(count..).filter(|_| count > 0).unwrap_or_default();
    }
    connection.shutdown(std::net::Shutdown::Write)
}

fn left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    match left.is_zero() {
        true => Err(io::ErrorKind::TimedOut.into()),
        false => Ok(left),
    }
}

fn read_head(connection: &mut TcpStream, deadline: Instant) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    let mut buffer = [0; 1024];
    while !head.windows(4).any(|four| four == b"\r\n\r\n") && head.len() < HEAD_LIMIT {
        connection.set_read_timeout(Some(left(deadline)?))?;
        match connection.read(&mut buffer)? {
            0 => break,
            count => head.extend_from_slice(buffer.get(..count).unwrap_or_default()),
        }
    }
    Ok(head)
}

fn answer(head: &[u8], watcher: &Watcher) -> Vec<u8> {
    let line = head.split(|&byte| byte == b'\r').next().unwrap_or_default();
    let mut words = line.split(|&byte| byte == b' ');
    let method = words.next().unwrap_or_default();
    let path = words.next().unwrap_or_default();
    let path = path.split(|&byte| byte == b'?').next().unwrap_or_default();
    let is_complete = head.windows(4).any(|four| four == b"\r\n\r\n");
    const PLAIN: &str = "text/plain; charset=utf-8";
    let (status, kind, body) = match (method, path) {
        _ if !is_complete => ("400 Bad Request", PLAIN, "not an HTTP request\n".to_owned()),
        (b"GET" | b"HEAD", b"/metrics") => (
            "200 OK",
            "text/plain; version=0.0.4; charset=utf-8",
            watcher.metrics(),
        ),
        (b"GET" | b"HEAD", b"/healthz") => verdict(watcher.unhealthy(), PLAIN),
        (b"GET" | b"HEAD", b"/readyz") => verdict(watcher.unready(), PLAIN),
        (b"GET" | b"HEAD", _) => {
            let paths = "there are /metrics, /healthz and /readyz\n";
            ("404 Not Found", PLAIN, paths.to_owned())
        }
        _ => ("405 Method Not Allowed", PLAIN, "GET only\n".to_owned()),
    };
    let length = body.len();
    let mut answer = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
    )
    .into_bytes();
    if method != b"HEAD" {
        answer.extend_from_slice(body.as_bytes());
    }
    answer
}

fn verdict(wrong: Option<String>, kind: &'static str) -> (&'static str, &'static str, String) {
    match wrong {
        None => ("200 OK", kind, "ok\n".to_owned()),
        Some(why) => ("503 Service Unavailable", kind, format!("{why}\n")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listener_on_all_addresses_answers_over_ipv4() {
        let all: SocketAddr = "[::]:0".parse().unwrap();
        let listener = bind(all).unwrap();
        let port = listener.local_addr().unwrap().port();
        TcpStream::connect(("127.0.0.1", port)).unwrap();
    }

    #[test]
    fn listener_falls_back_to_ipv4_only_where_ipv6_is_missing() {
        let of = io::Error::from_raw_os_error;
        assert!(lacks_ipv6(&of(
            rustix::io::Errno::AFNOSUPPORT.raw_os_error()
        )));
        assert!(lacks_ipv6(&of(
            rustix::io::Errno::ADDRNOTAVAIL.raw_os_error()
        )));
        assert!(!lacks_ipv6(
            &of(rustix::io::Errno::ADDRINUSE.raw_os_error())
        ));
    }
}
