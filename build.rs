//! What `cdh --version` prints besides the version: commit and target.

use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=CDH_COMMIT");
    let variable = |name| std::env::var(name).unwrap_or_default();
    let (given, target) = (variable("CDH_COMMIT"), variable("TARGET"));
    let build = match (given.as_str(), variable("PROFILE").as_str()) {
        // Asking git in a development build would build everything again after each commit.
        ("", "debug") => "development build".to_owned(),
        ("", _) => {
            commit().map_or_else(|| "commit unknown".to_owned(), |id| format!("commit {id}"))
        }
        (given, _) => format!("commit {given}"),
    };
    println!("cargo::rustc-env=BUILD_OF_PROGRAM={build}, {target}");
}

/// The commit that is checked out, if this is a checkout.
fn commit() -> Option<String> {
    // The log of HEAD changes with every commit and checkout, HEAD itself only with the branch.
    let log = git(&["rev-parse", "--git-path", "logs/HEAD"])?;
    println!("cargo::rerun-if-changed={log}");
    git(&["rev-parse", "--short=12", "HEAD"])
}

fn git(words: &[&str]) -> Option<String> {
    let output = Command::new("git").args(words).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}
