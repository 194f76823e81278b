//! Which dumps are meant.

use cdh_bundle::{ImageRef, Manifest};
use cdh_elfcore::SignalInfo;
use jiff::Timestamp;

use crate::key::CUT_SHOWN;
use crate::{CutNames, DumpSummary};

/// Conditions that all must hold. Texts are patterns in which `*` and `?` match.
#[derive(Clone, Debug, Default)]
pub struct Query {
    /// Kubernetes namespace.
    pub namespace: Option<String>,
    /// Pod.
    pub pod: Option<String>,
    /// Program.
    pub exe: Option<String>,
    /// Image reference; needs the manifest.
    pub image: Option<String>,
    /// Node's hostname; needs the manifest.
    pub node: Option<String>,
    /// Complete path of the program; needs the manifest.
    pub exe_path: Option<String>,
    /// Process id on the host; needs the manifest.
    pub pid: Option<u64>,
    /// systemd unit, with or without `.service`; needs the manifest.
    pub unit: Option<String>,
    /// Part of the command line, or a pattern for the complete one; needs the manifest.
    pub command_line: Option<String>,
    /// `11`, `SEGV` or `SIGSEGV`.
    pub signal: Option<String>,
    /// Not older.
    pub since: Option<Timestamp>,
    /// Not newer.
    pub until: Option<Timestamp>,
    /// Only incomplete dumps.
    pub truncated: bool,
    /// The fingerprint or its prefix.
    pub fingerprint: Option<String>,
    /// Maximum number of dumps, the newest first.
    pub limit: Option<usize>,
}

impl Query {
    /// Whether the key does not rule the dump out. `limit` is not a condition. Image and node are in
    /// manifests, and so are complete names that the key shortened: see
    /// [`is_certain_of`](Self::is_certain_of).
    #[must_use]
    pub fn matches(&self, dump: &DumpSummary) -> bool {
        self.names_fit(dump) != Fit::No
            && self
                .signal
                .as_ref()
                .is_none_or(|wanted| same_signal(wanted, &dump.signal))
            && self
                .since
                .is_none_or(|since| dump.captured_at.as_second() >= since.as_second())
            && self.until.is_none_or(|until| dump.captured_at <= until)
            && (!self.truncated || matches!(dump.verdict.as_str(), "truncated" | "empty"))
            && self.fingerprint.as_ref().is_none_or(|wanted| {
                let found = dump.fingerprint.as_deref();
                found.is_some_and(|found| found.starts_with(wanted) || wanted.starts_with(found))
            })
    }

    /// Whether the key of a dump that [`matches`](Self::matches) is sufficient; otherwise its manifest must
    /// be read.
    #[must_use]
    pub fn is_certain_of(&self, dump: &DumpSummary) -> bool {
        let fingerprint = self.fingerprint.as_ref().is_none_or(|wanted| {
            let found = dump.fingerprint.as_deref();
            found.is_none_or(|found| found.starts_with(wanted))
        });
        !self.needs_manifest() && fingerprint && self.names_fit(dump) == Fit::Yes
    }

    fn names_fit(&self, dump: &DumpSummary) -> Fit {
        let text = |pattern: &Option<String>, value: Option<&str>, cut: bool| match (pattern, value)
        {
            (None, _) => Fit::Yes,
            (Some(_), None) => Fit::No,
            (Some(pattern), Some(value)) => fit(pattern, value, cut),
        };
        let exe = dump.exe.to_string();
        let fits = [
            text(
                &self.namespace,
                dump.namespace.as_deref(),
                dump.cut.namespace,
            ),
            text(&self.pod, dump.pod.as_deref(), dump.cut.pod),
            text(&self.exe, Some(&exe), dump.cut.exe),
        ];
        fits.into_iter().min().unwrap_or(Fit::Yes)
    }

    /// Whether the manifest of every dump must be read.
    #[must_use]
    pub fn needs_manifest(&self) -> bool {
        self.image.is_some()
            || self.node.is_some()
            || self.exe_path.is_some()
            || self.pid.is_some()
            || self.unit.is_some()
            || self.command_line.is_some()
    }

