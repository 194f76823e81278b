//! HTTP: one agent per kind of peer, with its certificates, proxies and timeouts.
//!
//! Redirects are not followed here: the caller decides which server may see a password.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::unversioned::transport::DefaultConnector;
use ureq::{Agent, Body, Proxy, http};

use crate::PullError;
use crate::remote_addresses::RemoteAddresses;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Timeout for the first byte of an answer: registries may read from buckets first.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// Timeout for each read of a body.
const STALL_TIMEOUT: Duration = Duration::from_secs(30);
/// Directories where docker, podman and containerd's tools look for the certificates of one
/// registry.
const CERTIFICATE_DIRECTORIES: [&str; 2] = ["/etc/containers/certs.d", "/etc/docker/certs.d"];

/// The transport security of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Security {
    /// With TLS and a verified certificate.
    Verified,
    /// With TLS and any certificate: the registry was configured as insecure.
    AnyCertificate,
    /// Without TLS.
    Plain,
}

impl Security {
    pub(crate) fn scheme(self) -> &'static str {
        match self {
            Self::Plain => "http",
            Self::Verified | Self::AnyCertificate => "https",
        }
    }
}

/// Proxies from the environment.
#[derive(Clone, Debug, Default)]
pub struct Proxies {
    /// For https.
    pub https: Option<String>,
    /// For http.
    pub http: Option<String>,
    /// Hosts and domains that are reached without a proxy.
    pub none_for: Vec<String>,
}

impl Proxies {
    pub(crate) fn from_environment() -> Self {
        let first = |names: &[&str]| {
            let values = names.iter().filter_map(|name| std::env::var(name).ok());
            values.into_iter().find(|value| !value.is_empty())
        };
        let none = first(&["NO_PROXY", "no_proxy"]).unwrap_or_default();
        Self {
            https: first(&["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"]),
            // A client of a CGI script can set upper-case HTTP_PROXY; curl ignores it, Go does not.
            http: first(&["http_proxy", "HTTP_PROXY", "ALL_PROXY", "all_proxy"]),
            none_for: none
                .split([',', ' '])
                .map(|part| part.trim().to_owned())
                .filter(|part| !part.is_empty())
                .collect(),
        }
    }

    fn applies_to(&self, host: &str) -> bool {
        let name = host_name(host);
        let excluded = |rule: &String| {
            let suffix = rule.trim_start_matches('*').trim_start_matches('.');
            rule == "*"
                || host == rule
                || name == suffix
                || (!suffix.is_empty() && name.ends_with(&format!(".{suffix}")))
        };
        !is_loopback(host) && !self.none_for.iter().any(excluded)
    }
}

/// A host without its port.
pub(crate) fn host_name(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.chars().all(|c| c.is_ascii_digit()) && !name.ends_with(':') => {
            name
        }
        _ => host,
    }
}

pub(crate) fn is_loopback(host: &str) -> bool {
    let name = host_name(host).trim_matches(['[', ']']);
    name == "localhost"
        || name
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

/// Makes and keeps agents.
pub(crate) struct Transport {
    ca: Option<PathBuf>,
    certificate_directories: Vec<PathBuf>,
    proxies: Proxies,
    /// Hosts that may be on this machine or link-local; without a list, any may.
    local: Option<Vec<String>>,
    agents: Mutex<HashMap<(String, Security), Agent>>,
}

/// A request without a body, or with a form.
pub(crate) struct Request<'a> {
    pub(crate) url: &'a str,
    pub(crate) security: Security,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) form: Option<String>,
}

impl Transport {
    pub(crate) fn new(ca: Option<PathBuf>, home: Option<&Path>, proxies: Proxies) -> Self {
        let own = home.map(|home| home.join(".config/containers/certs.d"));
        let system = CERTIFICATE_DIRECTORIES.iter().map(PathBuf::from);
        Self {
            ca,
            certificate_directories: own.into_iter().chain(system).collect(),
            proxies,
            local: None,
            agents: Mutex::default(),
        }
    }

    /// The same, but connects to addresses on this machine and link-local ones only for `hosts`.
    pub(crate) fn with_local_hosts(self, hosts: Option<Vec<String>>) -> Self {
        Self {
            local: hosts,
            ..self
        }
    }

    /// Sends a request; any status is an answer.
    pub(crate) fn send(&self, request: &Request<'_>) -> Result<http::Response<Body>, PullError> {
        let host = host_of(request.url).unwrap_or_default();
        let agent = self.agent(host, request.security)?;
        let unreachable = |error: ureq::Error| PullError::Unreachable {
            registry: host.to_owned(),
            source: match error {
                ureq::Error::Io(error) => error,
                other => io::Error::other(other.to_string()),
            },
        };
        let mut builder = http::Request::builder().uri(request.url);
        for (name, value) in &request.headers {
            builder = builder.header(*name, value);
        }
        let invalid = |error: http::Error| PullError::Malformed {
            what: "an address".to_owned(),
            problem: error.to_string(),
        };
        match &request.form {
            Some(form) => {
                let builder = builder
                    .method("POST")
                    .header("content-type", "application/x-www-form-urlencoded");
                agent.run(builder.body(form.as_str()).map_err(invalid)?)
            }
            None => agent.run(builder.method("GET").body(()).map_err(invalid)?),
        }
        .map_err(unreachable)
    }

