//! Tests of the TUI without a terminal: `update` as a function, screens on a test backend.

mod actions;
mod behaviour;
mod groups;
mod keys;
mod long;
mod refresh;
mod screens;
mod source;
mod test_tui;

use cdh_store::{DumpSummary, ObjectKey};
use jiff::{SignedDuration, Timestamp};

/// The current time in these tests.
pub(crate) fn now() -> Timestamp {
    "2026-01-31T12:00:00Z".parse().unwrap()
}

/// The `n`-th dump of a store, newest first, from twelve programs in four namespaces.
pub(crate) fn dump(n: usize) -> DumpSummary {
    let at = now() - SignedDuration::from_mins(7 * n as i64 + 3);
    let namespace = ["shop", "payments", "search", "batch"][n % 4];
    let exe = ["api", "worker", "indexer", "cron"][n % 4];
    let signal = ["SIGSEGV", "SIGSEGV", "SIGABRT", "SIGBUS", "SIGFPE"][n % 5];
    let verdict = if n % 9 == 8 { "truncated" } else { "complete" };
    let day = at.to_string();
    let (date, time) = day.split_at(10);
    let time: String = time.chars().filter(char::is_ascii_digit).take(6).collect();
    let pod = format!("{namespace}-{exe}-7d4b9c6f5-x2{}z", n % 7);
    let fingerprint = format!("{:08x}", 0x51a7_0000_u32 + (n % 12) as u32);
    let id = format!("{n:08x}-0000-4000-8000-000000000000");
    let key = format!(
        "dumps/{date}/{time}Z_{namespace}_{pod}_{exe}_{signal}_{fingerprint}_{verdict}_{id}.zip"
    );
    let mut summary = DumpSummary::from_key(&ObjectKey::parse(&key).unwrap()).unwrap();
    summary.size = Some(40_000 + 1_357 * n as u64);
    summary
}
