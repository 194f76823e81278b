//! Background tasks on the node besides the shipper: the receiver of the coredump socket, and the trace
//! of SIGKILLs.

mod kill_trace;
pub mod socket;

pub(crate) use kill_trace::refresh_kill_trace;
pub use kill_trace::{ensure_kill_trace, remove_kill_trace};
