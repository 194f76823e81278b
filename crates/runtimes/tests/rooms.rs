//! Which way the crates may use one another: no other crate knows a language, and this one does no I/O.

// A failed test may panic; nothing of this ships.
#![allow(clippy::indexing_slicing, clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

fn sources(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|end| end == "rs") {
            found.push(path);
        }
    }
}

fn here() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn runtimes_does_no_io_and_uses_only_elfcore_and_symbolize() {
    let mut found = Vec::new();
    sources(&here().join("src"), &mut found);
    assert!(found.len() > 4, "{found:?}");
    for path in found {
        let text = fs::read_to_string(&path).unwrap();
        for word in [
            "std::fs",
            "std::net",
            "std::process",
            "std::env",
            "std::path",
            "rustix::",
        ] {
            assert!(!text.contains(word), "{}: {word}", path.display());
        }
        for (at, _) in text.match_indices("cdh_") {
            let rest = &text[at..];
            let is_allowed = ["cdh_elfcore", "cdh_symbolize"]
                .iter()
                .any(|name| rest.starts_with(name));
            assert!(is_allowed, "{}: {:.40}", path.display(), rest);
        }
    }
}

#[test]
fn only_the_pipeline_faces_and_the_record_of_a_capture_use_runtimes() {
    let root = here().join("../..");
    let mut found = Vec::new();
    for room in ["src", "agent/src", "crates"] {
        sources(&root.join(room), &mut found);
    }
    let allowed = [
        "src/pipeline/",
        "src/render/",
        "src/tui/",
        "src/commands/",
        "agent/src/handler/record/",
        "crates/runtimes/",
    ];
    for path in found {
        let name = path
            .strip_prefix(&root)
            .unwrap()
            .to_string_lossy()
            .into_owned();
        let text = fs::read_to_string(&path).unwrap();
        let is_allowed = allowed.iter().any(|room| name.starts_with(room));
        assert!(is_allowed || !text.contains("cdh_runtimes"), "{name}");
        // Faces show what every language has; none of them decides by the language.
        let is_own = name.starts_with("crates/runtimes/");
        let text = text.split("#[cfg(test)]").next().unwrap_or_default();
        let decides = text.contains("cdh_runtimes") && text.contains("Language::");
        assert!(is_own || !decides, "{name}");
    }
}
