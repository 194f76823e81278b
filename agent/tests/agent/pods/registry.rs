//! A registry of images that are made here, on 127.0.0.1: a runtime knows the digest of an image only
//! when it has pulled it.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;

use cdh_bundle::Digests;

/// A registry that answers until the process ends.
pub(super) struct Registry {
    address: String,
    /// `repository` → digest of its index.
    digests: HashMap<String, String>,
}

type Blobs = HashMap<String, (&'static str, Vec<u8>)>;

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

impl Registry {
    /// Serves an image for each program, with nothing else in it.
    pub(super) fn serve(programs: &[(&str, &Path)]) -> Self {
        let mut blobs = Blobs::new();
        let mut digests = HashMap::new();
        for (repository, program) in programs {
            let index = image(&std::fs::read(program).unwrap(), &mut blobs);
            let (_, bytes) = blobs[&index].clone();
            blobs.insert(format!("{repository}:1"), (INDEX, bytes));
            digests.insert((*repository).to_owned(), index);
        }
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let blobs = Arc::new(blobs);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let blobs = Arc::clone(&blobs);
                std::thread::spawn(move || answer(&stream, &blobs));
            }
        });
        Self { address, digests }
    }

    /// `127.0.0.1:<port>/<repository>:1`.
    pub(super) fn image(&self, repository: &str) -> String {
        format!("{}/{repository}:1", self.address)
    }

    /// `127.0.0.1:<port>/<repository>@sha256:…`.
    pub(super) fn by_digest(&self, repository: &str) -> String {
        format!("{}/{repository}@{}", self.address, self.digests[repository])
    }
}

/// Adds an index with one manifest for this machine; its digest.
fn image(program: &[u8], blobs: &mut Blobs) -> String {
    let mut add = |kind: &'static str, bytes: Vec<u8>| {
        let digests = Digests::of_reader(bytes.as_slice()).unwrap();
        let digest = format!("sha256:{}", digests.sha256);
        let described = serde_json::json!({
            "mediaType": kind, "digest": digest, "size": bytes.len(),
        });
        blobs.insert(digest.clone(), (kind, bytes));
        (digest, described)
    };
    let (layer_digest, layer) = add(LAYER, tar(program));
    let machine = match std::env::consts::ARCH {
        "aarch64" => "arm64",
        _ => "amd64",
    };
    let config = serde_json::json!({
        "architecture": machine, "os": "linux",
        "config": {"Entrypoint": ["/program"], "Env": ["PATH=/"]},
        "rootfs": {"type": "layers", "diff_ids": [layer_digest]},
    });
    let (_, config) = add(CONFIG, config.to_string().into_bytes());
    let manifest = serde_json::json!({
        "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [layer],
    });
    let (_, mut manifest) = add(MANIFEST, manifest.to_string().into_bytes());
    manifest["platform"] = serde_json::json!({"architecture": machine, "os": "linux"});
    let index = serde_json::json!({
        "schemaVersion": 2, "mediaType": INDEX, "manifests": [manifest],
    });
    add(INDEX, index.to_string().into_bytes()).0
}

/// A tar with one executable file, `program`.
fn tar(program: &[u8]) -> Vec<u8> {
    let mut header = [0_u8; 512];
    let mut put =
        |at: usize, text: &str| header[at..at + text.len()].copy_from_slice(text.as_bytes());
    put(0, "program");
    put(100, "0000755");
    put(108, "0000000");
    put(116, "0000000");
    put(124, &format!("{:011o}", program.len()));
    put(136, "00000000000");
    put(148, "        ");
    put(156, "0");
    put(257, "ustar");
    put(263, "00");
    let sum: u32 = header.iter().map(|&byte| u32::from(byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let mut tar = header.to_vec();
    tar.extend_from_slice(program);
    tar.resize(tar.len().div_ceil(512) * 512 + 1024, 0);
    tar
}

fn answer(stream: &TcpStream, blobs: &Blobs) {
    let mut reader = BufReader::new(stream);
    loop {
        let mut request = String::new();
        if reader.read_line(&mut request).unwrap_or(0) == 0 {
            return;
        }
        let mut line = String::new();
        while reader.read_line(&mut line).unwrap_or(0) > 2 {
            line.clear();
        }
        let mut words = request.split(' ');
        let (method, path) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
        // /v2/<repository>/{manifests,blobs}/<digest or tag>
        let path = path.split('?').next().unwrap_or("");
        let parts: Vec<&str> = path.split('/').collect();
        let name = match parts.as_slice() {
            [_, _, .., last] if last.starts_with("sha256:") => (*last).to_owned(),
            [_, _, repository @ .., _, tag] => format!("{}:{tag}", repository.join("/")),
            _ => String::new(),
        };
        let (status, kind, body): (_, _, &[u8]) = match blobs.get(&name) {
            Some((kind, bytes)) => ("200 OK", *kind, bytes),
            None if parts.len() <= 3 => ("200 OK", "application/json", b"{}"),
            None => ("404 Not Found", "application/json", b"{}"),
        };
        let digest = match name.contains("sha256:") || body == b"{}" {
            true => name.clone(),
            false => format!("sha256:{}", Digests::of_reader(body).unwrap().sha256),
        };
        let head = format!(
            "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nDocker-Content-Digest: {digest}\r\n\r\n",
            body.len()
        );
        let body = if method == "HEAD" { &[][..] } else { body };
        let mut out = stream;
        if out
            .write_all(head.as_bytes())
            .and_then(|()| out.write_all(body))
            .is_err()
        {
            return;
        }
    }
}
