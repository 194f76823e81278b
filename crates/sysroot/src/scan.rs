//! Reads one layer: as a stream from its start, or by ranges if it has a table of contents.

use std::collections::HashSet;
use std::fmt;
use std::fs;
use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use cdh_elfcore::BuildId;

use crate::cache::Draft;
use crate::index::{normalized, record_of};
use crate::index_builder::{IndexBudget, IndexBuilder};
use crate::kept::{self, Facts, HEAD};
use crate::layer::tar_of;
use crate::manifest::{Image, LayerBlob};
use crate::plan::Plan;
use crate::registry::BlobReader;
use crate::tar::{Entry, Kind, TarReader};
use crate::toc::{self, LayerSource, Located, Toc};
use crate::window::Windows;
use crate::{Cache, Progress, PullError, Registry};

/// Maximum further bytes to read of a layer that provided a file, to verify its digest.
const TAIL: u64 = 8 << 20;
/// Maximum further bytes to read of an invalid layer, to distinguish transfer damage from a layer that was
/// built that way.
const REST: u64 = 1 << 30;
/// Maximum bytes that one pull writes.
const BUDGET: u64 = 16 << 30;
/// Smaller files are not ELF files.
const SMALLEST: u64 = 64;

/// State shared by the threads of one pull.
pub(crate) struct Shared<'a> {
    pub(crate) plan: Mutex<Plan<'a>>,
    pub(crate) changed: Condvar,
    pub(crate) done: AtomicBool,
    pub(crate) written: AtomicU64,
    pub(crate) cache: &'a Cache,
    pub(crate) room: &'a IndexBudget,
    pub(crate) windows: Windows,
    pub(crate) registry: &'a Registry,
    pub(crate) image: &'a Image,
    pub(crate) progress: &'a dyn Progress,
}

/// A reader must stop, because nothing more is needed.
#[derive(Debug)]
pub(crate) struct Stopped;

impl fmt::Display for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("nothing more is needed")
    }
}

impl std::error::Error for Stopped {}

/// Names that were stored, to be removed if the layer turns out to be invalid.
#[derive(Default)]
struct PlacedFiles {
    proven: Vec<PathBuf>,
    /// Trusted only when the whole layer was verified.
    held: Vec<(PathBuf, Draft)>,
}

