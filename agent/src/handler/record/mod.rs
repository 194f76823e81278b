//! What is written beside the core: manifest, minicore, raw backtrace, verdict and the line in the ledger; and
//! the plan that decides how much of the core is kept.

pub(crate) mod account;
pub(crate) mod backtrace;
pub(crate) mod dump_info;
pub(crate) mod gap;
pub(crate) mod identity;
pub(crate) mod minicore;
pub(crate) mod plan;
mod runtime_frames;
pub(crate) mod subject;
pub(crate) mod verdict;
