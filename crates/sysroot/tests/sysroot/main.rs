//! Pulls from registries: a real one on loopback, and some of our own that misbehave.

// A failed test or task may panic; nothing of this ships.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used
)]

mod hostile;
mod network;
mod tables;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use cdh_elfcore::{BuildId, Machine};
use cdh_sysroot::{
    Cache, FileRole, ImageReference, Lookup, Need, PullError, PullOptions, Pulled, Registry,
    RegistryOptions, Sysroot, Wanted,
};
use cdh_testkit::{
    DockerRegistry, HttpServer, Packing, RegistryAccess, TestImages, TestLayer, answer_from,
};

/// An ELF file with a build-id of twenty times `id`, filled up to `size` with bytes that do not compress.
fn elf(id: u8, size: usize) -> Vec<u8> {
    let mut bytes = vec![0; 64];
    bytes[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
    bytes[16] = 3;
    bytes[18] = 62;
    bytes[20] = 1;
    bytes[32] = 64;
    bytes[52] = 64;
    bytes[54] = 56;
    bytes[56] = 2;
    let mut segment = |kind: u32, offset: u64, length: u64| {
        bytes.extend(kind.to_le_bytes());
        bytes.extend(5_u32.to_le_bytes());
        for word in [offset, offset, offset, length, length, 4] {
            bytes.extend(word.to_le_bytes());
        }
    };
    segment(1, 0, size as u64);
    segment(4, 176, 36);
    bytes.extend(4_u32.to_le_bytes());
    bytes.extend(20_u32.to_le_bytes());
    bytes.extend(3_u32.to_le_bytes());
    bytes.extend(b"GNU\0");
    bytes.extend([id; 20]);
    bytes.extend(noise(size.saturating_sub(bytes.len()), u64::from(id)));
    bytes
}

fn noise(size: usize, seed: u64) -> Vec<u8> {
    let mut state = 88_172_645_463_325_252 ^ (seed << 32);
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    let mut bytes: Vec<u8> = std::iter::repeat_with(next)
        .take(size / 8 + 1)
        .flatten()
        .collect();
    bytes.truncate(size);
    bytes
}

fn build_id(id: u8) -> BuildId {
    BuildId::from_bytes(&[id; 20]).unwrap()
}

fn module(path: &str, id: u8) -> Wanted {
    Wanted {
        paths: vec![path.as_bytes().to_vec()],
        build_id: Some(build_id(id)),
        part: FileRole::File,
        need: Need::Required,
        debug: None,
    }
}

/// A file without a build-id in the core.
fn plain(path: &str) -> Wanted {
    Wanted {
        build_id: None,
        ..module(path, 0)
    }
}

struct Workstation {
    dir: tempfile::TempDir,
}

impl Workstation {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn cache(&self) -> Cache {
        Cache::in_directory(&self.path("cache"))
    }

    /// Pulls through `registry`; `None` is offline.
    fn pull(
        &self,
        registry: Option<&Registry>,
        image: &str,
        wanted: &[Wanted],
    ) -> Result<Pulled, PullError> {
        let cache = self.cache();
        let options = PullOptions {
            cache: &cache,
            registry,
            progress: &(),
        };
        let image = ImageReference::parse(image)?;
        Ok(Sysroot::open(options, &image, Machine::X86_64)?.pull(wanted))
    }
}

fn registry() -> Registry {
    Registry::open(&RegistryOptions::default()).unwrap()
}

fn serve(images: &TestImages) -> HttpServer {
    let images = images.clone();
    HttpServer::start(move |request| answer_from(&images, request)).unwrap()
}

fn bytes_of(answer: &Lookup) -> Vec<u8> {
    match answer {
        Lookup::Found(found) => fs::read(&found.file).unwrap(),
        other => panic!("{other:?}"),
    }
}

/// Several layers with the file operations of builders; the executable is at the top.
fn layered(images: &mut TestImages, architecture: &str, mark: u8) -> String {
    let base = TestLayer::new()
        .directory("usr/lib/")
        .symlink("lib", "usr/lib")
        .file("usr/lib/libc.so.6", &elf(mark + 1, 9000))
        .file("usr/lib/real.so.1", &elf(mark + 2, 9000))
        .hard_link("usr/lib/hard.so", "usr/lib/real.so.1")
        .symlink("usr/lib/link.so", "../lib/hard.so")
        .file("opt/old/inside", b"hidden by an opaque directory")
        .file("etc/gone", b"hidden by a whiteout")
        .file("etc/config", b"old");
    let middle = TestLayer::new()
        .file("./opt/old/.wh..wh..opq", b"")
        .file("opt/old/new", b"kept")
        .file("etc/.wh.gone", b"")
        .file("etc/config", b"new");
    let long = format!("srv/{}/{}", "d".repeat(90), "f".repeat(120));
    let top = TestLayer::new()
        .file("/app/api", &elf(mark, 300_000))
        .file(&long, b"long name")
        .device("dev/null");
    images.image(
        architecture,
        &[
            base.pack(Packing::Gzip),
            middle.pack(Packing::Zstd),
            top.pack(Packing::Plain),
        ],
    )
}

fn everything(mark: u8) -> Vec<Wanted> {
    let long = format!("/srv/{}/{}", "d".repeat(90), "f".repeat(120));
    vec![
        module("/app/api", mark),
        module("/usr/lib/libc.so.6", mark + 1),
        module("/lib/link.so", mark + 2),
        plain("/etc/config"),
        plain("/opt/old/new"),
        plain(&long),
        plain("/lib/../lib/./hard.so"),
        plain("/etc/gone"),
        plain("/opt/old/inside"),
        plain("/dev/null"),
        module("/nowhere/lib.so", 99),
    ]
}

fn check_everything(pulled: &Pulled, mark: u8) {
    let answers = &pulled.answers;
    assert!(pulled.problem.is_none(), "{:?}", pulled.problem);
    assert_eq!(bytes_of(&answers[0]), elf(mark, 300_000));
    assert_eq!(bytes_of(&answers[1]), elf(mark + 1, 9000));
    assert_eq!(bytes_of(&answers[2]), elf(mark + 2, 9000));
    assert_eq!(bytes_of(&answers[3]), b"new");
    assert_eq!(bytes_of(&answers[4]), b"kept");
    assert_eq!(bytes_of(&answers[5]), b"long name");
    assert_eq!(bytes_of(&answers[6]), elf(mark + 2, 9000));
    for absent in &answers[7..] {
        assert!(matches!(absent, Lookup::Absent(_)), "{absent:?}");
    }
    let Lookup::Absent(why) = &answers[9] else {
        panic!()
    };
    assert!(why.contains("device"), "{why}");
}

#[test]
fn files_come_from_a_real_registry_with_a_password_and_the_second_time_from_the_cache() {
    let workstation = Workstation::new();
    let place = workstation.path("registry");
    let Some(server) = DockerRegistry::start(&place, RegistryAccess::TlsPassword).unwrap() else {
        cdh_testkit::skip(
            "docker-registry or htpasswd is not installed (apt install docker-registry apache2-utils)",
        );
        return;
    };
    let mut images = TestImages::default();
    let ours = layered(&mut images, "amd64", 1);
    let theirs = layered(&mut images, "arm64", 50);
    let index = images.index(&[("arm64", &theirs), ("amd64", &ours)]);
    DockerRegistry::put(&place, "team/app", &images).unwrap();
    let image = format!("{}/team/app@{index}", server.address);

    let mut options = RegistryOptions {
        ca: Some(place.join("ca.pem")),
        ..RegistryOptions::default()
    };
    let nobody = Registry::open(&options).unwrap();
    let refused = workstation
        .pull(Some(&nobody), &image, &everything(1))
        .unwrap_err();
    assert!(matches!(refused, PullError::Denied { .. }), "{refused}");
    assert!(refused.hint().contains("--auth-file"), "{}", refused.hint());
    let auth = workstation.path("auth.json");
    for (user, allowed) in [("user:wrong", false), ("user:s3cret", true)] {
        let auths = format!(
            r#"{{"auths":{{"{}":{{"auth":"{}"}}}}}}"#,
            server.address,
            base64(user)
        );
        fs::write(&auth, auths).unwrap();
        options.auth_file = Some(auth.clone());
        let known = Registry::open(&options).unwrap();
        let pulled = workstation.pull(Some(&known), &image, &everything(1));
        assert_eq!(pulled.is_ok(), allowed, "{user}");
        if let Ok(pulled) = pulled {
            check_everything(&pulled, 1);
        }
    }
    // Without the CA, its certificate is not trusted; on loopback, an unchecked one is accepted.
    drop(server);
    check_everything(&workstation.pull(None, &image, &everything(1)).unwrap(), 1);
    let again = registry();
    check_everything(
        &workstation
            .pull(Some(&again), &image, &everything(1))
            .unwrap(),
        1,
    );
    assert_eq!(again.received(), 0);
    let missing = workstation
        .pull(None, &image, &[module("/app/other", 77)])
        .unwrap();
    assert!(matches!(missing.answers[0], Lookup::Absent(_)));
}

fn base64(text: &str) -> String {
    let output = Command::new("sh")
        .args(["-c", "printf %s \"$0\" | base64", text])
        .output()
        .unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[test]
fn platform_of_the_core_is_chosen_and_others_are_named() {
    let mut images = TestImages::default();
    let theirs = layered(&mut images, "arm64", 50);
    let index = images.index(&[("arm64", &theirs)]);
    let server = serve(&images);
    let image = format!("{}/app@{index}", server.address);
    let error = Workstation::new()
        .pull(Some(&registry()), &image, &[])
        .unwrap_err();
    assert!(
        error.to_string().contains("amd64") && error.to_string().contains("linux/arm64"),
        "{error}"
    );
}

#[test]
fn file_of_another_build_at_the_right_path_is_a_mismatch_with_both_build_ids() {
    for packing in [Packing::Gzip, Packing::Stargz, Packing::Chunked] {
        let mut images = TestImages::default();
        let top = TestLayer::new()
            .file("app/api", &elf(8, 5000))
            .pack(packing);
        let digest = images.image("amd64", &[top]);
        let server = serve(&images);
        let workstation = Workstation::new();
        let image = format!("{}/app@{digest}", server.address);
        let expected = Lookup::Mismatch {
            expected: build_id(7),
            found: Some(build_id(8)),
        };
        let first = registry();
        let pulled = workstation
            .pull(Some(&first), &image, &[module("/app/api", 7)])
            .unwrap();
        assert_eq!(
            pulled.answers[0], expected,
            "{packing:?} {:?}",
            pulled.problem
        );
        let offline = workstation
            .pull(None, &image, &[module("/app/api", 7)])
            .unwrap();
        assert_eq!(offline.answers[0], expected, "{packing:?}");
    }
}

#[test]
fn layers_are_left_as_soon_as_the_build_ids_have_answered() {
    let mut images = TestImages::default();
    let filler = |seed| {
        TestLayer::new()
            .file("var/data", &noise(24 << 20, seed))
            .pack(Packing::Gzip)
    };
    let top = TestLayer::new()
        .file("app/api", &elf(1, 200_000))
        .file("var/big", &noise(24 << 20, 9));
    let layers = [filler(1), filler(2), filler(3), top.pack(Packing::Gzip)];
    let digest = images.image("amd64", &layers);
    let server = serve(&images);
    let workstation = Workstation::new();
    let image = format!("{}/app@{digest}", server.address);
    let known = registry();
    let pulled = workstation
        .pull(Some(&known), &image, &[module("/app/api", 1)])
        .unwrap();
    assert_eq!(bytes_of(&pulled.answers[0]), elf(1, 200_000));
    assert!(known.received() < 4 << 20, "{} bytes", known.received());
}

#[test]
fn debug_file_that_the_binary_names_is_found_in_a_layer_below() {
    let workstation = Workstation::new();
    let source = workstation.path("app.c");
    fs::write(&source, "int main(void) { return 0; }\n").unwrap();
    let at = |name: &str| workstation.path(name).display().to_string();
    let run = |program: &str, words: &[&str]| {
        let status = Command::new(program).args(words).status().unwrap();
        assert!(status.success(), "{program}");
    };
    run(
        "cc",
        &["-g", "-Wl,--build-id", "-o", &at("app"), &at("app.c")],
    );
    run(
        "objcopy",
        &["--only-keep-debug", &at("app"), &at("app.debug")],
    );
    run(
        "objcopy",
        &[
            "--strip-all",
            "--add-gnu-debuglink",
            &at("app.debug"),
            &at("app"),
            &at("stripped"),
        ],
    );
    let (binary, debug) = (
        fs::read(workstation.path("stripped")).unwrap(),
        fs::read(workstation.path("app.debug")).unwrap(),
    );
    let id = cdh_sysroot::build_id_of(&binary).unwrap();
    let mut images = TestImages::default();
    let below = TestLayer::new()
        .file("usr/lib/debug/app/app.debug", &debug)
        .pack(Packing::Gzip);
    let between = TestLayer::new()
        .file("data", &noise(1 << 20, 1))
        .pack(Packing::Gzip);
    let top = TestLayer::new()
        .file("app/app", &binary)
        .pack(Packing::Gzip);
    let digest = images.image("amd64", &[below, between, top]);
    let server = serve(&images);
    let image = format!("{}/app@{digest}", server.address);
    let wanted = Wanted {
        build_id: Some(id.clone()),
        debug: Some(Need::Required),
        ..plain("/app/app")
    };
    let (cache, known) = (workstation.cache(), registry());
    let options = PullOptions {
        cache: &cache,
        registry: Some(&known),
        progress: &(),
    };
    let reference = ImageReference::parse(&image).unwrap();
    let sysroot = Sysroot::open(options, &reference, Machine::X86_64).unwrap();
    let pulled = sysroot.pull(&[wanted]);
    assert_eq!(bytes_of(&pulled.answers[0]), binary);
    assert_eq!(
        fs::read(sysroot.file(FileRole::Debug, &id).unwrap()).unwrap(),
        debug
    );
    assert_eq!(
        fs::read(sysroot.file(FileRole::File, &id).unwrap()).unwrap(),
        binary
    );
}

#[test]
fn concurrent_runs_pull_once() {
    let mut images = TestImages::default();
    let digest = layered(&mut images, "amd64", 1);
    let server = serve(&images);
    let workstation = Workstation::new();
    let image = format!("{}/app@{digest}", server.address);
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                check_everything(
                    &workstation
                        .pull(Some(&registry()), &image, &everything(1))
                        .unwrap(),
                    1,
                )
            });
        }
    });
    let blobs = |digest: &str| {
        let asked = server.requests();
        asked
            .iter()
            .filter(|request| request.path.contains(digest))
            .count()
    };
    for digest in images.blobs.keys() {
        assert!(
            blobs(digest) <= 2,
            "{digest} was asked for {} times",
            blobs(digest)
        );
    }
    assert!(drafts(&workstation.path("cache")).is_empty());
}

