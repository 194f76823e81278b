//! The cache's format for the contents of a layer: consecutive records in any order.
//!
//! ```text
//! "cdh layer index 1\n" | zstd frames with checksums, together
//!     flags u8 | record … where record is
//!     kind u8 | path length u16 | path | f: size u64, build-id length u8, build-id
//!                                       s h: target length u16, target
//! ```
//!
//! Kinds: `f`ile, `d`irectory, `s`ymlink, `h`ard link, `x` special, `w`hiteout, `o`paque directory.
//! Numbers are little-endian. Of two records with the same path, the last one counts, as in a tar. A
//! damaged file is treated as missing.

use std::io::{self, Read, Write};

use cdh_elfcore::BuildId;

use crate::index::Node;

const MAGIC: &[u8] = b"cdh layer index 1\n";
/// Prefix of whiteout names (OCI image specification, "Whiteouts").
const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";

/// The meaning of a name in a layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum What {
    Node(Node),
    /// It deletes the entry in the layers below.
    Whiteout,
    /// A directory that hides its contents in the layers below.
    Opaque,
}

/// A path without a leading `/`, and what is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) path: Vec<u8>,
    pub(crate) what: What,
}

impl Record {
    /// The meaning of an entry with this name; `None` if it has none.
    pub(crate) fn of(path: Vec<u8>, node: Node) -> Option<Self> {
        let (parent, name) = match path.iter().rposition(|byte| *byte == b'/') {
            Some(at) => (
                path.get(..at).unwrap_or_default(),
                path.get(at.saturating_add(1)..).unwrap_or_default(),
            ),
            None => (b"".as_slice(), path.as_slice()),
        };
        if name == OPAQUE {
            return Some(Self {
                path: parent.to_vec(),
                what: What::Opaque,
            });
        }
        if let Some(hidden) = name.strip_prefix(WHITEOUT) {
            // `.wh..wh.aufs` and similar names are internal data of a file system.
            let is_note = hidden.starts_with(WHITEOUT) || hidden.is_empty();
            let path = match parent.is_empty() {
                true => hidden.to_vec(),
                false => [parent, b"/", hidden].concat(),
            };
            return (!is_note).then_some(Self {
                path,
                what: What::Whiteout,
            });
        }
        (!path.is_empty()).then_some(Self {
            path,
            what: What::Node(node),
        })
    }

    /// Bytes of its names.
    pub(crate) fn text(&self) -> usize {
        let link = match &self.what {
            What::Node(Node::Symlink(target) | Node::Hardlink(target)) => target.len(),
            _ => 0,
        };
        self.path.len().saturating_add(link)
    }
}

/// Writes records.
pub(crate) struct RecordWriter<W: Write>(zstd::Encoder<'static, W>);

impl<W: Write> RecordWriter<W> {
    /// The header of an index.
    pub(crate) fn new(mut out: W, level: i32, knows_build_ids: bool) -> io::Result<Self> {
        out.write_all(MAGIC)?;
        let mut writer = Self::more(out, level)?;
        writer.0.write_all(&[u8::from(knows_build_ids)])?;
        Ok(writer)
    }

    /// Appends to the existing records.
    pub(crate) fn more(out: W, level: i32) -> io::Result<Self> {
        let mut zstd = zstd::Encoder::new(out, level)?;
        zstd.include_checksum(true)?;
        Ok(Self(zstd))
    }

    pub(crate) fn node(&mut self, path: &[u8], node: &Node) -> io::Result<()> {
        let kind = match node {
            Node::File { .. } => b'f',
            Node::Directory => b'd',
            Node::Symlink(_) => b's',
            Node::Hardlink(_) => b'h',
            Node::Special => b'x',
        };
        self.path(kind, path)?;
        match node {
            Node::File { size, build_id } => {
                let id = build_id.as_ref().map(BuildId::as_bytes).unwrap_or_default();
                self.0.write_all(&size.to_le_bytes())?;
                self.0.write_all(&[u8::try_from(id.len()).unwrap_or(0)])?;
                self.0.write_all(id)
            }
            Node::Symlink(target) | Node::Hardlink(target) => self.text(target),
            Node::Directory | Node::Special => Ok(()),
        }
    }

    pub(crate) fn whiteout(&mut self, path: &[u8]) -> io::Result<()> {
        self.path(b'w', path)
    }

    pub(crate) fn opaque(&mut self, path: &[u8]) -> io::Result<()> {
        self.path(b'o', path)
    }

    pub(crate) fn record(&mut self, record: &Record) -> io::Result<()> {
        match &record.what {
            What::Node(node) => self.node(&record.path, node),
            What::Whiteout => self.whiteout(&record.path),
            What::Opaque => self.opaque(&record.path),
        }
    }

    pub(crate) fn finish(self) -> io::Result<W> {
        let mut out = self.0.finish()?;
        out.flush()?;
        Ok(out)
    }

    fn path(&mut self, kind: u8, path: &[u8]) -> io::Result<()> {
        self.0.write_all(&[kind])?;
        self.text(path)
    }

    fn text(&mut self, text: &[u8]) -> io::Result<()> {
        let length =
            u16::try_from(text.len()).map_err(|_| io::Error::other("a name is too long"))?;
        self.0.write_all(&length.to_le_bytes())?;
        self.0.write_all(text)
    }
}

/// Reads what [`RecordWriter`] wrote.
pub(crate) struct RecordReader<R: Read> {
    input: io::BufReader<zstd::Decoder<'static, io::BufReader<R>>>,
    /// Whether the index records build-ids.
    pub(crate) knows_build_ids: bool,
}

impl<R: Read> RecordReader<R> {
    pub(crate) fn new(mut reader: R) -> io::Result<Self> {
        let mut magic = vec![0; MAGIC.len()];
        reader.read_exact(&mut magic)?;
        if magic != MAGIC {
            return Err(damaged());
        }
        let mut input = io::BufReader::with_capacity(64 << 10, zstd::Decoder::new(reader)?);
        let knows_build_ids = read_array::<1>(&mut input)? == [1];
        Ok(Self {
            input,
            knows_build_ids,
        })
    }

    /// The next one, if there is one.
    pub(crate) fn next(&mut self) -> io::Result<Option<Record>> {
        let input = &mut self.input;
        let mut kind = [0];
        if input.read(&mut kind)? == 0 {
            return Ok(None);
        }
        let path = read_text(input)?;
        let what = match kind {
            [b'f'] => {
                let size = u64::from_le_bytes(read_array(input)?);
                let [length] = read_array(input)?;
                let mut id = vec![0; usize::from(length)];
                input.read_exact(&mut id)?;
                What::Node(Node::File {
                    size,
                    build_id: BuildId::from_bytes(&id),
                })
            }
            [b'd'] => What::Node(Node::Directory),
            [b's'] => What::Node(Node::Symlink(read_text(input)?)),
            [b'h'] => What::Node(Node::Hardlink(read_text(input)?)),
            [b'x'] => What::Node(Node::Special),
            [b'w'] => What::Whiteout,
            [b'o'] => What::Opaque,
            _ => return Err(damaged()),
        };
        Ok(Some(Record { path, what }))
    }
}

fn damaged() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "damaged index")
}

fn read_array<const N: usize>(input: &mut impl Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    input.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn read_text(input: &mut impl Read) -> io::Result<Vec<u8>> {
    let length = u16::from_le_bytes(read_array(input)?);
    let mut text = vec![0; usize::from(length)];
    input.read_exact(&mut text)?;
    Ok(text)
}
