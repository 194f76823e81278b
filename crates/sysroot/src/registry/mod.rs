//! A read-only client of OCI registries that only accepts content with a digest.
//!
//! Every answer is limited and redirects are counted. Only the server that a password belongs to receives it.
//! Requests that may succeed later are retried a few times.

mod auth;
mod blob;
mod credentials;
mod envelope;
mod mirrors;

use std::collections::HashMap;
use std::io::Read;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use ureq::{Body, http};

use crate::transport::{Proxies, Request, Security, Transport, follow, origin_of};
use crate::{Digest, ImageReference, PullError};
use auth::{Asker, Challenge};
use credentials::{Credential, Credentials};
use mirrors::{Endpoint, Mirrors};

pub(crate) use blob::BlobReader;

/// Redirects of one request.
const MAX_REDIRECTS: usize = 8;
/// Maximum attempts per request.
const ATTEMPTS: u32 = 4;
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// Maximum wait that a registry can request.
const MAX_PAUSE: Duration = Duration::from_secs(20);

/// Network and credential settings for registries.
#[derive(Clone, Debug, Default)]
pub struct RegistryOptions {
    /// Credentials file that the user named: docker's or podman's format, or an image pull secret.
    pub auth_file: Option<PathBuf>,
    /// Trusted certificates besides the system's.
    pub ca: Option<PathBuf>,
    /// Where to find the usual credentials files; `None` disables them.
    pub home: Option<PathBuf>,
    /// `registries.conf` files and directories; later ones take precedence.
    pub registries_conf: Vec<PathBuf>,
    /// Possible credentials files of docker and podman; existing ones are read.
    pub usual_auth_files: Vec<PathBuf>,
    /// Proxies and TLS settings.
    pub proxies: Proxies,
    /// Hosts (with their ports) that may be on this machine or link-local, besides those in
    /// `registries_conf`; without a list, any may.
    pub local_hosts: Option<Vec<String>>,
}

impl RegistryOptions {
    /// From the environment: HOME, XDG_RUNTIME_DIR, DOCKER_CONFIG, REGISTRY_AUTH_FILE,
    /// CONTAINERS_REGISTRIES_CONF and the proxies.
    #[must_use]
    pub fn from_environment() -> Self {
        let path = |name: &str| {
            let value = std::env::var_os(name).filter(|value| !value.is_empty());
            value.map(PathBuf::from)
        };
        let home = path("HOME");
        let in_home = |inside: &str| home.as_ref().map(|home| home.join(inside));
        let runtime = path("XDG_RUNTIME_DIR").map(|run| run.join("containers/auth.json"));
        let docker = path("DOCKER_CONFIG").or_else(|| in_home(".docker"));
        let usual = [
            path("REGISTRY_AUTH_FILE"),
            runtime,
            in_home(".config/containers/auth.json"),
            docker.map(|directory| directory.join("config.json")),
            in_home(".dockercfg"),
        ];
        let registries_conf = match path("CONTAINERS_REGISTRIES_CONF") {
            Some(named) => vec![named],
            None => [
                Some(PathBuf::from("/etc/containers/registries.conf")),
                Some(PathBuf::from("/etc/containers/registries.conf.d")),
                in_home(".config/containers/registries.conf"),
                in_home(".config/containers/registries.conf.d"),
            ]
            .into_iter()
            .flatten()
            .collect(),
        };
        Self {
            auth_file: None,
            ca: None,
            home: home.clone(),
            registries_conf,
            usual_auth_files: usual.into_iter().flatten().collect(),
            proxies: Proxies::from_environment(),
            local_hosts: None,
        }
    }
}

/// The client.
pub struct Registry {
    transport: Transport,
    credentials: Credentials,
    mirrors: Mirrors,
    /// The transport that last succeeded for each host.
    spoken: Mutex<HashMap<String, Security>>,
    /// The `Authorization` that each host and repository accepted.
    tokens: Mutex<HashMap<(String, String), String>>,
    received: AtomicU64,
}

/// What is asked for.
pub(crate) struct Ask<'a> {
    /// `manifests/…` or `blobs/…`.
    pub(crate) path: &'a str,
    pub(crate) accept: &'a str,
    /// First byte, and the last one.
    pub(crate) range: Option<(u64, Option<u64>)>,
    /// For messages.
    pub(crate) what: &'a str,
}

impl Registry {
    /// Reads the configuration; no network access yet.
    ///
    /// # Errors
    /// If `registries.conf` is invalid.
    pub fn open(options: &RegistryOptions) -> Result<Self, PullError> {
        let home = options.home.as_deref();
        let mirrors = Mirrors::read(&options.registries_conf)?;
        let local = options.local_hosts.clone().map(|mut hosts| {
            hosts.extend(mirrors.hosts());
            hosts
        });
        let transport = Transport::new(options.ca.clone(), home, options.proxies.clone());
        Ok(Self {
            transport: transport.with_local_hosts(local),
            credentials: Credentials {
                given: options.auth_file.clone(),
                usual: options.usual_auth_files.clone(),
            },
            mirrors,
            spoken: Mutex::default(),
            tokens: Mutex::default(),
            received: AtomicU64::new(0),
        })
    }

