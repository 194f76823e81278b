//! Records failed reads of a bundle's core. Code that analyses a core treats an unreadable page as
//! absent, so the bundle has to report the failure.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use cdh_elfcore::ByteSource;

/// A read of a bundle's core failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadProblem {
    /// Whether the bytes are damaged. Otherwise the disk or the network failed.
    pub is_damage: bool,
    /// Describes the problem.
    pub what: String,
}

/// State shared by a bundle and the sources that it returned.
#[derive(Debug, Default)]
pub(super) struct Reads {
    unverified: Arc<AtomicBool>,
    problem: Mutex<Option<ReadProblem>>,
}

impl Reads {
    pub(super) fn is_verified(&self) -> bool {
        !self.unverified.load(Ordering::Relaxed)
    }

    /// Must be set once bytes without a checksum are used.
    pub(super) fn unverified_flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.unverified)
    }

    /// The first problem.
    pub(super) fn problem(&self) -> Option<ReadProblem> {
        let problem = self.problem.lock();
        problem.unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn note(&self, error: &io::Error) {
        let is_damage = matches!(
            error.kind(),
            io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof
        );
        let mut problem = self.problem.lock().unwrap_or_else(PoisonError::into_inner);
        problem.get_or_insert_with(|| ReadProblem {
            is_damage,
            what: error.to_string(),
        });
    }
}

/// A source whose failed reads are recorded.
pub(super) struct Noted<S> {
    source: S,
    reads: Arc<Reads>,
    has_checksums: bool,
}

impl<S: ByteSource> Noted<S> {
    /// Wraps a source that checks its own checksums, if it has any.
    pub(super) fn new(source: S, reads: &Arc<Reads>) -> Self {
        Self {
            source,
            reads: Arc::clone(reads),
            has_checksums: true,
        }
    }

    /// Wraps a source without checksums.
    pub(super) fn unverified(source: S, reads: &Arc<Reads>) -> Self {
        Self {
            has_checksums: false,
            ..Self::new(source, reads)
        }
    }
}

impl<S: ByteSource> ByteSource for Noted<S> {
    fn len(&self) -> u64 {
        self.source.len()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        if !self.has_checksums {
            self.reads.unverified.store(true, Ordering::Relaxed);
        }
        let read = self.source.read_at(offset, buf);
        read.inspect_err(|error| self.reads.note(error))
    }
}
