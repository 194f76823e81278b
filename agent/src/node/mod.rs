//! The node's state: the kernel's three settings, the handler's binary, programs that run at boot, and which
//! directories can be trusted.

pub mod at_boot;
pub mod binary;
pub mod boot;
pub mod settings;
pub(crate) mod trust;

pub use trust::{TrustError, check_config_file};
