//! Size, CRC-32 and SHA-256 of a byte stream, computed in one pass.

use std::fmt;
use std::io::{self, Read, Write};

use serde::{Deserialize, Serialize};
use sha2::Digest as _;

/// A SHA-256 digest.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(with = "String", extend("pattern" = "^[0-9a-f]{64}$")))]
pub struct Sha256([u8; 32]);

impl Sha256 {
    /// Wraps the raw digest.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The digest of `data`.
    #[must_use]
    pub fn of(data: &[u8]) -> Self {
        Self(sha2::Sha256::digest(data).into())
    }

    /// Parses 64 hexadecimal digits.
    #[must_use]
    pub fn parse(hex: &str) -> Option<Self> {
        let mut bytes = [0; 32];
        let (pairs, []) = hex.as_bytes().as_chunks::<2>() else {
            return None;
        };
        if pairs.len() != bytes.len() {
            return None;
        }
        for (to, [high, low]) in bytes.iter_mut().zip(pairs) {
            let digit = |byte: &u8| char::from(*byte).to_digit(16);
            *to = u8::try_from((digit(high)? << 4) | digit(low)?).ok()?;
        }
        Some(Self(bytes))
    }

    /// The raw digest.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sha256({self})")
    }
}

impl Serialize for Sha256 {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Sha256 {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| serde::de::Error::custom("not a SHA-256 digest"))
    }
}

/// Size and checksums that identify a byte stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Digests {
    /// Number of bytes.
    pub size: u64,
    /// CRC-32 as used in zip files.
    pub crc32: u32,
    /// SHA-256.
    pub sha256: Sha256,
}

impl Digests {
    /// The digests of `data`.
    #[must_use]
    pub fn of(data: &[u8]) -> Self {
        let mut hasher = Hasher::default();
        hasher.update(data);
        hasher.finish()
    }

    /// Reads `source` to its end and returns its digests.
    ///
    /// # Errors
    /// Returns the errors of `source`.
    pub fn of_reader(mut source: impl Read) -> io::Result<Self> {
        let mut hashed = DigestWriter::new(io::sink());
        copy(&mut source, &mut hashed)?;
        Ok(hashed.finish().1)
    }
}

/// Like `io::copy`, with a buffer size for large files.
pub(crate) fn copy(from: &mut dyn Read, to: &mut dyn Write) -> io::Result<u64> {
    let mut buffer = vec![0; 256 << 10];
    let mut total = 0_u64;
    loop {
        let count = match from.read(&mut buffer) {
            Ok(0) => return Ok(total),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        to.write_all(buffer.get(..count).unwrap_or_default())?;
        total = total.saturating_add(count as u64);
    }
}

#[derive(Clone, Default)]
struct Hasher {
    size: u64,
    crc32: crc32fast::Hasher,
    sha256: sha2::Sha256,
}

impl Hasher {
    fn update(&mut self, data: &[u8]) {
        self.size = self.size.saturating_add(data.len() as u64);
        self.crc32.update(data);
        self.sha256.update(data);
    }

    fn finish(self) -> Digests {
        Digests {
            size: self.size,
            crc32: self.crc32.finalize(),
            sha256: Sha256(self.sha256.finalize().into()),
        }
    }
}

/// Forwards the written bytes and computes their digests.
pub struct DigestWriter<W> {
    inner: W,
    hasher: Hasher,
}

impl<W: Write> DigestWriter<W> {
    /// Creates a writer that forwards to `inner`.
    pub fn new(inner: W) -> Self {
        Self {
            inner,
            hasher: Hasher::default(),
        }
    }

    /// Returns the inner writer and the digests of everything written.
    pub fn finish(self) -> (W, Digests) {
        (self.inner, self.hasher.finish())
    }

    /// The inner writer.
    pub fn get_ref(&self) -> &W {
        &self.inner
    }
}

impl<W: Write> Write for DigestWriter<W> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(data)?;
        self.hasher.update(data.get(..count).unwrap_or(data));
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Forwards the bytes read and computes their digests.
pub struct DigestReader<R> {
    inner: R,
    hasher: Hasher,
}

impl<R: Read> DigestReader<R> {
    /// Creates a reader over `inner`.
    pub fn new(inner: R) -> Self {
        Self {
            inner,
            hasher: Hasher::default(),
        }
    }

    /// The digests of everything read so far.
    pub fn digests(&self) -> Digests {
        self.hasher.clone().finish()
    }
}

impl<R: Read> Read for DigestReader<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buf)?;
        self.hasher.update(buf.get(..count).unwrap_or_default());
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_match_published_test_vectors() {
        let digests = Digests::of(b"123456789");
        assert_eq!(digests.size, 9);
        assert_eq!(digests.crc32, 0xcbf4_3926);
        let sha256 = "15e2b0d3c33891ebb0f1ef609ec419420c20e320ce94c65fbc8c3312448eb225";
        assert_eq!(digests.sha256.to_string(), sha256);
        assert_eq!(Sha256::parse(sha256), Some(digests.sha256));
    }

    #[test]
    fn digest_reader_and_writer_agree() {
        let data = vec![7; 1_000_000];
        let mut out = DigestWriter::new(Vec::new());
        let mut source = DigestReader::new(data.as_slice());
        io::copy(&mut source, &mut out).unwrap();
        let (copied, digests) = out.finish();
        assert_eq!(copied, data);
        assert_eq!(digests, source.digests());
        assert_eq!(digests, Digests::of(&data));
        assert_eq!(digests, Digests::of_reader(data.as_slice()).unwrap());
    }

    #[test]
    fn sha256_parse_rejects_invalid_text() {
        for text in [
            "",
            "00",
            &"g".repeat(64),
            &"0".repeat(63),
            &"0".repeat(65),
            &"é".repeat(32),
        ] {
            assert_eq!(Sha256::parse(text), None, "{text}");
        }
    }
}
