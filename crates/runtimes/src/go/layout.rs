//! Where the runtime keeps what: offsets by version.
//!
//! A data file names each field as the runtime's source does. A field that a version does not have is missing in its
//! file.

use std::collections::BTreeMap;

/// Data files by version of the language.
const FILES: [(u32, &str); 10] = [
    (18, include_str!("../../layouts/go/1.18.txt")),
    (19, include_str!("../../layouts/go/1.19.txt")),
    (20, include_str!("../../layouts/go/1.20.txt")),
    (21, include_str!("../../layouts/go/1.21.txt")),
    (22, include_str!("../../layouts/go/1.22.txt")),
    (23, include_str!("../../layouts/go/1.23.txt")),
    (24, include_str!("../../layouts/go/1.24.txt")),
    (25, include_str!("../../layouts/go/1.25.txt")),
    (26, include_str!("../../layouts/go/1.26.txt")),
    (27, include_str!("../../layouts/go/1.27.txt")),
];

/// Offsets of fields, in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Layout {
    fields: BTreeMap<String, u64>,
    /// Texts of wait reasons by number.
    pub(super) wait_reasons: BTreeMap<u8, &'static str>,
}

impl Layout {
    /// Of Go `1.minor`, or of the newest version before it; and whether it is exactly that version's.
    pub(super) fn of_version(minor: u32) -> Option<(Self, bool)> {
        let (found, text) = FILES.iter().rev().find(|(known, _)| *known <= minor)?;
        Some((Self::parse(text), *found == minor))
    }

    fn parse(text: &'static str) -> Self {
        let mut layout = Self::default();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let Some((name, value)) = line.split_once(' ') else {
                continue;
            };
            if name == "wait" {
                let reason = value.split_once(' ');
                let reason = reason.and_then(|(number, text)| Some((number.parse().ok()?, text)));
                layout.wait_reasons.extend(reason);
            } else if let Ok(offset) = value.parse() {
                layout.fields.insert(name.to_owned(), offset);
            }
        }
        layout
    }

    /// Offset of a field, such as `g.goid`.
    pub(super) fn at(&self, field: &str) -> Option<u64> {
        self.fields.get(field).copied()
    }

    /// Names of all fields.
    #[cfg(test)]
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.fields.keys().map(String::as_str)
    }
}

/// The `N` of a version `go1.N…`, also of a development version.
pub(super) fn minor(version: &str) -> Option<u32> {
    let rest = version.split("go1.").nth(1)?;
    let end = rest.find(|letter: char| !letter.is_ascii_digit());
    rest.get(..end.unwrap_or(rest.len()))?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layout_files_name_the_same_fields_in_every_version() {
        let optional = ["g.parentGoid", "g.syscallbp", "_panic.repanicked"];
        let fields = |minor| {
            let (layout, exact) = Layout::of_version(minor).unwrap();
            assert!(exact, "{minor}");
            let names = layout.names().filter(|name| !optional.contains(name));
            names.map(str::to_owned).collect::<Vec<_>>()
        };
        let newest = fields(27);
        assert!(newest.len() > 30, "{newest:?}");
        for minor in 18..27 {
            assert_eq!(fields(minor), newest, "{minor}");
        }
        let (layout, _) = Layout::of_version(19).unwrap();
        assert_eq!(layout.wait_reasons.get(&2), Some(&"IO wait"));
    }

    #[test]
    fn layout_of_an_unknown_version_is_the_newest_before_it() {
        assert!(Layout::of_version(17).is_none());
        let (layout, exact) = Layout::of_version(99).unwrap();
        assert!(!exact);
        assert_eq!(
            Some(layout),
            Layout::of_version(27).map(|(layout, _)| layout)
        );
    }

    #[test]
    fn minor_version_is_read_from_releases_and_development_versions() {
        let table = [
            ("go1.19.8", Some(19)),
            ("go1.21rc2", Some(21)),
            ("devel go1.22-6e3ba52 Thu", Some(22)),
            ("go1.23.4 X:boringcrypto", Some(23)),
            ("go2", None),
        ];
        for (version, expected) in table {
            assert_eq!(minor(version), expected, "{version}");
        }
    }
}
