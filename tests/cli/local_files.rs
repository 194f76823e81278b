//! Modules whose files are on this machine or in the store: no registry is contacted for them. And the
//! advice where they are nowhere. And what an image and an owner are called.

use std::fs;
use std::path::Path;
use std::process::Command;

use cdh_testkit::{HttpServer, answer_from};
use serde_json::{Value, json};

use super::Workstation;
use super::images::Lost;

/// A registry that has the image, and a dump that names it.
fn imported(workstation: &Workstation, lost: &Lost) -> HttpServer {
    let (images, digest) = lost.image(lost.program());
    let server = HttpServer::start(move |request| answer_from(&images, request)).unwrap();
    let image = format!("{}/shop/app:1.4.2@{digest}", server.address);
    let answer = workstation.run(&["import", &lost.core(), "--image", &image]);
    assert_eq!(answer.code, 0, "{}", answer.err);
    server
}

fn assert_named_without_registry(workstation: &Workstation, server: &HttpServer, file: &str) {
    let bt = workstation.run(&["bt", "latest"]);
    assert!(bt.out.contains("checkout ("), "{}{}", bt.out, bt.err);
    assert!(!bt.err.contains("warning"), "{}", bt.err);
    let sysroot = workstation.json(&["sysroot", "latest", "-o", "json"]);
    let modules = sysroot["modules"].as_array().unwrap();
    let app = modules
        .iter()
        .find(|module| module["path"].as_str().unwrap().ends_with("/app"));
    assert_eq!(app.unwrap()["source"], file);
    let requests = server.requests();
    assert!(requests.is_empty(), "{} requests", requests.len());
}

#[test]
fn registry_is_not_contacted_when_all_modules_are_on_this_machine() {
    let (workstation, lost) = (Workstation::new(), Lost::new());
    let server = imported(&workstation, &lost);
    fs::write(&lost.path, lost.program()).unwrap();
    assert_named_without_registry(&workstation, &server, "host");
    // Another build in its place is not used: then the registry is asked.
    fs::write(&lost.path, lost.other()).unwrap();
    workstation.allow_registry(&server.address.to_string());
    let bt = workstation.run(&["bt", "latest"]);
    assert!(bt.out.contains("checkout ("), "{}{}", bt.out, bt.err);
    assert!(!server.requests().is_empty());
}

#[test]
fn registry_is_not_contacted_when_the_store_has_the_missing_module() {
    let (workstation, lost) = (Workstation::new(), Lost::new());
    let server = imported(&workstation, &lost);
    let id = cdh_sysroot::build_id_of(lost.program())
        .unwrap()
        .to_string();
    let kept = workstation.path("store/modules");
    fs::create_dir_all(&kept).unwrap();
    fs::write(kept.join(id), lost.program()).unwrap();
    assert_named_without_registry(&workstation, &server, "store");
}

#[test]
fn unreachable_registry_is_not_mentioned_when_nothing_is_missing() {
    let (workstation, lost) = (Workstation::new(), Lost::new());
    drop(imported(&workstation, &lost));
    fs::write(&lost.path, lost.program()).unwrap();
    let bt = workstation.run(&["bt", "latest"]);
    assert!(bt.out.contains("checkout ("), "{}{}", bt.out, bt.err);
    assert!(!bt.err.contains("warning"), "{}", bt.err);
}

/// A dump as an agent makes it of a container of podman, whose image podman built itself.
fn of_podman(workstation: &Workstation, lost: &Lost) {
    assert_eq!(workstation.run(&["import", &lost.core()]).code, 0);
    assert_eq!(workstation.run(&["fetch", "latest", "-d", "case"]).code, 0);
    let path = workstation.path("case/manifest.json");
    let mut manifest: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    manifest["image"] = json!({
        "reference": format!("localhost/shop/app@sha256:{}", "ab".repeat(32)),
        "name": "localhost/shop/app:1",
    });
    manifest["workload"] = json!({
        "kind": "container", "runtime": "podman", "source": "engine", "container": "web",
    });
    fs::write(&path, manifest.to_string()).unwrap();
}

