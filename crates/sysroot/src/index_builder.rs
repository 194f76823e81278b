//! Builds the index of a layer: in memory as long as there is room, then in the cache.
//!
//! All layers of a pull share one memory limit, which suffices for the files of usual images. A larger
//! index is written to its file in the cache, and queried there (`excerpt`).

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::cache::Draft;
use crate::index::Count;
use crate::on_disk_index::{LayerFiles, OnDiskIndex};
use crate::record::{Record, RecordReader, RecordWriter};
use crate::{Cache, Digest, LayerIndex, PullError};

/// Memory limit for the indexes of one pull: some 60,000 files.
const ROOM: usize = 16 << 20;
/// Memory per entry besides its names: a node of a tree that is two thirds full, two allocations.
const ENTRY: usize = 176;
/// zstd level; low, because a registry waits meanwhile.
const LEVEL: i32 = 1;

/// Memory that the indexes of a pull share.
pub(crate) struct IndexBudget(AtomicUsize);

impl Default for IndexBudget {
    fn default() -> Self {
        Self(AtomicUsize::new(ROOM))
    }
}

impl IndexBudget {
    /// With a limit of `bytes`.
    #[cfg(test)]
    pub(crate) fn of(bytes: usize) -> Self {
        Self(AtomicUsize::new(bytes))
    }

    fn take(&self, bytes: usize) -> bool {
        let less = |left: usize| left.checked_sub(bytes);
        let taken = self
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        taken.is_ok()
    }

    fn give_back(&self, bytes: usize) {
        self.0.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// Takes records up.
pub(crate) struct IndexBuilder<'r> {
    room: &'r IndexBudget,
    taken: usize,
    count: Count,
    index: LayerIndex,
    /// Records that did not fit into memory.
    written: Option<(Draft, RecordWriter<io::BufWriter<File>>)>,
    /// Where it is written.
    cache: &'r Cache,
    layer: Digest,
}

impl<'r> IndexBuilder<'r> {
    pub(crate) fn new(
        room: &'r IndexBudget,
        cache: &'r Cache,
        layer: Digest,
        knows_build_ids: bool,
    ) -> Self {
        let mut index = LayerIndex::default();
        index.knows_build_ids = knows_build_ids;
        Self {
            room,
            taken: 0,
            count: Count::default(),
            index,
            written: None,
            cache,
            layer,
        }
    }

    /// Takes one up.
    pub(crate) fn add(&mut self, record: Option<Record>) -> Result<(), PullError> {
        let refused = |problem: String| PullError::Layer {
            layer: self.layer,
            problem,
        };
        let Some(record) = self.count.add(record).map_err(refused)? else {
            return Ok(());
        };
        self.put(record)
            .map_err(|source| PullError::Cache { source })
    }

    fn put(&mut self, record: Record) -> io::Result<()> {
        if self.written.is_none() {
            let bytes = record.text().saturating_add(ENTRY);
            if self.room.take(bytes) {
                self.taken = self.taken.saturating_add(bytes);
                self.index.put(record);
                return Ok(());
            }
            let draft = Cache::draft(&self.cache.layer(self.layer))?;
            let file = io::BufWriter::new(draft.file.try_clone()?);
            let mut writer = RecordWriter::new(file, LEVEL, self.index.knows_build_ids)?;
            self.index.write_to(&mut writer)?;
            self.index.clear();
            self.room.give_back(std::mem::take(&mut self.taken));
            self.written = Some((draft, writer));
        }
        match &mut self.written {
            Some((_, writer)) => writer.record(&record),
            None => Ok(()),
        }
    }

