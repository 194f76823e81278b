//! Writes the outcome of a capture to the kernel log.

use cdh_bundle::Verdict;

use super::capture::state::Captured;
use super::startup::arguments::HandlerArguments;
use super::startup::log::{Level, kernel_log};
use crate::error_chain::explain;
use crate::spool::SpoolError;

/// Logs the outcome; the exit code of the handler.
pub(super) fn report(arguments: &HandlerArguments, captured: Result<Captured, SpoolError>) -> u8 {
    match captured {
        Ok(captured) => {
            let level = match captured.verdict {
                // A dump that the policy does not want is not a problem.
                _ if captured.path.is_none() => Level::Info,
                Verdict::Complete => Level::Info,
                _ => Level::Warning,
            };
            kernel_log(level, &captured.summary);
            0
        }
        Err(error) => {
            let name = &arguments.name;
            let pid = arguments.pid.unwrap_or(0);
            kernel_log(
                Level::Error,
                &format!("no dump of {name} (pid {pid}): {}", explain(&error)),
            );
            1
        }
    }
}
