//! Parses a registry's error message (distribution specification, "Error Codes").
//!
//! `toomanyrequests: You have reached your unauthenticated pull rate limit` is more useful than "429". The
//! text is untrusted: it is truncated, and unprintable characters are removed.

use std::io::Read;
use std::time::{Duration, Instant};

use oci_client::errors::OciEnvelope;
use ureq::{Body, http};

use crate::PullError;

/// No envelope is longer.
const MAX_ENVELOPE: u64 = 16 << 10;
/// Maximum wait for the message.
const PATIENCE: Duration = Duration::from_secs(2);
/// Characters that are shown.
const MAX_SHOWN: usize = 300;

/// Adds the answer's message to `error`.
pub(super) fn explained(mut error: PullError, answer: http::Response<Body>) -> PullError {
    let place = match &mut error {
        PullError::Denied { said, .. } | PullError::Status { said, .. } => said,
        _ => return error,
    };
    if let Some(text) = read(answer).as_deref().and_then(text_of) {
        place.push_str(": ");
        place.push_str(&text);
    }
    error
}

fn read(answer: http::Response<Body>) -> Option<Vec<u8>> {
    let mut body = answer
        .into_body()
        .into_with_config()
        .limit(MAX_ENVELOPE)
        .reader()
        .take(MAX_ENVELOPE);
    let (mut bytes, mut piece) = (Vec::new(), [0; 4096]);
    let begun = Instant::now();
    loop {
        match body.read(&mut piece).ok()? {
            0 => return Some(bytes),
            count => bytes.extend_from_slice(piece.get(..count)?),
        }
        if begun.elapsed() > PATIENCE {
            return None;
        }
    }
}

fn text_of(bytes: &[u8]) -> Option<String> {
    let envelope: OciEnvelope = serde_json::from_slice(bytes).ok()?;
    let first = envelope.errors.into_iter().next()?;
    let code = serde_json::to_value(&first.code).ok()?;
    let code = code.as_str().unwrap_or_default();
    let whole = match first.message.is_empty() {
        true => code.to_owned(),
        false => format!("{code}: {}", first.message),
    };
    let printable = |c: &char| c.is_ascii_graphic() || *c == ' ';
    let shown: String = whole.chars().filter(printable).take(MAX_SHOWN).collect();
    Some(shown).filter(|shown| !shown.trim().is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registry_error_shows_the_first_message_without_unprintable_text() {
        let limit =
            br#"{"errors": [{"code": "TOOMANYREQUESTS", "message": "limit\u001b[31m\n reached",
            "detail": {"x": 1}}, {"code": "DENIED"}]}"#;
        assert_eq!(
            text_of(limit).as_deref(),
            Some("TOOMANYREQUESTS: limit[31m reached")
        );
        let own = br#"{"errors": [{"code": "QUOTA_OF_OURS"}]}"#;
        assert_eq!(text_of(own).as_deref(), Some("QUOTA_OF_OURS"));
        let long = format!(
            r#"{{"errors": [{{"code": "X", "message": "{}"}}]}}"#,
            "m".repeat(9000)
        );
        assert_eq!(text_of(long.as_bytes()).unwrap().len(), MAX_SHOWN);
        for none in [
            "",
            "<html>",
            "{}",
            r#"{"errors": []}"#,
            r#"{"errors": [{"message": "x"}]}"#,
        ] {
            assert_eq!(text_of(none.as_bytes()), None, "{none}");
        }
    }
}
