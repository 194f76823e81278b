//! What a layer holds, by path: enough to look files up in it without reading it again.
//!
//! ```text
//! "cdh layer index 1\n" | one zstd frame with a checksum of
//!     flags u8 | entry … where entry is
//!     kind u8 | path length u16 | path | f: size u64, build-id length u8, build-id
//!                                       s h: target length u16, target
//! ```
//!
//! Kinds: `f`ile, `d`irectory, `s`ymlink, `h`ard link, `x` special, `w`hiteout, `o`paque directory.
//! Numbers are little-endian. A damaged file is one that is not there.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read, Write};
use std::ops::Bound;

use cdh_elfcore::BuildId;

use crate::layer::tar_of;
use crate::tar::{Entry, Kind, TarReader};

const MAGIC: &[u8] = b"cdh layer index 1\n";
/// Large images have two hundred thousand files; what has more than this wants our memory.
const MAX_ENTRIES: usize = 1_000_000;
/// Bytes of all names together.
const MAX_TEXT: usize = 96 << 20;
/// `PATH_MAX`.
const MAX_PATH: usize = 4096;
/// Prefix of the names that delete (OCI image specification, "Whiteouts").
const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";

/// One entry of a layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Node {
    /// A regular file.
    File {
        /// Its length.
        size: u64,
        /// Its build-id, where it is an ELF file with one.
        build_id: Option<BuildId>,
    },
    /// A directory.
    Directory,
    /// A symbolic link and its target: hostile bytes.
    Symlink(Vec<u8>),
    /// Another name of a file of this layer.
    Hardlink(Vec<u8>),
    /// A device, a FIFO, a sparse file.
    Special,
}

/// The files of one layer. Paths have no leading `/`; the root is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LayerIndex {
    nodes: BTreeMap<Vec<u8>, Node>,
    whiteouts: BTreeSet<Vec<u8>>,
    opaque: BTreeSet<Vec<u8>>,
    text: usize,
    /// Whether build-ids were looked for.
    pub(crate) knows_build_ids: bool,
}

/// A path without empty parts and `.`; `Err` says what is wrong with it.
pub(crate) fn normalized(path: &[u8]) -> Result<Vec<u8>, &'static str> {
    let mut out = Vec::new();
    for part in path.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => return Err("leads out of the root"),
            part if part.contains(&0) => return Err("holds a NUL"),
            part => {
                if !out.is_empty() {
                    out.push(b'/');
                }
                out.extend_from_slice(part);
            }
        }
    }
    match out.len() > MAX_PATH {
        true => Err("is too long"),
        false => Ok(out),
    }
}

/// `a`, `a/b` for `a/b/c`, and the root.
fn ancestors(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    let slashes = path.iter().enumerate().filter(|(_, byte)| **byte == b'/');
    let parts = slashes.filter_map(|(at, _)| path.get(..at));
    std::iter::once(b"".as_slice())
        .filter(|_| !path.is_empty())
        .chain(parts)
}

impl LayerIndex {
    /// An index that is filled by somebody who looks for build-ids.
    pub(crate) fn scanned() -> Self {
        Self {
            knows_build_ids: true,
            ..Self::default()
        }
    }

    /// Of a layer that is here as a whole, without build-ids: as a pull makes it of one that streams by.
    ///
    /// # Errors
    /// When it is no layer, or one that no builder makes.
    pub fn from_blob(blob: &[u8]) -> io::Result<Self> {
        let mut tar = TarReader::new(tar_of(blob, blob.len() as u64)?);
        let mut index = Self::default();
        while let Some(entry) = tar.next()? {
            index.add(&entry, None).map_err(io::Error::other)?;
        }
        Ok(index)
    }

    /// Takes up an entry of a tar.
    pub(crate) fn add(&mut self, entry: &Entry, build_id: Option<BuildId>) -> Result<(), String> {
        let shown = |path: &[u8]| String::from_utf8_lossy(path).into_owned();
        let path = normalized(&entry.path)
            .map_err(|problem| format!("path `{}` {problem}", shown(&entry.path)))?;
        let node = match entry.kind {
            Kind::File => Node::File {
                size: entry.size,
                build_id,
            },
            Kind::Directory => Node::Directory,
            Kind::Symlink if entry.link.len() > MAX_PATH => {
                return Err("a link is too long".to_owned());
            }
            Kind::Symlink => Node::Symlink(entry.link.clone()),
            Kind::Hardlink => Node::Hardlink(normalized(&entry.link).map_err(|problem| {
                format!(
                    "hard link `{}` to `{}`, which {problem}",
                    shown(&entry.path),
                    shown(&entry.link)
                )
            })?),
            Kind::Special => Node::Special,
        };
        self.insert(path, node)
    }

