//! What another handler recorded about a crash: where, when, and which program. Without such a record, these
//! facts remain unknown: the importing machine and the file's times say nothing about the crash.
//!
//! There are three sources, each with its own names, which the manifest preserves:
//!
//! ```text
//! extended attributes   user.coredump.pid                        systemd-coredump(8)
//! name of the file      core.<comm>.<uid>.<boot id>.<pid>.<microseconds>[.zst]
//! journal entry         COREDUMP_PID                             systemd.journal-fields(7), coredumpctl(1)
//! ```
//!
//! All of it is untrusted: values are limited, and become facts only if they parse.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;

use cdh_agent::owner::Owner;
use cdh_bundle::{Gap, ImportRecord, Manifest, RawText, WorkloadKind};
use cdh_elfcore::SignalInfo;
use jiff::Timestamp;

/// How the names of systemd-coredump's attributes begin (`coredump.c`).
const ATTRIBUTES: &str = "user.coredump.";
/// Longest attribute: Linux allows 64 KiB (`XATTR_SIZE_MAX`).
const MAX_ATTRIBUTE: usize = 64 << 10;
/// Maximum length of a value in a manifest.
const MAX_VALUE: usize = 4 << 10;
/// Maximum number of values in a manifest.
const MAX_FIELDS: usize = 96;
/// Journal fields that are too large for a manifest, or hold secrets. [`Provenance::proc_json`] includes
/// some of them.
const LARGE: [&str; 7] = [
    "COREDUMP_ENVIRON",
    "COREDUMP_OPEN_FDS",
    "COREDUMP_PROC_AUXV",
    "COREDUMP_PROC_LIMITS",
    "COREDUMP_PROC_MAPS",
    "COREDUMP_PROC_MOUNTINFO",
    "COREDUMP_PROC_STATUS",
];

/// The fields of one crash, by name.
#[derive(Clone, Debug, Default)]
pub(in crate::pipeline) struct Provenance {
    fields: BTreeMap<String, RawText>,
    /// Facts from the file's name that no field has.
    named: BTreeMap<&'static str, String>,
}

impl Provenance {
    /// Facts from attributes and name of a core's file.
    pub(in crate::pipeline) fn of_file(file: &File, path: &Path) -> Self {
        let mut found = Self {
            named: path
                .file_name()
                .and_then(|name| fields_of_name(name.to_str()?))
                .unwrap_or_default(),
            ..Self::default()
        };
        let mut names = vec![0; MAX_ATTRIBUTE];
        let Ok(len) = rustix::fs::flistxattr(file, &mut names) else {
            return found;
        };
        for name in names
            .get(..len)
            .unwrap_or_default()
            .split(|byte| *byte == 0)
        {
            let Some(name) = std::str::from_utf8(name)
                .ok()
                .filter(|name| name.starts_with(ATTRIBUTES))
            else {
                continue;
            };
            let mut value = vec![0; MAX_ATTRIBUTE];
            if let Ok(len) = rustix::fs::fgetxattr(file, name, &mut value) {
                found.add(name, value.get(..len).unwrap_or_default());
            }
        }
        found
    }

    /// Adds a field. If a name occurs twice, the first value counts.
    pub(super) fn add(&mut self, name: &str, value: &[u8]) {
        let fields = &mut self.fields;
        fields
            .entry(name.to_owned())
            .or_insert_with(|| RawText::from(value));
    }

    /// Adds the fields that this one lacks from the other.
    pub(super) fn complete_with(&mut self, other: Self) {
        for (name, value) in other.fields {
            self.fields.entry(name).or_insert(value);
        }
        for (name, value) in other.named {
            self.named.entry(name).or_insert(value);
        }
    }

    /// A field by its whole name.
    pub(super) fn field(&self, name: &str) -> Option<&RawText> {
        self.fields.get(name)
    }

    /// A fact by its name as an attribute; the journal, which has more detail, takes precedence.
    fn fact(&self, name: &str) -> Option<RawText> {
        let in_journal = format!("COREDUMP_{}", name.to_ascii_uppercase());
        let recorded = self
            .field(&in_journal)
            .or_else(|| self.field(&format!("{ATTRIBUTES}{name}")));
        let named = || {
            self.named
                .get(name)
                .map(|text| RawText::from(text.as_str()))
        };
        recorded.cloned().or_else(named)
    }

    fn number<N: std::str::FromStr>(&self, name: &str) -> Option<N> {
        text(&self.fact(name)?).trim().parse().ok()
    }

    /// When the process crashed. The kernel passes whole seconds; systemd-coredump stores microseconds.
    fn captured_at(&self) -> Option<Timestamp> {
        /// A number of seconds has at most this many digits until the year 5138; microseconds have
        /// more since 1973.
        const FIRST_MICROSECONDS: i64 = 100_000_000_000;
        let number: i64 = self.number("timestamp")?;
        let time = match number {
            ..=0 => return None,
            1..FIRST_MICROSECONDS => Timestamp::from_second(number),
            _ => Timestamp::from_microsecond(number),
        };
        time.ok()
    }

