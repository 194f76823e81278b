//! Imports: what is recorded about a crash is kept, and what is not recorded is unknown.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::fs::XattrFlags;
use serde_json::Value;

use super::{Answer, Workstation, crash};

const BOOT: &str = "0123456789abcdef0123456789abcdef";
/// 2023-11-14T22:13:20.123456Z.
const MICROSECONDS: &str = "1700000000123456";
const TIME: &str = "2023-11-14T22:13:20.123456Z";

/// What systemd-coredump 252 writes beside a core (`coredump.c`, `fix_xattr`).
const ATTRIBUTES: [(&str, &str); 9] = [
    ("pid", "4242"),
    ("uid", "1007"),
    ("gid", "1008"),
    ("signal", "11"),
    ("timestamp", "1700000000000000"),
    ("rlimit", "18446744073709551615"),
    ("hostname", "db-7.example.org"),
    ("comm", "app"),
    ("exe", "/opt/shop/bin/app"),
];

/// The core compressed by the format's own program.
fn compress(format: &str, core: &Path, to: &Path) {
    let words: &[&str] = match format {
        "zst" => &["zstd", "-q", "-c"],
        "xz" => &["xz", "-0", "-c"],
        "lz4" => &["lz4", "-q", "-c"],
        "bz2" => &["bzip2", "-1", "-c"],
        // Through a pipe, so that the size is not known and the window stays as long as it may be.
        "long.zst" => &["sh", "-c", "cat \"$0\" | zstd -q --long=31 -c"],
        _ => &["gzip", "-1", "-c"],
    };
    let program = words[0];
    let output = fs::File::create(to).unwrap();
    let mut command = Command::new(program);
    command.args(&words[1..]).arg(core).stdout(output);
    let status = command.status();
    assert!(
        status.is_ok_and(|status| status.success()),
        "install {program}"
    );
}

fn set_attributes(path: &Path) {
    for (name, value) in ATTRIBUTES {
        let name = format!("user.coredump.{name}");
        let set = rustix::fs::setxattr(path, &*name, value.as_bytes(), XattrFlags::empty());
        set.unwrap_or_else(|error| {
            panic!("{}: no extended attributes here ({error})", path.display())
        });
    }
}

fn name(pid: u32, end: &str) -> String {
    format!("core.app.1007.{BOOT}.{pid}.{MICROSECONDS}{end}")
}

/// A directory as systemd-coredump leaves it, with one core in each format.
fn systemd_directory(workstation: &Workstation) -> PathBuf {
    let directory = workstation.path("coredump");
    fs::create_dir(&directory).unwrap();
    let path = directory.join(name(4242, ".zst"));
    compress("zst", &crash().core(), &path);
    set_attributes(&path);
    directory
}

fn note(answer: &Answer, what: &str) {
    assert!(answer.err.contains(what), "{what}: {}", answer.err);
}

fn hostname() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    name.trim().to_owned()
}

#[test]
fn import_without_provenance_has_no_time_and_no_node() {
    let workstation = Workstation::new();
    let core = workstation.path("some.core");
    fs::copy(crash().core(), &core).unwrap();
    let id = workstation.import(&core);
    let info = workstation.json(&["info", "latest", "-o", "json"]);
    let manifest = &info["manifest"];
    assert!(
        manifest["captured_at"].is_null() && manifest["node"] == "",
        "{manifest}"
    );
    assert_eq!(manifest["imported"]["file"], "some.core");
    assert!(manifest["imported"]["at"].is_string());
    let text = workstation.run(&["info", "latest"]).out;
    assert!(text.contains("captured     unknown\n"), "{text}");
    assert!(!text.contains(&format!(" on {}", hostname())), "{text}");
    let listing = workstation.json(&["ls", "-o", "json"]);
    assert_eq!(listing[0]["id"], id.as_str());
    assert!(listing[0]["captured_at"].is_null() && listing[0]["node"].is_null());
    let wide = workstation.run(&["ls", "-o", "wide"]).out;
    let row: Vec<_> = wide.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!(&row[..2], [id.as_str(), "-"]);
    // As for a core that is not in the store.
    let info = workstation.json(&["info", "./some.core", "-o", "json"]);
    assert!(info["manifest"]["captured_at"].is_null() && info["manifest"]["node"] == "");
    // What the user states is known.
    let core = core.to_str().unwrap();
    let stated = ["import", core, "--node", "worker-3", "--time", TIME];
    let id = workstation.run(&stated).out;
    let info = workstation.json(&["info", id.trim(), "-o", "json"]);
    assert_eq!(info["manifest"]["node"], "worker-3");
    assert_eq!(info["manifest"]["captured_at"], TIME);
}