    /// Whether this user has credentials or a rule in `registries.conf` for the registry of `image`.
    /// Contacts no registry; a credential helper may be started.
    ///
    /// # Errors
    /// If a credentials file or helper fails.
    pub fn is_known(&self, image: &ImageReference) -> Result<bool, PullError> {
        let (registry, repository) = (image.registry(), image.repository());
        Ok(self.mirrors.has_rule(image)
            || self.credentials.find(registry, repository)? != Credential::Anonymous)
    }

    /// Bytes of bodies received so far.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    pub(crate) fn count(&self, bytes: u64) {
        self.received.fetch_add(bytes, Ordering::Relaxed);
    }

    /// A small document, read completely; if a digest is expected, it is checked.
    pub(crate) fn document(
        &self,
        image: &ImageReference,
        ask: &Ask<'_>,
        expected: Option<Digest>,
        limit: u64,
    ) -> Result<(Vec<u8>, Digest), PullError> {
        let answer = self.get(image, ask)?;
        let mut bytes = Vec::new();
        let body = answer
            .into_body()
            .into_with_config()
            .limit(limit.saturating_add(1));
        body.reader()
            .take(limit.saturating_add(1))
            .read_to_end(&mut bytes)
            .map_err(|source| PullError::Unreachable {
                registry: image.registry().to_owned(),
                source,
            })?;
        self.count(bytes.len() as u64);
        if bytes.len() as u64 > limit {
            return Err(PullError::Malformed {
                what: ask.what.to_owned(),
                problem: format!("it is longer than {limit} bytes"),
            });
        }
        let found = Digest::of(&bytes);
        match expected {
            Some(expected) if expected != found => Err(PullError::Digest {
                what: ask.what.to_owned(),
                expected,
                found,
            }),
            _ => Ok((bytes, found)),
        }
    }

    /// Tries the mirrors, then the registry itself.
    pub(crate) fn get(
        &self,
        image: &ImageReference,
        ask: &Ask<'_>,
    ) -> Result<http::Response<Body>, PullError> {
        let mut last = None;
        for endpoint in self.mirrors.endpoints(image)? {
            match self.get_from(&endpoint, ask) {
                Ok(answer) => return Ok(answer),
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or(PullError::NotFound {
            registry: image.registry().to_owned(),
            what: ask.what.to_owned(),
        }))
    }

    fn get_from(
        &self,
        endpoint: &Endpoint,
        ask: &Ask<'_>,
    ) -> Result<http::Response<Body>, PullError> {
        // A mirror that is down is not retried.
        let attempts = if endpoint.mirror { 1 } else { ATTEMPTS };
        let mut pause = FIRST_PAUSE;
        let mut tried = 0;
        loop {
            tried += 1;
            let (error, answer) = match self.get_once(endpoint, ask) {
                Ok(answer) => match problem(&answer, endpoint, ask) {
                    None => return Ok(answer),
                    Some(error) => (error, Some(answer)),
                },
                Err(error) => (error, None),
            };
            if !error.is_unreachable() || tried >= attempts {
                return Err(match answer {
                    Some(answer) => envelope::explained(error, answer),
                    None => error,
                });
            }
            let wait = answer.as_ref().and_then(retry_after);
            std::thread::sleep(wait.unwrap_or(pause).min(MAX_PAUSE));
            pause = pause.saturating_mul(2);
        }
    }

    fn get_once(
        &self,
        endpoint: &Endpoint,
        ask: &Ask<'_>,
    ) -> Result<http::Response<Body>, PullError> {
        let known = lock(&self.spoken).get(&endpoint.host).copied();
        let ways: &[Security] = match (known, endpoint.insecure) {
            (Some(way), _) => &[way],
            (None, false) => &[Security::Verified],
            (None, true) => &[
                Security::Verified,
                Security::AnyCertificate,
                Security::Plain,
            ],
        };
        let mut last = None;
        for way in ways {
            match self.get_by(endpoint, *way, ask) {
                Err(error @ PullError::Unreachable { .. }) => last = Some(error),
                other => {
                    lock(&self.spoken).insert(endpoint.host.clone(), *way);
                    return other;
                }
            }
        }
        Err(last.unwrap_or(PullError::NotFound {
            registry: endpoint.host.clone(),
            what: ask.what.to_owned(),
        }))
    }

    fn get_by(
        &self,
        endpoint: &Endpoint,
        security: Security,
        ask: &Ask<'_>,
    ) -> Result<http::Response<Body>, PullError> {
        let url = format!(
            "{}://{}/v2/{}/{}",
            security.scheme(),
            endpoint.host,
            endpoint.repository,
            ask.path
        );
        let key = (endpoint.host.clone(), endpoint.repository.clone());
        let known = lock(&self.tokens).get(&key).cloned();
        let answer = self.request(endpoint, &url, security, known.as_deref(), ask)?;
        if answer.status().as_u16() != 401 {
            return Ok(answer);
        }
        let fresh = self.authorization(endpoint, security, &answer)?;
        lock(&self.tokens).insert(key, fresh.clone());
        self.request(endpoint, &url, security, Some(&fresh), ask)
    }

    /// The credentials in answer to a challenge.
    fn authorization(
        &self,
        endpoint: &Endpoint,
        security: Security,
        answer: &http::Response<Body>,
    ) -> Result<String, PullError> {
        let denied = |said: &str| PullError::Denied {
            registry: endpoint.host.clone(),
            repository: endpoint.repository.clone(),
            said: said.to_owned(),
        };
        let name = match endpoint.host.as_str() {
            "registry-1.docker.io" => "docker.io",
            other => other,
        };
        let credential = self.credentials.find(name, &endpoint.repository)?;
        for challenge in auth::challenges(answer.headers()) {
            match (&challenge, &credential) {
                (Challenge::Basic, Credential::Basic { user, password }) => {
                    return Ok(auth::basic(user, password));
                }
                (Challenge::Basic, _) => {}
                (
                    Challenge::Bearer {
                        realm,
                        service,
                        scope,
                    },
                    _,
                ) => {
                    let asker = Asker {
                        registry: &endpoint.host,
                        repository: &endpoint.repository,
                        security,
                    };
                    let token = auth::token(
                        &self.transport,
                        &asker,
                        realm,
                        service.as_deref(),
                        scope.as_deref(),
                        &credential,
                    )?;
                    return Ok(format!("Bearer {token}"));
                }
            }
        }
        Err(match credential {
            Credential::Anonymous => denied("it requires credentials"),
            _ => denied("it refuses our credentials"),
        })
    }

    fn request(
        &self,
        endpoint: &Endpoint,
        url: &str,
        security: Security,
        authorization: Option<&str>,
        ask: &Ask<'_>,
    ) -> Result<http::Response<Body>, PullError> {
        let redirect = |problem| PullError::Redirect {
            registry: endpoint.host.clone(),
            problem,
        };
        let mut headers = vec![
            ("accept", ask.accept.to_owned()),
            // A blob is compressed already, and its digest is computed over these bytes.
            ("accept-encoding", "identity".to_owned()),
        ];
        if let Some((first, last)) = ask.range {
            let last = last.map(|last| last.to_string()).unwrap_or_default();
            headers.push(("range", format!("bytes={first}-{last}")));
        }
        let mut authorization = authorization.map(str::to_owned);
        let mut url = url.to_owned();
        let mut security = security;
        for _ in 0..=MAX_REDIRECTS {
            let mut all = headers.clone();
            all.extend(authorization.clone().map(|value| ("authorization", value)));
            let request = Request {
                url: &url,
                security,
                headers: all,
                form: None,
            };
            let answer = self.transport.send(&request)?;
            if !matches!(answer.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
                return Ok(answer);
            }
            let location = answer
                .headers()
                .get("location")
                .and_then(|value| value.to_str().ok());
            let next = location.and_then(|location| follow(&url, location));
            let next = next.ok_or_else(|| redirect("to an invalid address"))?;
            if origin_of(&next) != origin_of(&url) {
                // Blobs are often in a bucket, and the signature in its URL is sufficient.
                authorization = None;
            }
            security = match (next.starts_with("http://"), security) {
                (true, Security::Verified) => return Err(redirect("from https to http")),
                (true, _) => Security::Plain,
                (false, Security::AnyCertificate) => Security::AnyCertificate,
                (false, _) => Security::Verified,
            };
            url = next;
        }
        Err(redirect("without an end"))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The wait that the registry requests, in seconds; dates are not supported.
fn retry_after(answer: &http::Response<Body>) -> Option<Duration> {
    let value = answer.headers().get("retry-after")?.to_str().ok()?;
    value.trim().parse().ok().map(Duration::from_secs)
}

fn problem(answer: &http::Response<Body>, endpoint: &Endpoint, ask: &Ask<'_>) -> Option<PullError> {
    let registry = endpoint.host.clone();
    match answer.status().as_u16() {
        200 | 206 => None,
        401 => Some(PullError::Denied {
            registry,
            repository: endpoint.repository.clone(),
            said: "it refuses our credentials".to_owned(),
        }),
        403 => Some(PullError::Denied {
            registry,
            repository: endpoint.repository.clone(),
            said: "access is forbidden".to_owned(),
        }),
        404 => Some(PullError::NotFound {
            registry,
            what: format!("{} of `{}`", ask.what, endpoint.repository),
        }),
        status => Some(PullError::Status {
            registry,
            what: ask.what.to_owned(),
            status,
            said: String::new(),
        }),
    }
}
