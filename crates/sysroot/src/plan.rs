//! Tracks open questions and known answers of a pull, and chooses the next layer to read. Pure: it
//! performs no I/O.
//!
//! A question is answered by the first of these:
//!
//! 1. A file with the wanted build-id was stored, from any layer. The build-id proves it, so no layer
//!    above has to be read.
//! 2. The virtual root resolves one of its paths: every layer that could contradict was read to its end
//!    and has the right digest.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;

use cdh_elfcore::BuildId;

use crate::index::{Node, normalized};
use crate::kept::Facts;
use crate::on_disk_index::{LayerFiles, Questions};
use crate::overlay::{Resolution, resolve};
use crate::toc::Toc;
use crate::wanted::{FoundFile, Lookup, Need, Proof, Wanted, build_id_path, debug_paths};
use crate::{Cache, Digest, FileRole};

/// Maximum size of a layer that is read again for an optional file.
const CHEAP: u64 = 32 << 20;
/// Maximum additional questions from stored files.
const MAX_WANTED: usize = 20_000;

/// The known facts about a layer.
#[derive(Clone)]
pub(crate) enum State {
    Unread,
    /// A reader has it.
    Reading,
    Known(Arc<LayerFiles>),
    Failed,
}

struct Layer {
    digest: Digest,
    size: u64,
    state: State,
    toc: Option<Arc<Toc>>,
    busy: bool,
    /// Paths whose bytes are wanted from it.
    again: HashSet<Vec<u8>>,
    /// Paths that were requested already, to request nothing twice.
    asked: HashSet<Vec<u8>>,
    /// Build-ids of files, which a table of contents does not contain.
    learned: HashMap<Vec<u8>, Option<BuildId>>,
}

/// Work for one thread.
pub(crate) enum Job {
    /// Read a layer from its beginning.
    Read(usize),
    /// Fetch the bytes of these paths.
    Again(usize, HashSet<Vec<u8>>, Option<Arc<Toc>>),
}

/// The state of one pull.
pub(crate) struct Plan<'c> {
    cache: &'c Cache,
    wanted: Vec<Wanted>,
    answers: Vec<Option<Lookup>>,
    layers: Vec<Layer>,
    ids: HashSet<BuildId>,
    paths: HashMap<Vec<u8>, bool>,
    /// Questions to layers that do not fit into memory.
    questions: Arc<Questions>,
}

impl<'c> Plan<'c> {
    pub(crate) fn new(cache: &'c Cache, layers: &[(Digest, u64)], wanted: Vec<Wanted>) -> Self {
        let layers = layers.iter().map(|(digest, size)| Layer {
            digest: *digest,
            size: *size,
            state: State::Unread,
            toc: None,
            busy: false,
            again: HashSet::new(),
            asked: HashSet::new(),
            learned: HashMap::new(),
        });
        let mut plan = Self {
            cache,
            answers: vec![None; wanted.len()],
            layers: layers.collect(),
            wanted,
            ids: HashSet::new(),
            paths: HashMap::new(),
            questions: Arc::default(),
        };
        for number in 0..plan.wanted.len() {
            plan.take_up(number);
        }
        plan
    }

    fn take_up(&mut self, number: usize) {
        let Some(wanted) = self.wanted.get(number) else {
            return;
        };
        self.ids.extend(wanted.build_id.clone());
        for path in &wanted.paths {
            if let Ok(path) = normalized(path) {
                let content = self.paths.entry(path).or_insert(false);
                *content |= wanted.build_id.is_none();
            }
        }
        if let Some(id) = &wanted.build_id {
            let kept = self.layers.iter().find_map(|layer| {
                Cache::used(Cache::part(
                    &self.cache.layer(layer.digest),
                    wanted.part,
                    id,
                ))
            });
            if let Some(file) = kept {
                let id = id.clone();
                self.kept(wanted.part, &id, file);
            }
        }
    }

    /// Whether a file with this build-id is still wanted.
    pub(crate) fn wants_id(&self, id: &BuildId) -> bool {
        self.ids.contains(id)
            && self
                .open()
                .any(|(_, wanted)| wanted.build_id.as_ref() == Some(id))
    }

    /// Whether the bytes at this path are wanted regardless of their build-id.
    pub(crate) fn wants_content(&self, path: &[u8]) -> bool {
        self.paths.get(path).copied().unwrap_or(false)
    }

    fn open(&self) -> impl Iterator<Item = (usize, &Wanted)> {
        let pairs = self.wanted.iter().zip(&self.answers).enumerate();
        pairs
            .filter(|(_, (_, answer))| answer.is_none())
            .map(|(number, (wanted, _))| (number, wanted))
    }

