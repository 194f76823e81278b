//! Lists dumps in pages, newest day first, for callers that show a listing before it is complete.
//!
//! [`Catalog::find`] returns everything at once and needs all keys first. A screen wants the newest
//! dumps immediately, and holds no key longer than its page. In the order of keys, a manifest's key
//! precedes its bundle's, so only one stem is stored.

use std::ops::ControlFlow;

use crate::catalog::{DUMPS, holds_no_dumps};
use crate::{Catalog, DumpSummary, Listed, ListedObject, Listing, StoreError};

/// Dumps per page: small enough that the first page arrives soon, large enough that a hundred
/// thousand dumps need few messages.
const PAGE: usize = 1024;

/// Distinguishes dumps from bundles without manifests, in the order of keys.
#[derive(Default)]
pub(crate) struct Pairing {
    /// Key of the last manifest, without `.manifest.json`.
    committed: String,
}

impl Pairing {
    pub(crate) fn dump(&mut self, object: ListedObject) -> Option<DumpSummary> {
        if let Some(stem) = object.key.as_str().strip_suffix(".manifest.json") {
            stem.clone_into(&mut self.committed);
            return None;
        }
        let mut summary = DumpSummary::from_key(&object.key)?;
        let stem = object.key.as_str().strip_suffix(".zip")?;
        summary.size = Some(object.size);
        summary.modified = object.modified;
        (summary.legacy || stem == self.committed).then_some(summary)
    }
}

impl Catalog<'_> {
    /// Visits the dumps of the store in pages until `visit` breaks: newest day first, newest dump
    /// first within a page, then all other keys.
    ///
    /// # Errors
    /// If the store cannot be listed; pages visited before are valid.
    pub fn pages(
        &self,
        visit: &mut dyn FnMut(Vec<DumpSummary>) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        let (mut days, mut elsewhere) = (Vec::new(), Vec::new());
        let mut here = Vec::new();
        let mut pairing = Pairing::default();
        self.store().list(&Listing::level(""), &mut |listed| {
            match listed {
                Listed::Object(object) => here.extend(pairing.dump(object)),
                Listed::Prefix(prefix) if prefix == DUMPS => {}
                Listed::Prefix(prefix) if holds_no_dumps(&prefix) => {}
                Listed::Prefix(prefix) => elsewhere.push(prefix),
            }
            ControlFlow::Continue(())
        })?;
        self.store().list(&Listing::level(DUMPS), &mut |listed| {
            if let Listed::Prefix(day) = listed {
                days.push(day);
            }
            ControlFlow::Continue(())
        })?;
        days.sort_unstable();
        for folder in days.iter().rev().chain(&elsewhere) {
            if self.folder(folder, visit)?.is_break() {
                return Ok(());
            }
        }
        self.refine(&mut here);
        here.sort_by(|a, b| (b.captured_at, &b.key).cmp(&(a.captured_at, &a.key)));
        if !here.is_empty() {
            let _ = visit(here);
        }
        Ok(())
    }

    fn folder(
        &self,
        folder: &str,
        visit: &mut dyn FnMut(Vec<DumpSummary>) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, StoreError> {
        let mut pairing = Pairing::default();
        let mut page = Vec::new();
        let mut flow = ControlFlow::Continue(());
        let mut hand_out = |page: &mut Vec<DumpSummary>| {
            self.refine(page);
            page.sort_by(|a, b| (b.captured_at, &b.key).cmp(&(a.captured_at, &a.key)));
            visit(std::mem::take(page))
        };
        self.store().list(&Listing::all(folder), &mut |listed| {
            let Listed::Object(object) = listed else {
                return ControlFlow::Continue(());
            };
            page.extend(pairing.dump(object));
            if page.len() >= PAGE {
                flow = hand_out(&mut page);
            }
            flow
        })?;
        if flow.is_continue() && !page.is_empty() {
            flow = hand_out(&mut page);
        }
        Ok(flow)
    }
}
