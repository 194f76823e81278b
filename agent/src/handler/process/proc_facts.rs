//! `proc.json`: what `/proc` says about the process, as far as it can be read.
//!
//! Each fact is independent: one that cannot be read is absent and becomes a gap. Of the environment
//! only the names are taken, and values of variables that the policy names; others are where secrets
//! are. Lists are capped, with the true count
//! beside them.

use std::io;

use cdh_bundle::{Gap, RawText};
use serde::{Deserialize, Serialize};

use super::handles::ProcessHandles;
use crate::handler::os::proc_status::status_field;
use crate::policy::PolicyConfig;
use crate::redaction::{SecretNames, Secrets};

/// Open files that are listed at most.
const OPEN_FILES: usize = 1024;
/// Environment names that are listed at most.
const ENVIRONMENT_NAMES: usize = 4096;
/// Bytes of a variable's value that are kept at most.
const VALUE: usize = 4096;
/// Threads whose names are read at most: each takes some microseconds.
const THREADS: usize = 512;
/// Bytes of the command line that are kept at most.
const COMMAND_LINE: usize = 256 << 10;

/// One open file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenFile {
    /// Descriptor number.
    pub fd: u32,
    /// What `/proc/<pid>/fd/<fd>` links to.
    pub target: RawText,
}

/// One environment variable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Variable {
    /// Its name.
    pub name: RawText,
    /// Its value.
    pub value: RawText,
}

/// One thread.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamedThread {
    /// Its id in the process's own pid namespace, as the core has it.
    pub tid: u32,
    /// Its name.
    pub name: RawText,
}

/// One namespace of the process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Namespace {
    /// `mnt`, `pid`, `net`, …
    pub kind: String,
    /// `mnt:[4026531841]`.
    pub id: RawText,
}

/// Credentials as `status` shows them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credentials {
    /// Real, effective, saved, file system user id.
    pub uid: Option<RawText>,
    /// Real, effective, saved, file system group id.
    pub gid: Option<RawText>,
    /// Supplementary groups.
    pub groups: Option<RawText>,
    /// Effective capabilities, hexadecimal.
    pub capabilities: Option<RawText>,
    /// `NoNewPrivs`.
    pub no_new_privileges: Option<RawText>,
    /// `Seccomp`.
    pub seccomp: Option<RawText>,
}

/// Contents of `proc.json`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProcFacts {
    /// 1.
    pub schema: u32,
    /// Process id on the host.
    pub pid: u32,
    /// Command line, one element per argument.
    pub arguments: Option<Vec<RawText>>,
    /// Target of `exe`.
    pub exe: Option<RawText>,
    /// Target of `cwd`.
    pub cwd: Option<RawText>,
    /// Target of `root`.
    pub root: Option<RawText>,
    /// Names of the environment's variables.
    pub environment_names: Option<Vec<RawText>>,
    /// Values of those variables that the node's policy names.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub environment: Vec<Variable>,
    /// Names of the threads.
    pub threads: Vec<NamedThread>,
    /// `cgroup`.
    pub cgroup: Option<RawText>,
    /// `limits`.
    pub limits: Option<RawText>,
    /// `maps`.
    pub maps: Option<RawText>,
    /// `status` of the thread that crashed.
    pub status: Option<RawText>,
    /// `oom_score_adj`.
    pub oom_score_adjustment: Option<RawText>,
    /// Credentials.
    pub credentials: Credentials,
    /// Namespaces.
    pub namespaces: Vec<Namespace>,
    /// Open files, the lowest numbers first.
    pub open_files: Vec<OpenFile>,
    /// How many files were open.
    pub open_file_count: usize,
}

/// Which facts are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    /// All but `maps`, which is read before everything else.
    AllButMaps,
    /// Those for which the kernel does not wait for the process's memory.
    WithoutMemory,
}

