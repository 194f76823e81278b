//! The facts about a dump that its key contains.

use cdh_bundle::{DumpId, Manifest, RawText};
use jiff::Timestamp;
use jiff::civil::{Date, Time};
use jiff::tz::TimeZone;

use crate::catalog::{DUMPS, holds_no_dumps};
use crate::key::{IMPORT_TIME, MAX_EXE, MAX_NAMESPACE, MAX_POD, may_be_cut, unescape};
use crate::{ObjectKey, legacy_key};

/// A dump as described by its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DumpSummary {
    /// Its id.
    pub id: DumpId,
    /// When the process died, to the second; see [`is_import_time`](Self::is_import_time).
    pub captured_at: Timestamp,
    /// Whether `captured_at` is the time of an import, because the time of the crash is unknown.
    pub is_import_time: bool,
    /// Kubernetes namespace; `…` marks where a long name was shortened.
    pub namespace: Option<String>,
    /// Pod, likewise.
    pub pod: Option<String>,
    /// Program, likewise.
    pub exe: RawText,
    /// `SIGSEGV`.
    pub signal: String,
    /// First eight digits.
    pub fingerprint: Option<String>,
    /// `complete`, `truncated`, `empty`; `unknown` for a legacy zip.
    pub verdict: String,
    /// Key of the bundle.
    pub key: ObjectKey,
    /// Bytes of the bundle, if the listing reports them.
    pub size: Option<u64>,
    /// When the bundle was written to the store, if the listing reports it.
    pub modified: Option<Timestamp>,
    /// Whether IBM's core-dump-handler wrote it.
    pub legacy: bool,
    /// Which names may be shortened in the key.
    pub cut: CutNames,
}

/// Which names of a dump may be shortened in its key; only its manifest has the complete names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CutNames {
    /// The namespace.
    pub namespace: bool,
    /// The pod.
    pub pod: bool,
    /// The program.
    pub exe: bool,
}

impl DumpSummary {
    /// When the process died, to the second; `None` if unknown.
    #[must_use]
    pub fn captured(&self) -> Option<Timestamp> {
        (!self.is_import_time).then_some(self.captured_at)
    }

    /// Parses a bundle's key, ours or one by a template of IBM's agent; `None` for any other
    /// object.
    #[must_use]
    pub fn from_key(key: &ObjectKey) -> Option<Self> {
        if holds_no_dumps(key.as_str()) {
            return None;
        }
        let (folder, name) = key.as_str().rsplit_once('/').unwrap_or(("", key.as_str()));
        let stem = name.strip_suffix(".zip")?;
        Self::ours(key, folder, stem).or_else(|| {
            // No other objects have such keys.
            let is_elsewhere = !key.as_str().starts_with(DUMPS);
            is_elsewhere.then(|| legacy_key::summary(key, stem))?
        })
    }

    fn ours(key: &ObjectKey, folder: &str, stem: &str) -> Option<Self> {
        let date: Date = folder.rsplit('/').next()?.parse().ok()?;
        let fields: Vec<&str> = stem.split('_').collect();
        let [time, namespace, pod, exe, signal, fingerprint, verdict, id] = *fields.as_slice()
        else {
            return None;
        };
        let (time, is_import_time) = match time.strip_suffix(IMPORT_TIME) {
            Some(time) => (time, true),
            None => (time, false),
        };
        let digits = time.strip_suffix('Z').filter(|digits| digits.len() == 6)?;
        let two = |at: usize| digits.get(at..at + 2)?.parse::<i8>().ok();
        let time = Time::new(two(0)?, two(2)?, two(4)?, 0).ok()?;
        let captured_at = TimeZone::UTC.to_timestamp(date.to_datetime(time)).ok()?;
        let text = |part| unescape(part).map(|bytes| RawText::new(bytes).to_string());
        let known = matches!(verdict, "complete" | "truncated" | "empty");
        Some(Self {
            id: id.parse().ok()?,
            captured_at,
            is_import_time,
            namespace: text(namespace),
            pod: text(pod),
            exe: RawText::new(unescape(exe).unwrap_or_default()),
            signal: text(signal).unwrap_or_default(),
            fingerprint: text(fingerprint),
            verdict: if known {
                verdict.to_owned()
            } else {
                "unknown".to_owned()
            },
            key: key.clone(),
            size: None,
            modified: None,
            legacy: false,
            cut: CutNames {
                namespace: may_be_cut(namespace, MAX_NAMESPACE),
                pod: may_be_cut(pod, MAX_POD),
                exe: may_be_cut(exe, MAX_EXE),
            },
        })
    }

