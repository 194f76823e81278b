//! Answers questions about a layer whose index is too large for memory, from its file.
//!
//! The records of such a layer remain in the cache. All questions of a pull form one tree of names, and one pass
//! over the file answers them. A question that was not part of that pass differs from one whose answer is
//! "nothing". Memory use grows with the questions, not with the layer.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, Seek};
use std::sync::Arc;

use cdh_elfcore::BuildId;

use crate::LayerIndex;
use crate::index::Node;
use crate::record::{Record, RecordReader, What};

/// Maximum nodes of the tree. Only hostile cores or links need more.
const MAX_PLACES: usize = 100_000;
/// Maximum files of one layer with the same build-id: a builder creates one, and copies of it.
const MAX_SAME: usize = 64;

/// The questions of a pull about layers that are not in memory.
#[derive(Clone, Debug)]
pub(crate) struct Questions {
    /// The names in each node and their child nodes; the root is the first.
    places: Vec<HashMap<Vec<u8>, usize>>,
    ids: HashSet<BuildId>,
}

impl Default for Questions {
    fn default() -> Self {
        Self {
            places: vec![HashMap::new()],
            ids: HashSet::new(),
        }
    }
}

fn parts(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.split(|byte| *byte == b'/')
        .filter(|part| !part.is_empty())
}

impl Questions {
    /// Asks for the entries at this path and at its parents.
    pub(crate) fn ask(&mut self, path: &[u8]) {
        let mut at = 0;
        for part in parts(path) {
            let next = self.places.len();
            let Some(names) = self.places.get_mut(at) else {
                return;
            };
            at = match names.get(part) {
                Some(known) => *known,
                None if next >= MAX_PLACES => return,
                None => {
                    names.insert(part.to_vec(), next);
                    self.places.push(HashMap::new());
                    next
                }
            };
        }
    }

    /// Asks for files with this build-id.
    pub(crate) fn ask_id(&mut self, id: &BuildId) {
        if !self.ids.contains(id) {
            self.ids.insert(id.clone());
        }
    }

    /// The number of questions; it grows if there are new ones.
    pub(crate) fn len(&self) -> usize {
        self.places.len().saturating_add(self.ids.len())
    }

    /// The nodes along a path, root first, as far as they were asked for.
    fn way<'q>(&'q self, path: &'q [u8]) -> impl Iterator<Item = usize> + 'q {
        let mut at = Some(0);
        let mut ahead = parts(path);
        std::iter::from_fn(move || {
            let here = at?;
            at = ahead
                .next()
                .and_then(|part| self.places.get(here)?.get(part).copied());
            Some(here)
        })
    }
}

#[derive(Clone, Debug, Default)]
struct Answer {
    node: Option<Node>,
    is_whiteout: bool,
    is_opaque: bool,
    /// Whether there is an entry below it.
    has_inside: bool,
    /// Whether there is an entry, whiteout or opaque directory below it.
    is_more_inside: bool,
}

/// The answers of one layer.
#[derive(Clone, Debug)]
pub(crate) struct OnDiskIndex {
    /// The open file remains readable if the cache deletes it.
    file: Arc<File>,
    asked: Arc<Questions>,
    /// One for each place.
    answers: Vec<Answer>,
    same: Vec<(BuildId, Vec<u8>)>,
    knows_build_ids: bool,
}

impl OnDiskIndex {
    /// For a written index; nothing is asked yet.
    pub(crate) fn of(file: File) -> Self {
        Self {
            file: Arc::new(file),
            asked: Arc::default(),
            answers: Vec::new(),
            same: Vec::new(),
            knows_build_ids: false,
        }
    }

    /// Whether all these questions were asked.
    pub(crate) fn answers(&self, questions: &Questions) -> bool {
        !self.answers.is_empty() && self.asked.len() == questions.len()
    }

    /// Answers the questions in one pass over the file.
    pub(crate) fn ask(&self, questions: &Arc<Questions>) -> io::Result<Self> {
        let mut file = self.file.as_ref();
        file.rewind()?;
        let mut records = RecordReader::new(file)?;
        let mut found = Self {
            asked: Arc::clone(questions),
            answers: vec![Answer::default(); questions.places.len()],
            same: Vec::new(),
            file: Arc::clone(&self.file),
            knows_build_ids: records.knows_build_ids,
        };
        while let Some(record) = records.next()? {
            found.take(record);
        }
        Ok(found)
    }

