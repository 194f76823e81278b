//! Parses names that IBM's core-dump-handler gives to zips, for any `FILENAME_TEMPLATE`.
//!
//! ```text
//! {uuid}-dump-{timestamp}-{hostname}-{exe_name}-{pid}-{signal}      the default: every field is known
//! {namespace}_{podname}_{exe_name}_{timestamp}                      another: what can be told for sure
//! ```
//!
//! A zip counts as a dump if its name has an id, a time, or a pid and a signal; other zips in the
//! bucket are ignored. Facts that the name lacks come from the bundle itself.

use cdh_bundle::{DumpId, LegacyName, RawText, Sha256};
use cdh_elfcore::SignalInfo;
use jiff::Timestamp;

use crate::{CutNames, DumpSummary, ObjectKey};

/// Characters of an id.
const ID: usize = 36;
/// Largest number of a signal on Linux.
const LAST_SIGNAL: i32 = 64;
/// Words that templates put between the fields.
const FILLERS: [&str; 3] = ["dump", "core", "coredump"];

/// Whether a name follows the default template of IBM's agent.
pub(crate) fn is_default(stem: &str) -> bool {
    LegacyName::parse(stem).is_some()
}

/// The fields of a zip's name; `None` if there are none.
pub(crate) fn summary(key: &ObjectKey, stem: &str) -> Option<DumpSummary> {
    let fields = match LegacyName::parse(stem) {
        Some(name) => Fields {
            id: Some(name.id),
            captured_at: Some(name.captured_at),
            exe: name.exe,
            signal: Some(name.signal),
        },
        None => guess(stem)?,
    };
    let signal = fields.signal.map(SignalInfo::from_number);
    Some(DumpSummary {
        // The placeholder that a bundle without this fact has in its name.
        id: fields
            .id
            .unwrap_or_else(|| DumpId::from_digest(&Sha256::of(stem.as_bytes()))),
        captured_at: fields.captured_at.unwrap_or(Timestamp::UNIX_EPOCH),
        is_import_time: false,
        namespace: None,
        pod: None,
        exe: RawText::from(fields.exe.as_str()),
        signal: signal.map_or_else(|| "-".to_owned(), |signal| signal.name()),
        fingerprint: None,
        verdict: "unknown".to_owned(),
        key: key.clone(),
        size: None,
        modified: None,
        legacy: true,
        cut: CutNames::default(),
    })
}

struct Fields {
    id: Option<DumpId>,
    captured_at: Option<Timestamp>,
    exe: String,
    signal: Option<i32>,
}

/// The fields of a name with an unknown template.
fn guess(stem: &str) -> Option<Fields> {
    let found = (0..stem.len()).find_map(|at| {
        let id = stem.get(at..at.checked_add(ID)?)?;
        Some((at, id.parse::<DumpId>().ok()?))
    });
    let rest = match found {
        Some((at, _)) => format!(
            "{}-{}",
            stem.get(..at).unwrap_or_default(),
            stem.get(at.saturating_add(ID)..).unwrap_or_default()
        ),
        None => stem.to_owned(),
    };
    let is_break = |c: char| matches!(c, '-' | '_' | '.' | '+' | ',' | '@');
    let mut words: Vec<&str> = rest
        .split(is_break)
        .filter(|word| !word.is_empty())
        .collect();
    let mut captured_at = None;
    words.retain(|word| {
        let time = time(word).filter(|_| captured_at.is_none());
        captured_at = captured_at.or(time);
        time.is_none()
    });
    let mut signal = None;
    if let [.., pid, number] = *words.as_slice()
        && pid.parse::<u32>().is_ok()
        && let Some(number) = number
            .parse()
            .ok()
            .filter(|n| (1..=LAST_SIGNAL).contains(n))
        // The end of a version number looks like a pid and a signal.
        && !rest.ends_with(&format!(".{number}"))
    {
        signal = Some(number);
        words.truncate(words.len().saturating_sub(2));
    }
    words.retain(|word| !FILLERS.contains(word));
    if found.is_none() && captured_at.is_none() && signal.is_none() {
        return None;
    }
    Some(Fields {
        id: found.map(|(_, id)| id),
        captured_at,
        exe: words.join("-"),
        signal,
    })
}

/// Seconds or milliseconds since 1970, of this century.
fn time(word: &str) -> Option<Timestamp> {
    let number: i64 = word.parse().ok().filter(|&number| number > 0)?;
    match word.len() {
        10 => Timestamp::from_second(number).ok(),
        13 => Timestamp::from_millisecond(number).ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(name: &str) -> Option<(String, String, String)> {
        let key = ObjectKey::parse(&format!("{name}.zip")).unwrap();
        let found = summary(&key, name)?;
        let time = found.captured_at.to_string();
        Some((found.exe.to_string(), found.signal, time))
    }

    #[test]
    fn legacy_key_parses_names_of_any_template() {
        const ID: &str = "3fa85f64-5717-4562-b3fc-2c963f66afa6";
        let all = "2023-11-14T22:13:20Z";
        let none = "1970-01-01T00:00:00Z";
        let table = [
            (
                format!("{ID}-dump-1700000000-my-pod-0-server-7-11"),
                "server",
                "SIGSEGV",
                all,
            ),
            (
                format!("{ID}-dump-1700000000000-h-x-1-6"),
                "x",
                "SIGABRT",
                all,
            ),
            (format!("shop-api-7d4-{ID}"), "shop-api-7d4", "-", none),
            (ID.to_owned(), "", "-", none),
            (
                "shop_api_server_1700000000".to_owned(),
                "shop-api-server",
                "-",
                all,
            ),
            ("server-4711-11".to_owned(), "server", "SIGSEGV", none),
            (
                "api_1700000000123_core_1_9".to_owned(),
                "api",
                "SIGKILL",
                "2023-11-14T22:13:20.123Z",
            ),
        ];
        for (name, exe, signal, time) in table {
            let wanted = Some((exe.to_owned(), signal.to_owned(), time.to_owned()));
            assert_eq!(read(&name), wanted, "{name}");
        }
    }

    #[test]
    fn zips_of_other_people_are_no_dumps() {
        for name in [
            "release-1.2.3",
            "backup",
            "photos-2026",
            "a-b-99",
            "1234567890123456",
        ] {
            assert_eq!(read(name), None, "{name}");
        }
    }
}
