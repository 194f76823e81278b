//! Decides which dumps to delete: limits on age, on the number of equal crashes, and on the total
//! size.
//!
//! Time, fingerprint and size of a dump come from its key, and every writer of objects chooses keys.
//! Invariant: a dump is only deleted because of other dumps if the manifests of these prove that they are
//! dumps. Therefore [`Retention::plan`] first reads the manifests of dumps that stay while another one is
//! deleted because of them. Objects that are not dumps are neither counted nor deleted. A writer who uploads
//! complete dumps can still displace others; versioning or Object Lock of the bucket protects against that.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use cdh_bundle::Manifest;
use jiff::{SignedDuration, Timestamp};

use crate::{DumpSummary, ObjectKey};

/// Maximum difference between the clocks of nodes, of the store and of this machine.
const CLOCK_SKEW: SignedDuration = SignedDuration::from_hours(1);
/// Bytes that a zip needs for one entry besides its contents and name: local header, data descriptor,
/// directory record, alignment of a core's frames (APPNOTE.TXT of PKWARE, 4.3).
const ENTRY_OVERHEAD: u64 = 8 << 10;

/// Limits that apply independently. Without any, nothing is deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    /// Deletes dumps captured before this time, if their objects were written before it, too: a node's clock
    /// may be wrong, and a copy of a store has new objects.
    pub oldest: Option<Timestamp>,
    /// Number of newest dumps of each fingerprint that stay. Dumps without a fingerprint are not
    /// counted.
    pub per_fingerprint: Option<usize>,
    /// Maximum bytes of all bundles together; the oldest are deleted. A bundle that exceeds the limit
    /// alone is deleted without displacing others. Bundles of unknown size count as 0.
    pub total: Option<u64>,
}

/// Why a dump may be deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Expired {
    /// It is too old.
    Age,
    /// There are enough newer ones of the same crash.
    Count,
    /// All dumps together exceed the size limit.
    Size,
}

impl Expired {
    /// The option of `cdh gc` whose limit applies.
    #[must_use]
    pub fn option(self) -> &'static str {
        match self {
            Self::Age => "--older-than",
            Self::Count => "--keep-per-fingerprint",
            Self::Size => "--max-total",
        }
    }

    /// The reason in words, with the limit: `older than --older-than`.
    #[must_use]
    pub fn describe(self) -> &'static str {
        match self {
            Self::Age => "older than `--older-than`",
            Self::Count => "enough newer ones of the same crash (`--keep-per-fingerprint`)",
            Self::Size => "newer dumps fill `--max-total`",
        }
    }
}

impl Retention {
    /// The dumps to delete, oldest first, each with its first reason.
    #[must_use]
    pub fn expired(&self, dumps: &[DumpSummary]) -> Vec<(DumpSummary, Expired)> {
        let mut newest_first: Vec<&DumpSummary> = dumps.iter().collect();
        newest_first.sort_by(|a, b| (b.captured_at, &b.key).cmp(&(a.captured_at, &a.key)));
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        let mut total: u64 = 0;
        let mut expired = Vec::new();
        for dump in newest_first {
            let too_old = self.is_too_old(dump);
            let mut too_many = || {
                let (Some(limit), Some(fingerprint)) =
                    (self.per_fingerprint, dump.fingerprint.as_deref())
                else {
                    return false;
                };
                let count = counts.entry(fingerprint).or_default();
                *count = count.saturating_add(1);
                *count > limit
            };
            let reason = if too_old {
                Some(Expired::Age)
            } else if too_many() {
                Some(Expired::Count)
            } else if self.is_too_large(dump) {
                Some(Expired::Size)
            } else {
                let with = total.saturating_add(dump.size.unwrap_or(0));
                let fits = self.total.is_none_or(|limit| with <= limit);
                // Once a dump does not fit, no older one may take its place.
                total = if fits { with } else { u64::MAX };
                (!fits).then_some(Expired::Size)
            };
            expired.extend(reason.map(|reason| (dump.clone(), reason)));
        }
        expired.reverse();
        expired
    }

    /// Whether it exceeds the limit alone.
    fn is_too_large(&self, dump: &DumpSummary) -> bool {
        self.total
            .is_some_and(|limit| dump.size.unwrap_or(0) > limit)
    }

    fn is_too_old(&self, dump: &DumpSummary) -> bool {
        let newest = dump
            .modified
            .map_or(dump.captured_at, |written| written.max(dump.captured_at));
        self.oldest.is_some_and(|oldest| newest < oldest)
    }

