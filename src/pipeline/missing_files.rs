//! Advice for modules whose files were not found.
//!
//! Printed once per dump, after all sources were tried, so that the advice can name them.

use cdh_bundle::{Manifest, WorkloadKind};
use cdh_elfcore::ModuleKind;
use cdh_symbolize::ModuleStatus;

use super::{Dump, FoundModule, Gathered, ModuleSearch};
use crate::report::{ExitStatus, Failure};

/// Whether the dump's image is one that podman built and that no registry has.
pub(super) fn is_local_image(dump: &Dump) -> bool {
    let manifest = &dump.manifest;
    let runtime = manifest.workload.as_ref();
    let runtime = runtime.and_then(|workload| workload.runtime.as_deref());
    let image = manifest.image.as_ref();
    runtime == Some("podman") && image.is_some_and(|image| is_local_name(&image.reference))
}

/// A warning that names the modules without a file, with advice; `reference` is the image that was used.
pub(super) fn remark(
    dump: &Dump,
    reference: Option<&str>,
    search: &ModuleSearch,
    gathered: &Gathered,
) -> Option<anyhow::Error> {
    let missing: Vec<&FoundModule> = gathered
        .modules
        .iter()
        .filter(|found| matches!(found.status, ModuleStatus::Missing))
        .filter(|found| found.is_missing() && found.module.path.starts_with(b"/"))
        .collect();
    let is_program = |found: &&&FoundModule| found.module.kind == ModuleKind::Executable;
    let program = missing.iter().find(is_program);
    // A directory that the user named need not contain every library.
    let first = match search.sysroot {
        Some(_) => program?,
        None => program.or(missing.first())?,
    };
    let first = first.module.display_path();
    let what = match missing.len() {
        1 => format!("the file of `{first}` was not found: its frames have no names"),
        count => format!(
            "the files of {count} modules were not found, among them `{first}`: their frames have no names"
        ),
    };
    // The image was opened, and does not contain them.
    let absent_in_image = gathered.remarks.is_empty() && gathered.image.is_some();
    let mut failure = Failure::new(ExitStatus::Nothing, what);
    let done = Done {
        has_image: reference.is_some(),
        absent_in_image,
        has_sysroot: search.sysroot.is_some(),
        may_name_program: program.is_some() && search.executable.is_none(),
    };
    for hint in hints(&dump.manifest, &done) {
        failure = failure.hint(hint);
    }
    Some(failure.into())
}

/// What was tried already and need not be suggested.
#[derive(Clone, Copy, Debug, Default)]
struct Done {
    /// An image was asked.
    has_image: bool,
    /// It was opened, and does not have the files.
    absent_in_image: bool,
    /// The user named a directory.
    has_sysroot: bool,
    /// The program is missing, and the user did not name its file.
    may_name_program: bool,
}

/// Advice, the most promising first. An image of a host's engine may not be in any registry.
fn hints(manifest: &Manifest, done: &Done) -> Vec<String> {
    let workload = manifest.workload.as_ref();
    let kind = workload.and_then(|workload| workload.kind);
    let runtime = workload.and_then(|workload| workload.runtime.as_deref());
    let image = image_name(manifest);
    let from_registry = match (done.has_image, kind) {
        (false, Some(WorkloadKind::Host)) if done.has_sysroot => None,
        (false, Some(WorkloadKind::Host)) => Some(
            "run cdh where the process ran, or pass a copy of that machine's files as `--sysroot <DIR>`",
        ),
        // No registry has an image of this name.
        (false, _) if is_local_name(image) => {
            Some("if the image was pushed to a registry, name it there: `--image <REF>`")
        }
        (false, _) => Some("name the image that it ran from with `--image <REF>`"),
        (true, _) if done.absent_in_image => {
            Some("the image does not hold them: name the one that ran with `--image <REF>`")
        }
        // The error that prevented the use of the image has its own advice.
        (true, _) => None,
    };
    let from_engine = match (kind, runtime) {
        _ if done.has_sysroot => None,
        (Some(WorkloadKind::Pod | WorkloadKind::Host), _) => None,
        (_, Some("docker")) => Some(format!(
            "where docker has the image, unpack it: `mkdir files && docker export $(docker create {image}) | \
             tar -x -C files`, then pass `--sysroot files`"
        )),
        _ => Some(format!(
            "where podman has the image, mount it: `--sysroot \"$(podman image mount {image})\"`"
        )),
    };
    let from_registry = from_registry.map(str::to_owned);
    let mut hints: Vec<String> = match runtime {
        // This host's engine had the image when the process crashed.
        Some("podman" | "docker") => from_engine.into_iter().chain(from_registry).collect(),
        _ => from_registry.into_iter().chain(from_engine).collect(),
    };
    if done.may_name_program && (done.has_sysroot || workload.is_none()) {
        hints
            .push("if the program has another path here, name its file: `--exe <FILE>`".to_owned());
    }
    // An agent captured the dump, and could have stored the modules.
    if workload.is_some_and(|workload| workload.source.is_some()) {
        hints.push(
            "for the next crash, let the agent store these files beside the dumps: `keep_modules = true` \
             under `[shipping]`, or `--keep-modules`"
                .to_owned(),
        );
    }
    hints
}

/// Whether podman invented the name, for an image that was built on the host or loaded without a name.
fn is_local_name(image: &str) -> bool {
    image.starts_with("localhost/")
}

