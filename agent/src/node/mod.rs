//! The node's side of an installation: kernel settings, their backup, the handler's binary.

pub mod binary;
pub mod install;
pub mod journal;
pub mod settings;
pub mod status;
