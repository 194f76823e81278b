//! The GNU build-id: a module's identity.

use std::fmt;

/// Contents of an `NT_GNU_BUILD_ID` note: 1 to 64 bytes, usually 20 (SHA-1).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(with = "String", extend("pattern" = "^([0-9a-f]{2})+$")))]
pub struct BuildId(Vec<u8>);

impl BuildId {
    /// Takes the note's bytes; `None` where the length is not believable.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        (1..=64)
            .contains(&bytes.len())
            .then(|| Self(bytes.to_vec()))
    }

    /// Parses an even number of hexadecimal digits.
    #[must_use]
    pub fn parse(hex: &str) -> Option<Self> {
        let digits: Option<Vec<u8>> = hex
            .chars()
            .map(|c| c.to_digit(16).and_then(|digit| u8::try_from(digit).ok()))
            .collect();
        let pairs = digits?;
        let (pairs, []) = pairs.as_chunks::<2>() else {
            return None;
        };
        Self::from_bytes(
            &pairs
                .iter()
                .map(|[high, low]| (high << 4) | low)
                .collect::<Vec<_>>(),
        )
    }

    /// The raw bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for BuildId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for BuildId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BuildId({self})")
    }
}

impl serde::Serialize for BuildId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for BuildId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| serde::de::Error::custom("not a build-id"))
    }
}