impl ProcFacts {
    /// Reads everything in `scope`; what cannot be read is a gap. `cgroup` was read earlier, because a
    /// killed process leaves its cgroup within milliseconds.
    #[must_use]
    pub(crate) fn read(
        process: &ProcessHandles,
        cgroup: Option<RawText>,
        policy: &PolicyConfig,
        scope: Scope,
    ) -> (Self, Vec<Gap>) {
        let mut gaps = Vec::new();
        let mut note = |what: &str, error: io::Error| {
            gaps.push(Gap {
                what: format!("/proc/<pid>/{what}"),
                why: error.to_string(),
            });
        };
        let mut text = |name: &str| match process.read(name) {
            Ok(bytes) => Some(RawText::new(bytes)),
            Err(error) => {
                note(name, error);
                None
            }
        };
        let mut facts = Self {
            schema: 1,
            pid: process.pid(),
            cgroup,
            ..Self::default()
        };
        facts.limits = text("limits");
        facts.status = text("status");
        facts.oom_score_adjustment = text("oom_score_adj");
        let with_memory = scope == Scope::AllButMaps;
        facts.arguments = with_memory
            .then(|| text("cmdline"))
            .flatten()
            .map(|line| split_arguments(line.as_bytes()));
        if let Some(environment) = with_memory.then(|| text("environ")).flatten() {
            let environment = environment.as_bytes();
            facts.environment_names = Some(environment_names(environment));
            facts.environment = kept_variables(environment, policy);
            let unseen = facts.remove_secrets(environment, policy);
            if unseen > 0 {
                let why =
                    format!("{unseen} of them took too long to look through and were removed");
                note("cmdline", io::Error::other(why));
            }
        } else {
            // Without the environment the values of secrets are unknown.
            facts.remove_secrets(b"", policy);
        }
        let status = facts.status.as_ref().map(RawText::as_bytes);
        facts.threads = thread_names(process, status.unwrap_or_default());
        let mut link = |name: &str| match process.read_link(name) {
            Ok(target) => Some(target),
            Err(error) => {
                note(name, error);
                None
            }
        };
        facts.exe = link("exe");
        facts.cwd = link("cwd");
        facts.root = link("root");
        match namespaces(process) {
            Ok(found) => facts.namespaces = found,
            Err(error) => note("ns", error),
        }
        match open_files(process) {
            Ok((files, count)) => (facts.open_files, facts.open_file_count) = (files, count),
            Err(error) => note("fd", error),
        }
        if let Some(status) = &facts.status {
            facts.credentials = Credentials::from_status(status.as_bytes());
        }
        (facts, gaps)
    }

    /// Removes the values of secret variables, and what looks like a secret, from the command line and the
    /// values that are kept. How many arguments were removed unseen.
    fn remove_secrets(&mut self, environment: &[u8], policy: &PolicyConfig) -> usize {
        let mut secrets = Secrets::new(SecretNames::of(policy));
        for (name, value) in variables(environment).take(ENVIRONMENT_NAMES) {
            secrets.note(name, value);
        }
        let redactor = secrets.redactor();
        for variable in &mut self.environment {
            if let Some(clean) = redactor.cleaned(variable.value.as_bytes()) {
                variable.value = RawText::new(clean);
            }
        }
        let arguments = self.arguments.as_mut();
        arguments.map_or(0, |arguments| redactor.arguments(arguments))
    }
}

impl Credentials {
    fn from_status(status: &[u8]) -> Self {
        let field = |name| status_field(status, name).map(RawText::from);
        Self {
            uid: field("Uid"),
            gid: field("Gid"),
            groups: field("Groups"),
            capabilities: field("CapEff"),
            no_new_privileges: field("NoNewPrivs"),
            seccomp: field("Seccomp"),
        }
    }
}

/// The NUL-separated arguments of `cmdline`.
#[must_use]
pub(crate) fn split_arguments(line: &[u8]) -> Vec<RawText> {
    let line = line.get(..COMMAND_LINE).unwrap_or(line);
    let line = line.strip_suffix(&[0]).unwrap_or(line);
    match line {
        [] => Vec::new(),
        line => line.split(|&byte| byte == 0).map(RawText::from).collect(),
    }
}

/// Name and value of each variable.
fn variables(environment: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    let parts = environment.split(|&byte| byte == 0);
    parts.filter_map(|variable| {
        let end = variable.iter().position(|&byte| byte == b'=')?;
        let value = variable.get(end.saturating_add(1)..)?;
        Some((variable.get(..end)?, value))
    })
}

fn kept_variables(environment: &[u8], policy: &PolicyConfig) -> Vec<Variable> {
    if policy.environment.is_empty() {
        return Vec::new();
    }
    let kept = variables(environment)
        .filter(|(name, _)| policy.keeps_value(&String::from_utf8_lossy(name)))
        .take(ENVIRONMENT_NAMES);
    kept.map(|(name, value)| Variable {
        name: RawText::from(name),
        value: RawText::from(value.get(..VALUE).unwrap_or(value)),
    })
    .collect()
}