    fn take(&mut self, record: Record) {
        let asked = Arc::clone(&self.asked);
        let depth = parts(&record.path).count();
        let same = match &record.what {
            What::Node(Node::File {
                build_id: Some(id), ..
            }) if asked.ids.contains(id) => Some(id.clone()),
            _ => None,
        };
        // The last record of a path counts.
        if !self.same.is_empty() && matches!(record.what, What::Node(_)) {
            self.same.retain(|(_, path)| *path != record.path);
        }
        if let Some(id) = same
            && self.same.iter().filter(|(known, _)| *known == id).count() < MAX_SAME
        {
            self.same.push((id, record.path.clone()));
        }
        let mut what = Some(record.what);
        for (above, place) in asked.way(&record.path).enumerate() {
            let Some(answer) = self.answers.get_mut(place) else {
                continue;
            };
            if above < depth {
                answer.is_more_inside = true;
                answer.has_inside |= matches!(what, Some(What::Node(_)));
                continue;
            }
            match what.take() {
                Some(What::Node(node)) => answer.node = Some(node),
                Some(What::Whiteout) => answer.is_whiteout = true,
                Some(What::Opaque) => answer.is_opaque = true,
                None => {}
            }
        }
    }

    /// The answers along the path, and whether the last one is for the path itself.
    fn way<'e>(&'e self, path: &[u8]) -> (Vec<&'e Answer>, bool) {
        let way: Vec<&Answer> = self
            .asked
            .way(path)
            .filter_map(|place| self.answers.get(place))
            .collect();
        let depth = parts(path).count();
        let whole = way.len() == depth.saturating_add(1);
        (way, whole)
    }

    /// Whether the entry at a path is known. If a directory is empty, everything below it is known
    /// to be missing.
    fn covers(&self, path: &[u8]) -> bool {
        let (way, whole) = self.way(path);
        whole || way.last().is_some_and(|answer| !answer.is_more_inside)
    }

    fn at<'e>(&'e self, path: &[u8]) -> Option<&'e Answer> {
        let (way, whole) = self.way(path);
        way.last().copied().filter(|_| whole)
    }

    fn hides(&self, path: &[u8]) -> bool {
        let (mut way, whole) = self.way(path);
        let itself = if whole { way.pop() } else { None };
        let replaced = |above: &&Answer| {
            above.is_opaque
                || above.is_whiteout
                || above
                    .node
                    .as_ref()
                    .is_some_and(|node| *node != Node::Directory)
        };
        itself.is_some_and(|answer| answer.is_whiteout) || way.iter().any(replaced)
    }
}

/// The known facts about a layer.
#[derive(Debug)]
pub(crate) enum LayerFiles {
    /// All of it.
    Whole(LayerIndex),
    /// The answers; the rest is on disk.
    OnDiskIndex(OnDiskIndex),
}

impl LayerFiles {
    /// Whether the methods below know the entry at this path.
    pub(crate) fn covers(&self, path: &[u8]) -> bool {
        match self {
            Self::Whole(_) => true,
            Self::OnDiskIndex(excerpt) => excerpt.covers(path),
        }
    }

    /// The entry at exactly this path.
    pub(crate) fn node(&self, path: &[u8]) -> Option<&Node> {
        match self {
            Self::Whole(index) => index.node(path),
            Self::OnDiskIndex(excerpt) => excerpt.at(path)?.node.as_ref(),
        }
    }

    /// Whether anything is below `path`, which is then a directory, even without an entry of its own.
    pub(crate) fn has_inside(&self, path: &[u8]) -> bool {
        match self {
            Self::Whole(index) => index.has_inside(path),
            Self::OnDiskIndex(excerpt) => excerpt.at(path).is_some_and(|answer| answer.has_inside),
        }
    }