/// Temporary files that were not removed.
fn drafts(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            found.extend(drafts(&entry.path()));
        } else if entry.file_name().to_string_lossy().starts_with('.') {
            found.push(entry.path());
        }
    }
    found
}

/// More files in each layer than an index holds in memory.
#[test]
fn layers_with_very_many_files_answer_as_any_others() {
    let many = |first: &str| {
        (0..40_000).fold(TestLayer::new(), |layer, number| {
            let name = format!("{first}/{number}/{}", "x".repeat(240 - first.len()));
            layer.file(&name, b"")
        })
    };
    for packing in [Packing::Zstd, Packing::Chunked] {
        let mut images = TestImages::default();
        let base = TestLayer::new()
            .directory("usr/lib/")
            .symlink("lib", "usr/lib")
            .file("usr/lib/libc.so.6", &elf(2, 9000))
            .hard_link("usr/lib/hard.so", "usr/lib/libc.so.6")
            .file("etc/gone", b"hidden by a whiteout");
        let top = TestLayer::new()
            .file("etc/.wh.gone", b"")
            .file("app/other", &elf(8, 9000))
            .file("app/config", b"text");
        let layers = [
            many("usr/share/base").join(base).pack(packing),
            top.join(many("app/top")).pack(packing),
        ];
        let digest = images.image("amd64", &layers);
        let server = serve(&images);
        let image = format!("{}/app@{digest}", server.address);
        let workstation = Workstation::new();
        let wanted = [
            module("/lib/hard.so", 2),
            plain("/app/config"),
            plain("/lib/libc.so.6"),
            module("/app/other", 7),
            plain("/etc/gone"),
            plain("/usr/share/base/nothing"),
        ];
        let known = registry();
        for registry in [Some(&known), None] {
            let pulled = workstation.pull(registry, &image, &wanted).unwrap();
            assert!(pulled.problem.is_none(), "{packing:?} {:?}", pulled.problem);
            assert_eq!(bytes_of(&pulled.answers[0]), elf(2, 9000), "{packing:?}");
            assert_eq!(bytes_of(&pulled.answers[1]), b"text", "{packing:?}");
            assert_eq!(bytes_of(&pulled.answers[2]), elf(2, 9000), "{packing:?}");
            let mismatch = Lookup::Mismatch {
                expected: build_id(7),
                found: Some(build_id(8)),
            };
            assert_eq!(pulled.answers[3], mismatch, "{packing:?}");
            assert!(matches!(pulled.answers[4], Lookup::Absent(_)));
            assert!(matches!(pulled.answers[5], Lookup::Absent(_)));
        }
        // A file of a layer that was read is found without reading the layer from its start.
        let size: usize = layers.iter().map(|layer| layer.bytes.len()).sum();
        let again = registry();
        let absent = workstation
            .pull(Some(&again), &image, &[plain("/usr/lib/none.so")])
            .unwrap();
        assert!(matches!(absent.answers[0], Lookup::Absent(_)));
        assert_eq!(again.received(), 0, "{packing:?} of {size}");
    }
}