/// Names of the threads, with their ids as the process itself sees them.
fn thread_names(process: &ProcessHandles, status: &[u8]) -> Vec<NamedThread> {
    // `NSpid`: one id for each pid namespace, from the outside in.
    let depth = status_field(status, "NSpid").map_or(1, |ids| columns(ids).count());
    let mut tids = process.threads(THREADS);
    tids.sort_unstable();
    tids.dedup();
    let name = |tid: u32| {
        let name = process.read_of_thread(tid, "comm")?;
        let tid = match depth {
            0 | 1 => tid,
            _ => {
                let status = process.read_of_thread(tid, "status")?;
                let last = columns(status_field(&status, "NSpid")?).last()?.to_vec();
                std::str::from_utf8(&last).ok()?.parse().ok()?
            }
        };
        let name = name.strip_suffix(b"\n").unwrap_or(&name);
        let name = RawText::from(name);
        Some(NamedThread { tid, name })
    };
    tids.into_iter().filter_map(name).collect()
}

fn columns(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let words = text.split(u8::is_ascii_whitespace);
    words.filter(|word| !word.is_empty())
}

fn environment_names(environment: &[u8]) -> Vec<RawText> {
    let name = |variable: &[u8]| {
        // A string without `=` is no variable; the process wrote over its environment, and the bytes there
        // could be anything, a secret too.
        let end = variable.iter().position(|&byte| byte == b'=')?;
        variable
            .get(..end)
            .filter(|name| !name.is_empty())
            .map(RawText::from)
    };
    environment
        .split(|&byte| byte == 0)
        .filter_map(name)
        .take(ENVIRONMENT_NAMES)
        .collect()
}

fn names(process: &ProcessHandles, directory: &str) -> io::Result<Vec<Vec<u8>>> {
    let handle = process.open_directory(directory)?;
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::read_from(&handle)? {
        let name = entry?.file_name().to_bytes().to_vec();
        if name != b"." && name != b".." {
            names.push(name);
        }
    }
    Ok(names)
}

fn namespaces(process: &ProcessHandles) -> io::Result<Vec<Namespace>> {
    let mut kinds: Vec<_> = names(process, "ns")?
        .into_iter()
        .filter_map(|name| String::from_utf8(name).ok())
        .collect();
    kinds.sort();
    let read = |kind: String| {
        let id = process.read_link(&format!("ns/{kind}")).ok()?;
        Some(Namespace { kind, id })
    };
    Ok(kinds.into_iter().filter_map(read).collect())
}

fn open_files(process: &ProcessHandles) -> io::Result<(Vec<OpenFile>, usize)> {
    let number = |name: Vec<u8>| std::str::from_utf8(&name).ok()?.parse::<u32>().ok();
    let mut numbers: Vec<_> = names(process, "fd")?
        .into_iter()
        .filter_map(number)
        .collect();
    numbers.sort_unstable();
    let read = |&fd: &u32| {
        Some(OpenFile {
            fd,
            target: process.read_link(&format!("fd/{fd}")).ok()?,
        })
    };
    let files = numbers.iter().take(OPEN_FILES).filter_map(read).collect();
    Ok((files, numbers.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_keep_empty_ones_and_every_byte() {
        let found = split_arguments(b"prog\0\0a b\n\0\xff\0");
        let expected: [&[u8]; 4] = [b"prog", b"", b"a b\n", b"\xff"];
        assert_eq!(
            found.iter().map(RawText::as_bytes).collect::<Vec<_>>(),
            expected
        );
        assert_eq!(split_arguments(b""), []);
    }

    #[test]
    fn of_the_environment_only_names_are_taken() {
        let found =
            environment_names(b"PATH=/bin\0TOKEN=secret=1\0overwritten secret\0=x\0EMPTY=\0");
        let found: Vec<_> = found.iter().map(ToString::to_string).collect();
        assert_eq!(found, ["PATH", "TOKEN", "EMPTY"]);
    }

    #[test]
    fn values_are_taken_of_what_the_policy_names_and_secrets_leave_the_arguments() {
        let policy: PolicyConfig =
            serde_json::from_value(serde_json::json!({"environment": ["APP_*"]})).unwrap();
        let environment = b"APP_MODE=fast\0APP_TOKEN=abcdef=1\0APP_DB=x://u:pass@h\0KEY=1";
        let mut facts = ProcFacts {
            arguments: Some(split_arguments(
                b"x\0--token=abcdef=1,x\0abcdef=1 abcdef=1\0",
            )),
            environment: kept_variables(environment, &policy),
            ..ProcFacts::default()
        };
        assert_eq!(facts.remove_secrets(environment, &policy), 0);
        let kept = facts.environment.iter();
        let kept: Vec<_> = kept
            .map(|kept| format!("{}={}", kept.name, kept.value))
            .collect();
        assert_eq!(kept, ["APP_MODE=fast", "APP_DB=x://u:<removed>@h"]);
        let arguments = facts.arguments.unwrap();
        let arguments: Vec<_> = arguments.iter().map(ToString::to_string).collect();
        assert_eq!(arguments, ["x", "--token=<removed>", "<removed> <removed>"]);
    }
}