/// The image's name, if a shell accepts it unquoted; other names are not shown.
fn image_name(manifest: &Manifest) -> &str {
    let image = manifest.image.as_ref();
    let workload = manifest.workload.as_ref();
    let named = image
        .and_then(|image| image.name.as_deref().or(Some(&image.reference)))
        .or_else(|| workload?.extra.get("image_name")?.as_str());
    let plain = |name: &&str| {
        let harmless = |c: char| c.is_ascii_alphanumeric() || "._:/@-".contains(c);
        !name.is_empty() && !name.starts_with('-') && name.chars().all(harmless)
    };
    named.filter(plain).unwrap_or("<IMAGE>")
}

#[cfg(test)]
mod tests {
    use cdh_bundle::{ImageRef, Workload};
    use serde_json::json;

    use super::*;

    fn manifest(kind: WorkloadKind, runtime: &str, image: Option<&str>) -> Manifest {
        let json = json!({
            "schema": 1, "id": "6a4f4e4d-9c55-4f0b-8f38-8a8f7c5d4e3b", "stem": "s",
            "captured_at": "2026-01-01T00:00:00Z", "process": {"pid": 7},
            "signal": {"number": 11}, "verdict": {"state": "complete"},
        });
        let mut manifest = Manifest::from_json(json.to_string().as_bytes()).unwrap();
        manifest.workload = Some(Workload {
            kind: Some(kind),
            runtime: Some(runtime.to_owned()),
            source: Some("engine".to_owned()),
            ..Workload::default()
        });
        manifest.image = image.map(|name| ImageRef {
            name: Some(name.to_owned()),
            ..ImageRef::by_digest("localhost/web@sha256:00")
        });
        manifest
    }

    #[test]
    fn hints_name_image_mount_and_keep_modules_where_they_help() {
        let podman = manifest(WorkloadKind::Container, "podman", Some("localhost/web:1"));
        let found = hints(&podman, &Done::default()).join("\n");
        for part in [
            "`--image <REF>`",
            "`--sysroot \"$(podman image mount localhost/web:1)\"`",
            "`keep_modules = true`",
        ] {
            assert!(found.contains(part), "{part} in {found}");
        }
        let docker = manifest(WorkloadKind::Container, "docker", None);
        let found = hints(&docker, &Done::default()).join("\n");
        assert!(found.contains("$(docker create <IMAGE>)"), "{found}");
        let pod = manifest(WorkloadKind::Pod, "containerd", Some("api:1"));
        let asked = Done {
            has_image: true,
            absent_in_image: true,
            ..Done::default()
        };
        let found = hints(&pod, &asked).join("\n");
        assert!(
            found.contains("does not hold them") && found.contains("keep_modules"),
            "{found}"
        );
        assert!(!found.contains("podman"), "{found}");
        let host = manifest(WorkloadKind::Host, "", None);
        let found = hints(&host, &Done::default()).join("\n");
        assert!(
            !found.contains("--image") && found.contains("--sysroot <DIR>"),
            "{found}"
        );
    }

    #[test]
    fn hints_begin_with_what_can_work() {
        let first = |manifest: &Manifest| hints(manifest, &Done::default()).swap_remove(0);
        let local = manifest(WorkloadKind::Container, "podman", Some("localhost/web:1"));
        assert!(
            first(&local).contains("podman image mount"),
            "{}",
            first(&local)
        );
        let all = hints(&local, &Done::default()).join("\n");
        assert!(
            all.contains("if the image was pushed to a registry"),
            "{all}"
        );
        let pulled = manifest(
            WorkloadKind::Container,
            "docker",
            Some("quay.io/shop/web:1"),
        );
        assert!(
            first(&pulled).contains("docker export"),
            "{}",
            first(&pulled)
        );
        let pod = manifest(WorkloadKind::Pod, "containerd", None);
        assert!(first(&pod).contains("`--image <REF>`"), "{}", first(&pod));
        let mut imported = manifest(WorkloadKind::Container, "podman", None);
        imported.workload = None;
        assert!(
            first(&imported).contains("`--image <REF>`"),
            "{}",
            first(&imported)
        );
    }

    #[test]
    fn hints_do_not_repeat_what_was_done() {
        let mut bare = manifest(WorkloadKind::Container, "", None);
        bare.workload = None;
        let mut done = Done {
            has_sysroot: true,
            may_name_program: true,
            ..Done::default()
        };
        let found = hints(&bare, &done).join("\n");
        assert!(
            !found.contains("--sysroot") && found.contains("--exe"),
            "{found}"
        );
        done.may_name_program = false;
        let found = hints(&bare, &done).join("\n");
        assert!(
            !found.contains("--exe") && found.contains("--image"),
            "{found}"
        );
        let host = manifest(WorkloadKind::Host, "", None);
        assert!(!hints(&host, &done).join("\n").contains("--sysroot"));
    }

    #[test]
    fn hostile_image_name_is_not_put_into_a_shell_line() {
        let hostile = manifest(WorkloadKind::Container, "podman", Some("a$(reboot)"));
        assert_eq!(image_name(&hostile), "<IMAGE>");
        let hostile = manifest(WorkloadKind::Container, "podman", Some("--help"));
        assert_eq!(image_name(&hostile), "<IMAGE>");
    }

    #[test]
    fn imported_core_gets_no_advice_about_an_agent() {
        let mut manifest = manifest(WorkloadKind::Container, "podman", None);
        manifest.workload = None;
        let found = hints(&manifest, &Done::default()).join("\n");
        assert!(
            found.contains("--image") && !found.contains("keep_modules"),
            "{found}"
        );
    }
}
