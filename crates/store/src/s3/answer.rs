//! Interprets a server's refusal beyond the error code that the client found: gateways, proxies and other servers
//! omit codes, put regions into host names, and answer with web pages.
//!
//! All of this is hostile text: it is limited here, and escaped where it is shown.

use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::result::SdkError;
use jiff::Timestamp;
use jiff::fmt::rfc2822;

use super::problem::harmless;
use crate::EndpointProblem;

/// Maximum bytes of a body that are examined.
const START: usize = 4096;
/// Maximum clock difference that S3 accepts, in seconds: 15 minutes (`RequestTimeTooSkewed`).
const ACCEPTED_SKEW: i64 = 15 * 60;

/// The answer of a server to a request that failed.
pub(super) struct Answer<'a> {
    status: u16,
    response: &'a HttpResponse,
    /// The first bytes of its body.
    start: String,
}

impl<'a> Answer<'a> {
    /// The answer in an error; `None` if no server answered.
    pub(super) fn of<E>(error: &'a SdkError<E, HttpResponse>) -> Option<Self> {
        let response = error.raw_response()?;
        let body = response.body().bytes().unwrap_or_default();
        let start = String::from_utf8_lossy(body.get(..body.len().min(START)).unwrap_or_default());
        let start = start.trim_start_matches(|c: char| c.is_whitespace() || c == '\u{feff}');
        Some(Self {
            status: response.status().as_u16(),
            response,
            start: start.to_owned(),
        })
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.response.headers().get(name)
    }

    /// The text of the first XML element with this name, at any depth. The client only reads codes and messages
    /// at the places where Amazon puts them.
    pub(super) fn element(&self, name: &str) -> Option<String> {
        element(&self.start, name)
    }

    /// The bucket's region: from the header, the body, or the host name of a redirect.
    pub(super) fn region(&self) -> Option<String> {
        let from_host = |text: &str| region_of_host(host_of(text)).map(str::to_owned);
        let named = |text: String| is_region(&text).then_some(text);
        self.header("x-amz-bucket-region")
            .map(str::to_owned)
            .and_then(named)
            .or_else(|| self.element("Region").and_then(named))
            .or_else(|| {
                self.element("Message")
                    .and_then(|text| expected_region(&text))
            })
            .or_else(|| self.element("Endpoint").and_then(|host| from_host(&host)))
            .or_else(|| self.header("location").and_then(from_host))
    }

    /// The problem of an endpoint that redirects requests to a server that is not Amazon's.
    pub(super) fn redirect(&self) -> Option<EndpointProblem> {
        if !(300..400).contains(&self.status) {
            return None;
        }
        let to = self.header("location")?;
        // Path and query are those of the request, or of a login page.
        let (scheme, rest) = to.split_once("://")?;
        let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let is_url = matches!(scheme, "http" | "https") && !host.is_empty();
        is_url.then(|| EndpointProblem::Redirect {
            to: harmless(&format!("{scheme}://{host}")),
        })
    }

    /// The difference between the server's clock and this machine's, if S3 would not accept it.
    pub(super) fn clock_difference(&self, now: Timestamp) -> Option<String> {
        let date = rfc2822::parse(self.header("date")?).ok()?.timestamp();
        let seconds = now.as_second().saturating_sub(date.as_second());
        (seconds.saturating_abs() > ACCEPTED_SKEW)
            .then(|| format!("the server's clock shows {date}, this machine's {now:.0}"))
    }

    /// The problem if an answer has no S3 error code. Answers to HEAD have no body and prove nothing, and a
    /// proxy's page with a retryable status says nothing about the endpoint.
    pub(super) fn foreign(&self) -> Option<EndpointProblem> {
        if matches!(self.status, 429 | 500..=599) {
            return None;
        }
        if self.status == 407 {
            return Some(EndpointProblem::ProxyLogin);
        }
        let lower = self.start.to_ascii_lowercase();
        // The answer of Go, nginx and Apache to a request without TLS on a TLS port.
        if self.status == 400
            && (lower.contains("http request to an https server")
                || lower.contains("http request was sent to https port")
                || lower.contains("plain http to an ssl-enabled"))
        {
            return Some(EndpointProblem::Tls);
        }
        let is_success = (200..300).contains(&self.status);
        let is_html = || {
            let kind = self.header("content-type").unwrap_or_default();
            lower.contains("<html") || kind.to_ascii_lowercase().starts_with("text/html")
        };
        let kind = match lower.as_str() {
            "" if is_success => "an empty answer",
            "" => return None,
            _ if lower.starts_with("<!doctype html") || lower.starts_with("<html") => {
                "an HTML page"
            }
            _ if lower.starts_with('<') => match (is_html(), is_success) {
                (true, _) => "an HTML page",
                (false, true) => "XML that does not answer the request",
                (false, false) => return None,
            },
            _ if lower.starts_with('{') || lower.starts_with('[') => "JSON",
            _ => "text",
        };
        Some(EndpointProblem::NotS3 {
            said: format!("status {}, {kind}", self.status),
        })
    }
}

