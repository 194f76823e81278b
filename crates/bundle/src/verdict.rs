//! Whether the core is all there, and if not, who cut it.

use serde::{Deserialize, Serialize};

/// What is to be thought of the stored core.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
        /// Who cut it.
        cause: Cause,
        /// What the cause was read from, in words: "ShdPnd has SIGKILL".
        #[serde(default, skip_serializing_if = "Option::is_none")]
        evidence: Option<String>,
    },
    /// Nothing is stored.
    Empty {
        /// Who prevented it.
        cause: Cause,
        /// What the cause was read from, in words.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        evidence: Option<String>,
    },
}

/// Who cut a core.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Cause {
    /// Somebody sent SIGKILL while the kernel wrote.
    Killed,
    /// The kernel's OOM killer did.
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
    /// The handler ended before it was done.
    HandlerDied,
    /// Nobody knows, or a newer agent knows better.
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
            Self::HandlerDied => "the handler died",
            Self::Unknown => "cause unknown",
        }
    }
}

impl Verdict {
    /// One word, as it stands in object keys.
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

/// `60 of 100 MiB (60.0 %)`: both in the unit that suits the greater one.
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
    // Never rounded up to 100: something is missing.
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
    fn truncation_is_told_with_sizes_cause_and_evidence() {
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
    fn nearly_all_is_not_all() {
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
    fn json_has_a_state_and_snake_case_causes() {
        let verdict = Verdict::Empty {
            cause: Cause::NoSpace,
            evidence: None,
        };
        let json = serde_json::to_string(&verdict).unwrap();
        assert_eq!(json, r#"{"state":"empty","cause":"no_space"}"#);
        assert_eq!(serde_json::from_str::<Verdict>(&json).unwrap(), verdict);
    }

    #[test]
    fn cause_of_a_newer_agent_reads_as_unknown() {
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
}