    /// Like [`expired`](Self::expired), but objects that are not dumps displace nothing. `read` returns the
    /// manifests of some dumps. It is called for those that stay while others of the same crash are deleted,
    /// and for all that stay if the size limit applies; once per dump.
    pub fn plan<E>(
        &self,
        dumps: &[DumpSummary],
        now: Timestamp,
        read: &mut ReadManifests<'_, E>,
    ) -> RetentionPlan {
        let mut known: HashMap<ObjectKey, bool> = HashMap::new();
        for dump in dumps {
            let latest = dump.modified.map_or(now, |written| written.min(now));
            if dump.captured_at > latest.saturating_add(CLOCK_SKEW).unwrap_or(latest) {
                known.insert(dump.key.clone(), false);
            }
        }
        // If many are not dumps, each round checks more.
        let mut ahead = 1_usize;
        loop {
            let counts = |dump: &&DumpSummary| known.get(&dump.key) != Some(&false);
            let counted: Vec<DumpSummary> = dumps.iter().filter(counts).cloned().collect();
            let expired = self.expired(&counted);
            let unsure = self.unsure(&counted, &expired, &known, ahead);
            if unsure.is_empty() {
                let not_counted = dumps.iter().filter(|dump| !counts(dump));
                let (old, not_counted) = not_counted
                    .cloned()
                    .partition::<Vec<_>, _>(|dump| self.is_too_old(dump));
                let old = old.into_iter().map(|dump| (dump, Expired::Age));
                return RetentionPlan {
                    expired: old.chain(expired).collect(),
                    not_counted,
                };
            }
            let manifests = read(&unsure);
            let mut wrong = 0_usize;
            for (dump, manifest) in unsure.into_iter().zip(manifests) {
                let agrees = manifest.is_ok_and(|manifest| agrees(&dump, &manifest));
                wrong = wrong.saturating_add(usize::from(!agrees));
                known.insert(dump.key, agrees);
            }
            if wrong > 0 {
                ahead = ahead.saturating_mul(2);
            }
        }
    }

    /// The dumps in `counted` that make others expire and were not checked yet.
    fn unsure(
        &self,
        counted: &[DumpSummary],
        expired: &[(DumpSummary, Expired)],
        known: &HashMap<ObjectKey, bool>,
        ahead: usize,
    ) -> Vec<DumpSummary> {
        let gone: BTreeMap<&ObjectKey, Expired> = expired
            .iter()
            .map(|(dump, why)| (&dump.key, *why))
            .collect();
        let displaced = |dump: &DumpSummary| {
            gone.get(&dump.key) == Some(&Expired::Size) && !self.is_too_large(dump)
        };
        let for_size = counted.iter().any(displaced);
        let crashes: BTreeSet<&str> = expired
            .iter()
            .filter(|(_, why)| *why == Expired::Count)
            .filter_map(|(dump, _)| dump.fingerprint.as_deref())
            .collect();
        let mut looked_at: BTreeMap<&str, usize> = BTreeMap::new();
        let most = self.per_fingerprint.unwrap_or(0).saturating_mul(ahead);
        let mut newest_first: Vec<&DumpSummary> = counted.iter().collect();
        newest_first.sort_by(|a, b| (b.captured_at, &b.key).cmp(&(a.captured_at, &a.key)));
        let mut unsure = Vec::new();
        // After the first one that does not fit, all older ones are deleted.
        let mut is_full = false;
        for dump in newest_first {
            let why = gone.get(&dump.key);
            let fingerprint = dump.fingerprint.as_deref().unwrap_or_default();
            let is_displaced = displaced(dump);
            let fills = why.is_none() || is_displaced && !is_full;
            is_full |= is_displaced;
            let mut is_needed = for_size && fills;
            if crashes.contains(fingerprint) && why != Some(&Expired::Age) {
                let count = looked_at.entry(fingerprint).or_default();
                *count = count.saturating_add(1);
                is_needed |= *count <= most;
            }
            if is_needed && !known.contains_key(&dump.key) {
                unsure.push(dump.clone());
            }
        }
        unsure
    }
}

/// Returns the manifests of some dumps, in their order.
pub type ReadManifests<'r, E> = dyn FnMut(&[DumpSummary]) -> Vec<Result<Manifest, E>> + 'r;

/// The effect of retention limits on a store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RetentionPlan {
    /// The dumps to delete, each with its reason.
    pub expired: Vec<(DumpSummary, Expired)>,
    /// Objects that look like dumps but are not: their time is in the future, or their manifest
    /// contradicts key and object. They are neither counted nor deleted.
    pub not_counted: Vec<DumpSummary>,
}

