//! A listing that can be looked at while it goes on: pages of dumps, the newest day first.
//!
//! What [`Catalog::find`] answers in one piece needs all keys first. A screen wants the newest dumps
//! at once and the rest as it comes, and never holds a key longer than the page it is in: the
//! manifest's key comes right before its bundle's in the order of keys, so one stem is remembered.

use std::ops::ControlFlow;

use crate::catalog::{DUMPS, holds_no_dumps};
use crate::{Catalog, DumpSummary, Listed, ListedObject, Listing, StoreError};

/// Dumps of a page: small enough for the first to come at once, large enough for a hundred thousand
/// not to be counted in messages.
const PAGE: usize = 1024;

/// Separates dumps from bundles without manifests, in the order of keys.
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
    /// Hands out the dumps of the store in pages, until `visit` breaks: the newest day first and
    /// within a page the newest first, then all other keys.
    ///
    /// # Errors
    /// When the store cannot be listed; what was handed out until then is right.
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
