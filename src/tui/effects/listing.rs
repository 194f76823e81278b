//! Lists a store in pages, and reads manifests.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::Sender;

use cdh_store::{DumpSummary, FirstSeenIndex, ManifestFacts};
use jiff::Timestamp;

use super::{Session, guarded};
use crate::pipeline::{self, Listed};
use crate::tui::model::{Facts, Listing, RequestId, Row, Rows};
use crate::tui::msg::Msg;

/// Dumps that are remembered for completions.
const NEWEST: usize = 1000;

/// Sends pages until all are here, or another listing counts.
pub(super) fn list(
    session: &Session,
    request: RequestId,
    current: &AtomicU64,
    messages: &Sender<Msg>,
) {
    let mut newest: Vec<DumpSummary> = Vec::new();
    let mut is_whole = true;
    let mut visit = |page: Vec<DumpSummary>| {
        newest.extend(
            page.iter()
                .take(NEWEST.saturating_sub(newest.len()))
                .cloned(),
        );
        let rows = page.into_iter().map(Row::new).collect();
        let heard = messages.send(Msg::Page(request, rows)).is_ok();
        if heard && current.load(Ordering::SeqCst) == request.0 {
            ControlFlow::Continue(())
        } else {
            is_whole = false;
            ControlFlow::Break(())
        }
    };
    let outcome = guarded(|| {
        let store = session.store()?;
        std::thread::scope(|scope| {
            // Both are needed before a crash can be called new; the end of the listing waits for them.
            scope.spawn(|| {
                let index = guarded(|| Ok(FirstSeenIndex::read(store.as_ref(), Timestamp::now())?));
                let _ = messages.send(Msg::FirstSeen(request, index.unwrap_or_default()));
            });
            pipeline::catalog(&session.settings, store.as_ref())
                .pages(&mut visit)
                .map_err(|error| pipeline::store_failure(error, "list"))
        })
    });
    let listing = match outcome {
        Ok(()) => {
            let listed = if is_whole { Listed::All } else { Listed::Part };
            pipeline::remember_listing(&session.settings, &newest, listed);
            Listing::Done
        }
        Err(told) => {
            session.forget_store(&told);
            Listing::Failed(told)
        }
    };
    let _ = messages.send(Msg::Listed(request, listing));
}

/// Lists the newest dumps again, in a bounded number of requests.
pub(super) fn refresh(session: &Session, request: RequestId, known: &Rows, messages: &Sender<Msg>) {
    if session.over.load(Ordering::SeqCst) {
        return;
    }
    let found = guarded(|| {
        let store = session.store()?;
        pipeline::catalog(&session.settings, store.as_ref())
            .since(known.refresh_since(Timestamp::now()))
            .map_err(|error| pipeline::store_failure(error, "list"))
    });
    if let Err(told) = &found {
        session.forget_store(told);
    }
    let rows = found.map(|dumps| dumps.into_iter().map(Row::new).collect());
    let _ = messages.send(Msg::Refreshed(request, rows));
}

/// What the manifests of some dumps say.
pub(super) fn facts(
    session: &Session,
    request: RequestId,
    dumps: &[DumpSummary],
    messages: &Sender<Msg>,
) {
    if session.over.load(Ordering::SeqCst) {
        return;
    }
    let found = guarded(|| {
        let store = session.store()?;
        Ok(pipeline::catalog(&session.settings, store.as_ref()).manifests(dumps))
    });
    let found = found.unwrap_or_default();
    let mut manifests = found.into_iter();
    let answer = dumps.iter().map(|dump| {
        let manifest = manifests.next().and_then(Result::ok);
        let facts = manifest.map(|manifest| Facts {
            compared: ManifestFacts::of(&manifest),
            owner: manifest.workload.and_then(|workload| workload.owner),
        });
        (dump.id, facts)
    });
    let _ = messages.send(Msg::Facts(request, answer.collect()));
}
