//! Labels in a manifest. Their size is limited: every listing reads manifests, and any user can
//! label a pod.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// Maximum number of stored labels.
const MOST: usize = 64;
/// Maximum total size of all stored names and values, in bytes.
const BYTES: usize = 8 << 10;

/// The labels to store, sorted by name, and the number of labels left out.
#[must_use]
pub fn bounded<'l>(
    labels: impl IntoIterator<Item = (&'l String, &'l String)>,
) -> (BTreeMap<String, String>, usize) {
    let sorted: BTreeMap<&String, &String> = labels.into_iter().collect();
    let mut kept = BTreeMap::new();
    let mut left = BYTES;
    let mut left_out = 0_usize;
    for (name, value) in sorted {
        let rest = left.checked_sub(name.len().saturating_add(value.len()));
        match rest.filter(|_| kept.len() < MOST) {
            Some(rest) => {
                left = rest;
                kept.insert(name.clone(), value.clone());
            }
            None => left_out = left_out.saturating_add(1),
        }
    }
    (kept, left_out)
}

/// Reads labels and skips values that are not text: another agent may have written them.
pub(crate) fn lenient<'de, D: Deserializer<'de>>(
    input: D,
) -> Result<BTreeMap<String, String>, D::Error> {
    Ok(of_json(&Value::deserialize(input)?))
}

/// The text values in a JSON object.
pub(crate) fn of_json(value: &Value) -> BTreeMap<String, String> {
    let pairs = value.as_object().into_iter().flatten();
    pairs
        .filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_bounded_in_number_and_bytes() {
        let many: BTreeMap<String, String> = (0..100)
            .map(|number| (format!("l{number:03}"), "v".to_owned()))
            .collect();
        let (kept, left_out) = bounded(&many);
        assert_eq!((kept.len(), left_out), (MOST, 36));
        let mut long = BTreeMap::from([("a".to_owned(), "x".repeat(BYTES))]);
        long.insert("b".to_owned(), "short".to_owned());
        let (kept, left_out) = bounded(&long);
        assert_eq!((kept.len(), left_out), (1, 1));
        assert_eq!(kept["b"], "short");
    }

    #[test]
    fn labels_that_are_not_text_are_skipped() {
        let json = serde_json::json!({"pod": "api", "labels": {"app": "api", "n": 7}});
        let workload: crate::Workload = serde_json::from_value(json).unwrap();
        assert_eq!(workload.labels.len(), 1);
        let json = serde_json::json!({"pod": "api", "labels": "none"});
        let workload: crate::Workload = serde_json::from_value(json).unwrap();
        assert!(workload.labels.is_empty());
    }
}
