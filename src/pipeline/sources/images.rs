//! Files from the image that the process ran from, and debug information from a debug image.
//!
//! If only the dump names a registry, it is contacted only if the user configured it or has credentials for it; with
//! credentials alone, it must not be this machine or link-local, because the author of the dump chose the name.

use std::ffi::OsStr;

use cdh_elfcore::{BuildId, ModuleKind};
use cdh_sysroot::{
    FileRole, ImageReference, Lookup, Need, PullError, PullOptions, Registry, RegistryOptions,
    Sysroot, Wanted,
};

use super::{Gathered, Given, use_file};
use crate::pipeline::modules::{Candidate, FileSource};
use crate::pipeline::{FoundModule, debugger_files};
use crate::render::{shell_word, terminal_line};
use crate::report::{ExitStatus, Failure};

/// A pull error with exit status and advice.
fn pull_failure(error: PullError, what: &str) -> anyhow::Error {
    let status = if error.is_mismatch() {
        ExitStatus::Mismatch
    } else if error.is_unreachable() {
        ExitStatus::Unreachable
    } else {
        ExitStatus::Failure
    };
    let hint = error.hint();
    Failure::new(status, what).cause(error).hint(hint).into()
}

/// The registry client, created when it is needed, and the cache of its files.
pub(super) struct Images<'a> {
    pub(super) given: Given<'a>,
    registry: Option<Registry>,
}

impl<'a> Images<'a> {
    pub(super) fn new(given: Given<'a>) -> Self {
        Self {
            given,
            registry: None,
        }
    }

    /// Bytes received from the registry.
    pub(super) fn received(&self) -> u64 {
        self.registry.as_ref().map_or(0, Registry::received)
    }

    fn open_registry(&mut self, consent: Consent) -> Result<(), PullError> {
        if self.registry.is_none() && !self.given.settings.offline {
            let mut options = RegistryOptions::from_environment();
            options.auth_file.clone_from(&self.given.settings.auth_file);
            options.ca.clone_from(&self.given.settings.ca);
            if consent == Consent::Credentials {
                let own = self
                    .given
                    .settings
                    .debug_image
                    .as_deref()
                    .map(ImageReference::parse);
                let own = own.transpose()?.map(|own| own.registry().to_owned());
                options.local_hosts = Some(own.into_iter().collect());
            }
            self.registry = Some(Registry::open(&options)?);
        }
        Ok(())
    }

