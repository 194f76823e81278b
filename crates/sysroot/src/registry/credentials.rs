//! Finds registry credentials in the files and helper programs of docker and podman.
//!
//! Order of precedence: the file that the user named (also an image pull secret in the format of
//! `kubectl get secret -o json` or `-o yaml`), `REGISTRY_AUTH_FILE`, podman's `auth.json`, docker's
//! `config.json`. Credentials are never logged.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::Deserialize;

use crate::PullError;

/// Maximum size of such a file.
const MAX_FILE: u64 = 8 << 20;
/// Docker Hub's name in these files.
const DOCKER_HUB: &str = "https://index.docker.io/v1/";

/// A credential.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Credential {
    Anonymous,
    Basic {
        user: String,
        password: String,
    },
    /// An OAuth2 refresh token, exchanged for a token at the registry's token server.
    Identity(String),
    /// Sent as it is.
    Token(String),
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Anonymous => "anonymous",
            Self::Basic { .. } => "user and password",
            Self::Identity(_) => "identity token",
            Self::Token(_) => "registry token",
        })
    }
}

#[derive(Default, Deserialize)]
struct AuthFile {
    #[serde(default)]
    auths: BTreeMap<String, AuthEntry>,
    #[serde(default, rename = "credHelpers")]
    helpers: BTreeMap<String, String>,
    #[serde(default, rename = "credsStore")]
    store: Option<String>,
}

#[derive(Clone, Default, Deserialize)]
struct AuthEntry {
    #[serde(default)]
    auth: Option<String>,
    #[serde(default)]
    username: Option<String>,
    #[serde(default)]
    password: Option<String>,
    #[serde(default, rename = "identitytoken")]
    identity: Option<String>,
    #[serde(default, rename = "registrytoken")]
    token: Option<String>,
}

/// A Kubernetes secret, or a list of them.
#[derive(Default, Deserialize)]
struct Secret {
    #[serde(default)]
    data: BTreeMap<String, String>,
    #[serde(default)]
    items: Vec<Secret>,
}

/// The files to read.
#[derive(Clone, Debug, Default)]
pub(crate) struct Credentials {
    /// It must exist and be valid.
    pub(crate) given: Option<PathBuf>,
    /// May be there.
    pub(crate) usual: Vec<PathBuf>,
}

impl Credentials {
    /// The credential for `registry` and `repository`.
    pub(crate) fn find(&self, registry: &str, repository: &str) -> Result<Credential, PullError> {
        let given = self.given.iter().map(|path| (path, true));
        for (path, required) in given.chain(self.usual.iter().map(|path| (path, false))) {
            let bad = |problem: String| PullError::Configuration {
                what: path.display().to_string(),
                problem,
            };
            let file = match fs::File::open(path) {
                Err(error) if required => return Err(bad(error.to_string())),
                Err(_) => continue,
                Ok(file) => file,
            };
            let mut text = String::new();
            let read = file.take(MAX_FILE).read_to_string(&mut text);
            let parsed = match read {
                Ok(_) => parse(&text),
                Err(error) => Err(error.to_string()),
            };
            for part in parsed.map_err(bad)? {
                if let Some(found) = part.find(registry, repository)? {
                    return Ok(found);
                }
            }
        }
        Ok(Credential::Anonymous)
    }
}

/// One or more of docker's configurations: plain, or inside secrets.
fn parse(text: &str) -> Result<Vec<AuthFile>, String> {
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    let value: serde_json::Value = match serde_json::from_str(text) {
        Ok(value) => value,
        // In the YAML of a secret, only these two lines matter.
        Err(error) => {
            let secrets: Vec<AuthFile> = text.lines().filter_map(yaml_line).collect();
            return match secrets.is_empty() {
                true => Err(format!("neither JSON nor a secret: {error}")),
                false => Ok(secrets),
            };
        }
    };
    let is_secret = value.get("kind").is_some() || value.get("data").is_some();
    if !is_secret {
        // `~/.dockercfg` has its entries without `auths` around them.
        let file = match value
            .get("auths")
            .or(value.get("credHelpers"))
            .or(value.get("credsStore"))
        {
            Some(_) => serde_json::from_value(value),
            None => serde_json::from_value(value).map(|auths| AuthFile {
                auths,
                ..AuthFile::default()
            }),
        };
        // A configuration with other settings only (`{"detachKeys": …}`) contains no registry.
        return Ok(vec![file.unwrap_or_default()]);
    }
    let secret: Secret = serde_json::from_value(value).map_err(|error| error.to_string())?;
    let all = secret.items.iter().chain([&secret]);
    Ok(all
        .flat_map(|secret| &secret.data)
        .filter_map(|(key, data)| secret_data(key, data))
        .collect())
}

