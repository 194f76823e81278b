//! Selects which entries are deleted to make room: fair shares of the owners.
//!
//! Room comes from the owner that uses the most, its oldest dump first. An owner that needs room
//! only gets it from owners that use more than itself; otherwise its own older dumps are deleted. A
//! flood of one owner therefore ends in its own dumps, however many they are. If an owner uses more
//! than the average and has only its last core, its minicores and then its dumps are deleted before
//! a smaller owner's core. The last dump of each owner is deleted only after all others. An owner
//! without entries in the spool may get room from every owner that has more than one dump.
//!
//! A dump that is being written or uploaded cannot be deleted. Such dumps of one owner therefore
//! leave a part of the quota to others, and no number of concurrent crashes fills the spool.

use std::collections::BTreeMap;
use std::path::Path;

use super::charged_entry::ChargedEntry;
use super::giving_up::give_up;
use crate::ledger::LedgerRecord;
use crate::outcome::Action;

/// Bytes that every dump needs: minicore, facts, log.
pub(super) const SURE_NEED: u64 = 2 << 20;

/// Order in which dumps are deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum GiveUp {
    /// The oldest dump of the owner that uses the most.
    OldestOfLargest,
    /// The newest dump of another owner that uses more than the one that needs room.
    NewestOfOthers,
}

/// Purpose of the room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Need {
    /// A core, whose final size is unknown.
    Core,
    /// The minimum that every dump needs.
    Small,
}

/// Entries that share one quota.
pub(super) struct Pool {
    items: Vec<ChargedEntry>,
    /// The owner that needs room.
    share: Option<String>,
    /// Bytes of all entries, including those still to come.
    pub(super) used: u64,
    /// Current bytes of all entries.
    pub(super) stored: u64,
    /// Bytes freed so far.
    pub(super) freed: u64,
}

impl Pool {
    /// `uploads` is the directory of the upload journals.
    pub(super) fn new(mut items: Vec<ChargedEntry>, share: Option<String>, uploads: &Path) -> Self {
        items.sort_by_key(|item| item.born);
        for item in &mut items {
            // An upload that has started must find the entry unchanged.
            let upload = uploads.join(format!("{}.journal", item.id));
            item.fixed = !item.sealed || upload.exists();
        }
        Self {
            used: items
                .iter()
                .map(ChargedEntry::weight)
                .fold(0, u64::saturating_add),
            stored: items
                .iter()
                .map(|item| item.bytes)
                .fold(0, u64::saturating_add),
            freed: 0,
            items,
            share,
        }
    }

    /// Bytes of this quota that the owner may use for a dump that cannot be deleted while it is
    /// written. A quarter is left for others if others have dumps here, and another quarter if the
    /// owner already has such dumps.
    pub(super) fn allowance(&self, quota: u64) -> u64 {
        let Some(share) = &self.share else {
            return quota;
        };
        let fixed_bytes = |is_own: bool| {
            let items = self.items.iter().filter(|item| item.fixed);
            let items = items.filter(|item| (item.share == *share) == is_own);
            items.map(ChargedEntry::weight).fold(0, u64::saturating_add)
        };
        let own = fixed_bytes(true);
        let left = quota.saturating_sub(fixed_bytes(false));
        let has_others = self.items.iter().any(|item| item.share != *share);
        let quarters = u64::from(has_others) + u64::from(own > 0);
        left.saturating_sub((left / 4).saturating_mul(quarters))
            .saturating_sub(own)
    }

    /// Deletes cores, then minicores, then dumps, until `fits`. `need` is what the owner that needs
    /// room is about to add.
    pub(super) fn reduce(
        &mut self,
        order: GiveUp,
        need: u64,
        fits: impl Fn(&Self, Need) -> bool,
    ) -> Vec<LedgerRecord> {
        let mut records = Vec::new();
        let small = need.min(SURE_NEED);
        for (stage, wants, need) in [
            (Action::Minicore, Need::Core, need),
            (Action::Minicore, Need::Small, small),
            (Action::Metadata, Need::Small, small),
            (Action::Ignore, Need::Small, small),
        ] {
            while !fits(self, wants) {
                let candidate = self.candidate(stage, order, need);
                let Some((at, stage)) = candidate else {
                    break;
                };
                let Some(item) = self.items.get_mut(at) else {
                    break;
                };
                let is_own = self.share.as_ref() == Some(&item.share);
                let Ok(record) = give_up(item, stage, is_own) else {
                    // It is being uploaded or cannot be changed: try the next one.
                    item.fixed = true;
                    continue;
                };
                let worth = item.worth(stage);
                let before = item.weight();
                item.bytes = item.bytes.saturating_sub(worth);
                match stage {
                    Action::Minicore => item.core = 0,
                    Action::Metadata => item.minicore = 0,
                    _ => item.fixed = true,
                }
                self.used = self
                    .used
                    .saturating_sub(before.saturating_sub(item.weight()));
                self.stored = self.stored.saturating_sub(worth);
                self.freed = self.freed.saturating_add(worth);
                records.extend(record);
            }
        }
        records
    }