    /// Replaces guesses from the name of one of IBM's zips by facts from its manifest. A zip that does not name
    /// a program is foreign, and keeps its guess.
    pub(crate) fn refine(&mut self, manifest: &Manifest) {
        if manifest.process.name.is_empty() {
            return;
        }
        let workload = manifest.workload.as_ref();
        self.id = manifest.id;
        self.namespace = workload.and_then(|it| it.namespace.clone());
        self.pod = workload.and_then(|it| it.pod.clone());
        self.exe = manifest.process.exe_name().clone();
        let signal = manifest.crash_signal();
        if signal.number != 0 {
            self.signal.clone_from(&signal.name);
        }
        if manifest.captured_at != Timestamp::UNIX_EPOCH {
            self.captured_at = manifest.captured_at;
        }
        self.verdict = manifest.verdict.word().to_owned();
    }

    /// Whether the key alone proves that it is a dump: ours, or by IBM's default template. Others must
    /// be opened before an irreversible operation.
    #[must_use]
    pub fn is_certain(&self) -> bool {
        !self.legacy || stem(&self.key).is_some_and(legacy_key::is_default)
    }
}

/// The file's name without its suffix.
fn stem(key: &ObjectKey) -> Option<&str> {
    let name = key.as_str().rsplit('/').next()?;
    name.strip_suffix(".zip")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_of_ibms_template_is_read() {
        let text = "3fa85f64-5717-4562-b3fc-2c963f66afa6-dump-1700000000-my-pod-0-server-7-11.zip";
        let summary = DumpSummary::from_key(&ObjectKey::parse(text).unwrap()).unwrap();
        assert_eq!(
            (summary.exe, summary.signal.as_str()),
            (RawText::from("server"), "SIGSEGV")
        );
        assert!(summary.legacy);
    }

    #[test]
    fn key_of_an_import_without_a_time_says_so() {
        let id = "3fa85f64-5717-4562-b3fc-2c963f66afa6";
        let key = |time| format!("dumps/2026-01-31/{time}_-_-_api_SIGSEGV_-_complete_{id}.zip");
        let read = |time| DumpSummary::from_key(&ObjectKey::parse(&key(time)).unwrap()).unwrap();
        let (crashed, imported) = (read("120000Z"), read("120000Zi"));
        assert_eq!(crashed.captured_at, imported.captured_at);
        assert_eq!(
            (crashed.captured(), imported.captured()),
            (Some(crashed.captured_at), None)
        );
    }

    #[test]
    fn other_objects_are_no_dumps() {
        for text in [
            "readme.txt",
            "dumps/2026-01-31/x.zip",
            "a.zip",
            "dumps/x/a_b_c_d_e_f_g_h.zip",
            "first-seen/3fa85f64-5717-4562-b3fc-2c963f66afa6-dump-1700000000-my-pod-0-server-7-11.zip",
            "modules/3fa85f64-5717-4562-b3fc-2c963f66afa6-dump-1700000000-my-pod-0-server-7-11.zip",
        ] {
            assert_eq!(
                DumpSummary::from_key(&ObjectKey::parse(text).unwrap()),
                None,
                "{text}"
            );
        }
    }
}
