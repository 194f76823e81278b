//! Parses the endpoint of a store's URL, and probes the server: a server with TLS often closes a
//! connection without TLS and gives no reason.

use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

/// Timeout of the connection, and of the answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// `http://host:port/path`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Endpoint {
    pub(super) has_tls: bool,
    /// Without the brackets of an IPv6 address.
    host: String,
    port: u16,
}

impl Endpoint {
    /// Takes the URL apart.
    ///
    /// # Errors
    /// An error text, if it is not a URL of a server.
    pub(super) fn parse(text: &str) -> Result<Self, &'static str> {
        let schemes = [("http://", false, 80), ("https://", true, 443)];
        let found = schemes
            .into_iter()
            .find_map(|(scheme, has_tls, port)| Some((text.strip_prefix(scheme)?, has_tls, port)));
        let Some((rest, has_tls, default_port)) = found else {
            return Err("expected a URL such as `https://s3.example.com:9000`");
        };
        if text.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return Err("expected a URL without spaces");
        }
        if text.contains(['?', '#', '@']) {
            return Err("expected a URL without user, query and fragment");
        }
        let authority = rest.split('/').next().unwrap_or_default();
        let (host, port) = match authority.strip_prefix('[') {
            Some(inside) => {
                let (host, after) = inside
                    .split_once(']')
                    .ok_or("expected `]` after the IPv6 address")?;
                let port = match after {
                    "" => None,
                    after => Some(
                        after
                            .strip_prefix(':')
                            .ok_or("expected `:PORT` after the IPv6 address")?,
                    ),
                };
                (host, port)
            }
            None => match authority.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (authority, None),
            },
        };
        if host.is_empty() {
            return Err("expected a host name after `//`");
        }
        let port = match port.map(str::parse::<u16>) {
            None => default_port,
            Some(Ok(port @ 1..)) => port,
            Some(_) => return Err("expected a port from 1 to 65535"),
        };
        Ok(Self {
            has_tls,
            host: host.to_owned(),
            port,
        })
    }

    /// Whether the server answers the start of a TLS handshake with TLS.
    pub(super) fn answers_tls(&self) -> bool {
        let Ok(addresses) = (self.host.as_str(), self.port).to_socket_addrs() else {
            return false;
        };
        addresses
            .take(2)
            .filter_map(|address| TcpStream::connect_timeout(&address, PATIENCE).ok())
            .any(|mut server| {
                let mut first = [0; 1];
                let asked = server
                    .set_read_timeout(Some(PATIENCE))
                    .and_then(|()| server.set_write_timeout(Some(PATIENCE)))
                    .and_then(|()| server.write_all(&client_hello()))
                    .and_then(|()| server.read_exact(&mut first));
                asked.is_ok() && (first == [ALERT] || first == [HANDSHAKE])
            })
    }
}

/// Types of TLS records.
const ALERT: u8 = 0x15;
const HANDSHAKE: u8 = 0x16;

/// The smallest ClientHello of TLS 1.2 (RFC 5246, 7.4.1.2). A server that does not accept it answers with
/// a TLS alert, which is enough.
fn client_hello() -> Vec<u8> {
    let mut hello = vec![0x03, 0x03];
    hello.extend([0x5a; 32]);
    // No session, two cipher suites (ECDHE with AES-GCM), no compression.
    hello.extend([0, 0, 4, 0xc0, 0x2b, 0xc0, 0x2f, 1, 0]);
    let length = |bytes: &[u8]| u8::try_from(bytes.len()).unwrap_or(u8::MAX);
    let mut handshake = vec![1, 0, 0, length(&hello)];
    handshake.append(&mut hello);
    let mut record = vec![HANDSHAKE, 0x03, 0x01, 0, length(&handshake)];
    record.append(&mut handshake);
    record
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoint_parse_accepts_servers_and_explains_the_rest() {
        let table = [
            ("http://127.0.0.1:9000", false, "127.0.0.1", 9000),
            ("https://s3.example.com/base", true, "s3.example.com", 443),
            ("http://[::1]:9", false, "::1", 9),
            ("http://[::1]", false, "::1", 80),
        ];
        for (text, has_tls, host, port) in table {
            let found = Endpoint::parse(text).unwrap();
            assert_eq!(
                (found.has_tls, found.host.as_str(), found.port),
                (has_tls, host, port)
            );
        }
        for (text, problem) in [
            ("minio:9000", "expected a URL such as"),
            ("http://", "host name"),
            ("http://:80", "host name"),
            ("http://a:99999", "port"),
            ("http://a:0", "port"),
            ("http://a:x", "port"),
            ("http://[::1", "]"),
            ("http://a b", "spaces"),
            ("http://user@a", "user"),
        ] {
            let error = Endpoint::parse(text).unwrap_err();
            assert!(error.contains(problem), "{text}: {error}");
        }
    }
}