impl<'a> Shared<'a> {
    pub(crate) fn plan(&self) -> MutexGuard<'_, Plan<'a>> {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reports it to the other threads.
    fn publish(&self, plan: MutexGuard<'_, Plan<'a>>) {
        self.done.store(plan.is_done(), Ordering::Relaxed);
        drop(plan);
        self.changed.notify_all();
    }

    /// Reads a layer that is not in the cache.
    pub(crate) fn read(&self, number: usize) -> Result<(), PullError> {
        let Some(layer) = self.image.layers.get(number) else {
            return Ok(());
        };
        let mut index = IndexBuilder::new(self.room, self.cache, layer.digest, false);
        if let Some(toc) = toc::load(&self.place(layer), self.cache, &mut index)? {
            return self.know(number, index, Some(toc));
        }
        drop(index);
        self.stream(number, layer, None)
    }

    /// Fetches the bytes of files that a layer is known to hold.
    pub(crate) fn read_again(
        &self,
        number: usize,
        paths: HashSet<Vec<u8>>,
        toc: Option<&Toc>,
    ) -> Result<(), PullError> {
        let Some(layer) = self.image.layers.get(number) else {
            return Ok(());
        };
        let place = self.place(layer);
        let loaded;
        let toc = match toc {
            Some(toc) => Some(toc),
            None => {
                loaded = toc::open(&place, self.cache)?;
                loaded.as_ref()
            }
        };
        let files = match toc {
            Some(toc) => toc.locate(&place, self.cache, &paths)?,
            None => None,
        };
        let Some(files) = files else {
            return self.stream(number, layer, Some(paths));
        };
        let mut left = HashSet::new();
        for path in paths {
            if !self.read_range(number, layer, &files, &path)? {
                left.insert(path);
            }
        }
        match left.is_empty() {
            true => Ok(()),
            false => self.stream(number, layer, Some(left)),
        }
    }

    fn know(
        &self,
        number: usize,
        index: IndexBuilder<'_>,
        toc: Option<Toc>,
    ) -> Result<(), PullError> {
        let index = index
            .finish()
            .map_err(|source| PullError::Cache { source })?;
        let mut plan = self.plan();
        plan.know(number, index, toc);
        plan.settle();
        self.publish(plan);
        Ok(())
    }

    fn read_range(
        &self,
        number: usize,
        layer: &LayerBlob,
        files: &Located,
        path: &[u8],
    ) -> Result<bool, PullError> {
        let Some((mut reader, expected)) = files.open(&self.place(layer), path)? else {
            return Ok(false);
        };
        let directory = self.cache.layer(layer.digest);
        let (draft, found) = self.keep(layer, &directory, &mut *reader)?;
        if found != expected {
            return Err(PullError::Digest {
                what: format!(
                    "file `{}` of layer {}",
                    String::from_utf8_lossy(path),
                    layer.digest
                ),
                expected,
                found,
            });
        }
        let facts = kept::facts(&draft.file);
        let mut plan = self.plan();
        if plan.wants_content(path) {
            seal(&draft, &Cache::path_name(&directory, path))?;
        }
        self.prove(&mut plan, &directory, &draft, &facts)?;
        plan.learn(number, path.to_vec(), facts.build_id);
        plan.settle();
        self.publish(plan);
        Ok(true)
    }

    fn place<'l>(&'l self, layer: &'l LayerBlob) -> LayerSource<'l>
    where
        'a: 'l,
    {
        LayerSource {
            registry: self.registry,
            image: &self.image.reference,
            layer,
            windows: &self.windows,
        }
    }

    /// Writes a file aside.
    fn keep(
        &self,
        layer: &LayerBlob,
        directory: &std::path::Path,
        reader: &mut dyn Read,
    ) -> Result<(Draft, crate::Digest), PullError> {
        let mut draft = Cache::draft(directory).map_err(|source| PullError::Cache { source })?;
        let (size, digest) =
            kept::copy(reader, &mut draft.file).map_err(|error| pull_error(error, layer))?;
        let before = self.written.fetch_add(size, Ordering::Relaxed);
        match before.saturating_add(size) > BUDGET {
            true => Err(PullError::Layer {
                layer: layer.digest,
                problem: "the files that match add up to more than 16 GiB".to_owned(),
            }),
            false => Ok((draft, digest)),
        }
    }

    /// Stores a file that its build-id verifies, if a request wants it.
    fn prove(
        &self,
        plan: &mut Plan<'_>,
        directory: &std::path::Path,
        draft: &Draft,
        facts: &Facts,
    ) -> Result<Option<PathBuf>, PullError> {
        let (Some(id), Some(part)) = (&facts.build_id, facts.part) else {
            return Ok(None);
        };
        if !plan.wants_id(id) {
            return Ok(None);
        }
        let path = Cache::part(directory, part, id);
        seal(draft, &path)?;
        plan.kept(part, id, path.clone());
        plan.follow(id, facts);
        Ok(Some(path))
    }

    /// Reads from the start. `again` names files to fetch from a layer whose index is known.
    fn stream(
        &self,
        number: usize,
        layer: &LayerBlob,
        again: Option<HashSet<Vec<u8>>>,
    ) -> Result<(), PullError> {
        let took = AtomicBool::new(false);
        let stop = |left: u64| {
            again.is_none()
                && self.done.load(Ordering::Relaxed)
                && !(took.load(Ordering::Relaxed) && left <= TAIL)
        };
        let advanced = |bytes: u64| self.progress.advanced(bytes);
        let mut blob = BlobReader::new(
            self.registry,
            &self.image.reference,
            (layer.digest, layer.size),
            &stop,
            &advanced,
        );
        let mut taken = PlacedFiles::default();
        let mut index = again
            .is_none()
            .then(|| IndexBuilder::new(self.room, self.cache, layer.digest, true));
        let walked = self.walk(
            layer,
            &mut blob,
            again.as_ref(),
            (index.as_mut(), &mut taken, &took),
        );
        let outcome = match walked {
            Ok(Walk::Enough) => return Ok(()),
            // Bytes after the tar belong to the blob.
            Ok(Walk::End) => io::copy(&mut blob, &mut io::sink())
                .map(|_| ())
                .map_err(|error| pull_error(error, layer)),
            Err(error @ PullError::Layer { .. }) if blob.left() <= REST => {
                // The digest distinguishes transfer damage from a blob that was built that way.
                match io::copy(&mut blob, &mut io::sink()).map_err(|error| pull_error(error, layer))
                {
                    Err(damaged @ PullError::Digest { .. }) => Err(damaged),
                    _ => Err(error),
                }
            }
            Err(error) => Err(error),
        };
        match outcome {
            Ok(()) => {}
            Err(PullError::Stopped) => return Ok(()),
            Err(error) => {
                if error.is_mismatch() || matches!(error, PullError::Layer { .. }) {
                    for path in &taken.proven {
                        let _ = fs::remove_file(path);
                    }
                    let mut plan = self.plan();
                    plan.retract(&taken.proven);
                    self.publish(plan);
                }
                return Err(error);
            }
        }
        for (path, draft) in &taken.held {
            seal(draft, path)?;
        }
        if let Some(index) = index {
            return self.know(number, index, None);
        }
        let mut plan = self.plan();
        plan.settle();
        self.publish(plan);
        Ok(())
    }

    fn walk(
        &self,
        layer: &LayerBlob,
        blob: &mut BlobReader<'_>,
        again: Option<&HashSet<Vec<u8>>>,
        (mut index, taken, took): (Option<&mut IndexBuilder<'_>>, &mut PlacedFiles, &AtomicBool),
    ) -> Result<Walk, PullError> {
        let broken = |error: io::Error| pull_error(error, layer);
        let refused = |problem: String| PullError::Layer {
            layer: layer.digest,
            problem,
        };
        let mut add = |entry: &Entry, id: Option<BuildId>| match &mut index {
            Some(index) => index.add(record_of(entry, id).map_err(refused)?),
            None => Ok(()),
        };
        let directory = self.cache.layer(layer.digest);
        let mut missing = again.map(HashSet::len);
        let mut tar = TarReader::new(tar_of(blob, layer.size, &self.windows).map_err(broken)?);
        while let Some(entry) = tar.next().map_err(broken)? {
            if entry.kind != Kind::File {
                add(&entry, None)?;
                continue;
            }
            let mut head = Vec::new();
            if entry.size >= SMALLEST {
                tar.content()
                    .take(4)
                    .read_to_end(&mut head)
                    .map_err(broken)?;
                if head == *b"\x7fELF" {
                    let more = HEAD.saturating_sub(head.len()) as u64;
                    tar.content()
                        .take(more)
                        .read_to_end(&mut head)
                        .map_err(broken)?;
                }
            }
            let id = kept::id_of(&head);
            add(&entry, id.clone())?;
            let path = normalized(&entry.path).unwrap_or_default();
            let (by_id, by_path) = {
                let plan = self.plan();
                (
                    id.is_some_and(|id| plan.wants_id(&id)),
                    plan.wants_content(&path),
                )
            };
            if again.is_some_and(|paths| paths.contains(&path)) {
                missing = missing.map(|count| count.saturating_sub(1));
            }
            if by_id || by_path {
                let mut content = head.as_slice().chain(tar.content());
                let (draft, _) = self.keep(layer, &directory, &mut content)?;
                let facts = kept::facts(&draft.file);
                let mut plan = self.plan();
                let proven = self.prove(&mut plan, &directory, &draft, &facts)?;
                if proven.is_some() {
                    took.store(true, Ordering::Relaxed);
                    taken.proven.extend(proven);
                }
                self.publish(plan);
                if by_path {
                    // The last entry of a name counts, so a thousand of them are one file.
                    let place = Cache::path_name(&directory, &path);
                    taken.held.retain(|(known, _)| *known != place);
                    taken.held.push((place, draft));
                }
            }
            if missing == Some(0) && taken.held.is_empty() {
                return Ok(Walk::Enough);
            }
        }
        Ok(Walk::End)
    }
}

enum Walk {
    End,
    /// All wanted files were verified before the end.
    Enough,
}

fn seal(draft: &Draft, path: &std::path::Path) -> Result<(), PullError> {
    Cache::seal(draft, path).map_err(|source| PullError::Cache { source })
}

/// The error that a reader passed through decoders.
fn pull_error(error: io::Error, layer: &LayerBlob) -> PullError {
    if error.get_ref().is_some_and(|inner| inner.is::<Stopped>()) {
        return PullError::Stopped;
    }
    let disk = matches!(
        error.kind(),
        io::ErrorKind::StorageFull
            | io::ErrorKind::QuotaExceeded
            | io::ErrorKind::ReadOnlyFilesystem
    );
    if disk {
        return PullError::Cache { source: error };
    }
    let problem = error.to_string();
    match error
        .into_inner()
        .and_then(|inner| inner.downcast::<PullError>().ok())
    {
        Some(error) => *error,
        None => PullError::Layer {
            layer: layer.digest,
            problem,
        },
    }
}
