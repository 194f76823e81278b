//! Names of images, each with a digest that we can check or with none.
//!
//! The grammar is that of `oci_client`, whose own parser builds a regular expression with letters of all
//! scripts in tags: that takes 40 ms per name, and 16 MiB of memory, a quarter of a pull's limit.
//! `reference_parser_agrees_with_the_crate` compares the two.

use std::fmt;
use std::net::{Ipv6Addr, SocketAddrV6};

use crate::{Digest, PullError};

/// The default registry, and other names for it.
const DOCKER_HUB: &str = "docker.io";
const DOCKER_HUB_ALIASES: [&str; 2] = ["index.docker.io", "registry-1.docker.io"];
/// Maximum length of a repository's name (OCI distribution specification).
const MAX_NAME: usize = 255;
const MAX_TAG: usize = 128;
/// Maximum length of a host, a repository, a tag and a digest.
const MAX_TEXT: usize = 1024;
const DEFAULT_TAG: &str = "latest";

/// `registry/repository@sha256:…`, or a tag if a user gave one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageReference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl ImageReference {
    /// Parses a reference in the format of container runtimes; prefixes such as `docker-pullable://` are
    /// removed.
    ///
    /// # Errors
    /// When it is none.
    pub fn parse(text: &str) -> Result<Self, PullError> {
        let bad = |problem| PullError::Reference {
            text: text.chars().take(MAX_TEXT).collect(),
            problem,
        };
        let name = text.split_once("://").map_or(text, |(_, rest)| rest);
        if name.len() > MAX_TEXT {
            return Err(bad("it is too long"));
        }
        let (name, digest) = match name.split_once('@') {
            Some((name, digest)) => {
                let digest = Digest::parse(digest)
                    .ok_or_else(|| bad("expected a `sha256:` digest after `@`"))?;
                (name, Some(digest))
            }
            None => (name, None),
        };
        let (name, tag) = match name.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
            _ => (name, None),
        };
        let (registry, repository) = match name.split_once('/') {
            Some((host, rest)) if host.contains(['.', ':']) || host == "localhost" => (host, rest),
            _ => (DOCKER_HUB, name),
        };
        let registry = match DOCKER_HUB_ALIASES.contains(&registry) {
            true => DOCKER_HUB,
            false => registry,
        };
        let repository = match registry == DOCKER_HUB && !repository.contains('/') {
            true => format!("library/{repository}"),
            false => repository.to_owned(),
        };
        if !is_registry(registry) {
            return Err(bad("its registry is not a host name"));
        }
        if repository.len() > MAX_NAME || !repository.split('/').all(is_component) {
            return Err(bad("its repository is not a name"));
        }
        if !tag.is_none_or(is_tag) {
            return Err(bad("its tag is not a name"));
        }
        let tag = match (tag, digest) {
            (None, None) => Some(DEFAULT_TAG),
            (tag, _) => tag,
        };
        Ok(Self {
            registry: registry.to_owned(),
            repository,
            tag: tag.map(str::to_owned),
            digest,
        })
    }

    /// Host, with the port if given.
    #[must_use]
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// Path in the registry.
    #[must_use]
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The digest, if known.
    #[must_use]
    pub fn digest(&self) -> Option<Digest> {
        self.digest
    }

    /// The part of an address that selects the manifest.
    #[cfg(feature = "images")]
    pub(crate) fn version(&self) -> String {
        match (self.digest, &self.tag) {
            (Some(digest), _) => digest.to_string(),
            (None, tag) => tag.clone().unwrap_or_else(|| DEFAULT_TAG.to_owned()),
        }
    }

    /// The same repository at `digest`.
    #[must_use]
    pub fn at(&self, digest: Digest) -> Self {
        Self {
            digest: Some(digest),
            ..self.clone()
        }
    }
}

impl fmt::Display for ImageReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // With a digest, a tag has no effect.
        write!(f, "{}/{}", self.registry, self.repository)?;
        match (self.digest, &self.tag) {
            (Some(digest), _) => write!(f, "@{digest}"),
            (None, Some(tag)) => write!(f, ":{tag}"),
            (None, None) => Ok(()),
        }
    }
}

/// A host with or without a port. The crate's parser does not support IPv6 addresses; Docker does.
fn is_registry(registry: &str) -> bool {
    if let Some(inner) = registry.strip_prefix('[') {
        let bare = inner.strip_suffix(']');
        return bare.is_some_and(|inner| inner.parse::<Ipv6Addr>().is_ok())
            || (!inner.contains('%') && registry.parse::<SocketAddrV6>().is_ok());
    }
    let (host, port) = match registry.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (registry, None),
    };
    let label = |label: &str| {
        let inside = |c: char| c.is_ascii_alphanumeric() || c == '-';
        !label.is_empty()
            && label.chars().all(inside)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let number = |port: &str| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    host.split('.').all(label) && port.is_none_or(number)
}

