//! Whether a process is to be treated as one that gained privileges, whatever `%d` says, and whether it
//! is the one that crashed at all.
//!
//! Where the kernel hands over no pidfd (before 6.16), another process may have got the number between
//! the crash and our look: one crash with harmless arguments (`%d`, `%u`), and a setuid program behind the
//! number (the class of CVE-2025-4598). So what the arguments say is compared with the process that was
//! opened. Invariant: when in doubt, the dump is root's.

use std::time::Duration;

use jiff::Timestamp;

use super::handles::ProcessHandles;
use crate::handler::os::proc_status::{started_at, status_field};
use crate::handler::startup::arguments::HandlerArguments;

/// The process has taken over the number of the one that crashed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("another process has the number {pid} of the one that crashed: {why}")]
pub(crate) struct Replaced {
    pid: u32,
    why: String,
}

/// `%t` has whole seconds, and the time of the boot is rounded, too.
const ROUNDING: Duration = Duration::from_secs(2);

/// Why the process is privileged, if it is. `is_certain` where the kernel has said which process it is.
///
/// # Errors
/// When it is another process than the one that crashed.
pub(crate) fn privileges(
    process: &ProcessHandles,
    arguments: &HandlerArguments,
    is_certain: bool,
) -> Result<Option<String>, Replaced> {
    let seen = Seen {
        ids: ids(process.status(), "Uid"),
        groups: ids(process.status(), "Gid"),
        owner: process.owner(),
        started: process.start_ticks().and_then(started_at),
    };
    seen.judge(process.pid(), arguments, is_certain)
}

/// What `/proc` shows of the process.
struct Seen {
    /// Real, effective, saved and file system user.
    ids: Option<[u32; 4]>,
    /// The same of its groups.
    groups: Option<[u32; 4]>,
    owner: Option<u32>,
    started: Option<Timestamp>,
}

impl Seen {
    fn judge(
        &self,
        pid: u32,
        arguments: &HandlerArguments,
        is_certain: bool,
    ) -> Result<Option<String>, Replaced> {
        let replaced = |why: String| Replaced { pid, why };
        if !is_certain {
            let crashed = arguments
                .time
                .and_then(|second| Timestamp::from_second(second).ok())
                .and_then(|time| time.checked_add(ROUNDING).ok());
            if let (Some(started), Some(crashed)) = (self.started, crashed)
                && started > crashed
            {
                return Err(replaced("it started after the crash".to_owned()));
            }
            if let (Some([real, ..]), Some(passed)) = (self.ids, arguments.uid)
                && real != passed
            {
                return Err(replaced(format!("its user is {real}, not {passed}")));
            }
        }
        let Some(ids @ [real, ..]) = self.ids else {
            return Ok(Some("its user ids cannot be read".to_owned()));
        };
        if ids.iter().any(|id| *id != real) {
            return Ok(Some(format!("its user ids differ: {ids:?}")));
        }
        let Some(groups @ [group, ..]) = self.groups else {
            return Ok(Some("its group ids cannot be read".to_owned()));
        };
        if groups.iter().any(|id| *id != group) {
            return Ok(Some(format!("its group ids differ: {groups:?}")));
        }
        match self.owner {
            Some(owner) if owner == real => Ok(None),
            Some(owner) => Ok(Some(format!(
                "its files in /proc belong to user {owner}, not {real}"
            ))),
            None => Ok(Some(
                "the owner of its files in /proc cannot be read".to_owned(),
            )),
        }
    }
}

/// `Uid` or `Gid` of `/proc/<pid>/status`.
fn ids(status: &[u8], name: &str) -> Option<[u32; 4]> {
    let field = std::str::from_utf8(status_field(status, name)?).ok()?;
    let ids: Option<Vec<u32>> = field.split_whitespace().map(|id| id.parse().ok()).collect();
    ids?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments() -> HandlerArguments {
        HandlerArguments {
            pid: Some(7),
            uid: Some(1000),
            dumpable: Some(1),
            time: Some(1_700_000_000),
            ..HandlerArguments::default()
        }
    }

    fn seen() -> Seen {
        Seen {
            ids: Some([1000; 4]),
            groups: Some([100; 4]),
            owner: Some(1000),
            started: Timestamp::from_second(1_699_999_999).ok(),
        }
    }

    fn judge(seen: &Seen, is_certain: bool) -> Result<Option<String>, Replaced> {
        seen.judge(7, &arguments(), is_certain)
    }

    #[test]
    fn ordinary_process_is_not_privileged() {
        assert_eq!(judge(&seen(), false), Ok(None));
    }

    #[test]
    fn process_whose_ids_differ_is_privileged_even_when_the_kernel_names_it() {
        for at in 0..4 {
            let mut ids = [1000; 4];
            ids[at] = 0;
            let found = Seen {
                ids: Some(ids),
                ..seen()
            };
            assert!(judge(&found, true).unwrap().is_some(), "{ids:?}");
            let found = Seen {
                groups: Some(ids),
                ..seen()
            };
            assert!(judge(&found, true).unwrap().is_some(), "{ids:?}");
        }
        let roots = Seen {
            owner: Some(0),
            ..seen()
        };
        assert!(judge(&roots, true).unwrap().unwrap().contains("user 0"));
        let unknown = Seen {
            ids: None,
            ..seen()
        };
        assert!(judge(&unknown, true).unwrap().is_some());
    }

    #[test]
    fn process_of_another_user_or_a_later_start_has_replaced_the_one_that_crashed() {
        let later = Seen {
            started: Timestamp::from_second(1_700_000_003).ok(),
            ..seen()
        };
        assert!(judge(&later, false).is_err());
        // The kernel's pidfd says that it is the one; the clock may have been set.
        assert_eq!(judge(&later, true), Ok(None));
        let root = Seen {
            ids: Some([0; 4]),
            owner: Some(0),
            ..seen()
        };
        let error = judge(&root, false).unwrap_err().to_string();
        assert!(error.contains("its user is 0, not 1000"), "{error}");
    }

    #[test]
    fn user_ids_of_this_process_agree_with_its_owner() {
        let process = super::super::handles::tests::living(std::process::id());
        let ids = ids(process.status(), "Uid").unwrap();
        assert_eq!(process.owner(), Some(ids[1]));
        assert!(process.start_ticks().and_then(started_at).is_some());
    }
}
