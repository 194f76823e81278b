//! A build without images names those that it would have read.

use cdh_elfcore::BuildId;
use cdh_sysroot::FileRole;

use super::{Gathered, Given};
use crate::pipeline::FoundModule;
use crate::render::terminal_line;
use crate::report::{ExitStatus, Failure};

/// Takes nothing.
pub(super) struct Images<'a> {
    pub(super) given: Given<'a>,
}

impl<'a> Images<'a> {
    pub(super) fn new(given: Given<'a>) -> Self {
        Self { given }
    }

    pub(super) fn received(&self) -> u64 {
        0
    }

    pub(super) fn take(&mut self, reference: &str, gathered: &mut Gathered) {
        if gathered.modules.iter().any(FoundModule::is_missing) {
            gathered.remarks.push(not_built(reference));
        }
    }

    pub(super) fn take_debug(
        &mut self,
        reference: &str,
        _needs: &[(usize, FileRole, BuildId)],
        gathered: &mut Gathered,
    ) -> bool {
        gathered.remarks.push(not_built(reference));
        false
    }
}

fn not_built(reference: &str) -> anyhow::Error {
    let shown = terminal_line(reference);
    let what = format!("image `{shown}` was not read: this build of cdh reads no images");
    Failure::new(ExitStatus::Nothing, what)
        .hint("build cdh with its default features")
        .into()
}