/// Whether the manifest beside a bundle describes this dump: id, time, fingerprint, and a size that the zip
/// of its entries can have. For IBM's zips, the manifest is made from the zip itself.
fn agrees(dump: &DumpSummary, manifest: &Manifest) -> bool {
    if dump.legacy {
        return manifest.id == dump.id;
    }
    let short = |text: Option<&str>| text.unwrap_or_default().chars().take(8).collect::<String>();
    let fingerprint = short(manifest.fingerprint.as_deref());
    let same_crash = fingerprint == short(dump.fingerprint.as_deref());
    let same_time = manifest.listed_at().as_second() == dump.captured_at.as_second();
    let stored = manifest.entries.iter().map(|entry| {
        let name = entry.name.len() as u64;
        let size = entry.stored_size.unwrap_or(entry.size);
        (size, name.saturating_mul(2).saturating_add(ENTRY_OVERHEAD))
    });
    let (least, overhead) = stored.fold((0_u64, ENTRY_OVERHEAD), |sum, entry| {
        (sum.0.saturating_add(entry.0), sum.1.saturating_add(entry.1))
    });
    // The zip also contains the manifest.
    let own = manifest.to_json().map_or(0, |json| json.len() as u64);
    let most = least
        .saturating_add(overhead)
        .saturating_add(own.saturating_mul(2));
    let has_its_size = dump.size.is_none_or(|size| (least..=most).contains(&size));
    manifest.id == dump.id && same_time && same_crash && has_its_size
}

#[cfg(test)]
mod tests {
    use cdh_bundle::DumpId;

    use super::*;
    use crate::ObjectKey;

    /// A dump from this day of January.
    fn dump(day: u8, fingerprint: &str, size: u64) -> DumpSummary {
        let key = format!(
            "dumps/2026-01-{day:02}/120000Z_-_-_x_SIGSEGV_{fingerprint}_complete_{}.zip",
            DumpId::random()
        );
        let mut dump = DumpSummary::from_key(&ObjectKey::parse(&key).unwrap()).unwrap();
        dump.size = Some(size);
        dump
    }

    /// The manifest of a dump as an agent writes it.
    fn manifest(dump: &DumpSummary) -> Manifest {
        let json = serde_json::json!({
            "schema": 1, "id": dump.id, "stem": "s", "captured_at": dump.captured_at,
            "process": {"pid": 1}, "signal": {"number": 11}, "fingerprint": dump.fingerprint,
            "verdict": cdh_bundle::Verdict::Complete,
            "entries": [{"name": "s.core.zst", "size": dump.size, "crc32": 0, "sha256": "00".repeat(32)}],
        });
        serde_json::from_value(json).unwrap()
    }

