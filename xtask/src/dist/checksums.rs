//! `SHA256SUMS` of a release and its signature. Both are checked without a network, with programs that users have:
//! `sha256sum` and `ssh-keygen`.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use crate::build;

/// The sums of all other files of the release.
pub(super) const SUMS: &str = "SHA256SUMS";
/// The signature of [`SUMS`].
pub(super) const SIGNATURE: &str = "SHA256SUMS.sig";
/// What the signature is for: one that was made for something else does not count.
const NAMESPACE: &str = "cdh-release";
/// The name that signers have in the file of allowed signers.
const IDENTITY: &str = "cdh";

/// The SHA-256 of a file, in hexadecimal digits.
pub(super) fn sha256(path: &Path) -> Result<String> {
    let output = Command::new("sha256sum")
        .arg("--binary")
        .stdin(fs::File::open(path)?)
        .output();
    let output = output.context("cannot run sha256sum")?;
    let text = String::from_utf8(output.stdout)?;
    let sum = text.split_whitespace().next();
    Ok(sum
        .with_context(|| format!("cannot sum {}", path.display()))?
        .to_owned())
}

/// Files of a release, by name; those of the sums themselves are not among them.
fn files(directory: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for item in
        fs::read_dir(directory).with_context(|| format!("cannot read {}", directory.display()))?
    {
        let item = item?;
        let name = item.file_name().to_string_lossy().into_owned();
        ensure!(
            item.file_type()?.is_file(),
            "{name} is not a file of a release"
        );
        if name != SUMS && name != SIGNATURE {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// Writes [`SUMS`].
pub(super) fn write(directory: &Path) -> Result<()> {
    let mut text = String::new();
    for name in files(directory)? {
        text.push_str(&format!("{}  {name}\n", sha256(&directory.join(&name))?));
    }
    Ok(fs::write(directory.join(SUMS), text)?)
}

/// Signs [`SUMS`] with a private key of OpenSSH.
pub(super) fn sign(directory: &Path, key: &Path) -> Result<()> {
    let mut sign = Command::new("ssh-keygen");
    sign.args(["-Y", "sign", "-q", "-n", NAMESPACE, "-f"])
        .arg(key);
    build::succeed(sign.arg(directory.join(SUMS)))
}

/// Checks every file of a release, and the signature if `signers` names those who are allowed to sign.
///
/// # Errors
/// When a file differs, is missing or is not listed, or the signature is not valid or not there.
pub(super) fn verify(directory: &Path, signers: Option<&Path>) -> Result<usize> {
    let sums = directory.join(SUMS);
    let text =
        fs::read_to_string(&sums).with_context(|| format!("cannot read {}", sums.display()))?;
    match signers {
        Some(signers) => check_signature(directory, &sums, signers)?,
        None if directory.join(SIGNATURE).is_file() => {
            bail!("the release is signed: name the allowed signers with `--signers FILE`")
        }
        None => println!("{SUMS} is not signed: nothing shows who made it"),
    }
    let mut listed = BTreeMap::new();
    for line in text.lines() {
        let (sum, name) = line
            .split_once("  ")
            .with_context(|| format!("{SUMS}: `{line}`"))?;
        ensure!(
            !name.contains('/'),
            "{SUMS} names `{name}`, outside of the release"
        );
        ensure!(
            listed.insert(name, sum).is_none(),
            "{SUMS} lists {name} twice"
        );
    }
    let mut wrong = Vec::new();
    for name in files(directory)? {
        match listed.remove(name.as_str()) {
            None => wrong.push(format!("{name}: not listed in {SUMS}")),
            Some(sum) if sum != sha256(&directory.join(&name))? => {
                wrong.push(format!("{name}: SHA-256 differs"));
            }
            Some(_) => {}
        }
    }
    wrong.extend(listed.keys().map(|name| format!("{name}: missing")));
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(text.lines().count())
}

fn check_signature(directory: &Path, sums: &Path, signers: &Path) -> Result<()> {
    let mut verify = Command::new("ssh-keygen");
    verify
        .args(["-Y", "verify", "-n", NAMESPACE, "-I", IDENTITY, "-f"])
        .arg(signers);
    verify.arg("-s").arg(directory.join(SIGNATURE));
    let output = verify
        .stdin(fs::File::open(sums)?)
        .stderr(Stdio::piped())
        .output();
    let output = output.context("cannot run ssh-keygen")?;
    let why = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "the signature of {SUMS} is not valid: {}",
        why.trim()
    );
    print!("{}", String::from_utf8_lossy(&output.stdout));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn release() -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("a.tar.gz"), b"one").unwrap();
        fs::write(directory.path().join("b.deb"), b"two").unwrap();
        write(directory.path()).unwrap();
        directory
    }

    fn refused(directory: &Path, signers: Option<&Path>) -> String {
        format!("{:#}", verify(directory, signers).unwrap_err())
    }

    #[test]
    fn verify_names_files_that_differ_are_missing_or_are_not_listed() {
        let release = release();
        let path = |name: &str| release.path().join(name);
        assert_eq!(verify(release.path(), None).unwrap(), 2);
        fs::write(path("a.tar.gz"), b"onf").unwrap();
        assert_eq!(refused(release.path(), None), "a.tar.gz: SHA-256 differs");
        fs::write(path("a.tar.gz"), b"one").unwrap();
        fs::rename(path("b.deb"), path("c.deb")).unwrap();
        assert_eq!(
            refused(release.path(), None),
            "c.deb: not listed in SHA256SUMS\nb.deb: missing"
        );
    }

    #[test]
    fn verify_accepts_only_a_signature_of_an_allowed_signer() {
        if !crate::tools::is_there("ssh-keygen") {
            return cdh_testkit::skip("ssh-keygen is not installed");
        }
        let (release, keys) = (release(), tempfile::tempdir().unwrap());
        let key = |name: &str| {
            let path = keys.path().join(name);
            let mut make = Command::new("ssh-keygen");
            make.args(["-q", "-t", "ed25519", "-N", "", "-f"])
                .arg(&path);
            assert!(make.status().unwrap().success());
            let public = fs::read_to_string(path.with_extension("pub")).unwrap();
            let signers = keys.path().join(format!("{name}.signers"));
            fs::write(&signers, format!("{IDENTITY} {public}")).unwrap();
            (path, signers)
        };
        let ((ours, signers), (_, others)) = (key("ours"), key("theirs"));
        sign(release.path(), &ours).unwrap();
        assert_eq!(verify(release.path(), Some(&signers)).unwrap(), 2);
        assert!(refused(release.path(), None).contains("--signers"));
        assert!(refused(release.path(), Some(&others)).contains("not valid"));
        // Sums that were written again after a change.
        fs::write(release.path().join("b.deb"), b"2").unwrap();
        write(release.path()).unwrap();
        assert!(refused(release.path(), Some(&signers)).contains("not valid"));
        fs::remove_file(release.path().join(SIGNATURE)).unwrap();
        assert!(refused(release.path(), Some(&signers)).contains("not valid"));
    }
}
