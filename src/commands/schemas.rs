//! `cdh schemas <dir>`: writes a JSON schema for everything that `-o json` prints, derived from the types that
//! are serialized.
//!
//! Each schema has a version. `versions.toml` beside the schemas holds a digest of each version ever written,
//! without descriptions. A changed schema with a recorded version is refused, so a change of the output cannot
//! go unnoticed.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use cdh_agent::DropLine;
use cdh_agent::diagnose::doctor::Finding;
use cdh_bundle::Sha256;
use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::Value;

use super::agent::documents::{CheckedConfig, StatusDocument, SweepDocument};
use crate::args::ManArgs;
use crate::render::{
    BacktraceDocument, Difference, FetchedDump, Freed, GarbageCollection, ImportedDump,
    InfoDocument, ListedCacheEntry, ListedDump, ListedGroup, Removal, SharedDump, SysrootDocument,
    WhyDocument, json_text,
};
use crate::report::{ExitStatus, Failure};

/// File with the digests of all versions.
const VERSIONS: &str = "versions.toml";

/// What a command prints with `-o json`.
struct Document {
    /// Name of the schema: `<name>.schema.json`.
    name: &'static str,
    /// The commands that print it.
    commands: &'static str,
    /// Increase it with each change other than to descriptions; then run `cargo xtask docs`.
    version: u32,
    schema: fn() -> Value,
}

impl Document {
    const fn new<T: JsonSchema>(name: &'static str, commands: &'static str, version: u32) -> Self {
        Self {
            name,
            commands,
            version,
            schema: schema_of::<T>,
        }
    }

    /// The schema as it is published.
    fn published(&self) -> Value {
        let mut schema = (self.schema)();
        if let Some(fields) = schema.as_object_mut() {
            let id = format!("urn:cdh:{}:{}", self.name, self.version);
            fields.insert("$id".to_owned(), id.into());
            fields.insert("title".to_owned(), self.commands.into());
            fields.insert("version".to_owned(), self.version.into());
        }
        schema
    }
}

/// Every document. `cdh ls -o jsonl` and `cdh groups -o jsonl` print the items of their arrays.
const DOCUMENTS: [Document; 19] = [
    Document::new::<Vec<ListedDump<'_>>>("ls", "cdh ls -o json", 1),
    Document::new::<Vec<ListedGroup<'_>>>(
        "groups",
        "cdh groups -o json, cdh ls --group -o json",
        1,
    ),
    Document::new::<InfoDocument<'_>>("info", "cdh info -o json", 2),
    Document::new::<BacktraceDocument<'_>>("bt", "cdh bt -o json", 2),
    Document::new::<WhyDocument<'_>>("why", "cdh why -o json", 1),
    Document::new::<Difference>("diff", "cdh diff -o json", 1),
    Document::new::<Vec<DropLine>>("drops", "cdh drops -o json", 1),
    Document::new::<Vec<FetchedDump<'_>>>("fetch", "cdh fetch -o json", 1),
    Document::new::<Vec<ImportedDump>>("import", "cdh import -o json", 1),
    Document::new::<SysrootDocument<'_>>("sysroot", "cdh sysroot -o json", 1),
    Document::new::<Removal<'_>>("rm", "cdh rm -o json", 1),
    Document::new::<GarbageCollection<'_>>("gc", "cdh gc -o json", 1),
    Document::new::<SharedDump>("share", "cdh share -o json", 1),
    Document::new::<Vec<ListedCacheEntry<'_>>>("cache-ls", "cdh cache ls -o json", 1),
    Document::new::<Freed>("cache-clear", "cdh cache clear -o json", 1),
    Document::new::<StatusDocument>("agent-status", "cdh agent status -o json", 1),
    Document::new::<Vec<Finding>>("agent-doctor", "cdh agent doctor -o json", 1),
    Document::new::<SweepDocument>("agent-sweep", "cdh agent sweep -o json", 1),
    Document::new::<CheckedConfig>("agent-check-config", "cdh agent check-config -o json", 1),
];

fn schema_of<T: JsonSchema>() -> Value {
    let settings = SchemaSettings::draft2020_12().for_serialize();
    settings
        .into_generator()
        .into_root_schema_for::<T>()
        .to_value()
}

pub(super) fn run(args: &ManArgs) -> Result<ExitStatus> {
    let directory = &args.directory;
    fs::create_dir_all(directory)
        .with_context(|| format!("cannot create `{}`", directory.display()))?;
    let path = directory.join(VERSIONS);
    let mut versions = read_versions(&path)?;
    for document in &DOCUMENTS {
        let schema = document.published();
        record(&mut versions, document, &schema)?;
        let file = directory.join(format!("{}.schema.json", document.name));
        write(&file, &json_text(&schema)?)?;
    }
    write(&path, &versions_text(&versions))?;
    Ok(ExitStatus::Done)
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write `{}`", path.display()))
}

