//! Identifiers of dumps.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Identity of one dump: a random UUID, so that its first digits are usually unique.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(with = "String", extend("format" = "uuid")))]
#[serde(transparent)]
pub struct DumpId(Uuid);

/// The text is not a dump id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a dump id (a lower-case hyphenated UUID)")]
pub struct InvalidDumpId;

impl DumpId {
    /// A new id.
    #[must_use]
    pub fn random() -> Self {
        Self(Uuid::new_v4())
    }

    /// A stable id for a dump that has none, derived from its digest.
    #[must_use]
    pub fn from_digest(digest: &crate::Sha256) -> Self {
        let mut bytes = [0; 16];
        for (to, from) in bytes.iter_mut().zip(digest.as_bytes()) {
            *to = *from;
        }
        Self(uuid::Builder::from_custom_bytes(bytes).into_uuid())
    }

    /// The first eight hexadecimal digits, for display.
    #[must_use]
    pub fn short(&self) -> String {
        self.to_string().chars().take(8).collect()
    }
}

impl fmt::Display for DumpId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_hyphenated().fmt(f)
    }
}

impl FromStr for DumpId {
    type Err = InvalidDumpId;

    /// Accepts only the form that `Display` writes, so that a dump has one name in a bucket.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let id = Uuid::try_parse(text).map(Self).map_err(|_| InvalidDumpId)?;
        if id.to_string() == text {
            Ok(id)
        } else {
            Err(InvalidDumpId)
        }
    }
}

/// An id or its beginning, as a user types it: minimum one hexadecimal digit, in either case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdPrefix(String);

/// The text is not the start of a dump id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not the start of a dump id")]
pub struct InvalidIdPrefix;

impl IdPrefix {
    /// Whether `id` begins with this prefix.
    #[must_use]
    pub fn matches(&self, id: &DumpId) -> bool {
        id.to_string().starts_with(&self.0)
    }

    /// Whether the prefix is a full id.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.0.parse::<DumpId>().is_ok()
    }
}

impl FromStr for IdPrefix {
    type Err = InvalidIdPrefix;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.to_ascii_lowercase();
        let hex = |c: char| c.is_ascii_hexdigit() || c == '-';
        match text.starts_with(hex) && text.chars().all(hex) {
            true => Ok(Self(text)),
            false => Err(InvalidIdPrefix),
        }
    }
}

impl<'de> Deserialize<'de> for DumpId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn id_prefix_matches_the_start_of_an_id_in_either_case() {
        let id: DumpId = "3fa85f64-5717-4562-b3fc-2c963f66afa6".parse().unwrap();
        for text in ["3", "3FA8", "3fa85f64-5717", &id.to_string()] {
            let prefix: IdPrefix = text.parse().unwrap();
            assert!(prefix.matches(&id), "{text}");
            assert_eq!(prefix.is_complete(), text.len() == 36, "{text}");
        }
        assert!(!"fa8".parse::<IdPrefix>().unwrap().matches(&id));
        for text in ["", "latest", "3fa8*", "../3fa8", "é"] {
            assert_eq!(text.parse::<IdPrefix>(), Err(InvalidIdPrefix), "{text}");
        }
    }

    #[test]
    fn dump_id_round_trips_through_text_and_json() {
        let id = DumpId::random();
        assert_eq!(id.to_string().parse::<DumpId>().unwrap(), id);
        let json = serde_json::to_string(&id).unwrap();
        assert_eq!(json, format!("\"{id}\""));
        assert_eq!(serde_json::from_str::<DumpId>(&json).unwrap(), id);
        assert!(id.to_string().starts_with(&id.short()));
        assert_eq!(id.short().len(), 8);
    }

    #[test]
    fn dump_id_rejects_other_spellings() {
        let id = "6a4f4e4d-9c55-4f0b-8f38-8a8f7c5d4e3b";
        assert!(id.parse::<DumpId>().is_ok());
        for other in [
            "",
            "latest",
            &id.to_uppercase(),
            &id.replace('-', ""),
            &format!("{{{id}}}"),
        ] {
            assert!(other.parse::<DumpId>().is_err(), "{other}");
        }
    }
}