    /// The layer was read completely: caches the index.
    pub(crate) fn finish(mut self) -> io::Result<LayerFiles> {
        match self.written.take() {
            None => {
                self.taken = 0;
                let index = std::mem::take(&mut self.index);
                self.cache.keep_index(self.layer, &index);
                Ok(LayerFiles::Whole(index))
            }
            Some((draft, writer)) => {
                writer.finish()?;
                let file = draft.file.try_clone()?;
                // Write errors of the cache are ignored; the file remains open.
                let _ = Cache::seal(&draft, &self.cache.index_place(self.layer));
                Ok(LayerFiles::OnDiskIndex(OnDiskIndex::of(file)))
            }
        }
    }
}

impl Drop for IndexBuilder<'_> {
    fn drop(&mut self) {
        self.room.give_back(self.taken);
    }
}

/// The index at `path`, in memory as far as there is room.
pub(crate) fn load(path: &Path, room: &IndexBudget) -> io::Result<LayerFiles> {
    let file = File::open(path)?;
    let mut taken = 0;
    let read = read(&file, room, &mut taken);
    if !matches!(read, Ok(Some(_))) {
        room.give_back(taken);
    }
    Ok(match read? {
        Some(index) => LayerFiles::Whole(index),
        None => LayerFiles::OnDiskIndex(OnDiskIndex::of(file)),
    })
}

/// `None` if it does not fit into memory.
fn read(file: &File, room: &IndexBudget, taken: &mut usize) -> io::Result<Option<LayerIndex>> {
    let mut records = RecordReader::new(file)?;
    let mut index = LayerIndex::default();
    index.knows_build_ids = records.knows_build_ids;
    while let Some(record) = records.next()? {
        let bytes = record.text().saturating_add(ENTRY);
        if !room.take(bytes) {
            return Ok(None);
        }
        *taken = taken.saturating_add(bytes);
        index.put(record);
    }
    Ok(Some(index))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::Node;
    use crate::on_disk_index::Questions;
    use std::sync::Arc;

    fn gathered(cache: &Cache, room: &IndexBudget, layer: Digest) -> LayerFiles {
        let mut gathering = IndexBuilder::new(room, cache, layer, true);
        for number in 0..100 {
            let path = format!("usr/lib/{number}").into_bytes();
            gathering.add(Record::of(path, Node::Directory)).unwrap();
        }
        gathering.finish().unwrap()
    }

    fn node(files: LayerFiles, path: &[u8]) -> Option<Node> {
        let LayerFiles::OnDiskIndex(excerpt) = files else {
            return files.node(path).cloned();
        };
        let mut questions = Questions::default();
        questions.ask(path);
        let excerpt = excerpt.ask(&Arc::new(questions)).unwrap();
        LayerFiles::OnDiskIndex(excerpt).node(path).cloned()
    }

    #[test]
    fn index_without_room_goes_to_disk_and_says_the_same_there() {
        let directory = tempfile::tempdir().unwrap();
        let cache = Cache::in_directory(directory.path());
        let room = IndexBudget::of(10_000);
        let layer = Digest::of(b"layer");
        let files = gathered(&cache, &room, layer);
        assert!(matches!(files, LayerFiles::OnDiskIndex(_)));
        assert_eq!(node(files, b"usr/lib/99"), Some(Node::Directory));
        // All reserved memory was released.
        assert!(room.take(10_000) && !room.take(1));
        for (bytes, is_whole) in [(10_000, false), (1 << 20, true)] {
            let files = cache.index(layer, &IndexBudget::of(bytes)).unwrap();
            assert_eq!(matches!(files, LayerFiles::Whole(_)), is_whole);
            assert_eq!(node(files, b"usr/lib/0"), Some(Node::Directory));
        }
    }

    #[test]
    fn on_disk_index_includes_added_records() {
        let directory = tempfile::tempdir().unwrap();
        let cache = Cache::in_directory(directory.path());
        let layer = Digest::of(b"layer");
        gathered(&cache, &IndexBudget::of(0), layer);
        cache.amend_index(layer, b"usr/lib/7", &Node::Special);
        for bytes in [0, 1 << 20] {
            let files = cache.index(layer, &IndexBudget::of(bytes)).unwrap();
            assert_eq!(node(files, b"usr/lib/7"), Some(Node::Special));
        }
    }
}
