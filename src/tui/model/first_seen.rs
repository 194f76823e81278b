//! When each crash first appeared, based on the complete store and not on the filtered list.
//!
//! Combines two sources: the listed keys, and the store's own records, which outlive deleted dumps.
//! A crash counts as new only when the answer cannot change any more.

use std::collections::HashMap;
use std::sync::Arc;

use cdh_store::{DumpSummary, FirstSeenIndex};
use jiff::{SignedDuration, Timestamp};

use crate::render::{FirstFrom, Group};

/// How long a crash counts as new after it first appeared.
pub const NEW: SignedDuration = SignedDuration::from_hours(24);

/// When crashes first appeared, by fingerprint.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FirstSeen {
    times: Arc<HashMap<String, Timestamp>>,
    index: Arc<FirstSeenIndex>,
    /// Whether the listing of the store is complete.
    pub is_listed: bool,
}

impl FirstSeen {
    /// Records a listed dump.
    pub fn note(&mut self, dump: &DumpSummary) {
        if let Some(fingerprint) = &dump.fingerprint {
            self.add(fingerprint, dump.captured_at);
        }
    }

    /// Records that a crash had appeared by this time.
    pub fn add(&mut self, fingerprint: &str, time: Timestamp) {
        match self.times.get(fingerprint) {
            Some(known) if *known <= time => {}
            _ => {
                Arc::make_mut(&mut self.times).insert(fingerprint.to_owned(), time);
            }
        }
    }

    /// Adds the store's own records, which may include older dumps that were deleted.
    pub fn set_index(&mut self, index: FirstSeenIndex) {
        self.index = Arc::new(index);
    }

    /// When this crash first appeared.
    #[must_use]
    pub fn of(&self, fingerprint: Option<&str>) -> Option<Timestamp> {
        let listed = self.times.get(fingerprint?).copied();
        let recorded = self.index.first(fingerprint?);
        listed.into_iter().chain(recorded).min()
    }

    /// Whether this crash is new.
    #[must_use]
    pub fn is_new(&self, fingerprint: Option<&str>, now: Timestamp) -> bool {
        let first = self.of(fingerprint).filter(|_| self.is_known());
        // Keys have a resolution of one second.
        let since = (now - NEW).as_second();
        first.is_some_and(|first| first <= now && first.as_second() >= since)
    }

    /// Whether no older dump can arrive.
    fn is_known(&self) -> bool {
        self.is_listed || self.index.is_whole()
    }

    /// Applies the times to groups that were made from a part of the dumps.
    pub fn apply(&self, groups: &mut [Group], now: Timestamp) {
        for group in groups {
            let fingerprint = group.fingerprint.as_deref();
            if let Some(first) = self.of(fingerprint) {
                group.first = group.first.min(first);
                group.first_from = match self.is_known() {
                    true => FirstFrom::Store,
                    false => FirstFrom::LookBack,
                };
            }
            group.is_new = self.is_new(fingerprint, now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::DumpFacts;
    use crate::tui::tests::{dump, now};

    #[test]
    fn first_seen_ignores_the_filter_and_waits_for_the_complete_listing() {
        let dumps: Vec<DumpSummary> = (0..400).map(dump).collect();
        let mut seen = FirstSeen::default();
        dumps.iter().for_each(|dump| seen.note(dump));
        let mut groups = Group::of(dumps.iter().take(12), |_| DumpFacts::default());
        seen.apply(&mut groups, now());
        assert!(groups.iter().all(|group| !group.is_new));
        // The 12 fingerprints repeat, so the oldest dump of each is among the last 12.
        let oldest = dumps[388].captured_at;
        assert!(groups.iter().all(|group| group.first <= oldest));

        let mut seen = FirstSeen::default();
        dumps.iter().take(12).for_each(|dump| seen.note(dump));
        seen.apply(&mut groups, now());
        assert!(!groups[0].is_new, "older dumps may still be listed");
        seen.is_listed = true;
        groups[0].fingerprint = None;
        seen.apply(&mut groups, now());
        assert!(groups[1].is_new && !groups[0].is_new);
        seen.add(groups[1].fingerprint.as_deref().unwrap(), oldest);
        seen.apply(&mut groups, now());
        assert!(!groups[1].is_new, "the store knows of an older dump");
    }
}
