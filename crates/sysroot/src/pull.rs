//! Fetches the files that a core needs from an image.

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use cdh_elfcore::{BuildId, Machine};

use crate::index_builder::IndexBudget;
use crate::manifest::{Image, Source, resolve};
use crate::plan::{Job, Plan};
use crate::scan::Shared;
use crate::window::Windows;
use crate::{
    Cache, Digest, FileRole, ImageReference, Lookup, Need, Progress, PullError, Registry, Wanted,
};

/// Number of layers read in parallel.
const STREAMS: usize = 3;
/// Delay before each further stream starts: the topmost layer alone often has the answer.
const STAGGER: Duration = Duration::from_millis(150);

/// How to pull.
#[derive(Clone, Copy)]
pub struct PullOptions<'a> {
    /// Where files are kept.
    pub cache: &'a Cache,
    /// The registry client; `None` forbids the network.
    pub registry: Option<&'a Registry>,
    /// The observer.
    pub progress: &'a dyn Progress,
}

/// What a pull brought.
#[derive(Debug)]
pub struct Pulled {
    /// One answer per wanted file, in their order.
    pub answers: Vec<Lookup>,
    /// Why some questions have no answer; the files found are valid nevertheless.
    pub problem: Option<PullError>,
}

/// The virtual root of one image.
pub struct Sysroot<'a> {
    image: Image,
    options: PullOptions<'a>,
}

impl<'a> Sysroot<'a> {
    /// Finds the image for the core's machine type, in the cache or in the registry.
    ///
    /// # Errors
    /// If it is in neither, or is not trusted.
    pub fn open(
        options: PullOptions<'a>,
        reference: &ImageReference,
        machine: Machine,
    ) -> Result<Self, PullError> {
        let source = Source {
            cache: options.cache,
            registry: options.registry,
        };
        let image = resolve(&source, reference, machine)?;
        Ok(Self { image, options })
    }

    /// The image by the digest of its platform's manifest.
    #[must_use]
    pub fn reference(&self) -> &ImageReference {
        &self.image.reference
    }

    /// Its number of layers and their total bytes.
    #[must_use]
    pub fn size(&self) -> (usize, u64) {
        let bytes = self.image.layers.iter().map(|layer| layer.size).sum();
        (self.image.layers.len(), bytes)
    }

    /// A cached file of this image, by its build-id.
    #[must_use]
    pub fn file(&self, part: FileRole, id: &BuildId) -> Option<PathBuf> {
        let cache = self.options.cache;
        let kept = |digest: Digest| Cache::used(Cache::part(&cache.layer(digest), part, id));
        self.image
            .layers
            .iter()
            .find_map(|layer| kept(layer.digest))
    }

    /// Looks up the wanted files, and fetches those that the cache lacks from the registry.
    #[must_use]
    pub fn pull(&self, wanted: &[Wanted]) -> Pulled {
        let cache = self.options.cache;
        let blobs: Vec<(Digest, u64)> = self
            .image
            .layers
            .iter()
            .map(|layer| (layer.digest, layer.size))
            .collect();
        // A process that waited finds the files of the other run.
        let lock = self
            .image
            .reference
            .digest()
            .and_then(|digest| cache.lock(digest));
        let mut plan = Plan::new(cache, &blobs, wanted.to_vec());
        let room = IndexBudget::default();
        if !plan.is_done() || wanted.iter().any(|one| one.need == Need::Passing) {
            for (number, (digest, _)) in blobs.iter().enumerate() {
                if let Some(index) = cache.index(*digest, &room) {
                    plan.know(number, index, None);
                }
            }
            plan.settle();
        }
        let problem = match (plan.next_job(), self.options.registry) {
            (None, _) => None,
            (Some(_), None) => Some(PullError::Offline {
                what: format!("a part of image `{}`", self.image.reference),
            }),
            (Some(first), Some(registry)) => {
                let (left, problem) = self.run((plan, first), registry, &room);
                plan = left;
                cache.shrink();
                problem
            }
        };
        drop(lock);
        let reason = match &problem {
            Some(problem) => problem.to_string(),
            None => "not searched in layers that were not read".to_owned(),
        };
        Pulled {
            answers: plan.answers(wanted.len(), &reason),
            problem,
        }
    }

