//! Downloads pieces of one file in parallel and writes each at its offset.
//!
//! ```text
//! worker   one request for a run of pieces ─▶ piece whole? ─▶ decode ─▶ write ─▶ journal
//! ```
//!
//! Invariants: a piece is in the journal only after it was written. An interruption loses the data in
//! flight, at most the runs of all workers; therefore runs are short compared with the file.

use std::io;
use std::ops::{ControlFlow, Range};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use cdh_bundle::{BundleReader, CorePiece};
use cdh_store::StoreError;

use super::part::PartialFetch;
use super::sparse::SparseFile;
use crate::pipeline::{Dump, Observer};

/// Maximum number of parallel requests.
const WORKERS: usize = 4;
/// Bytes that justify one more request: a kill loses a part of a piece per request.
const PER_WORKER: u64 = 48 << 20;
/// An interruption loses at most the runs of all workers: five interruptions together must cost
/// less than a tenth.
const SHARE: u64 = 256;
/// Shortest run of pieces per request, in stored bytes: shorter ones spend more time waiting.
const SHORTEST_RUN: u64 = 512 << 10;
/// Longest.
const LONGEST_RUN: u64 = 8 << 20;
/// Piece size of a file that is copied without decoding.
const COPIED: u64 = 1 << 20;

/// A run of stored bytes that decodes to a run of the file's bytes.
pub(super) enum TransferUnit {
    /// Of a core.
    Core(CorePiece),
    /// As it is.
    Copy { stored: Range<u64>, at: u64 },
}

impl TransferUnit {
    /// Copies a range of the bundle unchanged to the start of the file.
    pub(super) fn copies(range: &Range<u64>) -> Vec<Self> {
        let len = range.end.saturating_sub(range.start);
        let piece = |number: u64| {
            let at = number * COPIED;
            let start = range.start + at;
            let end = (start + COPIED).min(range.end);
            Self::Copy {
                stored: start..end,
                at,
            }
        };
        (0..len.div_ceil(COPIED)).map(piece).collect()
    }

    fn stored(&self) -> &Range<u64> {
        match self {
            Self::Core(piece) => &piece.stored,
            Self::Copy { stored, .. } => stored,
        }
    }

    fn stored_len(&self) -> u64 {
        let stored = self.stored();
        stored.end.saturating_sub(stored.start)
    }

    /// Its offset in the file.
    fn place(&self) -> Range<u64> {
        match self {
            Self::Core(piece) => piece.plain.clone(),
            Self::Copy { at, .. } => *at..*at + self.stored_len(),
        }
    }

    fn decode(&self, stored: Vec<u8>) -> io::Result<Vec<u8>> {
        match self {
            Self::Core(piece) => piece.decode(stored),
            Self::Copy { .. } => Ok(stored),
        }
    }
}

/// Why it ended early.
pub(super) enum Problem {
    /// The observer requested a stop.
    Stopped,
    /// The store failed.
    Store(StoreError),
    /// The bytes do not match their checksum.
    Damaged(io::Error),
    /// The disk failed.
    Io(io::Error),
}

/// What the workers share.
pub(super) struct Transfer<'t> {
    dump: &'t Dump,
    bundle: &'t BundleReader,
    pieces: Vec<TransferUnit>,
    out: &'t SparseFile,
    observer: &'t dyn Observer,
    /// Set when a worker fails, so that the others stop too.
    failed: AtomicBool,
}

impl<'t> Transfer<'t> {
    pub(super) fn new(
        dump: &'t Dump,
        bundle: &'t BundleReader,
        pieces: Vec<TransferUnit>,
        out: &'t SparseFile,
        observer: &'t dyn Observer,
    ) -> Self {
        Self {
            dump,
            bundle,
            pieces,
            out,
            observer,
            failed: AtomicBool::new(false),
        }
    }

