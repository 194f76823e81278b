//! Bytes from outside that are usually text.
//!
//! A process chooses its own name, arguments and paths, and may put any bytes into them. They are
//! stored without loss. In JSON, valid UTF-8 is unchanged, a backslash is doubled, and a byte that
//! is not UTF-8 becomes `\xNN`.
//!
//! ```text
//! bytes   61 ff 5c 1b        JSON  "a\\xff\\\\\u001b"        terminal  a\xff\\\x1b
//! ```

use std::fmt::{self, Write};

use serde::{Deserialize, Serialize};

/// Any bytes from outside (comm, argv, paths, hostnames), stored without loss.
///
/// `Display` is safe for one line of a terminal.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(with = "String"))]
pub struct RawText(Vec<u8>);

impl RawText {
    /// Wraps the bytes unchanged.
    #[must_use]
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self(bytes.into())
    }

    /// The original bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Whether it is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The text as stored in JSON: lossless, but not safe for a terminal.
    #[must_use]
    pub fn escaped(&self) -> String {
        let mut text = String::with_capacity(self.0.len());
        // Writing to a String cannot fail.
        let _ = self.write_with(&mut text, |_| false);
        text
    }

    /// Parses the output of `escaped`. A backslash that starts no known escape is literal, so every
    /// text is accepted.
    #[must_use]
    pub fn from_escaped(text: &str) -> Self {
        let mut bytes = Vec::with_capacity(text.len());
        let mut rest = text.as_bytes();
        while let Some((&first, after)) = rest.split_first() {
            rest = after;
            match after {
                [b'\\', tail @ ..] if first == b'\\' => {
                    bytes.push(b'\\');
                    rest = tail;
                }
                [b'x', high, low, tail @ ..] if first == b'\\' => match (digit(*high), digit(*low))
                {
                    (Some(high), Some(low)) => {
                        bytes.push((high << 4) | low);
                        rest = tail;
                    }
                    _ => bytes.push(first),
                },
                _ => bytes.push(first),
            }
        }
        Self(bytes)
    }

    fn write_with(&self, out: &mut dyn Write, hidden: impl Fn(char) -> bool) -> fmt::Result {
        for chunk in self.0.utf8_chunks() {
            for character in chunk.valid().chars() {
                match character {
                    '\\' => out.write_str("\\\\")?,
                    c if c.is_ascii() && hidden(c) => write!(out, "\\x{:02x}", c as u32)?,
                    c if hidden(c) => write!(out, "\\u{{{:x}}}", c as u32)?,
                    c => out.write_char(c)?,
                }
            }
            chunk
                .invalid()
                .iter()
                .try_for_each(|byte| write!(out, "\\x{byte:02x}"))?;
        }
        Ok(())
    }
}

fn digit(byte: u8) -> Option<u8> {
    char::from(byte)
        .to_digit(16)
        .and_then(|digit| u8::try_from(digit).ok())
}

/// Control characters, and characters that reorder or break a line (Unicode TR 36).
fn moves_the_cursor(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

impl fmt::Display for RawText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::with_capacity(self.0.len());
        self.write_with(&mut text, moves_the_cursor)?;
        f.pad(&text)
    }
}

impl fmt::Debug for RawText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{self}`")
    }
}

impl From<&str> for RawText {
    fn from(text: &str) -> Self {
        Self::new(text)
    }
}

impl From<String> for RawText {
    fn from(text: String) -> Self {
        Self::new(text)
    }
}

impl From<Vec<u8>> for RawText {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }
}

impl From<&[u8]> for RawText {
    fn from(bytes: &[u8]) -> Self {
        Self::new(bytes)
    }
}

impl Serialize for RawText {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.escaped())
    }
}

impl<'de> Deserialize<'de> for RawText {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self::from_escaped(&String::deserialize(deserializer)?))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn raw_text_display_escapes_control_characters() {
        let table: [(&[u8], &str); 6] = [
            (b"nginx", "nginx"),
            ("größe 日本".as_bytes(), "größe 日本"),
            (b"a\x1b[31m\nb\x7f", "a\\x1b[31m\\x0ab\\x7f"),
            (
                "\u{9b}\u{202e}\u{2066}\u{2028}".as_bytes(),
                "\\u{9b}\\u{202e}\\u{2066}\\u{2028}",
            ),
            (b"\xff\xfe", "\\xff\\xfe"),
            (b"C:\\x41", "C:\\\\x41"),
        ];
        for (bytes, shown) in table {
            assert_eq!(RawText::from(bytes).to_string(), shown);
        }
    }

    #[test]
    fn raw_text_display_honours_the_column_width() {
        assert_eq!(format!("{:<4}|", RawText::from("ab")), "ab  |");
    }

    proptest! {
        #[test]
        fn raw_text_round_trips_bytes_through_json(bytes: Vec<u8>) {
            let text = RawText::from(bytes);
            let json = serde_json::to_string(&text).unwrap();
            prop_assert_eq!(serde_json::from_str::<RawText>(&json).unwrap(), text);
        }

        #[test]
        fn raw_text_round_trips_backslashes(text in "[\\\\x0-9a-f]{0,12}") {
            let text = RawText::from(text);
            prop_assert_eq!(RawText::from_escaped(&text.escaped()), text);
        }

        #[test]
        fn raw_text_accepts_any_text(text: String) {
            let _ = RawText::from_escaped(&text);
        }
    }
}
