//! A core at rest: head and memory.

use std::sync::{Arc, OnceLock};

use crate::{
    Avma, ByteSource, CodeMap, Completeness, CoreError, CoreHead, Memory, Module, Segment,
};

/// A core over any byte source.
pub struct CoreFile {
    head: Arc<CoreHead>,
    source: Box<dyn ByteSource>,
    /// Segments with bytes in the file, by address.
    by_address: Vec<Segment>,
    /// Made when the first stack cannot be followed by its unwind tables.
    code: OnceLock<CodeMap>,
}

impl CoreFile {
    /// Reads the head; memory is read when asked for.
    ///
    /// # Errors
    /// If it is not a supported core.
    pub fn open(source: Box<dyn ByteSource>) -> Result<Self, CoreError> {
        let head = Arc::new(CoreHead::from_source(source.as_ref())?);
        let dumped = |segment: &&Segment| segment.file_size > 0;
        let mut by_address: Vec<_> = head.segments().iter().filter(dumped).copied().collect();
        by_address.sort_by_key(|segment| segment.start);
        Ok(Self {
            head,
            source,
            by_address,
            code: OnceLock::new(),
        })
    }

    /// Header, threads, notes.
    #[must_use]
    pub fn head(&self) -> &CoreHead {
        &self.head
    }

    /// The head for a caller that needs it longer: with many threads it has megabytes.
    #[must_use]
    pub fn shared_head(&self) -> Arc<CoreHead> {
        Arc::clone(&self.head)
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

    /// Reads from the one segment that holds `at`.
    fn read_segment(&self, at: Avma, buf: &mut [u8]) -> Option<usize> {
        let after = self
            .by_address
            .partition_point(|segment| segment.start <= at);
        let segment = self.by_address.get(after.checked_sub(1)?)?;
        let skipped = at.checked_sub(segment.start)?;
        let stored = segment.stored_in(self.source.len()).checked_sub(skipped)?;
        let wanted = usize::try_from(stored).unwrap_or(usize::MAX).min(buf.len());
        let offset = segment.offset.checked_add(skipped)?;
        let count = self.source.read_at(offset.0, buf.get_mut(..wanted)?).ok()?;
        (count > 0).then_some(count)
    }
}

impl Memory for CoreFile {
    fn read(&self, at: Avma, buf: &mut [u8]) -> usize {
        let mut done = 0_usize;
        while let Some(rest) = buf.get_mut(done..).filter(|rest| !rest.is_empty()) {
            let next = at.checked_add(done as u64);
            let Some(count) = next.and_then(|next| self.read_segment(next, rest)) else {
                break;
            };
            done = done.saturating_add(count);
        }
        done
    }

    fn is_executable(&self, at: Avma) -> Option<bool> {
        let code = self.code.get_or_init(|| CodeMap::of(self.head.segments()));
        code.is_executable(at)
    }
}
