//! The scripts of a release, run; packages of small programs, looked into with the tools of each format.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use super::programs::Programs;
use super::{Release, checksums, packages, publish, tree};
use crate::targets::{TARGETS, Target};
use crate::{build, tools};

/// The target of this machine.
fn target() -> &'static Target {
    let host = build::host().unwrap();
    let mut targets = TARGETS.iter();
    targets.find(|target| target.triple == host).unwrap()
}

fn text(output: &Output) -> String {
    let both = [&output.stdout[..], &output.stderr].concat();
    String::from_utf8_lossy(&both).into_owned()
}

/// Programs that only look like it.
fn programs(directory: &Path) -> Programs {
    let path = |name: &str| directory.join("built").join(name);
    tree::write(&path("cdh"), b"#!/bin/sh\necho cdh 1.0.0\n", 0o755).unwrap();
    tree::write(&path("cdh-handler"), b"#!/bin/sh\n", 0o755).unwrap();
    Programs {
        cdh: path("cdh"),
        handler: path("cdh-handler"),
    }
}

/// A release of small programs, in a directory.
fn release(directory: &Path) -> Release {
    let release = Release {
        out: directory.join("release"),
        ..Release::sample("1.0.0")
    };
    fs::create_dir(&release.out).unwrap();
    super::archive(&release, target(), &programs(directory)).unwrap();
    publish::install_script(&release).unwrap();
    checksums::write(&release.out).unwrap();
    release
}

/// Runs the release's install script; the directory to which it installed.
fn install(release: &Release, words: &[&str]) -> (Output, PathBuf) {
    let prefix = release.out.with_file_name("prefix");
    let mut script = Command::new("sh");
    script.arg(release.out.join("install.sh"));
    script
        .arg("--url")
        .arg(&release.out)
        .arg("--prefix")
        .arg(&prefix);
    (script.args(words).output().unwrap(), prefix)
}

#[test]
fn install_script_installs_an_archive_that_has_the_sum_of_the_release() {
    let directory = tempfile::tempdir().unwrap();
    let (output, prefix) = install(&release(directory.path()), &[]);
    assert!(output.status.success(), "{}", text(&output));
    let cdh = Command::new(prefix.join("bin/cdh")).output().unwrap();
    assert_eq!(text(&cdh), "cdh 1.0.0\n");
    for file in [
        "libexec/cdh/cdh-handler",
        "share/man/man1/cdh.1",
        "share/man/man5/cdh-agent.toml.5",
        "share/man/man7/cdh.7",
        "share/bash-completion/completions/cdh",
    ] {
        assert!(prefix.join(file).is_file(), "{file}");
    }
}

#[test]
fn install_script_installs_nothing_if_a_byte_of_the_archive_differs() {
    let directory = tempfile::tempdir().unwrap();
    let release = release(directory.path());
    let archive = release.out.join(release.archive(target()));
    let mut bytes = fs::read(&archive).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&archive, bytes).unwrap();
    let (output, prefix) = install(&release, &[]);
    assert!(!output.status.success() && !prefix.exists());
    assert!(
        text(&output).contains("nothing was installed"),
        "{}",
        text(&output)
    );
    // An archive that the release does not list.
    fs::write(release.out.join(checksums::SUMS), "").unwrap();
    let (output, prefix) = install(&release, &[]);
    assert!(!output.status.success() && !prefix.exists());
    assert!(
        text(&output).contains("the release has no cdh-1.0.0-"),
        "{}",
        text(&output)
    );
}

#[test]
fn install_script_checks_the_signature_against_allowed_signers() {
    if !tools::is_there("ssh-keygen") {
        return cdh_testkit::skip("ssh-keygen is not installed");
    }
    let directory = tempfile::tempdir().unwrap();
    let release = release(directory.path());
    let key = directory.path().join("key");
    let mut make = Command::new("ssh-keygen");
    make.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&key);
    assert!(make.status().unwrap().success());
    let signers = directory.path().join("signers");
    let public = fs::read_to_string(key.with_extension("pub")).unwrap();
    fs::write(&signers, format!("cdh {public}")).unwrap();
    let words = ["--signers", signers.to_str().unwrap()];
    let (output, prefix) = install(&release, &words);
    assert!(
        !output.status.success() && !prefix.exists(),
        "{}",
        text(&output)
    );
    checksums::sign(&release.out, &key).unwrap();
    let (output, prefix) = install(&release, &words);
    assert!(
        output.status.success() && prefix.exists(),
        "{}",
        text(&output)
    );
    fs::remove_dir_all(&prefix).unwrap();
    checksums::write(&release.out).unwrap();
    let sums = release.out.join(checksums::SUMS);
    fs::write(&sums, fs::read_to_string(&sums).unwrap() + "\n").unwrap();
    let (output, prefix) = install(&release, &words);
    assert!(!output.status.success() && !prefix.exists());
    assert!(text(&output).contains("signature"), "{}", text(&output));
}

