//! Queries a container runtime: CRI v1 (gRPC) over its Unix socket.
//!
//! containerd, CRI-O and cri-dockerd implement it. This crate only reads; the calls that start and
//! remove pods are behind the feature `run`, for tests. The size of answers is limited, but not the
//! time: the caller sets the time limit. It does not know dumps. It is a separate crate to keep
//! gRPC out of the handler, which never uses the network.

mod client;
mod messages;
#[cfg(feature = "run")]
pub mod run;

pub use client::{Client, CriError};
pub use messages::*;
