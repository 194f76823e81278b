//! Parses a registry's authentication challenge and requests a token.

use std::io::Read;

use oci_client::token_cache::RegistryToken;
use ureq::http;

use super::credentials::Credential;
use crate::PullError;
use crate::transport::{Request, Security, Transport, follow, origin_of};

/// Maximum redirects on the way to a token.
const MAX_REDIRECTS: usize = 5;
/// No token is larger.
const MAX_TOKEN: u64 = 1 << 20;

/// One challenge of a `WWW-Authenticate` header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Challenge {
    Basic,
    Bearer {
        realm: String,
        service: Option<String>,
        scope: Option<String>,
    },
}

/// The challenges in a header that we support.
pub(crate) fn challenges(headers: &http::HeaderMap) -> Vec<Challenge> {
    let lines = headers.get_all("www-authenticate").iter();
    lines
        .filter_map(|line| challenge(line.to_str().ok()?))
        .collect()
}

fn challenge(line: &str) -> Option<Challenge> {
    let (scheme, rest) = line.trim().split_once(' ').unwrap_or((line.trim(), ""));
    if scheme.eq_ignore_ascii_case("basic") {
        return Some(Challenge::Basic);
    }
    if !scheme.eq_ignore_ascii_case("bearer") {
        return None;
    }
    let mut parameters = parameters(rest);
    let mut take = |name: &str| {
        let at = parameters
            .iter()
            .position(|(key, _)| key.eq_ignore_ascii_case(name))?;
        Some(parameters.swap_remove(at).1)
    };
    Some(Challenge::Bearer {
        realm: take("realm")?,
        service: take("service"),
        scope: take("scope"),
    })
}

/// Parses `a="b, c", d=e`, with backslashes inside quotes.
fn parameters(text: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut chars = text.chars().peekable();
    loop {
        while chars.next_if(|c| *c == ',' || c.is_whitespace()).is_some() {}
        let mut name = String::new();
        while let Some(c) = chars.next_if(|c| *c != '=' && *c != ',') {
            name.push(c);
        }
        if chars.next() != Some('=') {
            return found;
        }
        let mut value = String::new();
        if chars.next_if_eq(&'"').is_some() {
            while let Some(c) = chars.next() {
                match c {
                    '"' => break,
                    '\\' => value.extend(chars.next()),
                    other => value.push(other),
                }
            }
        } else {
            while let Some(c) = chars.next_if(|c| *c != ',') {
                value.push(c);
            }
        }
        found.push((name.trim().to_owned(), value));
    }
}

pub(crate) fn basic(user: &str, password: &str) -> String {
    let pair = format!("{user}:{password}");
    format!("Basic {}", base64_simd::STANDARD.encode_to_string(pair))
}

/// The registry that requires a token.
pub(crate) struct Asker<'a> {
    pub(crate) registry: &'a str,
    pub(crate) repository: &'a str,
    /// The transport security of the registry; its token server must not have less.
    pub(crate) security: Security,
}

