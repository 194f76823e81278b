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

mod cache;
mod debuginfod;
mod digest;
mod error;
mod index;
mod index_builder;
mod kept;
mod layer;
mod manifest;
mod on_disk_index;
mod overlay;
mod plan;
mod pull;
mod record;
mod reference;
mod registry;
mod scan;
mod table;
mod tar;
mod toc;
mod wanted;
mod window;

pub use cache::{Cache, CacheEntry, FileRole, KeptModule};
pub use debuginfod::{Debuginfod, DebuginfodError};
pub use digest::Digest;
pub use error::PullError;
pub use index::{LayerIndex, Node};
pub use kept::build_id_of;
pub use pull::{Progress, PullOptions, Pulled, Sysroot};
pub use reference::ImageReference;
pub use registry::{Proxies, Registry, RegistryOptions};
pub use wanted::{FoundFile, Lookup, Need, Proof, Wanted};