    fn keys<'d>(dumps: impl IntoIterator<Item = &'d DumpSummary>) -> Vec<String> {
        let mut keys: Vec<_> = dumps.into_iter().map(|dump| dump.key.to_string()).collect();
        keys.sort();
        keys
    }

    #[test]
    fn retention_plan_counts_only_what_its_manifest_shows_to_be_a_dump() {
        let now: Timestamp = "2026-02-01T00:00:00Z".parse().unwrap();
        let real = [dump(1, "aaaaaaaa", 100), dump(2, "aaaaaaaa", 100)];
        let fakes: Vec<_> = (3..=28).map(|day| dump(day, "aaaaaaaa", 1)).collect();
        let mut future = dump(9, "aaaaaaaa", 100);
        future.captured_at = "2027-01-01T00:00:00Z".parse().unwrap();
        let mut late = dump(9, "aaaaaaaa", 100);
        late.modified = Some("2026-01-05T00:00:00Z".parse().unwrap());
        let huge = dump(29, "bbbbbbbb", 1 << 40);
        let all: Vec<_> = real
            .iter()
            .chain(&fakes)
            .chain([&future, &late, &huge])
            .cloned()
            .collect();
        let mut asked = Vec::new();
        let mut read = |some: &[DumpSummary]| -> Vec<Result<Manifest, ()>> {
            asked.extend(keys(some));
            let answer = |dump: &DumpSummary| {
                let mut stated = dump.clone();
                match dump.size {
                    Some(1) => return Err(()),
                    Some(size) if size > 1 << 30 => stated.size = Some(100),
                    _ => {}
                }
                Ok(manifest(&stated))
            };
            some.iter().map(answer).collect()
        };
        for retention in [
            Retention {
                per_fingerprint: Some(2),
                ..Retention::default()
            },
            Retention {
                total: Some(1000),
                ..Retention::default()
            },
        ] {
            let plan = retention.plan(&all, now, &mut read);
            let expired: Vec<_> = plan.expired.iter().map(|(dump, _)| &dump.key).collect();
            // A dump that exceeds the limit alone displaces nothing.
            let alone = retention.total.map(|_| &huge.key);
            assert_eq!(expired, Vec::from_iter(alone), "{retention:?}");
            let not_counted = keys(&plan.not_counted);
            assert!(
                not_counted.contains(&future.key.to_string()),
                "{retention:?}"
            );
            assert!(not_counted.contains(&late.key.to_string()), "{retention:?}");
        }
        let one = Retention {
            per_fingerprint: Some(1),
            ..Retention::default()
        };
        let plan = one.plan(&all, now, &mut read);
        let expired: Vec<_> = plan
            .expired
            .iter()
            .map(|(dump, why)| (&dump.key, *why))
            .collect();
        assert_eq!(expired, [(&real[0].key, Expired::Count)]);
    }

    #[test]
    fn retention_plan_reads_only_dumps_for_which_others_go() {
        let now: Timestamp = "2026-02-01T00:00:00Z".parse().unwrap();
        let mut all: Vec<_> = (1..=28).map(|day| dump(day, "bbbbbbbb", 10)).collect();
        all.extend((1..=9).map(|day| dump(day, "aaaaaaaa", 10)));
        let mut asked = Vec::new();
        let mut read = |some: &[DumpSummary]| -> Vec<Result<Manifest, ()>> {
            asked.extend_from_slice(some);
            some.iter().map(|dump| Ok(manifest(dump))).collect()
        };
        let retention = Retention {
            per_fingerprint: Some(9),
            ..Retention::default()
        };
        let plan = retention.plan(&all, now, &mut read);
        assert_eq!((plan.expired.len(), plan.not_counted.len()), (19, 0));
        assert_eq!(keys(&asked), keys(&all[19..28]));
    }

    #[test]
    fn age_of_a_dump_is_not_more_than_that_of_its_object() {
        let now: Timestamp = "2026-02-01T00:00:00Z".parse().unwrap();
        let (mut new, mut old) = (dump(1, "a", 10), dump(1, "a", 10));
        new.modified = Some("2026-01-30T00:00:00Z".parse().unwrap());
        old.modified = Some("2026-01-01T13:00:00Z".parse().unwrap());
        let retention = Retention {
            oldest: Some("2026-01-20T00:00:00Z".parse().unwrap()),
            ..Retention::default()
        };
        let mut read = |_: &[DumpSummary]| -> Vec<Result<Manifest, ()>> { Vec::new() };
        let plan = retention.plan(&[new, old.clone()], now, &mut read);
        assert_eq!(plan.expired, [(old, Expired::Age)]);
    }

    fn days(retention: &Retention, dumps: &[DumpSummary]) -> Vec<(String, Expired)> {
        let expired = retention.expired(dumps).into_iter();
        expired
            .map(|(dump, why)| (dump.captured_at.to_string()[8..10].to_owned(), why))
            .collect()
    }

    #[test]
    fn each_limit_holds_for_itself_and_the_oldest_go_first() {
        let dumps = [
            dump(5, "a", 10),
            dump(1, "a", 10),
            dump(4, "a", 10),
            dump(3, "b", 10),
            dump(2, "-", 10),
        ];
        let none = Retention::default();
        assert!(days(&none, &dumps).is_empty());
        let age = Retention {
            oldest: Some("2026-01-03T00:00:00Z".parse().unwrap()),
            ..none
        };
        let old = |day: &str, why| (day.to_owned(), why);
        assert_eq!(
            days(&age, &dumps),
            [old("01", Expired::Age), old("02", Expired::Age)]
        );
        let count = Retention {
            per_fingerprint: Some(1),
            ..none
        };
        assert_eq!(
            days(&count, &dumps),
            [old("01", Expired::Count), old("04", Expired::Count)]
        );
        let size = Retention {
            total: Some(25),
            ..none
        };
        let reasons = days(&size, &dumps);
        assert_eq!(reasons.len(), 3);
        assert!(
            reasons
                .iter()
                .all(|(day, why)| day < &"04".to_owned() && *why == Expired::Size)
        );
        let all = Retention {
            oldest: age.oldest,
            per_fingerprint: Some(1),
            total: Some(15),
        };
        let reasons: Vec<_> = days(&all, &dumps).into_iter().map(|(_, why)| why).collect();
        assert_eq!(
            reasons,
            [Expired::Age, Expired::Age, Expired::Size, Expired::Count]
        );
    }
}
