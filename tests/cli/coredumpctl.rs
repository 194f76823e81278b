//! What users of coredumpctl type: matches as arguments, its options, and `dump`.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::{Workstation, crash};

/// Three crashes of the past as a journal export describes them: an old one of `db`, then two of `app`, in units.
fn workstation() -> Workstation {
    let workstation = Workstation::new();
    let core = fs::read(crash().core()).unwrap();
    let mut bytes = Vec::new();
    for (number, exe, line, unit) in [
        (1, "/opt/db", "db --port 5432", "db.service"),
        (2, "/opt/app", "app --port 80", "shop.service"),
        (3, "/opt/app", "app --port 81", "shop.service"),
    ] {
        let (pid, time) = (1000 + number, 1_700_000_000 + number * 86_400);
        let text = format!(
            "__CURSOR={number}\n_HOSTNAME=vm-7\nCOREDUMP_PID={pid}\nCOREDUMP_TIMESTAMP={time}000000\nCOREDUMP_EXE={exe}\n\
             COREDUMP_CMDLINE={line}\nCOREDUMP_UNIT={unit}\nCOREDUMP\n"
        );
        bytes.extend(text.bytes());
        bytes.extend((core.len() as u64).to_le_bytes());
        bytes.extend(&core[..core.len() - 1]);
        // Each core is another one.
        bytes.extend([b'0' + u8::try_from(number).unwrap()]);
        bytes.extend(b"\n\n");
    }
    fs::write(workstation.path("crashes"), bytes).unwrap();
    let answer = workstation.run(&["import", "crashes"]);
    assert_eq!(
        (answer.code, answer.out.lines().count()),
        (0, 3),
        "{}",
        answer.err
    );
    workstation
}

/// The process ids of a listing, in its order.
fn pids(workstation: &Workstation, words: &[&str]) -> Vec<u64> {
    let words: Vec<&str> = ["ls", "-o", "id"].iter().chain(words).copied().collect();
    let answer = workstation.run(&words);
    let pid = |id: &str| {
        workstation.json(&["info", id, "-o", "json"])["manifest"]["process"]["pid"].as_u64()
    };
    answer.out.lines().map(|id| pid(id).unwrap()).collect()
}

#[test]
fn ls_matches_as_coredumpctl_does() {
    let workstation = workstation();
    for (words, expected) in [
        (&["1002"][..], &[1002][..]),
        (&["/opt/app"], &[1003, 1002]),
        (&["/opt/other"], &[]),
        (&["db.service"], &[1001]),
        (&["app --port 80"], &[1002]),
        (&["COREDUMP_PID=1001"], &[1001]),
        (
            &["COREDUMP_UNIT=shop.service", "signal:SEGV"],
            &[1003, 1002],
        ),
        (&["app"], &[1003, 1002]),
        (&["pid:1003"], &[1003]),
        (&["--unit", "shop", "--cmdline", "81"], &[1003]),
        (&["--exe", "/opt/*"], &[1003, 1002, 1001]),
        (&["--node", "vm-7", "--pid", "1001"], &[1001]),
    ] {
        assert_eq!(pids(&workstation, words), expected, "{words:?}");
    }
}

#[test]
fn ls_takes_the_options_of_coredumpctl() {
    let workstation = workstation();
    for (words, expected) in [
        (&["-1"][..], &[1003][..]),
        (&["-n", "2"], &[1003, 1002]),
        (&["-n2", "-r"], &[1002, 1003]),
        (&["-r"], &[1001, 1002, 1003]),
        (&["-S", "2023-11-16"], &[1003, 1002]),
        (&["-U", "2023-11-16 00:00"], &[1001]),
        (&["-S", "yesterday"], &[]),
        (&["-S", "@1700000000", "-U", "2023-11-17"], &[1002, 1001]),
    ] {
        assert_eq!(pids(&workstation, words), expected, "{words:?}");
    }
    let lines = |words: &[&str]| workstation.run(words).out;
    assert_eq!(lines(&["ls", "-F", "exe"]), "app\ndb\n");
    assert_eq!(lines(&["ls", "-F", "COREDUMP_EXE"]), "/opt/app\n/opt/db\n");
    assert_eq!(lines(&["ls", "-F", "pid", "app"]), "1002\n1003\n");
    assert_eq!(
        lines(&["ls", "-F", "unit", "-o", "json", "exe:/opt/db"]),
        "[\n  \"db.service\"\n]\n"
    );
    assert_eq!(lines(&["ls", "-F", "__CURSOR", "-1"]), "3\n");
    assert_eq!(workstation.run(&["ls", "-F", "colour"]).code, 2);
    assert_eq!(workstation.run(&["ls", "-F", "image"]).code, 1);
    // As before: a namespace.
    assert_eq!(workstation.run(&["ls", "-n", "shop"]).code, 1);
}