/// The text between `<name>` and `</name>`, without nested elements.
fn element(xml: &str, name: &str) -> Option<String> {
    let (_, after) = xml.split_once(&format!("<{name}>"))?;
    let (text, _) = after.split_once('<')?;
    let text = text.trim();
    let plain = text
        .replace("&lt;", "<")
        .replace("&gt;", ">")
        .replace("&quot;", "\"")
        .replace("&apos;", "'")
        .replace("&#39;", "'")
        .replace("&amp;", "&");
    (!text.is_empty()).then_some(plain)
}

/// The region in `the region 'us-east-1' is wrong; expecting 'eu-west-1'`.
fn expected_region(message: &str) -> Option<String> {
    let (_, after) = message.split_once("expecting '")?;
    let (region, _) = after.split_once('\'')?;
    is_region(region).then(|| region.to_owned())
}

fn is_region(text: &str) -> bool {
    let is_part = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    (1..=40).contains(&text.len()) && text.chars().all(is_part)
}

/// The host in `https://host:port/path`, or in `host/path`.
fn host_of(text: &str) -> &str {
    let rest = text.split_once("://").map_or(text, |(_, rest)| rest);
    rest.split(['/', ':', '?']).next().unwrap_or_default()
}

/// The region in one of Amazon's host names: `b.s3.eu-west-1.amazonaws.com`, `b.s3-eu-west-1.amazonaws.com`,
/// `b.s3.dualstack.eu-west-1.amazonaws.com`.
fn region_of_host(host: &str) -> Option<&str> {
    let (before, _) = host.split_once(".amazonaws.com")?;
    let label = before.rsplit('.').next()?;
    let region = label.strip_prefix("s3-").unwrap_or(label);
    // `s3.amazonaws.com` and `s3-accelerate` contain no region.
    let is_named = region.contains('-') && region.ends_with(|c: char| c.is_ascii_digit());
    (is_named && is_region(region)).then_some(region)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn region_is_read_from_hosts_and_messages() {
        let table = [
            ("b.s3.eu-west-1.amazonaws.com", Some("eu-west-1")),
            ("b.s3-eu-west-1.amazonaws.com", Some("eu-west-1")),
            (
                "b.s3.dualstack.ap-south-1.amazonaws.com",
                Some("ap-south-1"),
            ),
            ("b.s3.cn-north-1.amazonaws.com.cn", Some("cn-north-1")),
            (
                "https://s3.us-gov-west-1.amazonaws.com/b?x",
                Some("us-gov-west-1"),
            ),
            ("s3.amazonaws.com", None),
            ("b.s3-accelerate.amazonaws.com", None),
            ("minio.example.com", None),
        ];
        for (text, region) in table {
            assert_eq!(region_of_host(host_of(text)), region, "{text}");
        }
        let message = "the region 'us-east-1' is wrong; expecting 'eu-west-1'";
        assert_eq!(expected_region(message).as_deref(), Some("eu-west-1"));
        assert_eq!(expected_region("expecting '\u{1b}[2J'"), None);
    }

    #[test]
    fn element_is_found_at_any_depth_and_unescaped() {
        let xml =
            "<?xml version=\"1.0\"?><ErrorResponse><Error><Code>A&amp;B</Code><Message/></Error>";
        assert_eq!(element(xml, "Code").as_deref(), Some("A&B"));
        assert_eq!(element(xml, "Message"), None);
        assert_eq!(element("<Code>cut", "Code"), None);
    }
}
