//! The contents of a layer by path, so that files can be looked up without reading the layer again.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read, Write};
use std::ops::Bound;

use cdh_elfcore::BuildId;

use crate::layer::tar_of;
use crate::record::{Record, RecordReader, RecordWriter, What};
use crate::tar::{Entry, Kind, TarReader};
use crate::window::Windows;

/// Maximum entries: large images have two hundred thousand files; a larger count is an attack on
/// time and disk.
const MAX_ENTRIES: usize = 1_000_000;
/// Maximum bytes of all names together.
const MAX_TEXT: usize = 96 << 20;
/// `PATH_MAX`.
const MAX_PATH: usize = 4096;
/// zstd level; an index is small.
const LEVEL: i32 = 3;

/// One entry of a layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Node {
    /// A regular file.
    File {
        /// Its length.
        size: u64,
        /// Its build-id, if it is an ELF file with one.
        build_id: Option<BuildId>,
    },
    /// A directory.
    Directory,
    /// A symbolic link and its target: untrusted bytes.
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
    /// Whether the index records build-ids.
    pub(crate) knows_build_ids: bool,
}

/// A path without empty parts and `.`; `Err` says why it is invalid.
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

/// Converts a tar entry to an entry of the layer; an error if no builder would create it.
pub(crate) fn record_of(
    entry: &Entry,
    build_id: Option<BuildId>,
) -> Result<Option<Record>, String> {
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
    Ok(Record::of(path, node))
}

/// How much of a layer was read, to stop where no real image continues.
#[derive(Default)]
pub(crate) struct Count {
    entries: usize,
    text: usize,
}

impl Count {
    /// Counts an entry; an error if there are too many.
    pub(crate) fn add(&mut self, record: Option<Record>) -> Result<Option<Record>, String> {
        self.entries = self.entries.saturating_add(1);
        self.text = self
            .text
            .saturating_add(record.as_ref().map_or(0, Record::text));
        match self.entries > MAX_ENTRIES || self.text > MAX_TEXT {
            true => Err("it holds more files than any image should".to_owned()),
            false => Ok(record),
        }
    }
}

impl LayerIndex {
    /// The index of a complete local layer, without build-ids: equal to the one that a pull makes of a
    /// stream.
    ///
    /// # Errors
    /// If it is not a layer, or one that no builder would create.
    pub fn from_blob(blob: &[u8]) -> io::Result<Self> {
        let windows = Windows::default();
        let mut tar = TarReader::new(tar_of(blob, blob.len() as u64, &windows)?);
        let (mut index, mut count) = (Self::default(), Count::default());
        while let Some(entry) = tar.next()? {
            let record = record_of(&entry, None).and_then(|record| count.add(record));
            record
                .map_err(io::Error::other)?
                .into_iter()
                .for_each(|record| index.put(record));
        }
        Ok(index)
    }

    /// Adds a record, replacing one with the same path.
    pub(crate) fn put(&mut self, record: Record) {
        match record.what {
            What::Node(node) => {
                self.nodes.insert(record.path, node);
            }
            What::Whiteout => {
                self.whiteouts.insert(record.path);
            }
            What::Opaque => {
                self.opaque.insert(record.path);
            }
        }
    }

    /// Forgets all entries.
    pub(crate) fn clear(&mut self) {
        self.nodes.clear();
        self.whiteouts.clear();
        self.opaque.clear();
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

    /// Whether anything is below `path`, which is then a directory, even without an entry of its own.
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

    /// Whether the layers below must not be searched for `path`, which has no entry here.
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

    /// Writes the index in the format of the cache.
    ///
    /// # Errors
    /// If `out` cannot be written.
    pub fn write(&self, out: impl Write) -> io::Result<()> {
        let mut writer = RecordWriter::new(out, LEVEL, self.knows_build_ids)?;
        self.write_to(&mut writer)?;
        writer.finish().map(|_| ())
    }

    /// Appends all records.
    pub(crate) fn write_to(&self, out: &mut RecordWriter<impl Write>) -> io::Result<()> {
        for (path, node) in &self.nodes {
            out.node(path, node)?;
        }
        for path in &self.whiteouts {
            out.whiteout(path)?;
        }
        for path in &self.opaque {
            out.opaque(path)?;
        }
        Ok(())
    }

    /// Reads what [`write`](Self::write) wrote.
    ///
    /// # Errors
    /// When it is damaged.
    pub fn read(reader: impl Read) -> io::Result<Self> {
        let mut records = RecordReader::new(reader)?;
        let mut index = Self {
            knows_build_ids: records.knows_build_ids,
            ..Self::default()
        };
        let mut count = Count::default();
        while let Some(record) = records.next()? {
            let record = count.add(Some(record)).map_err(io::Error::other)?;
            record.into_iter().for_each(|record| index.put(record));
        }
        Ok(index)
    }
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
                        let whiteout = [b".wh.".as_slice(), &path].concat();
                        Record::of(whiteout, Node::Special).into_iter().for_each(|record| index.put(record));
                        continue;
                    }
                };
                Record::of(path, node).into_iter().for_each(|record| index.put(record));
            }
            let mut bytes = Vec::new();
            index.write(&mut bytes).unwrap();
            prop_assert_eq!(LayerIndex::read(bytes.as_slice()).unwrap(), index);
        }

        #[test]
        fn damaged_index_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = LayerIndex::read(bytes.as_slice());
            let _ = LayerIndex::read([b"cdh layer index 1\n".as_slice(), &bytes].concat().as_slice());
        }
    }
}