    /// Whether the layers below must not be searched for `path`, which has no entry here.
    pub(crate) fn hides(&self, path: &[u8]) -> bool {
        match self {
            Self::Whole(index) => index.hides(path),
            Self::OnDiskIndex(excerpt) => excerpt.hides(path),
        }
    }

    /// Files with this build-id.
    pub(crate) fn with_build_id<'i>(&'i self, id: &'i BuildId) -> Vec<&'i [u8]> {
        match self {
            Self::Whole(index) => index.with_build_id(id).collect(),
            Self::OnDiskIndex(excerpt) => {
                let same = excerpt.same.iter().filter(|(known, _)| known == id);
                same.map(|(_, path)| path.as_slice()).collect()
            }
        }
    }

    /// Whether the index records build-ids.
    pub(crate) fn knows_build_ids(&self) -> bool {
        match self {
            Self::Whole(index) => index.knows_build_ids,
            Self::OnDiskIndex(excerpt) => excerpt.knows_build_ids,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::overlay::{Resolution, resolve};
    use proptest::prelude::*;

    /// Names with few letters, so that layers overlap often.
    fn path() -> impl Strategy<Value = Vec<u8>> {
        proptest::collection::vec("[abc]", 1..5).prop_map(|parts| parts.join("/").into_bytes())
    }

    fn node() -> impl Strategy<Value = Node> {
        prop_oneof![
            (0..4_u8).prop_map(|id| Node::File {
                size: 1,
                build_id: BuildId::from_bytes(&[id; 20]),
            }),
            Just(Node::Directory),
            Just(Node::Special),
            "(/|\\.\\./)?[abc](/[abc]){0,2}".prop_map(|target| Node::Symlink(target.into_bytes())),
            path().prop_map(Node::Hardlink),
        ]
    }

    fn records() -> impl Strategy<Value = Vec<Record>> {
        let what = prop_oneof![
            4 => node().prop_map(What::Node),
            1 => Just(What::Whiteout),
            1 => Just(What::Opaque),
        ];
        let record = (path(), what).prop_map(|(path, what)| Record { path, what });
        proptest::collection::vec(record, 0..12)
    }

    fn on_disk(records: &[Record]) -> OnDiskIndex {
        let file = tempfile::tempfile().unwrap();
        let mut writer = crate::record::RecordWriter::new(&file, 1, true).unwrap();
        for record in records {
            writer.record(record).unwrap();
        }
        writer.finish().unwrap();
        OnDiskIndex::of(file)
    }

    proptest! {
        #[test]
        fn layers_on_disk_answer_as_those_in_memory(
            layers in proptest::collection::vec((records(), any::<bool>()), 1..4),
            path in path(),
        ) {
            let whole = |records: &[Record]| {
                let mut index = LayerIndex::default();
                records.iter().cloned().for_each(|record| index.put(record));
                LayerFiles::Whole(index)
            };
            let expected: Vec<LayerFiles> = layers.iter().map(|(records, _)| whole(records)).collect();
            let mut found: Vec<LayerFiles> = layers
                .iter()
                .map(|(records, stays)| match stays {
                    true => whole(records),
                    false => LayerFiles::OnDiskIndex(on_disk(records)),
                })
                .collect();
            let id = BuildId::from_bytes(&[1; 20]).unwrap();
            let mut questions = Arc::new(Questions::default());
            Arc::make_mut(&mut questions).ask_id(&id);
            let answer = loop {
                for layer in &mut found {
                    if let LayerFiles::OnDiskIndex(excerpt) = layer {
                        *excerpt = excerpt.ask(&questions).unwrap();
                    }
                }
                let layers: Vec<_> = found.iter().map(Some).collect();
                match resolve(&layers, &path) {
                    Resolution::Unasked(more) => {
                        let before = questions.len();
                        Arc::make_mut(&mut questions).ask(&more);
                        prop_assert!(questions.len() > before);
                    }
                    answer => break answer,
                }
            };
            let layers: Vec<_> = expected.iter().map(Some).collect();
            prop_assert_eq!(answer, resolve(&layers, &path));
            for (found, expected) in found.iter().zip(&expected) {
                let mut same = found.with_build_id(&id);
                same.sort_unstable();
                prop_assert_eq!(same, expected.with_build_id(&id));
            }
        }
    }
}
