//! Parses `registries.conf`: the location of a registry, its mirrors, and which of them need no
//! TLS.
//!
//! Version 2 of the format (containers-registries.conf(5)): `[[registry]]` with `prefix`, `location`,
//! `insecure`, `blocked` and `[[registry.mirror]]`. Other keys are ignored.

use std::fs;
use std::path::PathBuf;

use serde::Deserialize;

use crate::transport::is_loopback;
use crate::{ImageReference, PullError};

/// A server that may hold an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    pub(crate) host: String,
    pub(crate) repository: String,
    /// Whether invalid certificates and plain http are accepted.
    pub(crate) insecure: bool,
    /// Whether the registry itself is tried if this one fails.
    pub(crate) mirror: bool,
}

#[derive(Debug, Default, Deserialize)]
struct File {
    #[serde(default)]
    registry: Vec<Rule>,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct Rule {
    prefix: Option<String>,
    location: Option<String>,
    #[serde(default)]
    insecure: bool,
    #[serde(default)]
    blocked: bool,
    #[serde(default)]
    mirror: Vec<Mirror>,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct Mirror {
    location: String,
    #[serde(default)]
    insecure: bool,
    #[serde(default, rename = "pull-from-mirror")]
    pull: Option<String>,
}

/// All rules of all files.
#[derive(Clone, Debug, Default)]
pub(crate) struct Mirrors(Vec<Rule>);

impl Mirrors {
    /// Reads files; missing ones are skipped. For a directory, reads its `*.conf` in order.
    pub(crate) fn read(paths: &[PathBuf]) -> Result<Self, PullError> {
        let mut rules: Vec<Rule> = Vec::new();
        for path in paths {
            let mut files = vec![path.clone()];
            if let Ok(entries) = fs::read_dir(path) {
                files = entries.flatten().map(|entry| entry.path()).collect();
                files.retain(|file| file.extension().is_some_and(|end| end == "conf"));
                files.sort();
            }
            for file in files {
                let Ok(text) = fs::read_to_string(&file) else {
                    continue;
                };
                let parsed: File =
                    toml::from_str(&text).map_err(|error| PullError::Configuration {
                        what: file.display().to_string(),
                        problem: error.message().to_owned(),
                    })?;
                for rule in parsed.registry {
                    // A later file replaces the rules of an earlier one for the same prefix.
                    rules.retain(|known| known.prefix() != rule.prefix());
                    rules.push(rule);
                }
            }
        }
        Ok(Self(rules))
    }

    /// Whether a rule names this image's registry.
    pub(crate) fn has_rule(&self, image: &ImageReference) -> bool {
        let name = format!("{}/{}", image.registry(), image.repository());
        self.0.iter().any(|rule| rule.rest(&name).is_some())
    }

    /// Hosts named in the files.
    pub(crate) fn hosts(&self) -> impl Iterator<Item = String> {
        let locations = self.0.iter().flat_map(|rule| {
            let mirrors = rule.mirror.iter().map(|mirror| mirror.location.as_str());
            mirrors.chain(rule.location.as_deref())
        });
        locations.map(|location| location.split('/').next().unwrap_or_default().to_owned())
    }

    /// The servers to try for an image, in order.
    pub(crate) fn endpoints(&self, image: &ImageReference) -> Result<Vec<Endpoint>, PullError> {
        let name = format!("{}/{}", image.registry(), image.repository());
        let matching = |rule: &&Rule| rule.rest(&name).is_some();
        let rule = self
            .0
            .iter()
            .filter(matching)
            .max_by_key(|rule| rule.prefix().len());
        let Some(rule) = rule else {
            return Ok(vec![endpoint(&name, false, false)]);
        };
        if rule.blocked {
            return Err(PullError::Denied {
                registry: image.registry().to_owned(),
                repository: image.repository().to_owned(),
                said: "it is blocked in registries.conf".to_owned(),
            });
        }
        let rest = rule.rest(&name).unwrap_or_default();
        let by_digest = image.digest().is_some();
        let wanted = |mirror: &&Mirror| match mirror.pull.as_deref() {
            Some("digest-only") => by_digest,
            Some("tag-only") => !by_digest,
            _ => true,
        };
        let mut all: Vec<Endpoint> = rule
            .mirror
            .iter()
            .filter(wanted)
            .map(|mirror| endpoint(&format!("{}{rest}", mirror.location), mirror.insecure, true))
            .collect();
        let own = match (&rule.location, rule.prefix().starts_with("*.")) {
            (Some(location), false) => format!("{location}{rest}"),
            _ => name.clone(),
        };
        all.push(endpoint(&own, rule.insecure, false));
        Ok(all)
    }
}

impl Rule {
    fn prefix(&self) -> &str {
        let location = self.location.as_deref().unwrap_or_default();
        self.prefix.as_deref().unwrap_or(location)
    }

    /// The part of `name` after the prefix, if it has this prefix.
    fn rest<'n>(&self, name: &'n str) -> Option<&'n str> {
        let prefix = self.prefix().trim_end_matches('/');
        if let Some(suffix) = prefix.strip_prefix('*') {
            let (host, _) = name.split_once('/')?;
            return host.ends_with(suffix).then_some("");
        }
        let rest = name.strip_prefix(prefix)?;
        (!prefix.is_empty() && (rest.is_empty() || rest.starts_with('/'))).then_some(rest)
    }
}

fn endpoint(place: &str, insecure: bool, mirror: bool) -> Endpoint {
    let (host, repository) = place.split_once('/').unwrap_or((place, ""));
    let host = match host {
        "docker.io" => "registry-1.docker.io",
        other => other,
    };
    Endpoint {
        // Like docker: servers on this machine need no TLS.
        insecure: insecure || is_loopback(host),
        host: host.to_owned(),
        repository: repository.to_owned(),
        mirror,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(conf: &str, name: &str) -> Vec<(String, bool)> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("registries.conf");
        fs::write(&path, conf).unwrap();
        let mirrors = Mirrors::read(&[path]).unwrap();
        let image = ImageReference::parse(name).unwrap();
        let endpoints = mirrors.endpoints(&image).unwrap();
        endpoints
            .iter()
            .map(|e| (format!("{}/{}", e.host, e.repository), e.insecure))
            .collect()
    }

    #[test]
    fn longest_prefix_decides_and_mirrors_come_first() {
        let conf = r#"
            unqualified-search-registries = ["docker.io"]
            [[registry]]
            location = "quay.io"
            [[registry]]
            prefix = "quay.io/team"
            location = "inner.io/copy"
            insecure = true
            [[registry.mirror]]
            location = "mirror.io:5000/quay"
            [[registry.mirror]]
            location = "tags.io"
            pull-from-mirror = "digest-only"
            [[registry]]
            prefix = "*.corp.io"
            insecure = true
        "#;
        let team = places(conf, "quay.io/team/app:1");
        assert_eq!(team[0], ("mirror.io:5000/quay/app".to_owned(), false));
        assert_eq!(team[1], ("inner.io/copy/app".to_owned(), true));
        assert_eq!(
            places(conf, "quay.io/teams/a"),
            [("quay.io/teams/a".to_owned(), false)]
        );
        assert_eq!(
            places(conf, "x.corp.io/a"),
            [("x.corp.io/a".to_owned(), true)]
        );
        assert_eq!(
            places("", "nginx"),
            [("registry-1.docker.io/library/nginx".to_owned(), false)]
        );
        assert_eq!(
            places("", "localhost:5000/a"),
            [("localhost:5000/a".to_owned(), true)]
        );
    }
}
