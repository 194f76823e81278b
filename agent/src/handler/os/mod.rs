//! What the handler asks of the kernel beyond the standard library: children with a time limit, pidfds,
//! descriptors passed between processes, `poll(2)`, and the text format of `/proc/<pid>/status`.

pub(crate) mod descriptors;
pub(crate) mod isolated;
pub(crate) mod pidfd;
pub(crate) mod poll;
pub(crate) mod proc_status;