#[test]
fn import_of_a_systemd_directory_keeps_every_attribute_and_skips_what_is_stored() {
    let workstation = Workstation::new();
    let directory = systemd_directory(&workstation);
    // Without attributes, the name still has time, user and process.
    let bare = directory.join(name(77, ""));
    let mut core = fs::read(crash().core()).unwrap();
    let last = core.len() - 1;
    core[last] ^= 1;
    fs::write(bare, core).unwrap();
    fs::write(directory.join("README"), "not a core").unwrap();
    let directory = directory.to_str().unwrap().to_owned();
    let first = workstation.run(&["import", &directory]);
    assert_eq!(
        (first.code, first.out.lines().count()),
        (0, 2),
        "{}",
        first.err
    );
    note(&first, "skipped 1 (not dumps)");

    let dumps = workstation.json(&["ls", "-o", "json"]);
    let manifests: Vec<Value> = dumps
        .as_array()
        .unwrap()
        .iter()
        .map(|dump| {
            let id = dump["id"].as_str().unwrap();
            workstation.json(&["info", id, "-o", "json"])["manifest"].clone()
        })
        .collect();
    let by_pid = |pid: u64| {
        manifests
            .iter()
            .find(|one| one["process"]["pid"] == pid)
            .unwrap()
    };
    let full = by_pid(4242);
    for (name, value) in ATTRIBUTES {
        let field = &full["imported"]["fields"][format!("user.coredump.{name}")];
        assert_eq!(field, value, "{name}");
    }
    assert_eq!(full["captured_at"], "2023-11-14T22:13:20Z");
    assert_eq!(full["hostname"], "db-7.example.org");
    assert_eq!(
        (&full["process"]["uid"], &full["process"]["gid"]),
        (&1007.into(), &1008.into())
    );
    assert_eq!(full["process"]["exe"], "/opt/shop/bin/app");
    assert_eq!(full["node"], "");
    let named = by_pid(77);
    assert_eq!(named["captured_at"], TIME);
    assert_eq!(named["process"]["uid"], 1007);
    let found = workstation.run(&["ls", "--node", "db-7*", "-o", "id"]);
    assert_eq!(
        found.out.trim(),
        full["id"].as_str().unwrap(),
        "{}",
        found.err
    );

    let again = workstation.run(&["import", &directory, "-o", "json"]);
    assert_eq!(again.code, 0, "{}", again.err);
    note(&again, "skipped 2 (already in the store)");
    assert_eq!(
        again.out.matches("\"already_there\"").count(),
        2,
        "{}",
        again.out
    );
    assert_eq!(workstation.run(&["ls", "-o", "id"]).out.lines().count(), 2);
}

#[test]
fn import_of_a_directory_reports_a_damaged_file_and_goes_on() {
    let workstation = Workstation::new();
    let directory = systemd_directory(&workstation);
    fs::write(directory.join("a.zst"), b"\x28\xb5\x2f\xfdnonsense").unwrap();
    let answer = workstation.run(&["import", "coredump"]);
    assert_eq!(
        (answer.code, answer.out.lines().count()),
        (2, 1),
        "{}",
        answer.err
    );
    note(&answer, "a.zst");
    fs::create_dir(workstation.path("empty")).unwrap();
    assert_eq!(workstation.run(&["import", "empty"]).code, 1);
}