/// Words of lower-case letters and digits, separated by `.`, `_`, `__` or any number of `-`.
fn is_component(component: &str) -> bool {
    let is_word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let between = |separator: &str| {
        matches!(separator, "" | "." | "_" | "__") || separator.chars().all(|c| c == '-')
    };
    component.starts_with(is_word)
        && component.ends_with(is_word)
        && component.split(is_word).all(between)
}

fn is_tag(tag: &str) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    tag.len() <= MAX_TAG
        && tag.starts_with(word)
        && tag.chars().all(|c| word(c) || ".-".contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn references_are_read_as_runtimes_print_them() {
        let hex = "0".repeat(64);
        for (text, expected) in [
            ("nginx", "docker.io/library/nginx:latest".to_owned()),
            ("me/app:1.2", "docker.io/me/app:1.2".to_owned()),
            (
                "registry-1.docker.io/nginx:1",
                "docker.io/library/nginx:1".to_owned(),
            ),
            ("localhost:5000/a/b", "localhost:5000/a/b:latest".to_owned()),
            ("[::1]:5000/a/b:x", "[::1]:5000/a/b:x".to_owned()),
            (
                &format!("[2001:db8::1]/a@sha256:{hex}"),
                format!("[2001:db8::1]/a@sha256:{hex}"),
            ),
            (
                &format!("quay.io/x/y:v1@sha256:{hex}"),
                format!("quay.io/x/y@sha256:{hex}"),
            ),
            (
                &format!("docker-pullable://nginx@sha256:{hex}"),
                format!("docker.io/library/nginx@sha256:{hex}"),
            ),
        ] {
            assert_eq!(ImageReference::parse(text).unwrap().to_string(), expected);
        }
    }

    #[test]
    fn hostile_references_are_refused() {
        for text in [
            "",
            "a b",
            "reg.io/../etc",
            "reg.io/x@sha256:12",
            "reg.io/x@md5:00",
            "reg.io/x?y=1",
            "user@host/x",
            "reg.io/x:a/b c",
            "reg.io//x",
            "reg.io/x:\u{fc}ber",
            "reg.io/x:a\nb",
            "reg.io/Upper",
            "[::1/x",
            "[::1%lo]:5000/x",
            "[fe80::1%25lo]/x",
            "[reg.io]/x",
            &format!("reg.io/{}", "a".repeat(256)),
            &format!("reg.io/x:{}", "a".repeat(129)),
            &format!("reg.io/x@sha512:{}", "0".repeat(128)),
            &"a/".repeat(1 << 20),
        ] {
            assert!(ImageReference::parse(text).is_err(), "{text}");
        }
    }

    #[cfg(feature = "images")]
    fn of_crate(
        theirs: &oci_client::Reference,
    ) -> (String, String, Option<String>, Option<String>) {
        let text = |text: Option<&str>| text.map(str::to_owned);
        let (tag, digest) = (text(theirs.tag()), text(theirs.digest()));
        (
            theirs.registry().to_owned(),
            theirs.repository().to_owned(),
            tag,
            digest,
        )
    }

    #[cfg(feature = "images")]
    proptest! {
        #[test]
        fn reference_parser_agrees_with_the_crate(
            text in "([a0][aB0.:_-]{0,5}/|localhost(:0)?/|index\\.docker\\.io/)?[aB0._-]{0,5}(/[aB0._-]{1,4})?(:[aB0._-]{0,4})?(@sha256:0{63,65})?"
        ) {
            prop_assume!(!text.contains("://"));
            let theirs = oci_client::Reference::try_from(text.as_str()).ok();
            // The crate parses `B/0` as a repository of Docker Hub and `a.b_c` as a host. Docker
            // does not.
            let is_docker_s = |one: &oci_client::Reference| {
                !one.repository().contains(char::is_uppercase) && is_registry(one.registry())
            };
            let theirs = theirs.filter(is_docker_s);
            let ours = ImageReference::parse(&text).ok();
            let ours = ours.map(|ours| {
                let digest = ours.digest.map(|digest| digest.to_string());
                (ours.registry, ours.repository, ours.tag, digest)
            });
            prop_assert_eq!(ours, theirs.as_ref().map(of_crate));
        }
    }
}
