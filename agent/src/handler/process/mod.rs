//! The crashed process as the kernel shows it: `/proc`, mappings, cgroups, file systems, privileges and the
//! cause of its death.
//!
//! Invariant: all reads go through the handles that were opened first, so a reused pid is noticed.

pub(crate) mod cgroups;
pub(crate) mod death;
pub(crate) mod file_systems;
pub(crate) mod handles;
pub(crate) mod kill_trace;
pub(crate) mod maps;
pub(crate) mod memory_headroom;
pub(crate) mod privileges;
pub(crate) mod proc_facts;
