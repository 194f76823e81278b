//! What tests of several rooms share: programs that crash, the lock around the kernel's core settings, a
//! real S3 server and a hostile proxy in front of it.

mod http_proxy;
mod kernel_settings;
mod program;
mod s3_server;

pub use http_proxy::{Deed, HttpProxy, Request, http_get};
pub use kernel_settings::KernelSettingsLock;
pub use program::{KINDS, NOT_HERE, Program};
pub use s3_server::{ADMIN, READER, S3Keys, S3Server};