#[test]
fn compressed_core_is_imported_and_opened_in_place() {
    let workstation = Workstation::new();
    let core = crash().core();
    let plain = workstation.json(&["bt", core.to_str().unwrap(), "-o", "json"]);
    for format in ["zst", "xz", "lz4", "gz", "bz2"] {
        let file = format!("app.core.{format}");
        compress(format, &core, &workstation.path(&file));
        for _ in 0..2 {
            let document = workstation.json(&["bt", &format!("./{file}"), "-o", "json"]);
            let frames = |document: &Value| document["backtrace"]["threads"][0]["frames"].clone();
            assert_eq!(frames(&document), frames(&plain), "{format}");
        }
        let id = workstation.import(&workstation.path(&file));
        let manifest = workstation.json(&["info", &id, "-o", "json"])["manifest"].clone();
        assert_eq!(
            manifest["core"]["size"],
            fs::metadata(&core).unwrap().len(),
            "{format}"
        );
        assert_eq!(manifest["verdict"]["state"], "complete", "{format}");
    }
    // Five files, each unpacked once.
    let cases = fs::read_dir(workstation.path(".cache/cdh/cases")).unwrap();
    assert_eq!(cases.count(), 5);
    let printed = workstation.run(&["debug", "./app.core.xz", "--print"]);
    assert!(
        printed.out.contains("/cases/"),
        "{}{}",
        printed.out,
        printed.err
    );
}

/// Makes a zip of files with Python, as people do with `zip`.
fn zip(to: &Path, entries: &[(&str, &Path)]) {
    let script = "import sys, zipfile\n\
        z = zipfile.ZipFile(sys.argv[1], 'w', zipfile.ZIP_DEFLATED)\n\
        for pair in sys.argv[2:]:\n    name, _, path = pair.partition('=')\n    z.write(path, name)\n\
        z.close()";
    let pairs = entries
        .iter()
        .map(|(name, path)| format!("{name}={}", path.display()));
    let mut command = Command::new("python3");
    command.args(["-c", script]).arg(to).args(pairs);
    assert!(command.status().unwrap().success());
}

#[test]
fn core_in_a_zip_of_a_person_is_opened_and_imported() {
    let workstation = Workstation::new();
    let core = crash().core();
    let plain = workstation.json(&["bt", core.to_str().unwrap(), "-o", "json"]);
    let (log, packed) = (workstation.path("app.log"), workstation.path("app.core.gz"));
    fs::write(&log, "started").unwrap();
    compress("gz", &core, &packed);
    let zips: [(&str, &[(&str, &Path)]); 4] = [
        ("bare.zip", &[("core", &core)]),
        ("named.zip", &[("app.core", &core)]),
        (
            "mixed.zip",
            &[
                ("logs/app.log", &log),
                ("dir/core.4711", &core),
                ("app.log.gz", &packed),
            ],
        ),
        ("packed.zip", &[("app.core.gz", &packed), ("app.log", &log)]),
    ];
    for (name, entries) in zips {
        zip(&workstation.path(name), entries);
        let document = workstation.json(&["bt", &format!("./{name}"), "-o", "json"]);
        let frames = |document: &Value| document["backtrace"]["threads"][0]["frames"].clone();
        assert_eq!(frames(&document), frames(&plain), "{name}");
        let id = workstation.import(&workstation.path(name));
        let manifest = workstation.json(&["info", &id, "-o", "json"])["manifest"].clone();
        assert_eq!(manifest["signal"]["name"], "SIGSEGV", "{name}");
        assert_eq!(manifest["verdict"]["state"], "complete", "{name}");
    }
}

