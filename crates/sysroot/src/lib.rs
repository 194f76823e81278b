//! The files of one image digest, by path, verified by build-id.
//!
//! A core names the files that were mapped. This crate takes just those from a registry, without a
//! daemon and without unpacking anything: [`Sysroot::pull`] reads layers as streams, keeps the wanted
//! files in a [`Cache`] under names of its own, and stops as soon as every question is settled.
//!
//! The invariants:
//!
//! - A file is found in one of two ways: its build-id is the one that the core holds, or a layer whose
//!   whole digest was checked holds it at that path. Nothing else is handed out.
//! - No name from an image becomes a path of this machine. Links are followed inside a virtual root that
//!   exists only in memory.
//! - Memory and disk are bounded whatever a registry sends.
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
