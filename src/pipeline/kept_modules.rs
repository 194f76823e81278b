//! Modules that the agent kept in the store, by build-id.

use super::{Dump, Gathered, Observer};
use crate::settings::Settings;

/// Takes what the store has of the modules that are still missing.
pub(super) fn take(_: &Settings, _: &Dump, _: &mut Gathered, _: &dyn Observer) {}
