//! Excludes addresses on this machine and link-local ones.
//!
//! The author of a dump chose the name of its image's registry. The addresses are checked when the
//! connection uses them, because another lookup may return others.

use std::io;
use std::net::{IpAddr, SocketAddr};

use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;

/// Resolves names, and removes addresses that [`is_local`] matches.
#[derive(Debug, Default)]
pub(super) struct RemoteAddresses(DefaultResolver);

impl Resolver for RemoteAddresses {
    fn resolve(
        &self,
        uri: &Uri,
        config: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let found = self.0.resolve(uri, config, timeout)?;
        let mut remote = self.empty();
        for address in found.iter().filter(|address| !is_local(address)) {
            remote.push(*address);
        }
        match remote.is_empty() {
            false => Ok(remote),
            true => Err(ureq::Error::Io(io::Error::new(
                io::ErrorKind::PermissionDenied,
                "it is a local or link-local address, and only a dump names it",
            ))),
        }
    }
}

/// Loopback, link-local (used by cloud metadata services) and unspecified addresses, also IPv4 ones in
/// IPv6 form.
pub(super) fn is_local(address: &SocketAddr) -> bool {
    match address.ip().to_canonical() {
        IpAddr::V4(ip) => ip.is_loopback() || ip.is_link_local() || ip.is_unspecified(),
        IpAddr::V6(ip) => ip.is_loopback() || ip.is_unicast_link_local() || ip.is_unspecified(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn local_addresses_are_recognized_in_every_spelling() {
        for local in [
            "127.0.0.1:80",
            "127.9.9.9:1",
            "0.0.0.0:80",
            "169.254.169.254:80",
            "[::1]:80",
            "[::]:80",
            "[fe80::1]:80",
            "[::ffff:127.0.0.1]:80",
            "[::ffff:169.254.169.254]:80",
        ] {
            assert!(is_local(&local.parse().unwrap()), "{local}");
        }
        for remote in [
            "10.0.0.1:443",
            "192.168.1.1:5000",
            "[2001:db8::1]:443",
            "1.1.1.1:443",
        ] {
            assert!(!is_local(&remote.parse().unwrap()), "{remote}");
        }
    }
}