    /// Whether all required questions are answered.
    pub(crate) fn is_done(&self) -> bool {
        !self.open().any(|(_, wanted)| wanted.need == Need::Required)
    }

    /// A file was stored, which answers the waiting question.
    pub(crate) fn kept(&mut self, part: FileRole, id: &BuildId, file: PathBuf) {
        for (wanted, answer) in self.wanted.iter().zip(&mut self.answers) {
            if answer.is_none() && wanted.part == part && wanted.build_id.as_ref() == Some(id) {
                *answer = Some(Lookup::Found(FoundFile {
                    file: file.clone(),
                    build_id: Some(id.clone()),
                    proof: Proof::BuildId,
                }));
            }
        }
    }

    /// Files came from an invalid layer: reopens their questions.
    pub(crate) fn retract(&mut self, files: &[PathBuf]) {
        for answer in &mut self.answers {
            if matches!(answer, Some(Lookup::Found(found)) if files.contains(&found.file)) {
                *answer = None;
            }
        }
    }

    /// Adds the questions of a stored file: its separate debug file, and the file that this shares
    /// with others.
    pub(crate) fn follow(&mut self, id: &BuildId, facts: &Facts) {
        let asks =
            |wanted: &&Wanted| wanted.build_id.as_ref() == Some(id) && wanted.debug.is_some();
        let Some(parent) = self.wanted.iter().find(asks).cloned() else {
            return;
        };
        let mut more = Vec::new();
        if facts.part == Some(FileRole::File) && !facts.has_debug_info {
            let mut paths = debug_paths(&parent, facts.debug_link.as_deref());
            paths.extend(build_id_path(id));
            // Without a debug link, and with symbols, nothing suggests that such a file exists.
            let told = facts.debug_link.is_some() || !facts.has_symbols;
            more.push(Wanted {
                paths,
                build_id: Some(id.clone()),
                part: FileRole::Debug,
                need: if told {
                    parent.debug.unwrap_or(Need::Passing)
                } else {
                    Need::Passing
                },
                debug: parent.debug,
            });
        }
        if let Some(alternate) = &facts.alternate {
            more.push(Wanted {
                paths: build_id_path(alternate).into_iter().collect(),
                build_id: Some(alternate.clone()),
                part: FileRole::Debug,
                need: parent.debug.unwrap_or(Need::Passing),
                debug: None,
            });
        }
        for wanted in more {
            let same = |known: &&mut Wanted| {
                known.part == wanted.part && known.build_id == wanted.build_id
            };
            if let Some(known) = self.wanted.iter_mut().find(same) {
                if wanted.need == Need::Required {
                    known.need = Need::Required;
                }
                for path in &wanted.paths {
                    if !known.paths.contains(path) {
                        known.paths.push(path.clone());
                    }
                }
                for path in wanted.paths.iter().filter_map(|path| normalized(path).ok()) {
                    self.paths.entry(path).or_insert(false);
                }
            } else if self.wanted.len() < MAX_WANTED {
                self.wanted.push(wanted);
                self.answers.push(None);
                self.take_up(self.wanted.len().saturating_sub(1));
            }
        }
    }

    /// A layer was read completely.
    pub(crate) fn know(&mut self, layer: usize, index: LayerFiles, toc: Option<Toc>) {
        if let Some(layer) = self.layers.get_mut(layer) {
            layer.state = State::Known(Arc::new(index));
            layer.toc = toc.map(Arc::new);
        }
    }

    pub(crate) fn index_of(&self, layer: usize) -> Option<Arc<LayerFiles>> {
        match &self.layers.get(layer)?.state {
            State::Known(index) => Some(Arc::clone(index)),
            _ => None,
        }
    }

    /// The build-id of a file that a table of contents lists.
    pub(crate) fn learn(&mut self, layer: usize, path: Vec<u8>, id: Option<BuildId>) {
        let Some(layer) = self.layers.get_mut(layer) else {
            return;
        };
        // A wrong file at the right path is recognized without fetching it again.
        match &mut layer.state {
            State::Known(index) => match Arc::get_mut(index) {
                Some(LayerFiles::Whole(index)) => {
                    if let Some(Node::File { build_id, .. }) = index.node_mut(&path) {
                        *build_id = id.clone();
                        self.cache.keep_index(layer.digest, index);
                    }
                }
                Some(LayerFiles::OnDiskIndex(_)) | None => {
                    if let Some(Node::File { size, .. }) = index.node(&path) {
                        let (size, build_id) = (*size, id.clone());
                        let node = Node::File { size, build_id };
                        self.cache.amend_index(layer.digest, &path, &node);
                    }
                }
            },
            State::Unread | State::Reading | State::Failed => {}
        }
        layer.learned.insert(path, id);
    }

