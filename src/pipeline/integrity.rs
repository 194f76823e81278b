//! Decides whether a dump's evidence can be trusted: compares the bundle with the manifest beside it,
//! and describes damage.
//!
//! A dump in a store has two copies of its manifest, in the bundle and beside it, each with its own
//! checksum. Facts come from a copy that verifies; damage of the other one is reported. If a copy or
//! a store truncated data, no cause is invented for it.

use std::sync::Arc;

use anyhow::Result;
use cdh_bundle::{BundleError, BundleReader, Manifest};
use cdh_store::{DumpSummary, Store, StoreError};

use super::dump::bundle_failure;
use super::{Dump, Origin, stores};
use crate::report::{ExitStatus, Failure};
use crate::settings::Settings;

/// Advice for a damaged dump.
pub(super) const ANOTHER_COPY: &str = "the bundle was damaged after the capture: use another copy, or an earlier version of the object if the bucket keeps versions";

/// Advice for a damaged case.
pub(super) const DELETE_CASE: &str =
    "the case was changed or damaged: delete it, and fetch the dump again";

/// A dump of a store, as far as it is readable.
pub(super) struct Found {
    pub(super) manifest: Manifest,
    pub(super) bundle: Option<BundleReader>,
    pub(super) damage: Vec<String>,
}

/// Decides which copy of the manifest to trust. The one beside the bundle is read only if the bundle is
/// damaged, so the normal case costs no extra request.
///
/// # Errors
/// If neither the bundle nor the manifest beside it can be read.
pub(super) fn reconcile(
    settings: &Settings,
    store: &Arc<dyn Store>,
    summary: &DumpSummary,
    opened: Result<BundleReader, BundleError>,
) -> Result<Found> {
    let beside = || beside(settings, store, summary);
    match opened {
        Ok(bundle) if bundle.damage().is_empty() => Ok(Found {
            manifest: bundle.summary_manifest(),
            bundle: Some(bundle),
            damage: Vec::new(),
        }),
        Ok(bundle) => {
            let mut damage = bundle.damage().to_vec();
            let manifest = match bundle.manifest() {
                Some(manifest) => manifest.clone(),
                None => match beside() {
                    Ok(Some(manifest)) => {
                        damage.push("the facts are from the manifest beside the bundle".to_owned());
                        manifest
                    }
                    _ => bundle.summary_manifest(),
                },
            };
            Ok(Found {
                manifest,
                bundle: Some(bundle),
                damage,
            })
        }
        Err(error @ BundleError::Schema { .. }) => {
            Err(bundle_failure(error, &summary.key.to_string()))
        }
        Err(error) => match beside() {
            Ok(Some(manifest)) => {
                let damage = vec![
                    format!("the bundle cannot be read: {error}"),
                    "the facts are from the manifest beside the bundle".to_owned(),
                ];
                Ok(Found {
                    manifest,
                    bundle: None,
                    damage,
                })
            }
            _ => Err(bundle_failure(error, &summary.key.to_string())),
        },
    }
}

/// The message that a damaged bundle holds nothing of the core.
pub(super) fn unreadable(dump: &Dump) -> anyhow::Error {
    let message = "the core of this dump cannot be read: the bundle is damaged";
    let damage = dump.damage().join("; ");
    Failure::new(ExitStatus::Mismatch, message)
        .cause(anyhow::anyhow!("{damage}"))
        .hint(ANOTHER_COPY)
        .into()
}

/// The manifest beside the bundle.
fn beside(
    settings: &Settings,
    store: &Arc<dyn Store>,
    summary: &DumpSummary,
) -> Result<Option<Manifest>> {
    let catalog = stores::catalog(settings, store.as_ref());
    let manifest = catalog.manifest_beside(summary);
    manifest.map_err(|error| stores::store_failure(error, "read"))
}

impl Dump {
    /// Compares the bundle's manifest with the one that lies beside it in the store.
    pub fn compare_manifests(&self, settings: &Settings) {
        let Origin::Store(summary) = &self.origin else {
            return;
        };
        let inside = self.bundle().and_then(BundleReader::manifest);
        let (Some(inside), Some(store)) = (inside, &self.store) else {
            return;
        };
        match stores::catalog(settings, store.as_ref()).manifest_beside(summary) {
            Ok(Some(beside)) if beside != *inside => self.note_damage(format!(
                "the manifest beside the bundle differs from the one in it, which is used: `{}`",
                summary.key
            )),
            Err(StoreError::Bundle { source, .. }) => self.note_damage(format!(
                "the manifest beside the bundle is damaged, the one in it is used: {source}"
            )),
            // Removed meanwhile, or a zip without one. An error of the store says nothing about the
            // dump.
            Ok(_) | Err(_) => {}
        }
    }

    /// What is damaged or was salvaged, in one line; `None` for an intact dump.
    #[must_use]
    pub fn damage_line(&self) -> Option<String> {
        let damage = self.damage();
        let salvaged = self.bundle().and_then(BundleReader::salvaged);
        match damage.is_empty() {
            true => salvaged.map(str::to_owned),
            false => Some(damage.join("; ")),
        }
    }

    /// The messages after a command's result: everything that cannot be trusted.
    #[must_use]
    pub fn integrity_remarks(&self) -> Vec<anyhow::Error> {
        let damage = self.damage();
        let mut remarks = Vec::new();
        let last = damage.len().saturating_sub(1);
        for (index, what) in damage.into_iter().enumerate() {
            let failure = Failure::new(ExitStatus::Mismatch, format!("damaged: {what}"));
            let hint = match self.origin {
                Origin::Case(_) => DELETE_CASE,
                _ => ANOTHER_COPY,
            };
            let failure = match index == last {
                true => failure.hint(hint),
                false => failure,
            };
            remarks.push(failure.into());
        }
        if let Some(what) = self.failed_read() {
            let what = format!("not everything could be read: {what}");
            let failure = Failure::new(ExitStatus::Unreachable, what);
            remarks.push(failure.hint("run the same command again").into());
        }
        if !self.is_verified() {
            let what = "not verified: this core has no checksums for its parts";
            let failure = Failure::new(ExitStatus::Done, what);
            let hint = format!("`cdh fetch {}` compares the complete core", self.label());
            remarks.push(failure.hint(hint).into());
        }
        remarks
    }

    /// The exit status of a command that showed its result: 4 if something is damaged, 3 if something
    /// could not be read.
    #[must_use]
    pub fn integrity_status(&self) -> ExitStatus {
        match (self.is_damaged(), self.failed_read()) {
            (true, _) => ExitStatus::Mismatch,
            (false, Some(_)) => ExitStatus::Unreachable,
            (false, None) => ExitStatus::Done,
        }
    }
}
