//! Delivers one message to one receiver over HTTP, with a time limit.

use std::sync::Arc;
use std::time::Duration;

use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::{Agent, http};

use super::Crash;

/// Time limit for one complete request.
const TIME_LIMIT: Duration = Duration::from_secs(15);

/// Result of one attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attempt {
    /// The receiver accepted it.
    Done,
    /// It failed, and may work later.
    Later(String),
    /// It failed permanently.
    Refused(String),
}

/// A receiver of notifications.
pub trait Deliver: Send {
    /// `webhook` or `kubernetes`.
    fn target(&self) -> &'static str;

    /// Its name in the configuration.
    fn name(&self) -> String;

    /// Sends the message once.
    fn deliver(&self, crash: &Crash) -> Attempt;

    /// Time before the second attempt, if it is not the default.
    fn pause(&self) -> Option<Duration> {
        None
    }
}

/// Which certificates are trusted.
pub(crate) enum Trust<'a> {
    /// The system's.
    System,
    /// Only these, PEM.
    Only(&'a [u8]),
}

/// A client that does not follow redirects: a message only goes to the configured address.
pub(crate) fn client(trust: Trust<'_>) -> Agent {
    let is_system = matches!(trust, Trust::System);
    let roots: Vec<Certificate<'static>> = match trust {
        Trust::System => {
            let native = rustls_native_certs::load_native_certs().certs;
            let native = native.iter();
            native
                .map(|one| Certificate::from_der(one.as_ref()).to_owned())
                .collect()
        }
        Trust::Only(pem) => parse_pem(pem)
            .filter_map(|item| match item {
                Ok(PemItem::Certificate(certificate)) => Some(certificate),
                _ => None,
            })
            .collect(),
    };
    let tls = TlsConfig::builder()
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .root_certs(RootCerts::new_with_certs(&roots))
        .build();
    let mut config = Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .tls_config(tls)
        .user_agent(concat!("cdh/", env!("CARGO_PKG_VERSION")))
        .timeout_global(Some(TIME_LIMIT));
    if !is_system {
        // The cluster's own API server is not behind a proxy.
        config = config.proxy(None);
    }
    config.build().new_agent()
}

/// Posts a message and interprets the answer.
pub(super) fn post(client: &Agent, request: http::request::Builder, body: Vec<u8>) -> Attempt {
    let request = match request.method("POST").body(body) {
        Ok(request) => request,
        // The error may contain the address, which may be a secret.
        Err(_) => return Attempt::Refused("its address or a header field is not valid".to_owned()),
    };
    match client.run(request) {
        Ok(answer) => {
            let status = answer.status().as_u16();
            match status {
                200..=299 => Attempt::Done,
                408 | 425 | 429 | 500..=599 => Attempt::Later(format!("it answered {status}")),
                _ => Attempt::Refused(format!("it answered {status}")),
            }
        }
        Err(error) => Attempt::Later(describe(&error).to_owned()),
    }
}

/// Posts a request and returns the answer's body.
///
/// # Errors
/// Describes the failure, without the address.
pub(super) fn ask(
    client: &Agent,
    request: http::request::Builder,
    body: Vec<u8>,
) -> Result<Vec<u8>, String> {
    /// Maximum bytes of an answer that are read.
    const LIMIT: u64 = 1 << 20;
    let request = request.method("POST").body(body);
    let request = request.map_err(|_| "its address is not valid".to_owned())?;
    let mut answer = client
        .run(request)
        .map_err(|error| describe(&error).to_owned())?;
    match answer.status().as_u16() {
        200..=299 => answer
            .body_mut()
            .with_config()
            .limit(LIMIT)
            .read_to_vec()
            .map_err(|error| describe(&error).to_owned()),
        status => Err(format!("it answered {status}")),
    }
}

/// The kind of an error without its text, which may contain addresses.
fn describe(error: &ureq::Error) -> &'static str {
    match error {
        ureq::Error::Timeout(_) => "no answer in time",
        ureq::Error::HostNotFound => "its host name is not known",
        ureq::Error::ConnectionFailed => "no connection",
        ureq::Error::Io(error) if is_of_tls(error) => "its certificate is not trusted",
        ureq::Error::Io(error) => match error.kind() {
            std::io::ErrorKind::ConnectionRefused => "connection refused",
            std::io::ErrorKind::TimedOut | std::io::ErrorKind::WouldBlock => "no answer in time",
            _ => "the connection broke",
        },
        ureq::Error::Rustls(_) | ureq::Error::Tls(_) => "its certificate is not trusted",
        ureq::Error::BadUri(_) => "its address is not valid",
        _ => "no valid answer",
    }
}

/// A failed handshake is an I/O error that contains the error of rustls.
fn is_of_tls(error: &std::io::Error) -> bool {
    error
        .get_ref()
        .is_some_and(|cause| cause.is::<rustls::Error>())
}