    fn agent(&self, host: &str, security: Security) -> Result<Agent, PullError> {
        let key = (host.to_owned(), security);
        let mut agents = self.agents.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(agent) = agents.get(&key) {
            return Ok(agent.clone());
        }
        let proxy = match security {
            Security::Plain => &self.proxies.http,
            _ => &self.proxies.https,
        };
        let proxy = match proxy.as_ref().filter(|_| self.proxies.applies_to(host)) {
            Some(text) => Some(Proxy::new(text).map_err(|_| PullError::Configuration {
                what: "the proxy of the environment".to_owned(),
                problem: "it is not an address".to_owned(),
            })?),
            None => None,
        };
        let mut tls = TlsConfig::builder()
            .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .disable_verification(security == Security::AnyCertificate);
        if security == Security::Verified {
            tls = tls.root_certs(RootCerts::new_with_certs(&self.certificates(host)?));
        }
        let may_be_local = self
            .local
            .as_ref()
            .is_none_or(|hosts| hosts.iter().any(|known| known == host));
        // A proxy is configured by the user, and resolves the name itself.
        let is_restricted = !may_be_local && proxy.is_none();
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .proxy(proxy)
            .tls_config(tls.build())
            .user_agent(concat!("cdh/", env!("CARGO_PKG_VERSION")))
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .timeout_recv_response(Some(ANSWER_TIMEOUT))
            .timeout_per_read(Some(STALL_TIMEOUT))
            .build();
        let agent = match is_restricted {
            true => Agent::with_parts(
                config,
                DefaultConnector::default(),
                RemoteAddresses::default(),
            ),
            false => config.new_agent(),
        };
        agents.insert(key, agent.clone());
        Ok(agent)
    }

    /// The system's certificates, the configured ones, and those of this registry alone.
    fn certificates(&self, host: &str) -> Result<Vec<Certificate<'static>>, PullError> {
        let native = rustls_native_certs::load_native_certs().certs;
        let mut all: Vec<Certificate<'static>> = native
            .iter()
            .map(|one| Certificate::from_der(one.as_ref()).to_owned())
            .collect();
        if let Some(path) = &self.ca {
            let before = all.len();
            add_certificates(path, &mut all)?;
            if all.len() == before {
                return Err(PullError::Configuration {
                    what: path.display().to_string(),
                    problem: "there is no certificate in it".to_owned(),
                });
            }
        }
        // A host consists of letters, digits, dots and a port here, so it cannot leave the
        // directory.
        let usable = !host.contains('/') && !host.contains("..");
        for directory in self.certificate_directories.iter().filter(|_| usable) {
            let entries = fs::read_dir(directory.join(host)).into_iter().flatten();
            for entry in entries.flatten() {
                let path = entry.path();
                if path.extension().is_some_and(|end| end == "crt") {
                    add_certificates(&path, &mut all)?;
                }
            }
        }
        Ok(all)
    }
}

fn add_certificates(path: &Path, all: &mut Vec<Certificate<'static>>) -> Result<(), PullError> {
    let bad = |problem: String| PullError::Configuration {
        what: path.display().to_string(),
        problem,
    };
    let pem = fs::read(path).map_err(|error| bad(error.to_string()))?;
    for item in parse_pem(&pem) {
        match item.map_err(|error| bad(error.to_string()))? {
            PemItem::Certificate(certificate) => all.push(certificate),
            _ => continue,
        }
    }
    Ok(())
}

/// `host:port` of an address.
pub(crate) fn host_of(url: &str) -> Option<&str> {
    let (_, rest) = url.split_once("://")?;
    let host = rest.split(['/', '?', '#']).next()?;
    Some(host.rsplit('@').next().unwrap_or(host)).filter(|host| !host.is_empty())
}

/// Scheme, host and port.
pub(crate) fn origin_of(url: &str) -> Option<String> {
    let (scheme, _) = url.split_once("://")?;
    Some(format!("{}://{}", scheme, host_of(url)?).to_ascii_lowercase())
}

/// The target of a `Location` header, relative to `url`.
pub(crate) fn follow(url: &str, location: &str) -> Option<String> {
    let lower = location.to_ascii_lowercase();
    if lower.starts_with("https://") || lower.starts_with("http://") {
        return Some(location.to_owned());
    }
    let origin = origin_of(url)?;
    if let Some(rest) = location.strip_prefix("//") {
        return Some(format!("{}://{rest}", origin.split_once("://")?.0));
    }
    if location.starts_with('/') {
        return Some(format!("{origin}{location}"));
    }
    if lower.contains("://") {
        return None;
    }
    let path = url.split(['?', '#']).next()?;
    let directory = path.rsplit_once('/')?.0;
    Some(format!("{directory}/{location}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_lead_where_browsers_go() {
        let from = "https://r.io:5000/v2/a/blobs/x?y=/z";
        for (location, expected) in [
            ("https://s3/x", Some("https://s3/x")),
            ("/b", Some("https://r.io:5000/b")),
            ("//cdn/b", Some("https://cdn/b")),
            ("b", Some("https://r.io:5000/v2/a/blobs/b")),
            ("file:///etc/passwd", None),
        ] {
            assert_eq!(follow(from, location).as_deref(), expected, "{location}");
        }
        assert_eq!(host_of("https://user:pw@h:1/x"), Some("h:1"));
    }

    #[test]
    fn proxies_are_not_used_for_whom_they_are_excluded() {
        let proxies = Proxies {
            none_for: vec![".corp.io".to_owned(), "reg:5000".to_owned()],
            ..Proxies::default()
        };
        for (host, expected) in [
            ("quay.io", true),
            ("a.corp.io:443", false),
            ("corp.io", false),
            ("reg:5000", false),
            ("reg", true),
            ("127.0.0.1:5000", false),
            ("[::1]:5000", false),
        ] {
            assert_eq!(proxies.applies_to(host), expected, "{host}");
        }
    }
}
