//! Turns the client's errors into a [`StoreError`]. Text of a server is hostile: it is truncated and
//! escaped before it is stored.

use std::error::Error;
use std::io;

use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;
use cdh_bundle::RawText;

use crate::error::{CONNECTION_REFUSED, TIMED_OUT, UNKNOWN_HOST};
use crate::{EndpointProblem, StoreError};

/// Longest text of a server that is kept, in characters.
const LONGEST: usize = 300;

/// Text of a server, harmless.
pub(super) fn harmless(text: &str) -> String {
    let short: String = text.chars().take(LONGEST).collect();
    RawText::from(short.as_str()).to_string()
}

/// The last causes of an error, which say most.
fn deepest(error: &dyn Error) -> String {
    let mut texts: Vec<String> = Vec::new();
    let mut at = Some(error);
    while let Some(error) = at {
        let text = error.to_string();
        // Some layers repeat what is below them.
        if texts.last() != Some(&text) {
            texts.push(text);
        }
        at = error.source();
    }
    let keep = texts.len().saturating_sub(3);
    harmless(&texts.split_off(keep).join(": "))
}

/// What a server refused with.
#[derive(Clone, Debug, Default)]
pub(super) struct Refusal {
    pub(super) status: u16,
    pub(super) code: String,
    pub(super) message: String,
}

impl Refusal {
    /// Of an error; `None` where no server answered.
    pub(super) fn of<E: ProvideErrorMetadata>(error: &SdkError<E, HttpResponse>) -> Option<Self> {
        let SdkError::ServiceError(service) = error else {
            return None;
        };
        let metadata = service.err();
        Some(Self {
            status: service.raw().status().as_u16(),
            code: metadata.code().unwrap_or_default().to_owned(),
            message: metadata.message().unwrap_or_default().to_owned(),
        })
    }

    /// Whether the server does not know what it was asked for, rather than refuse it.
    pub(super) fn is_ignorance(&self) -> bool {
        self.status == 501
            || matches!(
                self.code.as_str(),
                "NotImplemented" | "InvalidArgument" | "InvalidRequest" | "UnsupportedArgument"
            )
    }

    /// Whether it answered success, and in a way that says nothing: some servers give another root
    /// element to answers that few ask for.
    pub(super) fn is_gibberish(&self) -> bool {
        (200..300).contains(&self.status) && self.code.is_empty()
    }

    /// Whether a condition (`If-Match`, `If-None-Match`) did not hold.
    pub(super) fn is_precondition(&self) -> bool {
        matches!(self.status, 409 | 412)
            && matches!(
                self.code.as_str(),
                "" | "PreconditionFailed" | "ConditionalRequestConflict" | "412" | "409"
            )
    }

    fn said(&self) -> String {
        match (self.code.as_str(), self.message.as_str()) {
            ("", "") => format!("status {}", self.status),
            ("", message) => harmless(message),
            (code, "") => harmless(code),
            (code, message) => harmless(&format!("{code}: {message}")),
        }
    }
}

/// Sorts an error about `path` at `place`.
pub(super) fn sorted<E>(error: SdkError<E, HttpResponse>, place: &str, path: &str) -> StoreError
where
    E: ProvideErrorMetadata + Error + 'static,
{
    if let Some(refusal) = Refusal::of(&error) {
        return refused(&refusal, place, path, &error);
    }
    let problem = deepest(&error);
    let place = place.to_owned();
    if let Some(problem) = missing_credentials(&error) {
        return StoreError::NoCredentials { place, problem };
    }
    if problem.contains("region must be set") {
        return StoreError::Region {
            place,
            said: "no region is set".to_owned(),
            region: None,
        };
    }
    match error {
        SdkError::ConstructionFailure(_) => StoreError::Refused {
            place,
            said: problem,
        },
        error => not_reached(&error, place, problem),
    }
}

/// What kept a request from being answered. The TLS library and the resolver put their reasons into
/// texts; the tests run against real peers, so that a change of those texts is noticed.
fn not_reached<E>(error: &SdkError<E, HttpResponse>, place: String, problem: String) -> StoreError
where
    E: Error + 'static,
{
    let endpoint = |problem| StoreError::Endpoint {
        place: place.clone(),
        problem,
    };
    if problem.contains("InvalidContentType") {
        return endpoint(EndpointProblem::PlainHttp);
    }
    if let Some((_, said)) = problem.split_once("invalid peer certificate: ") {
        let said = said.to_owned();
        let is_unknown = ["UnknownIssuer", "CaUsedAsEndEntity", "BadSignature"]
            .iter()
            .any(|reason| said.contains(reason));
        return endpoint(match is_unknown {
            true => EndpointProblem::Untrusted { said },
            false => EndpointProblem::Certificate { said },
        });
    }
    let timed_out = matches!(error, SdkError::TimeoutError(_))
        || matches!(error, SdkError::DispatchFailure(failure) if failure.is_timeout());
    let problem = match () {
        () if is_connection_refused(error) => CONNECTION_REFUSED.to_owned(),
        () if problem.contains("dns error") => UNKNOWN_HOST.to_owned(),
        () if timed_out => TIMED_OUT.to_owned(),
        () => problem,
    };
    StoreError::Unreachable { place, problem }
}

