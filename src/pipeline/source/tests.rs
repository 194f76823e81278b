use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::*;

fn write(root: &Path, path: &str, text: &str) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

fn finder(root: &Path, revision: Option<&str>) -> SourceFinder {
    SourceFinder {
        mappings: Vec::new(),
        roots: vec![Root::open(root, revision, true).unwrap()],
        crashed: SystemTime::now() + Duration::from_secs(3600),
    }
}

fn question(file: &str) -> SourceQuestion {
    SourceQuestion {
        file: file.to_owned(),
        md5: None,
        built: None,
    }
}

fn md5_of(bytes: &[u8]) -> String {
    let digest = Md5::digest(bytes);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn checksum_is_known_in_the_order_of_clang_and_of_gnu_as() {
    let clang = "900150983cd24fb0d6963f7d28e17f72";
    let gnu = "727fe1287d3f96d6b04fd23c98500190";
    assert!(has_md5(b"abc", clang) && has_md5(b"abc", gnu));
    assert!(!has_md5(b"abd", clang) && !has_md5(b"abd", gnu) && !has_md5(b"abc", ""));
}

fn found(finder: &SourceFinder, file: &str) -> Result<String, String> {
    let text = finder.find(&question(file))?;
    Ok(text.lines.join("\n"))
}

#[test]
fn source_is_found_by_the_longest_end_of_its_path() {
    let place = tempfile::tempdir().unwrap();
    let root = place.path();
    write(root, "lib/util.c", "top");
    write(root, "services/api/lib/util.c", "api");
    write(root, "one/same.c", "1");
    write(root, "two/same.c", "2");
    write(root, "app.c", "app");
    let finder = finder(root, None);
    let below = |path: &str| {
        root.canonicalize()
            .unwrap()
            .join(path)
            .display()
            .to_string()
    };
    let table = [
        ("/build/api/lib/util.c", Some("api")),
        ("/build/lib/util.c", Some("top")),
        ("/build/x/../lib/./util.c", Some("top")),
        ("/other/app.c", Some("app")),
        ("app.c", Some("app")),
        ("./app.c", Some("app")),
        (&below("two/same.c"), Some("2")),
        ("/build/same.c", None),
        ("/build/missing.c", None),
        ("", None),
        ("/", None),
        ("..", None),
    ];
    for (file, expected) in table {
        assert_eq!(found(&finder, file).ok().as_deref(), expected, "{file}");
    }
    let reason = found(&finder, "/build/same.c").unwrap_err();
    assert!(reason.contains("2 files below"), "{reason}");
}

#[test]
fn nothing_outside_of_the_roots_is_read() {
    let place = tempfile::tempdir().unwrap();
    let outside = place.path().join("secret.c");
    fs::write(&outside, "secret").unwrap();
    let root = place.path().join("root");
    fs::create_dir_all(root.join("src")).unwrap();
    symlink("../secret.c", root.join("secret.c")).unwrap();
    symlink(&outside, root.join("src/absolute.c")).unwrap();
    symlink(place.path(), root.join("up")).unwrap();
    symlink("ok.c", root.join("inside.c")).unwrap();
    write(&root, "ok.c", "ok");
    let finder = SourceFinder {
        mappings: vec![("/build".to_owned(), Root::open(&root, None, true).unwrap())],
        ..finder(&root, None)
    };
    let absolute = outside.display().to_string();
    let through = root.canonicalize().unwrap().join("../secret.c");
    for file in [
        absolute.as_str(),
        "/etc/passwd",
        "../secret.c",
        "/build/../secret.c",
        "/build/secret.c",
        "/build/up/secret.c",
        "/build/src/absolute.c",
        "src/absolute.c",
        through.to_str().unwrap(),
    ] {
        assert!(found(&finder, file).is_err(), "{file}");
    }
    assert_eq!(found(&finder, "/build/inside.c").unwrap(), "ok");
}

#[test]
fn checksum_chooses_and_warns() {
    let place = tempfile::tempdir().unwrap();
    let root = place.path();
    write(root, "one/same.c", "1");
    write(root, "two/same.c", "2");
    let finder = finder(root, None);
    let with = |md5: String| SourceQuestion {
        md5: Some(md5),
        ..question("/build/same.c")
    };
    let right = finder.find(&with(md5_of(b"2"))).unwrap();
    assert_eq!(
        (right.lines, right.warnings),
        (vec!["2".to_owned()], vec![])
    );
    let wrong = finder.find(&SourceQuestion {
        file: "/build/one/same.c".to_owned(),
        ..with(md5_of(b"3"))
    });
    assert_eq!(
        wrong.unwrap().warnings,
        ["one/same.c differs from the source this program was built from (MD5)"]
    );
}

#[test]
fn time_decides_without_a_checksum() {
    let place = tempfile::tempdir().unwrap();
    write(place.path(), "app.c", "x");
    let hour = Duration::from_secs(3600);
    let now = SystemTime::now();
    let warnings = |built, crashed| {
        let finder = SourceFinder {
            crashed,
            ..finder(place.path(), None)
        };
        let question = SourceQuestion {
            built,
            ..question("app.c")
        };
        finder.find(&question).unwrap().warnings
    };
    let none: [&str; 0] = [];
    assert_eq!(warnings(Some(now + hour), now + hour), none);
    assert_eq!(
        warnings(Some(now - hour), now + hour),
        ["app.c is newer than the program"]
    );
    assert_eq!(warnings(None, now + hour), none);
    let unverified = ["app.c is newer than the crash: not verified"];
    assert_eq!(warnings(None, now - hour), unverified);
    // The file time of a reproducible build means nothing.
    assert_eq!(
        warnings(Some(SystemTime::UNIX_EPOCH), now - hour),
        unverified
    );
}

#[test]
fn source_of_the_images_revision_is_preferred() {
    let place = tempfile::tempdir().unwrap();
    let root = place.path();
    let git = |words: &str| {
        let out = Command::new("git")
            .current_dir(root)
            .args([
                "-c",
                "user.name=a",
                "-c",
                "user.email=a@b",
                "-c",
                "commit.gpgsign=false",
            ])
            .args(words.split(' '))
            .output();
        let out = out.expect("install git");
        assert!(out.status.success(), "{words}: {out:?}");
        String::from_utf8(out.stdout).unwrap().trim().to_owned()
    };
    git("init -q .");
    write(root, "src/app.c", "old");
    git("add .");
    git("commit -q -m one");
    let old = git("rev-parse HEAD");
    git("mv src/app.c src/main.c");
    write(root, "src/app.c", "new");
    git("add .");
    git("commit -q -m two");
    let head = git("rev-parse HEAD");
    write(root, "src/app.c", "edited");
    let ask = |revision: Option<&str>| {
        let text = finder(root, revision)
            .find(&question("/build/src/app.c"))
            .unwrap();
        (text.lines.join("\n"), text.warnings.join("\n"))
    };
    assert_eq!(ask(Some(&head)), ("new".to_owned(), String::new()));
    let (text, warning) = ask(Some(&old));
    assert_eq!(text, "old");
    assert_eq!(
        warning,
        format!(
            "the checkout is at {}, the image was built from {}: the source is that of {}",
            &head[..12],
            &old[..12],
            &old[..12]
        )
    );
    assert_eq!(ask(Some(&old[..8])).0, "old");
    let (text, warning) = ask(Some("0123456789abcdef0123456789abcdef01234567"));
    assert_eq!(text, "edited");
    assert!(warning.contains("does not have 0123456789ab"), "{warning}");
    for other in ["v1.4.2", "--upload-pack=x", "HEAD", "", "abc", "../../etc"] {
        assert_eq!(
            ask(Some(other)),
            ("edited".to_owned(), String::new()),
            "{other}"
        );
    }
}
