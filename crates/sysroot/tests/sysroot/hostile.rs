//! Hostile images and registries: a clear error, and nothing outside of the cache.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use cdh_sysroot::{Lookup, PullError};
use cdh_testkit::{
    Blob, HttpAnswer, HttpServer, Packing, TestImages, TestLayer, answer_from, gzip, zstd,
};

use super::{Workstation, drafts, elf, module, noise, plain, registry, serve};

/// Every file below, with its length and time of change.
fn snapshot(directory: &Path) -> BTreeMap<PathBuf, (u64, std::time::SystemTime)> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let metadata = entry.metadata().unwrap();
        if metadata.is_dir() {
            found.extend(snapshot(&entry.path()));
        }
        found.insert(entry.path(), (metadata.len(), metadata.modified().unwrap()));
    }
    found
}

/// Pulls a file that does not exist, so that every layer is read to its end; returns the error, and what
/// was written.
fn problem_of(layer: Blob) -> String {
    let workstation = Workstation::new();
    let outside = workstation.path("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("victim"), "precious").unwrap();
    let before = snapshot(&outside);
    let mut images = TestImages::default();
    let digest = images.image("amd64", &[layer]);
    let server = serve(&images);
    let name = format!("{}/app@{digest}", server.address);
    let wanted = [module("/app/api", 1), plain("/etc/passwd")];
    let pulled = workstation.pull(Some(&registry()), &name, &wanted).unwrap();
    assert_eq!(snapshot(&outside), before);
    let names: Vec<_> = fs::read_dir(workstation.dir.path())
        .unwrap()
        .flatten()
        .map(|entry| entry.file_name())
        .collect();
    assert_eq!(names.len(), 2, "{names:?}");
    assert!(drafts(&workstation.path("cache")).is_empty());
    let size: u64 = snapshot(&workstation.path("cache"))
        .values()
        .map(|(length, _)| length)
        .sum();
    assert!(size < 1 << 20, "{size} bytes in the cache");
    pulled
        .problem
        .map(|error| format!("{error} / {}", error.hint()))
        .unwrap_or_default()
}

#[test]
fn paths_that_lead_out_of_the_root_are_refused_by_name() {
    let up = TestLayer::new()
        .file("../../outside/victim", b"owned")
        .pack(Packing::Gzip);
    assert!(problem_of(up).contains("leads out of the root"));
    let hard = TestLayer::new()
        .hard_link("etc/passwd", "../../outside/victim")
        .pack(Packing::Gzip);
    assert!(problem_of(hard).contains("leads out of the root"));
}

#[test]
fn links_to_this_machine_and_devices_are_no_files() {
    for layer in [
        TestLayer::new().symlink("etc/passwd", "/etc/hostname"),
        TestLayer::new().symlink("etc", "/../../../../etc"),
        TestLayer::new().device("etc/passwd"),
        TestLayer::new().hard_link("etc/passwd", "etc/passwd"),
        TestLayer::new().hard_link("etc/passwd", "/etc/shadow"),
        TestLayer::new()
            .symlink("a", "b")
            .symlink("b", "a")
            .symlink("etc", "a"),
    ] {
        assert_eq!(problem_of(layer.pack(Packing::Gzip)), "");
    }
}

#[test]
fn bombs_end_early_and_small() {
    // Four gigabytes of zeros in a few kilobytes: a member of 64 MiB, repeated.
    let piece = vec![0; 64 << 20];
    let head = TestLayer::new()
        .file("app/api", &elf(2, 100))
        .pack(Packing::Plain)
        .bytes;
    for (pack, end) in [(gzip as fn(&[u8]) -> Vec<u8>, "+gzip"), (zstd, "+zstd")] {
        let mut bytes = pack(&bomb_header(&head));
        let member = pack(&piece);
        (0..64).for_each(|_| bytes.extend(&member));
        let blob = Blob {
            bytes,
            media_type: format!("application/vnd.oci.image.layer.v1.tar{end}"),
            annotations: BTreeMap::new(),
        };
        let problem = problem_of(blob);
        assert!(problem.contains("expands to more than"), "{end}: {problem}");
    }
}

/// The header of a file of 4 GiB, and nothing of it.
fn bomb_header(tar: &[u8]) -> Vec<u8> {
    let mut header = tar[..512].to_vec();
    header[..100].fill(0);
    header[..8].copy_from_slice(b"var/bomb");
    header[124..136].copy_from_slice(b"37777777777\0");
    header[148..156].fill(b' ');
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    header
}

#[test]
fn broken_archives_are_named() {
    for bytes in [
        b"this is not a tar at all, but it is long enough to be looked at".repeat(20),
        gzip(b"nor is this").to_vec(),
        [gzip(&noise(10_000, 1)), noise(100, 2)].concat(),
        zstd(&noise(600, 3)),
        // A window of 2 GiB.
        [0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xa8, 0, 0, 0].to_vec(),
    ] {
        let media_type = "application/vnd.oci.image.layer.v1.tar".to_owned();
        let blob = Blob {
            bytes,
            media_type,
            annotations: BTreeMap::new(),
        };
        assert!(problem_of(blob).contains("is refused"));
    }
}

fn with_fault(
    fault: impl Fn(HttpAnswer) -> HttpAnswer + Send + Sync + 'static,
) -> (Option<PullError>, Lookup, Workstation) {
    let mut images = TestImages::default();
    let layer = TestLayer::new()
        .file("app/api", &elf(1, 200_000))
        .file("var/data", &noise(1 << 20, 3));
    let digest = images.image("amd64", &[layer.pack(Packing::Gzip)]);
    let server = HttpServer::start(move |request| {
        let answer = answer_from(&images, request);
        match request.path.contains("/blobs/") {
            true => fault(answer),
            false => answer,
        }
    });
    let server = server.unwrap();
    let workstation = Workstation::new();
    let name = format!("{}/app@{digest}", server.address);
    let mut pulled = workstation
        .pull(Some(&registry()), &name, &[module("/app/api", 1)])
        .unwrap();
    (pulled.problem, pulled.answers.remove(0), workstation)
}

#[test]
fn blob_with_another_digest_is_refused_and_what_it_gave_is_taken_back() {
    let other = {
        // A valid archive, but not the one in the manifest.
        let layer = TestLayer::new()
            .file("app/api", &elf(1, 200_000))
            .file("var/data", &noise(1 << 20, 4));
        layer.pack(Packing::Gzip).bytes
    };
    let same_length = move |mut answer: HttpAnswer| {
        let length = answer.body.len();
        let mut body = other.clone();
        body.resize(length, 0);
        answer.body = body;
        answer
    };
    let damaged = |mut answer: HttpAnswer| {
        let middle = answer.body.len() * 3 / 4;
        answer.body[middle] ^= 1;
        answer
    };
    for (problem, answer, workstation) in [with_fault(same_length), with_fault(damaged)] {
        let problem = problem.unwrap();
        assert!(
            matches!(problem, PullError::Digest { .. }) && problem.is_mismatch(),
            "{problem}"
        );
        assert!(matches!(answer, Lookup::Absent(_)), "{answer:?}");
        let left = snapshot(&workstation.path("cache/layers"));
        assert!(
            !left
                .keys()
                .any(|path| path.to_string_lossy().contains("file-")),
            "{left:?}"
        );
    }
}

#[test]
fn truncated_and_endless_blobs_are_refused() {
    let (problem, answer, _) = with_fault(|mut answer| {
        let end = if answer.status == 206 { 0 } else { 100_000 };
        answer.body.truncate(end);
        answer
    });
    let problem = problem.unwrap();
    assert!(matches!(problem, PullError::Truncated { .. }), "{problem}");
    assert!(matches!(answer, Lookup::Absent(_)));
    let (problem, answer, _) = with_fault(|mut answer| {
        // Longer than the manifest says: the excess is not read.
        answer.body.extend(noise(1 << 20, 5));
        answer
    });
    assert!(problem.is_none(), "{problem:?}");
    assert!(matches!(answer, Lookup::Found(_)));
}

#[test]
fn manifest_with_another_digest_or_without_end_is_refused() {
    let mut images = TestImages::default();
    let digest = images.image("amd64", &[]);
    for body in [b"{\"layers\":[]}".to_vec(), vec![b' '; 5 << 20]] {
        let server = HttpServer::start(move |_| HttpAnswer::ok(&body)).unwrap();
        let error = Workstation::new().pull(
            Some(&registry()),
            &format!("{}/app@{digest}", server.address),
            &[],
        );
        let error = error.err().unwrap();
        assert!(
            matches!(
                error,
                PullError::Digest { .. } | PullError::Malformed { .. }
            ),
            "{error}"
        );
    }
}

#[test]
fn redirects_and_token_servers_without_end_are_left() {
    let digest = cdh_testkit::digest_of(b"x");
    let around = HttpServer::start(|request| {
        HttpAnswer::status(302).with("location", &format!("{}x", request.path))
    });
    let around = around.unwrap();
    let error = Workstation::new().pull(
        Some(&registry()),
        &format!("{}/app@{digest}", around.address),
        &[],
    );
    let error = error.err().unwrap();
    assert!(error.to_string().contains("without an end"), "{error}");
    assert!(around.requests().len() < 20);

    let token = HttpServer::start(|request| match request.path.starts_with("/token") {
        true => HttpAnswer::status(302).with("location", &format!("{}x", request.path)),
        false => {
            let host = &request.headers["host"];
            let challenge = format!("Bearer realm=\"http://{host}/token\",service=\"s\"");
            HttpAnswer::status(401).with("www-authenticate", &challenge)
        }
    });
    let token = token.unwrap();
    let error = Workstation::new().pull(
        Some(&registry()),
        &format!("{}/app@{digest}", token.address),
        &[],
    );
    let error = error.err().unwrap();
    assert!(
        error.to_string().contains("on the way to a token"),
        "{error}"
    );
    assert!(token.requests().len() < 20, "{}", token.requests().len());
}