#[test]
fn file_that_is_not_opened_is_named_with_the_command_that_opens_it() {
    let workstation = Workstation::new();
    let core = crash().core();
    let log = workstation.path("app.log");
    fs::write(&log, "started").unwrap();
    zip(&workstation.path("logs.zip"), &[("app.log", &log)]);
    zip(
        &workstation.path("two.zip"),
        &[("a.1", &core), ("b 2", &core)],
    );
    zip(
        &workstation.path("outer.zip"),
        &[("inner.zip", &workstation.path("two.zip"))],
    );
    compress("long.zst", &core, &workstation.path("core.long.zst"));
    let mut tar = Command::new("tar");
    tar.arg("-czf").arg(workstation.path("core.tgz")).arg("-C");
    tar.arg(core.parent().unwrap())
        .arg(core.file_name().unwrap());
    assert!(tar.status().unwrap().success());
    fs::write(
        workstation.path("page"),
        "<!DOCTYPE html><html><title>Log in</title></html>",
    )
    .unwrap();
    let table = [
        (
            "logs.zip",
            "none of its entries is a core: app.log",
            "pass a core",
        ),
        (
            "two.zip",
            "it holds several: a.1, b 2",
            "`unzip -p ./two.zip a.1 > core`",
        ),
        (
            "outer.zip",
            "it holds another zip: `inner.zip`",
            "`unzip ./outer.zip inner.zip`",
        ),
        (
            "core.long.zst",
            "requires too much memory",
            "`zstd -d --long=31 ./core.long.zst -o core`",
        ),
        (
            "core.tgz",
            "the file is a tar archive",
            "`tar -xf ./core.tgz`",
        ),
        (
            "page",
            "the file is an HTML page",
            "download the file again",
        ),
    ];
    for (name, cause, hint) in table {
        let path = format!("./{name}");
        for words in [["info", &path], ["import", &path]] {
            let answer = workstation.run(&words);
            let has = |text: &str| answer.err.contains(text);
            assert!(
                answer.code == 2 && has(cause) && has(hint),
                "{words:?}: {}",
                answer.err
            );
            assert!(!has("damaged or incomplete"), "{}", answer.err);
        }
    }
}

#[test]
fn compressed_core_that_was_cut_says_how_far_it_goes() {
    let workstation = Workstation::new();
    let packed = workstation.path("whole");
    for format in ["zst", "xz", "lz4", "gz", "bz2"] {
        compress(format, &crash().core(), &packed);
        let bytes = fs::read(&packed).unwrap();
        let file = format!("cut.{format}");
        fs::write(workstation.path(&file), &bytes[..bytes.len() * 2 / 3]).unwrap();
        let answer = workstation.run(&["info", &format!("./{file}")]);
        assert!(
            answer.out.contains("truncated: "),
            "{format}: {}{}",
            answer.out,
            answer.err
        );
        let imported = workstation.run(&["import", &file, "-o", "json"]);
        assert!(
            imported.out.contains("\"truncated\""),
            "{format}: {}{}",
            imported.out,
            imported.err
        );
    }
}

#[test]
fn decompression_bomb_ends_at_what_the_headers_promise() {
    let workstation = Workstation::new();
    let mut child = Command::new("zstd")
        .args(["-q", "-1", "-f", "-o"])
        .arg(workstation.path("bomb.zst"))
        .stdin(Stdio::piped())
        .spawn()
        .expect("install zstd");
    let mut input = child.stdin.take().unwrap();
    input.write_all(&fs::read(crash().core()).unwrap()).unwrap();
    let zeros = vec![0; 1 << 20];
    for _ in 0..64 {
        input.write_all(&zeros).unwrap();
    }
    drop(input);
    assert!(child.wait().unwrap().success());
    for words in [["bt", "./bomb.zst"], ["import", "bomb.zst"]] {
        let answer = workstation.run(&words);
        assert_eq!(answer.code, 2, "{}", answer.out);
        note(&answer, "more than the core's headers promise");
    }
    assert_eq!(
        fs::read_dir(workstation.path(".cache/cdh/cases"))
            .unwrap()
            .count(),
        0
    );
    assert_eq!(workstation.run(&["ls"]).code, 1);
}

/// An entry of a journal export, with text fields.
fn journal_entry(cursor: &str, fields: &[(&str, &str)]) -> Vec<u8> {
    let mut bytes =
        format!("__CURSOR={cursor}\n__REALTIME_TIMESTAMP={MICROSECONDS}\n").into_bytes();
    bytes.extend(b"MESSAGE_ID=fc2e22bc6ee647b6b90729ab34a250b1\n_HOSTNAME=node-5\n");
    for (name, value) in fields {
        if value.contains('\n') {
            bytes.extend(name.bytes().chain([b'\n']));
            bytes.extend((value.len() as u64).to_le_bytes());
        } else {
            bytes.extend(name.bytes().chain([b'=']));
        }
        bytes.extend(value.bytes().chain([b'\n']));
    }
    bytes
}