    /// Downloads the missing pieces; `file` is the name in the journal.
    pub(super) fn run(
        &self,
        what: &str,
        file: &str,
        part: &mut PartialFetch,
    ) -> Result<(), Problem> {
        let total = self.pieces.iter().map(TransferUnit::stored_len).sum();
        self.observer.started(what, Some(total));
        let known = self.known(&part.pieces(file))?;
        let runs = self.runs(&known, total);
        let next = AtomicUsize::new(0);
        let part = Mutex::new(part);
        let note = |piece: usize, crc32: u32| {
            let mut part = part.lock().unwrap_or_else(PoisonError::into_inner);
            part.finished_piece(file, piece, crc32)
        };
        let work = || {
            while let Some(run) = runs.get(next.fetch_add(1, Ordering::Relaxed)) {
                if let Err(problem) = self.fetch(run.clone(), &note) {
                    self.failed.store(true, Ordering::Relaxed);
                    return Err(problem);
                }
            }
            Ok(())
        };
        let useful = usize::try_from(total / PER_WORKER).unwrap_or(usize::MAX);
        let count = useful.clamp(1, WORKERS).min(runs.len());
        let outcomes = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..count).map(|_| scope.spawn(work)).collect();
            let joined = workers.into_iter().map(|worker| worker.join());
            joined.collect::<Vec<_>>()
        });
        let mut worst = Ok(());
        for outcome in outcomes {
            match outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic)) {
                // A worker that stopped because another one failed has nothing to report.
                Err(Problem::Stopped) if worst.is_err() => {}
                Err(problem) if worst.is_ok() || matches!(worst, Err(Problem::Stopped)) => {
                    worst = Err(problem);
                }
                _ => {}
            }
        }
        worst
    }

    /// Which pieces exist: those of the journal whose bytes match the recorded checksum.
    fn known(&self, noted: &std::collections::BTreeMap<usize, u32>) -> Result<Vec<bool>, Problem> {
        let mut known = vec![false; self.pieces.len()];
        let mut buffer = Vec::new();
        for (&index, &crc32) in noted {
            let (Some(piece), Some(known)) = (self.pieces.get(index), known.get_mut(index)) else {
                continue;
            };
            if self.observer.is_cancelled() {
                return Err(Problem::Stopped);
            }
            let place = piece.place();
            buffer.resize(
                usize::try_from(place.end - place.start).unwrap_or(usize::MAX),
                0,
            );
            let read = self.out.read_at(place.start, &mut buffer);
            *known = read.is_ok() && crc32fast::hash(&buffer) == crc32;
            if *known {
                self.observer.resumed(piece.stored_len());
            }
        }
        Ok(known)
    }

    /// Consecutive missing pieces, in runs of one request each.
    fn runs(&self, known: &[bool], total: u64) -> Vec<Range<usize>> {
        let most = (total / SHARE).clamp(SHORTEST_RUN, LONGEST_RUN);
        let mut runs: Vec<Range<usize>> = Vec::new();
        let mut size = 0;
        for (index, (piece, known)) in self.pieces.iter().zip(known).enumerate() {
            if *known {
                continue;
            }
            let follows = index
                .checked_sub(1)
                .and_then(|before| self.pieces.get(before))
                .is_some_and(|before| before.stored().end == piece.stored().start);
            size += piece.stored_len();
            match runs.last_mut() {
                Some(run) if run.end == index && follows && size <= most => run.end = index + 1,
                _ => {
                    size = piece.stored_len();
                    runs.push(index..index + 1);
                }
            }
        }
        runs
    }

    fn fetch(
        &self,
        run: Range<usize>,
        note: &dyn Fn(usize, u32) -> io::Result<()>,
    ) -> Result<(), Problem> {
        let pieces = self.pieces.get(run.clone()).unwrap_or_default();
        let (Some(first), Some(last)) = (pieces.first(), pieces.last()) else {
            return Ok(());
        };
        let mut left = run.zip(pieces);
        let mut current = left.next();
        let mut buffer: Vec<u8> = Vec::new();
        let mut problem = None;
        let mut sink = |mut chunk: &[u8]| {
            if self.observer.is_cancelled() || self.failed.load(Ordering::Relaxed) {
                return ControlFlow::Break(());
            }
            while let (Some((index, piece)), false) = (&current, chunk.is_empty()) {
                let len = usize::try_from(piece.stored_len()).unwrap_or(usize::MAX);
                let (taken, rest) =
                    chunk.split_at(chunk.len().min(len.saturating_sub(buffer.len())));
                buffer.extend_from_slice(taken);
                self.observer.advanced(taken.len() as u64);
                chunk = rest;
                if buffer.len() == len {
                    if let Err(error) =
                        self.finish(*index, piece, std::mem::take(&mut buffer), note)
                    {
                        problem = Some(error);
                        return ControlFlow::Break(());
                    }
                    current = left.next();
                }
            }
            ControlFlow::Continue(())
        };
        let range = first.stored().start..last.stored().end;
        let outcome = match &self.dump.remote {
            Some(_) => self.dump.read_range(range, &mut sink),
            None => read_local(self.bundle, range, &mut sink),
        };
        match (problem, outcome) {
            (Some(problem), _) => Err(problem),
            (None, Ok(())) => Ok(()),
            (None, Err(StoreError::Stopped)) => Err(Problem::Stopped),
            (None, Err(error)) => Err(Problem::Store(error)),
        }
    }

    fn finish(
        &self,
        index: usize,
        piece: &TransferUnit,
        stored: Vec<u8>,
        note: &dyn Fn(usize, u32) -> io::Result<()>,
    ) -> Result<(), Problem> {
        let plain = piece.decode(stored).map_err(Problem::Damaged)?;
        self.out
            .write_at(piece.place().start, &plain)
            .map_err(Problem::Io)?;
        note(index, crc32fast::hash(&plain)).map_err(Problem::Io)
    }
}

fn read_local(
    bundle: &BundleReader,
    range: Range<u64>,
    sink: &mut dyn FnMut(&[u8]) -> ControlFlow<()>,
) -> Result<(), StoreError> {
    let failed = |source| StoreError::Io {
        path: "the bundle".to_owned(),
        source,
    };
    let mut buffer = vec![0; 1 << 20];
    let mut at = range.start;
    while at < range.end {
        let left = usize::try_from(range.end - at).unwrap_or(usize::MAX);
        let wanted = left.min(buffer.len());
        let part = buffer.get_mut(..wanted).unwrap_or_default();
        let count = bundle.source().read_at(at, part).map_err(failed)?;
        let part = part.get(..count).unwrap_or_default();
        if part.is_empty() {
            return Err(failed(io::ErrorKind::UnexpectedEof.into()));
        }
        if sink(part).is_break() {
            return Err(StoreError::Stopped);
        }
        at += count as u64;
    }
    Ok(())
}
