//! Domain values to text, JSON and CSV. Pure: no module in here reads a file, the clock or the environment.
//!
//! The invariant: whatever a crashed process, a zip or a bucket put into a name, the terminal gets
//! printable text on one line (`terminal_line`), and JSON is written by a serializer.

mod backtrace;
mod escape;
mod info;
mod list;
mod style;
mod sysroot;
mod table;
mod units;

pub use backtrace::{BacktraceView, backtrace_json, backtrace_text};
pub use escape::terminal_line;
pub use info::{InfoView, info_json, info_text};
pub use list::{age, list_csv, list_groups, list_ids, list_json, list_jsonl, list_table};
pub use style::{Style, Tone};
pub use sysroot::{
    SysrootView, cache_json, cache_text, module_problem, sysroot_json, sysroot_text,
};
pub use units::{bytes, percent};