#[test]
fn missing_program_of_a_container_leads_to_image_mount_and_kept_modules() {
    let (workstation, lost) = (Workstation::new(), Lost::new());
    of_podman(&workstation, &lost);
    for words in [
        &["bt", "./case"][..],
        &["debug", "./case", "--print"],
        &["sysroot", "./case"],
    ] {
        let answer = workstation.run(words);
        for part in [
            "app` was not found: its frames have no names",
            "hint: where podman has the image, mount it: \
             `--sysroot \"$(podman image mount localhost/shop/app:1)\"`",
            "`--image <REF>`",
            "`keep_modules = true`",
        ] {
            assert!(
                answer.err.contains(part),
                "{words:?}: {part} in {}",
                answer.err
            );
        }
        // podman's own images are in no registry.
        assert!(!answer.err.contains("cannot use image"), "{}", answer.err);
    }
    let root = workstation.path("root");
    let place = root.join(lost.path.trim_start_matches('/'));
    fs::create_dir_all(place.parent().unwrap()).unwrap();
    fs::write(place, lost.program()).unwrap();
    let mounted = workstation.run(&["bt", "./case", "--sysroot", root.to_str().unwrap()]);
    assert!(
        mounted.out.contains("checkout ("),
        "{}{}",
        mounted.out,
        mounted.err
    );
    assert!(!mounted.err.contains("hint"), "{}", mounted.err);
}

#[test]
fn missing_program_of_a_bare_core_leads_to_its_image() {
    let (workstation, lost) = (Workstation::new(), Lost::new());
    let answer = workstation.run(&["bt", &lost.core()]);
    assert!(answer.err.contains("`--image <REF>`"), "{}", answer.err);
    assert!(
        answer.err.contains("podman image mount <IMAGE>"),
        "{}",
        answer.err
    );
    assert!(!answer.err.contains("keep_modules"), "{}", answer.err);
}

#[test]
fn imported_core_has_owner_and_release_and_is_found_by_each_name_of_its_image() {
    let (workstation, lost) = (Workstation::new(), Lost::new());
    let digest = format!("1f52bc{}", "0".repeat(58));
    let image = format!("registry.example:5000/shop/checkout:1.4.2@sha256:{digest}");
    let answer = workstation.run(&[
        "import",
        &lost.core(),
        "--pod",
        "checkout-7d4b9c6f5d-x2x9k",
        "--image",
        &image,
        "--label",
        "pod-template-hash=7d4b9c6f5d",
        "--label",
        "app.kubernetes.io/version=9.9",
        "--image-label",
        "org.opencontainers.image.revision=5f3c",
    ]);
    assert_eq!(answer.code, 0, "{}", answer.err);
    let info = workstation.run(&["info", "latest"]);
    for line in [
        "owner        Deployment checkout\n".to_owned(),
        format!("image        registry.example:5000/shop/checkout@sha256:{digest}\n"),
        "image name   registry.example:5000/shop/checkout:1.4.2\n".to_owned(),
        "release      1.4.2\n".to_owned(),
        "version      9.9\n".to_owned(),
        "revision     5f3c\n".to_owned(),
        "pod-template-hash=7d4b9c6f5d\n".to_owned(),
    ] {
        assert!(info.out.contains(&line), "{line} in {}", info.out);
    }
    for name in [
        "checkout",
        "checkout:1.4.2",
        "checkout@1f52bc",
        "checkout:9.9",
    ] {
        let listed = workstation.run(&["ls", "--image", name, "-o", "id"]);
        assert_eq!(listed.out.lines().count(), 1, "{name}");
    }
    assert_eq!(
        workstation.run(&["ls", "--image", "checkout:1.4.1"]).code,
        1
    );
    let bad = workstation.run(&["import", &lost.core(), "--label", "novalue"]);
    assert_eq!(bad.code, 2);
    assert!(bad.err.contains("KEY=VALUE"), "{}", bad.err);
    assert!(Path::new(&lost.core()).exists());
}

#[test]
fn program_is_found_by_build_id_in_any_directory_that_the_user_names() {
    let (workstation, lost) = (Workstation::new(), Lost::new());
    let id = cdh_sysroot::build_id_of(lost.program())
        .unwrap()
        .to_string();
    let by_id = format!("tree/.build-id/{}/{}", &id[..2], &id[2..]);
    for (root, file) in [
        ("flat", "flat/renamed"),
        ("shifted", "shifted/squashfs-root/usr/bin/app"),
        ("tree", &by_id),
    ] {
        let path = workstation.path(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, lost.program()).unwrap();
        // Another build of the same name is passed over.
        fs::create_dir_all(workstation.path(root).join("a")).unwrap();
        fs::write(workstation.path(root).join("a/app"), lost.other()).unwrap();
        let bt = workstation.run(&["bt", &lost.core(), "--sysroot", root]);
        assert!(
            bt.out.contains("checkout ("),
            "{root}: {}{}",
            bt.out,
            bt.err
        );
        assert!(!bt.out.contains("not used"), "{root}: {}", bt.out);
    }
    fs::create_dir(workstation.path("empty")).unwrap();
    let bt = workstation.run(&["bt", &lost.core(), "--sysroot", "empty"]);
    assert!(
        bt.err.contains("hint: ") && bt.err.contains("`--exe <FILE>`"),
        "{}",
        bt.err
    );
    assert!(!bt.err.contains("--sysroot"), "{}", bt.err);
}

