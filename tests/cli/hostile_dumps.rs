//! Dumps, stores and directories that mean harm to a workstation: planted modules, registries of the
//! attacker's choice, keys that make `gc` delete others, names that gdb or a terminal would obey.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use cdh_testkit::{HttpServer, answer_from};

use super::images::Lost;
use super::{Workstation, crash, functions};

const NOBODY: u32 = 65_534;

/// Another program that claims the build-id of `lost`.
fn impostor(lost: &Lost) -> Vec<u8> {
    let (source, program) = (lost.beside("fake.c"), lost.beside("fake"));
    fs::write(
        &source,
        "int evil(void) { return 1; } int main(void) { return evil(); }",
    )
    .unwrap();
    let mut cc = Command::new("cc");
    cc.args(["-g", "-O0", "-o"]).arg(&program).arg(&source);
    cc.arg(format!("-Wl,--build-id=0x{}", lost.build_id()));
    assert!(cc.status().unwrap().success());
    let bytes = fs::read(&program).unwrap();
    fs::remove_file(program).unwrap();
    bytes
}

fn put(workstation: &Workstation, key: &str, bytes: &[u8]) {
    let path = workstation.path("store").join(key);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

#[test]
fn planted_module_with_the_right_build_id_is_used_from_no_source() {
    let lost = Lost::new();
    let fake = impostor(&lost);
    let key = format!("modules/{}", lost.build_id());
    let workstation = Workstation::new();
    let id = workstation.import(Path::new(&lost.core()));
    put(&workstation, &key, &fake);
    // From the store, from a directory, beside the core, from an image, from a debuginfod server.
    let inside = workstation
        .path("sysroot")
        .join(lost.path.trim_start_matches('/'));
    fs::create_dir_all(inside.parent().unwrap()).unwrap();
    fs::write(&inside, &fake).unwrap();
    fs::write(lost.beside("app"), &fake).unwrap();
    let (images, digest) = lost.image(&fake);
    let server = HttpServer::start(move |request| answer_from(&images, request)).unwrap();
    let image = format!("{}/shop/app@{digest}", server.address);
    let core = lost.core();
    for words in [
        vec!["bt", &id],
        vec!["bt", &id, "--sysroot", "sysroot"],
        vec!["bt", &core],
        vec!["bt", &id, "--image", &image],
    ] {
        let document = workstation.json_of_any_status(&[&words[..], &["-o", "json"]].concat());
        let names = functions(&document, 0);
        assert!(
            !names.iter().any(|name| name == "evil" || name == "main"),
            "{words:?} {names:?}"
        );
        let text = document.to_string();
        assert!(
            text.contains("are not those in the core"),
            "{words:?} {text}"
        );
        let printed = workstation.run(&[&["debug", "--print"][..], &words[1..]].concat());
        assert!(!printed.out.contains("--se="), "{words:?} {}", printed.out);
    }
    // The right file under the key of earlier agents is still used.
    fs::remove_file(lost.beside("app")).unwrap();
    put(&workstation, &key, lost.program());
    let workstation_of_another = Workstation::new();
    let command = workstation_of_another.command(&["bt", &id, "-o", "json"]);
    let mut command = command;
    command.env("CDH_STORE", workstation.path("store"));
    let answer = workstation_of_another.answer(command.output().unwrap());
    let document: serde_json::Value = serde_json::from_str(&answer.out).unwrap();
    assert_eq!(functions(&document, 0)[..3], ["checkout", "serve", "main"]);
}

#[test]
fn registry_that_only_a_dump_names_is_not_contacted() {
    let lost = Lost::new();
    let (images, digest) = lost.image(lost.program());
    let server = HttpServer::start(move |request| answer_from(&images, request)).unwrap();
    let address = server.address.to_string();
    let image = format!("{address}/shop/app@{digest}");
    let workstation = Workstation::new();
    let imported = workstation.run(&["import", &lost.core(), "--image", &image]);
    let id = imported.out.trim().to_owned();
    let asked = || server.requests().len();
    for words in [
        vec!["bt", &id],
        vec!["debug", "--print", &id],
        vec!["sysroot", &id],
    ] {
        let answer = workstation.run(&words);
        assert_eq!(asked(), 0, "{words:?}");
        for part in [
            "only the dump names",
            &format!("--image {image}"),
            "`registries = [\"",
        ] {
            assert!(
                answer.err.contains(part),
                "{words:?} {part}: {}",
                answer.err
            );
        }
    }
    // Credentials allow a registry, but never one on this machine.
    let auth = format!(r#"{{"auths":{{"{address}":{{"auth":"dXNlcjpzM2NyZXQ="}}}}}}"#);
    fs::create_dir_all(workstation.path(".docker")).unwrap();
    fs::write(workstation.path(".docker/config.json"), auth).unwrap();
    let answer = workstation.run(&["bt", &id]);
    assert_eq!(asked(), 0);
    assert!(
        answer.err.contains("a local or link-local address"),
        "{}",
        answer.err
    );
    // What the user configured is the user's own.
    workstation.allow_registry(&address);
    let document = workstation.json(&["bt", &id, "-o", "json"]);
    assert_eq!(functions(&document, 0)[..3], ["checkout", "serve", "main"]);
    assert!(asked() > 0);
}

#[test]
fn objects_that_are_no_dumps_make_gc_delete_nothing() {
    let workstation = Workstation::new();
    let id = workstation.import(&crash().core());
    let key = fs::read_dir(workstation.path("store/dumps"))
        .unwrap()
        .next();
    let day = key.unwrap().unwrap().path();
    let names = fs::read_dir(&day).unwrap().flatten();
    let name = names
        .map(|entry| entry.file_name().into_string().unwrap())
        .find(|name| name.ends_with(".zip"))
        .unwrap();
    let fingerprint = name.split('_').nth(5).unwrap();
    let fake = |at: &str, number: u32, size: usize| {
        let id = format!("00000000-0000-4000-8000-{number:012}");
        let stem = format!("dumps/{at}Z_-_-_victim_SIGSTOP_{fingerprint}_complete_{id}");
        put(&workstation, &format!("{stem}.zip"), &vec![b'x'; size]);
        put(&workstation, &format!("{stem}.manifest.json"), b"x");
    };
    let day = day.file_name().unwrap().to_str().unwrap().to_owned();
    fake("2227-01-01/000000", 1, 1);
    fake("2227-01-01/000001", 2, 1);
    for number in 3..30 {
        fake(&format!("{day}/2359{number:02}"), number, 1);
    }
    fake(&format!("{day}/235959"), 30, 64 << 20);
    for limits in [
        ["--keep-per-fingerprint", "2"],
        ["--keep-per-fingerprint", "1"],
        ["--max-total", "32M"],
    ] {
        let answer = workstation.run(&["gc", limits[0], limits[1], "--yes"]);
        assert_eq!(answer.code, 0, "{}", answer.err);
        assert!(!answer.out.contains(&id), "{limits:?} {}", answer.out);
        assert!(
            answer.err.contains("were not counted"),
            "{limits:?} {}",
            answer.err
        );
    }
    assert_eq!(workstation.run(&["info", &id]).code, 0);
}

#[test]
fn planted_case_of_another_user_is_not_taken_for_a_download() {
    let workstation = Workstation::new();
    let id = workstation.import(&crash().core());
    assert_eq!(workstation.run(&["fetch", &id, "-d", "case"]).code, 0);
    let (case, core) = (workstation.path("case"), workstation.path("case/core"));
    let again = || workstation.run(&["fetch", &id, "-d", "case"]);
    assert_eq!(again().code, 0);
    // Changed since it was downloaded.
    let bytes = fs::read(&core).unwrap();
    fs::write(&core, b"evil").unwrap();
    let changed = again();
    assert_eq!(
        (changed.code, changed.out.as_str()),
        (4, ""),
        "{}",
        changed.err
    );
    fs::write(&core, bytes).unwrap();
    fs::set_permissions(&case, fs::Permissions::from_mode(0o777)).unwrap();
    assert!(again().err.contains("other users can write to it"));
    fs::set_permissions(&case, fs::Permissions::from_mode(0o700)).unwrap();
    assert_eq!(again().code, 0);
    if chown(&core, Some(NOBODY), None).is_err() {
        eprintln!("SKIPPED: only root gives files away");
        return;
    }
    let planted = again();
    assert_eq!(planted.code, 2);
    assert!(
        planted.err.contains("belongs to another user"),
        "{}",
        planted.err
    );
}

/// A program that loads these libraries and crashes, and its core.
fn core_with_libraries(workstation: &Workstation, libraries: &[(&str, &str)]) -> PathBuf {
    let run = |command: &mut Command| {
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{said}");
    };
    let compile = |text: &str, out: &Path, flags: &[&str]| {
        let source = workstation.path("t.c");
        fs::write(&source, text).unwrap();
        run(Command::new("cc")
            .arg("-w")
            .args(flags)
            .arg("-o")
            .arg(out)
            .arg(source));
    };
    for (path, soname) in libraries {
        let path = workstation.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let soname = format!("-Wl,-soname,{soname}");
        let text = format!("int f{}(void) {{ return 1; }}", path.as_os_str().len());
        compile(
            &text,
            &path,
            &["-shared", "-fPIC", "-Wl,--build-id", &soname],
        );
    }
    let loads = "#include <dlfcn.h>\nint main(int c, char **v) { \
         for (int i = 1; i < c; i++) if (!dlopen(v[i], 2)) return 1; *(volatile int *)16 = 1; }";
    let (program, core) = (workstation.path("loads"), workstation.path("loads.core"));
    compile(loads, &program, &["-ldl", "-Wl,--build-id"]);
    let words = libraries.iter().map(|(path, _)| workstation.path(path));
    let mut gdb = Command::new("gdb");
    gdb.args(["-q", "-nx", "-batch", "-ex", "run", "-ex"]);
    gdb.arg(format!("generate-core-file {}", core.display()));
    run(gdb.arg("--args").arg(&program).args(words));
    assert!(core.is_file());
    core
}

#[test]
fn sonames_and_colons_lead_gdb_to_no_other_library() {
    let workstation = Workstation::new();
    let long = "x".repeat(300);
    let core = core_with_libraries(
        &workstation,
        &[
            ("so1/liba_evil.so", "libz_true.so"),
            ("so1/libz_true.so", "libz_true.so"),
            ("so2/libl.so", &long),
            ("so3:planted/libp.so", "libp.so"),
            ("so4/libfree.so", "libfree.so.1"),
        ],
    );
    let answer = workstation.run(&["debug", "--print", core.to_str().unwrap()]);
    assert_eq!(answer.code, 0, "{}", answer.err);
    assert!(
        answer.err.contains("the debugger does not see"),
        "{}",
        answer.err
    );
    let search = answer.out.split("solib-search-path ").nth(1).unwrap();
    let search = search.split('\'').next().unwrap();
    assert!(
        search.contains("/so1") && !search.contains("planted"),
        "{search}"
    );
    let root = answer.out.split("set sysroot ").nth(1).unwrap();
    let root = root
        .split('\'')
        .next()
        .unwrap()
        .replace("[WORKSTATION]", workstation.dir.path().to_str().unwrap());
    let inside = PathBuf::from(root).join(workstation.dir.path().strip_prefix("/").unwrap());
    let leads_to = |name: &str| fs::read_link(inside.join(name)).unwrap();
    assert_eq!(
        leads_to("so1/libz_true.so"),
        workstation.path("so1/libz_true.so")
    );
    assert_eq!(
        leads_to("so4/libfree.so.1"),
        workstation.path("so4/libfree.so")
    );
    assert_eq!(
        leads_to("so3:planted/libp.so"),
        workstation.path("so3:planted/libp.so")
    );
    // A library whose own file is missing is not replaced by one that takes its name.
    fs::remove_file(workstation.path("so1/libz_true.so")).unwrap();
    assert_eq!(
        workstation
            .run(&["debug", "--print", core.to_str().unwrap()])
            .code,
        0
    );
    assert!(fs::read_link(inside.join("so1/libz_true.so")).is_err());
}

#[test]
fn unpacked_cases_are_listed_cleared_and_expire() {
    let workstation = Workstation::new();
    let id = workstation.import(&crash().core());
    let case = workstation.path(".cache/cdh/cases").join(&id);
    let fetch = || assert_eq!(workstation.run(&["fetch", &id]).code, 0);
    fetch();
    let listing = workstation.json(&["cache", "ls", "-o", "json"]);
    let listed = listing
        .as_array()
        .unwrap()
        .iter()
        .find(|entry| entry["kind"] == "case");
    assert_eq!(listed.unwrap()["name"], id.as_str(), "{listing}");
    assert!(listed.unwrap()["bytes"].as_u64().unwrap() > 4096);
    assert_eq!(workstation.run(&["cache", "clear", "--cases"]).code, 0);
    assert!(!case.exists());
    fetch();
    assert_eq!(workstation.run(&["cache", "clear"]).code, 0);
    assert!(!case.exists());
    // Unused for 31 days: the next download deletes it.
    fetch();
    let old = SystemTime::now() - Duration::from_secs(31 * 86_400);
    let age = |case: &Path| {
        let manifest = fs::File::open(case.join("manifest.json")).unwrap();
        manifest.set_modified(old).unwrap();
    };
    age(&case);
    let other = workstation.import(&crash().core());
    assert_eq!(workstation.run(&["fetch", &other]).code, 0);
    assert!(!case.exists());
    let config = workstation.path(".config/cdh");
    fs::create_dir_all(&config).unwrap();
    fs::write(config.join("config.toml"), "[cache]\ncase_days = 0\n").unwrap();
    let case = workstation.path(".cache/cdh/cases").join(&other);
    age(&case);
    fetch();
    assert!(case.exists());
}
