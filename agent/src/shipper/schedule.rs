//! Cron expressions.
//!
//! ```text
//! minute hour day-of-month month day-of-week        30 2 * * mon-fri
//! second minute hour day-of-month month day-of-week  0 0/15 * * * *
//! ```
//!
//! Five fields as in crontab; six, or seven with a year that must be `*`, as in IBM's agent.
//! Supports lists, ranges, steps, names, and macros such as `@hourly`. If both day fields are
//! restricted, one of them must match, as in cron. Times are UTC, so no hour is skipped or
//! repeated.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use jiff::civil::{Date, DateTime, Time};
use jiff::tz::TimeZone;

/// Years to search: 29 February on a Monday comes within 28; a century without a leap year adds 12.
const YEARS: i16 = 41;

/// A parsed cron expression.
#[derive(Clone, PartialEq, Eq)]
pub struct Schedule {
    text: String,
    seconds: u64,
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
    /// Whether a match of one of the two day fields is enough.
    either_day: bool,
}

impl fmt::Debug for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Schedule({})", self.text)
    }
}

/// Why a text is not a valid schedule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ScheduleError {
    /// Too few or too many fields.
    #[error(
        "it has {found} fields; a schedule has five (`30 2 * * *`), or six with seconds in front"
    )]
    Fields {
        /// The number of fields.
        found: usize,
    },
    /// A field that cannot be parsed.
    #[error("invalid {field} `{text}`: {expected}")]
    Field {
        /// Name of the field.
        field: &'static str,
        /// The text that was found.
        text: String,
        /// What is allowed.
        expected: String,
    },
    /// For example 30 February.
    #[error("the schedule never matches")]
    Never,
}

struct Field {
    name: &'static str,
    low: u32,
    high: u32,
    names: &'static [&'static str],
}

const MONTHS: [&str; 12] = [
    "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec",
];
const WEEKDAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

const fn field(name: &'static str, low: u32, high: u32) -> Field {
    Field {
        name,
        low,
        high,
        names: &[],
    }
}

const SECOND: Field = field("second", 0, 59);
const MINUTE: Field = field("minute", 0, 59);
const HOUR: Field = field("hour", 0, 23);
const DAY: Field = field("day of the month", 1, 31);
const MONTH: Field = Field {
    name: "month",
    low: 1,
    high: 12,
    names: &MONTHS,
};
/// Sunday is 0 or 7.
const WEEKDAY: Field = Field {
    name: "day of the week",
    low: 0,
    high: 7,
    names: &WEEKDAYS,
};

impl Field {
    fn parse(&self, text: &str) -> Result<u64, ScheduleError> {
        let mut bits = 0;
        for part in text.split(',') {
            bits |= self.part(part).ok_or_else(|| self.wrong(text))?;
        }
        Ok(bits)
    }

    fn part(&self, part: &str) -> Option<u64> {
        let (range, step) = match part.split_once('/') {
            Some((range, step)) => (
                range,
                Some(step.parse::<u32>().ok().filter(|step| *step > 0)?),
            ),
            None => (part, None),
        };
        let (low, high) = match range {
            "*" | "?" => (self.low, self.high),
            range => match range.split_once('-') {
                Some((low, high)) => (self.number(low)?, self.number(high)?),
                // `5/10` starts at 5.
                None if step.is_some() => (self.number(range)?, self.high),
                None => (self.number(range)?, self.number(range)?),
            },
        };
        if low > high {
            return None;
        }
        let step = usize::try_from(step.unwrap_or(1)).ok()?;
        Some(
            (low..=high)
                .step_by(step)
                .fold(0, |bits, number| bits | 1 << number),
        )
    }

    fn number(&self, text: &str) -> Option<u32> {
        let lower = text.to_ascii_lowercase();
        let named = self.names.iter().position(|name| *name == lower);
        let number = match named {
            Some(place) => self.low + u32::try_from(place).ok()?,
            None if text.bytes().all(|byte| byte.is_ascii_digit()) => text.parse().ok()?,
            None => return None,
        };
        (self.low..=self.high).contains(&number).then_some(number)
    }

    fn wrong(&self, text: &str) -> ScheduleError {
        let (low, high) = (self.low, self.high);
        let names = match self.names {
            [first, .., last] => format!(", or `{first}` to `{last}`"),
            _ => String::new(),
        };
        ScheduleError::Field {
            field: self.name,
            text: text.chars().take(64).collect(),
            expected: format!("numbers from {low} to {high}{names}, as `*`, `1,2`, `1-5` or `*/5`"),
        }
    }
}

impl FromStr for Schedule {
    type Err = ScheduleError;