    /// The entry to reduce next, and its new stage.
    fn candidate(&self, stage: Action, order: GiveUp, need: u64) -> Option<(usize, Action)> {
        let usage = self.usage(stage, need);
        let is_own = |share: &str| self.share.as_deref() == Some(share);
        let own = self.share.as_deref().and_then(|share| usage.get(share));
        let own_bytes = own.map_or(0, |own| own.bytes);
        // An owner whose cores were deleted is not new: otherwise a flood would be first again with
        // every crash.
        let is_first = own.is_some_and(|own| own.entries == 0 && !own.is_writing)
            && order == GiveUp::OldestOfLargest
            && stage == Action::Minicore;
        let may_give = |share: &str, found: &Usage| match order {
            GiveUp::OldestOfLargest => is_own(share) || found.bytes > own_bytes,
            GiveUp::NewestOfOthers => !is_own(share) && found.bytes > own_bytes,
        };
        let largest = |fits: &dyn Fn(&str, &Usage) -> bool| {
            let found = usage.iter().filter(|(share, found)| fits(share, found));
            found.max_by_key(|(share, found)| (found.bytes, is_own(share)))
        };
        let gives = |found: &Usage| found.can_give && found.dumps > 1;
        let giver = largest(&|share, found| gives(found) && may_give(share, found))
            .or_else(|| largest(&|_, found| is_first && gives(found)))
            .or_else(|| largest(&|share, found| found.can_give && may_give(share, found)));
        if stage == Action::Minicore && order == GiveUp::OldestOfLargest {
            let least = giver.map_or(0, |(_, found)| found.bytes);
            let all = usage.values().map(|found| found.bytes);
            let average = all.fold(0, u64::saturating_add) / (usage.len() as u64).max(1);
            let exceeds = largest(&|share, found| {
                !is_own(share)
                    && !gives(found)
                    && found.entries > 1
                    && found.bytes > least.max(average)
                    && (is_first || may_give(share, found))
            });
            let rest = exceeds.and_then(|(share, _)| {
                let stages = [Action::Metadata, Action::Ignore].into_iter();
                let mut found = stages.map(|stage| {
                    // Its last core is preserved, with the files that belong to it.
                    let item =
                        |item: &ChargedEntry| item.core == 0 && item.can_become(share, stage);
                    Some((self.items.iter().position(item)?, stage))
                });
                found.find_map(|found| found)
            });
            if rest.is_some() {
                return rest;
            }
        }
        self.entry_of(giver?.0, stage, order)
    }

    /// Usage of each owner. `need` is what the owner that needs room is about to add.
    fn usage(&self, stage: Action, need: u64) -> BTreeMap<&str, Usage> {
        let mut usage: BTreeMap<&str, Usage> = BTreeMap::new();
        if let Some(share) = &self.share {
            usage.entry(share).or_default().bytes = need;
        }
        for item in &self.items {
            let of_share = usage.entry(&item.share).or_default();
            let has_worth = item.sealed && item.worth(stage) > 0;
            of_share.bytes = of_share.bytes.saturating_add(item.weight());
            of_share.entries += usize::from(item.sealed && item.bytes > 0);
            of_share.dumps += usize::from(has_worth);
            of_share.is_writing |= item.need > 0;
            of_share.can_give |= has_worth && !item.fixed;
        }
        usage
    }

    /// The first entry of an owner, in this order, that can be reduced to this stage.
    fn entry_of(&self, share: &str, stage: Action, order: GiveUp) -> Option<(usize, Action)> {
        let usable = |item: &ChargedEntry| item.can_become(share, stage);
        let at = match order {
            GiveUp::OldestOfLargest => self.items.iter().position(usable),
            GiveUp::NewestOfOthers => self.items.iter().rposition(usable),
        };
        Some((at?, stage))
    }
}

/// Usage of one owner.
#[derive(Default)]
struct Usage {
    /// Bytes of all its entries, including what it may still write.
    bytes: u64,
    /// Number of sealed entries.
    entries: usize,
    /// Sealed entries that can be reduced to the current stage.
    dumps: usize,
    /// It is writing a core.
    is_writing: bool,
    /// One of `dumps` can be reduced now.
    can_give: bool,
}
