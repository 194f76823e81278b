//! Whether the core is complete, and if not, what truncated it.

use serde::{Deserialize, Serialize};

/// State of the stored core.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(tag = "state", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Verdict {
    /// Every byte that the core's headers promise is stored.
    Complete,
    /// The tail is missing.
    Truncated {
        /// Bytes that the headers promise: `max(p_offset + p_filesz)`.
        expected: u64,
        /// Bytes that are stored.
        got: u64,
        /// What truncated it.
        cause: Cause,
        /// The evidence for the cause, in words: "ShdPnd has SIGKILL".
        #[serde(default, skip_serializing_if = "Option::is_none")]
        evidence: Option<String>,
    },
    /// Nothing is stored.
    Empty {
        /// Why there is none.
        cause: Cause,
        /// The evidence for the cause, in words.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        evidence: Option<String>,
    },
}

/// What truncated a core.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Cause {
    /// A SIGKILL arrived while the kernel wrote the core.
    Killed,
    /// The kernel's OOM killer sent the SIGKILL.
    OomKilled,
    /// The cgroup was frozen.
    Frozen,
    /// A signal or io_uring task work interrupted the dump.
    Interrupted,
    /// The spool's file system is full.
    NoSpace,
    /// The configured size limit was reached.
    Limit,
    /// The configured time limit was reached.
    Deadline,
    /// The node's policy or the pod's annotations asked for less than a core.
    Policy,
    /// Enough dumps of this crash or workload were already captured.
    RateLimit,
    /// The spool's quota: this core was dropped for newer ones, or did not fit.
    Quota,
    /// The handler died before it was done.
    HandlerDied,
    /// The cause is unknown, or only a newer version knows it.
    #[serde(other)]
    Unknown,
}

impl Cause {
    /// The cause in words.
    #[must_use]
    pub fn describe(self) -> &'static str {
        match self {
            Self::Killed => "killed",
            Self::OomKilled => "killed by the OOM killer",
            Self::Frozen => "frozen",
            Self::Interrupted => "interrupted",
            Self::NoSpace => "no space left",
            Self::Limit => "size limit",
            Self::Deadline => "time limit",
            Self::Policy => "by policy",
            Self::RateLimit => "rate limit",
            Self::Quota => "spool quota",
            Self::HandlerDied => "the handler died",
            Self::Unknown => "cause unknown",
        }
    }
}

/// Programs that kill processes on a node, by the name of the thread that sends the signal (maximum
/// 15 bytes), and the usual reason.
const SENDERS: [(&[&str], &str); 5] = [
    (
        &[
            "runc",
            "crun",
            "containerd",
            "conmon",
            "crio",
            "dockerd",
            "podman",
            "youki",
        ],
        "the container runtime ended its container: a deletion, an eviction or a failed liveness \
         probe (see `kubectl get events`)",
    ),
    (
        &["kubelet"],
        "kubelet ended its pod: an eviction, a deletion or a failed liveness probe (see `kubectl \
         get events`)",
    ),
    (
        &["systemd-oomd", "earlyoom", "oomd", "nohang"],
        "a user-space OOM killer ended it because memory was short",
    ),
    (
        &["systemd"],
        "its unit was stopped, or stopping it took longer than `TimeoutStopSec`",
    ),
    (
        &["kill", "pkill", "killall", "timeout", "bash", "sh", "zsh"],
        "a command or script sent it",
    ),
];

/// The usual reason for a SIGKILL, from the name of its sender. `evidence` is the handler's text:
/// ``SIGKILL from `runc` (pid 4711) 4.2 s into the dump``.
#[must_use]
pub fn meaning_of_sender(evidence: &str) -> Option<&'static str> {
    if evidence.contains("(the kernel)") {
        return Cause::OomKilled.advice(None);
    }
    let (_, rest) = evidence.split_once("SIGKILL from `")?;
    let (name, _) = rest.rsplit_once("` (pid ")?;
    let is_it = |known: &&str| match *known {
        // `containerd-shim` and threads such as `runc:[2:INIT]`.
        "containerd" | "runc" | "crun" | "crio" | "conmon" => name.starts_with(known),
        known => name == known,
    };
    let found = SENDERS.iter().find(|(names, _)| names.iter().any(is_it));
    found.map(|(_, meaning)| *meaning)
}

impl Cause {
    /// The most likely culprit or fix, based on the evidence.
    #[must_use]
    pub fn advice(self, evidence: Option<&str>) -> Option<&'static str> {
        Some(match self {
            Self::Killed => return meaning_of_sender(evidence?),
            Self::OomKilled => {
                "the memory limit of its cgroup, or of the node, was reached: raise it, or look for \
                 the leak in this dump"
            }
            Self::Frozen => "its cgroup was frozen, as a pause or a checkpoint does",
            Self::Interrupted => {
                "io_uring completions interrupt the kernel's dump; `cdh agent install --mode auto` pins \
                 the memory earlier"
            }
            Self::NoSpace => {
                "free space for the spool, or store less: `cdh agent install --core-limit`"
            }
            Self::Limit => "raise `--core-limit` of `cdh agent install`",
            Self::Deadline => {
                "the disk is slow or the node was busy: raise `--copy-limit` of `cdh agent install`"
            }
            Self::Policy => "`[policy]` of the agent's configuration, or an annotation of the pod",
            Self::RateLimit => {
                "an earlier dump of the same fingerprint has its core (`cdh groups`); \
                 `[limits.rate]` of the agent's configuration says how many do"
            }
            Self::Quota => {
                "the store was unreachable too long, or the spool is too small: raise `spool_quota` in \
                 `[limits]` of the agent's configuration"
            }
            Self::HandlerDied => "the kernel log of the node has details (`dmesg`)",
            Self::Unknown => return None,
        })
    }
}

