//! Finds the handler to install if the user named none: beside this program, where packages install it,
//! or in the target directory of the build that made this program.

use std::path::{Path, PathBuf};

use anyhow::Result;
use cdh_agent::HANDLER_NAME;
use cdh_agent::node::binary::linkage;

use crate::render::terminal_line;
use crate::report::{ExitStatus, Failure};

/// Where a handler may be for a program at `program`; the first place takes precedence.
fn candidates(program: &Path) -> Vec<PathBuf> {
    let Some(directory) = program.parent() else {
        return Vec::new();
    };
    let mut found = vec![directory.join(HANDLER_NAME)];
    if let Some(above) = directory.parent() {
        for place in ["libexec/cdh", "lib/cdh"] {
            found.push(above.join(place).join(HANDLER_NAME));
        }
    }
    // `cargo xtask handler` builds for a named target: <target>/<triple>/handler/cdh-handler.
    if let Some(target) = target_directory(program) {
        let triple = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
        found.push(target.join(triple).join("handler").join(HANDLER_NAME));
    }
    found
}

/// The cargo target directory that contains `program`.
fn target_directory(program: &Path) -> Option<&Path> {
    let above = program.ancestors().skip(2).take(2);
    { above }.find(|directory| directory.join("CACHEDIR.TAG").is_file())
}

fn is_static(path: &Path) -> bool {
    linkage(path).is_ok_and(|linkage| linkage.is_static())
}

/// The handler for a program: the first static one, otherwise the program itself if it is static.
///
/// # Errors
/// If there is none; the error lists the places that were searched.
pub(super) fn find(program: &Path) -> Result<PathBuf> {
    let candidates = candidates(program);
    let program = program.to_owned();
    let all = candidates.iter().chain([&program]);
    if let Some(found) = { all }.find(|path| is_static(path)) {
        return Ok(found.clone());
    }
    let looked: Vec<String> = candidates
        .iter()
        .map(|path| {
            let shown = terminal_line(&path.display().to_string());
            match path.is_file() {
                true => format!("{shown} (needs shared libraries)"),
                false => shown,
            }
        })
        .collect();
    let mut failure = Failure::new(ExitStatus::Failure, "no static `cdh-handler` to install")
        .hint(
            "build it with `cargo xtask handler` in the source tree, which prints its path, and pass that as \
             `--handler <FILE>`",
        )
        .hint(format!("searched: {}", looked.join(", ")));
    if let Some(dynamic) = candidates
        .iter()
        .chain([&program])
        .find(|path| path.is_file())
    {
        failure = failure.hint(format!(
            "`--handler {}` installs one that needs this host's shared libraries",
            terminal_line(&dynamic.display().to_string())
        ));
    }
    Err(failure.into())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn candidates_are_beside_the_program_in_libexec_and_in_the_target_directory_of_its_build() {
        let root = tempfile::tempdir().unwrap();
        let bin = root.path().join("usr/bin/cdh");
        let shown = |program: &Path| -> Vec<String> {
            let candidates = candidates(program).into_iter();
            let relative = candidates.map(|path| {
                let path = path.strip_prefix(root.path()).unwrap();
                path.display().to_string()
            });
            relative.collect()
        };
        assert_eq!(
            shown(&bin),
            [
                "usr/bin/cdh-handler",
                "usr/libexec/cdh/cdh-handler",
                "usr/lib/cdh/cdh-handler"
            ]
        );
        let target = root.path().join("target");
        fs::create_dir(&target).unwrap();
        fs::write(target.join("CACHEDIR.TAG"), "").unwrap();
        let arch = std::env::consts::ARCH;
        let expected = format!("target/{arch}-unknown-linux-gnu/handler/cdh-handler");
        for program in [
            "target/release/cdh",
            "target/x86_64-unknown-linux-gnu/debug/cdh",
        ] {
            let found = shown(&root.path().join(program));
            assert_eq!(found.last(), Some(&expected), "{program}");
        }
    }

    #[test]
    fn missing_handler_is_an_error_with_the_places_and_the_command_that_builds_it() {
        let root = tempfile::tempdir().unwrap();
        let program = root.path().join("bin/cdh");
        let error = find(&program).unwrap_err();
        let text = crate::report::rendered(&error).hints.join("\n");
        assert!(text.contains("cargo xtask handler"), "{text}");
        assert!(text.contains("libexec/cdh/cdh-handler"), "{text}");
    }
}
