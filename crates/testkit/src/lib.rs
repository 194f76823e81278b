//! What tests of several rooms share: programs that crash, the lock around the kernel's core settings,
//! images and registries, a real S3 server and a hostile proxy in front of it.

// A failed test or task may panic; nothing of this ships.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used
)]

mod certificate;
#[cfg(feature = "corpus")]
pub mod corpus;
#[cfg(feature = "corpus")]
pub mod divergence;
mod forward_store;
mod http_proxy;
#[cfg(feature = "corpus")]
mod image;
mod kernel_handlers;
mod kernel_settings;
mod program;
#[cfg(feature = "corpus")]
mod registry;
mod s3_server;
mod server_process;
mod skip;

pub use certificate::TestCertificate;
pub use http_proxy::{Deed, HttpProxy, Request, http_get};
#[cfg(feature = "corpus")]
pub use image::{Blob, Packing, TestImages, TestLayer, digest_of, gzip, zstd};
pub use kernel_settings::KernelSettingsLock;
pub use program::{KINDS, NOT_HERE, Program};
#[cfg(feature = "corpus")]
pub use registry::{
    DockerRegistry, HttpAnswer, HttpRequest, HttpServer, RegistryAccess, answer_from, ranged,
};
pub use s3_server::{ADMIN, READER, S3Keys, S3Server};
pub use server_process::{ServerProcess, on_free_ports};
pub use skip::{SKIPPED_FILE, or_skip, root_is_a_mount, skip};