    /// Adds the facts to a manifest that was made from the core alone.
    pub(super) fn note(&self, manifest: &mut Manifest) {
        if let Some(time) = self.captured_at() {
            manifest.captured_at = time;
        }
        if let Some(hostname) = self.fact("hostname") {
            manifest.hostname = hostname;
        }
        // The host name in the journal, not that of the process, which a container sets.
        if let Some(node) = self.field("_HOSTNAME") {
            manifest.node = node.clone();
        }
        let process = &mut manifest.process;
        if let Some(pid) = self.number::<u64>("pid") {
            // A core has the process id of its own namespace.
            if process.pid != 0 && process.pid != pid {
                process.namespace_pid = Some(process.pid);
            }
            process.pid = pid;
        }
        if let Some(tid) = self.number::<u64>("tid") {
            process.tid = Some(tid);
        }
        process.uid = self.number("uid").or(process.uid);
        process.gid = self.number("gid").or(process.gid);
        if let Some(name) = self.fact("comm") {
            process.name = name;
        }
        if let Some(exe) = self.fact("exe") {
            process.exe = Some(exe);
        }
        if let Some(line) = self.fact("cmdline") {
            process.arguments = Some(words(&line));
        }
        if let Some(number) = self.number::<i32>("signal")
            && (1..=64).contains(&number)
            && manifest.signal.number == 0
        {
            manifest.signal = (&SignalInfo::from_number(number)).into();
        }
        self.note_workload(manifest);
        self.note_gaps(manifest);
    }

    /// Unit, or pod and container, from the cgroup.
    fn note_workload(&self, manifest: &mut Manifest) {
        let cgroup = self.fact("cgroup");
        let lines = self.fact("proc_cgroup");
        let lines = lines.or_else(|| Some(RawText::from(format!("0::{}\n", text(&cgroup?)))));
        let owner = lines.and_then(|lines| Owner::from_cgroup(lines.as_bytes()));
        let mut workload = owner.map(|owner| owner.workload());
        let unit = self.fact("unit").or_else(|| self.fact("user_unit"));
        if let Some(unit) = unit {
            let known = workload.get_or_insert_default();
            let unit = text(&unit).into();
            known.extra.insert("unit".to_owned(), unit);
            known.kind.get_or_insert(WorkloadKind::Host);
        }
        if let Some(mut workload) = workload {
            workload.source = Some("journal".to_owned());
            manifest.workload = Some(workload);
        }
    }

    fn note_gaps(&self, manifest: &mut Manifest) {
        let mut gap = |what: &str, why: &str| {
            manifest.gaps.push(Gap {
                what: what.to_owned(),
                why: why.to_owned(),
            });
        };
        if self.field("COREDUMP_ENVIRON").is_some() {
            gap(
                "environment values",
                "not imported from the journal: they may hold secrets",
            );
        }
        if self
            .fact("truncated")
            .is_some_and(|text| text.as_bytes() == b"1")
        {
            gap("core", "systemd-coredump reports that it was truncated");
        }
    }

    /// The part that the manifest stores.
    pub(super) fn record(&self, path: &Path, at: Timestamp) -> ImportRecord {
        let name = path.file_name().unwrap_or_default().as_encoded_bytes();
        let small = self
            .fields
            .iter()
            .filter(|(name, _)| !LARGE.contains(&name.as_str()));
        let bounded = small.take(MAX_FIELDS).map(|(name, value)| {
            let value = value.as_bytes();
            let kept = value.get(..MAX_VALUE).unwrap_or(value);
            (name.clone(), RawText::from(kept))
        });
        ImportRecord {
            at,
            file: RawText::from(name),
            fields: bounded.collect(),
        }
    }

    /// The facts of `/proc` in a journal entry, in the format of an agent's `proc.json`; `None` if it has
    /// none.
    pub(super) fn proc_json(&self) -> Option<serde_json::Value> {
        let names = ["maps", "status", "limits", "cgroup"];
        let has_any = names
            .iter()
            .any(|name| self.fact(&format!("proc_{name}")).is_some());
        if !has_any && self.field("COREDUMP_ENVIRON").is_none() {
            return None;
        }
        let raw = |name: &str| self.fact(name);
        let environment = self.field("COREDUMP_ENVIRON").map(|lines| {
            let lines = lines.as_bytes().split(|byte| *byte == b'\n');
            let names = lines.filter_map(|line| line.split(|byte| *byte == b'=').next());
            let names = names.filter(|name| !name.is_empty());
            names.map(RawText::from).collect::<Vec<_>>()
        });
        Some(serde_json::json!({
            "schema": 1,
            "pid": self.number::<u64>("pid"),
            "arguments": raw("cmdline").map(|line| words(&line)),
            "exe": raw("exe"),
            "cwd": raw("cwd"),
            "root": raw("root"),
            "environment_names": environment,
            "cgroup": raw("proc_cgroup"),
            "limits": raw("proc_limits"),
            "maps": raw("proc_maps"),
            "status": raw("proc_status"),
        }))
    }
}

/// As text, with what is not UTF-8 replaced.
fn text(raw: &RawText) -> String {
    String::from_utf8_lossy(raw.as_bytes()).into_owned()
}

