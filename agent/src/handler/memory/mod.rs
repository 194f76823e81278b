//! The memory of the crashed process: pin it, find what is resident, order it, and read it as a source of core
//! bytes, also when the OOM reaper is about to free it.

pub(crate) mod fault_pages;
pub(crate) mod held_memory;
pub(crate) mod importance;
pub(crate) mod layout;
pub(crate) mod live_memory;
pub(crate) mod memory_source;
pub(crate) mod oom_snapshot;
pub(crate) mod page_pins;
pub(crate) mod pin;
pub(crate) mod process_memory;
pub(crate) mod saved_memory;