#[test]
fn info_debug_and_bt_take_a_match_or_the_newest_dump() {
    let workstation = workstation();
    let pid = |words: &[&str]| {
        let words: Vec<&str> = words.iter().chain(&["-o", "json"]).copied().collect();
        workstation.json(&words)["manifest"]["process"]["pid"]
            .as_u64()
            .unwrap()
    };
    assert_eq!(pid(&["info"]), 1003);
    for (reference, expected) in [
        ("1001", 1001),
        ("/opt/app", 1003),
        ("db", 1001),
        ("shop.service", 1003),
        ("app --port 80", 1002),
        ("exe:app until:2023-11-16T23:59:59Z", 1002),
        ("COREDUMP_PID=1002", 1002),
    ] {
        assert_eq!(pid(&["info", reference]), expected, "{reference}");
    }
    let answer = workstation.run(&["info", "db"]);
    assert!(
        answer
            .err
            .contains("note: the newest dump that matches `db` is "),
        "{}",
        answer.err
    );
    assert_eq!(workstation.run(&["info", "nothing-like-it"]).code, 1);
    assert_eq!(workstation.run(&["bt"]).code, 0);
    assert!(
        workstation
            .run(&["bt", "db"])
            .out
            .contains("\ndb (pid 1001")
    );
    for words in [&["debug", "--print"][..], &["gdb", "db", "--print"]] {
        assert!(workstation.run(words).out.starts_with("gdb "), "{words:?}");
    }
    // A program that exists is a match too; a path that is neither is an error as before.
    let app = crash().dir.path().join("app");
    let app = app.to_str().unwrap();
    let missing = workstation.run(&["info", app]);
    assert_eq!(missing.code, 2);
    assert!(missing.err.contains("as a core"), "{}", missing.err);
    assert_eq!(
        workstation
            .run(&["import", crash().core().to_str().unwrap()])
            .code,
        0
    );
    assert!(workstation.run(&["info", app]).out.contains(app));
    // Nothing is deleted by a match.
    assert_eq!(workstation.run(&["rm", "db", "--yes"]).code, 1);
}

#[test]
fn dump_writes_the_core_to_a_file_or_to_standard_output() {
    let workstation = Workstation::new();
    workstation.import(&crash().core());
    let core = fs::read(crash().core()).unwrap();
    let run = |words: &[&str]| workstation.command(words).output().unwrap();
    for words in [
        &["dump"][..],
        &["dump", "latest", "-o", "-"],
        &["dump", "app", "--output", "-"],
    ] {
        let output = run(words);
        assert!(
            output.status.success() && output.stdout == core,
            "{words:?}"
        );
    }
    let written = workstation.run(&["dump", "-o", "out.core"]);
    assert_eq!(
        (written.code, written.out.as_str()),
        (0, ""),
        "{}",
        written.err
    );
    let out = workstation.path("out.core");
    assert!(fs::read(&out).unwrap() == core);
    assert_eq!(
        fs::metadata(&out).unwrap().permissions().mode() & 0o777,
        0o600
    );
    assert!(run(&["dump", "./out.core", "-o", "-"]).stdout == core);
    let missing = workstation.run(&["dump", "nothing-like-it", "-o", "none"]);
    assert_eq!(missing.code, 1);
    assert!(!workstation.path("none").exists());
    // Damage leaves no file behind.
    let key = workstation.json(&["ls", "-o", "json"])[0]["key"]
        .as_str()
        .unwrap()
        .to_owned();
    let bundle = workstation.path("store").join(key);
    let mut bytes = fs::read(&bundle).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&bundle, bytes).unwrap();
    let damaged = workstation.run(&["dump", "-o", "damaged.core"]);
    assert_eq!(damaged.code, 4, "{}", damaged.err);
    assert_eq!(
        fs::read_dir(workstation.dir.path())
            .unwrap()
            .filter(|entry| {
                entry
                    .as_ref()
                    .unwrap()
                    .file_name()
                    .to_string_lossy()
                    .starts_with("damaged")
            })
            .count(),
        0
    );
}