fn yaml_line(line: &str) -> Option<AuthFile> {
    let (key, data) = line.trim().split_once(':')?;
    secret_data(
        key.trim().trim_matches(['"', '\'']),
        data.trim().trim_matches(['"', '\'']),
    )
}

fn secret_data(key: &str, data: &str) -> Option<AuthFile> {
    let json = decode(data)?;
    match key {
        ".dockerconfigjson" => serde_json::from_slice(&json).ok(),
        ".dockercfg" => {
            let auths = serde_json::from_slice(&json).ok()?;
            Some(AuthFile {
                auths,
                ..AuthFile::default()
            })
        }
        _ => None,
    }
}

fn decode(text: &str) -> Option<Vec<u8>> {
    let text: String = text.chars().filter(|c| !c.is_whitespace()).collect();
    base64_simd::STANDARD
        .decode_to_vec(&text)
        .or_else(|_| base64_simd::STANDARD_NO_PAD.decode_to_vec(&text))
        .ok()
}

impl AuthFile {
    fn find(&self, registry: &str, repository: &str) -> Result<Option<Credential>, PullError> {
        for key in keys(registry, repository) {
            if let Some(helper) = self.helpers.get(&key)
                && let Some(found) = ask_helper(helper, &key)?
            {
                return Ok(Some(found));
            }
            let entry = self.auths.iter().find(|(name, _)| same_place(name, &key));
            if let Some(found) = entry.and_then(|(_, entry)| entry.credential()) {
                return Ok(Some(found));
            }
        }
        let Some(store) = self.store.as_ref().filter(|store| !store.is_empty()) else {
            return Ok(None);
        };
        let server = match registry {
            "docker.io" => DOCKER_HUB,
            other => other,
        };
        ask_helper(store, server)
    }
}

/// The names under which a repository may be listed, most specific first.
fn keys(registry: &str, repository: &str) -> Vec<String> {
    let mut keys = Vec::new();
    let mut path = repository;
    loop {
        keys.push(format!("{registry}/{path}"));
        match path.rsplit_once('/') {
            Some((parent, _)) => path = parent,
            None => break,
        }
    }
    keys.push(registry.to_owned());
    if registry == "docker.io" {
        keys.push("index.docker.io".to_owned());
    }
    keys
}

/// `https://index.docker.io/v1/` is `index.docker.io`.
fn same_place(name: &str, key: &str) -> bool {
    let bare = name
        .trim_start_matches("https://")
        .trim_start_matches("http://")
        .trim_end_matches('/');
    let bare = bare
        .strip_suffix("/v1")
        .or(bare.strip_suffix("/v2"))
        .unwrap_or(bare);
    bare == key
}

impl AuthEntry {
    fn credential(&self) -> Option<Credential> {
        let full = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        if let Some(token) = full(&self.token) {
            return Some(Credential::Token(token));
        }
        if let Some(token) = full(&self.identity) {
            return Some(Credential::Identity(token));
        }
        if let Some(auth) = full(&self.auth) {
            let text = String::from_utf8(decode(&auth)?).ok()?;
            let (user, password) = text.split_once(':')?;
            return Some(Credential::Basic {
                user: user.to_owned(),
                // Old versions of docker padded it with NUL.
                password: password.trim_end_matches('\0').to_owned(),
            });
        }
        Some(Credential::Basic {
            user: full(&self.username)?,
            password: full(&self.password)?,
        })
    }
}

#[derive(Deserialize)]
struct HelperAnswer {
    #[serde(rename = "Username", default)]
    user: String,
    #[serde(rename = "Secret", default)]
    secret: String,
}

