//! Images and registries that mean harm, against the whole program: how much memory and disk each takes.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use cdh_testkit::{
    Blob, HttpAnswer, HttpRequest, HttpServer, Packing, TestImages, TestLayer, answer_from,
    digest_of, gzip, zstd as pack_zstd,
};

use super::Workstation;
use super::images::{Lost, architecture};

/// Most that an image may add to the peak memory of the same command with a small, correct image, MiB: 32 MiB of
/// zstd windows (`window`) and 16 MiB of indexes (`gather`).
const MEMORY: u64 = 48;
/// What each may leave on disk, in all: the indexes and tables of its layers.
const DISK: u64 = 8 << 20;
/// Where a hostile peer sends more than is wanted.
const MUCH: usize = 160 << 20;

/// A layer whose names begin with this byte.
type LayerNamed = fn(u8) -> Blob;
type Handler = Box<dyn Fn(&HttpRequest) -> HttpAnswer + Send + Sync>;

fn tar_blob(bytes: Vec<u8>, end: &str) -> Blob {
    Blob {
        bytes,
        media_type: format!("application/vnd.oci.image.layer.v1.tar{end}"),
        annotations: std::collections::BTreeMap::new(),
    }
}

/// Gigabytes of zeros that claim to be one file, in a few hundred kilobytes.
fn bomb(pack: fn(&[u8]) -> Vec<u8>) -> Vec<u8> {
    let tar = TestLayer::new()
        .file("var/bomb", b"")
        .pack(Packing::Plain)
        .bytes;
    let mut header = tar[..512].to_vec();
    header[124..136].copy_from_slice(b"37777777777\0");
    header[148..156].fill(b' ');
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let mut bytes = pack(&header);
    let member = pack(&vec![0; 16 << 20]);
    (0..256).for_each(|_| bytes.extend(&member));
    bytes
}

/// So many empty files whose names are as long as a tar's header takes them, and as alike as packing is
/// quick; they begin with `first`.
fn many_names(first: u8, count: u32) -> Blob {
    let prefix = [&[first], b"ame".as_slice(), &[b'x'; 147]].concat();
    let tar = TestLayer::new()
        .file(&"0".repeat(90), b"")
        .pack(Packing::Plain)
        .bytes;
    let mut header = tar[..512].to_vec();
    header[345..345 + prefix.len()].copy_from_slice(&prefix);
    header[148..156].fill(b' ');
    let bare: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    let mut packed = zstd::Encoder::new(Vec::new(), 1).unwrap();
    for number in 0..count {
        let digits = format!("{number:08}");
        let more: u32 = digits.bytes().map(|digit| u32::from(digit - b'0')).sum();
        header[..8].copy_from_slice(digits.as_bytes());
        header[148..156].copy_from_slice(format!("{:06o}\0 ", bare + more).as_bytes());
        packed.write_all(&header).unwrap();
    }
    tar_blob(packed.finish().unwrap(), "+zstd")
}

/// A file of zeros, packed so that the reader has to remember the last `1 << log` bytes of it.
fn with_window(name: &str, log: u32) -> Blob {
    let file = TestLayer::new().file(name, &vec![0; 48 << 20]);
    let mut packed = zstd::Encoder::new(Vec::new(), 1).unwrap();
    packed.window_log(log).unwrap();
    packed.write_all(&file.pack(Packing::Plain).bytes).unwrap();
    tar_blob(packed.finish().unwrap(), "+zstd")
}

/// A table of contents of nothing but empty entries, in a layer that holds nothing else.
fn endless_table() -> Blob {
    let json = format!("{{\"entries\":[{}{{}}]}}", "{},".repeat(15 << 20));
    let packed = pack_zstd(json.as_bytes());
    let mut bytes = vec![0x50, 0x2a, 0x4d, 0x18];
    bytes.extend(u32::try_from(packed.len()).unwrap().to_le_bytes());
    let position = format!("{}:{}:{}:1", bytes.len(), packed.len(), json.len());
    bytes.extend(&packed);
    let name = |end: &str| format!("io.github.containers.zstd-chunked.{end}");
    let mut blob = tar_blob(bytes, "+zstd");
    blob.annotations = [
        (name("manifest-checksum"), digest_of(&packed)),
        (name("manifest-position"), position),
    ]
    .into();
    blob
}

