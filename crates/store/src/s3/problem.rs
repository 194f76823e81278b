//! What the client says went wrong, as a [`StoreError`]. What servers say is hostile text: cut and
//! escaped before it is kept.

use std::error::Error;

use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;
use cdh_bundle::RawText;

use crate::StoreError;

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
    if has_no_credentials(&error) {
        return StoreError::NoCredentials { place, problem };
    }
    match error {
        SdkError::ConstructionFailure(_) if problem.contains("region") => StoreError::Region {
            place,
            said: problem,
        },
        SdkError::ConstructionFailure(_) => StoreError::Refused {
            place,
            said: problem,
        },
        _ => StoreError::Unreachable { place, problem },
    }
}

fn refused<E>(
    refusal: &Refusal,
    place: &str,
    path: &str,
    error: &SdkError<E, HttpResponse>,
) -> StoreError {
    let said = refusal.said();
    let place = place.to_owned();
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
        | (_, 301 | 307) => StoreError::Region {
            said: region_of(error).map_or(said, |region| format!("it is in region {region}")),
            place,
        },
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
            problem: format!("it answered success, and an error in it: {said}"),
        },
        ("NoSuchKey" | "NotFound", _) | (_, 404) => StoreError::NotFound {
            path: path.to_owned(),
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

fn region_of<E>(error: &SdkError<E, HttpResponse>) -> Option<String> {
    let region = error.raw_response()?.headers().get("x-amz-bucket-region")?;
    Some(harmless(region))
}

fn has_no_credentials(error: &dyn Error) -> bool {
    let mut at = Some(error);
    while let Some(error) = at {
        let text = error.to_string();
        if text.contains("no providers in chain provided credentials")
            || text.contains("the credential provider was not enabled")
            || text.contains("an error occurred while loading credentials")
        {
            return true;
        }
        at = error.source();
    }
    false
}
