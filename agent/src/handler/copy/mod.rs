//! From a source of core bytes to a file of zstd frames, or a plain file first.
//!
//! A [`core_source::CoreSource`] is the pipe of the kernel or the memory of the process; nothing here knows
//! which. Every wait has a limit, and no write exceeds what [`disk_guard`] allows.

pub(crate) mod core_copy;
pub(crate) mod core_file;
pub(crate) mod core_source;
pub(crate) mod core_stream;
pub(crate) mod direct_io;
pub(crate) mod disk_guard;
pub(crate) mod plain_file;
pub(crate) mod recorder;
pub(crate) mod self_check;
pub(crate) mod slots;
pub(crate) mod supervised;