    fn from_str(text: &str) -> Result<Self, ScheduleError> {
        let spelled = match text.trim() {
            "@yearly" | "@annually" => "0 0 1 1 *",
            "@monthly" => "0 0 1 * *",
            "@weekly" => "0 0 * * 0",
            "@daily" | "@midnight" => "0 0 * * *",
            "@hourly" => "0 * * * *",
            other => other,
        };
        let fields: Vec<&str> = spelled.split_whitespace().collect();
        let (second, rest) = match fields.as_slice() {
            all @ [_, _, _, _, _] => ("0", all),
            [second, rest @ ..] if rest.len() == 5 => (*second, rest),
            [second, rest @ .., "*"] if rest.len() == 5 => (*second, rest),
            _ => {
                return Err(ScheduleError::Fields {
                    found: fields.len(),
                });
            }
        };
        let [minute, hour, day, month, weekday] = rest else {
            return Err(ScheduleError::Fields {
                found: fields.len(),
            });
        };
        let mut weekdays = WEEKDAY.parse(weekday)?;
        weekdays = (weekdays | weekdays >> 7) & 0x7f;
        let restricts = |text: &str| !text.starts_with(['*', '?']);
        let schedule = Self {
            text: text.trim().to_owned(),
            seconds: SECOND.parse(second)?,
            minutes: MINUTE.parse(minute)?,
            hours: HOUR.parse(hour)?,
            days: DAY.parse(day)?,
            months: MONTH.parse(month)?,
            weekdays,
            either_day: restricts(day) && restricts(weekday),
        };
        match schedule.next_after(Timestamp::UNIX_EPOCH) {
            Some(_) => Ok(schedule),
            None => Err(ScheduleError::Never),
        }
    }
}

impl Schedule {
    /// The first matching time after `now`.
    #[must_use]
    pub fn next_after(&self, now: Timestamp) -> Option<Timestamp> {
        let now = TimeZone::UTC.to_datetime(now);
        let mut day = now.date();
        let last = day.year().saturating_add(YEARS);
        let mut earliest = Some(now.time());
        while day.year() <= last {
            if self.matches_day(day)
                && let Some(time) = self.time_after(earliest)
            {
                let at = DateTime::from_parts(day, time);
                return TimeZone::UTC.to_timestamp(at).ok();
            }
            earliest = None;
            day = day.tomorrow().ok()?;
        }
        None
    }

    fn matches_day(&self, day: Date) -> bool {
        let has = |bits: u64, number: i8| {
            u32::try_from(number).is_ok_and(|number| bits >> number & 1 == 1)
        };
        let of_month = has(self.days, day.day());
        let of_week = has(self.weekdays, day.weekday().to_sunday_zero_offset());
        let fits = match self.either_day {
            true => of_month || of_week,
            false => of_month && of_week,
        };
        fits && has(self.months, day.month())
    }

    /// The first matching time of a day, or the first one after `after`.
    fn time_after(&self, after: Option<Time>) -> Option<Time> {
        let bits = |bits: u64| (0..60_i8).filter(move |number| bits >> number & 1 == 1);
        for hour in bits(self.hours) {
            if after.is_some_and(|after| hour < after.hour()) {
                continue;
            }
            for minute in bits(self.minutes) {
                for second in bits(self.seconds) {
                    let time = Time::new(hour, minute, second, 0).ok()?;
                    if after.is_none_or(|after| time > after) {
                        return Some(time);
                    }
                }
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next(text: &str, now: &str) -> String {
        let schedule: Schedule = text.parse().unwrap();
        schedule
            .next_after(now.parse().unwrap())
            .unwrap()
            .to_string()
    }

    #[test]
    fn schedule_matches_cron() {
        let now = "2026-11-25T01:50:37.5Z";
        for (text, expected) in [
            ("* * * * *", "2026-11-25T01:51:00Z"),
            ("30 2 * * *", "2026-11-25T02:30:00Z"),
            ("30 1 * * *", "2026-11-26T01:30:00Z"),
            ("0 0 * * sun", "2026-11-29T00:00:00Z"),
            ("0 0 * * 7", "2026-11-29T00:00:00Z"),
            ("0 9-17/4 * * Mon-Fri", "2026-11-25T09:00:00Z"),
            ("0 0 29 2 *", "2028-02-29T00:00:00Z"),
            // Both day fields are restricted: one of them must match.
            ("0 0 1 * fri", "2026-11-27T00:00:00Z"),
            ("0 0 */2 * *", "2026-11-27T00:00:00Z"),
            ("@monthly", "2026-12-01T00:00:00Z"),
            ("@hourly", "2026-11-25T02:00:00Z"),
            // As IBM's agent converts an interval.
            ("1/30 * * * * *", "2026-11-25T01:51:01Z"),
            ("0 0/15 * * * *", "2026-11-25T02:00:00Z"),
            ("0 0 0 1 1 ? *", "2027-01-01T00:00:00Z"),
        ] {
            assert_eq!(next(text, now), expected, "{text}");
        }
    }

    #[test]
    fn schedule_skips_the_current_time() {
        assert_eq!(
            next("0 2 * * *", "2026-11-25T02:00:00Z"),
            "2026-11-26T02:00:00Z"
        );
        assert_eq!(
            next("59 23 31 12 *", "2026-12-31T23:59:00Z"),
            "2027-12-31T23:59:00Z"
        );
    }

    #[test]
    fn schedule_parse_error_names_the_field() {
        for (text, word) in [
            ("", "0 fields"),
            ("* * *", "3 fields"),
            ("60 * * * *", "minute"),
            ("* 24 * * *", "hour"),
            ("* * 0 * *", "day of the month"),
            ("* * * 13 *", "month"),
            ("* * * * mon-sun", "day of the week"),
            ("*/0 * * * *", "minute"),
            ("5-1 * * * *", "minute"),
            ("+5 * * * *", "minute"),
            ("0 0 L * *", "day of the month"),
            ("0 0 30 2 *", "never matches"),
            ("0 0 0 1 1 * 2027", "7 fields"),
        ] {
            let error = text.parse::<Schedule>().unwrap_err().to_string();
            assert!(error.contains(word), "{text}: {error}");
        }
    }
}
