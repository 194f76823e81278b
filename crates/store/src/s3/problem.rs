//! Turns the client's errors into a [`StoreError`]. Text of a server is hostile: it is truncated and
//! escaped before it is stored.

use std::error::Error;
use std::io;

use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;
use cdh_bundle::RawText;
use jiff::Timestamp;

use super::answer::Answer;
use crate::error::{CONNECTION_REFUSED, TIMED_OUT, UNKNOWN_HOST};
use crate::{EndpointProblem, StoreError};

/// Maximum length of a server's text, in characters.
const LONGEST: usize = 300;

/// A server's text, escaped.
pub(super) fn harmless(text: &str) -> String {
    let short: String = text.chars().take(LONGEST).collect();
    RawText::from(short.as_str()).to_string()
}

/// The innermost causes of an error, which say most.
fn deepest(error: &dyn Error) -> String {
    let mut texts: Vec<String> = Vec::new();
    let mut at = Some(error);
    while let Some(error) = at {
        let text = error.to_string();
        // Some layers repeat the message of the layer below.
        if texts.last() != Some(&text) {
            texts.push(text);
        }
        at = error.source();
    }
    let keep = texts.len().saturating_sub(3);
    harmless(&texts.split_off(keep).join(": "))
}

/// A server's refusal.
#[derive(Clone, Debug, Default)]
pub(super) struct Refusal {
    pub(super) status: u16,
    pub(super) code: String,
    pub(super) message: String,
}

impl Refusal {
    /// The refusal in an error; `None` if no server answered.
    pub(super) fn of<E: ProvideErrorMetadata>(error: &SdkError<E, HttpResponse>) -> Option<Self> {
        let SdkError::ServiceError(service) = error else {
            return None;
        };
        let metadata = service.err();
        let said = |parsed: Option<&str>, element: &str| match parsed.filter(|it| !it.is_empty()) {
            Some(text) => text.to_owned(),
            None => Answer::of(error)
                .and_then(|answer| answer.element(element))
                .unwrap_or_default(),
        };
        Some(Self {
            status: service.raw().status().as_u16(),
            code: said(metadata.code(), "Code"),
            message: said(metadata.message(), "Message"),
        })
    }

    /// Whether the server does not know the operation, rather than refusing it.
    pub(super) fn is_ignorance(&self) -> bool {
        self.status == 501
            || matches!(
                self.code.as_str(),
                "NotImplemented" | "InvalidArgument" | "InvalidRequest" | "UnsupportedArgument"
            )
    }

    /// Whether it answered success with an unusable body: some servers use another root element for
    /// rarely used answers.
    pub(super) fn is_gibberish(&self) -> bool {
        (200..300).contains(&self.status) && self.code.is_empty()
    }

    /// Whether a condition (`If-Match`, `If-None-Match`) failed.
    pub(super) fn is_precondition(&self) -> bool {
        matches!(self.status, 409 | 412)
            && matches!(
                self.code.as_str(),
                "" | "PreconditionFailed" | "ConditionalRequestConflict" | "412" | "409"
            )
    }

    /// Whether its message blames the time of the request, as some servers without a code for it
    /// do.
    fn is_about_time(&self) -> bool {
        let message = self.message.to_ascii_lowercase();
        [
            "has expired",
            "signature expired",
            "not yet current",
            "skew",
            "too large a difference",
        ]
        .iter()
        .any(|words| message.contains(words))
    }

    /// Whether a clock difference is a possible but unstated cause.
    fn may_be_about_time(&self) -> bool {
        matches!(self.status, 400 | 401 | 403)
            && matches!(
                self.code.as_str(),
                "" | "AccessDenied" | "Forbidden" | "InvalidRequest" | "SignatureDoesNotMatch"
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

/// Converts an error about `path` at `place`.
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

/// Why a request got no answer. The TLS library and the resolver give their reasons as text; the
/// tests use real peers, so that a change of these texts is noticed.
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
    let mut said = refusal.said();
    let place = place.to_owned();
    let answer = Answer::of(error);
    let answer = answer.as_ref();
    if let Some(problem) = answer
        .filter(|_| refusal.code.is_empty())
        .and_then(Answer::foreign)
    {
        return StoreError::Endpoint { place, problem };
    }
    if refusal.may_be_about_time()
        && let Some(difference) =
            answer.and_then(|answer| answer.clock_difference(Timestamp::now()))
    {
        said = format!("{difference} ({said})");
        return StoreError::ClockSkew { place, said };
    }
    match (refusal.code.as_str(), refusal.status) {
        ("NoSuchBucket", _) => StoreError::NoBucket { place },
        ("SignatureDoesNotMatch" | "AccessDenied", _) if refusal.is_about_time() => {
            StoreError::ClockSkew { place, said }
        }
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
        | (_, 300..=399) => {
            let region = answer.and_then(Answer::region);
            if region.is_none()
                && let Some(problem) = answer.and_then(Answer::redirect)
            {
                return StoreError::Endpoint { place, problem };
            }
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
        ("NoSuchKey" | "NotFound", _) | (_, 404) => StoreError::NotFound {
            path: match path {
                "" => place,
                path => format!("{path} in {place}"),
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

/// The sources that were tried if no credentials were found.
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
