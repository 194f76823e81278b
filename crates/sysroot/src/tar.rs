//! Reads the tar formats of layers: ustar, GNU long names, PAX paths and sizes.
//!
//! ```text
//! header 512 bytes | content, padded to 512 | header | … | two blocks of zeros
//! ```
//!
//! Extended headers (`L`, `K`, `x`, `g`) are entries of their own that precede the header they describe.
//! Nothing is unpacked: the caller receives names, kinds and bytes. Sparse files are reported, not
//! assembled.

use std::io::{self, Read};

const BLOCK: usize = 512;
/// Extended headers are held in memory, so their size is limited.
const MAX_EXTENDED: u64 = 1 << 20;

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    Directory,
    Symlink,
    Hardlink,
    /// A device, a FIFO, a sparse file: not usable.
    Special,
}

/// One entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// As in the archive: untrusted.
    pub(crate) path: Vec<u8>,
    pub(crate) link: Vec<u8>,
    pub(crate) kind: Kind,
    pub(crate) size: u64,
}

/// Reads entries one after the other.
pub(crate) struct TarReader<R> {
    reader: R,
    content: u64,
    padding: u64,
}

#[derive(Default)]
struct Extended {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    sparse: bool,
}

fn bad(problem: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("its tar is broken: {problem}"),
    )
}

impl<R: Read> TarReader<R> {
    pub(crate) fn new(reader: R) -> Self {
        Self {
            reader,
            content: 0,
            padding: 0,
        }
    }

    /// The next entry; the rest of the previous one is skipped.
    pub(crate) fn next(&mut self) -> io::Result<Option<Entry>> {
        let mut extended = Extended::default();
        loop {
            self.skip()?;
            let Some(header) = self.header()? else {
                return Ok(None);
            };
            let size =
                number(field(&header, 124, 12)).ok_or_else(|| bad("a size is not a number"))?;
            let flag = header.get(156).copied().unwrap_or(0);
            match flag {
                b'L' | b'K' | b'x' | b'X' | b'g' => {
                    let mut bytes = self.extended(size)?;
                    match flag {
                        b'g' => {}
                        b'x' | b'X' => pax(&bytes, &mut extended)?,
                        _ => {
                            let end = bytes.iter().position(|byte| *byte == 0);
                            bytes.truncate(end.unwrap_or(bytes.len()));
                            match flag {
                                b'L' => extended.path = Some(bytes),
                                _ => extended.link = Some(bytes),
                            }
                        }
                    }
                }
                _ => return self.entry(&header, flag, size, extended).map(Some),
            }
        }
    }

    fn entry(
        &mut self,
        header: &[u8; BLOCK],
        flag: u8,
        size: u64,
        extended: Extended,
    ) -> io::Result<Entry> {
        let size = extended.size.unwrap_or(size);
        let path = extended.path.unwrap_or_else(|| name(header));
        let kind = match flag {
            b'0' | 0 | b'7' if extended.sparse => Kind::Special,
            // Archives from before POSIX mark directories only by a trailing `/` in the name.
            b'0' | 0 | b'7' if path.ends_with(b"/") => Kind::Directory,
            b'0' | 0 | b'7' => Kind::File,
            b'1' => Kind::Hardlink,
            b'2' => Kind::Symlink,
            b'5' => Kind::Directory,
            b'S' => {
                self.skip_sparse_map(header)?;
                Kind::Special
            }
            _ => Kind::Special,
        };
        // Links and directories have no content, whatever their size field says.
        let content = match kind {
            Kind::File => size,
            Kind::Special if matches!(flag, b'0' | 0 | b'7' | b'S') => size,
            Kind::Special if !matches!(flag, b'3' | b'4' | b'6') => size,
            _ => 0,
        };
        self.set_content(content);
        let link = extended
            .link
            .unwrap_or_else(|| until_nul(field(header, 157, 100)).to_vec());
        Ok(Entry {
            path,
            link,
            kind,
            size: content,
        })
    }

