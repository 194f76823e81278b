//! Names of images.

use std::fmt;

use crate::{Digest, PullError};

/// Registry of names that name none.
const DEFAULT_REGISTRY: &str = "docker.io";
/// A repository's name is no longer (OCI distribution specification).
const MAX_NAME: usize = 255;

/// `registry/repository@sha256:…`, or a tag where a person gave one by hand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageReference {
    /// Host, with a port where one was given.
    pub registry: String,
    /// Path in the registry.
    pub repository: String,
    /// Tag, used only where there is no digest.
    pub tag: Option<String>,
    /// Identity.
    pub digest: Option<Digest>,
}

impl ImageReference {
    /// Parses a reference as container runtimes print them; `docker-pullable://` and the like are cut off.
    ///
    /// # Errors
    /// When it is none.
    pub fn parse(text: &str) -> Result<Self, PullError> {
        let bad = |problem| PullError::Reference {
            text: text.to_owned(),
            problem,
        };
        let name = text.split_once("://").map_or(text, |(_, rest)| rest);
        let (name, digest) = match name.split_once('@') {
            Some((name, digest)) => {
                let digest = Digest::parse(digest)
                    .ok_or_else(|| bad("what follows `@` is no `sha256:` digest"))?;
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
            _ => (DEFAULT_REGISTRY, name),
        };
        let registry = match registry {
            "index.docker.io" | "registry-1.docker.io" => DEFAULT_REGISTRY,
            other => other,
        };
        let repository = match registry == DEFAULT_REGISTRY && !repository.contains('/') {
            true => format!("library/{repository}"),
            false => repository.to_owned(),
        };
        let host_ok = |c: char| c.is_ascii_alphanumeric() || ".-:[]".contains(c);
        if registry.is_empty() || !registry.chars().all(host_ok) {
            return Err(bad("its registry is no host name"));
        }
        let part_ok = |part: &str| {
            let word = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
            !part.is_empty() && !part.starts_with('.') && part.chars().all(word)
        };
        if repository.len() > MAX_NAME || !repository.split('/').all(part_ok) {
            return Err(bad("its repository is not a name"));
        }
        if tag.is_some_and(|tag| !part_ok(tag)) {
            return Err(bad("its tag is not a name"));
        }
        Ok(Self {
            registry: registry.to_owned(),
            repository,
            tag: tag.map(str::to_owned),
            digest,
        })
    }

    /// What stands for the manifest in an address.
    pub(crate) fn version(&self) -> String {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.to_string(),
            (None, Some(tag)) => tag.clone(),
            (None, None) => "latest".to_owned(),
        }
    }

    /// The same repository at `digest`.
    #[must_use]
    pub fn at(&self, digest: Digest) -> Self {
        Self {
            digest: Some(digest),
            tag: None,
            ..self.clone()
        }
    }
}

impl fmt::Display for ImageReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        match (&self.digest, &self.tag) {
            (Some(digest), _) => write!(f, "@{digest}"),
            (None, Some(tag)) => write!(f, ":{tag}"),
            (None, None) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_read_as_runtimes_print_them() {
        let hex = "0".repeat(64);
        for (text, expected) in [
            ("nginx", "docker.io/library/nginx".to_owned()),
            ("me/app:1.2", "docker.io/me/app:1.2".to_owned()),
            ("localhost:5000/a/b", "localhost:5000/a/b".to_owned()),
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
        ] {
            assert!(ImageReference::parse(text).is_err(), "{text}");
        }
    }
}