#[test]
fn journal_export_gives_time_host_unit_and_command() {
    let workstation = Workstation::new();
    let directory = systemd_directory(&workstation);
    let file = format!("/var/lib/systemd/coredump/{}", name(4242, ".zst"));
    let fields = [
        ("COREDUMP_PID", "4242"),
        ("COREDUMP_UID", "1007"),
        ("COREDUMP_SIGNAL", "11"),
        ("COREDUMP_TIMESTAMP", MICROSECONDS),
        ("COREDUMP_EXE", "/opt/shop/bin/app"),
        ("COREDUMP_CMDLINE", "app --port 8080 \"two words\""),
        ("COREDUMP_UNIT", "shop.service"),
        ("COREDUMP_CGROUP", "/system.slice/shop.service"),
        ("COREDUMP_CWD", "/srv"),
        ("COREDUMP_PROC_STATUS", "Name:\tapp\nUmask:\t0022\n"),
        ("COREDUMP_ENVIRON", "PATH=/bin\nTOKEN=hunter2\n"),
        ("COREDUMP_FILENAME", &file),
    ];
    let mut bytes = journal_entry("a", &fields);
    bytes.push(b'\n');
    // One whose core the journal itself holds, and one whose core is gone.
    bytes.extend(journal_entry(
        "b",
        &[("COREDUMP_PID", "5"), ("COREDUMP_COMM", "app")],
    ));
    let mut core = fs::read(crash().core()).unwrap();
    *core.last_mut().unwrap() ^= 1;
    bytes.extend(b"COREDUMP\n");
    bytes.extend((core.len() as u64).to_le_bytes());
    bytes.extend(&core);
    bytes.extend(b"\n\n");
    let gone = [
        ("COREDUMP_PID", "6"),
        ("COREDUMP_SIGNAL", "6"),
        ("COREDUMP_EXE", "/bin/gone"),
        ("COREDUMP_FILENAME", "/etc/passwd"),
    ];
    bytes.extend(journal_entry("c", &gone));
    bytes.extend(b"\n");
    fs::write(directory.join("crashes.export"), &bytes).unwrap();
    let answer = workstation.run(&["import", "coredump/crashes.export"]);
    assert_eq!(
        (answer.code, answer.out.lines().count()),
        (0, 3),
        "{}",
        answer.err
    );
    let ids: Vec<&str> = answer.out.lines().collect();
    let manifest =
        |id: &str| workstation.json_of_any_status(&["info", id, "-o", "json"])["manifest"].clone();
    let first = manifest(ids[0]);
    assert_eq!(first["captured_at"], TIME);
    assert_eq!(
        (&first["node"], &first["hostname"]),
        (&"node-5".into(), &"db-7.example.org".into())
    );
    assert_eq!(
        first["workload"]["extra"]["unit"]
            .as_str()
            .or(first["workload"]["unit"].as_str()),
        Some("shop.service")
    );
    assert_eq!(
        first["process"]["arguments"],
        serde_json::json!(["app", "--port", "8080", "two words"])
    );
    assert_eq!(first["imported"]["fields"]["COREDUMP_CWD"], "/srv");
    let text = workstation.run(&["info", ids[0]]).out;
    assert!(
        text.contains(" on node-5\n") && text.contains("shop.service"),
        "{text}"
    );
    let second = manifest(ids[1]);
    assert_eq!(
        (&second["process"]["pid"], &second["verdict"]["state"]),
        (&5.into(), &"complete".into())
    );
    let third = manifest(ids[2]);
    assert_eq!(third["verdict"]["state"], "empty");
    assert_eq!(third["signal"]["name"], "SIGABRT");
    assert_eq!(third["process"]["exe"], "/bin/gone");
    // No value of the environment is stored anywhere.
    let store = Command::new("grep")
        .args(["-rqa", "hunter2"])
        .arg(workstation.path("store"))
        .status();
    assert_eq!(store.unwrap().code(), Some(1));
    // The directory has nothing new, and neither has the export.
    let again = workstation.run(&["import", "coredump"]);
    assert_eq!((again.code, again.out.as_str()), (0, ""), "{}", again.err);
    note(&again, "skipped 4 (already in the store)");
}