    /// Takes up a node, or what its name means: a whiteout or an opaque directory.
    pub(crate) fn insert(&mut self, path: Vec<u8>, node: Node) -> Result<(), String> {
        let (parent, name) = match path.iter().rposition(|byte| *byte == b'/') {
            Some(at) => (
                path.get(..at).unwrap_or_default(),
                path.get(at.saturating_add(1)..).unwrap_or_default(),
            ),
            None => (b"".as_slice(), path.as_slice()),
        };
        let link = match &node {
            Node::Symlink(target) | Node::Hardlink(target) => target.len(),
            _ => 0,
        };
        self.text = self.text.saturating_add(path.len()).saturating_add(link);
        let count = self
            .nodes
            .len()
            .saturating_add(self.whiteouts.len())
            .saturating_add(self.opaque.len());
        if count >= MAX_ENTRIES || self.text > MAX_TEXT {
            return Err("it holds more files than any image should".to_owned());
        }
        if name == OPAQUE {
            self.opaque.insert(parent.to_vec());
        } else if let Some(hidden) = name.strip_prefix(WHITEOUT) {
            // `.wh..wh.aufs` and its kin are notes of a file system to itself.
            if !hidden.starts_with(WHITEOUT) && !hidden.is_empty() {
                let whole = match parent.is_empty() {
                    true => hidden.to_vec(),
                    false => [parent, b"/", hidden].concat(),
                };
                self.whiteouts.insert(whole);
            }
        } else if !path.is_empty() {
            self.nodes.insert(path, node);
        }
        Ok(())
    }

    /// The entry at exactly this path.
    #[must_use]
    pub fn node(&self, path: &[u8]) -> Option<&Node> {
        self.nodes.get(path)
    }

    pub(crate) fn node_mut(&mut self, path: &[u8]) -> Option<&mut Node> {
        self.nodes.get_mut(path)
    }

    /// Number of entries.
    #[must_use]
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Whether something is in `path`, which is a directory then, even if it has no entry of its own.
    pub(crate) fn has_inside(&self, path: &[u8]) -> bool {
        if path.is_empty() {
            return true;
        }
        let start = [path, b"/"].concat();
        let range = (Bound::Excluded(start.clone()), Bound::Unbounded);
        self.nodes
            .range(range)
            .next()
            .is_some_and(|(next, _)| next.starts_with(&start))
    }

    /// Whether the layers below are not to be asked about `path`, which has no entry here.
    pub(crate) fn hides(&self, path: &[u8]) -> bool {
        let replaced = |above: &[u8]| {
            self.opaque.contains(above)
                || self.whiteouts.contains(above)
                || self
                    .nodes
                    .get(above)
                    .is_some_and(|node| *node != Node::Directory)
        };
        self.whiteouts.contains(path) || ancestors(path).any(replaced)
    }

    /// Files with this build-id.
    pub(crate) fn with_build_id<'i>(&'i self, id: &'i BuildId) -> impl Iterator<Item = &'i [u8]> {
        self.nodes
            .iter()
            .filter_map(move |(path, node)| match node {
                Node::File {
                    build_id: Some(known),
                    ..
                } if known == id => Some(path.as_slice()),
                _ => None,
            })
    }

    /// Writes it as the cache keeps it.
    ///
    /// # Errors
    /// When `out` cannot be written.
    pub fn write(&self, mut out: impl Write) -> io::Result<()> {
        out.write_all(MAGIC)?;
        let mut zstd = zstd::Encoder::new(out, 3)?;
        zstd.include_checksum(true)?;
        zstd.write_all(&[u8::from(self.knows_build_ids)])?;
        for (path, node) in &self.nodes {
            let kind = match node {
                Node::File { .. } => b'f',
                Node::Directory => b'd',
                Node::Symlink(_) => b's',
                Node::Hardlink(_) => b'h',
                Node::Special => b'x',
            };
            write_path(&mut zstd, kind, path)?;
            match node {
                Node::File { size, build_id } => {
                    let id = build_id.as_ref().map(BuildId::as_bytes).unwrap_or_default();
                    zstd.write_all(&size.to_le_bytes())?;
                    zstd.write_all(&[u8::try_from(id.len()).unwrap_or(0)])?;
                    zstd.write_all(id)?;
                }
                Node::Symlink(target) | Node::Hardlink(target) => write_text(&mut zstd, target)?,
                Node::Directory | Node::Special => {}
            }
        }
        for (kind, paths) in [(b'w', &self.whiteouts), (b'o', &self.opaque)] {
            for path in paths {
                write_path(&mut zstd, kind, path)?;
            }
        }
        zstd.finish()?.flush()
    }