#[test]
fn exe_and_map_name_files_for_every_command_that_reads_them() {
    let (workstation, lost) = (Workstation::new(), Lost::new());
    fs::create_dir_all(workstation.path("elsewhere")).unwrap();
    fs::write(workstation.path("elsewhere/app"), lost.program()).unwrap();
    fs::write(workstation.path("other"), lost.other()).unwrap();
    let directory = Path::new(&lost.path).parent().unwrap().display();
    let map = format!("{directory}=elsewhere");
    for given in [["--exe", "elsewhere/app"], ["--map", &map]] {
        let with = |words: &[&str]| workstation.run(&[words, &given[..]].concat());
        let bt = with(&["bt", &lost.core()]);
        assert!(bt.out.contains("checkout ("), "{}{}", bt.out, bt.err);
        let info = with(&["info", &lost.core()]);
        assert_eq!(info.code, 0, "{}", info.err);
        let debug = with(&["debug", &lost.core(), "--print"]);
        assert!(debug.out.contains("--se="), "{}{}", debug.out, debug.err);
        let sysroot = with(&["sysroot", &lost.core(), "--offline", "-o", "json"]);
        assert!(sysroot.out.contains("elsewhere/app"), "{}", sysroot.out);
    }
    let refused = workstation.run(&["bt", &lost.core(), "--exe", "other"]);
    assert!(
        refused.err.contains("`--exe other` is not used: mismatch"),
        "{}",
        refused.err
    );
    assert!(!refused.out.contains("checkout ("), "{}", refused.out);
    let absent = workstation.run(&["bt", &lost.core(), "--exe", "nowhere"]);
    assert!(
        absent.err.contains("`nowhere` is not a file"),
        "{}",
        absent.err
    );
    assert_eq!(absent.code, 2);
}

#[test]
fn fetch_links_the_files_that_the_user_names_into_the_case() {
    let (workstation, lost) = (Workstation::new(), Lost::new());
    assert_eq!(workstation.run(&["import", &lost.core()]).code, 0);
    fs::write(workstation.path("renamed"), lost.program()).unwrap();
    let fetched = workstation.run(&["fetch", "latest", "-d", "case", "--exe", "renamed"]);
    assert_eq!(fetched.code, 0, "{}", fetched.err);
    let bt = workstation.run(&["bt", "./case"]);
    assert!(bt.out.contains("checkout ("), "{}{}", bt.out, bt.err);
}

#[test]
fn program_that_the_loader_started_has_its_own_name_and_base() {
    let workstation = Workstation::new();
    let run = |program: &str, words: &[&str]| {
        let mut command = Command::new(program);
        let output = command
            .current_dir(workstation.path("."))
            .args(words)
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    };
    fs::write(
        workstation.path("p.c"),
        "int main(void) { return *(volatile int *)8; }",
    )
    .unwrap();
    run("cc", &["-g", "-Wl,--build-id", "-o", "prog", "p.c"]);
    let file = fs::read(workstation.path("prog")).unwrap();
    let object = cdh_elfcore::ElfObject::parse(&file).unwrap();
    let loader = String::from_utf8(object.interpreter().unwrap().to_vec()).unwrap();
    let core = ["-ex", "run", "-ex", "generate-core-file core"];
    run(
        "gdb",
        &[
            &["-q", "-nx", "-batch"],
            &core[..],
            &["--args", &loader, "./prog"],
        ]
        .concat(),
    );
    assert_eq!(workstation.run(&["import", "./core"]).code, 0);
    let listed = workstation.json(&["ls", "-o", "json"]);
    assert_eq!(listed[0]["exe"], "prog", "{listed}");
    let debug = workstation.run(&["debug", "./core", "--print"]);
    assert!(
        debug.out.contains("add-symbol-file"),
        "{}{}",
        debug.out,
        debug.err
    );
    let bt = ["debug", "./core", "--", "-batch", "-ex", "bt"];
    let debugged = workstation.run(&bt);
    assert!(
        debugged.out.contains("main () at "),
        "{}{}",
        debugged.out,
        debugged.err
    );
}
