//! What tests of several rooms share: programs that crash, and the lock around the kernel's core
//! settings.

pub mod corpus;
pub mod divergence;
mod kernel_settings;
mod program;

pub use kernel_settings::KernelSettingsLock;
pub use program::{KINDS, NOT_HERE, Program};