fn is_connection_refused(error: &(dyn Error + 'static)) -> bool {
    let mut at = Some(error);
    while let Some(error) = at {
        let kind = error.downcast_ref::<io::Error>().map(io::Error::kind);
        if kind == Some(io::ErrorKind::ConnectionRefused) {
            return true;
        }
        at = error.source();
    }
    false
}

fn refused<E>(
    refusal: &Refusal,
    place: &str,
    path: &str,
    error: &SdkError<E, HttpResponse>,
) -> StoreError {
    let said = refusal.said();
    let place = place.to_owned();
    if let Some(problem) = foreign_answer(refusal, error) {
        return StoreError::Endpoint { place, problem };
    }
    match (refusal.code.as_str(), refusal.status) {
        ("NoSuchBucket", _) => StoreError::NoBucket { place },
        (
            "InvalidAccessKeyId"
            | "SignatureDoesNotMatch"
            | "ExpiredToken"
            | "InvalidToken"
            | "TokenRefreshRequired"
            | "InvalidClientTokenId"
            | "NotSignedUp",
            _,
        ) => StoreError::Credentials { place, said },
        ("NoSuchUpload", _) => StoreError::UploadLost {
            key: path.to_owned(),
        },
        ("RequestTimeTooSkewed" | "RequestExpired", _) => StoreError::ClockSkew { place, said },
        (
            "PermanentRedirect"
            | "AuthorizationHeaderMalformed"
            | "IllegalLocationConstraintException",
            _,
        )
        | (_, 301 | 307) => {
            let region = region_of(error).or_else(|| expected_region(&refusal.message));
            let in_region = region
                .as_ref()
                .map(|region| format!("the bucket is in {region}"));
            StoreError::Region {
                said: in_region.unwrap_or(said),
                region,
                place,
            }
        }
        (
            "SlowDown"
            | "InternalError"
            | "ServiceUnavailable"
            | "RequestTimeout"
            | "ThrottlingException"
            | "TooManyRequests"
            | "BadDigest"
            | "IncompleteBody"
            | "XAmzContentSHA256Mismatch",
            _,
        )
        | (_, 429 | 500 | 502 | 503 | 504) => StoreError::Unreachable {
            place,
            problem: said,
        },
        // A status of success is an error in its body, or a body that is none.
        (_, 200..=299) => StoreError::Unreachable {
            place,
            problem: format!("the server reported success, but the body is an error: {said}"),
        },
        ("NoSuchKey" | "NotFound", _) | (_, 404) => StoreError::NotFound {
            path: match path {
                "" => place,
                path => path.to_owned(),
            },
        },
        (_, 401 | 403) => StoreError::Denied {
            path: match path {
                "" => place,
                path => format!("{path} in {place}"),
            },
            said: Some(said),
        },
        (_, 412) => StoreError::Changed {
            key: path.to_owned(),
        },
        _ => StoreError::Refused { place, said },
    }
}

/// What an answer without an S3 error code shows about its sender. Answers to HEAD have no body and show
/// nothing, and a proxy's page with a status that asks for another attempt is no statement about the
/// endpoint.
fn foreign_answer<E>(
    refusal: &Refusal,
    error: &SdkError<E, HttpResponse>,
) -> Option<EndpointProblem> {
    if !refusal.code.is_empty() || matches!(refusal.status, 429 | 500..=599) {
        return None;
    }
    let answer = error.raw_response()?;
    let body = answer.body().bytes().unwrap_or_default();
    let start = String::from_utf8_lossy(body.get(..body.len().min(512)).unwrap_or_default());
    let start = start.trim_start_matches(|c: char| c.is_whitespace() || c == '\u{feff}');
    let lower = start.to_ascii_lowercase();
    // What Go, nginx and Apache answer to a request without TLS on a port that expects it.
    if refusal.status == 400
        && (lower.contains("http request to an https server")
            || lower.contains("http request was sent to https port")
            || lower.contains("plain http to an ssl-enabled"))
    {
        return Some(EndpointProblem::Tls);
    }
    let kind = match lower.as_str() {
        "" => return None,
        _ if lower.starts_with("<!doctype html") || lower.starts_with("<html") => "an HTML page",
        _ if lower.starts_with('<') => {
            let is_html = answer.headers().get("content-type").is_some_and(is_html);
            match is_html {
                true => "an HTML page",
                false => return None,
            }
        }
        _ if lower.starts_with('{') || lower.starts_with('[') => "JSON",
        _ => "text",
    };
    Some(EndpointProblem::NotS3 {
        said: format!("status {}, {kind}", refusal.status),
    })
}

fn is_html(content_type: &str) -> bool {
    content_type.to_ascii_lowercase().starts_with("text/html")
}

fn region_of<E>(error: &SdkError<E, HttpResponse>) -> Option<String> {
    let region = error.raw_response()?.headers().get("x-amz-bucket-region")?;
    Some(harmless(region))
}

/// The region in `the region 'us-east-1' is wrong; expecting 'eu-west-1'`.
fn expected_region(message: &str) -> Option<String> {
    let (_, after) = message.split_once("expecting '")?;
    let (region, _) = after.split_once('\'')?;
    let is_region = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    (!region.is_empty() && region.len() <= 40 && region.chars().all(is_region))
        .then(|| region.to_owned())
}

/// What was tried where no credentials were found.
fn missing_credentials(error: &(dyn Error + 'static)) -> Option<String> {
    let mut at = Some(error);
    while let Some(error) = at {
        let text = error.to_string();
        if text.contains("no providers in chain provided credentials")
            || text.contains("the credential provider was not enabled")
        {
            return Some(
                "none in the environment, the AWS files, or the instance metadata".to_owned(),
            );
        }
        let is_broken = [
            "while loading credentials",
            "provider was not properly configured",
        ];
        if is_broken.iter().any(|known| text.contains(known)) {
            return error.source().map(deepest);
        }
        at = error.source();
    }
    None
}