/// Runs the script that precedes a removal, on a node with this `core_pattern`; its output, and how `cdh` was called.
fn before_removal(words: &[&str], pattern: &str, status: i32) -> (Output, String) {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let handler = path("cdh-handler");
    fs::write(&handler, "").unwrap();
    let pattern = pattern.replace("HERE", &directory.path().display().to_string());
    fs::write(path("core_pattern"), pattern + "\n").unwrap();
    let stand_in = format!(
        "#!/bin/sh\necho \"$*\" >> {}\nexit {status}\n",
        path("calls").display()
    );
    tree::write(&path("bin/cdh"), stand_in.as_bytes(), 0o755).unwrap();
    let script = tree::script("deb/prerm").unwrap();
    let script = script
        .replace(
            "/proc/sys/kernel/core_pattern",
            path("core_pattern").to_str().unwrap(),
        )
        .replace("/usr/bin/cdh ", &format!("{} ", path("bin/cdh").display()));
    fs::write(
        path("prerm"),
        script.replace("/run/systemd/system", "/no-systemd"),
    )
    .unwrap();
    let mut sh = Command::new("sh");
    sh.arg(path("prerm")).args(words);
    let output = sh.output().unwrap();
    (
        output,
        fs::read_to_string(path("calls")).unwrap_or_default(),
    )
}

#[test]
fn removal_of_the_package_restores_the_node_first() {
    const UNINSTALL: &str = "agent uninstall --wait-for-agent 90\n";
    for pattern in [
        "|HERE/cdh-handler P%P",
        "core",
        "|/usr/lib/systemd/systemd-coredump %P",
        "@HERE/socket",
    ] {
        let (output, calls) = before_removal(&["remove"], pattern, 0);
        assert!(
            output.status.success() && calls == UNINSTALL,
            "{pattern}: {calls}"
        );
    }
    // The host's, seen from a chroot.
    for pattern in ["|/nowhere/cdh-handler P%P", "@/nowhere/socket"] {
        let (output, calls) = before_removal(&["remove"], pattern, 0);
        assert!(output.status.success() && calls.is_empty(), "{calls}");
    }
    let (output, calls) = before_removal(&["upgrade", "1.0.1"], "|HERE/cdh-handler P%P", 0);
    assert!(output.status.success() && calls.is_empty(), "{calls}");
}

#[test]
fn package_stays_installed_if_the_node_cannot_be_restored() {
    let (output, _) = before_removal(&["remove"], "|HERE/cdh-handler P%P", 2);
    assert!(!output.status.success());
    assert!(
        text(&output).contains("it stays installed"),
        "{}",
        text(&output)
    );
}

#[test]
fn packages_hold_programs_unit_and_configuration_and_are_reproducible() {
    if !tools::missing(&["dpkg-deb", "rpmbuild"]).is_empty() {
        return cdh_testkit::skip("dpkg-deb or rpmbuild is not installed");
    }
    let directory = tempfile::tempdir().unwrap();
    let made = |name: &str| {
        let release = Release {
            out: directory.path().join(name),
            ..Release::sample("1.0.0-rc.1")
        };
        fs::create_dir(&release.out).unwrap();
        let programs = programs(&release.out.with_extension("programs"));
        packages::deb(&release, target(), &programs).unwrap();
        packages::rpm(&release, target(), &programs).unwrap();
        let deb = release
            .out
            .join(format!("cdh_1.0.0~rc.1_{}.deb", target().deb));
        let rpm = release
            .out
            .join(format!("cdh-1.0.0~rc.1-1.{}.rpm", target().rpm));
        [deb, rpm]
    };
    let ([deb, rpm], again) = (made("one"), made("two"));
    for (one, two) in [&deb, &rpm].into_iter().zip(&again) {
        assert!(
            fs::read(one).unwrap() == fs::read(two).unwrap(),
            "{}",
            one.display()
        );
    }
    let run = |program: &str, words: &[&str], package: &Path| {
        let output = Command::new(program)
            .args(words)
            .arg(package)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", text(&output));
        String::from_utf8(output.stdout).unwrap()
    };
    let contents = [
        run("dpkg-deb", &["--contents"], &deb),
        run("rpm", &["-qp", "--list"], &rpm),
    ];
    for contents in &contents {
        for file in [
            "/usr/bin/cdh\n",
            "/usr/libexec/cdh/cdh-handler\n",
            "/usr/lib/systemd/system/cdh-agent.service\n",
            "/etc/cdh/agent.toml\n",
            "/usr/share/man/man1/cdh-agent.1.gz\n",
        ] {
            assert!(contents.contains(file), "{file}{contents}");
        }
    }
    assert!(
        contents[0].contains("-rwxr-xr-x root/root"),
        "{}",
        contents[0]
    );
    assert_eq!(
        run("rpm", &["-qp", "--configfiles"], &rpm),
        "/etc/cdh/agent.toml\n"
    );
    // rpm expands percent signs: the script must arrive as it was written.
    let shared = tree::script("restore-node.sh").unwrap();
    assert!(run("rpm", &["-qp", "--scripts"], &rpm).contains(shared.trim()));
    run("rpm", &["-K", "--nosignature"], &rpm);
}