fn layers(lost: &Lost) -> Vec<(&'static str, Blob)> {
    let gzipped = |layer: TestLayer| layer.pack(Packing::Gzip);
    let good = TestLayer::new().file(&lost.path, &lost.program);
    let tar_of_good = good.pack(Packing::Plain).bytes;
    vec![
        (
            "a path out of the root",
            gzipped(TestLayer::new().file("../../etc/x", b"owned")),
        ),
        (
            "a hard link out of the root",
            gzipped(TestLayer::new().hard_link(&lost.path, "../../etc/passwd")),
        ),
        (
            "a link to this machine",
            gzipped(TestLayer::new().symlink(&lost.path, "/etc/hostname")),
        ),
        (
            "links in a circle",
            gzipped(
                TestLayer::new()
                    .symlink("a", "b")
                    .symlink("b", "a")
                    .symlink("tmp", "a"),
            ),
        ),
        ("a device", gzipped(TestLayer::new().device(&lost.path))),
        ("a bomb, gzip", tar_blob(bomb(gzip), "+gzip")),
        ("a bomb, zstd", tar_blob(bomb(pack_zstd), "+zstd")),
        (
            "a window of 2 GiB",
            tar_blob(
                [0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xa8, 0, 0, 0].to_vec(),
                "+zstd",
            ),
        ),
        (
            "no archive",
            tar_blob(b"this is not a tar at all".repeat(100), ""),
        ),
        ("400,000 long names", many_names(b'n', 400_000)),
        ("a table of contents of nothing", endless_table()),
        (
            "an archive cut in half",
            tar_blob(gzip(&tar_of_good[..tar_of_good.len() / 2]), "+gzip"),
        ),
    ]
}

/// Peers that answer something else than the image, by what they do.
fn peers(images: &TestImages) -> Vec<(&'static str, Handler)> {
    let much = Arc::new(vec![b' '; MUCH]);
    let blobs = |change: fn(HttpAnswer, &[u8]) -> HttpAnswer| -> Handler {
        let (images, much) = (images.clone(), Arc::clone(&much));
        Box::new(move |request| {
            let answer = answer_from(&images, request);
            match request.path.contains("/blobs/") {
                true => change(answer, &much),
                false => answer,
            }
        })
    };
    let always = |change: fn(&HttpRequest, &[u8]) -> HttpAnswer| -> Handler {
        let much = Arc::clone(&much);
        Box::new(move |request| change(request, &much))
    };
    vec![
        (
            "a blob with another digest",
            blobs(|mut answer, _| {
                let middle = answer.body.len() / 2;
                answer.body[middle] ^= 1;
                answer
            }),
        ),
        (
            "a blob that ends early",
            blobs(|mut answer, _| {
                answer.body.truncate(100);
                answer
            }),
        ),
        (
            "a blob without an end",
            blobs(|mut answer, much| {
                answer.body.extend(much);
                answer
            }),
        ),
        (
            "a manifest without an end",
            always(|_, much| HttpAnswer::ok(much)),
        ),
        (
            "an error without an end",
            always(|_, much| HttpAnswer {
                status: 404,
                ..HttpAnswer::ok(much)
            }),
        ),
        (
            "redirects without an end",
            always(|request, _| {
                HttpAnswer::status(302).with("location", &format!("{}x", request.path))
            }),
        ),
        (
            "tokens redirected without an end",
            always(|request, _| match request.path.starts_with("/token") {
                true => HttpAnswer::status(302).with("location", &format!("{}x", request.path)),
                false => challenge(request),
            }),
        ),
        (
            "a token without an end",
            always(|request, much| match request.path.starts_with("/token") {
                true => HttpAnswer::ok(much),
                false => challenge(request),
            }),
        ),
    ]
}

fn challenge(request: &HttpRequest) -> HttpAnswer {
    let host = &request.headers["host"];
    let challenge = format!("Bearer realm=\"http://{host}/token\",service=\"s\"");
    HttpAnswer::status(401).with("www-authenticate", &challenge)
}