    /// A job ended.
    pub(crate) fn finish(&mut self, layer: usize, failed: bool) {
        if let Some(layer) = self.layers.get_mut(layer) {
            layer.busy = false;
            if matches!(layer.state, State::Reading) {
                layer.state = if failed { State::Failed } else { State::Unread };
            } else if failed {
                layer.again.clear();
            }
        }
    }

    /// Resolves all open questions in the virtual root.
    pub(crate) fn settle(&mut self) {
        loop {
            self.ask_disk();
            let asked = self.questions.len();
            self.settle_once();
            // Links lead to new questions.
            if self.questions.len() == asked {
                return;
            }
        }
    }

    /// Passes all questions to the layers that do not fit into memory.
    fn ask_disk(&mut self) {
        let on_disk = |layer: &Layer| match &layer.state {
            State::Known(index) => matches!(**index, LayerFiles::OnDiskIndex(_)),
            State::Unread | State::Reading | State::Failed => false,
        };
        if !self.layers.iter().any(on_disk) {
            return;
        }
        let mut questions = Arc::clone(&self.questions);
        for (_, wanted) in self.open() {
            let questions = Arc::make_mut(&mut questions);
            let paths = wanted.paths.iter().filter_map(|path| normalized(path).ok());
            paths.for_each(|path| questions.ask(&path));
            wanted.build_id.iter().for_each(|id| questions.ask_id(id));
        }
        self.questions = questions;
        for layer in &mut self.layers {
            let State::Known(index) = &layer.state else {
                continue;
            };
            let LayerFiles::OnDiskIndex(excerpt) = &**index else {
                continue;
            };
            if !excerpt.answers(&self.questions) {
                layer.state = match excerpt.ask(&self.questions) {
                    Ok(excerpt) => State::Known(Arc::new(LayerFiles::OnDiskIndex(excerpt))),
                    // A damaged index or disk.
                    Err(_) => State::Failed,
                };
            }
        }
    }

    fn settle_once(&mut self) {
        let known: Vec<Option<Arc<LayerFiles>>> = (0..self.layers.len())
            .map(|number| self.index_of(number))
            .collect();
        let indexes: Vec<Option<&LayerFiles>> = known.iter().map(Option::as_deref).collect();
        let open: Vec<usize> = self.open().map(|(number, _)| number).collect();
        for number in open {
            let Some(wanted) = self.wanted.get(number).cloned() else {
                continue;
            };
            let answer = self.ask(&wanted, &indexes);
            if let Some(slot) = self.answers.get_mut(number) {
                *slot = answer;
            }
        }
    }

    fn ask(&mut self, wanted: &Wanted, indexes: &[Option<&LayerFiles>]) -> Option<Lookup> {
        let mut pending = false;
        let mut other = None;
        let mut why = None;
        for path in &wanted.paths {
            match resolve(indexes, path) {
                Resolution::Unread => pending = true,
                Resolution::Unasked(path) => {
                    pending = true;
                    Arc::make_mut(&mut self.questions).ask(&path);
                }
                Resolution::Absent(reason) => {
                    why.get_or_insert(reason);
                }
                Resolution::File { layer, path } => {
                    match self.file(wanted, layer, path, indexes.get(layer).copied().flatten()) {
                        Ok(Some(Lookup::Mismatch { expected, found })) => {
                            other.get_or_insert((expected, found));
                        }
                        Ok(Some(found)) => return Some(found),
                        Ok(None) => pending = true,
                        Err(reason) => why = Some(reason),
                    }
                }
            }
        }
        // Under any name: a file that a later layer moved is still the same.
        if let Some(id) = &wanted.build_id {
            for (number, index) in indexes.iter().enumerate() {
                let Some(index) = index else {
                    pending = true;
                    continue;
                };
                let likely = |path: &[u8]| {
                    wanted.part == FileRole::File || path.windows(5).any(|part| part == b"debug")
                };
                let places: Vec<Vec<u8>> = index
                    .with_build_id(id)
                    .into_iter()
                    .filter(|path| likely(path))
                    .map(<[u8]>::to_vec)
                    .collect();
                for path in places {
                    pending |= self.ask_again(number, path, wanted);
                }
            }
        }
        if pending {
            return None;
        }
        Some(match other {
            Some((expected, found)) => Lookup::Mismatch { expected, found },
            None => Lookup::Absent(why.unwrap_or("its path is unknown").to_owned()),
        })
    }

