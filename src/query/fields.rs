//! Facts of a dump that can be listed on their own: `cdh ls -F exe`, like `coredumpctl -F
//! COREDUMP_EXE`.

use cdh_bundle::Manifest;
use cdh_store::DumpSummary;

/// Each field: its name, systemd-coredump's name if it has one, and whether a key holds it.
pub const FIELDS: [(&str, &str, bool); 22] = [
    ("id", "", true),
    ("time", "COREDUMP_TIMESTAMP", false),
    ("namespace", "", true),
    ("pod", "", true),
    ("container", "", false),
    ("exe", "", true),
    ("path", "COREDUMP_EXE", false),
    ("comm", "COREDUMP_COMM", false),
    ("cmdline", "COREDUMP_CMDLINE", false),
    ("pid", "COREDUMP_PID", false),
    ("tid", "COREDUMP_TID", false),
    ("uid", "COREDUMP_UID", false),
    ("gid", "COREDUMP_GID", false),
    ("signal", "COREDUMP_SIGNAL_NAME", true),
    ("signal-number", "COREDUMP_SIGNAL", false),
    ("verdict", "", true),
    ("fingerprint", "", false),
    ("node", "_HOSTNAME", false),
    ("hostname", "COREDUMP_HOSTNAME", false),
    ("unit", "COREDUMP_UNIT", false),
    ("image", "", false),
    ("file", "COREDUMP_FILENAME", false),
];

/// A requested field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field(String);

impl Field {
    /// Parses a name, ours or systemd-coredump's. Other names of journal fields are looked up in what an import
    /// recorded.
    ///
    /// # Errors
    /// If there is no such field; the error lists all.
    pub fn parse(text: &str) -> Result<Self, String> {
        let known = FIELDS
            .iter()
            .find(|(name, journal, _)| *name == text || (!journal.is_empty() && *journal == text));
        let is_recorded = text.starts_with("COREDUMP_")
            || text.starts_with("user.coredump.")
            || text.starts_with('_');
        match known {
            Some((name, ..)) => Ok(Self((*name).to_owned())),
            None if is_recorded => Ok(Self(text.to_owned())),
            None => {
                let names: Vec<&str> = FIELDS.iter().map(|(name, ..)| *name).collect();
                Err(format!("expected one of {}", names.join(", ")))
            }
        }
    }

    /// Whether only manifests hold it.
    #[must_use]
    pub fn needs_manifest(&self) -> bool {
        let known = FIELDS.iter().find(|(name, ..)| *name == self.0);
        !known.is_some_and(|(_, _, in_key)| *in_key)
    }

    /// Its value; `None` if the dump has none.
    #[must_use]
    pub fn value(&self, dump: &DumpSummary, manifest: Option<&Manifest>) -> Option<String> {
        let in_key = match self.0.as_str() {
            "id" => Some(dump.id.to_string()),
            "namespace" => dump.namespace.clone(),
            "pod" => dump.pod.clone(),
            "exe" => Some(dump.exe.to_string()),
            "signal" => Some(dump.signal.clone()),
            "verdict" => Some(dump.verdict.clone()),
            _ => None,
        };
        in_key.or_else(|| self.in_manifest(manifest?))
    }

    fn in_manifest(&self, manifest: &Manifest) -> Option<String> {
        let process = &manifest.process;
        let workload = manifest.workload.as_ref();
        let value = match self.0.as_str() {
            "time" => manifest.captured()?.to_string(),
            "container" => workload?.container.clone()?,
            "path" => process.exe.as_ref()?.to_string(),
            "comm" => process.name.to_string(),
            "cmdline" => cdh_store::command_line(manifest)?,
            "pid" => process.pid.to_string(),
            "tid" => process.tid?.to_string(),
            "uid" => process.uid?.to_string(),
            "gid" => process.gid?.to_string(),
            "signal-number" => manifest.signal.number.to_string(),
            "fingerprint" => manifest.fingerprint.clone()?,
            "node" => manifest.node_name(),
            "hostname" => manifest.hostname.to_string(),
            "unit" => cdh_store::unit(manifest)?,
            "image" => manifest.image.as_ref()?.reference.clone(),
            "file" => manifest.imported.as_ref()?.file.to_string(),
            other => manifest.imported.as_ref()?.fields.get(other)?.to_string(),
        };
        Some(value).filter(|value| !value.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tui::tests::dump;

    #[test]
    fn fields_have_names_of_the_journal_too() {
        assert_eq!(Field::parse("COREDUMP_EXE"), Field::parse("path"));
        assert!(Field::parse("colour").unwrap_err().contains("namespace"));
        assert!(Field::parse("").is_err());
        assert!(Field::parse("COREDUMP_RLIMIT").unwrap().needs_manifest());
        let exe = Field::parse("exe").unwrap();
        assert!(!exe.needs_manifest());
        assert_eq!(exe.value(&dump(1), None).as_deref(), Some("worker"));
    }
}
