//! Fetches the files of one image digest, by path, verified by build-id.
//!
//! A core names the mapped files. This crate fetches just those from a registry, without a daemon and
//! without unpacking an image. [`Sysroot::pull`] reads layers as streams, stores the wanted files in
//! a [`Cache`] under its own names, and stops as soon as all files are found or known to be missing.
//!
//! The invariants:
//!
//! - A file is verified in one of two ways: it has the build-id from the core, or a layer with a
//!   verified digest holds it at that path. No other file is returned.
//! - No name from an image becomes a path on this machine. Links are followed inside a virtual root that
//!   exists only in memory.
//! - Memory and disk use are limited whatever a registry sends.
//!
//! It does not know stores, dumps or debuggers.

// The index of layers and parts of the transport are only for images.
#![cfg_attr(not(feature = "images"), allow(dead_code))]

mod cache;
mod debuginfod;
mod digest;
mod error;
mod index;
mod index_builder;
mod kept;
mod layer;
#[cfg(feature = "images")]
mod manifest;
mod on_disk_index;
#[cfg(feature = "images")]
mod overlay;
#[cfg(feature = "images")]
mod plan;
#[cfg(feature = "images")]
mod pull;
mod record;
mod reference;
#[cfg(feature = "images")]
mod registry;
mod remote_addresses;
#[cfg(feature = "images")]
mod scan;
#[cfg(feature = "images")]
mod table;
mod tar;
#[cfg(feature = "images")]
mod toc;
mod transport;
mod wanted;
mod window;

pub use cache::{Cache, CacheEntry, FileRole, KeptModule};
pub use debuginfod::{Debuginfod, DebuginfodError};
pub use digest::Digest;
pub use error::PullError;
pub use index::{LayerIndex, Node};
pub use kept::build_id_of;
#[cfg(feature = "images")]
pub use pull::{PullOptions, Pulled, Sysroot};
pub use reference::ImageReference;
#[cfg(feature = "images")]
pub use registry::{Registry, RegistryOptions};
pub use transport::Proxies;
pub use wanted::{FoundFile, Lookup, Need, Proof, Wanted};

/// Receives the progress of a transfer: `started` first, `finished` last, `advanced` in between, from any thread.
pub trait Progress: Sync {
    /// A transfer starts; `total` bytes if known.
    fn started(&self, what: &str, total: Option<u64>);
    /// This many further bytes arrived.
    fn advanced(&self, bytes: u64);
    /// Done or failed.
    fn finished(&self);
}