/// The arguments of a command line. systemd-coredump quotes arguments with special characters like a shell.
fn words(line: &RawText) -> Vec<RawText> {
    let mut words = Vec::new();
    let mut word: Option<Vec<u8>> = None;
    let mut quote = None;
    let mut bytes = line.as_bytes().iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        match (quote, byte) {
            (None, b' ' | b'\t' | b'\n') => words.extend(word.take()),
            (None, b'$') if matches!(bytes.peek(), Some(b'\'' | b'"')) => {}
            (None, b'\'' | b'"') => {
                quote = Some(byte);
                word.get_or_insert_default();
            }
            (Some(open), _) if open == byte => quote = None,
            (Some(b'\''), b'\\') if bytes.peek() != Some(&b'\'') => {
                word.get_or_insert_default().push(byte);
            }
            (_, b'\\') => word.get_or_insert_default().extend(bytes.next()),
            _ => word.get_or_insert_default().push(byte),
        }
    }
    words.extend(word);
    words.into_iter().map(RawText::new).collect()
}

/// The facts in a file name of systemd-coredump: `core.<comm>.<uid>.<boot id>.<pid>.<time>`. The program's
/// name may contain dots.
fn fields_of_name(name: &str) -> Option<BTreeMap<&'static str, String>> {
    let mut rest = name.strip_prefix("core.")?;
    for end in [".zip", ".zst", ".xz", ".lz4", ".gz", ".bz2"] {
        rest = rest.strip_suffix(end).unwrap_or(rest);
    }
    let is_number =
        |text: &&str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let mut parts = rest.rsplitn(5, '.');
    let time = parts.next().filter(is_number)?;
    let pid = parts.next().filter(is_number)?;
    let boot = parts
        .next()
        .filter(|text| text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit()))?;
    let uid = parts.next().filter(is_number)?;
    let comm = parts.next().filter(|text| !text.is_empty())?;
    // Characters that a file name cannot contain are `\xNN` (`xescape()` of systemd).
    let comm = RawText::from_escaped(comm).to_string();
    Some(BTreeMap::from([
        ("timestamp", time.to_owned()),
        ("pid", pid.to_owned()),
        ("boot_id", boot.to_owned()),
        ("uid", uid.to_owned()),
        ("comm", comm),
    ]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_name_of_systemd_has_program_user_process_and_time() {
        let name = "core.my.app.1000.0123456789abcdef0123456789abcdef.4242.1700000000123456.zst";
        let found = fields_of_name(name).unwrap();
        assert_eq!(found["comm"], "my.app");
        assert_eq!((&*found["uid"], &*found["pid"]), ("1000", "4242"));
        let provenance = Provenance {
            named: found,
            ..Provenance::default()
        };
        let time = provenance.captured_at().unwrap();
        assert_eq!(time.to_string(), "2023-11-14T22:13:20.123456Z");
        for other in [
            "core.4242",
            "core.app.1000.x.4242.1700000000123456",
            "app.core",
            "core.app.0123456789abcdef0123456789abcdef.4242.17",
        ] {
            assert!(fields_of_name(other).is_none(), "{other}");
        }
    }

    #[test]
    fn time_may_be_in_seconds_or_microseconds() {
        let time = |text: &str| {
            let mut provenance = Provenance::default();
            provenance.add("user.coredump.timestamp", text.as_bytes());
            provenance.captured_at().map(|time| time.to_string())
        };
        assert_eq!(time("1700000000").unwrap(), "2023-11-14T22:13:20Z");
        assert_eq!(time("1700000000000000").unwrap(), "2023-11-14T22:13:20Z");
        for text in ["", "0", "-5", "soon", "99999999999999999999"] {
            assert_eq!(time(text), None, "{text}");
        }
    }

    #[test]
    fn command_line_is_split_as_a_shell_would() {
        let split = |line: &str| {
            let words = words(&RawText::from(line));
            words.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(split("sleep 100"), ["sleep", "100"]);
        assert_eq!(
            split(r#"sh -c "sleep 1; exit" '' 'a b'"#),
            ["sh", "-c", "sleep 1; exit", "", "a b"]
        );
        assert_eq!(
            split(r#"a $'b c' d\ e "f\"g""#),
            ["a", "b c", "d e", "f\"g"]
        );
        assert_eq!(split("a 'open"), ["a", "open"]);
        assert!(split("  ").is_empty());
    }

    #[test]
    fn environment_of_the_journal_gives_names_and_no_values() {
        let mut provenance = Provenance::default();
        provenance.add("COREDUMP_PID", b"7");
        provenance.add("COREDUMP_ENVIRON", b"PATH=/bin\nTOKEN=hunter2\n");
        let json = provenance.proc_json().unwrap();
        assert_eq!(
            json["environment_names"],
            serde_json::json!(["PATH", "TOKEN"])
        );
        let record = provenance.record(Path::new("/x/export"), Timestamp::UNIX_EPOCH);
        assert!(
            !json.to_string().contains("hunter2") && !format!("{record:?}").contains("hunter2")
        );
    }
}
