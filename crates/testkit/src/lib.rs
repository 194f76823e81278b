//! What tests of several rooms share: programs that crash, the lock around the kernel's core settings,
//! images and registries.

mod image;
mod kernel_settings;
mod program;
mod registry;

pub use image::{Blob, Packing, TestImages, TestLayer, digest_of, gzip, zstd};
pub use kernel_settings::KernelSettingsLock;
pub use program::{KINDS, NOT_HERE, Program};
pub use registry::{
    DockerRegistry, HttpAnswer, HttpRequest, HttpServer, RegistryAccess, answer_from, ranged,
};