/// Runs it to its end; its status, what it said on stderr, and its peak memory in MiB.
fn watched(mut command: Command, said: &Path) -> (Option<i32>, String, u64) {
    command
        .stdout(Stdio::null())
        .stderr(fs::File::create(said).unwrap());
    let mut child = command.spawn().unwrap();
    let status = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    let code = loop {
        // A high-water mark: what it was a moment before the end is enough.
        let text = fs::read_to_string(&status).unwrap_or_default();
        let mark = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kilobytes = mark.and_then(|mark| mark.split_whitespace().next()?.parse().ok());
        peak = kilobytes.unwrap_or(peak).max(peak);
        if let Some(ended) = child.try_wait().unwrap() {
            break ended.code();
        }
        std::thread::sleep(std::time::Duration::from_millis(1));
    };
    (code, fs::read_to_string(said).unwrap(), peak >> 10)
}

fn size_of(directory: &Path) -> u64 {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(found) if found.is_dir() => size_of(&entry.path()),
            Ok(found) => found.len(),
            Err(_) => 0,
        })
        .sum()
}

#[test]
fn hostile_images_take_little_memory_and_disk() {
    let lost = Lost::new();
    let mut cases: Vec<(&str, HttpServer, String)> = Vec::new();
    for (name, layer) in layers(&lost) {
        let mut images = TestImages::default();
        let digest = images.image(architecture(), &[layer]);
        let server = HttpServer::start(move |request| answer_from(&images, request)).unwrap();
        cases.push((name, server, digest));
    }
    let three: [(&str, LayerNamed); 3] = [
        ("400,000 long names, three times", |name| {
            many_names(name, 400_000)
        }),
        ("windows of 8 MiB, three times", |name| {
            with_window(&name.to_string(), 23)
        }),
        ("windows of 32 MiB, three times", |name| {
            with_window(&name.to_string(), 25)
        }),
    ];
    for (name, layer) in three {
        let mut images = TestImages::default();
        let digest = images.image(architecture(), &[1, 2, 3].map(layer));
        let server = HttpServer::start(move |request| answer_from(&images, request)).unwrap();
        cases.push((name, server, digest));
    }
    let (images, digest) = lost.image(&lost.program);
    let correct = images.clone();
    let correct = HttpServer::start(move |request| answer_from(&correct, request)).unwrap();
    for (name, handler) in peers(&images) {
        let server = HttpServer::start(move |request| handler(request)).unwrap();
        cases.push((name, server, digest.clone()));
    }
    let pull = |server: &HttpServer, digest: &str| {
        let workstation = Workstation::new();
        let image = format!("{}/shop/app@{digest}", server.address);
        let command = workstation.command(&["sysroot", &lost.core(), "--image", &image]);
        (
            watched(command, &lost.beside("said")),
            size_of(workstation.dir.path()),
        )
    };
    // The program's own pages, which are more in an unoptimized build, are not the cost of an image.
    let ((code, said, base), _) = pull(&correct, &digest);
    assert_eq!(code, Some(0), "{said}");
    println!("a correct image: {base} MiB");
    println!(
        "{:<36} {:>6} {:>10} {:>8}",
        "image", "status", "MiB more", "KiB kept"
    );
    for (name, server, digest) in cases {
        let ((code, said, peak), kept) = pull(&server, &digest);
        let more = peak.saturating_sub(base);
        println!(
            "{name:<36} {:>6} {more:>10} {:>8}",
            code.unwrap_or(-1),
            kept >> 10
        );
        assert!(
            code.is_some_and(|code| code <= 4),
            "{name}: {code:?} {said}"
        );
        assert!(!said.contains("panicked"), "{name}: {said}");
        assert!(peak > 0 && more < MEMORY, "{name}: {more} MiB");
        assert!(kept < DISK, "{name}: {kept} bytes");
        // Large, and made by real builders: they are read.
        assert!(
            !name.starts_with("windows") || !said.contains("too much memory"),
            "{name}: {said}"
        );
    }
}