    /// The bytes of the most recent entry.
    pub(crate) fn content(&mut self) -> Content<'_, R> {
        Content(self)
    }

    fn set_content(&mut self, size: u64) {
        self.content = size;
        let over = size % BLOCK as u64;
        self.padding = if over == 0 {
            0
        } else {
            (BLOCK as u64).saturating_sub(over)
        };
    }

    fn skip(&mut self) -> io::Result<()> {
        let left = self.content.saturating_add(self.padding);
        let copied = io::copy(&mut self.reader.by_ref().take(left), &mut io::sink())?;
        self.set_content(0);
        match copied == left {
            true => Ok(()),
            false => Err(bad("it ends inside a file")),
        }
    }

    /// `None` at the end: a block of zeros, or the end of the stream.
    fn header(&mut self) -> io::Result<Option<[u8; BLOCK]>> {
        let mut block = [0; BLOCK];
        let mut filled = 0;
        while let Some(rest) = block.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.reader.read(rest) {
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => return Err(bad("it ends inside a header")),
                Ok(count) => filled = filled.saturating_add(count),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        if block.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        let sum = |signed: bool| {
            block.iter().enumerate().fold(0_i64, |sum, (at, byte)| {
                let byte = if (148..156).contains(&at) {
                    b' '
                } else {
                    *byte
                };
                sum.saturating_add(match signed {
                    true => i64::from(byte.cast_signed()),
                    false => i64::from(byte),
                })
            })
        };
        let expected = number(field(&block, 148, 8)).and_then(|sum| i64::try_from(sum).ok());
        match expected {
            Some(expected) if expected == sum(false) || expected == sum(true) => Ok(Some(block)),
            _ => Err(bad("a header's checksum is wrong")),
        }
    }

    fn extended(&mut self, size: u64) -> io::Result<Vec<u8>> {
        if size > MAX_EXTENDED {
            return Err(bad("an extended header is too long"));
        }
        self.set_content(size);
        let mut bytes = Vec::new();
        self.content().read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// GNU's old sparse files: further blocks of the map follow the header while byte 482 (504 in those
    /// blocks) is not zero.
    fn skip_sparse_map(&mut self, header: &[u8; BLOCK]) -> io::Result<()> {
        let mut more = header.get(482).is_some_and(|byte| *byte != 0);
        while more {
            let mut block = [0; BLOCK];
            self.reader.read_exact(&mut block)?;
            more = block.get(504).is_some_and(|byte| *byte != 0);
        }
        Ok(())
    }
}

/// Reader of one entry's bytes; an early end is an error.
pub(crate) struct Content<'t, R>(&'t mut TarReader<R>);

impl<R: Read> Read for Content<'_, R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let room = usize::try_from(self.0.content)
            .unwrap_or(usize::MAX)
            .min(buf.len());
        let Some(buf) = buf.get_mut(..room).filter(|buf| !buf.is_empty()) else {
            return Ok(0);
        };
        let count = self.0.reader.read(buf)?;
        if count == 0 {
            return Err(bad("it ends inside a file"));
        }
        self.0.content = self.0.content.saturating_sub(count as u64);
        Ok(count)
    }
}

fn field(header: &[u8; BLOCK], at: usize, length: usize) -> &[u8] {
    header
        .get(at..at.saturating_add(length))
        .unwrap_or_default()
}

fn until_nul(bytes: &[u8]) -> &[u8] {
    bytes.split(|byte| *byte == 0).next().unwrap_or_default()
}

fn name(header: &[u8; BLOCK]) -> Vec<u8> {
    let name = until_nul(field(header, 0, 100));
    let prefix = until_nul(field(header, 345, 155));
    // GNU uses the prefix field for other data, which "ustar  " marks.
    if field(header, 257, 6) == b"ustar\0" && !prefix.is_empty() {
        return [prefix, b"/", name].concat();
    }
    name.to_vec()
}

/// Octal digits, or big-endian binary after a byte 0x80.
fn number(bytes: &[u8]) -> Option<u64> {
    if let Some((&0x80, rest)) = bytes.split_first() {
        return rest.iter().try_fold(0_u64, |value, byte| {
            value.checked_mul(256)?.checked_add(u64::from(*byte))
        });
    }
    let text = std::str::from_utf8(until_nul(bytes)).ok()?.trim();
    match text.is_empty() {
        true => Some(0),
        false => u64::from_str_radix(text, 8).ok(),
    }
}

