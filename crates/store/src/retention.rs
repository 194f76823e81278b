//! Which dumps a store may lose: limits on age, on the number of equal crashes, and on the whole.

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::DumpSummary;

/// Limits; each holds for itself. Without any, everything stays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    /// Dumps from before this go.
    pub oldest: Option<Timestamp>,
    /// So many dumps of each fingerprint stay, the newest. Dumps without one are not counted.
    pub per_fingerprint: Option<usize>,
    /// Bytes of all bundles together; the oldest go first. A bundle whose size is not known counts as
    /// nothing.
    pub total: Option<u64>,
}

/// Why a dump may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Expired {
    /// It is too old.
    Age,
    /// There are enough newer ones of the same crash.
    Count,
    /// All together take too much room.
    Size,
}

impl Expired {
    /// In words, with the limit that it is over: `older than --older-than`.
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
    /// The dumps that may go, the oldest first, each with the first reason that it has.
    #[must_use]
    pub fn expired(&self, dumps: &[DumpSummary]) -> Vec<(DumpSummary, Expired)> {
        let mut newest_first: Vec<&DumpSummary> = dumps.iter().collect();
        newest_first.sort_by(|a, b| (b.captured_at, &b.key).cmp(&(a.captured_at, &a.key)));
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        let mut total: u64 = 0;
        let mut expired = Vec::new();
        for dump in newest_first {
            let too_old = self.oldest.is_some_and(|oldest| dump.captured_at < oldest);
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
            } else {
                let with = total.saturating_add(dump.size.unwrap_or(0));
                let fits = self.total.is_none_or(|limit| with <= limit);
                // Once one does not fit, no older one stays in its place.
                total = if fits { with } else { u64::MAX };
                (!fits).then_some(Expired::Size)
            };
            expired.extend(reason.map(|reason| (dump.clone(), reason)));
        }
        expired.reverse();
        expired
    }
}

#[cfg(test)]
mod tests {
    use cdh_bundle::DumpId;

    use super::*;
    use crate::ObjectKey;

    /// A dump of this day of January.
    fn dump(day: u8, fingerprint: &str, size: u64) -> DumpSummary {
        let key = format!(
            "dumps/2026-01-{day:02}/120000Z_-_-_x_SIGSEGV_{fingerprint}_complete_{}.zip",
            DumpId::random()
        );
        let mut dump = DumpSummary::from_key(&ObjectKey::parse(&key).unwrap()).unwrap();
        dump.size = Some(size);
        dump
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
