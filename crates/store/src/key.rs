//! Names of objects: relative, harmless as paths, and an index in themselves.

use std::fmt;

use cdh_bundle::{Manifest, RawText};
use jiff::tz::TimeZone;

use crate::StoreError;

/// Longest parts, in escaped bytes. Time, signal, verdict, id, underscores and `.manifest.json` take
/// 97 bytes at most, which leaves 158 of the 255 of a file name. Names of pods are the long ones, and
/// their ends tell replicas apart.
const MAX_NAMESPACE: usize = 40;
const MAX_POD: usize = 76;
const MAX_EXE: usize = 40;
/// `SIGRTMIN!2B30` has 13 bytes.
const MAX_SIGNAL: usize = 16;
const MAX_FINGERPRINT: usize = 8;

/// The name of an object: parts joined by `/`, none of them empty, `.` or `..`, no control characters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey(String);

impl ObjectKey {
    /// Checks a name from outside.
    ///
    /// # Errors
    /// When it could leave the store or the screen.
    pub fn parse(text: &str) -> Result<Self, StoreError> {
        let bad = |problem| {
            Err(StoreError::Key {
                text: RawText::from(text).to_string(),
                problem,
            })
        };
        if text.len() > 1024 {
            return bad("it is longer than 1,024 bytes");
        }
        if text
            .split('/')
            .any(|part| part.is_empty() || part.len() > 255)
        {
            return bad("a part of it is empty or longer than 255 bytes");
        }
        // `.` and `..`, and what is still being written.
        if text.split('/').any(|part| part.starts_with('.')) {
            return bad("a part of it begins with a dot");
        }
        if text.chars().any(|c| c == '\\' || moves_the_cursor(c)) {
            return bad("it holds a backslash or control characters");
        }
        Ok(Self(text.to_owned()))
    }

    /// The keys of a dump's bundle and of its manifest. Outside Kubernetes the container's name is in the place
    /// of the pod's.
    #[must_use]
    pub fn for_manifest(manifest: &Manifest) -> (Self, Self) {
        let at = TimeZone::UTC.to_datetime(manifest.captured_at);
        let workload = manifest.workload.as_ref();
        let named = |name: Option<&String>, longest| {
            part(name.map_or(b"".as_slice(), |name| name.as_bytes()), longest)
        };
        let fingerprint = manifest.fingerprint.as_deref().unwrap_or_default();
        let short: String = fingerprint.chars().take(8).collect();
        let stem = format!(
            "dumps/{}/{:02}{:02}{:02}Z_{}_{}_{}_{}_{}_{}_{}",
            at.date(),
            at.hour(),
            at.minute(),
            at.second(),
            named(
                workload.and_then(|workload| workload.namespace.as_ref()),
                MAX_NAMESPACE
            ),
            named(
                workload.and_then(|workload| workload.pod_or_container()),
                MAX_POD
            ),
            part(manifest.process.exe_name().as_bytes(), MAX_EXE),
            part(manifest.signal.name.as_bytes(), MAX_SIGNAL),
            part(short.as_bytes(), MAX_FINGERPRINT),
            manifest.verdict.word(),
            manifest.id,
        );
        (
            Self(format!("{stem}.zip")),
            Self(format!("{stem}.manifest.json")),
        )
    }

    /// The key of the manifest beside a bundle.
    pub(crate) fn manifest(&self) -> Option<Self> {
        self.0
            .strip_suffix(".zip")
            .map(|stem| Self(format!("{stem}.manifest.json")))
    }

    /// As text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Controls, and what reorders or breaks a line (Unicode TR 36): keys are printed.
fn moves_the_cursor(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

impl std::str::FromStr for ObjectKey {
    type Err = StoreError;

    fn from_str(text: &str) -> Result<Self, StoreError> {
        Self::parse(text)
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One part of a key: letters, digits, `.` and `-` stand for themselves, other bytes are `!XX`; nothing
/// is `-`. Long ones are cut, never inside an escape.
fn part(bytes: &[u8], longest: usize) -> String {
    if bytes.is_empty() {
        return "-".to_owned();
    }
    let alone = matches!(bytes, b"-" | b"." | b"..");
    let mut text = String::new();
    for &byte in bytes {
        let plain = byte.is_ascii_alphanumeric() || (matches!(byte, b'.' | b'-') && !alone);
        let piece = if plain {
            char::from(byte).to_string()
        } else {
            format!("!{byte:02X}")
        };
        if text.len().saturating_add(piece.len()) > longest {
            break;
        }
        text.push_str(&piece);
    }
    text
}

/// The bytes behind a part; `None` for the part that stands for nothing.
pub(crate) fn unescape(part: &str) -> Option<Vec<u8>> {
    if part == "-" {
        return None;
    }
    let mut bytes = Vec::with_capacity(part.len());
    let mut rest = part.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let escaped = (first == b'!').then(|| after.split_at_checked(2)).flatten();
        let byte = escaped.and_then(|(digits, after)| {
            let text = std::str::from_utf8(digits).ok()?;
            Some((u8::from_str_radix(text, 16).ok()?, after))
        });
        let (byte, after) = byte.unwrap_or((first, after));
        bytes.push(byte);
        rest = after;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn keys_that_leave_the_store_are_refused() {
        for text in ["", "/etc/passwd", "a/../b", "a//b", "a/.", "a\nb", "a/"] {
            assert!(ObjectKey::parse(text).is_err(), "{text:?}");
        }
        assert!(ObjectKey::parse("dumps/2026-01-31/x_y.zip").is_ok());
    }

    proptest! {
        #[test]
        fn parts_are_harmless_and_come_back(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let text = part(&bytes, MAX_EXE);
            prop_assert!(text.len() <= MAX_EXE && !text.is_empty());
            prop_assert!(text != "." && text != "..");
            let harmless = |c: char| c.is_ascii_alphanumeric() || ".-!".contains(c);
            prop_assert!(text.chars().all(harmless));
            let back = unescape(&text).unwrap_or_default();
            prop_assert!(bytes.starts_with(&back));
            prop_assert!(bytes.len() > 13 || back == bytes);
        }
    }
}