    fn sysroot(&mut self, reference: &str, consent: Consent) -> Result<Sysroot<'_>, PullError> {
        let reference = ImageReference::parse(reference)?;
        self.open_registry(consent)?;
        let options = PullOptions {
            cache: &self.given.cache,
            registry: self.registry.as_ref().filter(|_| consent != Consent::No),
            progress: &self.given.observer,
        };
        Sysroot::open(options, &reference, self.given.machine)
    }

    /// Why the registry of an image may be contacted.
    fn consent(&mut self, reference: &str) -> Result<Consent, PullError> {
        let image = ImageReference::parse(reference)?;
        if self.given.settings.image.as_deref() == Some(reference) {
            return Ok(Consent::Named);
        }
        let mut configured = self.given.settings.registries.iter();
        if configured.any(|pattern| is_registry(pattern, image.registry())) {
            return Ok(Consent::Named);
        }
        self.open_registry(Consent::Credentials)?;
        let known = match &self.registry {
            Some(registry) => registry.is_known(&image)?,
            None => false,
        };
        Ok(match known {
            true => Consent::Credentials,
            false => Consent::No,
        })
    }

    /// Uses modules, their debug files and debuggers' own files from the image.
    pub(super) fn take(&mut self, reference: &str, gathered: &mut Gathered) {
        if !gathered.modules.iter().any(FoundModule::is_missing) {
            return;
        }
        let what = format!("cannot use image `{reference}`");
        let consent = self.consent(reference).unwrap_or(Consent::No);
        let evidence = self.given.evidence;
        let is_offline = self.given.settings.offline;
        let sysroot = match self.sysroot(reference, consent) {
            Ok(sysroot) => sysroot,
            Err(PullError::Offline { .. }) if consent == Consent::No && !is_offline => {
                gathered.remarks.push(not_asked(reference));
                return;
            }
            Err(error) => {
                gathered.image = Some(reference.to_owned());
                gathered.remarks.push(pull_failure(error, &what));
                return;
            }
        };
        gathered.image = Some(sysroot.reference().to_string());
        let missing: Vec<usize> = (0..gathered.modules.len())
            .filter(|number| {
                gathered
                    .modules
                    .get(*number)
                    .is_some_and(FoundModule::is_missing)
            })
            .collect();
        let module = |number: &usize| gathered.modules.get(*number).map(|found| &found.module);
        let mut wanted: Vec<Wanted> = missing
            .iter()
            .filter_map(module)
            .map(|module| Wanted {
                paths: vec![module.path.clone()],
                build_id: module.build_id.clone(),
                part: FileRole::File,
                need: Need::Required,
                debug: Some(match module.kind {
                    ModuleKind::Executable => Need::Required,
                    _ => Need::Passing,
                }),
            })
            .collect();
        // Debug files of modules that were found already are read if their layer is read anyway.
        let lacking: Vec<Wanted> = gathered
            .modules
            .iter()
            .filter(|found| found.lacks_debug_info() && found.module.build_id.is_some())
            .map(|found| Wanted {
                paths: vec![found.module.path.clone()],
                build_id: found.module.build_id.clone(),
                part: FileRole::File,
                need: Need::Passing,
                debug: Some(Need::Passing),
            })
            .collect();
        let passing = lacking.len();
        wanted.extend(lacking);
        let extras = debugger_files::paths(gathered.modules.iter().map(|found| &found.module));
        wanted.extend(extras.iter().map(|path| Wanted {
            paths: vec![path.clone()],
            build_id: None,
            part: FileRole::File,
            need: Need::Passing,
            debug: None,
        }));
        let pulled = sysroot.pull(&wanted);
        let mut answers = pulled.answers.into_iter();
        for (number, answer) in missing.iter().zip(answers.by_ref()) {
            let Some(found) = gathered.modules.get_mut(*number) else {
                continue;
            };
            match answer {
                Lookup::Found(file) => {
                    // Without a build-id in the core, the image's digest proves the file.
                    let candidate = Candidate {
                        path: file.file,
                        inside: None,
                        needs_proof: found.module.deleted,
                    };
                    found.try_files(vec![candidate], FileSource::Image, evidence);
                }
                Lookup::Mismatch {
                    expected,
                    found: other,
                } => found.mismatch(expected, other),
                Lookup::Absent(_) => {}
            }
        }
        for (path, answer) in extras.into_iter().zip(answers.skip(passing)) {
            if let Lookup::Found(file) = answer {
                gathered.extras.push((path, file.file));
            }
        }
        for found in &mut gathered.modules {
            let id = found
                .module
                .build_id
                .clone()
                .filter(|_| found.lacks_debug_info());
            if let Some(file) = id.and_then(|id| sysroot.file(FileRole::Debug, &id)) {
                found.try_debug(&file, FileSource::Image);
            }
            if let Some(id) = found.missing_alternate()
                && let Some(file) = sysroot.file(FileRole::Debug, &id)
            {
                found.try_alternate(&file, &id);
            }
        }
        let problem = pulled.problem.map(|problem| match problem {
            PullError::Offline { .. } if consent == Consent::No && !is_offline => {
                not_asked(reference)
            }
            problem => pull_failure(problem, &what),
        });
        gathered.remarks.extend(problem);
    }

    /// Uses files from a debug image by build-id: the number of the module, the part and the id. Returns whether one
    /// was used.
    pub(super) fn take_debug(
        &mut self,
        reference: &str,
        needs: &[(usize, FileRole, BuildId)],
        gathered: &mut Gathered,
    ) -> bool {
        if needs.is_empty() {
            return false;
        }
        let what = format!("cannot use debug image `{reference}`");
        let sysroot = match self.sysroot(reference, Consent::Named) {
            Ok(sysroot) => sysroot,
            Err(error) => {
                gathered.remarks.push(pull_failure(error, &what));
                return false;
            }
        };
        let wanted: Vec<Wanted> = needs
            .iter()
            .map(|(_, part, id)| Wanted {
                paths: Vec::new(),
                build_id: Some(id.clone()),
                part: *part,
                need: Need::Required,
                debug: Some(Need::Required),
            })
            .collect();
        let pulled = sysroot.pull(&wanted);
        let mut progress = false;
        for ((number, part, id), answer) in needs.iter().zip(pulled.answers) {
            if let Lookup::Found(file) = answer {
                let source = FileSource::DebugImage;
                let need = (*number, *part, id);
                progress |= use_file(gathered, need, &file.file, source, self.given.evidence);
            }
        }
        gathered
            .remarks
            .extend(pulled.problem.map(|problem| pull_failure(problem, &what)));
        progress
    }
}

/// Why a registry may be contacted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Consent {
    /// The user named the image, or configured the registry.
    Named,
    /// The dump names it, and the user has credentials for it or a rule in `registries.conf`.
    Credentials,
    /// Only the dump names it: its cached files are used.
    No,
}

/// Whether `registry` matches `pattern` of `images.registries`: `host`, `host:port` or `*.domain`.
fn is_registry(pattern: &str, registry: &str) -> bool {
    let pattern = pattern.to_ascii_lowercase();
    let registry = registry.to_ascii_lowercase();
    match pattern.strip_prefix("*.") {
        Some(domain) => {
            let parent = registry.split_once('.').map(|(_, parent)| parent);
            !domain.is_empty()
                && (parent == Some(domain) || registry.ends_with(&format!(".{domain}")))
        }
        None => pattern == registry,
    }
}

/// Why an image was not pulled, with the settings that would allow it.
fn not_asked(reference: &str) -> anyhow::Error {
    let shown = terminal_line(reference);
    let image = ImageReference::parse(reference);
    let registry = image.map(|image| image.registry().to_owned());
    let registry = terminal_line(registry.as_deref().unwrap_or("its registry"));
    let what = format!("image `{shown}` was not pulled: only the dump names its registry");
    Failure::new(ExitStatus::Nothing, what)
        .hint(format!("if you trust `{registry}`: `--image {}`", shell_word(OsStr::new(reference))))
        .hint(format!(
            "to always allow it: `registries = [\"{registry}\"]` under `[images]` in config.toml, or log in to it"
        ))
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registry_patterns_name_hosts_and_domains() {
        for (pattern, registry, matches) in [
            ("quay.io", "quay.io", true),
            ("quay.io", "quay.io:5000", false),
            ("quay.io", "evil-quay.io", false),
            ("127.0.0.1:5000", "127.0.0.1:5000", true),
            ("*.example.com", "registry.example.com", true),
            ("*.example.com", "a.b.example.com", true),
            ("*.example.com", "example.com", false),
            ("*.example.com", "badexample.com", false),
            ("*.", "quay.io", false),
            ("*", "quay.io", false),
        ] {
            assert_eq!(
                is_registry(pattern, registry),
                matches,
                "{pattern} {registry}"
            );
        }
    }
}