/// Digests by schema and version.
type Versions = BTreeMap<String, BTreeMap<String, String>>;

fn read_versions(path: &Path) -> Result<Versions> {
    match fs::read_to_string(path) {
        Ok(text) => {
            toml::from_str(&text).with_context(|| format!("cannot read `{}`", path.display()))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Versions::new()),
        Err(error) => Err(error).with_context(|| format!("cannot read `{}`", path.display())),
    }
}

fn versions_text(versions: &Versions) -> String {
    let mut text = "# Digest of each version of each schema, without descriptions. `cargo xtask docs` adds new versions; a\n\
                    # recorded one never changes.\n"
        .to_owned();
    for (name, digests) in versions {
        let _ = writeln!(text, "\n[{name}]");
        let mut digests: Vec<_> = digests.iter().collect();
        digests.sort_by_key(|(version, _)| version.parse::<u32>().unwrap_or(u32::MAX));
        for (version, digest) in digests {
            let _ = writeln!(text, "{version} = \"{digest}\"");
        }
    }
    text
}

/// Adds the digest of a new version, and refuses a recorded version with another schema.
fn record(versions: &mut Versions, document: &Document, schema: &Value) -> Result<()> {
    let digest = Sha256::of(without_descriptions(schema).to_string().as_bytes()).to_string();
    let known = versions.entry(document.name.to_owned()).or_default();
    let known = known.entry(document.version.to_string());
    if *known.or_insert_with(|| digest.clone()) == digest {
        return Ok(());
    }
    let message = format!(
        "the schema `{}` changed, and version {} is recorded already",
        document.name, document.version
    );
    let hint = "increase its version in `src/commands/schemas.rs`, and run `cargo xtask docs`";
    Err(Failure::new(ExitStatus::Failure, message).hint(hint).into())
}

/// The schema without descriptions.
fn without_descriptions(schema: &Value) -> Value {
    match schema {
        Value::Object(fields) => {
            // Under `properties`, this name is a property whose value is a schema.
            let is_text = |name: &str, value: &Value| name == "description" && value.is_string();
            let fields = fields.iter().filter(|(name, value)| !is_text(name, value));
            let fields = fields.map(|(name, value)| (name.clone(), without_descriptions(value)));
            Value::Object(fields.collect())
        }
        Value::Array(items) => items.iter().map(without_descriptions).collect(),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(JsonSchema)]
    #[expect(dead_code, reason = "only its schema is used")]
    struct Before {
        /// Some words.
        count: u32,
    }

    #[derive(JsonSchema)]
    #[expect(dead_code, reason = "only its schema is used")]
    struct Reworded {
        /// Other words.
        count: u32,
    }

    #[derive(JsonSchema)]
    #[expect(dead_code, reason = "only its schema is used")]
    struct Changed {
        /// Some words.
        count: Option<u32>,
    }

    fn recorded(versions: &mut Versions, document: &Document) -> Result<()> {
        let mut schema = document.published();
        schema["title"] = "x".into();
        record(versions, document, &schema)
    }

    #[test]
    fn changed_schema_needs_a_new_version() {
        let mut versions = Versions::new();
        recorded(&mut versions, &Document::new::<Before>("x", "x", 1)).unwrap();
        let changed = recorded(&mut versions, &Document::new::<Changed>("x", "x", 1));
        assert!(
            changed
                .unwrap_err()
                .to_string()
                .contains("version 1 is recorded already")
        );
        recorded(&mut versions, &Document::new::<Changed>("x", "x", 2)).unwrap();
        assert_eq!(versions["x"].len(), 2);
    }

    #[test]
    fn reworded_description_needs_no_new_version() {
        let plain = |schema: Value| {
            let mut schema = without_descriptions(&schema);
            schema["title"] = "x".into();
            schema
        };
        assert_eq!(plain(schema_of::<Before>()), plain(schema_of::<Reworded>()));
        assert_ne!(plain(schema_of::<Before>()), plain(schema_of::<Changed>()));
    }

    #[test]
    fn versions_are_read_as_they_are_written() {
        let mut versions = Versions::new();
        let digests = [("2", "b"), ("10", "c")].map(|(a, b)| (a.to_owned(), b.to_owned()));
        versions.insert("ls".to_owned(), digests.into());
        let text = versions_text(&versions);
        assert!(text.find("2 = ").unwrap() < text.find("10 = ").unwrap());
        assert_eq!(toml::from_str::<Versions>(&text).unwrap(), versions);
    }
}