    /// Whether the manifest of a dump whose key [`matches`](Self::matches) matches too. `cut` shows which
    /// names the key shortened.
    #[must_use]
    pub fn matches_facts(&self, cut: CutNames, facts: &ManifestFacts) -> bool {
        let text = |pattern: &Option<String>, value: &Option<String>| {
            let is_it = |pattern: &String| value.as_ref().is_some_and(|value| glob(pattern, value));
            pattern.as_ref().is_none_or(is_it)
        };
        let starts = |wanted: &String| {
            let found = facts.fingerprint.as_ref();
            found.is_some_and(|found| found.starts_with(wanted))
        };
        let is_image = |wanted: &String| {
            facts
                .image
                .as_ref()
                .is_some_and(|image| is_image(wanted, image))
        };
        let is_node = |wanted: &String| facts.nodes.iter().any(|node| glob(wanted, node));
        let is_unit = |wanted: &String| {
            let unit = facts.unit.as_ref();
            unit.is_some_and(|unit| glob(wanted, unit) || glob(&format!("{wanted}.service"), unit))
        };
        let is_line = |wanted: &String| {
            let line = facts.command_line.as_ref();
            line.is_some_and(|line| match wanted.contains(['*', '?']) {
                true => glob(wanted, line),
                false => line.contains(wanted.as_str()),
            })
        };
        self.fingerprint.as_ref().is_none_or(starts)
            // Names that the key holds completely were compared before.
            && (!cut.namespace || text(&self.namespace, &facts.namespace))
            && (!cut.pod || text(&self.pod, &facts.pod))
            && (!cut.exe || text(&self.exe, &Some(facts.exe.clone())))
            && text(&self.exe_path, &facts.exe_path)
            && self.pid.is_none_or(|pid| facts.pid == pid)
            && self.unit.as_ref().is_none_or(is_unit)
            && self.command_line.as_ref().is_none_or(is_line)
            && self.image.as_ref().is_none_or(is_image)
            && self.node.as_ref().is_none_or(is_node)
    }
}

/// The facts in a manifest that a query compares.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ManifestFacts {
    /// Kubernetes namespace, not cut.
    pub namespace: Option<String>,
    /// Pod, or container outside Kubernetes; complete.
    pub pod: Option<String>,
    /// Name of the program; complete.
    pub exe: String,
    /// Its complete path.
    pub exe_path: Option<String>,
    /// Process id on the host.
    pub pid: u64,
    /// systemd unit.
    pub unit: Option<String>,
    /// Arguments, joined by spaces.
    pub command_line: Option<String>,
    /// The whole fingerprint.
    pub fingerprint: Option<String>,
    /// Image of the container.
    pub image: Option<ImageRef>,
    /// The node's names: in Kubernetes first, then its hostname, which is empty if unknown.
    pub nodes: Vec<String>,
}

impl ManifestFacts {
    /// The facts of one manifest.
    #[must_use]
    pub fn of(manifest: &Manifest) -> Self {
        // For an import, the host may only be known by the name that its process saw.
        let host = match manifest.node.is_empty() && manifest.imported.is_some() {
            true => &manifest.hostname,
            false => &manifest.node,
        };
        let workload = manifest.workload.as_ref();
        let named = workload.and_then(|workload| workload.node.clone());
        let mut nodes: Vec<String> = named.into_iter().chain([host.to_string()]).collect();
        nodes.dedup();
        let process = &manifest.process;
        Self {
            namespace: workload.and_then(|workload| workload.namespace.clone()),
            pod: workload.and_then(|workload| workload.pod_or_container().cloned()),
            exe: process.exe_name().to_string(),
            exe_path: process
                .exe_path()
                .map(|exe| String::from_utf8_lossy(exe).into_owned()),
            pid: process.pid,
            unit: unit(manifest),
            command_line: command_line(manifest),
            fingerprint: manifest.fingerprint.clone(),
            image: manifest.image.clone(),
            nodes,
        }
    }
}

/// The systemd unit of a process.
#[must_use]
pub fn unit(manifest: &Manifest) -> Option<String> {
    let extra = manifest.workload.as_ref()?.extra.get("unit")?;
    extra.as_str().map(str::to_owned)
}

/// The command line of a process, its arguments joined by spaces.
#[must_use]
pub fn command_line(manifest: &Manifest) -> Option<String> {
    let arguments = manifest.process.arguments.as_ref()?;
    let texts: Vec<String> = arguments.iter().map(ToString::to_string).collect();
    Some(texts.join(" "))
}

