//! Sizes and durations in human-readable form: `512M`, `2Gi`, `90s`, `10m`, `1d`.
//!
//! One parser for all configuration, including pod annotations. JSON and TOML accept either a
//! string or a plain number.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize, Serializer};

/// A size in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

/// A duration in whole seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seconds(pub u64);

/// Why a text is not a size or duration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum QuantityError {
    /// Not a number of bytes.
    #[error("invalid size `{found}`: expected a number of bytes such as `512M` or `2G`")]
    Size {
        /// The text that was found.
        found: String,
    },
    /// Not a duration.
    #[error("invalid duration `{found}`: expected a time such as `30s`, `10m`, `1h` or `2d`")]
    Duration {
        /// The text that was found.
        found: String,
    },
}

impl Seconds {
    /// The standard library's type.
    #[must_use]
    pub fn duration(self) -> Duration {
        Duration::from_secs(self.0)
    }
}

/// `1500`, `512M`, `2Gi`: the letters are powers of 1024.
impl FromStr for Size {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = || {
            let (number, unit) = split(text)?;
            let shift = match unit.to_ascii_uppercase().as_str() {
                "" | "B" => 0,
                "K" | "KI" | "KB" | "KIB" => 10,
                "M" | "MI" | "MB" | "MIB" => 20,
                "G" | "GI" | "GB" | "GIB" => 30,
                "T" | "TI" | "TB" | "TIB" => 40,
                _ => return None,
            };
            number.checked_mul(1 << shift).map(Self)
        };
        parse().ok_or_else(|| QuantityError::Size { found: shown(text) })
    }
}

/// `90`, `90s`, `10m`, `1h`, `2d`.
impl FromStr for Seconds {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = || {
            let (number, unit) = split(text)?;
            let factor = match unit {
                "" | "s" => 1,
                "m" | "min" => 60,
                "h" => 3600,
                "d" => 86_400,
                _ => return None,
            };
            number.checked_mul(factor).map(Self)
        };
        parse().ok_or_else(|| QuantityError::Duration { found: shown(text) })
    }
}

fn split(text: &str) -> Option<(u64, &str)> {
    let text = text.trim();
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at_checked(end)?;
    Some((number.parse().ok()?, unit.trim_start()))
}

/// The part of an invalid value that a message shows.
fn shown(text: &str) -> String {
    text.chars().take(64).collect()
}

/// Uses the largest unit that needs no fraction.
impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(40, "T"), (30, "G"), (20, "M"), (10, "K")];
        for (shift, unit) in units {
            if self.0 != 0 && self.0.trailing_zeros() >= shift {
                return write!(f, "{}{unit}", self.0 >> shift);
            }
        }
        write!(f, "{}", self.0)
    }
}

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (factor, unit) in [(86_400, "d"), (3600, "h"), (60, "m")] {
            if self.0 != 0 && self.0.is_multiple_of(factor) {
                return write!(f, "{}{unit}", self.0 / factor);
            }
        }
        write!(f, "{}s", self.0)
    }
}

macro_rules! text_or_number {
    ($name:ident, $expected:literal) => {
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Quantity;
                impl Visitor<'_> for Quantity {
                    type Value = $name;

                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str($expected)
                    }

                    fn visit_u64<E: de::Error>(self, number: u64) -> Result<$name, E> {
                        Ok($name(number))
                    }

                    fn visit_i64<E: de::Error>(self, number: i64) -> Result<$name, E> {
                        let invalid = || E::invalid_value(de::Unexpected::Signed(number), &self);
                        u64::try_from(number).map($name).map_err(|_| invalid())
                    }

                    fn visit_str<E: de::Error>(self, text: &str) -> Result<$name, E> {
                        text.parse().map_err(E::custom)
                    }
                }
                deserializer.deserialize_any(Quantity)
            }
        }
    };
}

text_or_number!(Size, "a number of bytes such as `512M` or `2G`");
text_or_number!(Seconds, "a time such as `30s`, `10m`, `1h` or `2d`");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn size_round_trips_through_text() {
        let cases = [
            ("1500", 1500),
            ("512M", 512 << 20),
            ("2Gi", 2 << 30),
            ("2 GiB", 2 << 30),
            ("1t", 1 << 40),
            ("0", 0),
        ];
        for (text, bytes) in cases {
            let size: Size = text.parse().unwrap();
            assert_eq!(size, Size(bytes), "{text}");
            assert_eq!(size.to_string().parse(), Ok(size));
        }
        for wrong in ["", "much", "-1", "1.5G", "16777216T", "2 parsecs"] {
            let error = wrong.parse::<Size>().unwrap_err().to_string();
            assert!(error.contains(wrong) && error.contains("`512M`"), "{error}");
        }
    }

    #[test]
    fn seconds_parses_units() {
        for (text, seconds) in [
            ("90", 90),
            ("90s", 90),
            ("10m", 600),
            ("1h", 3600),
            ("2d", 172_800),
        ] {
            let found: Seconds = text.parse().unwrap();
            assert_eq!(found, Seconds(seconds), "{text}");
            assert_eq!(found.to_string().parse(), Ok(found));
        }
        assert!("soon".parse::<Seconds>().is_err());
    }

    #[test]
    fn size_in_json_is_text_or_number() {
        let read =
            |json: &str| serde_json::from_str::<Size>(json).map_err(|error| error.to_string());
        assert_eq!(read("\"2G\""), Ok(Size(2 << 30)));
        assert_eq!(read("2048"), Ok(Size(2048)));
        assert!(read("-5").unwrap_err().contains("`512M`"));
        assert!(read("\"x\"").unwrap_err().contains("invalid size `x`"));
        assert_eq!(serde_json::to_string(&Size(3 << 30)).unwrap(), "\"3G\"");
    }
}
