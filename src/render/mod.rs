//! Formats values as text, JSON and CSV. Pure: no module in here reads a file, the clock or the
//! environment.
//!
//! Invariant: a name from a crashed process, a zip or a bucket reaches the terminal only as
//! printable text on one line (`terminal_line`), and JSON is written by a serializer.

mod backtrace;
mod backtrace_json;
mod cause;
mod changes;
mod csv;
mod diff;
mod drops;
mod escape;
mod fold;
mod frame;
mod group_text;
mod groups;
mod image;
mod info;
mod line;
mod list;
mod style;
mod sysroot;
mod table;
mod tasks;
mod top_frame;
mod units;
mod workload;

// The lines of a backtrace, for views that draw them themselves.
#[allow(unused_imports)]
pub use backtrace::{
    BacktraceView, Locals, SourceText, Sources, backtrace_text, is_unwound, shown_frames,
    thread_lines,
};
pub use backtrace_json::backtrace_json;
pub use cause::{WhyView, listing_text, why_json, why_text};
pub use changes::{
    DeletedDump, DeletedModule, FetchedDump, Freed, GarbageCollection, ImportedDump, Removal,
    SharedDump,
};
pub use diff::{DiffSide, DiffView, diff_json, diff_text};
pub use drops::{drops_json, drops_text, kinds_of_drops};
pub use escape::{json_text, shell_word, sorted_json, terminal_line};
pub use group_text::{GroupsView, group_text, groups_csv, groups_json, groups_jsonl, groups_text};
pub use groups::{DumpFacts, FirstFrom, Group, TIMES};
pub use image::short_image;
pub use info::{InfoView, info_json, info_text};
#[allow(unused_imports)]
pub use line::{Line, Span};
pub use list::{ListView, Manifests, age, list_csv, list_ids, list_json, list_jsonl, list_table};
pub use style::{Style, Tone};
pub use sysroot::{
    CacheLimits, SysrootView, cache_json, cache_text, module_problem, sysroot_json, sysroot_text,
};
pub use top_frame::top_frame;
pub use units::{bytes, percent};
pub use workload::pod_owner;
// The types that have generated schemas.
#[cfg(feature = "schema")]
pub use self::{
    backtrace_json::BacktraceDocument,
    cause::WhyDocument,
    diff::Difference,
    group_text::ListedGroup,
    info::InfoDocument,
    list::ListedDump,
    sysroot::{ListedCacheEntry, SysrootDocument},
};