/// Requests a token for reading one repository.
pub(crate) fn token(
    transport: &Transport,
    asker: &Asker<'_>,
    realm: &str,
    service: Option<&str>,
    scope: Option<&str>,
    credential: &Credential,
) -> Result<String, PullError> {
    let own = format!("repository:{}:pull", asker.repository);
    let scope = scope.unwrap_or(&own);
    let redirect = |problem| PullError::Redirect {
        registry: asker.registry.to_owned(),
        problem,
    };
    let mut query = format!("scope={}", escaped(scope));
    if let Some(service) = service {
        query.push_str(&format!("&service={}", escaped(service)));
    }
    let mut headers = vec![("accept", "application/json".to_owned())];
    let mut form = None;
    let mut url = realm.to_owned();
    match credential {
        Credential::Token(token) => return Ok(token.clone()),
        Credential::Identity(token) => {
            form = Some(format!(
                "grant_type=refresh_token&client_id=cdh&{query}&refresh_token={}",
                escaped(token)
            ));
        }
        Credential::Basic { user, password } => {
            headers.push(("authorization", basic(user, password)));
        }
        Credential::Anonymous => {}
    }
    if form.is_none() {
        let joint = if realm.contains('?') { '&' } else { '?' };
        url = format!("{realm}{joint}{query}");
    }
    let secret = *credential != Credential::Anonymous;
    for _ in 0..=MAX_REDIRECTS {
        let security = match origin_of(&url)
            .as_deref()
            .and_then(|origin| origin.split_once(':'))
        {
            Some(("https", _)) if asker.security == Security::AnyCertificate => asker.security,
            Some(("https", _)) => Security::Verified,
            Some(("http", _)) if asker.security == Security::Plain || !secret => Security::Plain,
            Some(("http", _)) => return Err(redirect("a password to a server without TLS")),
            _ => return Err(redirect("to an invalid address")),
        };
        let request = Request {
            url: &url,
            security,
            headers: headers.clone(),
            form: form.clone(),
        };
        let answer = transport.send(&request)?;
        let status = answer.status().as_u16();
        if matches!(status, 301 | 302 | 303 | 307 | 308) {
            let location = answer
                .headers()
                .get("location")
                .and_then(|value| value.to_str().ok());
            let next = location.and_then(|location| follow(&url, location));
            let next = next.ok_or_else(|| redirect("to an invalid address"))?;
            if origin_of(&next) != origin_of(&url) {
                // The password is only sent to the named server.
                headers.retain(|(name, _)| *name != "authorization");
                if form.is_some() {
                    return Err(redirect("a password to another server"));
                }
            }
            url = next;
            continue;
        }
        let denied = |said: String| PullError::Denied {
            registry: asker.registry.to_owned(),
            repository: asker.repository.to_owned(),
            said,
        };
        return match status {
            200 => {
                let mut bytes = Vec::new();
                let body = answer.into_body().into_reader();
                let read = body.take(MAX_TOKEN).read_to_end(&mut bytes);
                read.map_err(|source| PullError::Unreachable {
                    registry: asker.registry.to_owned(),
                    source,
                })?;
                let malformed = |problem: String| PullError::Malformed {
                    what: format!("the token for `{}`", asker.registry),
                    problem,
                };
                let answer = serde_json::from_slice::<RegistryToken>(&bytes);
                // It becomes a header.
                let usable = |token: &&str| {
                    !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic())
                };
                let token = answer.as_ref().ok().map(RegistryToken::token);
                token
                    .filter(usable)
                    .map(str::to_owned)
                    .ok_or_else(|| malformed("it holds none".to_owned()))
            }
            401 | 403 => Err(denied(match secret {
                true => "its token server refuses our credentials".to_owned(),
                false => "its token server requires credentials".to_owned(),
            })),
            status => Err(PullError::Status {
                registry: asker.registry.to_owned(),
                what: "a token".to_owned(),
                status,
                said: String::new(),
            }),
        };
    }
    Err(redirect("without an end on the way to a token"))
}

/// Encodes for a query or a form.
fn escaped(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                out.push(char::from(byte));
            }
            other => out.push_str(&format!("%{other:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_read_with_commas_and_quotes_inside() {
        let line =
            r#"Bearer realm="https://a/t?x=1",service="r\"s", scope="repository:a/b:pull,push""#;
        let expected = Challenge::Bearer {
            realm: "https://a/t?x=1".to_owned(),
            service: Some("r\"s".to_owned()),
            scope: Some("repository:a/b:pull,push".to_owned()),
        };
        assert_eq!(challenge(line), Some(expected));
        assert_eq!(challenge("Basic realm=\"x\""), Some(Challenge::Basic));
        assert_eq!(challenge("basic"), Some(Challenge::Basic));
        assert_eq!(challenge("Negotiate"), None);
        assert_eq!(challenge("Bearer service=x"), None);
    }

    #[test]
    fn hostile_challenges_do_not_loop() {
        for line in [
            "Bearer ",
            "Bearer =",
            "Bearer ,,,=\"",
            "Bearer a=\"\\",
            "Bearer a,b,c",
        ] {
            let _ = challenge(line);
        }
    }
}