impl Verdict {
    /// The most likely culprit or fix; `None` for a complete core.
    #[must_use]
    pub fn advice(&self) -> Option<&'static str> {
        match self {
            Self::Complete => None,
            Self::Truncated {
                cause, evidence, ..
            }
            | Self::Empty { cause, evidence } => cause.advice(evidence.as_deref()),
        }
    }

    /// One word, as used in object keys.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Truncated { .. } => "truncated",
            Self::Empty { .. } => "empty",
        }
    }

    /// One line: `truncated: 60 of 100 MiB (60.0 %), killed: ShdPnd has SIGKILL`.
    #[must_use]
    pub fn describe(&self) -> String {
        match self {
            Self::Complete => self.word().to_owned(),
            Self::Truncated {
                expected,
                got,
                cause,
                evidence,
            } => {
                let sizes = sizes(*got, *expected);
                format!(
                    "truncated: {sizes}, {}{}",
                    cause.describe(),
                    because(evidence.as_deref())
                )
            }
            Self::Empty { cause, evidence } => {
                format!(
                    "empty: {}{}",
                    cause.describe(),
                    because(evidence.as_deref())
                )
            }
        }
    }
}

fn because(evidence: Option<&str>) -> String {
    evidence
        .map(|evidence| format!(": {evidence}"))
        .unwrap_or_default()
}

/// `60 of 100 MiB (60.0 %)`: both numbers in the unit of the larger one.
fn sizes(got: u64, expected: u64) -> String {
    const UNITS: [(&str, u64); 4] = [
        ("TiB", 1 << 40),
        ("GiB", 1 << 30),
        ("MiB", 1 << 20),
        ("KiB", 1 << 10),
    ];
    let (unit, factor) = UNITS
        .into_iter()
        .find(|&(_, factor)| expected >= factor)
        .unwrap_or(("B", 1));
    let shown = |count: u64| match count.checked_rem(factor) {
        Some(0) => count.checked_div(factor).unwrap_or(count).to_string(),
        _ => format!("{:.1}", count as f64 / factor as f64),
    };
    // Never round up to 100 %: something is missing.
    let tenths = u128::from(got)
        .saturating_mul(1000)
        .checked_div(u128::from(expected))
        .unwrap_or(0);
    format!(
        "{} of {} {unit} ({}.{} %)",
        shown(got),
        shown(expected),
        tenths / 10,
        tenths % 10
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn verdict_describes_sizes_cause_and_evidence() {
        let verdict = Verdict::Truncated {
            expected: 100 * MIB,
            got: 60 * MIB,
            cause: Cause::Killed,
            evidence: Some("ShdPnd has SIGKILL".to_owned()),
        };
        assert_eq!(
            verdict.describe(),
            "truncated: 60 of 100 MiB (60.0 %), killed: ShdPnd has SIGKILL"
        );
        assert_eq!(verdict.word(), "truncated");
    }

    #[test]
    fn verdict_does_not_round_up_to_100_percent() {
        let (expected, got) = (10 * MIB, 10 * MIB - 1);
        let verdict = Verdict::Truncated {
            expected,
            got,
            cause: Cause::Unknown,
            evidence: None,
        };
        assert!(
            verdict.describe().contains("(99.9 %)"),
            "{}",
            verdict.describe()
        );
    }

    #[test]
    fn verdict_json_has_a_state_and_snake_case_causes() {
        let verdict = Verdict::Empty {
            cause: Cause::NoSpace,
            evidence: None,
        };
        let json = serde_json::to_string(&verdict).unwrap();
        assert_eq!(json, r#"{"state":"empty","cause":"no_space"}"#);
        assert_eq!(serde_json::from_str::<Verdict>(&json).unwrap(), verdict);
    }

    #[test]
    fn cause_of_a_newer_agent_parses_as_unknown() {
        let json = r#"{"state":"truncated","expected":2,"got":1,"cause":"eaten","new":[1]}"#;
        let verdict: Verdict = serde_json::from_str(json).unwrap();
        assert!(matches!(
            verdict,
            Verdict::Truncated {
                cause: Cause::Unknown,
                ..
            }
        ));
    }

    #[test]
    fn meaning_of_sender_names_the_likely_culprit() {
        let of = |name: &str| {
            let verdict = Verdict::Empty {
                cause: Cause::Killed,
                evidence: Some(format!(
                    "SIGKILL from `{name}` (pid 47) 4.2 s into the dump"
                )),
            };
            verdict.advice()
        };
        assert!(of("containerd-shim").unwrap().contains("container runtime"));
        assert!(of("runc:[2:INIT]").unwrap().contains("container runtime"));
        assert!(of("kubelet").unwrap().contains("kubelet ended its pod"));
        assert!(of("systemd").unwrap().contains("unit"));
        assert!(of("systemd-oomd").unwrap().contains("memory"));
        // A name that imitates a known sender, and an unknown sender.
        assert_eq!(of("x` (pid 1) `kubelet"), None);
        assert_eq!(of("api"), None);
        let by_kernel = "SIGKILL from `api` (pid 47) (the kernel) 4.2 s into the dump";
        assert!(
            meaning_of_sender(by_kernel)
                .unwrap()
                .contains("memory limit")
        );
        assert_eq!(Verdict::Complete.advice(), None);
    }
}