    fn run<'p>(
        &'p self,
        (plan, first): (Plan<'p>, Job),
        registry: &'p Registry,
        room: &'p IndexBudget,
    ) -> (Plan<'p>, Option<PullError>) {
        let progress = self.options.progress;
        progress.started(
            &format!("pulling from {}", self.image.reference.repository()),
            None,
        );
        let shared = Shared {
            done: AtomicBool::new(plan.is_done()),
            plan: Mutex::new(plan),
            changed: Condvar::new(),
            written: AtomicU64::new(0),
            cache: self.options.cache,
            room,
            windows: Windows::default(),
            registry,
            image: &self.image,
            progress,
        };
        let problem: Mutex<Option<PullError>> = Mutex::new(None);
        let fail = |error: PullError| {
            let mut slot = problem.lock().unwrap_or_else(PoisonError::into_inner);
            // Contradictory evidence is worse than an unavailable network.
            if slot
                .as_ref()
                .is_none_or(|known| !known.is_mismatch() && error.is_mismatch())
            {
                *slot = Some(error);
            }
        };
        std::thread::scope(|scope| {
            for number in 1..STREAMS {
                let (shared, fail) = (&shared, &fail);
                let spawned = std::thread::Builder::new().spawn_scoped(scope, move || {
                    if wait_for_turn(
                        shared,
                        STAGGER.saturating_mul(u32::try_from(number).unwrap_or(1)),
                    ) {
                        work(shared, None, fail);
                    }
                });
                // With fewer threads, it only takes longer.
                drop(spawned);
            }
            work(&shared, Some(first), &fail);
        });
        progress.finished();
        let plan = shared
            .plan
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner);
        (
            plan,
            problem.into_inner().unwrap_or_else(PoisonError::into_inner),
        )
    }
}

/// Whether there is still work when this thread starts.
fn wait_for_turn(shared: &Shared<'_>, delay: Duration) -> bool {
    let begun = Instant::now();
    let mut plan = shared.plan();
    loop {
        if plan.is_done() || !plan.is_busy() {
            return false;
        }
        let Some(left) = delay
            .checked_sub(begun.elapsed())
            .filter(|left| !left.is_zero())
        else {
            return true;
        };
        plan = match shared.changed.wait_timeout(plan, left) {
            Ok((plan, _)) => plan,
            Err(poisoned) => poisoned.into_inner().0,
        };
    }
}

fn work(shared: &Shared<'_>, first: Option<Job>, fail: &(dyn Fn(PullError) + Sync)) {
    let mut next = first;
    loop {
        let job = match next.take() {
            Some(job) => job,
            None => {
                let mut plan = shared.plan();
                loop {
                    if let Some(job) = plan.next_job() {
                        break job;
                    }
                    if !plan.is_busy() {
                        shared.changed.notify_all();
                        return;
                    }
                    plan = shared
                        .changed
                        .wait(plan)
                        .unwrap_or_else(PoisonError::into_inner);
                }
            }
        };
        let (layer, outcome) = match job {
            Job::Read(layer) => (layer, shared.read(layer)),
            Job::Again(layer, paths, toc) => {
                (layer, shared.read_again(layer, paths, toc.as_deref()))
            }
        };
        let failed = outcome.is_err();
        if let Err(error) = outcome {
            fail(error);
        }
        let mut plan = shared.plan();
        plan.finish(layer, failed);
        // A requested file that did not arrive does not exist.
        plan.settle();
        drop(plan);
        shared.changed.notify_all();
    }
}

impl Progress for () {
    fn started(&self, _: &str, _: Option<u64>) {}
    fn advanced(&self, _: u64) {}
    fn finished(&self) {}
}

impl From<PullError> for io::Error {
    fn from(error: PullError) -> Self {
        Self::other(error)
    }
}
