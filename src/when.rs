//! Points in time and spans of it, as people type them.

use anyhow::Result;
use jiff::{SignedDuration, Timestamp, civil, tz::Offset};

use crate::report::{ExitStatus, Failure};

/// A point in time: an age (`90s`, `15m`, `2h`, `7d`, `2w`), a date, or a date and time (UTC unless it says otherwise).
pub(crate) fn parse_when(text: &str, now: Timestamp) -> Result<Timestamp> {
    let age = || {
        now.checked_sub(SignedDuration::from_secs(seconds(text)?))
            .ok()
    };
    let utc = |civil: civil::DateTime| Offset::UTC.to_timestamp(civil).ok();
    age()
        .or_else(|| text.parse::<Timestamp>().ok())
        .or_else(|| text.parse::<civil::DateTime>().ok().and_then(utc))
        .or_else(|| text.parse::<civil::Date>().ok().and_then(|date| utc(date.at(0, 0, 0, 0))))
        .ok_or_else(|| {
            let message = format!("invalid time `{text}`: expected an age, a date, or a date and time");
            Failure::new(ExitStatus::Failure, message)
                .hint("for example `90s`, `15m`, `2h`, `7d` or `2w` ago, `2026-01-31`, or `2026-01-31T12:00:00Z`")
                .into()
        })
}

/// A span of time: `90s`, `15m`, `2h`, `7d`, `2w`; its seconds.
fn seconds(text: &str) -> Option<i64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match text.get(digits.len()..)? {
        "s" => 1,
        "m" | "min" => 60,
        "h" => 3600,
        "d" => 86400,
        "w" => 7 * 86400,
        _ => return None,
    };
    let count: i64 = digits.parse().ok().filter(|&count| count >= 0)?;
    count.checked_mul(unit)
}

/// A span of time for clap, in seconds.
///
/// # Errors
/// In words, when it is none.
pub fn parse_span(text: &str) -> Result<u64, String> {
    seconds(text)
        .and_then(|seconds| u64::try_from(seconds).ok())
        .filter(|seconds| *seconds > 0)
        .ok_or_else(|| {
            "expected a number with a unit, such as `90s`, `15m`, `24h`, `7d` or `2w`".to_owned()
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_dates_and_times_are_points_in_time() {
        let now: Timestamp = "2026-01-31T12:00:00Z".parse().unwrap();
        let table = [
            ("2h", "2026-01-31T10:00:00Z"),
            ("7d", "2026-01-24T12:00:00Z"),
            ("2026-01-30", "2026-01-30T00:00:00Z"),
            ("2026-01-30T01:02:03", "2026-01-30T01:02:03Z"),
            ("2026-01-30T01:02:03+01:00", "2026-01-30T00:02:03Z"),
        ];
        for (text, expected) in table {
            assert_eq!(
                parse_when(text, now).unwrap(),
                expected.parse().unwrap(),
                "{text}"
            );
        }
    }

    #[test]
    fn spans_are_numbers_with_a_unit() {
        assert_eq!(parse_span("24h"), Ok(86400));
        for text in ["", "0s", "h", "-1d", "5", "1y"] {
            assert!(parse_span(text).is_err(), "{text}");
        }
    }

    #[test]
    fn invalid_times_are_refused() {
        let now = Timestamp::now();
        for text in [
            "",
            "h",
            "-1d",
            "yesterday",
            "99999999999999999999d",
            "2026-13-01",
        ] {
            assert!(parse_when(text, now).is_err(), "{text}");
        }
    }
}