/// Runs `docker-credential-<name> get`; `None` if it has no credential.
fn ask_helper(name: &str, server: &str) -> Result<Option<Credential>, PullError> {
    let program = format!("docker-credential-{name}");
    let bad = |problem: String| PullError::Configuration {
        what: format!("`{program}`"),
        problem,
    };
    let safe = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if name.is_empty() || !name.chars().all(safe) || !Path::new(&program).is_relative() {
        return Err(bad("its name is not a plain one".to_owned()));
    }
    let mut child = Command::new(&program)
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| bad(error.to_string()))?;
    if let Some(mut input) = child.stdin.take() {
        // A helper that does not read its input will not answer.
        let _ = input.write_all(server.as_bytes());
    }
    let output = child
        .wait_with_output()
        .map_err(|error| bad(error.to_string()))?;
    if !output.status.success() {
        // "credentials not found in native keychain" is an answer on standard output, with status 1.
        return Ok(None);
    }
    let answer: HelperAnswer =
        serde_json::from_slice(&output.stdout).map_err(|error| bad(error.to_string()))?;
    Ok(Some(match (answer.user.as_str(), answer.secret) {
        (_, secret) if secret.is_empty() => return Ok(None),
        ("<token>", secret) => Credential::Identity(secret),
        (user, password) => Credential::Basic {
            user: user.to_owned(),
            password,
        },
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn basic(user: &str, password: &str) -> Credential {
        Credential::Basic {
            user: user.to_owned(),
            password: password.to_owned(),
        }
    }

    fn find(text: &str, registry: &str, repository: &str) -> Credential {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("auth");
        fs::write(&path, text).unwrap();
        let credentials = Credentials {
            given: Some(path),
            usual: Vec::new(),
        };
        credentials.find(registry, repository).unwrap()
    }

    #[test]
    fn credentials_most_specific_entry_is_used() {
        // u:p, v:q
        let text = r#"{"auths": {"r.io": {"auth": "dTpw"}, "r.io/team": {"auth": "djpx"},
            "https://index.docker.io/v1/": {"identitytoken": "idt"}}}"#;
        assert_eq!(find(text, "r.io", "x/y"), basic("u", "p"));
        assert_eq!(find(text, "r.io", "team/y"), basic("v", "q"));
        assert_eq!(
            find(text, "docker.io", "library/nginx"),
            Credential::Identity("idt".to_owned())
        );
        assert_eq!(find(text, "other.io", "x"), Credential::Anonymous);
    }

    #[test]
    fn pull_secrets_are_read_as_kubectl_prints_them() {
        let config =
            base64_simd::STANDARD.encode_to_string(r#"{"auths":{"r.io":{"auth":"dTpw"}}}"#);
        let json = format!(r#"{{"kind":"Secret","data":{{".dockerconfigjson":"{config}"}}}}"#);
        let list = format!(r#"{{"kind":"List","items":[{{"kind":"Secret","data":{{}}}},{json}]}}"#);
        let yaml = format!("apiVersion: v1\ndata:\n  .dockerconfigjson: {config}\nkind: Secret\n");
        let old =
            base64_simd::STANDARD.encode_to_string(r#"{"r.io":{"username":"u","password":"p"}}"#);
        let old = format!(r#"{{"kind":"Secret","data":{{".dockercfg":"{old}"}}}}"#);
        for text in [
            json,
            list,
            yaml,
            old,
            r#"{"r.io":{"auth":"dTpw"}}"#.to_owned(),
        ] {
            assert_eq!(find(&text, "r.io", "x"), basic("u", "p"), "{text}");
        }
    }

    #[test]
    fn files_that_are_none_are_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("auth");
        let credentials = Credentials {
            given: Some(path.clone()),
            usual: Vec::new(),
        };
        assert!(credentials.find("r.io", "x").is_err());
        fs::write(&path, "no json at all").unwrap();
        let error = credentials.find("r.io", "x").unwrap_err().to_string();
        assert!(error.contains("neither JSON nor a secret"), "{error}");
    }

    #[test]
    fn helper_with_a_path_in_its_name_is_not_run() {
        assert!(ask_helper("../../bin/sh", "r.io").is_err());
        assert!(ask_helper("no-such-helper", "r.io").is_err());
    }
}
