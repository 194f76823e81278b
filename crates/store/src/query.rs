//! Which dumps are meant.

use cdh_bundle::{ImageRef, Manifest};
use cdh_elfcore::SignalInfo;
use jiff::Timestamp;

use crate::DumpSummary;

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
    /// `11`, `SEGV` or `SIGSEGV`.
    pub signal: Option<String>,
    /// Not older.
    pub since: Option<Timestamp>,
    /// Not newer.
    pub until: Option<Timestamp>,
    /// Only what is not complete.
    pub truncated: bool,
    /// The fingerprint or its beginning.
    pub fingerprint: Option<String>,
    /// At most so many, the newest.
    pub limit: Option<usize>,
}

impl Query {
    /// Whether the key alone rules a dump in. `limit` is no condition; image and node are in manifests.
    #[must_use]
    pub fn matches(&self, dump: &DumpSummary) -> bool {
        let text = |pattern: &Option<String>, value: Option<&str>| {
            pattern
                .as_ref()
                .is_none_or(|pattern| value.is_some_and(|value| glob(pattern, value)))
        };
        text(&self.namespace, dump.namespace.as_deref())
            && text(&self.pod, dump.pod.as_deref())
            && text(&self.exe, Some(&dump.exe.to_string()))
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

    /// Whether manifests must be read.
    #[must_use]
    pub fn needs_manifest(&self) -> bool {
        self.image.is_some() || self.node.is_some()
    }

    /// Whether the manifest rules a dump in.
    pub(crate) fn matches_manifest(&self, manifest: &Manifest) -> bool {
        let node = manifest.node.to_string();
        let named = manifest
            .workload
            .as_ref()
            .and_then(|workload| workload.node.as_deref());
        self.matches_place(manifest.image.as_ref(), [Some(&node), named])
    }

    /// Whether image and node, which only manifests hold, rule a dump in.
    #[must_use]
    pub fn matches_place(&self, image: Option<&ImageRef>, nodes: [Option<&str>; 2]) -> bool {
        let is_node = |wanted: &str| nodes.into_iter().flatten().any(|node| glob(wanted, node));
        self.image
            .as_ref()
            .is_none_or(|wanted| image.is_some_and(|image| is_image(wanted, image)))
            && self.node.as_ref().is_none_or(|wanted| is_node(wanted))
    }
}

/// Whether a text means an image, in any of the ways that images are written: the reference, its
/// repository or the last part of that, each with a tag or version (`:1.4.2`), the start of the digest
/// (`@1f52bc`), or neither; and what `cdh groups` and the TUI print.
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

/// Whether a query's text means any signal: `11`, `SEGV` or `SIGSEGV`.
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

/// Whether `text` matches `pattern`, in time proportional to the product of their lengths at worst.
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
    fn signals_have_three_spellings() {
        for wanted in ["11", "segv", "SEGV", "SIGSEGV"] {
            assert!(same_signal(wanted, "SIGSEGV"));
        }
        assert!(!same_signal("6", "SIGSEGV"));
        assert!(is_signal("abrt") && is_signal("64"));
        assert!(!is_signal("0") && !is_signal("65") && !is_signal("oops") && !is_signal(""));
    }
}
