//! Names of objects: relative, safe as paths, and complete enough to serve as the index.

use std::fmt;

use cdh_bundle::{Manifest, RawText};
use jiff::tz::TimeZone;

use crate::StoreError;

/// Maximum lengths of parts, in escaped bytes. Time, signal, verdict, id, underscores and
/// `.manifest.json` take up to 97 bytes, which leaves 158 of the 255 of a file name. Pod names are
/// the longest.
pub(crate) const MAX_NAMESPACE: usize = 40;
pub(crate) const MAX_POD: usize = 76;
pub(crate) const MAX_EXE: usize = 40;
/// Marks the place where a part was shortened. No escape has this form.
pub(crate) const CUT: &str = "!~";
/// Follows the time of a key if that is the time of an import, because the time of the crash is unknown. Keys of a
/// second still sort between its `Z` and the `[` after it.
pub(crate) const IMPORT_TIME: &str = "i";
/// How [`CUT`] is shown.
pub(crate) const CUT_SHOWN: char = '…';
/// `SIGRTMIN!2B30` has 13 bytes.
const MAX_SIGNAL: usize = 16;
const MAX_FINGERPRINT: usize = 8;

/// The name of an object: parts joined by `/`; none is empty, `.` or `..` or contains control
/// characters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey(String);

impl ObjectKey {
    /// Checks an untrusted name.
    ///
    /// # Errors
    /// If it could leave the store or change the terminal.
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
        // `.` and `..`, and files that are still being written.
        if text.split('/').any(|part| part.starts_with('.')) {
            return bad("a part of it begins with a dot");
        }
        if text.chars().any(|c| c == '\\' || moves_the_cursor(c)) {
            return bad("it holds a backslash or control characters");
        }
        Ok(Self(text.to_owned()))
    }

    /// The keys of a dump's bundle and of its manifest. Outside Kubernetes, the container's name replaces the
    /// pod's.
    #[must_use]
    pub fn for_manifest(manifest: &Manifest) -> (Self, Self) {
        let at = TimeZone::UTC.to_datetime(manifest.listed_at());
        let mark = match manifest.captured() {
            Some(_) => "",
            None => IMPORT_TIME,
        };
        let workload = manifest.workload.as_ref();
        let named = |name: Option<&String>, longest| {
            part(name.map_or(b"".as_slice(), |name| name.as_bytes()), longest)
        };
        let fingerprint = manifest.fingerprint.as_deref().unwrap_or_default();
        let short: String = fingerprint.chars().take(8).collect();
        let stem = format!(
            "dumps/{}/{:02}{:02}{:02}Z{mark}_{}_{}_{}_{}_{}_{}_{}",
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
            part(manifest.crash_signal().name.as_bytes(), MAX_SIGNAL),
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

/// Control characters, and characters that reorder or break a line (Unicode TR 36): keys are
/// printed.
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

/// Encodes one part of a key: letters, digits, `.` and `-` are unchanged, other bytes become `!XX`; an empty part
/// becomes `-`. Long parts are shortened in the middle, marked with [`CUT`], never inside an escape: the end of a
/// pod's name distinguishes replicas.
fn part(bytes: &[u8], longest: usize) -> String {
    if bytes.is_empty() {
        return "-".to_owned();
    }
    let alone = matches!(bytes, b"-" | b"." | b"..");
    let escape = |&byte: &u8| match byte {
        b'.' | b'-' if !alone => char::from(byte).to_string(),
        byte if byte.is_ascii_alphanumeric() => char::from(byte).to_string(),
        byte => format!("!{byte:02X}"),
    };
    // Longer than any part; the rest would be discarded anyway.
    let most = longest.saturating_add(1);
    let head: Vec<String> = bytes.iter().take(most).map(escape).collect();
    if bytes.len() <= most && head.iter().map(String::len).sum::<usize>() <= longest {
        return head.concat();
    }
    let room = longest.saturating_sub(CUT.len());
    let tail_room = room / 5 * 2;
    let start = within(head.into_iter(), room.saturating_sub(tail_room));
    let mut end = within(bytes.iter().rev().take(most).map(escape), tail_room);
    end.reverse();
    format!("{}{CUT}{}", start.concat(), end.concat())
}

/// As many of these as fit into `room`.
fn within(pieces: impl Iterator<Item = String>, room: usize) -> Vec<String> {
    let mut left = room;
    let mut taken = Vec::new();
    for piece in pieces {
        match left.checked_sub(piece.len()) {
            Some(rest) => left = rest,
            None => break,
        }
        taken.push(piece);
    }
    taken
}

/// Whether a part may be a shortened name: with a mark, or from an old agent that cut off the end without
/// a mark.
pub(crate) fn may_be_cut(part: &str, longest: usize) -> bool {
    // An escape that did not fit leaves up to two bytes unused.
    part.contains(CUT) || part.len().saturating_add(2) >= longest
}

/// Decodes a part, with [`CUT_SHOWN`] in the place of omitted bytes; `None` for an empty part.
pub(crate) fn unescape(part: &str) -> Option<Vec<u8>> {
    if part == "-" {
        return None;
    }
    let mut bytes = Vec::with_capacity(part.len());
    let mut rest = part.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        if let Some(after) = rest.strip_prefix(CUT.as_bytes()) {
            bytes.extend(CUT_SHOWN.to_string().bytes());
            rest = after;
            continue;
        }
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
            let harmless = |c: char| c.is_ascii_alphanumeric() || ".-!~".contains(c);
            prop_assert!(text.chars().all(harmless));
            let back = unescape(&text).unwrap_or_default();
            match text.split_once(CUT) {
                None => prop_assert_eq!(back, bytes),
                Some((start, end)) => {
                    prop_assert!(bytes.starts_with(&unescape(start).unwrap_or_default()));
                    prop_assert!(bytes.ends_with(&unescape(end).unwrap_or_default()));
                    prop_assert!(may_be_cut(&text, MAX_EXE));
                    prop_assert!(bytes.len() > 13);
                }
            }
        }
    }
}
