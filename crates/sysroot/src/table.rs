//! Reads the entries of a table of contents one after the other, whatever its size.
//!
//! ```json
//! {"version":1,"entries":[{"name":"usr/bin/api","type":"reg","size":9,"digest":"sha256:…",…},…]}
//! ```
//!
//! The number of entries and the length of a text in a table are untrusted: one entry is in memory
//! at a time, and texts that no builder would write are refused.

use std::fmt;
use std::io::{self, Read};

use serde::de::{DeserializeSeed, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// Maximum bytes of a text: `PATH_MAX` in JSON's longest escapes is less.
const MAX_TEXT: usize = 64 << 10;

/// A file, a directory, a link, or a further piece of a file.
#[derive(Deserialize)]
pub(crate) struct TableEntry {
    #[serde(default)]
    pub(crate) name: String,
    #[serde(default, rename = "type")]
    pub(crate) kind: String,
    #[serde(default)]
    pub(crate) size: u64,
    #[serde(default, rename = "linkName")]
    pub(crate) link: String,
    #[serde(default)]
    pub(crate) offset: u64,
    #[serde(default, rename = "endOffset")]
    pub(crate) end: u64,
    #[serde(default, rename = "innerOffset")]
    pub(crate) inner: u64,
    #[serde(default, rename = "chunkSize")]
    pub(crate) chunk_size: u64,
    #[serde(default, rename = "chunkType")]
    pub(crate) chunk_kind: String,
    #[serde(default)]
    pub(crate) digest: String,
}

/// Passes each entry to `take` until that returns false.
pub(crate) fn each_entry(
    json: impl Read,
    take: &mut dyn FnMut(TableEntry) -> bool,
) -> Result<(), serde_json::Error> {
    let json = ShortTexts {
        inner: json,
        run: 0,
        is_escaped: false,
    };
    let mut reader = serde_json::Deserializer::from_reader(io::BufReader::new(json));
    Table(take).deserialize(&mut reader)?;
    reader.end()
}

struct Table<'t>(&'t mut dyn FnMut(TableEntry) -> bool);
struct Entries<'t>(&'t mut dyn FnMut(TableEntry) -> bool);

impl<'de> DeserializeSeed<'de> for Table<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Table<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a table of contents")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut is_there = false;
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "entries" if !is_there => {
                    is_there = true;
                    map.next_value_seed(Entries(&mut *self.0))?;
                }
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        match is_there {
            true => Ok(()),
            false => Err(A::Error::missing_field("entries")),
        }
    }
}

impl<'de> DeserializeSeed<'de> for Entries<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Entries<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("entries")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        while let Some(entry) = entries.next_element()? {
            if !(self.0)(entry) {
                return Err(A::Error::custom("an entry is refused"));
            }
        }
        Ok(())
    }
}

/// JSON without long texts; the parser would store a text before returning it.
struct ShortTexts<R> {
    inner: R,
    /// Bytes since the last quotation mark outside of an escape.
    run: usize,
    is_escaped: bool,
}

impl<R: Read> Read for ShortTexts<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buf)?;
        for byte in buf.get(..count).unwrap_or_default() {
            self.run = match byte {
                b'"' if !self.is_escaped => 0,
                _ => self.run.saturating_add(1),
            };
            self.is_escaped = *byte == b'\\' && !self.is_escaped;
            if self.run > MAX_TEXT {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "a text in it is too long",
                ));
            }
        }
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn names(json: &str) -> Result<Vec<String>, String> {
        let mut names = Vec::new();
        each_entry(json.as_bytes(), &mut |entry| {
            names.push(entry.name);
            true
        })
        .map(|()| names)
        .map_err(|error| error.to_string())
    }

    #[test]
    fn entries_come_in_their_order_and_other_keys_are_passed_over() {
        let json = r#"{"version":1,"entries":[{"name":"a\\"},{"name":"\"b","x":[{}]}],"more":{}}"#;
        assert_eq!(names(json).unwrap(), ["a\\", "\"b"]);
        assert!(names(r#"{"version":1}"#).unwrap_err().contains("entries"));
        assert!(names(r#"{"entries":[]} x"#).is_err());
    }

    #[test]
    fn long_text_is_refused_before_it_is_kept() {
        for filler in ["x", "\\\""] {
            let json = format!(r#"{{"entries":[{{"name":"{}"}}]}}"#, filler.repeat(80_000));
            assert!(names(&json).unwrap_err().contains("too long"), "{filler}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_tables_never_panic(json in "[\\[\\]{}\",:a-e0-9\\\\]{0,200}") {
            let _ = names(&json);
            let _ = names(&format!("{{\"entries\":{json}}}"));
        }
    }
}