    /// Reads what [`write`](Self::write) wrote.
    ///
    /// # Errors
    /// When it is damaged.
    pub fn read(mut reader: impl Read) -> io::Result<Self> {
        let damaged = || io::Error::new(io::ErrorKind::InvalidData, "damaged index");
        let mut magic = vec![0; MAGIC.len()];
        reader.read_exact(&mut magic)?;
        if magic != MAGIC {
            return Err(damaged());
        }
        let mut input = io::BufReader::new(zstd::Decoder::new(reader)?);
        let mut index = Self {
            knows_build_ids: read_array::<1>(&mut input)? == [1],
            ..Self::default()
        };
        loop {
            let mut kind = [0];
            if input.read(&mut kind)? == 0 {
                return Ok(index);
            }
            let path = read_text(&mut input)?;
            index.text = index.text.saturating_add(path.len());
            if index.text > MAX_TEXT {
                return Err(damaged());
            }
            let node = match kind {
                [b'f'] => {
                    let size = u64::from_le_bytes(read_array(&mut input)?);
                    let [length] = read_array(&mut input)?;
                    let mut id = vec![0; usize::from(length)];
                    input.read_exact(&mut id)?;
                    Node::File {
                        size,
                        build_id: BuildId::from_bytes(&id),
                    }
                }
                [b'd'] => Node::Directory,
                [b's'] => Node::Symlink(read_text(&mut input)?),
                [b'h'] => Node::Hardlink(read_text(&mut input)?),
                [b'x'] => Node::Special,
                [b'w'] => {
                    index.whiteouts.insert(path);
                    continue;
                }
                [b'o'] => {
                    index.opaque.insert(path);
                    continue;
                }
                _ => return Err(damaged()),
            };
            index.nodes.insert(path, node);
        }
    }
}

fn write_path(out: &mut impl Write, kind: u8, path: &[u8]) -> io::Result<()> {
    out.write_all(&[kind])?;
    write_text(out, path)
}

fn write_text(out: &mut impl Write, text: &[u8]) -> io::Result<()> {
    let length = u16::try_from(text.len()).map_err(|_| io::Error::other("a name is too long"))?;
    out.write_all(&length.to_le_bytes())?;
    out.write_all(text)
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn paths_are_normalized_and_do_not_leave_the_root() {
        assert_eq!(normalized(b"./usr//lib/./x").unwrap(), b"usr/lib/x");
        assert_eq!(normalized(b"/").unwrap(), b"");
        assert!(normalized(b"a/../../etc/passwd").is_err());
        assert!(normalized(b"a\0b").is_err());
    }

    proptest! {
        #[test]
        fn index_survives_the_disk(
            entries in proptest::collection::vec((proptest::collection::vec(any::<u8>(), 0..40), 0_u8..6, any::<u64>()), 0..40)
        ) {
            let mut index = LayerIndex { knows_build_ids: true, ..LayerIndex::default() };
            for (path, kind, size) in entries {
                let Ok(path) = normalized(&path) else { continue };
                let node = match kind {
                    0 => Node::File { size, build_id: BuildId::from_bytes(&path) },
                    1 => Node::Directory,
                    2 => Node::Symlink(path.clone()),
                    3 => Node::Hardlink(path.clone()),
                    4 => Node::Special,
                    _ => {
                        index.insert([b".wh.".as_slice(), &path].concat(), Node::Special).unwrap();
                        continue;
                    }
                };
                index.insert(path, node).unwrap();
            }
            let mut bytes = Vec::new();
            index.write(&mut bytes).unwrap();
            let mut back = LayerIndex::read(bytes.as_slice()).unwrap();
            back.text = index.text;
            prop_assert_eq!(back, index);
        }

        #[test]
        fn damaged_index_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = LayerIndex::read(bytes.as_slice());
            let _ = LayerIndex::read([MAGIC, &bytes].concat().as_slice());
        }
    }
}
