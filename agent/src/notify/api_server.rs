//! Client for the cluster's API server, with this pod's service account.
//!
//! Token and certificates are read for each request, because Kubernetes renews them. Only the cluster's own authority
//! is trusted, no redirect is followed, and no proxy is used: the token goes to this server only.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use ureq::{Agent, http};

use super::delivery::{Trust, client};

/// Where Kubernetes mounts a service account's files.
const ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// Maximum bytes of a token or of a file of certificates.
const FILE_LIMIT: u64 = 1 << 20;
/// Maximum length of a DNS subdomain name, by the API's own rules.
const NAME_LIMIT: usize = 253;

/// A file of the service account that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {path}: {cause}")]
pub struct AccountError {
    /// File of the service account.
    pub path: PathBuf,
    /// Cause.
    pub cause: io::Error,
}

/// Address of the API server and the directory of the service account.
#[derive(Clone, Debug)]
pub struct ApiServer {
    address: String,
    account: PathBuf,
}

impl ApiServer {
    /// The server of the cluster that this process runs in, from the values of `KUBERNETES_SERVICE_HOST` and
    /// `KUBERNETES_SERVICE_PORT`; `None` outside a cluster.
    #[must_use]
    pub fn in_cluster(host: Option<&str>, port: Option<&str>) -> Option<Self> {
        let host = host.filter(|host| !host.is_empty())?;
        let host = match host.contains(':') {
            true => format!("[{host}]"),
            false => host.to_owned(),
        };
        let port = port.filter(|port| !port.is_empty()).unwrap_or("443");
        Some(Self::new(
            format!("https://{host}:{port}"),
            Path::new(ACCOUNT),
        ))
    }

    /// The server at `address` (`https://host:port`), with the service account's files in `account`.
    #[must_use]
    pub fn new(address: String, account: &Path) -> Self {
        Self {
            address,
            account: account.to_owned(),
        }
    }

    /// A client, and a request to this path that carries the service account's token.
    ///
    /// # Errors
    /// If the token or the certificates cannot be read.
    pub(crate) fn request(
        &self,
        path: &str,
    ) -> Result<(Agent, http::request::Builder), AccountError> {
        let (token, ca) = (self.read("token")?, self.read("ca.crt")?);
        let token = String::from_utf8_lossy(&token).trim().to_owned();
        let request = http::Request::builder()
            .uri(format!("{}{path}", self.address))
            .header("accept", "application/json")
            .header("authorization", format!("Bearer {token}"));
        Ok((client(Trust::Only(&ca)), request))
    }

    fn read(&self, name: &str) -> Result<Vec<u8>, AccountError> {
        let path = self.account.join(name);
        let mut bytes = Vec::new();
        let read =
            fs::File::open(&path).and_then(|file| file.take(FILE_LIMIT).read_to_end(&mut bytes));
        match read {
            Ok(_) => Ok(bytes),
            Err(cause) => Err(AccountError { path, cause }),
        }
    }
}

/// Whether the text is a valid name of a Kubernetes object, and so can be a segment of a path.
pub(crate) fn is_name(text: &str) -> bool {
    let plain =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.".contains(&byte);
    !text.is_empty()
        && text.len() <= NAME_LIMIT
        && text.bytes().all(plain)
        && !text.contains("..")
        && text != "."
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn in_cluster_builds_the_address_from_host_and_port() {
        let address = |host, port| ApiServer::in_cluster(host, port).map(|server| server.address);
        let expect = |text: &str| Some(text.to_owned());
        assert_eq!(
            address(Some("10.96.0.1"), Some("6443")),
            expect("https://10.96.0.1:6443")
        );
        assert_eq!(
            address(Some("fd00::1"), None),
            expect("https://[fd00::1]:443")
        );
        assert_eq!(
            address(Some("10.96.0.1"), Some("")),
            expect("https://10.96.0.1:443")
        );
        assert_eq!(address(None, Some("443")), None);
        assert_eq!(address(Some(""), None), None);
    }

    #[test]
    fn is_name_refuses_what_would_leave_a_path_segment() {
        for name in ["shop", "web-7d4b9c6f5d-x2x9k", "db.shop-0", "0"] {
            assert!(is_name(name), "{name}");
        }
        let long = "a".repeat(NAME_LIMIT + 1);
        for name in [
            "", ".", "..", "../x", "a/b", "a..b", "A", "a?b", "a%2f", "ä", &long,
        ] {
            assert!(!is_name(name), "{name}");
        }
    }
}
