//! Asks a container runtime what it knows: CRI v1 (gRPC) over its Unix socket.
//!
//! containerd, CRI-O and cri-dockerd speak it. Only questions are asked here; what starts and
//! removes pods stands behind the feature `run`, for tests. Sizes of answers are bounded, time is
//! not: who asks sets the limit. It knows nothing of dumps, and is a crate of its own to keep gRPC
//! away from the handler, which never talks to anybody.

mod client;
mod messages;
#[cfg(feature = "run")]
pub mod run;

pub use client::{Client, CriError};
pub use messages::*;
