//! What tests of several rooms share: the lock around the kernel's core settings.

mod kernel_settings;

pub use kernel_settings::KernelSettingsLock;
