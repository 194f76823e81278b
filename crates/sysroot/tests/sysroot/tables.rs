//! Layers with a table of contents.

use cdh_sysroot::Lookup;
use cdh_testkit::{HttpServer, Packing, TestImages, TestLayer, answer_from};

use super::{Workstation, bytes_of, elf, module, noise, plain, registry, serve};

fn image(images: &mut TestImages, packing: Packing) -> String {
    let layer = TestLayer::new()
        .file("var/first", &noise(6 << 20, 1))
        .file("usr/lib/libx.so", &elf(3, 3 << 20))
        .symlink("lib", "usr/lib")
        .hard_link("usr/lib/other.so", "usr/lib/libx.so")
        .file("etc/config", b"text")
        .file("var/last", &noise(6 << 20, 2))
        .pack(packing);
    images.image("amd64", &[layer])
}

#[test]
fn files_are_had_by_ranges_where_a_layer_has_a_table() {
    for packing in [Packing::Stargz, Packing::Chunked] {
        let mut images = TestImages::default();
        let digest = image(&mut images, packing);
        let server = serve(&images);
        let (workstation, known) = (Workstation::new(), registry());
        let name = format!("{}/app@{digest}", server.address);
        let wanted = [
            module("/lib/other.so", 3),
            plain("/etc/config"),
            plain("/var/nothing"),
        ];
        let pulled = workstation.pull(Some(&known), &name, &wanted).unwrap();
        assert!(pulled.problem.is_none(), "{packing:?} {:?}", pulled.problem);
        assert_eq!(bytes_of(&pulled.answers[0]), elf(3, 3 << 20));
        assert_eq!(bytes_of(&pulled.answers[1]), b"text");
        assert!(matches!(pulled.answers[2], Lookup::Absent(_)));
        assert!(
            known.received() < 4 << 20,
            "{packing:?}: {} bytes",
            known.received()
        );
        let again = registry();
        workstation.pull(Some(&again), &name, &wanted).unwrap();
        assert_eq!(again.received(), 0, "{packing:?}");
    }
}

#[test]
fn registry_without_ranges_is_read_from_the_beginning() {
    for packing in [Packing::Stargz, Packing::Chunked] {
        let mut images = TestImages::default();
        let digest = image(&mut images, packing);
        let copy = images.clone();
        let server = HttpServer::start(move |request| {
            let mut request = request.clone();
            request.headers.remove("range");
            answer_from(&copy, &request)
        });
        let server = server.unwrap();
        let name = format!("{}/app@{digest}", server.address);
        let workstation = Workstation::new();
        let pulled = workstation.pull(
            Some(&registry()),
            &name,
            &[module("/usr/lib/libx.so", 3), plain("/etc/config")],
        );
        let pulled = pulled.unwrap();
        assert_eq!(bytes_of(&pulled.answers[0]), elf(3, 3 << 20), "{packing:?}");
        assert_eq!(bytes_of(&pulled.answers[1]), b"text", "{packing:?}");
    }
}

#[test]
fn changed_file_or_table_is_refused_by_its_digest() {
    for packing in [Packing::Stargz, Packing::Chunked] {
        let mut images = TestImages::default();
        let digest = image(&mut images, packing);
        for spoil_table in [false, true] {
            let copy = images.clone();
            let server = HttpServer::start(move |request| {
                let mut answer = answer_from(&copy, request);
                let length = answer.body.len();
                // The table is small, the file has megabytes.
                let is_file = length > 1 << 20;
                if answer.status == 206 && length > 60 && is_file != spoil_table {
                    answer.body[length / 2] ^= 0x55;
                }
                answer
            });
            let server = server.unwrap();
            let name = format!("{}/app@{digest}", server.address);
            let workstation = Workstation::new();
            let pulled = workstation
                .pull(Some(&registry()), &name, &[module("/usr/lib/libx.so", 3)])
                .unwrap();
            assert!(pulled.problem.is_some(), "{packing:?} {spoil_table}");
            assert!(
                matches!(pulled.answers[0], Lookup::Absent(_)),
                "{packing:?} {spoil_table}"
            );
        }
    }
}
