//! A core at rest: head and memory.

use crate::{Avma, ByteSource, Completeness, CoreError, CoreHead, Memory, Module};

/// A core over any byte source.
pub struct CoreFile {
    head: CoreHead,
    source: Box<dyn ByteSource>,
}

impl CoreFile {
    /// Reads the head; memory is read when asked for.
    ///
    /// # Errors
    /// When it is no supported core.
    pub fn open(source: Box<dyn ByteSource>) -> Result<Self, CoreError> {
        Ok(Self { head: CoreHead::from_source(source.as_ref())?, source })
    }

    /// Header, threads, notes.
    #[must_use]
    pub fn head(&self) -> &CoreHead {
        &self.head
    }

    /// What is there of it.
    #[must_use]
    pub fn completeness(&self) -> Completeness {
        self.head.completeness(self.source.len())
    }

    /// Modules with build-ids from the core's own pages.
    #[must_use]
    pub fn modules(&self) -> Vec<Module> {
        self.head.modules(self)
    }
}

impl Memory for CoreFile {
    fn read(&self, _at: Avma, _buf: &mut [u8]) -> usize {
        todo!()
    }
}