/// Whether a text names an image in any common form: the reference, its repository or the last part of
/// that, each with a tag or version (`:1.4.2`), the start of the digest (`@1f52bc`), or neither; also
/// the forms that `cdh groups` and the TUI print.
fn is_image(wanted: &str, image: &ImageRef) -> bool {
    if glob(wanted, &image.reference) || image.name.as_ref().is_some_and(|name| glob(wanted, name))
    {
        return true;
    }
    let (repository, digest) = image
        .reference
        .split_once('@')
        .unwrap_or((&image.reference, ""));
    let last = repository.rsplit('/').next().unwrap_or(repository);
    let is_name = |wanted: &str| glob(wanted, repository) || glob(wanted, last);
    if is_name(wanted) {
        return true;
    }
    if let Some((name, start)) = wanted.split_once('@') {
        let hex = digest.split_once(':').map_or(digest, |(_, hex)| hex);
        let is_digest = !start.is_empty() && (hex.starts_with(start) || digest.starts_with(start));
        return is_name(name) && is_digest;
    }
    let releases = [image.release(), image.version.as_deref()];
    wanted.rsplit_once(':').is_some_and(|(name, release)| {
        is_name(name)
            && releases
                .into_iter()
                .flatten()
                .any(|found| glob(release, found))
    })
}

/// Highest signal number of Linux (`SIGRTMAX`).
const LAST_SIGNAL: i32 = 64;

/// Whether a query's text is a signal: `11`, `SEGV` or `SIGSEGV`.
#[must_use]
pub fn is_signal(text: &str) -> bool {
    (1..=LAST_SIGNAL).any(|number| same_signal(text, &SignalInfo::from_number(number).name()))
}

fn same_signal(wanted: &str, found: &str) -> bool {
    let wanted = wanted.to_ascii_uppercase();
    if let Ok(number) = wanted.parse() {
        return SignalInfo::from_number(number).name() == found;
    }
    wanted.strip_prefix("SIG").unwrap_or(&wanted) == found.strip_prefix("SIG").unwrap_or(found)
}

/// Whether a name matches a pattern, judged by the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fit {
    No,
    Unknown,
    Yes,
}

/// Whether a name matches `pattern`. If the name was shortened, the key has its start and its end
/// (`value`).
fn fit(pattern: &str, value: &str, is_cut: bool) -> Fit {
    let known = |fits| if fits { Fit::Yes } else { Fit::No };
    if !is_cut {
        return known(glob(pattern, value));
    }
    let (start, end) = value.split_once(CUT_SHOWN).unwrap_or((value, ""));
    let Some((head, rest)) = pattern.split_once(['*', '?']) else {
        let fits = pattern.starts_with(start)
            && pattern.ends_with(end)
            && pattern.len() >= start.len().saturating_add(end.len());
        return if fits { Fit::Unknown } else { Fit::No };
    };
    let tail = rest.rsplit(['*', '?']).next().unwrap_or(rest);
    let compare = |wanted_in_known: bool, known_in_wanted: bool| match () {
        () if wanted_in_known => Fit::Yes,
        () if known_in_wanted => Fit::Unknown,
        () => Fit::No,
    };
    let fits = compare(start.starts_with(head), head.starts_with(start))
        .min(compare(end.ends_with(tail), tail.ends_with(end)));
    // With more than one `*`, the text between them must match too.
    let is_simple = !pattern.contains('?') && pattern.matches('*').count() == 1;
    if is_simple {
        fits
    } else {
        fits.min(Fit::Unknown)
    }
}

