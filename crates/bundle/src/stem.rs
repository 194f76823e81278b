//! Builds the prefix of a bundle's entry names from a template, compatible with IBM's
//! `FILENAME_TEMPLATE`.
//!
//! The stem is always a harmless file name: bytes outside `[A-Za-z0-9._-]` in names of processes or
//! pods become `_`.

use crate::Manifest;

/// IBM's default template.
pub const DEFAULT_STEM: &str = "{uuid}-dump-{timestamp}-{hostname}-{exe_name}-{pid}-{signal}";

/// Maximum length of a stem in bytes: a file name may have 255, and the longest suffix needs 26.
const LONGEST: usize = 200;

/// Maximum length of one value in bytes, so that a long hostname does not push out the values after
/// it.
const LONGEST_VALUE: usize = 64;

/// Fills `template` from the manifest. Unknown placeholders, and values that the manifest lacks,
/// become `unknown`. The result is never empty and always satisfies [`is_safe_stem`].
#[must_use]
pub fn render_stem(template: &str, manifest: &Manifest) -> String {
    let mut stem = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('{') {
        push_safe(&mut stem, before.as_bytes());
        let Some((name, tail)) = after.split_once('}') else {
            rest = after;
            break;
        };
        rest = tail;
        let value = value_of(name, manifest);
        let value = value
            .as_deref()
            .filter(|value| !value.is_empty())
            .unwrap_or(b"unknown");
        push_safe(&mut stem, value.get(..LONGEST_VALUE).unwrap_or(value));
    }
    push_safe(&mut stem, rest.as_bytes());
    // The text is ASCII here, so any cut is at a character boundary.
    stem.truncate(LONGEST);
    if is_safe_stem(&stem) {
        stem
    } else {
        manifest.id.to_string()
    }
}

fn value_of(name: &str, manifest: &Manifest) -> Option<Vec<u8>> {
    let workload = manifest.workload.as_ref();
    let text = |text: Option<&String>| text.map(|text| text.clone().into_bytes());
    match name {
        "uuid" => Some(manifest.id.to_string().into_bytes()),
        "timestamp" => Some(manifest.captured_at.as_second().to_string().into_bytes()),
        "hostname" => Some(manifest.hostname.as_bytes().to_vec()),
        "exe_name" => Some(manifest.process.name.as_bytes().to_vec()),
        "pid" => Some(manifest.process.pid.to_string().into_bytes()),
        "signal" => Some(manifest.signal.number.to_string().into_bytes()),
        "namespace" => text(workload.and_then(|workload| workload.namespace.as_ref())),
        "podname" => text(workload.and_then(|workload| workload.pod.as_ref())),
        _ => None,
    }
}

fn push_safe(stem: &mut String, bytes: &[u8]) {
    stem.extend(bytes.iter().map(|&byte| {
        if is_safe_byte(byte) {
            char::from(byte)
        } else {
            '_'
        }
    }));
}

fn is_safe_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-')
}

/// Whether `stem` is safe as the prefix of entry names: a plain file name that shells, zip tools
/// and option parsers do not interpret.
#[must_use]
pub fn is_safe_stem(stem: &str) -> bool {
    (1..=LONGEST).contains(&stem.len())
        && stem.bytes().all(is_safe_byte)
        && !stem.starts_with(['.', '-'])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::manifest::tests::sample;

    #[test]
    fn render_stem_fills_the_default_template() {
        let manifest = sample();
        assert_eq!(
            render_stem(DEFAULT_STEM, &manifest),
            format!("{}-dump-1767225600-api-7d4-api-4242-11", manifest.id)
        );
        assert_eq!(
            render_stem("{namespace}_{podname}_{nope}", &manifest),
            "shop_api-7d4_unknown"
        );
    }

    #[test]
    fn render_stem_replaces_hostile_bytes() {
        let mut manifest = sample();
        manifest.process.name = crate::RawText::from(&b"../x\n\x1b[2J\xff$(id)"[..]);
        assert_eq!(render_stem("a-{exe_name}", &manifest), "a-.._x___2J___id_");
        for template in ["", "{", "..", "-rf", "{exe_name}"] {
            assert!(
                is_safe_stem(&render_stem(template, &manifest)),
                "{template}"
            );
        }
    }

    proptest! {
        #[test]
        fn render_stem_is_always_safe(template: String, name: Vec<u8>) {
            let mut manifest = sample();
            manifest.process.name = name.into();
            prop_assert!(is_safe_stem(&render_stem(&template, &manifest)));
            prop_assert!(is_safe_stem(&render_stem(DEFAULT_STEM, &manifest)));
        }
    }
}
