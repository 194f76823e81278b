//! Parses times and durations that users type.

use anyhow::Result;
use jiff::{SignedDuration, Timestamp, civil, tz::Offset};

use crate::report::{ExitStatus, Failure};

/// A point in time in the formats of systemd.time(7): an age (`90s`, `15m`, `2h`, `7d`, `2w`, `2 hours ago`), a date,
/// a date and time, a time of today, `now`, `today`, `yesterday`, or seconds since 1970 (`@1700000000`). UTC unless
/// it has an offset.
pub(crate) fn parse_when(text: &str, now: Timestamp) -> Result<Timestamp> {
    let known = text.trim();
    let known = known.strip_suffix(" UTC").unwrap_or(known);
    relative(known, now)
        .or_else(|| known.parse::<Timestamp>().ok())
        .or_else(|| known.parse::<civil::DateTime>().ok().and_then(utc))
        .or_else(|| known.parse::<civil::Date>().ok().and_then(|date| utc(date.at(0, 0, 0, 0))))
        .ok_or_else(|| {
            let message = format!("invalid time `{text}`: expected an age, a date, or a date and time");
            Failure::new(ExitStatus::Failure, message)
                .hint("for example `90s`, `15m`, `2h`, `7d` or `2w` ago, `yesterday`, `2026-01-31`, or `2026-01-31T12:00:00Z`")
                .into()
        })
}

fn utc(civil: civil::DateTime) -> Option<Timestamp> {
    Offset::UTC.to_timestamp(civil).ok()
}

/// A time relative to now.
fn relative(text: &str, now: Timestamp) -> Option<Timestamp> {
    let today = Offset::UTC.to_datetime(now).date();
    let midnight = |date: civil::Date| utc(date.at(0, 0, 0, 0));
    match text {
        "now" => return Some(now),
        "today" => return midnight(today),
        "yesterday" => return midnight(today.yesterday().ok()?),
        "tomorrow" => return midnight(today.tomorrow().ok()?),
        _ => {}
    }
    if let Some(second) = text.strip_prefix('@') {
        return Timestamp::from_second(second.parse().ok()?).ok();
    }
    if let Some(span) = text.strip_prefix('+') {
        return now
            .checked_add(SignedDuration::from_secs(seconds(span)?))
            .ok();
    }
    let span = text.strip_prefix('-').unwrap_or(text);
    let span = span.strip_suffix(" ago").unwrap_or(span);
    if let Some(seconds) = seconds(span) {
        return now.checked_sub(SignedDuration::from_secs(seconds)).ok();
    }
    // `12:30`, today.
    let is_time = text.contains(':') && !text.contains(['-', 'T', ' ']);
    let time: civil::Time = is_time.then(|| text.parse().ok())??;
    utc(today.to_datetime(time))
}

/// Parses a duration into seconds: `90s`, `15m`, `2h`, `7d`, `2w`, `1h30m`, `2 hours`.
fn seconds(text: &str) -> Option<i64> {
    const HOUR: i64 = 3600;
    const DAY: i64 = 24 * HOUR;
    let mut rest = text.trim();
    if rest.is_empty() {
        return None;
    }
    let mut sum = 0_i64;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (count, after) = rest.split_at_checked(digits)?;
        let after = after.trim_start();
        let letters = after.bytes().take_while(u8::is_ascii_alphabetic).count();
        let (unit, after) = after.split_at_checked(letters)?;
        let unit = match unit {
            "s" | "sec" | "second" | "seconds" => 1,
            "m" | "min" | "minute" | "minutes" => 60,
            "h" | "hr" | "hour" | "hours" => HOUR,
            "d" | "day" | "days" => DAY,
            "w" | "week" | "weeks" => 7 * DAY,
            // As in systemd.time(7): 30.44 and 365.25 days.
            "month" | "months" => 2_629_800,
            "year" | "years" => 31_557_600,
            _ => return None,
        };
        let count: i64 = count.parse().ok()?;
        sum = sum.checked_add(count.checked_mul(unit)?)?;
        rest = after.trim_start();
    }
    Some(sum)
}

/// A duration for clap, in seconds.
///
/// # Errors
/// An explanation, if it is invalid.
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
            ("-2h", "2026-01-31T10:00:00Z"),
            ("2 hours ago", "2026-01-31T10:00:00Z"),
            ("1h30m", "2026-01-31T10:30:00Z"),
            ("+1d", "2026-02-01T12:00:00Z"),
            ("now", "2026-01-31T12:00:00Z"),
            ("today", "2026-01-31T00:00:00Z"),
            ("yesterday", "2026-01-30T00:00:00Z"),
            ("09:15", "2026-01-31T09:15:00Z"),
            ("@1700000000", "2023-11-14T22:13:20Z"),
            ("2026-01-30 01:02:03", "2026-01-30T01:02:03Z"),
            ("2026-01-30 01:02 UTC", "2026-01-30T01:02:00Z"),
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
            "-",
            "1 fortnight",
            "someday",
            "@",
            "12:99",
            "99999999999999999999d",
            "2026-13-01",
        ] {
            assert!(parse_when(text, now).is_err(), "{text}");
        }
    }
}