    /// What is known about the file at a path; `Ok(None)` means wait.
    fn file(
        &mut self,
        wanted: &Wanted,
        layer: usize,
        path: Vec<u8>,
        index: Option<&LayerFiles>,
    ) -> Result<Option<Lookup>, &'static str> {
        let Some(known) = self.layers.get(layer) else {
            return Err("the image has no such file");
        };
        let Some(expected) = &wanted.build_id else {
            let kept = Cache::path_name(&self.cache.layer(known.digest), &path);
            if let Some(file) = Cache::used(kept) {
                let build_id =
                    crate::kept::head_of(&file).and_then(|head| crate::build_id_of(&head));
                return Ok(Some(Lookup::Found(FoundFile {
                    file,
                    build_id,
                    proof: Proof::Digest,
                })));
            }
            return match self.ask_again(layer, path, wanted) {
                true => Ok(None),
                false => Err("it could not be read from the image"),
            };
        };
        let found = match (
            known.learned.get(&path),
            index.and_then(|index| index.node(&path)),
        ) {
            (Some(found), _) => Some(found.clone()),
            (
                None,
                Some(Node::File {
                    build_id: Some(id), ..
                }),
            ) => Some(Some(id.clone())),
            (None, Some(Node::File { .. })) if index.is_some_and(LayerFiles::knows_build_ids) => {
                Some(None)
            }
            _ => None,
        };
        match found {
            // Its bytes were requested, and belong to the other kind (code or debug).
            Some(Some(found)) if found == *expected => match self.ask_again(layer, path, wanted) {
                true => Ok(None),
                false => Err("the image has its code but not its debug information"),
            },
            Some(found) if wanted.part == FileRole::File => Ok(Some(Lookup::Mismatch {
                expected: expected.clone(),
                found,
            })),
            Some(_) => Err("the image has the debug information of another build"),
            None => match self.ask_again(layer, path, wanted) {
                true => Ok(None),
                false => Err("it could not be read from the image"),
            },
        }
    }

    /// Requests the bytes at a path, once; returns whether they may still arrive.
    fn ask_again(&mut self, layer: usize, path: Vec<u8>, wanted: &Wanted) -> bool {
        let Some(layer) = self.layers.get_mut(layer) else {
            return false;
        };
        // Also if another question asks for the same file by its build-id.
        let content = self.paths.entry(path.clone()).or_insert(false);
        *content |= wanted.build_id.is_none();
        if layer.again.contains(&path) || (layer.busy && layer.asked.contains(&path)) {
            return true;
        }
        let worth = wanted.need == Need::Required
            || wanted.build_id.is_some()
            || layer.toc.is_some()
            || layer.size <= CHEAP;
        if !worth || matches!(layer.state, State::Failed) || !layer.asked.insert(path.clone()) {
            return false;
        }
        layer.again.insert(path);
        true
    }

    /// The next task, if there is one for another thread.
    pub(crate) fn next_job(&mut self) -> Option<Job> {
        let again = self
            .layers
            .iter()
            .position(|layer| !layer.busy && !layer.again.is_empty());
        if let Some(number) = again {
            let layer = self.layers.get_mut(number)?;
            layer.busy = true;
            return Some(Job::Again(
                number,
                std::mem::take(&mut layer.again),
                layer.toc.clone(),
            ));
        }
        if self.is_done() {
            return None;
        }
        // From the top down, but the second is the lowest layer: the base image with libc and the loader,
        // which their build-ids prove without the layers between.
        let unread = |layer: &Layer| matches!(layer.state, State::Unread);
        let reading = self
            .layers
            .iter()
            .filter(|layer| matches!(layer.state, State::Reading))
            .count();
        let lowest_open = self.layers.last().is_some_and(unread);
        let number = match reading == 1 && lowest_open {
            true => self.layers.len().checked_sub(1),
            false => self.layers.iter().position(unread),
        }?;
        let layer = self.layers.get_mut(number)?;
        layer.state = State::Reading;
        layer.busy = true;
        Some(Job::Read(number))
    }

    /// Whether any worker is busy.
    pub(crate) fn is_busy(&self) -> bool {
        self.layers.iter().any(|layer| layer.busy)
    }

    /// Answers the first `count` questions; open ones are absent for `reason`.
    pub(crate) fn answers(&self, count: usize, reason: &str) -> Vec<Lookup> {
        let answers = self.answers.iter().take(count);
        answers
            .map(|answer| {
                answer
                    .clone()
                    .unwrap_or_else(|| Lookup::Absent(reason.to_owned()))
            })
            .collect()
    }
}
