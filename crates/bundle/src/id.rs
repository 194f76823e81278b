//! The name of a dump.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Identity of one dump: a random UUID, so that a few leading digits are unique.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct DumpId(Uuid);

/// The text is no dump id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a dump id (a lower-case hyphenated UUID)")]
pub struct InvalidDumpId;

impl DumpId {
    /// A new id.
    #[must_use]
    pub fn random() -> Self {
        Self(Uuid::new_v4())
    }

    /// A stable id for something that has none of its own, from a digest of it.
    #[must_use]
    pub fn from_digest(digest: &crate::Sha256) -> Self {
        let mut bytes = [0; 16];
        for (to, from) in bytes.iter_mut().zip(digest.as_bytes()) {
            *to = *from;
        }
        Self(uuid::Builder::from_custom_bytes(bytes).into_uuid())
    }

    /// The first eight hexadecimal digits: for people.
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

    /// Takes the form that `Display` writes and no other: one dump has one name in a bucket.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let id = Uuid::try_parse(text).map(Self).map_err(|_| InvalidDumpId)?;
        if id.to_string() == text {
            Ok(id)
        } else {
            Err(InvalidDumpId)
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
    fn id_survives_text_and_json() {
        let id = DumpId::random();
        assert_eq!(id.to_string().parse::<DumpId>().unwrap(), id);
        let json = serde_json::to_string(&id).unwrap();
        assert_eq!(json, format!("\"{id}\""));
        assert_eq!(serde_json::from_str::<DumpId>(&json).unwrap(), id);
        assert!(id.to_string().starts_with(&id.short()));
        assert_eq!(id.short().len(), 8);
    }

    #[test]
    fn other_spellings_are_refused() {
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