/// `<length> <key>=<value>\n`; the length includes itself.
fn pax(mut bytes: &[u8], extended: &mut Extended) -> io::Result<()> {
    let broken = || bad("a PAX record is broken");
    while !bytes.is_empty() {
        let space = bytes
            .iter()
            .position(|byte| *byte == b' ')
            .ok_or_else(broken)?;
        let length = std::str::from_utf8(bytes.get(..space).unwrap_or_default()).ok();
        let length: usize = length
            .and_then(|text| text.parse().ok())
            .ok_or_else(broken)?;
        let record = bytes
            .get(space.saturating_add(1)..length)
            .ok_or_else(broken)?;
        let record = record.strip_suffix(b"\n").ok_or_else(broken)?;
        let equals = record
            .iter()
            .position(|byte| *byte == b'=')
            .ok_or_else(broken)?;
        let (key, value) = record.split_at(equals);
        let value = value.get(1..).unwrap_or_default();
        match key {
            b"path" => extended.path = Some(value.to_vec()),
            b"linkpath" => extended.link = Some(value.to_vec()),
            b"size" => {
                let text = std::str::from_utf8(value).ok();
                extended.size = Some(text.and_then(|text| text.parse().ok()).ok_or_else(broken)?);
            }
            b"GNU.sparse.name" => {
                extended.path = Some(value.to_vec());
                extended.sparse = true;
            }
            key if key.starts_with(b"GNU.sparse.") => extended.sparse = true,
            _ => {}
        }
        bytes = bytes.get(length..).unwrap_or_default();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all(bytes: &[u8]) -> io::Result<Vec<(Entry, Vec<u8>)>> {
        let mut tar = TarReader::new(bytes);
        let mut found = Vec::new();
        while let Some(entry) = tar.next()? {
            let mut content = Vec::new();
            tar.content().read_to_end(&mut content)?;
            found.push((entry, content));
        }
        Ok(found)
    }

    /// Made by the machine's own tar, in each of its formats.
    #[test]
    fn names_of_any_length_survive_every_format() {
        let directory = tempfile::tempdir().unwrap();
        let deep = format!("{}/{}", "d".repeat(120), "e".repeat(130));
        std::fs::create_dir_all(directory.path().join(&deep)).unwrap();
        let long = format!("{deep}/{}", "f".repeat(90));
        std::fs::write(directory.path().join(&long), "content").unwrap();
        std::os::unix::fs::symlink("t".repeat(140), directory.path().join("link")).unwrap();
        for format in ["gnu", "pax", "posix"] {
            let output = std::process::Command::new("tar")
                .args(["--format", format, "-c", "-C"])
                .arg(directory.path())
                .args([&long, "link"])
                .output()
                .unwrap();
            let found = all(&output.stdout).unwrap();
            assert_eq!(found[0].0.path, long.as_bytes(), "{format}");
            assert_eq!(found[0].1, b"content");
            assert_eq!(found[1].0.link, "t".repeat(140).as_bytes(), "{format}");
            assert_eq!(found[1].0.kind, Kind::Symlink);
        }
    }

    /// Their content is a map and the parts that are not holes: without its holes, the file would be different.
    #[test]
    fn sparse_files_are_no_files_and_what_follows_them_is_found() {
        let directory = tempfile::tempdir().unwrap();
        let file = std::fs::File::create(directory.path().join("sparse")).unwrap();
        for piece in 0..40_u64 {
            std::os::unix::fs::FileExt::write_at(&file, b"piece", piece << 20).unwrap();
        }
        file.set_len(64 << 20).unwrap();
        std::fs::write(directory.path().join("plain"), "content").unwrap();
        for format in [
            &["--format", "gnu"][..],
            &["--format", "pax", "--sparse-version", "0.0"],
            &["--format", "pax", "--sparse-version", "0.1"],
            &["--format", "pax", "--sparse-version", "1.0"],
        ] {
            let output = std::process::Command::new("tar")
                .args(format)
                .args(["--sparse", "-c", "-C"])
                .arg(directory.path())
                .args(["sparse", "plain"])
                .output()
                .unwrap();
            assert!(output.stdout.len() < 4 << 20, "{format:?}");
            let found = all(&output.stdout).unwrap();
            assert_eq!(found.len(), 2, "{format:?}");
            assert_eq!(found[0].0.path, b"sparse", "{format:?}");
            assert_eq!(found[0].0.kind, Kind::Special, "{format:?}");
            assert_eq!(found[1].0.path, b"plain", "{format:?}");
            assert_eq!(found[1].1, b"content", "{format:?}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..2048)) {
            let _ = all(&bytes);
        }

        #[test]
        fn arbitrary_extended_headers_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = pax(&bytes, &mut Extended::default());
        }
    }
}
