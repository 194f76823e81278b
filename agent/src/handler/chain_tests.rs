use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::*;

fn arguments(name: &[u8]) -> HandlerArguments {
    HandlerArguments {
        pid: Some(100),
        namespace_pid: Some(7),
        tid: Some(101),
        signal: Some(11),
        time: Some(1_700_000_000),
        dumpable: Some(1),
        uid: Some(rustix::process::getuid().as_raw()),
        gid: Some(rustix::process::getgid().as_raw()),
        hostname: RawText::from("a/b"),
        name: RawText::from(name),
        ..HandlerArguments::default()
    }
}

fn facts(directory: &Path) -> ChainFacts {
    ChainFacts {
        exe: RawText::from("/usr/bin/a b"),
        limit: u64::MAX.to_string(),
        directory: File::open(directory).ok(),
        is_of_the_node: true,
    }
}

fn entry(core: &[u8]) -> tempfile::TempDir {
    let entry = tempfile::tempdir().unwrap();
    let packed = zstd::encode_all(core, 1).unwrap();
    fs::write(entry.path().join("core.zst"), packed).unwrap();
    entry
}

#[test]
fn specifiers_are_expanded_as_the_kernel_does_and_stay_in_their_words() {
    let root = tempfile::tempdir().unwrap();
    let expanded = |pattern: &str, name: &[u8]| {
        let words = words(pattern.as_bytes(), &arguments(name), &facts(root.path()));
        words
            .into_iter()
            .map(|word| word.into_string().unwrap())
            .collect::<Vec<_>>()
    };
    assert_eq!(
        expanded("/x  %P %p %I %s %t %h 100%% %e", b"two words; $(rm)"),
        [
            "/x",
            "100",
            "7",
            "101",
            "11",
            "1700000000",
            "a!b",
            "100%",
            "two words; $(rm)"
        ]
    );
    assert_eq!(
        expanded("/x %E|%f|%c|%Z|%C|%", b""),
        ["/x", "!usr!bin!a b|a b|18446744073709551615|||"]
    );
    assert_eq!(expanded("/x %e", b".."), ["/x", "!."]);
    assert_eq!(
        expanded("/x %e", b"../../etc/passwd"),
        ["/x", "..!..!etc!passwd"]
    );
}

#[test]
fn a_program_gets_the_core_and_its_failure_is_told() {
    let root = tempfile::tempdir().unwrap();
    let core: Vec<u8> = (0..3_000_000_u32).map(|at| (at * 31 % 251) as u8).collect();
    let entry = entry(&core);
    let got = root.path().join("got");
    let script = root.path().join("old-handler");
    let text = format!(
        "#!/bin/sh\necho \"$@\" > {0}.args\nexport -p > {0}.env\n[ \"$1\" = fail ] && exit 3\n[ \"$1\" = close ] && exit 0\ncat > {0}\n",
        got.display()
    );
    fs::write(&script, text).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    let hand = |words: &str| {
        let pattern = RawText::from(format!("|{} {words}", script.display()).as_str());
        hand_on(
            &pattern,
            &arguments(b"na me"),
            &facts(root.path()),
            entry.path(),
        )
    };
    assert_eq!(
        hand("%P %e"),
        Ok(format!("3000000 bytes handed on to {}", script.display()))
    );
    assert!(fs::read(&got).unwrap() == core);
    assert_eq!(
        fs::read_to_string(got.with_extension("args")).unwrap(),
        "100 na me\n"
    );
    let environment = fs::read_to_string(got.with_extension("env")).unwrap();
    assert!(std::env::var_os("CARGO_MANIFEST_DIR").is_some());
    assert!(!environment.contains("CARGO_"), "{environment}");
    assert!(hand("fail").unwrap_err().contains("exit status: 3"));
    assert!(hand("close").unwrap().contains("did not want all of it"));
    let hand = |pattern: &str| {
        hand_on(
            &RawText::from(pattern),
            &arguments(b"x"),
            &facts(root.path()),
            entry.path(),
        )
    };
    assert!(
        hand("|/does/not/exist")
            .unwrap_err()
            .contains("cannot start")
    );
    assert!(hand("|relative").unwrap_err().contains("no absolute path"));
    assert!(hand("|").is_err() && hand("").is_err() && hand("@/x.sock").is_err());
    fs::remove_file(entry.path().join("core.zst")).unwrap();
    assert!(hand("core").unwrap_err().contains("no core was kept"));
}

#[test]
fn a_program_that_hangs_is_ended() {
    let mut core = io::Cursor::new(vec![0; 1 << 20]);
    let words = ["/bin/sleep", "1000"].map(OsString::from);
    let begun = Instant::now();
    let outcome = to_program(&words, &mut core, Duration::from_millis(200));
    assert!(outcome.unwrap_err().contains("signal: 9"));
    assert!(begun.elapsed() < Duration::from_secs(30));
}

#[test]
fn a_file_is_written_where_the_user_could_have_written_it_and_nowhere_else() {
    let root = tempfile::tempdir().unwrap();
    let entry = entry(b"the core");
    let hand = |pattern: &str, arguments: &HandlerArguments| {
        hand_on(
            &RawText::from(pattern),
            arguments,
            &facts(root.path()),
            entry.path(),
        )
    };
    let own = arguments(b"app");
    hand("core.%e.%p", &own).unwrap();
    assert_eq!(
        fs::read(root.path().join("core.app.7")).unwrap(),
        b"the core"
    );
    let absolute = format!("{}/abs.%p", root.path().display());
    hand(&absolute, &own).unwrap();
    assert_eq!(fs::read(root.path().join("abs.7")).unwrap(), b"the core");
    // Over an older one, but through no link, and into nothing with two names.
    hand("core.%e.%p", &own).unwrap();
    let victim = root.path().join("victim");
    fs::write(&victim, "precious").unwrap();
    std::os::unix::fs::symlink(&victim, root.path().join("link.7")).unwrap();
    fs::hard_link(&victim, root.path().join("hard.7")).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        root.path().join("fifo.7"),
        rustix::fs::FileType::Fifo,
        Mode::RWXU,
        0,
    )
    .unwrap();
    for name in ["link", "hard", "fifo"] {
        hand(&format!("{name}.%p"), &own).unwrap_err();
    }
    assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
    // Privileged programs, limits, containers.
    let privileged = HandlerArguments {
        dumpable: Some(2),
        ..own.clone()
    };
    assert!(
        hand("core.%p", &privileged)
            .unwrap_err()
            .contains("privileges")
    );
    let refused = |facts: ChainFacts| {
        hand_on(&RawText::from("core.%p"), &own, &facts, entry.path()).unwrap_err()
    };
    assert!(
        refused(ChainFacts {
            is_of_the_node: false,
            ..facts(root.path())
        })
        .contains("container")
    );
    assert!(
        refused(ChainFacts {
            limit: "0".to_owned(),
            ..facts(root.path())
        })
        .contains("limit")
    );
    if rustix::process::getuid().is_root() {
        // The user `nobody` cannot use a directory of root.
        let nobody = HandlerArguments {
            uid: Some(65534),
            gid: Some(65534),
            ..own
        };
        assert!(
            hand("core.nobody.%p", &nobody)
                .unwrap_err()
                .contains("cannot write")
        );
        assert!(!root.path().join("core.nobody.7").exists());
    }
}