/// Whether `text` matches `pattern`; the worst-case time is proportional to the product of their
/// lengths.
fn glob(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) =
        (pattern.chars().collect(), text.chars().collect());
    let (mut at, mut seen, mut star) = (0, 0, None);
    while seen < text.len() {
        match pattern.get(at) {
            Some('*') => {
                star = Some((at, seen));
                at += 1;
            }
            Some(&c) if c == '?' || Some(&c) == text.get(seen) => {
                at += 1;
                seen += 1;
            }
            _ => {
                let Some((place, start)) = star else {
                    return false;
                };
                star = Some((place, start + 1));
                at = place + 1;
                seen = start + 1;
            }
        }
    }
    pattern.iter().skip(at).all(|c| *c == '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_in_a_shell() {
        for (pattern, text) in [
            ("a*c", "abbc"),
            ("*", ""),
            ("a?c", "abc"),
            ("*b*", "abc"),
            ("x", "x"),
        ] {
            assert!(glob(pattern, text), "{pattern} {text}");
        }
        for (pattern, text) in [("a*c", "abd"), ("?", ""), ("a", "ab"), ("", "a")] {
            assert!(!glob(pattern, text), "{pattern} {text}");
        }
    }

    #[test]
    fn name_that_was_cut_is_known_to_fit_or_needs_its_manifest() {
        for (pattern, expected) in [
            ("abcdefgh", Fit::Unknown),
            ("abgh", Fit::Unknown),
            ("abh", Fit::No),
            ("abcdefg", Fit::No),
            ("ab*", Fit::Yes),
            ("*gh", Fit::Yes),
            ("a*h", Fit::Yes),
            ("abc*", Fit::Unknown),
            ("b*", Fit::No),
            ("*x", Fit::No),
            ("a*e*h", Fit::Unknown),
            ("*", Fit::Yes),
        ] {
            assert_eq!(fit(pattern, "ab…gh", true), expected, "{pattern}");
        }
        // Shortened by an older agent: only the start is known.
        assert_eq!(fit("abcd", "ab", true), Fit::Unknown);
        assert_eq!(fit("ab*", "ab", true), Fit::Yes);
        assert_eq!(fit("ac", "ab", true), Fit::No);
    }

    #[test]
    fn images_match_in_every_way_they_are_written() {
        let image = ImageRef {
            name: Some("registry:5000/shop/checkout:1.4.2".to_owned()),
            version: Some("1.4.2-rc1".to_owned()),
            ..ImageRef::by_digest("registry:5000/shop/checkout@sha256:1f52bc00")
        };
        for wanted in [
            "registry:5000/shop/checkout@sha256:1f52bc00",
            "registry:5000/shop/checkout",
            "registry:5000/shop/checkout:1.4.2",
            "checkout",
            "checkout@1f52bc",
            "checkout:1.4.2",
            "checkout:1.4.*",
            "checkout:1.4.2-rc1",
            "*/checkout*",
        ] {
            assert!(is_image(wanted, &image), "{wanted}");
        }
        for wanted in ["checkout@", "checkout@2f", "checkout:1.5", "shop", "check"] {
            assert!(!is_image(wanted, &image), "{wanted}");
        }
    }

    #[test]
    fn process_matches_by_path_pid_unit_and_command_line() {
        let json = serde_json::json!({
            "schema": 1, "id": "6a4f4e4d-9c55-4f0b-8f38-8a8f7c5d4e3b", "stem": "s",
            "captured_at": "2026-01-01T00:00:00Z", "signal": {"number": 11},
            "process": {"pid": 42, "exe": "/opt/app", "arguments": ["app", "--port", "80"]},
            "verdict": {"state": "complete"}, "workload": {"unit": "shop.service"},
        });
        let manifest: Manifest = serde_json::from_value(json).unwrap();
        let text = |text: &str| Some(text.to_owned());
        for (query, expected) in [
            (
                Query {
                    pid: Some(42),
                    ..Query::default()
                },
                true,
            ),
            (
                Query {
                    pid: Some(43),
                    ..Query::default()
                },
                false,
            ),
            (
                Query {
                    exe_path: text("/opt/*"),
                    ..Query::default()
                },
                true,
            ),
            (
                Query {
                    exe_path: text("/bin/app"),
                    ..Query::default()
                },
                false,
            ),
            (
                Query {
                    unit: text("shop"),
                    ..Query::default()
                },
                true,
            ),
            (
                Query {
                    unit: text("shop.service"),
                    ..Query::default()
                },
                true,
            ),
            (
                Query {
                    unit: text("sho"),
                    ..Query::default()
                },
                false,
            ),
            (
                Query {
                    command_line: text("--port 80"),
                    ..Query::default()
                },
                true,
            ),
            (
                Query {
                    command_line: text("app*8?"),
                    ..Query::default()
                },
                true,
            ),
            (
                Query {
                    command_line: text("app*9"),
                    ..Query::default()
                },
                false,
            ),
        ] {
            assert!(query.needs_manifest());
            assert_eq!(
                query.matches_facts(CutNames::default(), &ManifestFacts::of(&manifest)),
                expected,
                "{query:?}"
            );
        }
    }

    #[test]
    fn signals_have_three_spellings() {
        for wanted in ["11", "segv", "SEGV", "SIGSEGV"] {
            assert!(same_signal(wanted, "SIGSEGV"));
        }
        assert!(!same_signal("6", "SIGSEGV"));
        assert!(is_signal("abrt") && is_signal("64"));
        assert!(!is_signal("0") && !is_signal("65") && !is_signal("oops") && !is_signal(""));
    }
}
