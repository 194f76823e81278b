//! The parts of a dump's `-proc.json` that a backtrace or a comparison shows: thread names, limits,
//! environment names. A dump without it, or with a damaged one, has no facts.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;

use cdh_bundle::EntryKind;
use serde_json::Value;

use super::{Dump, Origin, case};

/// Maximum size of `-proc.json`: maps and open files of a large process need some MiB.
const SIZE_LIMIT: u64 = 64 << 20;

/// Facts about a process, as far as they were captured.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Surrounding {
    /// Names of threads by their id.
    pub names: BTreeMap<u32, String>,
    /// Names of the environment's variables.
    pub environment: Option<BTreeSet<String>>,
    /// Resource limits by name: soft, hard, unit.
    pub limits: Option<BTreeMap<String, String>>,
}

impl Dump {
    /// Reads `-proc.json`.
    #[must_use]
    pub fn surrounding(&self) -> Surrounding {
        self.proc_json().as_ref().map(parse).unwrap_or_default()
    }

    fn proc_json(&self) -> Option<Value> {
        let reader: Box<dyn Read> = match (&self.origin, self.bundle()) {
            (Origin::Case(path), _) => {
                let opened = case::open_entry(path, &self.manifest, &EntryKind::Proc);
                let noted = opened.inspect_err(|error| self.note_damage(error.to_string()));
                Box::new(noted.ok()??)
            }
            (_, Some(bundle)) => {
                let entry = bundle.entry(&EntryKind::Proc)?;
                let reader = bundle.entry_reader(entry);
                let noted = reader.inspect_err(|error| self.note_damage(error.to_string()));
                noted.ok()?
            }
            _ => return None,
        };
        let mut json = Vec::new();
        let read = reader.take(SIZE_LIMIT).read_to_end(&mut json);
        read.inspect_err(|error| self.note_damage(error.to_string()))
            .ok()?;
        serde_json::from_slice(&json).ok()
    }
}

fn parse(facts: &Value) -> Surrounding {
    let mut found = Surrounding::default();
    for thread in facts["threads"].as_array().into_iter().flatten() {
        let tid = thread["tid"]
            .as_u64()
            .and_then(|tid| u32::try_from(tid).ok());
        if let (Some(tid), Some(name)) = (tid, thread["name"].as_str()) {
            found.names.insert(tid, name.to_owned());
        }
    }
    found.environment = facts["environment_names"].as_array().map(|names| {
        names
            .iter()
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect()
    });
    found.limits = facts["limits"].as_str().map(limits);
    found
}

/// `/proc/<pid>/limits`: columns of fixed width under a title line.
fn limits(text: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for line in text.lines().skip(1) {
        let Some((name, rest)) = line.split_at_checked(26) else {
            continue;
        };
        let values: Vec<&str> = rest.split_whitespace().collect();
        found.insert(name.trim().to_owned(), values.join(" "));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_are_read_as_the_handler_writes_them() {
        let limits = std::fs::read_to_string("/proc/self/limits").unwrap();
        let facts = serde_json::json!({
            "limits": limits,
            "environment_names": ["PATH", "HOME"],
            "threads": [{"tid": 7, "name": "worker"}, {"tid": "x"}],
        });
        let found = parse(&facts);
        assert_eq!(found.names[&7], "worker");
        assert!(found.environment.unwrap().contains("PATH"));
        let open = &found.limits.unwrap()["Max open files"];
        assert!(open.ends_with("files"), "{open}");
        assert_eq!(parse(&Value::Null), Surrounding::default());
    }
}
