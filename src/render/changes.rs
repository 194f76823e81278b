//! The JSON output of commands that change a store or the cache: `fetch`, `import`, `rm`, `gc`, `share`, `cache
//! clear`.

#[cfg(feature = "schema")]
use cdh_bundle::schema::Time;
use cdh_bundle::{DumpId, SignalFacts, Verdict};
use cdh_store::{DumpSummary, Expired};
use jiff::Timestamp;
use serde::Serialize;

use crate::pipeline::ImportOutcome;

/// A dump that was downloaded and unpacked.
#[derive(Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct FetchedDump<'a> {
    /// Its id.
    pub id: DumpId,
    /// The case directory.
    pub directory: String,
    /// Path of the core; `null` if the dump has none.
    pub core: Option<String>,
    /// Whether the core is complete.
    pub verdict: &'a Verdict,
}

/// A dump that was stored, or that the store already had.
#[derive(Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ImportedDump {
    /// Its id.
    pub id: DumpId,
    /// Whether the core is complete.
    pub verdict: Verdict,
    /// The fatal signal.
    pub signal: SignalFacts,
    /// The file that it came from.
    pub file: String,
    /// Whether it was stored now.
    pub outcome: ImportOutcome,
}

/// What `cdh rm` deleted.
#[derive(Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Removal<'a> {
    /// Whether nothing was deleted because of `--dry-run`.
    pub dry_run: bool,
    /// The dumps.
    pub dumps: Vec<DeletedDump<'a>>,
}

/// A dump that was deleted, or would be.
#[derive(Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct DeletedDump<'a> {
    /// Its id.
    id: DumpId,
    /// When the process crashed.
    #[cfg_attr(feature = "schema", schemars(with = "Time"))]
    captured_at: Timestamp,
    /// Program.
    exe: String,
    /// Signal, such as `SIGSEGV`.
    signal: &'a str,
    /// Bytes of the bundle.
    size: Option<u64>,
    /// Key of the bundle in the store.
    key: &'a str,
    /// The limit that `cdh gc` applied.
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<&'static str>,
}

impl<'a> DeletedDump<'a> {
    /// `limit` is the reason, if a limit and not the user named the dump.
    #[must_use]
    pub fn new(dump: &'a DumpSummary, limit: Option<Expired>) -> Self {
        Self {
            id: dump.id,
            captured_at: dump.captured_at,
            exe: dump.exe.to_string(),
            signal: &dump.signal,
            size: dump.size,
            key: dump.key.as_str(),
            limit: limit.map(Expired::option),
        }
    }
}

/// What `cdh gc` deleted.
#[derive(Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct GarbageCollection<'a> {
    /// Whether nothing was deleted because of `--dry-run`.
    pub dry_run: bool,
    /// The dumps.
    pub dumps: Vec<DeletedDump<'a>>,
    /// The modules.
    pub modules: Vec<DeletedModule>,
}

/// A stored module that no dump needs.
#[derive(Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct DeletedModule {
    /// Build-id and SHA-256.
    pub name: String,
    /// Bytes.
    pub size: u64,
}

/// A presigned URL.
#[derive(Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct SharedDump {
    /// Id of the dump.
    pub id: DumpId,
    /// The URL. It is a secret: it gives access to the memory of the process.
    pub url: String,
    /// When it stops working.
    #[cfg_attr(feature = "schema", schemars(with = "Time"))]
    pub expires_at: Timestamp,
}

/// What `cdh cache clear` deleted.
#[derive(Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Freed {
    /// Bytes that were freed.
    pub freed_bytes: u64,
}
